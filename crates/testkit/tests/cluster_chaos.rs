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

#[test]
fn a_broken_promise_is_noticed() {
    let Some((output, text)) = chaos(&["--seed", "1", "--rounds", "1", "--short", "--lying-disks"]) else {
        return;
    };
    if text.contains("not here: no FUSE") {
        println!("SKIPPED: no disk can lie without FUSE");
        return;
    }
    assert_eq!(output.status.code(), Some(1), "disks lied, and nobody noticed: {text}");
}
