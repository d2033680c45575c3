//! Whether a leader's clock is fit to say what time it is in the log.
//!
//! Every message between controllers carries its sender's wall clock. A leader compares its own with
//! the median of what it heard, before it decides anything in its term and as long as it leads.

use std::collections::BTreeMap;

use stele_model::ControllerId;

use crate::Moment;
use crate::limits::{CLOCK_OFF_US_MAX, CLOCK_READING_AGE_US_MAX};

/// What a controller knows of the wall clocks of others.
#[derive(Debug, Default)]
pub struct Clocks {
    readings: BTreeMap<ControllerId, Readings>,
}

/// Of one controller.
#[derive(Clone, Copy, Debug)]
struct Readings {
    /// Of two readings the later clock is nearer to the truth, because a message can be late and never early.
    best: Reading,
    /// Stands in for the best one when that gets old: a clock that was heard of just now is known.
    last: Reading,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    /// Their wall clock when it was sent, in microseconds since 1970.
    wall_us: u64,
    /// Our monotonic clock when it arrived.
    heard_us: u64,
}

impl Reading {
    /// Their wall clock now, were nothing lost on the way; it is later by as long as it travelled.
    fn at(self, monotonic_us: u64) -> u64 {
        self.wall_us.saturating_add(monotonic_us.saturating_sub(self.heard_us))
    }
}

impl Readings {
    /// The best one that is not old.
    fn current(&self, now: Moment) -> Option<Reading> {
        [self.best, self.last].into_iter().find(|reading| !is_old(*reading, now))
    }
}

/// What a leader is to do about its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fitness {
    /// It may say what time it is.
    Fit,
    /// It is so far off that somebody else must.
    Off {
        /// Its wall clock, minus the median, in microseconds.
        by_us: i64,
        /// Whose clock is nearest to the median.
        to: ControllerId,
    },
}

impl Clocks {
    /// Takes in what a message said. The best one is forgotten once it is old, for clocks are set back.
    pub fn heard(&mut self, from: ControllerId, wall_us: u64, now: Moment) {
        let last = Reading { wall_us, heard_us: now.monotonic_us };
        let known = self.readings.get(&from).and_then(|known| known.current(now));
        let best = known.filter(|known| wall_us < known.at(now.monotonic_us)).unwrap_or(last);
        self.readings.insert(from, Readings { best, last });
    }

    /// Whether a leader's clock agrees with the median of its own and those of the other voters that it
    /// heard of late. A leader that can commit has heard a majority, itself included.
    ///
    /// Of an even number the earlier one of the middle two is the median: a clock that is behind only
    /// makes log time creep, one that is ahead spoils it for good. So of two controllers that are left
    /// and do not agree, the same one is fit whoever judges.
    pub fn fitness(&self, own: ControllerId, voters: &[ControllerId], now: Moment) -> Fitness {
        let others = voters.iter().filter(|id| **id != own).filter_map(|id| {
            let reading = self.readings.get(id)?.current(now)?;
            Some((reading.at(now.monotonic_us), *id))
        });
        let mut clocks: Vec<_> = others.chain([(now.wall_us, own)]).collect();
        clocks.sort_unstable();
        let (median, _) = clocks[(clocks.len() - 1) / 2];
        let by_us = difference(now.wall_us, median);
        if by_us.unsigned_abs() <= CLOCK_OFF_US_MAX || planted!(AnyClockIsBelieved) {
            return Fitness::Fit;
        }
        let nearest = clocks.iter().filter(|(_, id)| *id != own);
        match nearest.min_by_key(|(clock, id)| (clock.abs_diff(median), *id)) {
            Some((_, to)) => Fitness::Off { by_us, to: *to },
            None => Fitness::Fit,
        }
    }
}

fn is_old(reading: Reading, now: Moment) -> bool {
    now.monotonic_us.saturating_sub(reading.heard_us) > CLOCK_READING_AGE_US_MAX
}

fn difference(one: u64, other: u64) -> i64 {
    let size = i64::try_from(one.abs_diff(other)).unwrap_or(i64::MAX);
    if one >= other { size } else { -size }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 1_800_000_000_000_000;
    const DAY: u64 = 86_400_000_000;

    fn at(wall_us: u64, monotonic_us: u64) -> Moment {
        Moment { wall_us, monotonic_us }
    }

    fn heard(readings: &[(ControllerId, u64)]) -> Clocks {
        let mut clocks = Clocks::default();
        for (id, wall_us) in readings {
            clocks.heard(*id, *wall_us, at(NOON, 0));
        }
        clocks
    }

    #[test]
    fn a_clock_far_from_the_median_is_unfit_and_names_who_is_fit() {
        let clocks = heard(&[(2, NOON), (3, NOON + 1_000)]);
        assert_eq!(clocks.fitness(1, &[1, 2, 3], at(NOON + 5_000_000, 0)), Fitness::Fit);
        let ahead = clocks.fitness(1, &[1, 2, 3], at(NOON + DAY, 0));
        assert_eq!(ahead, Fitness::Off { by_us: DAY.cast_signed() - 1_000, to: 3 });
        let behind = clocks.fitness(1, &[1, 2, 3], at(NOON - DAY, 0));
        assert_eq!(behind, Fitness::Off { by_us: -DAY.cast_signed(), to: 2 });
    }

    #[test]
    fn one_bad_clock_among_the_others_unseats_nobody() {
        let clocks = heard(&[(2, NOON), (3, NOON + DAY)]);
        assert_eq!(clocks.fitness(1, &[1, 2, 3], at(NOON, 0)), Fitness::Fit);
        let clocks = heard(&[(2, NOON), (3, NOON - DAY)]);
        assert_eq!(clocks.fitness(1, &[1, 2, 3], at(NOON, 0)), Fitness::Fit);
    }

    #[test]
    fn of_two_that_disagree_both_find_the_earlier_one_fit() {
        let one = heard(&[(2, NOON + DAY)]);
        assert_eq!(one.fitness(1, &[1, 2, 3], at(NOON, 0)), Fitness::Fit);
        let other = heard(&[(1, NOON)]);
        let off = Fitness::Off { by_us: DAY.cast_signed(), to: 1 };
        assert_eq!(other.fitness(2, &[1, 2, 3], at(NOON + DAY, 0)), off);
    }

    #[test]
    fn nobody_judges_a_clock_alone_or_by_what_is_no_voter_or_long_past() {
        assert_eq!(Clocks::default().fitness(1, &[1], at(NOON, 0)), Fitness::Fit);
        let clocks = heard(&[(2, NOON)]);
        assert_eq!(clocks.fitness(1, &[1, 3], at(NOON + DAY, 0)), Fitness::Fit);
        let later = at(NOON + DAY, CLOCK_READING_AGE_US_MAX + 1);
        assert_eq!(clocks.fitness(1, &[1, 2], later), Fitness::Fit);
    }

    #[test]
    fn a_late_message_does_not_set_a_clock_back_and_a_newer_one_does_in_the_end() {
        let mut clocks = heard(&[(2, NOON)]);
        let minute = 60_000_000;
        // Sent together with the first, and half a minute under way.
        clocks.heard(2, NOON, at(NOON + minute / 2, minute / 2));
        assert_eq!(clocks.fitness(1, &[1, 2], at(NOON + minute / 2, minute / 2)), Fitness::Fit);
        // Its clock was set back by a day, and says so again and again.
        let mut now = minute / 2;
        while now <= minute / 2 + CLOCK_READING_AGE_US_MAX + minute {
            clocks.heard(2, NOON + now - DAY, at(NOON + now, now));
            now += 1_000_000;
        }
        assert!(matches!(clocks.fitness(1, &[1, 2], at(NOON + now, now)), Fitness::Off { to: 2, .. }));
    }

    #[test]
    fn a_clock_that_was_heard_of_just_now_is_known_though_an_earlier_message_came_sooner() {
        let mut clocks = heard(&[(2, NOON)]);
        let age = CLOCK_READING_AGE_US_MAX;
        // Every later message took longer.
        clocks.heard(2, NOON + age - 300_000, at(NOON, age));
        let just_old = at(NOON + DAY, age + 1);
        assert!(matches!(clocks.fitness(1, &[1, 2], just_old), Fitness::Off { to: 2, .. }));
    }
}
