//! Every bound this crate enforces, each with its unit.

/// Events published before the first acknowledgement is awaited.
pub const FEED_BATCH_RECORDS: usize = 256;
/// Between looks at a feed that has nothing new, in case it was deleted, in milliseconds.
pub const FEED_CHECK_MS: u64 = 30_000;
/// Shortest pause after a failure to publish, in milliseconds; doubled at each further one.
pub const FEED_RETRY_FIRST_MS: u64 = 200;
/// Longest pause after a failure to publish, in milliseconds.
pub const FEED_RETRY_MS_MAX: u64 = 10_000;
