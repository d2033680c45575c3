//! Every bound of this crate, each with its unit.

/// Free disk space below which nothing is written any more, in bytes. `RocksDB`
/// needs room to compact; a disk filled to the last byte cannot be repaired.
pub const DISK_RESERVE_BYTES: u64 = 64 * 1024 * 1024;

/// Newest raft entries kept in memory, in bytes.
pub const RECENT_ENTRIES_BYTES: usize = 32 * 1024 * 1024;

/// Records checked when a store is opened, counted back from the last one.
pub const VERIFY_TAIL_RECORDS: u64 = 1024;

/// Bytes of records read at once while verifying all of them.
pub const VERIFY_CHUNK_BYTES: usize = 8 * 1024 * 1024;

/// Write-ahead log kept before memtables are flushed, in bytes.
pub const MAX_WAL_BYTES: u64 = 256 * 1024 * 1024;

/// Derived values that a crash takes back, about, in bytes: then they are written out.
pub const DERIVED_UNFLUSHED_BYTES: u64 = 16 * 1024 * 1024;

/// Records, snapshots and derived data compressed together, in bytes. Records repeat names, and four times
/// `RocksDB`'s own size lets more of them be told once; a read of one record unpacks that much.
pub const COMPRESSED_BLOCK_BYTES: usize = 16 * 1024;

/// Bytes of a snapshot that are stored under one key.
pub const SNAPSHOT_PART_BYTES: usize = 256 * 1024;

/// All memtables together, in bytes.
pub const MEMTABLE_BYTES: usize = 128 * 1024 * 1024;

/// Files `RocksDB` keeps open.
pub const MAX_OPEN_FILES: i32 = 512;

/// `RocksDB`'s own text logs: files kept.
pub const INFO_LOG_FILES: usize = 2;

/// `RocksDB`'s own text logs: size of one, in bytes.
pub const INFO_LOG_BYTES: usize = 4 * 1024 * 1024;

/// Longest fleet id, in bytes.
pub const MAX_FLEET_ID_BYTES: usize = 128;

/// Longest key of derived data, in bytes.
pub const MAX_DERIVED_KEY_BYTES: usize = 4096;
