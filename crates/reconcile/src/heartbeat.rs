//! When to give a sign of life. Knows no clock: times are milliseconds of one that only goes forward.

use crate::limits::{HEARTBEAT_MS, HEARTBEAT_MS_MAX};

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

    /// One was sent.
    pub fn sent(&mut self, now_ms: u64, jitter: impl Fn(u64) -> u64) {
        if self.due_ms.is_some() {
            *self =
                Self { due_ms: Some(now_ms + jitter(HEARTBEAT_MS)), latest_ms: now_ms + HEARTBEAT_MS_MAX };
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
        heartbeat.sent(5, EXACT);
        heartbeat.reported(5, EXACT);
        assert_eq!(heartbeat.due_ms(), None);
        heartbeat.connected(10);
        assert_eq!(heartbeat.due_ms(), Some(10));
        heartbeat.sent(10, EXACT);
        assert_eq!(heartbeat.due_ms(), Some(10 + HEARTBEAT_MS));
        heartbeat.disconnected();
        heartbeat.sent(20, EXACT);
        assert_eq!(heartbeat.due_ms(), None);
    }

    #[test]
    fn a_report_stands_for_a_heartbeat_but_many_of_them_do_not_put_it_off_for_ever() {
        let mut heartbeat = HeartbeatSchedule::default();
        heartbeat.connected(0);
        // The first one after a connection is not put off: it says what the node works on.
        heartbeat.reported(0, EXACT);
        assert_eq!(heartbeat.due_ms(), Some(0));
        heartbeat.sent(0, EXACT);
        heartbeat.reported(1_000, EXACT);
        assert_eq!(heartbeat.due_ms(), Some(1_000 + HEARTBEAT_MS));
        for now in 1_000..HEARTBEAT_MS_MAX {
            heartbeat.reported(now, EXACT);
        }
        assert_eq!(heartbeat.due_ms(), Some(HEARTBEAT_MS_MAX));
    }
}
