//! Every bound of this crate, each with its unit.

use std::time::Duration;

/// Longest a fleet may take to start, or anything to come about that should take moments.
pub const DEADLINE: Duration = Duration::from_secs(90);
/// Longest a controller may take to elect, answer or catch up after a fault.
pub const RECOVERY_DEADLINE: Duration = Duration::from_mins(1);
/// Between two looks at something waited for.
pub const POLL_INTERVAL: Duration = Duration::from_millis(25);
/// Longest one request may take, its answer included.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest a connection may take to open.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest a health question may take: a paused controller accepts connections and says nothing.
pub const HEALTH_TIMEOUT: Duration = Duration::from_millis(500);
/// Longest a write of a [`crate::load::Load`] waits before another controller is asked.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(4);
/// Longest a program asked to end may take before it is killed.
pub const STOP_DEADLINE: Duration = Duration::from_secs(15);
/// Longest answer read, in bytes.
pub const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Lines of a program's log shown when a test fails.
pub const LOG_LINES_SHOWN: usize = 25;
/// Ports are taken from this range: below it are well-known ones, above it those that the
/// kernel gives to outgoing connections, which could take a stopped controller's port.
pub const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Ports tried before giving up.
pub const PORT_ATTEMPTS_MAX: usize = 500;
