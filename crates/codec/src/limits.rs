//! Every bound this crate enforces, each with its unit.

/// Largest encoded Raft entry, in bytes: a decision of the largest size, with room for framing.
pub const ENTRY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Largest encoded snapshot of State, in bytes. Of a larger State none is made.
pub const SNAPSHOT_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Largest message between controllers, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most records in one Raft entry.
pub const RECORDS_PER_ENTRY_MAX: u32 = 65_536;
