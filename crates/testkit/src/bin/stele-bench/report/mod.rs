//! What a benchmark found: as a table for people, as JSON for programs, as a chart for both.

mod chart;
mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::machine::Machine;

/// Significant digits that a histogram keeps.
const HISTOGRAM_DIGITS: u8 = 3;

/// All of one benchmark.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Its name on the command line, and of its files.
    pub(crate) bench: &'static str,
    /// How it is run again, with the options it had.
    pub(crate) command: String,
    /// What is measured, in a sentence or two.
    pub(crate) about: String,
    /// What is simulated, or is otherwise unlike real use.
    pub(crate) simulated: String,
    /// Versions of what ran.
    pub(crate) versions: Vec<String>,
    pub(crate) machine: Machine,
    pub(crate) rows: Vec<Row>,
    /// Whatever else was seen.
    pub(crate) notes: Vec<String>,
}

/// One comparison, or one number that stands alone.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// What was done.
    pub(crate) work: String,
    /// Of the numbers of each round.
    pub(crate) unit: &'static str,
    /// Stele first, then its peers.
    pub(crate) sides: Vec<Side>,
    /// Of medians, Stele to the first peer.
    pub(crate) ratio: Option<f64>,
    /// What was to be reached.
    pub(crate) goals: Vec<Goal>,
}

/// What one side came to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Side {
    pub(crate) name: String,
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) rounds: Vec<f64>,
    /// Of all rounds together.
    pub(crate) latency: Option<Latency>,
}

/// How long single operations took, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) count: u64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// Something to reach, and whether it was.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Goal {
    pub(crate) what: String,
    pub(crate) found: f64,
    pub(crate) reached: bool,
}

/// Times of single operations, in nanoseconds.
pub(crate) struct Times(Histogram<u64>);

impl Times {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new(HISTOGRAM_DIGITS)?))
    }

    pub(crate) fn record(&mut self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if self.0.record(nanoseconds).is_err() {
            // It grows with what is recorded; what it cannot grow to is counted as the most it can.
            self.0.saturating_record(nanoseconds);
        }
    }

    pub(crate) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.0.add(&other.0).context("histograms of one kind add up")
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.len()
    }

    pub(crate) fn latency(&self) -> Latency {
        let at = |share: f64| self.0.value_at_quantile(share) as f64 / 1e6;
        Latency {
            count: self.0.len(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: self.0.max() as f64 / 1e6,
        }
    }
}

impl Side {
    pub(crate) fn new(name: &str, rounds: &[f64], times: Option<&Times>) -> Self {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
        Self {
            name: name.to_owned(),
            median: at(sorted.len() / 2),
            min: at(0),
            max: at(sorted.len().saturating_sub(1)),
            rounds: rounds.to_vec(),
            latency: times.filter(|times| times.len() > 0).map(Times::latency),
        }
    }
}

impl Goal {
    /// At least so much.
    pub(crate) fn at_least(what: &str, found: f64, goal: f64) -> Self {
        Self { what: format!("{what} ≥ {goal}"), found, reached: found >= goal }
    }

    /// At most so much.
    pub(crate) fn at_most(what: &str, found: f64, goal: f64) -> Self {
        Self { what: format!("{what} ≤ {goal}"), found, reached: found <= goal }
    }
}

impl Row {
    pub(crate) fn new(work: &str, unit: &'static str, sides: Vec<Side>) -> Self {
        let ratio = match sides.as_slice() {
            [ours, peer, ..] if peer.median > 0.0 => Some(ours.median / peer.median),
            _ => None,
        };
        Self { work: work.to_owned(), unit, sides, ratio, goals: Vec::new() }
    }

    /// One side alone.
    pub(crate) fn alone(work: &str, unit: &'static str, rounds: &[f64], times: Option<&Times>) -> Self {
        Self::new(work, unit, vec![Side::new("Stele", rounds, times)])
    }

    pub(crate) fn goal(mut self, goal: Goal) -> Self {
        self.goals.push(goal);
        self
    }
}

impl Report {
    pub(crate) fn begin(bench: &'static str, about: &str, simulated: &str) -> anyhow::Result<Self> {
        let machine = Machine::look()?;
        println!("{bench}: {about}\n{}\n", machine.line());
        Ok(Self {
            bench,
            command: command(bench, std::env::args().skip(1)),
            about: about.to_owned(),
            simulated: simulated.to_owned(),
            versions: vec![format!("Stele {}", env!("CARGO_PKG_VERSION"))],
            machine,
            rows: Vec::new(),
            notes: Vec::new(),
        })
    }

    pub(crate) fn note(&mut self, note: String) {
        println!("{note}");
        self.notes.push(note);
    }

    /// Prints it, and writes it into a folder.
    pub(crate) fn finish(&self, folder: &Path) -> anyhow::Result<()> {
        println!("\n{}", table::text(self));
        let write = |ending: &str, text: String| -> anyhow::Result<PathBuf> {
            std::fs::create_dir_all(folder)?;
            let path = folder.join(format!("{}.{ending}", self.bench));
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(path)
        };
        write("json", serde_json::to_string_pretty(self)? + "\n")?;
        write("svg", chart::svg(self))?;
        let page = write("md", table::page(self))?;
        println!("written: {} (and .json, .svg)", page.display());
        Ok(())
    }
}

/// As many digits as help.
pub(crate) fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The command that runs a benchmark again, from what this program was given.
fn command(bench: &str, arguments: impl Iterator<Item = String>) -> String {
    let mut words = vec!["cargo xtask bench".to_owned()];
    let mut arguments = arguments.peekable();
    // One of several has no options of its own.
    if arguments.peek().is_none_or(|first| first != bench) {
        words.push(bench.to_owned());
    } else {
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                // Where the page goes makes no difference to it.
                "--out" => drop(arguments.next()),
                _ if argument.starts_with("--out=") => {}
                _ => words.push(argument),
            }
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_recorded() {
        let (mut times, mut more) = (Times::new().unwrap(), Times::new().unwrap());
        (1..=500).for_each(|at| times.record(Duration::from_millis(at)));
        (501..=1000).for_each(|at| more.record(Duration::from_millis(at)));
        times.add(&more).unwrap();
        let latency = times.latency();
        assert_eq!(latency.count, 1000);
        assert!((latency.p50 - 500.0).abs() < 1.0 && (latency.p99 - 990.0).abs() < 1.0, "{latency:?}");
        assert!((latency.max - 1000.0).abs() < 1.0, "{latency:?}");
    }

    #[test]
    fn a_page_says_how_it_was_made() {
        let given = |arguments: &str| command("replay", arguments.split_whitespace().map(str::to_owned));
        let again = "cargo xtask bench replay --events 5 --rounds 1";
        assert_eq!(given("replay --events 5 --out /elsewhere --rounds 1"), again);
        assert_eq!(given("replay --out=/elsewhere"), "cargo xtask bench replay");
        assert_eq!(given("quick --accept"), "cargo xtask bench replay");
    }

    #[test]
    fn the_median_of_rounds_has_the_slowest_and_the_fastest_beside_it() {
        let side = Side::new("Stele", &[3.0, 1.0, 2.0], None);
        assert_eq!((side.median, side.min, side.max), (2.0, 1.0, 3.0));
        let row = Row::new("work", "events/s", vec![side, Side::new("peer", &[4.0], None)]);
        assert_eq!(row.ratio, Some(0.5));
    }
}
