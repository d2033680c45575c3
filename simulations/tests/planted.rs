//! The simulator can fail: a few of the planted bugs, others every day. All of them are
//! `cargo xtask sim --planted`.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use stele_simulations::Bug;
use stele_simulations::limits::PLANTED_SEEDS_MAX;
use stele_simulations::planted::{can_plant, hunt};

/// Bugs hunted in one run of the tests.
const BUGS_A_DAY: usize = 2;
/// Seconds of a day.
const DAY_S: u64 = 86_400;

#[test]
fn some_planted_bugs_are_noticed() {
    let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / DAY_S;
    let bugs: Vec<Bug> = Bug::ALL.iter().copied().filter(|bug| can_plant(*bug)).collect();
    for number in 0..BUGS_A_DAY {
        let bug = bugs[(today as usize * BUGS_A_DAY + number) % bugs.len()];
        let caught = hunt(bug, PLANTED_SEEDS_MAX);
        assert!(caught.is_some(), "{}: {} was not noticed", bug.name(), bug.what());
    }
}

#[test]
fn no_product_can_have_a_planted_bug() {
    for product in ["stele-cli", "stele-agent", "stele-controller"] {
        let output = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--offline",
                "--locked",
                "--edges",
                "normal,build",
                "--prefix",
                "none",
                "--package",
            ])
            .arg(product)
            .output()
            .unwrap();
        let tree = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && tree.contains("stele-model"), "{output:?}");
        assert!(!tree.contains("stele-planted"), "{product} links planted bugs");
    }
}
