//! A State of the past is the same whether it was folded then, or is rebuilt from what is kept of it and
//! from the State of today; and another history can go on from it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use stele_codec::{
    Chain, RecordBytes, decode_answers, decode_progress, decode_target, encode_answers, encode_progress,
    encode_target,
};
use stele_ledger::system_request;
use stele_model::decide::plan_rollback;
use stele_model::{
    Answers, AnswersDelta, Command, Delta, Outline, Record, Scope, State, TargetOutline, Time, Value, diff,
    fold, fold_target,
};
use stele_testkit::history::{Scribe, golden};

/// Decisions between two States that are looked at: no divisor of anything.
const DISTANCE: usize = 23;

fn records() -> Vec<Record> {
    let folder = Path::new("golden");
    let generations = golden::generations(folder).unwrap();
    let all = generations.iter().flat_map(|generation| &generation.records);
    all.map(|stored| stored.decode().unwrap()).collect()
}

#[test]
fn a_headline_is_what_the_header_says() {
    let generations = golden::generations(Path::new("golden")).unwrap();
    let (mut caused, mut asked) = (0, 0);
    for stored in generations.iter().flat_map(|generation| &generation.records) {
        let header = stored.header().unwrap();
        caused += usize::from(header.cause.is_some());
        asked += usize::from(header.idempotency.is_some());
        let bytes = stored.to_bytes(Chain::GENESIS);
        let (read, _) = RecordBytes::read(&bytes).unwrap();
        assert_eq!(read.headline().unwrap(), header.headline(), "seq {}", header.seq);
    }
    assert!(caused > 0 && asked > 0, "{caused} {asked}");
}

/// Some of the States that a log leads through.
fn states(records: &[Record]) -> Vec<State> {
    let mut states = vec![State::default()];
    // What is looked up changes nothing: what is rebuilt below does without.
    let mut state = State::default();
    state.keep_index();
    let mut decisions = 0;
    for record in records {
        fold(&mut state, record);
        if record.header.decision.last() == record.header.seq {
            decisions += 1;
            if decisions % DISTANCE == 0 {
                states.push(state.clone());
            }
        }
    }
    assert!(state.index_is_true());
    states.push(state);
    states
}

/// Filled, and made whole.
fn whole(outline: &Outline, answers: Answers, now: &State, through: u64) -> State {
    let mut state = outline.filled(now, through);
    answers.put_into(&mut state);
    state
}

fn equal(rebuilt: &State, then: &State) {
    if let Some(mismatch) = rebuilt.first_mismatch(then) {
        panic!("seq {}: rebuilt and as it was: {mismatch:?}", then.seq);
    }
    assert_eq!(rebuilt, then, "seq {}", then.seq);
    assert_eq!(rebuilt.clone().digest(), then.clone().digest(), "seq {}", then.seq);
}

#[test]
fn every_state_is_rebuilt() {
    let records = records();
    let states = states(&records);
    let now = states.last().unwrap();
    assert!(states.len() > 20, "{}", states.len());
    for pair in states.windows(2) {
        let [before, then] = pair else { unreachable!() };
        // What differs is kept as bytes, and put on again.
        let delta = Delta::between(&Outline::of(before), &Outline::of(then));
        let mut outline = Outline::of(before);
        let target = decode_target(&encode_target(&delta.target)).unwrap();
        let progress = decode_progress(&encode_progress(&delta.progress)).unwrap();
        let mut of_target = TargetOutline::of(before);
        target.clone().put_on(&mut of_target).unwrap();
        assert_eq!(of_target.first_mismatch(&TargetOutline::of(then)), None);
        Delta { target, progress }.put_on(&mut outline).unwrap();
        assert_eq!(outline.target(), of_target);
        assert_eq!(outline.first_mismatch(&Outline::of(then)), None);
        let delta = AnswersDelta::between(&Answers::of(before), &Answers::of(then));
        let mut answers = Answers::of(before);
        decode_answers(&encode_answers(&delta)).unwrap().put_on(&mut answers).unwrap();
        assert_eq!(answers.first_mismatch(&Answers::of(then)), None);
        equal(&whole(&outline, answers, now, then.seq), then);
        // Or the records are folded again.
        let mut folded = whole(&Outline::of(before), Answers::of(before), now, then.seq);
        let mut read = Outline::of(before).filled(now, then.seq);
        for record in &records[before.seq as usize..then.seq as usize] {
            fold(&mut folded, record);
            fold(&mut read, record);
        }
        equal(&folded, then);
        // Without what was answered, everything else is the same.
        assert!(read.history.answered.is_empty() && read.history.answered_by_age.is_empty());
        Answers::of(then).put_into(&mut read);
        equal(&read, then);
    }
}

#[test]
fn what_should_be_is_rebuilt_without_the_rest() {
    let records = records();
    let states = states(&records);
    let now = states.last().unwrap();
    let mut passed_over = 0;
    for pair in states.windows(2) {
        let [before, then] = pair else { unreachable!() };
        let mut folded = TargetOutline::of(before).filled(now, then.seq);
        for record in &records[before.seq as usize..then.seq as usize] {
            let mut asked = false;
            let record_of = || -> Result<Record, ()> {
                asked = true;
                Ok(record.clone())
            };
            fold_target(&mut folded, &record.header.headline(), record_of).unwrap();
            passed_over += usize::from(!asked);
        }
        let read = TargetOutline::of(&folded).filled(now, then.seq);
        assert_eq!(
            TargetOutline::of(&read).first_mismatch(&TargetOutline::of(then)),
            None,
            "seq {}",
            then.seq
        );
        assert!(read.assigned.is_empty() && read.observed.is_empty() && read.history.changes.is_empty());
        // Whoever compares or restores targets needs nothing else.
        let fleet = Scope::fleet();
        assert_eq!(read.target_digest(&fleet), then.target_digest(&fleet), "seq {}", then.seq);
        assert_eq!(read.last_changed(&fleet), then.last_changed(&fleet), "seq {}", then.seq);
        assert_eq!(diff(&read, now, &fleet), diff(then, now, &fleet), "seq {}", then.seq);
        assert_eq!(
            plan_rollback(now, &read, &fleet, &[]),
            plan_rollback(now, then, &fleet, &[]),
            "seq {}",
            then.seq
        );
    }
    assert!(passed_over > 100, "{passed_over}");
}

#[test]
fn another_history_goes_on_from_the_past() {
    let records = records();
    let states = states(&records);
    let now = states.last().unwrap();
    let mut gone_on = 0;
    for then in &states {
        let Some(app_env) = then.target.intent.keys().next() else { continue };
        let variables = BTreeMap::from([("WHAT".to_owned(), Some(Value::Plain("if".to_owned())))]);
        let request = system_request(Command::SetConfig { app_env: app_env.clone(), variables });
        let go_on = |state: State| {
            let mut scribe = Scribe::after(state, Chain::GENESIS, Time(now.time.0 + 1));
            let records = scribe.ask(&request, BTreeMap::new()).unwrap();
            (records, scribe.state().clone())
        };
        let (decided, other) = go_on(whole(&Outline::of(then), Answers::of(then), now, then.seq));
        let (as_then, other_then) = go_on(then.clone());
        assert_eq!(decided, as_then, "seq {}", then.seq);
        equal(&other, &other_then);
        gone_on += 1;
    }
    assert!(gone_on > 20, "{gone_on}");
}
