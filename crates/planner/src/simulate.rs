//! The planner's way to the end, if every container became healthy at once.

use std::collections::BTreeSet;

use stele_model::event::ReportedChange;
use stele_model::trial::{carry_on, try_out};
use stele_model::wire::{InstanceReport, Phase};
use stele_model::{AppEnv, Command, Context, Event, Links, Request, State, decide::system};

use crate::cause;
use crate::plan_app;

/// One command the planner would give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// How often nodes had reported before: what is in one round is told at once.
    pub round: u32,
    /// The command.
    pub command: Command,
}

/// How it would go on.
#[derive(Clone, Debug)]
pub struct Simulated {
    /// What the planner would do, in order.
    pub steps: Vec<Step>,
    /// State at the end.
    pub state: State,
    /// Whether nothing is left to do; false when the limit of steps was reached, or a command was refused.
    pub ended: bool,
}

/// Plays the planner's part for some apps, with nodes that do at once what they are told. Nodes
/// that are lost stay so.
pub fn simulate(state: &State, apps: &BTreeSet<AppEnv>, steps_max: usize) -> Simulated {
    let mut simulated = Simulated { steps: Vec::new(), state: state.clone(), ended: false };
    for round in 0.. {
        for app_env in apps {
            while let Some(command) = plan_app(&simulated.state, app_env, simulated.state.time) {
                if simulated.steps.len() >= steps_max {
                    return simulated;
                }
                let cause = cause(&simulated.state, &command);
                let request = Request { cause, ..by_the_conductor(command.clone()) };
                let context = Context { now: simulated.state.time, ..Context::default() };
                match try_out(&simulated.state, &request, &context) {
                    Ok(trial) if !trial.records.is_empty() => simulated.state = trial.after,
                    // It would be given again and again.
                    Ok(_) | Err(_) => return simulated,
                }
                simulated.steps.push(Step { round, command });
            }
        }
        let reports = reports(&simulated.state, apps);
        if reports.is_empty() {
            simulated.ended = true;
            break;
        }
        let request = by_the_conductor(Command::Report { reports: Vec::new() });
        let event = Event::NodesReported { reports };
        simulated.state = carry_on(&simulated.state, &request, vec![event], simulated.state.time).after;
    }
    simulated
}

fn by_the_conductor(command: Command) -> Request {
    Request {
        principal: system(),
        command,
        idempotency: None,
        trace: None,
        cause: None,
        reason: None,
        links: Links::default(),
        if_match: None,
    }
}

/// What every node that is heard of would report, as far as it is news.
fn reports(state: &State, apps: &BTreeSet<AppEnv>) -> Vec<ReportedChange> {
    let nodes = state.control.nodes.keys().filter(|node| state.is_reachable(node));
    nodes
        .filter_map(|node| {
            let assigned = state.assigned.get(node).map(|assigned| &assigned.instances);
            let observed = state.observed.get(node);
            let changed: Vec<_> = assigned
                .into_iter()
                .flatten()
                .filter(|(id, _)| apps.contains(&id.slot.app_env) && !state.is_healthy(node, id))
                .map(|(id, to)| InstanceReport {
                    id: id.clone(),
                    phase: Phase::Healthy,
                    spec_digest: Some(to.spec.clone()),
                    container: None,
                    restarts: 0,
                    remarks: None,
                })
                .collect();
            let gone: Vec<_> = observed
                .into_iter()
                .flat_map(|observed| observed.instances.keys())
                .filter(|id| apps.contains(&id.slot.app_env))
                .filter(|id| !assigned.is_some_and(|assigned| assigned.contains_key(*id)))
                .cloned()
                .collect();
            (!changed.is_empty() || !gone.is_empty()).then(|| ReportedChange {
                node: node.clone(),
                boot: observed.map_or(0, |observed| observed.boot),
                number: observed.map_or(0, |observed| observed.number) + 1,
                applied: state.assignment_version(node),
                changed,
                gone,
            })
        })
        .collect()
}
