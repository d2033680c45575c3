//! What the other controllers' clocks say, so that one wrong clock does not take the log's time along.
//!
//! The log's time is the leader's clock at the start of its term, and never goes back: a leader whose clock
//! is an hour ahead would move it by an hour for ever, and everything that expires with it. So a controller
//! asks the others for their clocks, and believes the middle one when its own is far from it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use stele_ledger::Moment;
use stele_model::{ControllerId, State};

use crate::forward::{PeerAnswer, PeerRequest};
use crate::handle::{Handle, now};
use crate::limits::{CLOCK_ASK_DEADLINE, CLOCK_ASK_INTERVAL, CLOCK_FIRST_INTERVAL, CLOCK_TOLERANCE};

/// Microseconds by which a wall clock is ahead of this process's monotonic one. Compared with that, another's
/// clock stays known while it cannot be asked, and when one's own jumps.
type Ahead = i64;

/// The clocks known here.
#[derive(Debug)]
pub(crate) struct Clocks {
    started: Instant,
    others: Mutex<BTreeMap<ControllerId, Ahead>>,
}

impl Clocks {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), others: Mutex::default() }
    }

    fn monotonic_us(&self) -> u64 {
        micros(self.started.elapsed())
    }

    /// Now, by the clocks of most.
    pub(crate) fn now(&self) -> Moment {
        let monotonic_us = self.monotonic_us();
        let own = ahead(now().0, monotonic_us);
        let others: Vec<Ahead> = self.others().values().copied().collect();
        let wall_us = monotonic_us.saturating_add_signed(believed(own, &others));
        Moment { wall_us, monotonic_us }
    }

    fn others(&self) -> MutexGuard<'_, BTreeMap<ControllerId, Ahead>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks every other controller once; whether all have been heard of by now.
    async fn ask(&self, handle: &Handle, state: &State) -> bool {
        let is_other = |id: &ControllerId| *id != handle.id() && !state.control.retired.contains(id);
        let ids: Vec<_> = state.control.controllers.keys().copied().filter(is_other).collect();
        let asked = ids.iter().map(|id| async move {
            let before_us = self.monotonic_us();
            let answer = handle.ask_peer(*id, &PeerRequest::Clock, CLOCK_ASK_DEADLINE).await;
            let after_us = self.monotonic_us();
            match answer {
                // It was read some time between question and answer; both ways take about as long.
                Ok(PeerAnswer::Clock(time)) => Some((*id, ahead(time.0, before_us.midpoint(after_us)))),
                Ok(_) => None,
                Err(error) => {
                    tracing::debug!(id, %error, "cannot be asked for its clock");
                    None
                }
            }
        });
        let heard = join_all(asked).await;
        let mut others = self.others();
        others.retain(|id, _| ids.contains(id));
        others.extend(heard.into_iter().flatten());
        others.len() == ids.len()
    }
}

/// Asks for ever: often until every clock is known, then now and then.
pub(crate) async fn run(handle: Handle) {
    let clocks = handle.clocks();
    let mut was_far = false;
    loop {
        let state = handle.published().state;
        let are_all_known = clocks.ask(&handle, &state).await && !state.control.controllers.is_empty();
        let off = i128::from(now().0) - i128::from(clocks.now().wall_us);
        // Both were read one after the other.
        let is_far = off.unsigned_abs() > CLOCK_TOLERANCE.as_micros();
        if is_far != was_far {
            was_far = is_far;
            if is_far {
                let seconds = off / 1_000_000;
                tracing::error!(seconds, "this controller's clock is far from the others'; theirs count");
            } else {
                tracing::info!("this controller's clock is as the others' are");
            }
        }
        let pause = if are_all_known { CLOCK_ASK_INTERVAL } else { CLOCK_FIRST_INTERVAL };
        tokio::time::sleep(pause).await;
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn ahead(wall_us: u64, monotonic_us: u64) -> Ahead {
    wall_us.checked_signed_diff(monotonic_us).unwrap_or(Ahead::MAX)
}

/// One's own clock when it is near the middle one of all, else that. Of an even number the earlier counts:
/// a log's time that is behind catches up, one that is ahead stays so.
fn believed(own: Ahead, others: &[Ahead]) -> Ahead {
    let mut all = others.to_vec();
    all.push(own);
    all.sort_unstable();
    let middle = all[(all.len() - 1) / 2];
    if own.abs_diff(middle) <= micros(CLOCK_TOLERANCE) { own } else { middle }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Ahead = 3_600_000_000;

    #[test]
    fn a_clock_near_the_others_is_believed() {
        assert_eq!(believed(7, &[0, 1_000_000]), 7);
        assert_eq!(believed(7, &[]), 7);
    }

    #[test]
    fn a_clock_far_from_most_is_not_whoever_has_it() {
        assert_eq!(believed(HOUR, &[0, 3]), 3);
        assert_eq!(believed(-HOUR, &[0, 3]), 0);
        assert_eq!(believed(0, &[HOUR, 3]), 0);
        assert_eq!(believed(HOUR, &[0, 2 * HOUR, 3, 4]), 4);
    }

    #[test]
    fn of_two_the_earlier_counts() {
        assert_eq!(believed(HOUR, &[0]), 0);
        assert_eq!(believed(0, &[HOUR]), 0);
    }

    #[test]
    fn the_time_told_is_that_of_most() {
        let clocks = Clocks::new();
        let own = clocks.now().wall_us;
        clocks.others().extend([(2, ahead(own, 0) - HOUR), (3, ahead(own, 0) - HOUR + 5)]);
        let told = clocks.now().wall_us;
        assert!(told + 3_000_000_000 < own, "{told} {own}");
    }
}
