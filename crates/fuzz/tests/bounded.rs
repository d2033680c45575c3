//! Every target, for so many inputs and no longer: the same ones each time, on every machine.
//!
//! A failure prints what went wrong and the seed and iteration that repeat it; `cargo xtask fuzz` makes it smaller.

use stele_fuzz::limits::ITERATIONS_IN_TESTS;
use stele_fuzz::{Run, all, corpus, target};

/// Of every run here.
const SEED: u64 = 1;

fn bounded(name: &str) {
    let target = target(name).unwrap_or_else(|| panic!("there is no target {name}"));
    let run = Run::new(target, SEED).unwrap_or_else(|error| panic!("{error:#}"));
    match run.bounded(ITERATIONS_IN_TESTS) {
        Ok(tally) => {
            // Where nothing else is ever read, inputs are changed too much to find anything.
            assert!(
                tally.read * 200 >= tally.inputs,
                "of {} inputs only {} are read",
                tally.inputs,
                tally.read
            );
        }
        Err(finding) => panic!(
            "{name}: {}\nits input, {} bytes: {:?}\nnext: cargo xtask fuzz {name} --seed {SEED}",
            finding.what,
            finding.input.len(),
            String::from_utf8_lossy(&finding.input).chars().take(2000).collect::<String>()
        ),
    }
}

macro_rules! targets {
    ($($test:ident: $name:literal,)*) => {
        $(#[test]
        fn $test() {
            bounded($name);
        })*

        #[test]
        fn every_target_has_a_test() {
            let tested = [$($name),*];
            let names: Vec<_> = all().iter().map(|target| target.name).collect();
            assert_eq!(names, tested);
        }
    };
}

targets! {
    record: "record",
    header: "header",
    entry: "entry",
    snapshot: "snapshot",
    delta: "delta",
    answers: "answers",
    peer_frame: "peer-frame",
    raft_message: "raft-message",
    raft_step: "raft-step",
    peer_request: "peer-request",
    checkpoint: "checkpoint",
    verifier_key: "verifier-key",
    tile_path: "tile-path",
    tile: "tile",
    merkle_proof: "merkle-proof",
    pack: "pack",
    assignment: "assignment",
    report: "report",
    ack: "ack",
    removed: "removed",
    heartbeat: "heartbeat",
    sync: "sync",
    question: "question",
    answer: "answer",
    join_request: "join-request",
    join_answer: "join-answer",
    join_line: "join-line",
    sealed: "sealed",
    subject: "subject",
    scope: "scope",
    point: "point",
    selector: "selector",
    name: "name",
    why_subject: "why-subject",
    unit: "unit",
    spec: "spec",
    body: "body",
    query: "query",
    convergence: "convergence",
    agent_files: "agent-files",
    controller_files: "controller-files",
    store_value: "store-value",
    create_request: "create-request",
}

#[test]
fn every_target_is_in_the_docs() {
    let page = "../../docs/fuzzing.md";
    let page = std::fs::read_to_string(page).unwrap_or_else(|error| panic!("{page}: {error}"));
    let table = stele_fuzz::table();
    assert!(
        page.contains(&table),
        "docs/fuzzing.md has another table than: cargo xtask fuzz --list\n{table}"
    );
}

#[test]
fn the_corpus_is_small_and_of_targets_that_there_are() {
    let targets = all();
    let size = corpus::check_size(&targets).unwrap_or_else(|error| panic!("{error:#}"));
    assert!(size > 0);
    for entry in std::fs::read_dir(corpus::folder()).unwrap_or_else(|error| panic!("{error}")).flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(targets.iter().any(|target| target.name == name), "nothing reads crates/fuzz/corpus/{name}");
    }
}
