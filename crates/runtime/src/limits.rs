//! Every bound this crate enforces, each with its unit.

use std::time::Duration;

/// Images pulled at the same time by one agent.
pub const PULLS_MAX: usize = 3;
/// Containers inspected at the same time by one agent.
pub const INSPECTS_MAX: usize = 8;
/// Between looks at the engine when nothing is known to have changed. Milliseconds.
pub const POLL_INTERVAL_MS: u64 = 10_000;
/// Shortest pause between two looks. Milliseconds.
pub const WAKE_MS_MIN: u64 = 20;
/// Longest pause after a look that took long, and the pause after one that failed. Milliseconds.
pub const REST_MS_MAX: u64 = 5_000;
/// Pause after a look at the engine, in times of how long the look took.
pub const REST_PER_LOOK: u32 = 1;
/// Containers that one agent creates, starts or removes at the same time, for each processor. More would
/// all take longer, the first one too.
pub const WORK_PER_PROCESSOR: usize = 4;
/// The same where there are few processors.
pub const WORK_MIN: usize = 8;
/// A container that another one replaces counts as work while it stops, but no longer than this: one that
/// takes its time keeps no others from being replaced.
pub const STOP_WORK_MAX: Duration = Duration::from_millis(500);
/// A request to the engine that should be quick has failed after this. Milliseconds.
pub const REQUEST_TIMEOUT_MS: u64 = 30_000;
/// A look at one container among all has failed after this: what the engine is at work with may not be answered for,
/// and all others wait so long. Milliseconds.
pub const LOOK_TIMEOUT_MS: u64 = 3_000;
/// A pull has failed that gets no further for this long, however long it takes as a whole. The engine unpacks a large
/// layer in silence.
pub const PULL_STALL_MAX: Duration = Duration::from_mins(10);
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
/// Between two inspections of a container whose image, configuration and files are compared with
/// its spec, when nothing is known to have changed and there are not many. Milliseconds.
pub const INSPECTION_INTERVAL_MS: u64 = 30_000;
/// Changes heard of that are taken in before a look. Others are taken in after it.
pub const CHANGES_PER_STEP_MAX: usize = 1024;
/// Differences told of one container.
pub const INSPECTION_DIFFERENCES_MAX: usize = 8;
/// Added to a file's size for how much of its archive is read back at most: headers and padding. Bytes.
pub const ARCHIVE_MARGIN_BYTES: usize = 64 * 1024;
/// Inspecting one container has failed after this. Milliseconds.
pub const INSPECTION_TIMEOUT_MS: u64 = 30_000;
/// Containers inspected before what was found is told; the others follow at once.
pub const INSPECTIONS_PER_ROUND_MAX: usize = 32;
