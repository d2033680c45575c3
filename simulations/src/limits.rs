//! Every bound of the simulator, each with its unit. Those that stand for a bound of the
//! controller's or the agent's shell carry its value.

/// One Raft tick, in microseconds, as in the controller.
pub const TICK_US: u64 = 100_000;
/// How long a leader waits for a proposal that tells along what is committed, as in a real controller.
pub const COMMIT_RIDE_US: u64 = 1_000;
/// Between two looks at deadlines, lost nodes and learners, in microseconds, as in the controller.
pub const HOUSEKEEPING_US: u64 = 500_000;
/// After which an unanswered ReadIndex is asked again, in microseconds, as in the controller.
pub const READ_RETRY_US: u64 = 300_000;
/// Commands the conductor gives before others get a turn, as in the controller.
pub const CONDUCTOR_COMMANDS_MAX: usize = 1000;
/// A node not heard of for this long is lost, in microseconds, as in the controller.
pub const NODE_GRACE_US: u64 = 30_000_000;
/// Between the first two offers of an assignment to a node that is behind, in microseconds, as in the controller.
pub const RESEND_US: u64 = 5_000_000;
/// Longest until the next heartbeat of such a node has it offered again, in microseconds, as in the controller.
pub const RESEND_US_MAX: u64 = 20_000_000;
/// How long reports are collected into one record, in microseconds, as in the controller.
pub const REPORT_BATCH_US: u64 = 50_000;
/// Reports in one record, as in the controller.
pub const REPORTS_PER_BATCH_MAX: usize = 256;
/// Longest wait for an answer of JetStream, in microseconds, as in the NATS client.
pub const FEED_ANSWER_US: u64 = 5_000_000;
/// Longest wait for a report's acknowledgement, in milliseconds, as in the agent.
pub const REPORT_ACK_MS: u64 = 10_000;
/// Longest wait for the answer to a sync request, in milliseconds, as in the agent.
pub const SYNC_ANSWER_MS: u64 = 5_000;
/// Between looks at the container engine when nothing changed, in milliseconds, as in the agent.
pub const POLL_MS: u64 = 10_000;
/// Between two looks at what a hanging engine was asked for, in milliseconds.
pub const HANG_LOOK_MS: u64 = 500;
/// The exit code of a container whose image makes it end at once.
pub const CRASH_CODE: i64 = 3;
/// Times that a container is started, and ends each time, until that is a crash loop.
pub const LOOP_STARTS: u32 = 3;
/// Longest a client waits for an answer before it asks somebody else, in microseconds.
pub const CLIENT_WAIT_US: u64 = 8_000_000;
/// Between two attempts of a client, in microseconds.
pub const CLIENT_RETRY_US: u64 = 200_000;
/// Attempts of a client at one request before it gives up and never learns the outcome.
pub const CLIENT_ATTEMPTS_MAX: u32 = 12;
/// Lines of a run kept in words.
pub const TRACE_LINES_KEPT: usize = 60;
/// Virtual time before the first record of a run, in microseconds since 1970 (2027-01-15).
pub const EPOCH_US: u64 = 1_800_000_000_000_000;
/// How far the log may be ahead of time beyond what the controllers' clocks allow, in microseconds: how
/// far off a leader may be, and what clocks drift from one leader to the next.
pub const LOG_AHEAD_US_MAX: u64 = 70_000_000;
/// Entries that a leader cut off from everybody appends before it is deposed.
pub const STALE_ENTRIES: u64 = 25;
/// Between two looks at a fault that waits for a leader, in microseconds.
pub const FAULT_LOOK_US: u64 = 50_000;
/// From the loss of all controllers but one until the fleet goes on, in microseconds: whatever they sent has arrived.
pub const LOSS_SETTLES_US: u64 = 15_000_000;
/// Virtual time a fleet has for being founded before faults begin, in microseconds.
pub const FOUNDING_US: u64 = 60_000_000;
/// The same for each node of a large fleet, in microseconds.
pub const FOUNDING_US_PER_NODE: u64 = 40_000;
/// How many times as late as a message its repetition may come.
pub(crate) const REPETITION_DELAYS: u64 = 4;
/// Virtual time after the last fault within which everything must have converged, in microseconds.
pub const CONVERGENCE_US: u64 = 600_000_000;
/// The same for each node, in microseconds: a rollout on every node that may miss one at a time takes a
/// step for each, and an operator may have begun another before.
pub const CONVERGENCE_US_PER_NODE: u64 = 10_000_000;
/// Between two looks whether everything has converged, in microseconds.
pub const CONVERGENCE_LOOK_US: u64 = 1_000_000;
/// Records between two State digests compared among replicas.
pub const DIGEST_STRIDE: u64 = 16;
/// Records given to another controller in one answer.
pub const RECORDS_PER_ANSWER_MAX: u64 = 200;
/// Old messages kept for being delivered again.
pub const OLD_MESSAGES_KEPT: usize = 256;
/// Runs spent on shrinking one failure.
pub const SHRINK_RUNS_MAX: usize = 120;
/// Steps of all runs after which shrinking begins no other; some minutes.
pub const SHRINK_STEPS_MAX: u64 = 20_000_000;
/// Every so many seeds, a fleet is of scores to hundreds of nodes.
pub const LARGE_FLEET_EVERY: u64 = 50;
/// Every so many seeds, a fleet is of one or two thousand nodes.
pub const HUGE_FLEET_EVERY: u64 = 500;
/// Seeds within which every planted bug must be caught.
pub const PLANTED_SEEDS_MAX: u64 = 150;
/// Controllers of one fleet, voters and learners together.
pub const CONTROLLERS_MAX: usize = 7;
/// Voters below which no controller is removed.
pub const VOTERS_MIN: usize = 3;
/// Between a leader's handing over, because it lacks records, and the next one, in microseconds; each takes twice as
/// long as the one before.
pub const HAND_OVER_US: u64 = 10_000_000;
/// The longest of these, in microseconds.
pub const HAND_OVER_US_MAX: u64 = 600_000_000;
