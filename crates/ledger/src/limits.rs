//! Every bound this crate enforces, each with its unit.

/// Records collected into one Raft entry before it is closed.
pub const BATCH_RECORDS_MAX: usize = 4096;
/// Bytes collected into one Raft entry before it is closed.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Entries proposed and not yet committed.
pub const IN_FLIGHT_MAX: usize = 64;
/// Records between two recorded State digests.
pub const STATE_DIGEST_INTERVAL_RECORDS: u64 = 1000;
