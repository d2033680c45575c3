//! Two million instances: placed, committed, delivered and reported.

use std::time::Instant;

use serde_json::{Value, json};
use stele_model::Time;

use super::{Fleet, SIMULATED, now_us, spec, took};
use crate::report::{Goal, Report, Row, Side};

/// Nomad's published time for two million containers, in seconds (22 min 14 s).
const NOMAD_SECONDS: f64 = 1334.0;
/// How many that was, and is here.
const WHOLE_INSTANCES: u32 = 2_000_000;
/// Most replicas of one service.
const REPLICAS_MAX: u32 = stele_model::limits::REPLICAS_MAX;

pub(crate) fn c2m(nodes: usize, instances: u32) -> anyhow::Result<Report> {
    let about = format!(
        "{instances} instances on {nodes} nodes in 10 regions, asked for in one request: until all are placed, \
         committed, delivered, started and reported. Nomad's figure is its published one for 2,000,000 containers \
         on 6,100 real hosts, which started real containers; these are simulated."
    );
    let mut report = Report::begin("c2m", &about, SIMULATED)?;
    let mut fleet = Fleet::start("c2m", nodes, 10)?;
    let client = fleet.client()?;
    let mut commands = Vec::new();
    let mut left = instances;
    while left > 0 {
        let replicas = left.min(REPLICAS_MAX);
        let app = format!("team-{}/app-{}", commands.len() / 5, commands.len());
        let body = spec(&app, "0", Some(replicas));
        commands.push(json!({"method": "POST", "path": "/v1/apply", "body": body}));
        left -= replicas;
    }
    let before = fleet.controller_mib()?;
    let (began, began_us) = (Instant::now(), now_us());
    let answer: Value = client.change("/v1/batch", &json!({"commands": commands}))?;
    let committed = began.elapsed();
    let mut ended = Time::default();
    for answer in answer["answers"].as_array().into_iter().flatten() {
        anyhow::ensure!(answer["status"] == 200, "not deployed: {answer}");
        ended = ended.max(fleet.finished(&answer["body"]["deployments"][0])?.ended);
    }
    let took = took(began_us, ended)?.as_secs_f64();
    // Fewer are not to be held against what is published, and do not show that the memory for all suffices.
    let is_whole = instances == WHOLE_INSTANCES;
    let mut sides = vec![Side::new("Stele", &[took], None)];
    if is_whole {
        sides.push(Side::new("Nomad, published", &[NOMAD_SECONDS], None));
    }
    report
        .rows
        .push(Row::new("until all have reported", "s", sides).goal(Goal::at_most("seconds", took, 60.0)));
    let memory = fleet.controller_mib()?;
    let row = Row::alone("memory of the largest controller", "MiB", &[memory], None);
    report.rows.push(if is_whole { row.goal(Goal::at_most("MiB", memory, 1536.0)) } else { row });
    let each = (memory - before).max(0.0) * f64::from(1 << 20) / f64::from(instances);
    report.rows.push(
        Row::alone("of that, since before", "bytes an instance", &[each], None)
            .goal(Goal::at_most("bytes", each, 600.0)),
    );
    report.note(format!(
        "It was {before:.0} MiB before; what was asked for was committed after {committed:.1?}."
    ));
    report.note(format!("{:.0} instances a second.", f64::from(instances) / took));
    fleet.end()?;
    Ok(report)
}
