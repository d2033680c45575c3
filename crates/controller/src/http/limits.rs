//! Every bound of the HTTP API beyond [`stele_api::limits`], each with its unit.

use std::time::Duration;

/// Longest a client may take to send its body.
pub(super) const BODY_DEADLINE: Duration = Duration::from_secs(30);
/// Largest body of whoever has shown no token, in bytes: of a node that joins.
pub(super) const STRANGERS_BODY_BYTES_MAX: usize = 64 * 1024;
/// Of a body that is too large, what is read before the answer is given, in times of what it may have.
pub(super) const BODY_DRAINED_FACTOR: usize = 8;
/// What a refused-for-now client is told to wait, in seconds.
pub(super) const RETRY_AFTER_SECONDS: u64 = 1;
/// Records looked at for one page of filtered events.
pub(super) const EVENTS_SCANNED_MAX: usize = 20_000;
/// Records read from the store at once while looking for events.
pub(super) const RECORDS_PER_SCAN: usize = 500;
/// Between two signs of life on a stream without events.
pub(super) const STREAM_KEEPALIVE: Duration = Duration::from_secs(15);
/// Longest a change waits until this controller, too, knows it is committed.
pub(super) const APPLY_DEADLINE: Duration = Duration::from_secs(5);
/// Longest wait for a node's log lines.
pub(super) const LOGS_DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks at a followed log.
pub(super) const LOGS_FOLLOW_INTERVAL: Duration = Duration::from_secs(1);
/// Lines looked at anew while following a log.
pub(super) const LOGS_FOLLOW_LINES: u32 = 500;
/// How long a node that does not answer is asked again before a followed log breaks off.
pub(super) const LOGS_FOLLOW_PATIENCE: Duration = Duration::from_secs(30);
/// Longest a removed controller may take to leave Raft's configuration.
pub(super) const LEAVE_DEADLINE: Duration = Duration::from_secs(10);
/// Random bytes of a token.
pub(super) const TOKEN_BYTES: usize = 32;
/// Longest text a refusal's record says it was about, in bytes.
pub(super) const TARGET_BYTES_MAX: usize = 512;
/// Payloads on one page of events, after which it ends early, in bytes.
pub(super) const EVENTS_PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Records looked at for the changes of one principal that an undo takes back.
pub(super) const UNDO_RECORDS_SCANNED_MAX: u64 = 1_000_000;
/// Steps of the planner that a what-if plays.
pub(super) const WHAT_IF_STEPS_MAX: usize = 10_000;
/// Records looked up for one why.
pub(super) const WHY_LOOKUPS_MAX: usize = 200;
/// Records looked at, in all, for one why, where no index names the one in question.
pub(super) const WHY_RECORDS_SCANNED_MAX: u64 = 200_000;
/// Registries asked at once whether they have an image.
pub(super) const IMAGES_ASKED_AT_ONCE: usize = 16;
/// Nodes asked at once whether they have images.
pub(super) const NODES_ASKED_AT_ONCE: usize = 256;
/// Longest wait for a node's word on that.
pub(super) const IMAGES_DEADLINE: Duration = Duration::from_secs(3);
/// Longest wait for a node's word on its ports: without it, they are taken to be free.
pub(super) const PORTS_DEADLINE: Duration = Duration::from_secs(1);
/// First, short wait for a registry's word, before nodes are asked.
pub(super) const REGISTRY_DEADLINE_FIRST: Duration = Duration::from_secs(1);
/// Ranges of records that one problem names.
pub(super) const RANGES_NAMED: usize = 3;
/// Nodes that one refusal names.
pub(super) const NODES_NAMED: usize = 3;
