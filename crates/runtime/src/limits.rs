//! Every bound this crate enforces, each with its unit.

/// Images pulled at the same time by one agent.
pub const PULLS_MAX: usize = 3;
/// Containers inspected at the same time by one agent.
pub const INSPECTS_MAX: usize = 8;
/// Between looks at the engine when nothing is known to have changed. Milliseconds.
pub const POLL_INTERVAL_MS: u64 = 5_000;
/// Shortest pause between two looks. Milliseconds.
pub const WAKE_MS_MIN: u64 = 20;
/// Pause after a look at the engine, in times of how long the look took.
pub const REST_PER_LOOK: u32 = 2;
/// A request to the engine that should be quick has failed after this. Milliseconds.
pub const REQUEST_TIMEOUT_MS: u64 = 30_000;
/// A pull has failed after this. Milliseconds (30 minutes).
pub const PULL_TIMEOUT_MS: u64 = 30 * 60 * 1_000;
/// Added to a container's stop grace before the request to stop it has failed. Milliseconds.
pub const STOP_MARGIN_MS: u64 = 30_000;
/// After an interrupted subscription to the engine's events. Milliseconds.
pub const EVENTS_RETRY_MS: u64 = 1_000;
/// Reading a failed container's last log lines has failed after this. Milliseconds.
pub const LOG_TAIL_TIMEOUT_MS: u64 = 5_000;
/// Most bytes of an HTTP health check's answer read for its status line.
pub const HTTP_STATUS_BYTES_MAX: usize = 4096;
/// Most bytes kept of what a failed exec health check printed.
pub const EXEC_OUTPUT_BYTES_MAX: usize = 512;
