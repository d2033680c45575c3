//! A short run of `cargo xtask chaos`, and one that must fail.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

/// What `stele-chaos` answers where the kernel or the user cannot do it.
const EXIT_UNABLE: i32 = 3;

/// Runs it; `None` where it says that this machine cannot.
fn chaos(arguments: &[&str]) -> Option<(Output, String)> {
    let output = Command::new(env!("CARGO_BIN_EXE_stele-chaos")).args(arguments).output().unwrap();
    let text = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
    println!("{text}");
    if output.status.code() == Some(EXIT_UNABLE) {
        println!("SKIPPED: {}", text.trim());
        return None;
    }
    Some((output, text))
}

#[test]
fn promises_hold_on_real_machines_whatever_breaks() {
    let Some((output, text)) = chaos(&["--seed", "4", "--rounds", "6", "--short"]) else { return };
    assert!(output.status.success(), "{text}");
    assert!(text.contains("everything held"), "{text}");
}

/// The log's time went on from there for ever, before leaders looked at the others' clocks.
#[test]
fn a_leader_with_a_wrong_clock_does_not_take_the_logs_time_along() {
    let Some((output, text)) = chaos(&["--seed", "77", "--rounds", "1", "--short", "--only", "clock"]) else {
        return;
    };
    assert!(text.contains("+625 s off"), "the seed is for a clock that is ahead: {text}");
    assert!(output.status.success(), "{text}");
}

#[test]
fn a_broken_promise_is_noticed() {
    let Some((output, text)) = chaos(&["--seed", "1", "--rounds", "1", "--short", "--lying-disks"]) else {
        return;
    };
    assert!(text.contains("round 1: power-cut-all: "), "the power was cut: {text}");
    assert_eq!(output.status.code(), Some(1), "disks lied, and nobody noticed: {text}");
}
