//! Every bound this crate enforces, each with its unit.

use std::time::Duration;

/// Longest wait for a report's acknowledgement, which comes after a commit.
pub const REPORT_ACK_TIMEOUT: Duration = Duration::from_secs(10);
/// Questions answered at the same time.
pub const QUESTIONS_CONCURRENCY_MAX: usize = 4;
/// Questions that are being answered or wait for that; more are ignored. Whoever follows the log of every instance on
/// a node asks of all of them at once.
pub const QUESTIONS_HELD_MAX: usize = 64;
/// Most bytes of log lines in one answer, as JSON: [`stele_bus::limits::ANSWER_BYTES_MAX`] with room for the rest.
pub const LOGS_ANSWER_BYTES_MAX: usize = 768 * 1024;
/// Most bytes that the time of a log line, and which stream it is of, take in an answer: until the year 9999.
pub const STAMP_BYTES_MAX: usize = 24;
/// Longest wait for the container engine when a question is answered.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);
/// An image that nothing needs is removed after so long, unless the host says otherwise.
pub const UNNEEDED_IMAGE_GRACE: Duration = Duration::from_hours(24);
/// Longest pause between two looks at which images are needed.
pub const PRUNE_INTERVAL: Duration = Duration::from_mins(10);
/// Shortest pause between two looks, and between two removals of images.
pub const PRUNE_INTERVAL_MIN: Duration = Duration::from_millis(200);
/// Longest wait for the container engine to tell its images, or to remove one. Reconciling waits
/// meanwhile, so that nothing that is being removed is needed at the same time.
pub const IMAGE_REMOVAL_TIMEOUT: Duration = Duration::from_secs(20);
/// Largest file the agent reads from its data directory, in bytes.
pub const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Attempts to lock the data directory before another agent is taken to hold it.
pub const LOCK_ATTEMPTS: u32 = 5;
/// Between two attempts to lock the data directory.
pub const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// Longest wait for a controller to answer a request to join.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer to a request to join, in bytes.
pub const JOIN_ANSWER_BYTES_MAX: u64 = 1024 * 1024;
/// A clock before this was never set, and is not believed. Microseconds since 1970 (2026-01-01).
pub const CLOCK_US_MIN: u64 = 1_767_225_600_000_000;
