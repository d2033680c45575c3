//! Every bound this crate enforces, each with its unit.

/// Largest body of a signed assignment, in bytes.
pub const ASSIGNMENT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most wrapped keys in one assignment.
pub const WRAPPED_KEYS_MAX: usize = 10_000;
/// Most images an agent remembers to have pulled; what it pulls beyond that it never removes.
pub const PULLED_IMAGES_MAX: usize = 10_000;
/// A container that ended this often without a stable run in between keeps ending.
pub const CRASH_LOOP_ENDS: u32 = 3;
/// What failed at so many attempts in a row that the engine answered has failed. One failure alone, such as that of a
/// registry that is busy, would end the deployment of a whole fleet though the next attempt succeeds.
pub const FAILED_ATTEMPTS: u32 = 3;
/// How long the engine may be out of reach until nothing counts as healthy any more, in milliseconds. Longer than a
/// restart of the engine takes.
pub const UNSEEN_GRACE_MS: u64 = 30_000;
/// After so many containers in a row that differ from what was asked for as soon as they are seen, and alike, it is the
/// engine that makes them so: the last one stays.
pub const MADE_OTHERWISE_TIMES: u32 = 3;
/// A container up for this long runs stably: earlier ends no longer count. Milliseconds.
pub const STABLE_MS: u64 = 10_000;
/// Without a health check, a container up for this long is healthy. Long enough to
/// not call one healthy that ends at once. Milliseconds.
pub const SETTLE_MS: u64 = 1_000;
/// Pause after the first failed attempt, doubled after each further one. Milliseconds.
pub const BACKOFF_BASE_MS: u64 = 1_000;
/// Longest pause between attempts. Milliseconds.
pub const BACKOFF_MAX_MS: u64 = 60_000;
/// Longest pause between health checks while a container starts, so that it is
/// found healthy soon even when its interval is long. Milliseconds.
pub const START_INTERVAL_MS: u64 = 500;
/// Longest reason in a report, in bytes.
pub const REASON_BYTES_MAX: usize = 1024;
/// Shortest pause between two inspections of one run of a container, also when something is known
/// to have changed. Milliseconds.
pub const INSPECTION_MS_MIN: u64 = 5_000;
/// Pause between two inspections of a container, for each container of a node, where there are many and
/// nothing is known to have changed. Milliseconds.
pub const INSPECTION_SPACING_MS: u64 = 250;
/// Longest pause between two inspections of a container, however many there are. Milliseconds.
pub const INSPECTION_MS_MAX: u64 = 60_000;
const _: () = assert!(
    INSPECTION_MS_MAX * 1_000 * 2 <= stele_model::limits::INSPECTION_AGE_US_MAX,
    "what a node states would be too old to count"
);
/// Between heartbeats, in milliseconds, before jitter.
pub const HEARTBEAT_MS: u64 = 10_000;
/// Longest pause between two heartbeats, however many reports are acknowledged meanwhile, in milliseconds.
pub const HEARTBEAT_MS_MAX: u64 = 17_000;
/// Longest pause between two heartbeats without reports: what jitter may make of it, in milliseconds.
pub(crate) const HEARTBEAT_JITTERED_MS_MAX: u64 = HEARTBEAT_MS + HEARTBEAT_MS / 4;
const _: () = assert!(
    (HEARTBEAT_MS_MAX + HEARTBEAT_JITTERED_MS_MAX) * 1_000 < stele_model::limits::STATEMENT_AGE_US_MAX,
    "what a node states would be too old to count as soon as one heartbeat is lost"
);
/// Between sync requests when nothing gives reason for one, in milliseconds, before jitter.
pub const SYNC_MS: u64 = 60_000;
/// Shortest pause between two sync requests, in milliseconds; doubled while they do not help.
pub const SYNC_RETRY_FIRST_MS: u64 = 1_000;
/// Longest pause between two sync requests that did not help, in milliseconds.
pub const SYNC_RETRY_MS_MAX: u64 = 60_000;
/// Shortest pause between two reports with different content, in milliseconds.
pub const REPORT_MS_MIN: u64 = 200;
/// Pause between two reports with different content, on average, in milliseconds.
pub const REPORT_MS: u64 = 1_000;
/// How long what is awaited waits for an instance that was stopped to be gone, in milliseconds. That mostly takes
/// a moment, and whoever waits for a rollout's end waits for both.
pub const REPORT_LEAVING_MS: u64 = 500;
/// The longest it waits where acknowledgements take long, in milliseconds.
pub const REPORT_LEAVING_MS_MAX: u64 = 2_000;
/// How long what is only on its way (pulled, starting) has to come to something before it is told, in
/// milliseconds. Longer than a container without a health check takes to count as healthy, on a busy host, too.
pub const REPORT_PROGRESS_MS: u64 = 3_000;
/// The longest it has where acknowledgements take long, in milliseconds.
pub const REPORT_PROGRESS_MS_MAX: u64 = 10_000;
/// Pause after news of what a rollout waits for before a report that only tells that some more instances are well
/// while others are on their way, in milliseconds. A node that starts many has a few such reports to send, and the
/// last one waits for nothing.
pub const REPORT_PARTIAL_MS: u64 = 500;
/// The longest that pause is where acknowledgements take long, in milliseconds. A rollout waits for it.
pub const REPORT_PARTIAL_MS_MAX: u64 = 2_000;
/// How many times as long as the last acknowledgement took these waits are, between their bounds.
pub const REPORT_BUSY_ROUND_TRIPS: u64 = 4;
/// After which a node tells all once more that it has told and that was acknowledged, in milliseconds; up to half of it
/// longer, so that not all do it at once. Nothing is logged where it is known.
pub const REPORT_REFRESH_MS: u64 = 300_000;
/// Reports that may follow each other faster than on average, if they tell what a rollout waits for:
/// that an instance is healthy, failed or gone.
pub const REPORT_BURST: u64 = 16;
/// Shortest pause before a report is sent again, in milliseconds; doubled at each further time.
pub const REPORT_RETRY_FIRST_MS: u64 = 1_000;
/// Longest pause before a report is sent again, in milliseconds.
pub const REPORT_RETRY_MS_MAX: u64 = 30_000;
/// Largest report's body, in bytes; log lines of failed instances are left out above it. Escaping
/// the body as text makes it larger on the wire.
pub const REPORT_BODY_BYTES_MAX: usize = 2 * 1024 * 1024 - 1024;
