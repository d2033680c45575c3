use crate::limits::{FEED_BATCH_RECORDS, FEED_RETRY_FIRST_MS, FEED_RETRY_MS_MAX};
use crate::{Answer, Gap, Keeper, Rest, Seen, Step, Woken, guards};

const DONE: Step = Step::Rest(Rest::Done);

const fn seen(made: i128, last: u64) -> Seen {
    Seen { made, first: if last == 0 { 0 } else { 1 }, last }
}

const fn stored(at: u64) -> Answer {
    Answer::Stored { at, repeated: false }
}

const fn publish(after: u64) -> Step {
    Step::Publish { after, limit: FEED_BATCH_RECORDS }
}

/// One that found a stream and everything on it right.
fn knows(last: u64, committed: u64) -> Keeper {
    let mut keeper = Keeper::default();
    assert_eq!(keeper.next(true, committed), Step::Find);
    keeper.found(Some(seen(1, last)), committed);
    if let Step::Compare { .. } = keeper.next(true, committed) {
        keeper.compared(true);
    }
    keeper
}

#[test]
fn a_feed_that_is_gone_is_made_and_filled() {
    let mut keeper = Keeper::default();
    assert_eq!(keeper.next(true, 3), Step::Find);
    keeper.found(None, 3);
    assert_eq!(keeper.next(true, 3), Step::Create);
    keeper.found(Some(seen(1, 0)), 3);
    assert_eq!(keeper.next(true, 3), publish(0));
    assert_eq!(keeper.read([1, 2]), Ok(()));
    assert_eq!(keeper.next(true, 3), Step::Await);
    assert!(keeper.answered(stored(1)) && keeper.answered(stored(2)));
    assert_eq!(keeper.next(true, 3), publish(2));
    assert_eq!(keeper.read([3]), Ok(()));
    assert!(keeper.answered(stored(3)));
    assert_eq!(keeper.next(true, 3), DONE);
    keeper.woken(Woken::Committed);
    assert_eq!(keeper.next(true, 4), publish(3));
}

#[test]
fn a_message_is_taken_once_and_after_the_one_before() {
    assert_eq!((guards(7).id, guards(7).last), (7, 6));
}

#[test]
fn a_feed_that_was_made_at_the_same_time_is_looked_at_before_it_is_added_to() {
    let mut keeper = Keeper::default();
    keeper.found(None, 3);
    assert_eq!(keeper.next(true, 3), Step::Create);
    keeper.found(Some(seen(1, 2)), 3);
    assert_eq!(keeper.next(true, 3), Step::Compare { from: 1, to: 2 });
}

#[test]
fn a_feed_of_another_history_is_made_again() {
    let mut keeper = Keeper::default();
    keeper.found(Some(seen(1, 5)), 9);
    assert_eq!(keeper.next(true, 9), Step::Compare { from: 1, to: 5 });
    keeper.compared(false);
    assert_eq!(keeper.next(true, 9), Step::Delete);
    keeper.deleted();
    assert_eq!(keeper.next(true, 9), Step::Create);
    keeper.found(Some(seen(2, 0)), 9);
    assert_eq!(keeper.next(true, 9), publish(0));
}

#[test]
fn a_feed_of_another_history_stays_one_until_it_is_deleted() {
    let mut keeper = Keeper::default();
    keeper.found(Some(seen(1, 5)), 9);
    keeper.compared(false);
    assert_eq!(keeper.next(true, 9), Step::Delete);
    keeper.failed();
    keeper.woken(Woken::Time);
    assert_eq!(keeper.next(true, 9), Step::Find);
    // Meanwhile another controller has put more on top of it.
    keeper.found(Some(seen(1, 8)), 9);
    assert_eq!(keeper.next(true, 9), Step::Compare { from: 1, to: 8 });
}

#[test]
fn what_is_no_longer_kept_is_not_compared() {
    let mut keeper = Keeper::default();
    keeper.found(Some(Seen { made: 1, first: 4, last: 5 }), 9);
    assert_eq!(keeper.next(true, 9), Step::Compare { from: 4, to: 5 });
    keeper.found(Some(Seen { made: 1, first: 6, last: 5 }), 9);
    assert_eq!(keeper.next(true, 9), publish(5));
}

#[test]
fn of_a_long_feed_its_end_is_compared_and_later_what_was_not_proven_and_the_last() {
    let batch = FEED_BATCH_RECORDS as u64;
    let mut keeper = Keeper::default();
    keeper.found(Some(seen(1, 5_000)), 6_000);
    assert_eq!(keeper.next(true, 6_000), Step::Compare { from: 5_001 - batch, to: 5_000 });
    keeper.compared(true);
    assert_eq!(keeper.next(true, 5_000), DONE);
    keeper.woken(Woken::Time);
    keeper.found(Some(seen(1, 5_000)), 6_000);
    assert_eq!(keeper.next(true, 6_000), Step::Compare { from: 5_000, to: 5_000 });
    keeper.found(Some(seen(1, 5_003)), 6_000);
    assert_eq!(keeper.next(true, 6_000), Step::Compare { from: 5_001, to: 5_003 });
    // Made again by somebody: nothing of it is known.
    keeper.found(Some(seen(2, 5)), 6_000);
    assert_eq!(keeper.next(true, 6_000), Step::Compare { from: 1, to: 5 });
}

#[test]
fn nothing_is_put_on_top_of_what_could_not_be_compared_yet() {
    let mut keeper = knows(11, 10);
    // Another leader knew of more, or somebody forged it.
    assert_eq!(keeper.next(true, 10), DONE);
    keeper.woken(Woken::Committed);
    assert_eq!(keeper.next(true, 12), Step::Find);
    keeper.found(Some(seen(1, 11)), 12);
    assert_eq!(keeper.next(true, 12), Step::Compare { from: 11, to: 11 });
    keeper.compared(true);
    assert_eq!(keeper.next(true, 12), publish(11));
}

#[test]
fn what_stands_where_a_record_belongs_is_looked_at_once_there_is_one() {
    let mut keeper = knows(11, 10);
    assert_eq!(keeper.next(true, 10), DONE);
    keeper.woken(Woken::Committed);
    assert_eq!(keeper.next(true, 11), Step::Find);
    keeper.found(Some(seen(1, 11)), 11);
    assert_eq!(keeper.next(true, 11), Step::Compare { from: 11, to: 11 });
    keeper.compared(true);
    assert_eq!(keeper.next(true, 11), DONE);
}

#[test]
fn what_the_server_took_for_a_repetition_is_compared_before_more_is_published() {
    let mut keeper = knows(1, 9);
    assert_eq!(keeper.next(true, 9), publish(1));
    assert_eq!(keeper.read([2, 3]), Ok(()));
    assert!(keeper.answered(Answer::Stored { at: 2, repeated: true }));
    assert!(keeper.answered(stored(3)));
    assert_eq!(keeper.published(), Some(3));
    assert_eq!(keeper.next(true, 9), Step::Find);
    keeper.found(Some(seen(1, 3)), 9);
    assert_eq!(keeper.next(true, 9), Step::Compare { from: 2, to: 3 });
}

#[test]
fn what_is_not_acknowledged_as_it_was_sent_does_not_count() {
    for answer in [Answer::Unknown, Answer::Refused, stored(4), stored(2)] {
        let mut keeper = knows(2, 9);
        assert_eq!(keeper.next(true, 9), publish(2));
        assert_eq!(keeper.read([3, 4, 5]), Ok(()));
        assert!(!keeper.answered(answer), "{answer:?}");
        assert_eq!(keeper.published(), None);
        assert_eq!(keeper.next(true, 9), Step::Rest(Rest::Retry { ms: FEED_RETRY_FIRST_MS }));
        // No other answer helps, and neither does another record.
        assert!(!keeper.answered(stored(4)));
        keeper.woken(Woken::Committed);
        assert_eq!(keeper.next(true, 9), Step::Rest(Rest::Retry { ms: FEED_RETRY_FIRST_MS }));
        keeper.woken(Woken::Time);
        assert_eq!(keeper.next(true, 9), Step::Find);
        // What came after may stand on something else.
        keeper.found(Some(seen(1, 5)), 9);
        assert_eq!(keeper.next(true, 9), Step::Compare { from: 3, to: 5 });
    }
}

#[test]
fn a_log_with_a_gap_is_not_published() {
    let mut keeper = knows(2, 9);
    assert_eq!(keeper.read([3, 5]), Err(Gap { expected: 4, found: 5 }));
    assert!(matches!(keeper.next(true, 9), Step::Rest(Rest::Retry { .. })));
}

#[test]
fn a_log_that_gives_nothing_is_asked_again_when_more_is_committed() {
    let mut keeper = knows(2, 9);
    assert_eq!(keeper.next(true, 9), publish(2));
    assert_eq!(keeper.read([]), Ok(()));
    assert_eq!(keeper.next(true, 9), DONE);
    keeper.woken(Woken::Committed);
    assert_eq!(keeper.next(true, 10), publish(2));
}

#[test]
fn without_a_connection_nothing_is_tried_and_nothing_stays_known() {
    let mut keeper = knows(2, 9);
    assert_eq!(keeper.next(false, 9), Step::Rest(Rest::Away));
    keeper.woken(Woken::Connection);
    assert_eq!(keeper.next(true, 9), Step::Find);
    for by in [Woken::Connection, Woken::Time] {
        let mut keeper = knows(9, 9);
        assert_eq!(keeper.next(true, 9), DONE);
        keeper.woken(by);
        assert_eq!(keeper.next(true, 9), Step::Find);
    }
}

#[test]
fn pauses_double_until_something_works() {
    let mut keeper = Keeper::default();
    let mut pauses = Vec::new();
    for _ in 0..8 {
        keeper.failed();
        let Step::Rest(Rest::Retry { ms }) = keeper.next(true, 9) else { panic!("it rests") };
        pauses.push(ms);
        keeper.woken(Woken::Time);
    }
    assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    assert_eq!(pauses[7], FEED_RETRY_MS_MAX);
    keeper.found(Some(seen(1, 0)), 0);
    assert_eq!(keeper.next(true, 0), DONE);
    keeper.failed();
    assert_eq!(keeper.next(true, 0), Step::Rest(Rest::Retry { ms: FEED_RETRY_FIRST_MS }));
}
