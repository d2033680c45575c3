//! What stays as it is while the log and the fleet grow, and what grows with them.

use std::time::{Duration, Instant};

use serde_json::json;
use stele_testkit::Client;
use ureq::http::Method;

use crate::log::{Prepared, Size};
use crate::past::{wait_until_calm, wait_until_warm};
use crate::report::{Goal, Report, Row, Side, Times};
use crate::state;

/// Commits and reads timed at each size: with some hundred, p99 is what the first handful after a start took.
const ASKED: usize = 10_000;
/// The fleet of which it is counted what State takes.
const STATE_NODES: usize = 10_000;
const STATE_APPS: u32 = 100;

/// A log and a fleet of one size, measured.
struct Grown {
    name: String,
    commits: Times,
    reads: Times,
    resident_mib: f64,
    disk_ratio: f64,
    /// Without the store's write-ahead log.
    sorted_ratio: f64,
}

pub(crate) fn growth(sizes: &[Size]) -> anyhow::Result<Report> {
    let about = format!(
        "One controller with logs and fleets of growing size: {ASKED} commits and {ASKED} reads of one app's status, \
         one after the other, and what memory and disk hold once every milestone is made. And what State takes \
         of memory, with its digests and what is looked up in it, in a process of its own."
    );
    let mut report = Report::begin("growth", &about, crate::past::SIMULATED)?;
    let state = state::measure(STATE_NODES, STATE_APPS)?;
    let mut all = Vec::new();
    for size in sizes {
        all.push(measure(size, &mut report)?);
    }
    for grown in &all {
        let name = &grown.name;
        let commits = Side::new("Stele", &[grown.commits.latency().p50], Some(&grown.commits));
        let reads = Side::new("Stele", &[grown.reads.latency().p50], Some(&grown.reads));
        report.rows.push(Row::new(&format!("a commit, {name}"), "ms", vec![commits]));
        report.rows.push(Row::new(&format!("status of an app, {name}"), "ms", vec![reads]));
        report.rows.push(Row::alone(&format!("memory, {name}"), "MiB", &[grown.resident_mib], None));
        let disk = Row::alone(&format!("disk over raw records, {name}"), "x", &[grown.disk_ratio], None);
        report.rows.push(disk.goal(Goal::at_most("times", grown.disk_ratio, 1.5)));
        let sorted = format!("the same without the store's write-ahead log, {name}");
        report.rows.push(Row::alone(&sorted, "x", &[grown.sorted_ratio], None));
    }
    if let (Some(first), Some(last)) = (all.first(), all.last()) {
        let flat = last.commits.latency().p50 / first.commits.latency().p50;
        report.rows.push(
            Row::alone("a commit: the largest over the smallest", "x", &[flat], None)
                .goal(Goal::at_most("times", flat, 1.2)),
        );
    }
    for (when, bytes) in state.bytes {
        let name = format!("State, {STATE_NODES} nodes, each of {} instances, {when}", state.instances);
        let row = Row::alone(&name, "bytes", &[bytes], None);
        report.rows.push(row.goal(Goal::at_most("bytes", bytes, 600.0)));
    }
    Ok(report)
}

fn measure(size: &Size, report: &mut Report) -> anyhow::Result<Grown> {
    let mut prepared = Prepared::new(size, report)?;
    prepared.cluster.start_controller(1)?;
    prepared.cluster.leader()?;
    wait_until_warm(&prepared)?;
    wait_until_calm(&prepared)?;
    let client = prepared.cluster.client(1)?;
    let commits = timed(|at| commit(&client, at))?;
    let app = prepared.apps[0].replace('/', "%2F").replace('@', "%40");
    let reads = timed(|_| client.read::<serde_json::Value>(&format!("/v1/status?scope={app}")).map(drop))?;
    let resident = prepared.cluster.resident_bytes(1)?;
    let disk = prepared.disk()?;
    let of_records = |bytes: u64| bytes as f64 / prepared.record_bytes as f64;
    let grown = Grown {
        name: format!("{} events, {} nodes, {} instances", size.events, size.nodes, prepared.instances),
        commits,
        reads,
        resident_mib: resident as f64 / f64::from(1 << 20),
        disk_ratio: of_records(disk.bytes),
        sorted_ratio: of_records(disk.bytes - disk.unsorted_bytes),
    };
    anyhow::ensure!(prepared.cluster.end().0.is_empty(), "something was left behind");
    Ok(grown)
}

fn timed(ask: impl Fn(usize) -> anyhow::Result<()>) -> anyhow::Result<Times> {
    let mut times = Times::new()?;
    for at in 0..ASKED {
        let began = Instant::now();
        ask(at)?;
        times.record(began.elapsed().max(Duration::from_nanos(1)));
    }
    Ok(times)
}

fn commit(client: &Client, at: usize) -> anyhow::Result<()> {
    let body = json!({"labels": {"write": at.to_string()}}).to_string();
    let answer = client.send(Method::PUT, "/v1/nodes/eu-1/labels", &[], Some(&body))?;
    anyhow::ensure!(answer.status == 200, "a commit was refused: {}", answer.body);
    Ok(())
}
