//! What fleets wrote is kept for ever, and means for ever what it meant: every generation of the golden
//! history folds into the State it was written with.
//!
//! A failure here is never put right by touching `crates/testkit/golden`: see `docs/log-format.md`,
//! "The golden history".
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use stele_codec::{Chain, Snapshot, StoredRecord, Verifier, encode_record};
use stele_model::event::{DeploymentKind, Outcome, Pin};
use stele_model::{Digest, Event, Record, Scope, State};
use stele_testkit::Programs;
use stele_testkit::history::golden::{self, Generation, LOG_BYTES_MAX};
use stele_testkit::history::{Written, new_store, store_bytes, store_records};

/// `stele replay`: the log contradicts itself.
const EXIT_DIVERGED: i32 = 7;
/// Fewest occurrences of a kind, in a schema that is still written. A fleet is founded once.
const SEVERAL: u64 = 3;
const ONCE: [&str; 1] = ["fleet_created"];

fn folder() -> PathBuf {
    PathBuf::from("golden")
}

fn generations() -> Vec<Generation> {
    let generations = golden::generations(&folder()).unwrap();
    assert!(!generations.is_empty(), "there is no golden history in {}", folder().display());
    generations
}

/// The log before the first generation, which that one goes on with.
fn earlier() -> Vec<StoredRecord> {
    let file = folder().join("../../codec/tests/golden/earlier/log.hex");
    golden::earlier(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// All records of all generations, as a store keeps them.
fn written(generations: &[Generation]) -> Vec<Written> {
    let mut chain = Chain::GENESIS;
    let mut all = Vec::new();
    for generation in generations {
        all.extend(generation.written(chain));
        chain = all.last().unwrap().chain;
    }
    all
}

#[test]
fn a_target_digest_is_the_same_whatever_other_state_is_known() {
    let (mut verifier, mut known) = (Verifier::new(), State::default());
    let (mut alike, mut otherwise) = (0, 0);
    for Generation { index, records } in &generations() {
        let verified = index.verify(records, &mut verifier, |checkpoint, verifier| {
            let state = verifier.state();
            for (scope, digest) in &checkpoint.targets {
                let scope: Scope = scope.parse().unwrap();
                let other = known.target_digest(&scope);
                let is_alike = other.placement == digest.placement;
                *(if is_alike { &mut alike } else { &mut otherwise }) += 1;
                assert_eq!(state.target_digest_after(&scope, &known, other), *digest, "{scope}");
                assert_eq!(known.target_digest_after(&scope, state, *digest), other, "{scope}");
            }
            known = state.clone();
        });
        verified.unwrap_or_else(|error| panic!("{error:#}"));
    }
    assert!(alike > 10 && otherwise > 10, "{alike} {otherwise}");
}

#[test]
fn every_generation_means_what_it_meant() {
    let generations = generations();
    let mut verifier = Verifier::new();
    let mut snapshots = Vec::new();
    for Generation { index, records } in &generations {
        assert!(!records.is_empty() && !index.checkpoints.is_empty());
        let middle = index.checkpoints[index.checkpoints.len() / 2].seq;
        let verified = index.verify(records, &mut verifier, |checkpoint, verifier| {
            if checkpoint.seq == middle {
                let (state, chain) = (verifier.state().clone(), verifier.chain());
                snapshots.push(Snapshot { chain, state }.encode());
            }
        });
        verified.unwrap_or_else(|error| panic!("{error:#}"));
    }
    assert_eq!(snapshots.len(), generations.len());
    let (state, chain) = verifier.into_parts();
    for snapshot in snapshots {
        from_snapshot(&snapshot, &generations, &state, chain);
    }
}

/// Who begins with a snapshot comes to the same as who begins with the first record.
fn from_snapshot(snapshot: &[u8], generations: &[Generation], state: &State, chain: Chain) {
    let snapshot = Snapshot::decode(snapshot).unwrap();
    let seq = snapshot.state.seq;
    let mut verifier = Verifier::resume(snapshot.state, snapshot.chain);
    let checkpoints = generations.iter().flat_map(|generation| &generation.index.checkpoints);
    let checkpoints: BTreeMap<_, _> = checkpoints.map(|checkpoint| (checkpoint.seq, checkpoint)).collect();
    for record in written(generations).iter().filter(|record| record.seq > seq) {
        verifier.push(&record.stored, Some(record.chain)).unwrap();
        if let Some(checkpoint) = checkpoints.get(&record.seq) {
            let same = checkpoint.check(verifier.state(), verifier.chain());
            same.unwrap_or_else(|error| panic!("from the snapshot at seq {seq}: {error:#}"));
        }
    }
    assert_eq!((verifier.state(), verifier.chain()), (state, chain), "from the snapshot at seq {seq}");
}

/// A new kind or schema is part of history as soon as it can be written.
#[test]
fn every_kind_of_event_is_in_it_in_every_schema() {
    let mut kinds = golden::Kinds::new();
    for generation in generations() {
        for (kind, schemas) in generation.index.kinds {
            let all = kinds.entry(kind).or_default();
            for (schema, count) in schemas {
                *all.entry(schema).or_default() += count;
            }
        }
    }
    let schema = serde_json::to_value(schemars::schema_for!(Event)).unwrap();
    let variants = schema["oneOf"].as_array().expect("an enum is one of its variants");
    for variant in variants {
        let kind = variant["required"][0].as_str().unwrap();
        let newest = Event::schema_of(kind);
        for schema in 1..=newest {
            let found = kinds.get(kind).and_then(|schemas| schemas.get(&schema)).copied().unwrap_or_default();
            // What an earlier version wrote does not become more.
            let needed = if schema < newest || ONCE.contains(&kind) { 1 } else { SEVERAL };
            assert!(
                found >= needed,
                "{kind} of schema {schema} is {found} times in the golden history, and should be {needed} times: tell \
                 of it in crates/testkit/src/history/golden/chapters, and add a generation with: cargo xtask \
                 golden-log. The generations there are stay as they are"
            );
        }
    }
    assert_eq!(kinds.len(), variants.len(), "a kind of event that was released is gone: {kinds:?}");
}

#[test]
fn what_fleets_go_through_is_in_it() {
    let (mut rollbacks, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for record in generations().iter().flat_map(|generation| &generation.records) {
        let record = record.decode().unwrap();
        match record.event {
            Event::RolledBack { scope, except, deviations, .. } => {
                let Scope { project, app, environment, region, node } = scope.parse::<Scope>().unwrap();
                let parts = [
                    ("project", project.is_some()),
                    ("app", app.is_some()),
                    ("env", environment.is_some()),
                    ("region", region.is_some()),
                    ("node", node.is_some()),
                ];
                let parts = parts.into_iter().filter(|(_, fixed)| *fixed).map(|(part, _)| part);
                rollbacks.insert(parts.collect::<Vec<_>>().join(","));
                let except =
                    except.iter().map(|scope| if scope.is_placed() { "except a place" } else { "except" });
                seen.extend(except);
                if !deviations.is_empty() {
                    seen.insert("deviations");
                }
            }
            Event::DeploymentStarted { kind, now, barrier, .. } => {
                seen.insert(match kind {
                    DeploymentKind::Deploy => "deploy",
                    DeploymentKind::Configure => "configure",
                    DeploymentKind::Rollback => "rollback",
                    DeploymentKind::Remove => "remove",
                    DeploymentKind::Undo => "undo",
                });
                seen.extend(now.then_some("now"));
                seen.extend(barrier.map(|_| "barrier"));
            }
            Event::DeploymentFinished { outcome, .. } => {
                seen.insert(match outcome {
                    Outcome::Succeeded => "succeeded",
                    Outcome::Failed { .. } => "failed",
                    Outcome::Unplaced { .. } => "unplaced",
                    Outcome::Superseded { .. } => "superseded",
                });
            }
            Event::PinsChanged { pins, .. } => {
                seen.extend(pins.iter().map(|(_, pin)| match pin {
                    None => "pin lifted",
                    Some(Pin::Revision(_)) => "pinned",
                    Some(Pin::Absent) => "pinned to absence",
                }));
            }
            _ => {}
        }
        let header = record.header;
        let sealed = header.reason.is_some_and(|reason| reason.plain().is_none());
        seen.extend(sealed.then_some("a sealed reason"));
        seen.extend(header.cause.map(|_| "a cause"));
        seen.extend(header.links.on_behalf_of.map(|_| "on behalf of"));
    }
    let scopes =
        ["", "app,env", "env", "project", "region", "node", "app,env,region", "project,env", "env,region"];
    for scope in scopes.into_iter().chain(["project,node"]) {
        assert!(rollbacks.contains(scope), "no rollback of {scope:?}, only of {rollbacks:?}");
    }
    for what in [
        "except",
        "except a place",
        "deviations",
        "deploy",
        "configure",
        "rollback",
        "remove",
        "undo",
        "now",
        "barrier",
        "succeeded",
        "failed",
        "unplaced",
        "superseded",
        "pin lifted",
        "pinned",
        "pinned to absence",
        "a sealed reason",
        "a cause",
        "on behalf of",
    ] {
        assert!(seen.contains(what), "{what:?} is not in it, only {seen:?}");
    }
}

/// The generator must work on the day it is needed.
#[test]
fn the_next_generation_can_be_told() {
    let generations = generations();
    let next = golden::next(&generations, earlier()).unwrap();
    assert_eq!(next.index.generation as usize, generations.len() + 1);
    assert_eq!(next.index.first, generations.last().unwrap().index.last + 1);
    assert!(next.bytes().unwrap().len() <= LOG_BYTES_MAX);

    // Written, read again and verified after those before; and never written over.
    let folder = tempfile::tempdir().unwrap();
    for generation in generations.iter().chain([&next]) {
        generation.write(folder.path()).unwrap();
    }
    let read = golden::generations(folder.path()).unwrap();
    let mut verifier = Verifier::new();
    for generation in &read {
        generation.index.verify(&generation.records, &mut verifier, |_, _| {}).unwrap();
    }
    assert_eq!((read.len(), verifier.state().seq), (generations.len() + 1, next.index.last));
    let again = format!("{:#}", next.write(folder.path()).unwrap_err());
    assert!(again.contains("cannot write") && again.contains("exists"), "{again}");
}

#[test]
fn a_difference_says_what_it_means() {
    let Generation { mut index, records } = generations().remove(0);
    index.checkpoints.truncate(1);
    let whole = index.clone();
    let refused = |change: &dyn Fn(&mut golden::Index)| {
        let mut index = whole.clone();
        change(&mut index);
        let checkpoint = index.checkpoints[0].clone();
        let records = &records[..checkpoint.seq as usize];
        index.last = checkpoint.seq;
        let error = index.verify(records, &mut Verifier::new(), |_, _| {}).unwrap_err();
        format!("{error:#}")
    };
    let wrong = Digest::of(&[b"another"]);
    let seq = whole.checkpoints[0].seq;
    for (what, error) in [
        (format!("State at seq {seq}"), refused(&|index| index.checkpoints[0].state = wrong)),
        (format!("the chain at seq {seq}"), refused(&|index| index.checkpoints[0].chain = wrong)),
        (
            format!("the target of fleet at seq {seq}"),
            refused(&|index| index.checkpoints[0].targets.get_mut("fleet").unwrap().intent = wrong),
        ),
        ("had the kinds".to_owned(), refused(&|_| {})),
    ] {
        assert!(error.contains(&what), "{error}");
        assert!(error.contains("The meaning of history has changed"), "{error}");
        assert!(error.contains("Never bless this"), "{error}");
    }
}

fn replay(data: &Path) -> Output {
    asked_of(data, &["replay"])
}

/// Asks a data folder instead of a fleet.
fn asked_of(data: &Path, arguments: &[&str]) -> Output {
    let stele = Programs::find().unwrap().stele();
    Command::new(stele).args(arguments).args(["--output", "json", "--data"]).arg(data).output().unwrap()
}

/// Puts records into a controller's data folder.
fn data_of(records: Vec<Written>) -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    let mut store = new_store(&data.path().join("log"), "demo", 1).unwrap();
    store_records(&mut store, records, true).unwrap();
    data
}

#[test]
fn stele_replays_it_and_names_the_record_in_which_a_bit_was_flipped() {
    let generations = generations();
    let mut records = written(&generations);
    let last = generations.last().unwrap().index.checkpoints.last().unwrap();
    let output = replay(data_of(records.clone()).path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let digests: u64 = generations.iter().map(|generation| generation.index.state_digests).sum();
    assert_eq!(report["records"], last.seq);
    assert_eq!(report["state_digests_matched"], digests);
    assert_eq!(report["chain"], last.chain.to_string());
    assert_eq!(report["state_digest"], last.state.to_string());

    let flipped = &mut records[last.seq as usize / 2];
    *flipped.stored.payload.last_mut().unwrap() ^= 1;
    let seq = flipped.seq;
    let output = replay(data_of(records).path());
    let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(EXIT_DIVERGED), "{said}{why}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["diverged"]["seq"], seq, "{report}");
    assert_eq!(report["diverged"]["field"], "payload hash", "{report}");
    assert!(why.contains(&format!("the log diverges at seq {seq}: payload hash")), "{why}");
}

/// The first thing that differs, by a replay that must find one.
fn divergence(data: &Path) -> serde_json::Value {
    let output = replay(data);
    let why = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(EXIT_DIVERGED), "{why}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let seq = report["diverged"]["seq"].as_u64().unwrap();
    assert!(why.contains(&format!("the log diverges at seq {seq}: ")), "{why}");
    report["diverged"].clone()
}

/// The records with one of them said otherwise, and all hashes put right for it.
fn forged(records: &[Written], seq: u64, change: impl FnOnce(&mut Event)) -> Vec<Written> {
    let mut records = records.to_vec();
    let at = seq as usize - 1;
    let Record { header, mut event } = records[at].stored.decode().unwrap();
    change(&mut event);
    records[at].stored = encode_record(header, &event).unwrap().0;
    let mut chain = if at == 0 { Chain::GENESIS } else { records[at - 1].chain };
    for written in &mut records[at..] {
        chain = chain.link(&written.stored.leaf);
        written.chain = chain;
    }
    records
}

#[test]
fn a_replay_says_where_and_how_a_log_or_what_is_derived_of_it_is_wrong() {
    let records = written(&generations());
    let middle = records.len() as u64 / 2;

    // A State digest that nothing folds into, though every hash is right.
    let is_digest = |written: &&Written| written.stored.header().unwrap().kind == "state_digest_recorded";
    let recorded = records.iter().skip(middle as usize).find(is_digest).unwrap().seq;
    let wrong = Digest::of(&[b"another State"]);
    let lying = forged(&records, recorded, |event| match event {
        Event::StateDigestRecorded { digest } => *digest = wrong,
        other => panic!("{other:?} is no State digest"),
    });
    let found = divergence(data_of(lying).path());
    assert_eq!((&found["seq"], &found["field"]), (&recorded.into(), &"state digest".into()), "{found}");
    assert_eq!(found["recorded"], wrong.to_string());
    assert_ne!(found["computed"], found["recorded"]);

    // A record that is no record.
    let data = tempfile::tempdir().unwrap();
    let mut store = new_store(&data.path().join("log"), "demo", 1).unwrap();
    let mut bytes: Vec<(u64, Vec<u8>)> =
        records.iter().map(|written| (written.seq, written.stored.to_bytes(written.chain))).collect();
    bytes[middle as usize - 1].1 = b"garbage".to_vec();
    store_bytes(&mut store, bytes).unwrap();
    drop(store);
    let found = divergence(data.path());
    assert_eq!((&found["seq"], &found["field"]), (&middle.into(), &"record".into()), "{found}");

    // A snapshot of another State than the records lead to.
    let mut state = State::default();
    for written in &records[..middle as usize] {
        stele_model::fold(&mut state, &written.stored.decode().unwrap());
    }
    let with_snapshot = |state: State| {
        let data = tempfile::tempdir().unwrap();
        let mut store = new_store(&data.path().join("log"), "demo", 1).unwrap();
        store_records(&mut store, records.clone(), true).unwrap();
        let chain = records[middle as usize - 1].chain;
        store.reader().put_snapshot(middle, &Snapshot { chain, state }.encode()).unwrap();
        data
    };
    let output = replay(with_snapshot(state.clone()).path());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    // The one of the State before the first record is in every store.
    assert_eq!(report["snapshots_matched"], 1, "{report}");
    let node = state.control.nodes.keys().next().unwrap().clone();
    state.control.nodes.remove(&node);
    let found = divergence(with_snapshot(state).path());
    assert_eq!(found["seq"], middle, "{found}");
    let field = found["field"].as_str().unwrap();
    assert!(field.starts_with("snapshot: control.nodes") && field.contains(node.as_str()), "{found}");
    assert_eq!(found["recorded"], "nothing", "{found}");
}

#[test]
fn stele_compares_and_explains_from_a_folder_alone() {
    let records = written(&generations());
    let (middle, last) = (records.len() as u64 / 2, records.len() as u64);
    let state_at = |seq: u64| {
        let mut state = State::default();
        for record in &records[..seq as usize] {
            stele_model::fold(&mut state, &record.stored.decode().unwrap());
        }
        state
    };
    // No point lies inside a decision.
    let whole = records[middle as usize - 1].stored.header().unwrap().decision.first - 1;
    let (before, after) = (state_at(whole), state_at(last));
    let data = data_of(records.clone());
    let answer = |arguments: &[&str]| -> serde_json::Value {
        let output = asked_of(data.path(), arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let found = answer(&["diff", "fleet", &format!("seq:{whole}")]);
    let wanted = stele_model::diff(&before, &after, &Scope::fleet());
    assert!(!wanted.is_empty());
    assert_eq!(found["differences"], serde_json::to_value(wanted).unwrap());
    assert_eq!((&found["from"], &found["to"]), (&whole.into(), &last.into()));

    let app_env = after.target.intent.keys().next().unwrap().to_string();
    let why = answer(&["why", &app_env]);
    assert_eq!((&why["subject"], &why["at"]), (&app_env.as_str().into(), &last.into()));
    let first = why["steps"].as_array().unwrap().last().unwrap();
    let seq = first["seq"].as_u64().unwrap();
    let header = records[seq as usize - 1].stored.header().unwrap();
    assert_eq!(first["kind"], header.kind, "{first}");
    assert_eq!(header.cause, None, "the chain ends where nothing led to it: {first}");

    let output = asked_of(data.path(), &["diff", "fleet", "v3"]);
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
}
