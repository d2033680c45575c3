//! A decoder in another language, written from `docs/log-format.md` alone, must read what this crate writes.

use std::process::{Command, Stdio};

use serde_json::Value;
use stele_model::Scope;

use crate::golden::{SCOPES, folder};

fn read_json(file: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder().join(file)).unwrap()).unwrap()
}

/// What `decoder.py` makes of some golden files.
fn decode(arguments: &[&str]) -> Value {
    let decoder = folder().with_file_name("decoder.py");
    let output = Command::new("python3")
        .arg("-B")
        .arg(decoder)
        .args(arguments)
        .current_dir(folder())
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("this test needs python3 (apt-get install python3-minimal): {error}"));
    assert!(output.status.success(), "decoder.py refuses: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_stranger_reads_every_kind_of_record() {
    assert_eq!(decode(&["records", "records.hex"]), read_json("records.json"));
    assert_eq!(decode(&["records", "log.hex"]), read_json("log.json"));
}

#[test]
fn a_stranger_reads_an_entry() {
    let records = read_json("records.json");
    let entry = decode(&["entry", "entry.hex"]);
    assert_eq!((&entry["fleet"], &entry["term"], &entry["first"]), (&"demo".into(), &2.into(), &4.into()));
    assert_eq!(entry["previous"], records[2]["chain"]);
    assert_eq!(entry["records"].as_array().unwrap(), &records.as_array().unwrap()[3..6]);
}

#[test]
fn a_stranger_recomputes_chain_and_digests() {
    let digests = read_json("digests.json");
    let mut arguments = vec!["digests", "log.hex"];
    arguments.extend(SCOPES);
    let computed = decode(&arguments);
    for field in ["seq", "chain", "targets"] {
        assert_eq!(computed[field], digests[field], "{field}");
    }
    let snapshot = decode(&["snapshot", "snapshot.hex"]);
    assert_eq!(snapshot["chain"], digests["chain"]);
    assert_eq!(snapshot["seq"], digests["seq"]);
}

/// Records of earlier schemas are shown in the form they had.
#[test]
fn a_stranger_reads_earlier_schemas() {
    assert_eq!(decode(&["records", "earlier/records.hex"]), read_json("earlier/records.json"));
    let log = decode(&["records", "earlier/log.hex"]);
    let schemas_of = |kind: &str| -> Vec<&Value> {
        let records = log.as_array().unwrap().iter().filter(|record| record["header"]["kind"] == kind);
        records.map(|record| &record["header"]["schema"]).collect()
    };
    for kind in ["deployment_started", "rolled_back"] {
        let schemas = schemas_of(kind);
        assert!(!schemas.is_empty() && schemas.iter().all(|schema| **schema == 1), "{kind}: {schemas:?}");
    }
    let digests = read_json("earlier/digests.json");
    let mut arguments = vec!["digests", "earlier/log.hex"];
    arguments.extend(SCOPES);
    let computed = decode(&arguments);
    assert_eq!((&computed["seq"], &computed["chain"]), (&digests["seq"], &digests["chain"]));
    // Inside a place, instances were not counted then; everywhere else the digests are the same.
    for scope in SCOPES.iter().filter(|scope| !scope.parse::<Scope>().unwrap().is_placed()) {
        assert_eq!(computed["targets"][scope], digests["targets"][scope], "{scope}");
    }
}

/// The stranger's checks are real: what was changed is refused.
#[test]
fn a_stranger_refuses_what_was_changed() {
    let text = std::fs::read_to_string(folder().join("log.hex")).unwrap();
    let whole: Vec<&str> = text.lines().collect();
    let flipped = {
        let line = whole[4];
        let at = line.len() / 2;
        let digit = if &line[at..=at] == "0" { "1" } else { "0" };
        format!("{}{digit}{}", &line[..at], &line[at + 1..])
    };
    let missing = [&whole[..4], &whole[5..]].concat().join("\n");
    let changed = whole.iter().enumerate().map(|(at, line)| if at == 4 { flipped.as_str() } else { line });
    let changed = changed.collect::<Vec<_>>().join("\n");
    for (what, text) in [("missing", missing), ("changed", changed)] {
        let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{what}.hex"));
        std::fs::write(&path, text).unwrap();
        let status = Command::new("python3")
            .arg("-B")
            .arg(folder().with_file_name("decoder.py"))
            .args(["records".as_ref(), path.as_os_str()])
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("this test needs python3: {error}"))
            .status;
        assert!(!status.success(), "a {what} record was not noticed");
    }
}
