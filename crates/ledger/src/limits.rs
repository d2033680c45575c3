//! Every bound this crate enforces, each with its unit.

/// Records collected into one Raft entry before it is closed.
pub const BATCH_RECORDS_MAX: usize = 4096;
/// Bytes collected into one Raft entry before it is closed: an entry is applied in one go.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Entries proposed and not yet committed.
pub const IN_FLIGHT_MAX: usize = 64;
/// How far a leader's wall clock may be from the median of the controllers' before somebody else must
/// lead, in microseconds (10 seconds). Messages between controllers take less.
pub const CLOCK_OFF_US_MAX: u64 = 10_000_000;
/// How far log time may stay behind the wall clock of a leader whose clock is fit, in microseconds (1 second): the
/// monotonic clock stands still while a machine sleeps, and a wall clock may be set right after the term began.
pub const LOG_TIME_BEHIND_US_MAX: u64 = 1_000_000;
/// A reading of another controller's clock older than this says nothing, in microseconds (1 minute).
pub const CLOCK_READING_AGE_US_MAX: u64 = 60_000_000;
/// Records between two milestones, from which past States are rebuilt: the longest replay of a read.
pub const MILESTONE_INTERVAL_RECORDS: u64 = 1_024;
/// Records between two recorded State digests.
pub const STATE_DIGEST_INTERVAL_RECORDS: u64 = 1000;
