//! What goes on after a turn: waited for, so that nobody does it in another's turn, and counted.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::machine::TICK_MS;

/// Over which it is looked whether the machine rests.
const LOOK: Duration = Duration::from_millis(500);
/// So many looks in a row at rest, since a disk that is waited for is no work.
const LOOKS_AT_REST: u32 = 2;
/// So much of one processor is rest: three idle etcd members take a quarter of that.
const RESTING_PROCESSORS: f64 = 0.15;
/// Longest wait for rest.
const REST_DEADLINE: Duration = Duration::from_mins(1);

/// Whether the machine rests between turns.
pub(crate) struct Rest {
    /// Once it did not, nobody waits for it again.
    comes: bool,
    /// When it was last seen at rest, and how many processors were busy then.
    seen: Option<(Instant, f64)>,
}

/// A turn whose processor time is counted until the machine rests.
pub(crate) struct Turn {
    began: Instant,
    busy: Duration,
    /// How many processors were busy at rest, if there was any.
    resting: Option<f64>,
}

/// What a turn took in all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    /// Of all processors together, by everything on this machine, what followed the turn included, and not what
    /// was busy at rest.
    pub(crate) processors: Duration,
    /// From the end of the turn until the machine rested.
    pub(crate) aftermath: Duration,
}

impl Rest {
    pub(crate) fn new() -> Self {
        Self { comes: true, seen: None }
    }

    /// Begins a turn at rest: most often that in which the last one ended.
    pub(crate) fn begin(&mut self) -> anyhow::Result<Turn> {
        let just_now = self.seen.filter(|(when, _)| when.elapsed() < LOOK);
        let resting = if let Some((_, busy)) = just_now { Some(busy) } else { self.wait()? };
        Ok(Turn { began: Instant::now(), busy: busy()?, resting })
    }

    /// Ends it at rest. Nothing is known of what it took where this machine has other work.
    pub(crate) fn end(&mut self, turn: &Turn) -> anyhow::Result<Option<Spent>> {
        let ended = Instant::now();
        let (Some(before), Some(_)) = (turn.resting, self.wait()?) else { return Ok(None) };
        let processors = busy()?.saturating_sub(turn.busy);
        let at_rest = turn.began.elapsed().mul_f64(before);
        // The last looks were at rest already.
        let aftermath = ended.elapsed().saturating_sub(LOOK * LOOKS_AT_REST);
        Ok(Some(Spent { processors: processors.saturating_sub(at_rest), aftermath }))
    }

    /// Waits until the machine rests; how many of its processors are busy then.
    fn wait(&mut self) -> anyhow::Result<Option<f64>> {
        let deadline = Instant::now() + REST_DEADLINE;
        let (mut at_rest, mut spent) = (0, Duration::ZERO);
        while self.comes && at_rest < LOOKS_AT_REST {
            let before = busy()?;
            std::thread::sleep(LOOK);
            let since = busy()?.saturating_sub(before);
            let rests = since.as_secs_f64() < RESTING_PROCESSORS * LOOK.as_secs_f64();
            (at_rest, spent) = if rests { (at_rest + 1, spent + since) } else { (0, Duration::ZERO) };
            self.comes = at_rest > 0 || Instant::now() < deadline;
        }
        let resting = spent.as_secs_f64() / (LOOK * LOOKS_AT_REST).as_secs_f64();
        self.seen = self.comes.then(|| (Instant::now(), resting));
        Ok(self.seen.map(|(_, resting)| resting))
    }
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
