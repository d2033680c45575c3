//! A whole fleet back to a point many deployments ago.

use std::time::Instant;

use anyhow::Context as _;
use serde_json::{Value, json};
use stele_model::Time;
use stele_testkit::Client;

use super::{Fleet, SIMULATED, now_us, spec, took};
use crate::report::{Goal, Report, Row, Side};

/// Deployments asked for at once.
const DEPLOYMENTS_PER_BATCH: u32 = 50;

pub(crate) fn rollback_fleet(
    nodes: usize,
    apps: u32,
    replicas: u32,
    deployments: u32,
) -> anyhow::Result<Report> {
    let about = format!(
        "{nodes} nodes with {} instances of {apps} apps, all of it back to a point {deployments} deployments ago: \
         until it is planned, proved equal to the digest then and committed, and until every agent has done it and \
         that is decided.",
        apps * replicas
    );
    let mut report = Report::begin("rollback-fleet", &about, SIMULATED)?;
    let mut fleet = Fleet::start("rollback", nodes, 10)?;
    let client = fleet.client()?;
    let all: Vec<u32> = (0..apps).collect();
    deploy(&mut fleet, &client, &all, "0", replicas)?;
    let point = fleet.seq()?;
    let mut done = 0;
    let mut round = 1;
    let began = Instant::now();
    while done < deployments {
        let some: Vec<u32> = all.iter().copied().take((deployments - done) as usize).collect();
        deploy(&mut fleet, &client, &some, &round.to_string(), replicas)?;
        done += some.len() as u32;
        round += 1;
    }
    report.note(format!(
        "{done} deployments, each of {replicas} instances, took {:.0} s.",
        began.elapsed().as_secs_f64()
    ));
    let before = fleet.seq()?;
    fleet.told().in_force.clear();
    let (began, began_us) = (Instant::now(), now_us());
    let request = json!({"scope": "fleet", "to": format!("seq:{point}"), "now": true});
    let answer = client.post("/v1/rollbacks", &request)?;
    let committed = answer.received - began;
    let answer: Value = answer.ok()?;
    let mut ended = Time::default();
    for id in answer["deployments"].as_array().context("it says what it deploys")? {
        ended = ended.max(fleet.finished(id)?.ended);
    }
    let acked = took(began_us, ended)?;
    report.note(fleet.work_since(before, fleet.seq()?)?.to_string());
    for (work, took, goal) in
        [("planned, proved and committed", committed, 1.0), ("all agents' reports are decided", acked, 10.0)]
    {
        let took = took.as_secs_f64();
        let row = Row::new(work, "s", vec![Side::new("Stele", &[took], None)]);
        report.rows.push(row.goal(Goal::at_most("seconds", took, goal)));
    }
    report.note(format!("The largest controller takes {:.0} MiB.", fleet.controller_mib()?));
    fleet.end()?;
    Ok(report)
}

/// Deploys some apps at once, and waits until all of them are where they should be.
fn deploy(
    fleet: &mut Fleet,
    client: &Client,
    apps: &[u32],
    marker: &str,
    replicas: u32,
) -> anyhow::Result<()> {
    let mut ids = Vec::new();
    for apps in apps.chunks(DEPLOYMENTS_PER_BATCH as usize) {
        let commands: Vec<Value> = apps
            .iter()
            .map(|app| {
                let body = spec(&format!("team-{}/app-{app}", app / 5), marker, Some(replicas));
                json!({"method": "POST", "path": "/v1/apply", "body": body})
            })
            .collect();
        let answer: Value = client.change("/v1/batch", &json!({"commands": commands}))?;
        for answer in answer["answers"].as_array().into_iter().flatten() {
            anyhow::ensure!(answer["status"] == 200, "not deployed: {answer}");
            ids.push(answer["body"]["deployments"][0].clone());
        }
    }
    for id in ids {
        fleet.finished(&id)?;
    }
    Ok(())
}
