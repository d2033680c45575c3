//! What would be: a change decided at any point and played to its end, on a copy of State.

use std::collections::{BTreeMap, BTreeSet};

use stele_api::wire::{PlannedAction, PlannedStep, WhatIfAnswer, WhatIfChange, WhatIfRequest};
use stele_ledger::system_request;
use stele_model::event::AssignmentChange;
use stele_model::trial::{Trial, try_out};
use stele_model::{AppEnv, Command, Context, Event, Point, Scope, Slot, State, diff};
use stele_planner::{Simulated, simulate};

use super::asked::Asked;
use super::limits::WHAT_IF_STEPS_MAX;
use super::scopes::{check_scopes, with_environment};
use super::status::{point_seq, state_at, staying};
use super::{Answered, changes, json};
use crate::handle::{Consistency, Handle};

pub(super) async fn what_if(handle: &Handle, asked: &Asked) -> Answered {
    let request: WhatIfRequest = asked.body()?;
    let present = handle.read(Consistency::Linearizable).await?;
    let (command, state) = match request.change {
        WhatIfChange::Apply { spec, environment, images } => {
            let app_env = changes::named_by(&spec, environment.as_ref())?;
            let scope = Scope::app_env(&app_env);
            let state = state_at(handle, &present, &scope, request.at.as_deref()).await?;
            let (contacts, release) = changes::of_spec(handle, &spec, &app_env, images, Some(&state)).await?;
            let contacts = Some(contacts);
            let command = Command::Deploy { app_env, contacts, release, again: false, barrier: None };
            (command, state)
        }
        WhatIfChange::Rollback { scope, to, except, now } => {
            let next =
                |scope: &Scope| format!("stele what-if --rollback {scope} --to {}", Point::quoted(&to));
            let scope = with_environment(&present, scope, next)?;
            let state = state_at(handle, &present, &scope, request.at.as_deref()).await?;
            check_scopes(&scope, &except, &[&present, &state])?;
            let seq = point_seq(handle, &state, &scope, &to).await?;
            (rollback(scope, except, to, seq, now), state)
        }
        WhatIfChange::Drain { node } => {
            let state = state_at(handle, &present, &Scope::fleet(), request.at.as_deref()).await?;
            (Command::DrainNode { node }, state)
        }
    };
    let past = handle.past_of(&command).await?;
    // Whoever asks may ask: what their token could do at that point means nothing.
    let trial = try_out(&state, &system_request(command), &Context { now: state.time, past })?;
    json(&answer(&state, &trial))
}

fn rollback(scope: Scope, except: Vec<Scope>, to: String, seq: u64, now: bool) -> Command {
    Command::Rollback {
        scope,
        except,
        point: to,
        seq,
        now,
        strict: false,
        best_effort: false,
        pass_barriers: true,
        unobtainable: Vec::new(),
    }
}

fn answer(state: &State, trial: &Trial) -> WhatIfAnswer {
    let (mut apps, mut drained) = (BTreeSet::new(), None);
    for record in &trial.records {
        match &record.event {
            Event::DeploymentStarted { app_env, .. } => {
                apps.insert(app_env.clone());
            }
            Event::NodeDrained { node } => {
                let slots = state.target.placement.iter().filter(|(_, on)| *on == node);
                apps.extend(slots.map(|(slot, _)| slot.app_env.clone()));
                drained = Some(node);
            }
            _ => {}
        }
    }
    let Simulated { steps, state: end, ended } = simulate(&trial.after, &apps, WHAT_IF_STEPS_MAX);
    let mut placement: BTreeMap<_, Vec<Slot>> = BTreeMap::new();
    for app_env in &apps {
        for (slot, node) in end.slots(app_env) {
            placement.entry(node.clone()).or_default().push(slot.clone());
        }
    }
    WhatIfAnswer {
        at: state.seq,
        time: state.time,
        release: trial.answer().release,
        differences: diff(state, &trial.after, &Scope::fleet()),
        steps: steps.into_iter().flat_map(|step| told(&end, step)).collect(),
        placement,
        ended,
        staying: drained.map(|node| staying(&end, node)).unwrap_or_default(),
    }
}

/// What one command of the planner does, thing by thing.
fn told(state: &State, step: stele_planner::Step) -> Vec<PlannedStep> {
    let (app_env, actions): (AppEnv, Vec<PlannedAction>) = match step.command {
        Command::Place { app_env, slots } => {
            let place = |(slot, node)| PlannedAction::Place { slot, node };
            (app_env, slots.into_iter().map(place).collect())
        }
        Command::Assign { app_env, changes } => {
            let action = |change| match change {
                AssignmentChange::Assign { node, instance, revision, replaces, .. } => PlannedAction::Start {
                    node,
                    slot: instance.slot,
                    release: state.release_number(&revision.release),
                    replaces,
                },
                AssignmentChange::Withdraw { node, instance } => PlannedAction::Stop { node, instance },
            };
            (app_env, changes.into_iter().map(action).collect())
        }
        Command::FinishDeployment { app_env, outcome, .. } => {
            (app_env, vec![PlannedAction::Finish { outcome }])
        }
        _ => return Vec::new(),
    };
    let round = step.round;
    let step = |action| PlannedStep { round, app_env: app_env.clone(), action };
    actions.into_iter().map(step).collect()
}
