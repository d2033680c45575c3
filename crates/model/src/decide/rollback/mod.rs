//! Rollback: a forward decision whose result is checked against the past.

mod exact;
mod nodes;
pub(super) mod places;
mod plan;
mod preflight;

pub use plan::{NodeChange, RollbackPlan, plan_rollback};

use super::{Context, deploy, rollout};
use crate::command::Command;
use crate::event::{DeploymentKind, Deviation, Event};
use crate::ids::Place;
use crate::rejection::{Rejection, RejectionKind};
use crate::scope::Scope;
use crate::state::State;

pub(super) fn rollback(state: &State, command: &Command, context: &Context) -> Result<Vec<Event>, Rejection> {
    let Command::Rollback {
        scope,
        except,
        point,
        seq,
        now,
        strict,
        best_effort,
        pass_barriers,
        unobtainable,
        ..
    } = command
    else {
        return Err(Rejection::new(RejectionKind::Invalid, "not a rollback"));
    };
    let Some(past) = context.past.get(seq) else {
        return Err(Rejection::new(RejectionKind::NotFound, format!("State at seq {seq} is not at hand")));
    };
    check_scope(state, scope)?;
    let mut plans = plan_rollback(state, past, scope, except);
    for plan in plans.iter_mut().filter(|plan| plan.is_change(state)) {
        let told = unobtainable.iter().filter(|(app_env, _)| *app_env == plan.app_env);
        plan.blocked.extend(told.map(|(_, why)| why.clone()));
    }
    let refuse = |details: Vec<String>, next: String| {
        Rejection::new(RejectionKind::Conflict, format!("{scope} cannot be restored exactly to {point}"))
            .with_details(details)
            .with_next(next)
    };
    let mut deviations = Vec::new();
    if *best_effort {
        deviations = preflight::leave_blocked(state, &mut plans);
    } else {
        let blocked: Vec<_> = plans.iter().flat_map(RollbackPlan::why_blocked).collect();
        if !blocked.is_empty() {
            let mut next = format!("stele rollback {scope} --to {point} --best-effort --plan");
            for place in except {
                next.push_str(" --except ");
                next.push_str(&place.to_string());
            }
            return Err(refuse(blocked, next));
        }
    }
    deviations.extend(plans.iter().flat_map(RollbackPlan::told).cloned());
    if *strict && !deviations.is_empty() {
        let details = deviations.iter().map(|Deviation { what, why }| format!("{what}: {why}")).collect();
        return Err(refuse(details, format!("stele rollback {scope} --to {point}")));
    }
    plans.retain(|plan| plan.is_change(state));
    if plans.is_empty() {
        return Ok(Vec::new());
    }
    if !*pass_barriers {
        check_barriers(&plans, scope, point)?;
    }
    let mut after = state.clone();
    let mut events = Vec::new();
    for plan in &plans {
        plan.apply(&mut after);
        restore(state, plan, *now, &mut events);
    }
    for plan in &plans {
        if let Err(mismatch) = exact::check(past, &after, plan, scope, except) {
            if !*best_effort {
                return Err(mismatch);
            }
            deviations.push(Deviation { what: plan.app_env.to_string(), why: mismatch.to_string() });
        }
    }
    let before = state.target_digest(scope);
    events.push(Event::RolledBack {
        scope: scope.to_string(),
        except: except.clone(),
        point: point.clone(),
        seq: *seq,
        before,
        after: after.target_digest_after(scope, state, before),
        deviations,
    });
    Ok(events)
}

fn check_scope(state: &State, scope: &Scope) -> Result<(), Rejection> {
    if scope.app.is_some() && scope.environment.is_none() {
        return Err(Rejection::new(
            RejectionKind::Invalid,
            format!("{scope} is ambiguous: name its environment"),
        )
        .with_next(format!("stele rollback {scope}@ENV")));
    }
    if let Some(node) = &scope.node
        && !state.control.nodes.contains_key(node)
    {
        return Err(Rejection::new(RejectionKind::NotFound, format!("node {node} is not of the fleet"))
            .with_next("stele node list"));
    }
    if let Some(region) = &scope.region
        && !state.control.nodes.values().any(|node| node.region == *region)
    {
        return Err(Rejection::new(RejectionKind::NotFound, format!("region {region} has no node"))
            .with_next("stele node list"));
    }
    Ok(())
}

fn check_barriers(plans: &[RollbackPlan], scope: &Scope, point: &str) -> Result<(), Rejection> {
    let details: Vec<_> = plans
        .iter()
        .flat_map(|plan| {
            plan.barriers.iter().map(|(seq, why)| format!("{}: deploy:{seq} {why}", plan.app_env))
        })
        .collect();
    if details.is_empty() {
        return Ok(());
    }
    Err(Rejection::new(
        RejectionKind::Conflict,
        format!("going back to {point} passes deployments whose effect outside of Stele stays"),
    )
    .with_details(details)
    .with_next(format!("stele rollback {scope} --to {point} --pass-barriers")))
}

fn restore(state: &State, plan: &RollbackPlan, now: bool, events: &mut Vec<Event>) {
    let app_env = &plan.app_env;
    let mut to = plan.to.clone();
    if planted!(RollbackForgetsConfig)
        && let Some(to) = &mut to
    {
        to.config = None;
    }
    deploy::start(state, app_env, DeploymentKind::Rollback, to, now, None, events);
    if plan.for_all {
        deploy::decide_for_all(state, app_env, plan.to.as_ref(), events);
    }
    if !plan.pins.is_empty() {
        events.push(Event::PinsChanged { app_env: app_env.clone(), pins: plan.pins.clone() });
    }
    events.extend(rollout::placement_changes(app_env, &plan.slots));
    if let Some(release) = plan.rejected {
        events.push(Event::Latched { app_env: app_env.clone(), release });
    }
}

/// The place a scope is about, if it is about one.
fn place_of(scope: &Scope) -> Option<Place> {
    match (&scope.node, &scope.region) {
        (Some(node), _) => Some(Place::Node(node.clone())),
        (None, Some(region)) => Some(Place::Region(region.clone())),
        (None, None) => None,
    }
}
