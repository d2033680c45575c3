//! Reads at random points of a long log, from a running controller.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;
use stele_testkit::{Client, pause};

use crate::footprint::usage;
use crate::log::{Prepared, Size};
use crate::report::{Goal, Report, Row, Times};

/// What the controller's log says once past States are in memory.
const WARM: &str = "warm: past States are near";
/// How long processes are watched to see whether they are calm.
const CALM_TIME: Duration = Duration::from_secs(2);
/// They are, where they take at most this part of a processor (one in twenty).
const CALM_PART: u32 = 20;
pub(crate) const SIMULATED: &str = "the log's events: a fleet of people, pipelines and nodes, decided as on a leader, but \
     written to the store by one program.";
const POLL: Duration = Duration::from_millis(500);
/// Longest a controller may take to fold a log that came without a snapshot.
const FOLDED_DEADLINE: Duration = Duration::from_mins(20);

/// Measures reads of one app, of a region and of the fleet.
pub(crate) fn time_travel(size: &Size, reads: usize) -> anyhow::Result<Report> {
    let about = format!(
        "State at random points of a log of {} events, asked over HTTP one after the other.",
        size.events
    );
    let mut report = Report::begin("time-travel", &about, SIMULATED)?;
    let mut prepared = Prepared::new(size, &mut report)?;
    let started = Instant::now();
    prepared.cluster.start_controller(1)?;
    while let Err(error) = prepared.cluster.leader() {
        anyhow::ensure!(started.elapsed() < FOLDED_DEADLINE, "{error}");
    }
    report.note(format!("The controller leads after {:.1} s.", started.elapsed().as_secs_f64()));
    wait_until_warm(&prepared)?;
    report.note(format!(
        "It is warm after {:.1} s: every milestone made, and read into memory as far as there is room.",
        started.elapsed().as_secs_f64()
    ));
    wait_until_calm(&prepared)?;
    report.note(format!("State at the end: {} MiB encoded.", prepared.state_bytes >> 20));
    let client = prepared.cluster.client(1)?;
    let mut numbers = Numbers(0x5eed);
    for what in [
        "status of an app",
        "status of a region",
        "status of the fleet",
        "show of an app",
        "show of the fleet",
    ] {
        let mut times = Times::new()?;
        let began = Instant::now();
        let mut bytes = 0;
        for _ in 0..reads {
            let seq = 1 + numbers.next() % prepared.last;
            let app = &prepared.apps[(numbers.next() % prepared.apps.len() as u64) as usize];
            let scope = match what.rsplit(' ').next() {
                Some("app") => app.replace('/', "%2F").replace('@', "%40"),
                Some("region") => "region%3Aeu".to_owned(),
                _ => "fleet".to_owned(),
            };
            let operation = what.split(' ').next().unwrap_or_default();
            let path = format!("/v1/{operation}?scope={scope}&at=seq%3A{seq}");
            let asked = Instant::now();
            let answer = read(&client, &path)?;
            times.record(asked.elapsed());
            bytes += answer.to_string().len();
            let found = answer["seq"].as_u64().context("it says as of when")?;
            anyhow::ensure!(found <= seq, "asked for seq:{seq}, told seq:{found}");
        }
        let rate = reads as f64 / began.elapsed().as_secs_f64();
        let p99 = times.latency().p99;
        let limit = if what.ends_with("app") { 10.0 } else { 100.0 };
        let work = format!("{what} ({} kB)", bytes / reads / 1000);
        let row = Row::alone(&work, "reads/s", &[rate], Some(&times));
        report.rows.push(row.goal(Goal::at_most("p99 ms", p99, limit)));
    }
    report.note(memory(&prepared)?);
    anyhow::ensure!(prepared.cluster.end().0.is_empty(), "something was left behind");
    Ok(report)
}

/// Waits until every milestone is made.
pub(crate) fn wait_until_warm(prepared: &Prepared) -> anyhow::Result<()> {
    let log = prepared.cluster.folder(1)?.join("log.txt");
    while !std::fs::read_to_string(&log)?.contains(WARM) {
        pause(POLL)?;
    }
    Ok(())
}

/// Waits until controller and NATS have nothing left to do: a new leader fills the event feed, and sends every
/// node its assignment.
pub(crate) fn wait_until_calm(prepared: &Prepared) -> anyhow::Result<()> {
    let spent = || -> anyhow::Result<Duration> {
        prepared.cluster.process_ids().into_iter().map(|id| Ok(usage(id)?.processor)).sum()
    };
    loop {
        let before = spent()?;
        pause(CALM_TIME)?;
        if spent()?.saturating_sub(before) <= CALM_TIME / CALM_PART {
            return Ok(());
        }
    }
}

fn read(client: &Client, path: &str) -> anyhow::Result<Value> {
    client.read(path)
}

/// What the controller takes, and what its disk holds.
fn memory(prepared: &Prepared) -> anyhow::Result<String> {
    let bytes = |folder: &std::path::Path| -> anyhow::Result<u64> {
        let mut bytes = 0;
        for entry in std::fs::read_dir(folder)? {
            bytes += entry?.metadata()?.len();
        }
        Ok(bytes)
    };
    let resident = prepared.cluster.resident_bytes(1)?;
    let log = bytes(&prepared.data()?.join("log"))?;
    Ok(format!("The controller holds {} MB in memory; its store takes {} MB.", resident >> 20, log >> 20))
}

/// Points that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 16
    }
}
