//! When to give a sign of life. Knows no clock: times are milliseconds of one that only goes forward.

use crate::limits::{HEARTBEAT_JITTERED_MS_MAX, HEARTBEAT_MS, HEARTBEAT_MS_MAX};

/// Decides when the next heartbeat is due: at once after a connection was made, from time to time, and
/// later while reports are acknowledged, because controllers heard of the node then. Not later and later:
/// heartbeats also carry what the node vouches for.
#[derive(Debug, Default)]
pub struct HeartbeatSchedule {
    due_ms: Option<u64>,
    /// However many reports are acknowledged.
    latest_ms: u64,
}

impl HeartbeatSchedule {
    /// When the next one is due; `None` while there is nobody to hear it.
    pub fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    /// Controllers can hear it.
    pub fn connected(&mut self, now_ms: u64) {
        *self = Self { due_ms: Some(now_ms), latest_ms: now_ms };
    }

    /// There is nobody to hear it.
    pub fn disconnected(&mut self) {
        self.due_ms = None;
    }

    /// One was sent; `is_whole` when it said all there is to say, so that the next may be put off. `jitter` answers
    /// a time within a quarter of what it is given.
    pub fn sent(&mut self, now_ms: u64, is_whole: bool, jitter: impl Fn(u64) -> u64) {
        if self.due_ms.is_some() {
            let due_ms = now_ms + jitter(HEARTBEAT_MS);
            let put_off_ms = if is_whole { HEARTBEAT_MS_MAX - HEARTBEAT_JITTERED_MS_MAX } else { 0 };
            *self = Self { due_ms: Some(due_ms), latest_ms: due_ms + put_off_ms };
        }
    }

    /// A report was acknowledged.
    pub fn reported(&mut self, now_ms: u64, jitter: impl Fn(u64) -> u64) {
        let later_ms = (now_ms + jitter(HEARTBEAT_MS)).min(self.latest_ms);
        self.due_ms = self.due_ms.map(|due_ms| due_ms.max(later_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXACT: fn(u64) -> u64 = |ms| ms;

    #[test]
    fn heartbeats_begin_with_a_connection_and_end_with_it() {
        let mut heartbeat = HeartbeatSchedule::default();
        heartbeat.sent(5, true, EXACT);
        heartbeat.reported(5, EXACT);
        assert_eq!(heartbeat.due_ms(), None);
        heartbeat.connected(10);
        assert_eq!(heartbeat.due_ms(), Some(10));
        heartbeat.sent(10, true, EXACT);
        assert_eq!(heartbeat.due_ms(), Some(10 + HEARTBEAT_MS));
        heartbeat.disconnected();
        heartbeat.sent(20, true, EXACT);
        assert_eq!(heartbeat.due_ms(), None);
    }

    #[test]
    fn a_report_stands_for_a_heartbeat_but_many_of_them_do_not_put_it_off_for_ever() {
        let mut heartbeat = HeartbeatSchedule::default();
        heartbeat.connected(0);
        // The first one after a connection is not put off: it says what the node works on.
        heartbeat.reported(0, EXACT);
        assert_eq!(heartbeat.due_ms(), Some(0));
        heartbeat.sent(0, true, EXACT);
        heartbeat.reported(1_000, EXACT);
        assert_eq!(heartbeat.due_ms(), Some(1_000 + HEARTBEAT_MS));
        let longest = |ms| ms + ms / 4;
        heartbeat.sent(0, true, longest);
        for now in 1_000..HEARTBEAT_MS_MAX {
            heartbeat.reported(now, longest);
        }
        assert_eq!(heartbeat.due_ms(), Some(HEARTBEAT_MS_MAX));
    }

    #[test]
    fn a_heartbeat_that_did_not_say_everything_is_soon_followed_by_another() {
        let mut heartbeat = HeartbeatSchedule::default();
        heartbeat.connected(0);
        heartbeat.sent(0, false, EXACT);
        heartbeat.reported(9_000, EXACT);
        assert_eq!(heartbeat.due_ms(), Some(HEARTBEAT_MS));
    }
}
