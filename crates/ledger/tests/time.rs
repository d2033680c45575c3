//! Log time follows a clock that is fit, and never goes back.
#![allow(clippy::unwrap_used)]

use stele_codec::Chain;
use stele_ledger::limits::LOG_TIME_BEHIND_US_MAX;
use stele_ledger::{Ledger, Moment, Submitted, system_request};
use stele_model::{Command, State, Time};

const NOON_US: u64 = 1_700_000_000_000_000;
const HOUR_US: u64 = 3_600_000_000;

/// Both clocks, so many microseconds after the term began.
fn at(wall_us: i64, monotonic_us: u64) -> Moment {
    Moment { wall_us: NOON_US.saturating_add_signed(wall_us), monotonic_us }
}

fn leader() -> Ledger<()> {
    let mut leader = Ledger::new("acme", State::default(), Chain::GENESIS);
    leader.elected(1, 1);
    assert!(leader.caught_up(at(0, 0)));
    leader
}

/// Has something decided; its time, from the beginning of the term.
fn decide(leader: &mut Ledger<()>, members: u64, now: Moment) -> u64 {
    let command = Command::RecordMembership { voters: vec![members], learners: Vec::new() };
    let submitted = leader.submit((), &system_request(command), std::collections::BTreeMap::new(), now);
    assert_eq!(submitted, Submitted::Waiting);
    leader.speculative().unwrap().time.0 - NOON_US
}

#[test]
fn after_a_sleep_log_time_is_that_of_the_clock_again() {
    let mut leader = leader();
    assert_eq!(decide(&mut leader, 1, at(10, 10)), 10);
    // The monotonic clock stands still while the machine sleeps.
    let woken = at(3 * HOUR_US.cast_signed(), 20);
    assert_eq!(decide(&mut leader, 2, woken), 20, "nobody has looked yet");
    assert_eq!(leader.follow_wall(woken), Some(3 * HOUR_US - 21));
    assert_eq!(decide(&mut leader, 3, woken), 3 * HOUR_US);
    let later = at(3 * HOUR_US.cast_signed() + 5, 25);
    assert_eq!(leader.time(later), Some(Time(NOON_US + 3 * HOUR_US + 5)));
    assert_eq!(leader.follow_wall(later), None, "it is right");
}

#[test]
fn log_time_neither_goes_back_nor_follows_what_is_little() {
    let mut leader = leader();
    assert_eq!(decide(&mut leader, 1, at(10, 10)), 10);
    // The clock is set back by an hour: the log goes on as it did.
    let back = at(20 - HOUR_US.cast_signed(), 20);
    assert_eq!(leader.follow_wall(back), None);
    assert_eq!(decide(&mut leader, 2, back), 20);
    // It is set forward, by as much as does not matter.
    let little = at(30 + LOG_TIME_BEHIND_US_MAX.cast_signed(), 30);
    assert_eq!(leader.follow_wall(little), None);
    assert_eq!(decide(&mut leader, 3, little), 30);
    let more = at(41 + LOG_TIME_BEHIND_US_MAX.cast_signed(), 40);
    assert_eq!(leader.follow_wall(more), Some(LOG_TIME_BEHIND_US_MAX + 1));
    assert_eq!(decide(&mut leader, 4, more), 41 + LOG_TIME_BEHIND_US_MAX);
    // And back again, which it does not follow.
    assert_eq!(decide(&mut leader, 5, at(50, 50)), 51 + LOG_TIME_BEHIND_US_MAX);
}

#[test]
fn who_decides_nothing_has_no_log_time() {
    let mut follower = Ledger::<()>::new("acme", State::default(), Chain::GENESIS);
    assert_eq!(follower.follow_wall(at(0, 0)), None);
}
