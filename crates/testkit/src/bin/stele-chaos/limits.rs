//! Every bound of `stele-chaos`, each with its unit.

use std::time::Duration;

/// Rounds of a run that says nothing else.
pub(crate) const ROUNDS: u32 = 12;
/// Most controllers of a run.
pub(crate) const CONTROLLERS_MAX: u64 = 9;
/// Size of each controller's disk, in bytes: small, so that it can be filled.
pub(crate) const DISK_BYTES: u64 = 384 * 1024 * 1024;
/// Bytes written at once to fill a disk.
pub(crate) const FILLER_BYTES: usize = 1024 * 1024;
/// The shortest time a fault lasts, in milliseconds.
pub(crate) const HOLD_MS_MIN: u64 = 2_000;
/// The longest time a fault lasts, in milliseconds.
pub(crate) const HOLD_MS_MAX: u64 = 9_000;
/// The same for a short run, in milliseconds.
pub(crate) const SHORT_HOLD_MS_MAX: u64 = 3_000;
/// Longest anything may take to be well again after a fault.
pub(crate) const RECOVERY_DEADLINE: Duration = Duration::from_mins(2);
/// The same after disks have lied: it comes to nothing, or at once to a broken promise.
pub(crate) const LIED_DEADLINE: Duration = Duration::from_secs(10);
/// Longest a controller with a broken disk may take to stop.
pub(crate) const STOP_DEADLINE: Duration = Duration::from_mins(1);
/// Writes that must be acknowledged after each round before the next begins.
pub(crate) const WRITES_PER_ROUND: u64 = 10;
/// Clients that write.
pub(crate) const WRITERS: u64 = 4;
/// Clients that read.
pub(crate) const READERS: u64 = 2;
/// After each operation of each client.
pub(crate) const CLIENT_PAUSE: Duration = Duration::from_millis(40);
/// Between two changes by the operator.
pub(crate) const OPERATOR_PAUSE: Duration = Duration::from_millis(1_500);
/// Longest the operator waits for a deployment to end before the next change.
pub(crate) const OPERATOR_PATIENCE: Duration = Duration::from_secs(8);
/// Longest one attempt of a client may take.
pub(crate) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two attempts of one operation.
pub(crate) const ATTEMPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes a relay holds back for one direction of one connection.
pub(crate) const RELAY_BYTES_MAX: usize = 1024 * 1024;
/// Bytes a relay reads at once.
pub(crate) const RELAY_READ_BYTES: usize = 64 * 1024;
/// Times a change of the packet filter is tried while another program holds its lock, in seconds.
pub(crate) const FILTER_WAIT_SECONDS: u64 = 10;
/// Longest a slow disk takes to sync, in milliseconds.
pub(crate) const SLOW_SYNC_MS_MAX: u64 = 800;
/// Times a controller in a crash loop is killed.
pub(crate) const CRASHES_MAX: u64 = 6;
/// Longest a controller in a crash loop lives, in milliseconds.
pub(crate) const CRASH_AFTER_MS_MAX: u64 = 2_000;
/// Points in the past that every controller is asked for in the end.
pub(crate) const PAST_POINTS: usize = 6;
/// Furthest a clock is set off, in seconds.
pub(crate) const CLOCK_OFFSET_SECONDS_MAX: u64 = 1_800;
/// Broken promises shown of each kind.
pub(crate) const BROKEN_SHOWN: usize = 6;
/// Furthest the log's time may be ahead of this machine's clock in the end: a leader's clock is believed when
/// it is this near to the others', and a second for reading one after the other.
pub(crate) const TIME_AHEAD_MAX: Duration =
    Duration::from_micros(stele_ledger::limits::CLOCK_OFF_US_MAX + 1_000_000);
/// Lines of a program's log shown when something fails.
pub(crate) const LOG_LINES_SHOWN: usize = 20;
