//! What goes on after a turn: waited for, so that nobody does it in another's turn, and counted.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::machine::TICK_MS;

/// Over which it is looked whether the machine rests.
const LOOK: Duration = Duration::from_millis(500);
/// So much of one processor is rest: three idle etcd members take a quarter of that.
const RESTING_PROCESSORS: f64 = 0.15;
/// Longest wait for rest; whatever still goes on then goes on.
const REST_DEADLINE: Duration = Duration::from_mins(2);

/// A turn whose processor time is counted until the machine rests.
pub(crate) struct Turn {
    began: Duration,
}

/// What a turn took in all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    /// Of all processors together, by everything on this machine, what followed the turn included.
    pub(crate) processors: Duration,
    /// From the end of the turn until the machine rested.
    pub(crate) aftermath: Duration,
}

impl Turn {
    /// Begins at rest.
    pub(crate) fn begin() -> anyhow::Result<Self> {
        rest()?;
        Ok(Self { began: busy()? })
    }

    /// Ends at rest.
    pub(crate) fn end(self) -> anyhow::Result<Spent> {
        let ended = Instant::now();
        rest()?;
        // The last look was at rest already.
        let aftermath = ended.elapsed().saturating_sub(LOOK);
        Ok(Spent { processors: busy()?.saturating_sub(self.began), aftermath })
    }
}

fn rest() -> anyhow::Result<()> {
    let deadline = Instant::now() + REST_DEADLINE;
    while Instant::now() < deadline {
        let (before, looked) = (busy()?, Instant::now());
        std::thread::sleep(LOOK);
        let spent = busy()?.saturating_sub(before);
        if spent.as_secs_f64() < RESTING_PROCESSORS * looked.elapsed().as_secs_f64() {
            break;
        }
    }
    Ok(())
}

/// Processor time that was spent on anything since the machine started.
fn busy() -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    busy_of(&stat).context("/proc/stat does not begin with the processors' times")
}

/// See proc(5): user, nice, system, idle, iowait, irq, softirq.
fn busy_of(stat: &str) -> Option<Duration> {
    let times = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    let ticks: Vec<u64> = times.map(str::parse).collect::<Result<_, _>>().ok()?;
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks[..] else { return None };
    Some(Duration::from_millis(TICK_MS * (user + nice + system + irq + softirq)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn all_that_is_no_rest_counts() {
        let stat = "cpu  10 20 30 1000 2000 4 6 99 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n";
        assert_eq!(busy_of(stat).unwrap(), Duration::from_millis(700));
        assert_eq!(busy_of("intr 1 2 3"), None);
        assert!(busy().unwrap() > Duration::ZERO);
    }
}
