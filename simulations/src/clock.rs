//! A controller's clocks: quicker or slower than time, and set forward or back.

use stele_ledger::limits::CLOCK_READING_AGE_US_MAX;

/// Both clocks of a machine: the monotonic one, and the wall clock, which jumps besides.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    drift: Drift,
    /// How far the wall clock is off beside what it drifts.
    pub(crate) off_us: i64,
    /// Before it was set back: until when that is believed, and how far it was ahead.
    was_ahead: Option<(u64, i64)>,
}

/// Since when a clock is off by so many millionths of what passes, and what it said then.
#[derive(Clone, Copy, Debug, Default)]
struct Drift {
    since_us: u64,
    local_us: u64,
    ppm: i64,
}

impl Clock {
    /// What the monotonic clock has counted since the beginning.
    pub(crate) fn local_us(&self, now_us: u64) -> u64 {
        let passed = now_us - self.drift.since_us;
        let off = i128::from(passed) * i128::from(self.drift.ppm) / 1_000_000;
        (self.drift.local_us + passed).saturating_add_signed(off as i64)
    }

    /// From now on both are off by so many millionths of what passes.
    pub(crate) fn drift(&mut self, now_us: u64, ppm: i64) {
        self.drift = Drift { since_us: now_us, local_us: self.local_us(now_us), ppm };
    }

    /// The wall clock jumps.
    pub(crate) fn jump(&mut self, now_us: u64, by_us: i64) {
        if by_us < 0 {
            self.was_ahead = Some((now_us + CLOCK_READING_AGE_US_MAX, self.ahead_as_heard_us(now_us)));
        }
        self.off_us += by_us;
    }

    /// How far others may take the wall clock to be ahead of time: of one that is set back, what it said
    /// before counts until it is old.
    pub(crate) fn ahead_as_heard_us(&self, now_us: u64) -> i64 {
        let now = self.local_us(now_us).cast_signed() - now_us.cast_signed() + self.off_us;
        self.was_ahead.filter(|(until_us, _)| now_us < *until_us).map_or(now, |(_, was)| was.max(now))
    }
}
