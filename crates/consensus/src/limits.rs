//! Every bound of this crate, each with its unit.

/// Ticks without a word from the leader before a follower stands for election
/// (the actual timeout is drawn from `[ELECTION_TICKS, 2 * ELECTION_TICKS)`).
///
/// With ticks of 100 ms a new leader stands well within 3 s, a split vote included.
pub const ELECTION_TICKS: usize = 8;

/// Ticks between two heartbeats of a leader.
pub const HEARTBEAT_TICKS: usize = 2;

/// Largest entry this crate proposes, in bytes. A decision is at most 8 MiB;
/// the rest is room for headers and for batching small decisions together.
pub const MAX_ENTRY_BYTES: usize = 16 * 1024 * 1024;

/// Soft size of one append message, in bytes: an append carries entries up to
/// this size, or one entry when that alone is larger.
pub const MAX_APPEND_BYTES: u64 = 1024 * 1024;

/// Append messages in flight to one follower.
pub const MAX_INFLIGHT_APPENDS: usize = 128;

/// Bytes proposed and not yet committed, before proposals are refused.
pub const MAX_UNCOMMITTED_BYTES: u64 = 64 * 1024 * 1024;

/// Soft size of the committed entries handed out in one ready cycle, in bytes: while they are applied, no
/// message is read and the driver sends nothing.
pub const MAX_COMMITTED_BYTES_PER_READY: u64 = 1024 * 1024;

/// Linearizable reads waiting for their quorum at one leader.
pub const MAX_PENDING_READS: usize = 4096;

/// Largest context of a linearizable read, in bytes.
pub const MAX_READ_CONTEXT_BYTES: usize = 64;

/// Entries a learner may lag behind the leader's commit and still be promoted.
pub const PROMOTE_MAX_LAG_ENTRIES: u64 = 64;

/// Ticks after which a snapshot that was sent and never confirmed is sent again.
pub const SNAPSHOT_RETRY_TICKS: u64 = 300;

/// Members of one cluster, voters and learners together.
pub const MAX_MEMBERS: usize = 15;
/// Largest term or raft index that is believed, as a count: half of what a number holds, so that counting on
/// never overflows.
pub const MAX_NUMBER: u64 = u64::MAX / 2;
