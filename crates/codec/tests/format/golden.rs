//! Bytes that must never change: a log written by an earlier version is read for ever.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use stele_codec::{Chain, Entry, Snapshot, StoredRecord, Verifier};
use stele_model::event::TargetDigest;
use stele_model::{Digest, Event, Record, Scope};

use crate::corpus;
use crate::random_log::{Log, Step};

/// The folder of golden files.
pub(crate) fn folder() -> PathBuf {
    Path::new("tests/golden").canonicalize().unwrap()
}

/// Compares with a golden file, and says what a difference means.
fn assert_golden(file: &str, actual: &str) {
    let path = folder().join(file);
    if std::fs::read_to_string(&path).is_ok_and(|expected| expected != actual) {
        eprintln!(
            "{file} differs from what this program now writes. That is a break of the log format: logs written \
             before could no longer be read or verified. A released variant or layout is never edited; add a \
             new variant, or a new schema with its decoder (docs/log-format.md, \"Versions\"). Only while no log \
             in use depends on it, bless the change with EXPECTORATE=overwrite."
        );
    }
    expectorate::assert_contents(path, actual);
}

/// A record as people and other languages read it.
#[derive(Serialize)]
struct Rendered<'a> {
    header: &'a stele_model::Header,
    event: &'a Event,
    chain: Digest,
}

fn hex_lines<'a>(records: impl IntoIterator<Item = (&'a StoredRecord, Chain)>) -> String {
    records.into_iter().fold(String::new(), |mut text, (stored, chain)| {
        writeln!(text, "{}", hex::encode(stored.to_bytes(chain))).unwrap();
        text
    })
}

fn rendered(records: &[(Record, Chain)]) -> String {
    let rendered: Vec<_> = records
        .iter()
        .map(|(record, chain)| Rendered { header: &record.header, event: &record.event, chain: chain.0 })
        .collect();
    serde_json::to_string_pretty(&rendered).unwrap() + "\n"
}

#[test]
fn the_bytes_of_every_kind_of_record_are_as_they_were() {
    let records = corpus::records();
    assert_golden("records.hex", &hex_lines(records.iter().map(|(stored, _, chain)| (stored, *chain))));
    let decoded: Vec<_> =
        records.iter().map(|(stored, _, chain)| (stored.decode().unwrap(), *chain)).collect();
    assert_golden("records.json", &rendered(&decoded));
    for ((_, written, _), (read, _)) in records.iter().zip(&decoded) {
        assert_eq!(written, read);
    }
}

/// A new variant must not slip by the corpus: the schema lists every variant there is.
#[test]
fn the_corpus_has_every_kind_of_event() {
    let schema = serde_json::to_value(schemars::schema_for!(Event)).unwrap();
    let variants = schema["oneOf"].as_array().expect("an enum is one of its variants");
    let mut listed: Vec<&str> =
        variants.iter().map(|variant| variant["required"][0].as_str().unwrap()).collect();
    listed.sort_unstable();
    let events = corpus::events();
    let mut present: Vec<&str> = events.iter().map(Event::kind).collect();
    present.sort_unstable();
    present.dedup();
    assert_eq!(present, listed);
    let mut named = Event::KINDS.to_vec();
    named.sort_unstable();
    assert_eq!(named, listed);
}

#[test]
fn the_bytes_of_an_entry_are_as_they_were() {
    let records = corpus::records();
    let entry = Entry {
        fleet: "demo".to_owned(),
        term: 2,
        first: 4,
        previous: records[2].2,
        records: records[3..6].iter().map(|(stored, _, _)| stored.clone()).collect(),
    };
    let bytes = entry.encode();
    assert_golden("entry.hex", &(hex::encode(&bytes) + "\n"));
    assert_eq!(Entry::decode(&bytes).unwrap(), entry);
}

/// A small fleet's log: founded, deployed, configured, changed, rolled back.
fn small_log() -> Log {
    let mut log = Log::new();
    let steps = [
        Step::Deploy { app: 0, image: 2, replicas: 2 },
        Step::Deploy { app: 2, image: 4, replicas: 1 },
        Step::SetConfig { app: 0, value: 7 },
        Step::SetSecret { app: 0 },
        Step::Deploy { app: 0, image: 3, replicas: 3 },
        Step::Deploy { app: 1, image: 2, replicas: 1 },
        Step::Rollback { app: 0, steps: 1 },
        Step::Lose { node: 2 },
        Step::Refuse,
        Step::RollbackPart { app: 0, part: 1, steps: 1 },
        Step::Review,
        Step::Mark { app: 0, bad: true },
        Step::Deploy { app: 0, image: 5, replicas: 2 },
        Step::Undo { back: 0 },
        Step::RecordDigest,
    ];
    for step in steps {
        log.step(step);
        log.settle();
    }
    log
}

/// Scopes whose names are relative in every way there is.
pub(crate) const SCOPES: [&str; 9] = [
    "fleet",
    "project:shop",
    "env:prod",
    "project:shop,env:prod",
    "shop/web",
    "shop/web@prod",
    "region:eu",
    "node:us-1",
    "shop/web@prod,region:eu",
];

#[derive(Serialize)]
struct Digests {
    seq: u64,
    chain: Digest,
    state: Digest,
    targets: BTreeMap<&'static str, TargetDigest>,
}

#[test]
fn a_small_log_its_digests_and_its_snapshot_are_as_they_were() {
    let mut log = small_log();
    assert_golden("log.hex", &hex_lines(log.records.iter().map(|(stored, chain)| (stored, *chain))));
    let decoded: Vec<_> =
        log.records.iter().map(|(stored, chain)| (stored.decode().unwrap(), *chain)).collect();
    assert_golden("log.json", &rendered(&decoded));
    let state = log.digest();
    let target = |scope: &'static str| (scope, log.state().target_digest(&scope.parse::<Scope>().unwrap()));
    let digests = Digests {
        seq: log.state().seq,
        chain: log.chain().0,
        state,
        targets: SCOPES.into_iter().map(target).collect(),
    };
    assert_golden("digests.json", &(serde_json::to_string_pretty(&digests).unwrap() + "\n"));
    let snapshot = Snapshot { chain: log.chain(), state: log.state().clone() };
    assert_golden("snapshot.hex", &(hex::encode(snapshot.encode()) + "\n"));
}

/// Logs in which some kinds have earlier schemas are read, and mean what they meant.
#[test]
fn a_log_of_earlier_schemas_is_read_and_folds_as_it_did() {
    let read = |file: &str| std::fs::read_to_string(folder().join("earlier").join(file)).unwrap();
    let records = |file: &str| -> Vec<StoredRecord> {
        let record = |line: &str| StoredRecord::from_bytes(&hex::decode(line).unwrap()).unwrap().0;
        read(file).lines().map(record).collect()
    };
    let kinds: serde_json::Value = serde_json::from_str(&read("records.json")).unwrap();
    let mut raised = 0;
    for (stored, was) in records("records.hex").iter().zip(kinds.as_array().unwrap()) {
        let record = stored.decode().unwrap();
        assert_eq!(serde_json::to_value(&record.header).unwrap(), was["header"]);
        let mut was = was["event"].clone();
        if record.header.schema < Event::schema_of(&record.header.kind) {
            raised += 1;
            raise(&mut was);
        }
        assert_eq!(serde_json::to_value(&record.event).unwrap(), was);
    }
    assert_eq!(raised, 5, "four deployments and a rollback");

    let mut verifier = Verifier::new();
    for stored in records("log.hex") {
        verifier.push(&stored, None).unwrap();
    }
    assert_eq!(verifier.digests_matched(), 1);
    let digests: serde_json::Value = serde_json::from_str(&read("digests.json")).unwrap();
    assert_eq!(digests["state"], verifier.into_parts().0.digest().to_string());
}

/// What an event of schema 1 is in schema 2, as JSON.
fn raise(event: &mut serde_json::Value) {
    if let Some(started) = event.get_mut("deployment_started") {
        started["barrier"] = serde_json::Value::Null;
    }
    if let Some(rolled_back) = event.get_mut("rolled_back") {
        let replaced = rolled_back.as_object_mut().unwrap().remove("replaced").unwrap();
        let deviation = |was: &serde_json::Value| serde_json::json!({"what": was[0], "why": was[1]});
        rolled_back["deviations"] = replaced.as_array().unwrap().iter().map(deviation).collect();
        rolled_back["except"] = serde_json::json!([]);
    }
}

/// What an earlier version wrote must fold into what it folded into then.
#[test]
fn the_kept_log_verifies_and_folds_into_the_kept_snapshot() {
    let read = |file: &str| std::fs::read_to_string(folder().join(file)).unwrap();
    let mut verifier = Verifier::new();
    for line in read("log.hex").lines() {
        let (stored, chain) = StoredRecord::from_bytes(&hex::decode(line).unwrap()).unwrap();
        verifier.push(&stored, Some(chain)).unwrap();
    }
    assert_eq!(verifier.digests_matched(), 1);
    let (state, chain) = verifier.into_parts();
    let snapshot = Snapshot::decode(&hex::decode(read("snapshot.hex").trim()).unwrap()).unwrap();
    assert_eq!(snapshot, Snapshot { chain, state });
    let digests: serde_json::Value = serde_json::from_str(&read("digests.json")).unwrap();
    assert_eq!(digests["state"], snapshot.state.clone().digest().to_string());
}
