//! Every bound this crate enforces, each with its unit.

/// Leaves of the largest tree. Signed 64-bit numbers hold it, so a reader in any language can.
pub const TREE_LEAVES_MAX: u64 = i64::MAX as u64;
/// Levels of tree hashes that one tile spans.
pub const TILE_HEIGHT: u32 = 8;
/// Hashes in a full tile, and entries in a full bundle.
pub const TILE_WIDTH: u16 = 256;
/// Levels of tiles in the largest tree.
pub const TILE_LEVELS_MAX: u8 = 8;
/// Longest path of a tile, in bytes.
pub const TILE_PATH_BYTES_MAX: usize = 64;
/// Largest entry of a bundle, in bytes: its length is two bytes.
pub const ENTRY_BYTES_MAX: usize = 65_535;
/// Largest signed note, in bytes.
pub const NOTE_BYTES_MAX: usize = 64 * 1024;
/// Most signatures on one note.
pub const NOTE_SIGNATURES_MAX: usize = 100;
/// Longest name of a note's key, in bytes.
pub const KEY_NAME_BYTES_MAX: usize = 255;
/// Longest signature on one line of a note, in bytes: post-quantum ones of others must fit to be skipped.
pub const SIGNATURE_BYTES_MAX: usize = 16 * 1024;
/// Most records in one evidence pack, and most hashes and records outside its range.
pub const PACK_RECORDS_MAX: usize = 4_000_000;
/// Most checkpoints in one evidence pack.
pub const PACK_CHECKPOINTS_MAX: usize = 64;
