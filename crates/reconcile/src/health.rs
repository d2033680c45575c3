//! Health as a state machine fed with the outcome of checks.

use stele_model::release::Health;

use crate::limits::START_INTERVAL_MS;

/// What is known of the health of one run of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthState {
    /// When the run began, in milliseconds since 1970.
    pub started_ms: u64,
    /// What the checks say.
    pub verdict: Verdict,
    /// Failures in a row that count.
    pub failures: u32,
    /// When the last check ended, in milliseconds since 1970.
    pub checked_ms: Option<u64>,
    /// What the last failed check said.
    pub error: Option<String>,
}

/// What the checks say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Too early to tell.
    #[default]
    Unknown,
    /// The last check passed, or too few have failed since.
    Passing,
    /// As many checks in a row have failed as it takes.
    Failing,
}

impl HealthState {
    /// A run that begins.
    pub fn new(started_ms: u64) -> Self {
        Self { started_ms, ..Self::default() }
    }

    /// When the next check is due, in milliseconds since 1970: now, where what was last is yet to come, because the
    /// host's clock was set back.
    pub fn due_ms(&self, health: &Health, now_ms: u64) -> u64 {
        let Some(checked) = self.checked_ms.filter(|checked| *checked <= now_ms) else {
            return self.started_ms.min(now_ms);
        };
        let starting = self.verdict == Verdict::Unknown
            && checked < self.started_ms.saturating_add(health.start_period_ms);
        let pause = if starting { health.interval_ms.min(START_INTERVAL_MS) } else { health.interval_ms };
        checked.saturating_add(pause.max(1))
    }

    /// Takes in a check that ended at `now_ms`.
    pub fn checked(&mut self, health: &Health, outcome: Result<(), String>, now_ms: u64) {
        self.checked_ms = Some(now_ms);
        match outcome {
            Ok(()) => {
                self.verdict = Verdict::Passing;
                self.failures = 0;
                self.error = None;
            }
            Err(error) => {
                self.error = Some(error);
                let excused = self.verdict == Verdict::Unknown
                    && self.started_ms <= now_ms
                    && now_ms < self.started_ms.saturating_add(health.start_period_ms);
                if !excused {
                    self.failures = self.failures.saturating_add(1);
                    if self.failures >= health.retries.max(1) {
                        self.verdict = Verdict::Failing;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stele_model::release::Check;

    /// Later than all that happens here.
    const NOW: u64 = 1_000_000;

    fn health() -> Health {
        Health {
            check: Check::Tcp { port: 80 },
            interval_ms: 5_000,
            timeout_ms: 1_000,
            retries: 3,
            start_period_ms: 10_000,
        }
    }

    fn failed() -> Result<(), String> {
        Err("connection refused".to_owned())
    }

    #[test]
    fn failures_while_it_starts_do_not_count_and_checks_come_quickly() {
        let mut state = HealthState::new(1_000);
        assert_eq!(state.due_ms(&health(), NOW), 1_000);
        for now in [1_000, 1_500, 10_999] {
            state.checked(&health(), failed(), now);
            assert_eq!((state.verdict, state.failures), (Verdict::Unknown, 0));
            assert_eq!(state.due_ms(&health(), NOW), now + START_INTERVAL_MS);
        }
        state.checked(&health(), failed(), 11_000);
        assert_eq!((state.verdict, state.failures), (Verdict::Unknown, 1));
        assert_eq!(state.due_ms(&health(), NOW), 16_000);
    }

    #[test]
    fn it_takes_as_many_failures_in_a_row_as_the_spec_says() {
        let mut state = HealthState::new(0);
        state.checked(&health(), Ok(()), 100);
        assert_eq!(state.verdict, Verdict::Passing);
        for (now, verdict) in
            [(5_100, Verdict::Passing), (10_100, Verdict::Passing), (15_100, Verdict::Failing)]
        {
            state.checked(&health(), failed(), now);
            assert_eq!(state.verdict, verdict, "at {now}");
        }
        assert_eq!(state.error.as_deref(), Some("connection refused"));
        state.checked(&health(), Ok(()), 20_100);
        assert_eq!((state.verdict, state.failures, &state.error), (Verdict::Passing, 0, &None));
        state.checked(&health(), failed(), 25_100);
        assert_eq!(state.verdict, Verdict::Passing, "the count begins again");
    }

    #[test]
    fn a_container_that_passed_once_has_no_start_period_left() {
        let mut state = HealthState::new(0);
        state.checked(&health(), Ok(()), 100);
        state.checked(&health(), failed(), 200);
        assert_eq!(state.failures, 1);
        assert_eq!(state.due_ms(&health(), NOW), 5_200);
    }

    #[test]
    fn no_interval_makes_checks_spin() {
        let mut state = HealthState::new(0);
        let health = Health { interval_ms: 0, retries: 0, start_period_ms: 0, ..health() };
        state.checked(&health, failed(), 7);
        assert_eq!((state.verdict, state.due_ms(&health, NOW)), (Verdict::Failing, 8));
    }
}
