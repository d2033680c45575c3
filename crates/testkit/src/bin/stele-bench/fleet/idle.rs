//! What a large fleet costs while nothing is asked of it: signs of life, mostly.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::Value;
use stele_testkit::pause;

use super::{Fleet, spec};
use crate::footprint::usage;

/// What still goes on right after a deployment, such as last reports and milestones, is over by then.
const SETTLE: Duration = Duration::from_secs(20);
/// Each agent asks for its assignment about once a minute, all of them in the same part of it at first.
const TIME_MIN: Duration = Duration::from_secs(75);

/// How much of a processor each kind of program takes, in percent, over a while, [`TIME_MIN`] at least.
pub(crate) fn idle(nodes: usize, time: Duration) -> anyhow::Result<Vec<(String, f64)>> {
    let mut fleet = Fleet::start("idle", nodes, 10)?;
    let answer: Value = fleet.client()?.change("/v1/apply", &spec("bench/web", "0", None))?;
    fleet.finished(&answer["deployments"][0])?;
    pause(SETTLE)?;
    let leader = fleet.cluster.leader()?;
    let (mut controllers, mut others) = (Vec::new(), fleet.cluster.process_ids());
    for id in fleet.cluster.ids() {
        let process = fleet.cluster.process_id(id)?;
        others.retain(|other| *other != process);
        controllers.push((id == leader, process));
    }
    let of = |is_leader: bool| controllers.iter().filter(move |it| it.0 == is_leader).map(|it| it.1);
    let kinds: Vec<(&str, Vec<u32>)> = vec![
        ("the leader", of(true).collect()),
        ("both followers", of(false).collect()),
        ("nats-server", others),
        ("all agents together", fleet.processes.iter().map(|agents| agents.child.id()).collect()),
    ];
    let spent = |ids: &[u32]| -> anyhow::Result<f64> {
        ids.iter().map(|id| Ok(usage(*id)?.processor.as_secs_f64())).sum()
    };
    let look = || kinds.iter().map(|(_, ids)| spent(ids)).collect::<anyhow::Result<Vec<f64>>>();
    let (before, began) = (look()?, Instant::now());
    pause(time.max(TIME_MIN))?;
    ensure!(fleet.cluster.leader()? == leader, "another controller leads now");
    let (after, took) = (look()?, began.elapsed().as_secs_f64());
    let percent = before.iter().zip(&after).map(|(before, after)| 100.0 * (after - before) / took);
    let found = kinds.iter().map(|(kind, _)| (*kind).to_owned()).zip(percent).collect();
    fleet.end()?;
    Ok(found)
}
