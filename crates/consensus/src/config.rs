//! Settings of one replica.

use crate::error::StartError;
use crate::limits;

/// Picks the election timeout, in ticks, of a replica (by id) in a term.
/// Answers outside of `[election_ticks, 2 * election_ticks)` are clamped.
pub type ElectionTimeout = Box<dyn Fn(u64, u64) -> usize + Send>;

/// Settings of one replica. `pre_vote` and `check_quorum` are always on: without
/// them a member that was cut off deposes a healthy leader when it returns, and
/// a leader that was cut off goes on believing in itself.
pub struct Config {
    /// This replica, at least 1, never used before by another.
    pub id: u64,
    /// See [`limits::ELECTION_TICKS`].
    pub election_ticks: usize,
    /// See [`limits::HEARTBEAT_TICKS`].
    pub heartbeat_ticks: usize,
    /// See [`limits::MAX_APPEND_BYTES`].
    pub max_append_bytes: u64,
    /// See [`limits::MAX_INFLIGHT_APPENDS`].
    pub max_inflight_appends: usize,
    /// See [`limits::MAX_UNCOMMITTED_BYTES`].
    pub max_uncommitted_bytes: u64,
    /// See [`limits::MAX_COMMITTED_BYTES_PER_READY`].
    pub max_committed_bytes_per_ready: u64,
    /// See [`limits::SNAPSHOT_RETRY_TICKS`].
    pub snapshot_retry_ticks: u64,
    /// Whether a leader keeps it to itself at first that an entry is committed: the next append tells it
    /// along, and [`Driver::tell_commit`](crate::Driver::tell_commit) tells it where none follows. Otherwise
    /// every commit costs each follower a message, a cycle and a write of its own.
    pub lets_commits_ride: bool,
    /// Replaces raft's own random numbers, so that a simulation repeats exactly.
    pub election_timeout: Option<ElectionTimeout>,
    /// Where raft's own log lines go; nowhere by default.
    pub logger: slog::Logger,
}

impl Config {
    /// The defaults for one replica; every size is bounded.
    pub fn new(id: u64) -> Self {
        Self {
            id,
            election_ticks: limits::ELECTION_TICKS,
            heartbeat_ticks: limits::HEARTBEAT_TICKS,
            max_append_bytes: limits::MAX_APPEND_BYTES,
            max_inflight_appends: limits::MAX_INFLIGHT_APPENDS,
            max_uncommitted_bytes: limits::MAX_UNCOMMITTED_BYTES,
            max_committed_bytes_per_ready: limits::MAX_COMMITTED_BYTES_PER_READY,
            snapshot_retry_ticks: limits::SNAPSHOT_RETRY_TICKS,
            lets_commits_ride: false,
            election_timeout: None,
            logger: slog::Logger::root(slog::Discard, slog::o!()),
        }
    }

    pub(crate) fn to_raft(&self, applied: u64) -> Result<raft::Config, StartError> {
        let config = raft::Config {
            id: self.id,
            election_tick: self.election_ticks,
            heartbeat_tick: self.heartbeat_ticks,
            applied,
            max_size_per_msg: self.max_append_bytes,
            max_inflight_msgs: self.max_inflight_appends,
            check_quorum: true,
            pre_vote: true,
            read_only_option: raft::ReadOnlyOption::Safe,
            max_uncommitted_size: self.max_uncommitted_bytes,
            max_committed_size_per_ready: self.max_committed_bytes_per_ready,
            skip_bcast_commit: self.lets_commits_ride,
            ..raft::Config::default()
        };
        config.validate().map_err(|error| StartError::Config(error.to_string()))?;
        Ok(config)
    }
}
