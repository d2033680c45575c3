//! Every bound of the client, each with its unit.

use std::time::Duration;

/// How long one request may take, answer included, when it is not a stream.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long opening a connection may take before the next controller is tried.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an unanswered or refused-for-now request is tried again, under the same idempotency key.
pub(crate) const RETRY_DEADLINE: Duration = Duration::from_secs(30);
/// Pause before the first repetition; it doubles up to [`RETRY_PAUSE_MAX`].
pub(crate) const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause between repetitions.
pub(crate) const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Between two looks at a deployment that is waited for.
pub(crate) const WAIT_PAUSE: Duration = Duration::from_millis(400);
/// How long a deployment is waited for unless asked otherwise, in seconds.
pub(crate) const WAIT_SECONDS_DEFAULT: u64 = 900;
/// Largest answer read, in bytes.
pub(crate) const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Largest secret read from standard input, in bytes.
pub(crate) const SECRET_BYTES_MAX: u64 = 64 * 1024;
/// Differences printed of one plan before the rest is only counted.
pub(crate) const DIFFERENCES_SHOWN_MAX: usize = 200;
/// Longest value printed in a table cell, in characters.
pub(crate) const CELL_CHARS_MAX: usize = 80;
/// Random bytes of an idempotency key.
pub(crate) const KEY_BYTES: usize = 16;
/// How much further back each look for the newest events goes than the one before.
pub(crate) const LOOK_BACK_FACTOR: u64 = 4;
