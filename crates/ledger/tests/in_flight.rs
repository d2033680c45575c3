//! What rests on entries that are still on their way is told only when leadership is known to have lasted.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use stele_codec::Chain;
use stele_ledger::{Ledger, Moment, Outcome, Submitted, system_request};
use stele_model::{Answer, Command, State};

const TERM: u64 = 1;
const CONTROLLER: u64 = 1;

fn now() -> Moment {
    Moment { wall_us: 1_700_000_000_000_000, monotonic_us: 1 }
}

fn change() -> Command {
    Command::RecordMembership { voters: vec![CONTROLLER], learners: Vec::new() }
}

/// A leader whose first record, and one that says who votes, are in one batch.
fn leader() -> Ledger<&'static str> {
    let mut leader = Ledger::new("acme", State::default(), Chain::GENESIS);
    leader.elected(TERM, CONTROLLER);
    assert!(leader.caught_up(now()));
    assert_eq!(ask(&mut leader, "changes"), Submitted::Waiting);
    leader
}

fn ask(leader: &mut Ledger<&'static str>, who: &'static str) -> Submitted<&'static str> {
    leader.submit(who, &system_request(change()), BTreeMap::new(), now())
}

fn nothing(who: &'static str) -> (&'static str, Outcome) {
    (who, Outcome::Done(Answer::default()))
}

#[test]
fn who_asks_before_the_entry_leaves_is_answered_when_it_commits() {
    let mut leader = leader();
    assert_eq!(ask(&mut leader, "asks before"), Submitted::Waiting);
    let (bytes, _) = leader.close_batch().unwrap();
    leader.proposed(1);
    let committed = leader.commit(1, TERM, &bytes).unwrap();
    assert!(committed.unconfirmed.is_empty());
    assert_eq!(committed.answers.len(), 2);
    assert!(committed.answers.contains(&nothing("asks before")));
}

/// A majority may have taken the entry long ago, and have another leader by now that changed more:
/// its acknowledgements can arrive after the question all the same.
#[test]
fn who_asks_while_the_entry_is_on_its_way_is_answered_after_a_read_index() {
    let mut leader = leader();
    let (bytes, _) = leader.close_batch().unwrap();
    leader.proposed(1);
    assert_eq!(ask(&mut leader, "asks late"), Submitted::Waiting);
    let committed = leader.commit(1, TERM, &bytes).unwrap();
    assert_eq!(committed.answers.len(), 1, "{:?}", committed.answers);
    assert_eq!(committed.unconfirmed, [nothing("asks late")]);
    assert_eq!(ask(&mut leader, "asks later"), {
        let (who, outcome) = nothing("asks later");
        Submitted::Confirm(who, outcome)
    });
}

#[test]
fn when_leadership_is_lost_nobody_is_told_anything() {
    let mut leader = leader();
    leader.close_batch().unwrap();
    leader.proposed(1);
    assert_eq!(ask(&mut leader, "asks late"), Submitted::Waiting);
    let told = leader.deposed();
    assert_eq!(told, [("changes", Outcome::Unknown), ("asks late", Outcome::Unknown)]);
}
