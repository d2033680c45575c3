//! Several benchmarks in one run: all of them, or the few that guard against getting slower.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use clap::Parser as _;

use crate::commit::{self, Effort};
use crate::report::Report;
use crate::{Bench, Cli, log, replay, run};

/// In the order in which they are run: what is quick comes first.
const BENCHES: [&str; 12] = [
    "commit",
    "commit-batch",
    "footprint",
    "docker",
    "rollback-real",
    "replay",
    "time-travel",
    "growth",
    "fan-out",
    "rollback-fleet",
    "join-storm",
    "c2m",
];
/// The committed ratios.
const BASELINE: &str = "baseline.json";
/// A ratio may be so much of the baseline's at least: runs of a few seconds differ by as much.
const TOLERANCE: f64 = 0.7;
/// Seconds and rounds of each measurement of the guard.
const QUICK: (u64, usize) = (4, 3);
/// Events of the guard's log.
const QUICK_EVENTS: u64 = 100_000;

/// Every benchmark. One that fails does not keep the others from being run.
pub(crate) fn all(folder: &Path) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    for name in BENCHES {
        let bench: Bench = Cli::try_parse_from(["bench", name])?.bench;
        if let Err(error) = run(bench).and_then(|report| report.finish(folder)) {
            eprintln!("{name} failed: {error:#}");
            failed.push(name);
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("these benchmarks failed: {}", failed.join(", ")) }
}

/// Compares a few ratios with the baseline.
pub(crate) fn quick(folder: &Path, accept: bool) -> anyhow::Result<()> {
    // Ratios are compared, and those are to peers.
    let effort = Effort { has_bare: false, ..Effort::new(QUICK.0, QUICK.1) };
    let size = log::Size { events: QUICK_EVENTS, nodes: 50, apps: 25 };
    let reports = [
        commit::commit(&[1, 64], effort)?,
        commit::commit_batch(&[8], 100, effort)?,
        replay::replay(&size, QUICK.1)?,
    ];
    let found: BTreeMap<String, f64> = reports.iter().flat_map(ratios).collect();
    let path = folder.join(BASELINE);
    if accept {
        std::fs::create_dir_all(folder)?;
        std::fs::write(&path, serde_json::to_string_pretty(&found)? + "\n")?;
        println!("the baseline is now {}", path.display());
        return Ok(());
    }
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!("there is no {}; make one: cargo xtask bench quick --accept", path.display())
    })?;
    let baseline: BTreeMap<String, f64> = serde_json::from_str(&text).context("a baseline is JSON")?;
    let worse = compare(&baseline, &found);
    if worse.is_empty() { Ok(()) } else { bail!("slower than the baseline:\n{}", worse.join("\n")) }
}

fn ratios(report: &Report) -> Vec<(String, f64)> {
    let rows = report.rows.iter();
    rows.filter_map(|row| Some((format!("{}: {}", report.bench, row.work), row.ratio?))).collect()
}

/// What is worse than the baseline, or was not found; prints all.
fn compare(baseline: &BTreeMap<String, f64>, found: &BTreeMap<String, f64>) -> Vec<String> {
    let mut worse = Vec::new();
    for (what, before) in baseline {
        let now = found.get(what).copied().unwrap_or_default();
        let line = format!("{what}: {now:.2} of the peer's, {before:.2} in the baseline");
        println!("{line}");
        if now < before * TOLERANCE {
            worse.push(line);
        }
    }
    worse
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_got_much_slower_or_vanished_is_named() {
        let baseline = BTreeMap::from([("a".to_owned(), 2.0), ("b".to_owned(), 1.0), ("c".to_owned(), 1.0)]);
        let found = BTreeMap::from([("a".to_owned(), 1.3), ("b".to_owned(), 0.9)]);
        let worse = compare(&baseline, &found);
        assert_eq!(worse.len(), 2, "{worse:?}");
        assert!(worse[0].starts_with("a: 1.30") && worse[1].starts_with("c: 0.00"), "{worse:?}");
    }
}
