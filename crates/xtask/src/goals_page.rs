//! `docs/benchmarks/goals.md`: what each benchmark is to reach, and what its page says that it does.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

const INTRODUCTION: &str = "# What the benchmarks are to reach

Of the pages beside this one, which say more. This one is generated from their JSON; after running a
benchmark, run `cargo xtask check --bless`. [Why goals are missed](README.md#what-bounds-them).

";

/// A benchmark's own file, as far as goals go.
#[derive(Deserialize)]
struct Report {
    bench: String,
    machine: Machine,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Machine {
    commit: String,
    date: String,
}

#[derive(Deserialize)]
struct Row {
    work: String,
    goals: Vec<Goal>,
}

#[derive(Deserialize)]
struct Goal {
    what: String,
    found: f64,
    reached: bool,
}

/// What `--quick` compares with, which is no benchmark's.
const BASELINE: &str = "baseline.json";

/// The benchmarks' own files in a folder, by name.
pub(crate) fn read(folder: &Path) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_some_and(|extension| extension == "json") && name != BASELINE {
            let text = std::fs::read_to_string(&path);
            files.push((name, text.with_context(|| format!("cannot read {}", path.display()))?));
        }
    }
    files.sort();
    Ok(files)
}

/// The page as it should be, from the benchmarks' files: `(name, text)`.
pub(crate) fn page<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> Result<String> {
    let (mut table, mut reached, mut all) = (String::new(), 0, 0);
    for (name, text) in files {
        let report: Report = serde_json::from_str(text).with_context(|| format!("cannot read {name}"))?;
        let Machine { commit, date } = &report.machine;
        let mut of = format!("[`{0}`]({0}.md), {commit} of {date}", report.bench);
        for row in report.rows {
            for goal in row.goals {
                all += 1;
                reached += u32::from(goal.reached);
                let (of, is) = (std::mem::take(&mut of), if goal.reached { "reached" } else { "missed" });
                let found = number(goal.found);
                let _ = writeln!(table, "| {of} | {}: {} | {found} | {is} |", row.work, goal.what);
            }
        }
    }
    Ok(format!(
        "{INTRODUCTION}{reached} of {all} are reached.\n\n| of | goal | found | |\n| --- | --- | ---: | --- |\n{table}"
    ))
}

/// As the pages write it.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_goal_is_told_with_whether_it_is_reached() {
        let text = r#"{"bench": "docker", "machine": {"commit": "0123456", "date": "2026-11-29"}, "rows": [
            {"work": "deploy", "goals": [{"what": "over the raw creates ≤ 1.25", "found": 2.091, "reached": false}]},
            {"work": "update", "goals": []},
            {"work": "roll back", "goals": [{"what": "seconds ≤ 5", "found": 3.0, "reached": true}]}]}"#;
        let page = page([("docker.json", text)].into_iter()).unwrap();
        assert!(page.contains("\n1 of 2 are reached.\n"), "{page}");
        let first = "| [`docker`](docker.md), 0123456 of 2026-11-29 | deploy: over the raw creates ≤ 1.25 | 2.09 | missed |";
        assert!(
            page.contains(&format!("{first}\n|  | roll back: seconds ≤ 5 | 3.00 | reached |\n")),
            "{page}"
        );
        assert!(super::page([("x.json", "{}")].into_iter()).is_err());
    }
}
