//! One change to every node of a fleet.

use std::time::Duration;

use serde_json::Value;

use super::{Fleet, SIMULATED, now_us, plain, spec, took};
use crate::report::{Goal, Report, Row, Side, Times};

/// What an assignment of one instance takes on the wire, in bytes, about.
const ASSIGNMENT_BYTES: usize = 3 * 1024;

pub(crate) fn fan_out(nodes: usize, rounds: usize) -> anyhow::Result<Report> {
    let about = format!(
        "An app with an instance on each of {nodes} nodes is changed, {rounds} times: until each agent has verified \
         its assignment and has it on its disk, and until all of them have reported and that is decided. Beside it, \
         as many messages of {ASSIGNMENT_BYTES} bytes, published by plain NATS to as many connections."
    );
    let mut report = Report::begin("fan-out", &about, SIMULATED)?;
    report.versions.push(crate::first_line("nats-server", &["--version"])?);
    let plain = plain::publish(nodes, ASSIGNMENT_BYTES, rounds)?;
    let mut fleet = Fleet::start("fanout", nodes, 10)?;
    let client = fleet.client()?;
    let (mut last, mut decided, mut times) = (Vec::new(), Vec::new(), Times::new()?);
    for round in 0..=rounds {
        fleet.told().in_force.clear();
        let began = now_us();
        let answer: Value = client.change("/v1/apply", &spec("bench/web", &round.to_string(), None))?;
        let ran = fleet.finished(&answer["deployments"][0])?;
        let took = took(began, ran.ended)?;
        let heard = std::mem::take(&mut fleet.told().in_force);
        anyhow::ensure!(heard.len() >= nodes, "{} of {nodes} agents have it", heard.len());
        // The first deployment places everything; the others change what is there.
        if round > 0 {
            let delays = heard.iter().map(|(at, _)| Duration::from_micros(at.saturating_sub(ran.started.0)));
            let slowest = delays.clone().max().unwrap_or_default();
            delays.for_each(|delay| times.record(delay));
            last.push(slowest.as_secs_f64() * 1000.0);
            decided.push(took.as_secs_f64());
        }
    }
    let mut plain_times = Times::new()?;
    plain.iter().flatten().for_each(|time| plain_times.record(*time));
    let slowest = |times: &Vec<Duration>| times.iter().max().map_or(0.0, |time| time.as_secs_f64() * 1000.0);
    let plain: Vec<f64> = plain.iter().map(slowest).collect();
    let p99 = times.latency().p99;
    let row = Row::new(
        "from the commit to the last agent",
        "ms",
        vec![Side::new("Stele", &last, Some(&times)), Side::new("plain publish", &plain, Some(&plain_times))],
    );
    let ratio = row.ratio.unwrap_or_default();
    report.rows.push(
        row.goal(Goal::at_most("over the plain publish", ratio, 2.0))
            .goal(Goal::at_most("p99 ms", p99, 1000.0)),
    );
    let row = Row::alone("until all agents' reports are decided", "s", &decided, None);
    let found = row.sides[0].median;
    report.rows.push(row.goal(Goal::at_most("seconds", found, 5.0)));
    report.note(format!("The largest controller takes {:.0} MiB.", fleet.controller_mib()?));
    fleet.end()?;
    Ok(report)
}
