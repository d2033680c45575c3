//! When to ask for sync. Knows no clock: times are milliseconds of one that only goes forward.

use crate::limits::{SYNC_MS, SYNC_RETRY_FIRST_MS, SYNC_RETRY_MS_MAX};

/// Decides when the next sync request is due: at once after a connection was made, soon after
/// something was refused, and from time to time; ever less often while asking does not help.
#[derive(Debug, Default)]
pub struct SyncSchedule {
    due_ms: Option<u64>,
    asked_ms: Option<u64>,
    in_flight: bool,
    again: bool,
    useless: u32,
}

impl SyncSchedule {
    /// When to ask; `None` while there is nobody to ask or an answer is awaited.
    pub fn due_ms(&self) -> Option<u64> {
        if self.in_flight { None } else { self.due_ms }
    }

    /// Something may have been missed.
    pub fn connected(&mut self, now_ms: u64) {
        self.useless = 0;
        self.again = self.in_flight;
        self.due_ms = Some(now_ms);
    }

    /// There is nobody to ask.
    pub fn disconnected(&mut self) {
        self.due_ms = None;
    }

    /// Something arrived that is not believed, so what is right is in doubt.
    pub fn doubted(&mut self, now_ms: u64) {
        if self.in_flight {
            self.again = true;
        } else if let Some(due) = self.due_ms {
            let soonest = self.asked_ms.map_or(now_ms, |asked| asked + self.pause_ms());
            self.due_ms = Some(due.min(soonest.max(now_ms)));
        }
    }

    /// A request was sent.
    pub fn asked(&mut self, now_ms: u64) {
        self.in_flight = true;
        self.again = false;
        self.asked_ms = Some(now_ms);
    }

    /// The request ended; it helped if it was answered with something believed.
    pub fn ended(&mut self, now_ms: u64, helped: bool, jitter: impl Fn(u64) -> u64) {
        self.in_flight = false;
        self.useless = if helped { 0 } else { self.useless.saturating_add(1) };
        if self.due_ms.is_some() {
            let pause = if helped && !self.again { SYNC_MS } else { self.pause_ms() };
            self.due_ms = Some(now_ms + jitter(pause));
        }
    }

    fn pause_ms(&self) -> u64 {
        doubled_ms(SYNC_RETRY_FIRST_MS, self.useless.saturating_sub(1), SYNC_RETRY_MS_MAX)
    }
}

/// `first` doubled so many times, up to `max`, in milliseconds.
pub fn doubled_ms(first: u64, times: u32, max: u64) -> u64 {
    first.saturating_mul(1 << times.min(20)).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXACT: fn(u64) -> u64 = |ms| ms;

    #[test]
    fn sync_is_asked_for_on_connecting_and_from_time_to_time() {
        let mut sync = SyncSchedule::default();
        assert_eq!(sync.due_ms(), None);
        sync.connected(10);
        assert_eq!(sync.due_ms(), Some(10));
        sync.asked(10);
        assert_eq!(sync.due_ms(), None);
        sync.ended(20, true, EXACT);
        assert_eq!(sync.due_ms(), Some(20 + SYNC_MS));
        sync.disconnected();
        assert_eq!(sync.due_ms(), None);
        sync.connected(500);
        assert_eq!(sync.due_ms(), Some(500));
    }

    #[test]
    fn doubt_makes_it_due_but_a_flood_of_forgeries_does_not_make_a_flood_of_requests() {
        let mut sync = SyncSchedule::default();
        sync.connected(0);
        sync.asked(0);
        sync.ended(5, true, EXACT);
        sync.doubted(10);
        assert_eq!(sync.due_ms(), Some(SYNC_RETRY_FIRST_MS));
        for now in 11..900 {
            sync.doubted(now);
        }
        assert_eq!(sync.due_ms(), Some(SYNC_RETRY_FIRST_MS));
        sync.doubted(5000);
        assert_eq!(sync.due_ms(), Some(SYNC_RETRY_FIRST_MS));
    }

    #[test]
    fn asking_becomes_rare_while_it_does_not_help() {
        let mut sync = SyncSchedule::default();
        sync.connected(0);
        let mut pauses = Vec::new();
        let mut now = 0;
        for _ in 0..9 {
            sync.asked(now);
            sync.ended(now, false, EXACT);
            let due = sync.due_ms().unwrap_or(now);
            pauses.push((due - now) / 1000);
            now = due;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        sync.connected(now);
        assert_eq!(sync.due_ms(), Some(now));
    }

    #[test]
    fn doubt_and_a_new_connection_while_an_answer_is_awaited_are_not_forgotten() {
        let mut sync = SyncSchedule::default();
        sync.connected(0);
        sync.asked(0);
        sync.doubted(1);
        sync.ended(2, true, EXACT);
        assert_eq!(sync.due_ms(), Some(2 + SYNC_RETRY_FIRST_MS));
        sync.asked(3);
        sync.connected(4);
        sync.ended(5, true, EXACT);
        assert_eq!(sync.due_ms(), Some(5 + SYNC_RETRY_FIRST_MS));
    }
}
