//! Rollback: a forward decision whose result is checked against the past.

use std::collections::BTreeSet;

use super::{Context, deploy};
use crate::command::Command;
use crate::event::{DeploymentKind, Event, TargetDigest};
use crate::ids::{AppEnv, NodeName, Seq, Slot};
use crate::rejection::{Rejection, RejectionKind};
use crate::release::Revision;
use crate::scope::Scope;
use crate::state::State;

/// What a rollback would do to one app in one environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollbackPlan {
    /// Which.
    pub app_env: AppEnv,
    /// What is in force.
    pub from: Option<Revision>,
    /// What would be.
    pub to: Option<Revision>,
    /// Where instances would be: changes only.
    pub slots: Vec<(Slot, Option<NodeName>)>,
    /// Instances that cannot be where they were, with the reason; they are placed anew.
    pub replaced: Vec<(Slot, String)>,
}

/// What restoring a scope to an earlier State would change, app by app.
pub fn plan_rollback(state: &State, past: &State, scope: &Scope, except: &[Scope]) -> Vec<RollbackPlan> {
    let apps: BTreeSet<_> = past.target.intent.keys().chain(state.target.intent.keys()).collect();
    apps.into_iter()
        .filter(|app_env| scope.covers_app_env(app_env))
        .filter(|app_env| !except.iter().any(|scope| scope.covers_app_env(app_env)))
        .map(|app_env| plan_app(state, past, app_env))
        .filter(|plan| plan.from != plan.to || !plan.slots.is_empty())
        .collect()
}

fn plan_app(state: &State, past: &State, app_env: &AppEnv) -> RollbackPlan {
    let revision = |state: &State| state.target.intent.get(app_env).map(|revision| revision.as_ref().clone());
    let mut slots = Vec::new();
    let mut replaced = Vec::new();
    for (slot, node) in past.slots(app_env) {
        if !state.control.nodes.contains_key(node) {
            replaced.push((slot.clone(), format!("node {node} is no longer of the fleet")));
        } else if state.target.placement.get(slot) != Some(node) {
            slots.push((slot.clone(), Some(node.clone())));
        }
    }
    for (slot, _) in state.slots(app_env) {
        if !past.target.placement.contains_key(slot) {
            slots.push((slot.clone(), None));
        }
    }
    RollbackPlan { app_env: app_env.clone(), from: revision(state), to: revision(past), slots, replaced }
}

pub(super) fn rollback(state: &State, command: &Command, context: &Context) -> Result<Vec<Event>, Rejection> {
    let Command::Rollback { scope, except, point, seq, now, strict } = command else {
        return Err(Rejection::new(RejectionKind::Invalid, "not a rollback"));
    };
    let Some(past) = context.past.as_ref().filter(|past| past.seq == *seq) else {
        return Err(Rejection::new(RejectionKind::NotFound, format!("State at seq {seq} is not at hand")));
    };
    check_scope(scope)?;
    let plans = plan_rollback(state, past, scope, except);
    if plans.is_empty() {
        return Ok(Vec::new());
    }
    let replaced: Vec<_> = plans.iter().flat_map(|plan| plan.replaced.iter().cloned()).collect();
    if *strict && !replaced.is_empty() {
        let details = replaced.iter().map(|(slot, why)| format!("{slot}: {why}")).collect();
        return Err(Rejection::new(
            RejectionKind::Conflict,
            format!("{scope} cannot be restored exactly to {point}"),
        )
        .with_details(details)
        .with_next(format!("stele rollback {scope} --to {point}")));
    }
    let mut events = Vec::new();
    for plan in &plans {
        restore(state, plan, *now, &mut events);
    }
    let before = state.target_digest(scope);
    let after = digest_after(state, &plans, scope);
    check_result(past, scope, except, after)?;
    events.push(Event::RolledBack {
        scope: scope.to_string(),
        point: point.clone(),
        seq: *seq,
        before,
        after,
        replaced,
    });
    Ok(events)
}

fn check_scope(scope: &Scope) -> Result<(), Rejection> {
    if scope.is_placed() {
        return Err(Rejection::new(
            RejectionKind::Invalid,
            format!(
                "{scope} cannot be rolled back by itself yet: regions and nodes share their apps' releases"
            ),
        )
        .with_next("stele rollback PROJECT/APP@ENV"));
    }
    if scope.app.is_some() && scope.environment.is_none() {
        return Err(Rejection::new(
            RejectionKind::Invalid,
            format!("{scope} is ambiguous: name its environment"),
        )
        .with_next(format!("stele rollback {scope}@ENV")));
    }
    Ok(())
}

fn restore(state: &State, plan: &RollbackPlan, now: bool, events: &mut Vec<Event>) {
    let app_env = &plan.app_env;
    deploy::start(state, app_env, DeploymentKind::Rollback, plan.to.clone(), now, events);
    if !plan.slots.is_empty() {
        let slots = plan.slots.clone();
        events.push(Event::PlacementChanged { app_env: app_env.clone(), slots });
    }
    let rejected = plan.from.as_ref().map(|revision| revision.release);
    let restored = plan.to.as_ref().map(|revision| revision.release);
    if let Some(release) = rejected
        && Some(release) != restored
    {
        events.push(Event::Latched { app_env: app_env.clone(), release });
    }
}

/// The scope's digest once the plans are carried out.
fn digest_after(state: &State, plans: &[RollbackPlan], scope: &Scope) -> TargetDigest {
    let mut after = state.clone();
    for plan in plans {
        match &plan.to {
            Some(revision) => {
                after.target.intent.insert(plan.app_env.clone(), std::sync::Arc::new(revision.clone()));
            }
            None => {
                after.target.intent.remove(&plan.app_env);
            }
        }
        for (slot, node) in &plan.slots {
            match node {
                Some(node) => after.target.placement.insert(slot.clone(), node.clone()),
                None => after.target.placement.remove(slot),
            };
        }
    }
    after.target_digest(scope)
}

/// Intent must be what it was, by digest: a rollback that is not exact is refused.
fn check_result(past: &State, scope: &Scope, except: &[Scope], after: TargetDigest) -> Result<(), Rejection> {
    let wanted = past.target_digest(scope);
    if except.is_empty() && wanted.intent != after.intent {
        return Err(Rejection::new(
            RejectionKind::Conflict,
            format!("{scope} cannot be restored exactly: its intent would have digest {}", after.intent),
        )
        .with_details(vec![format!("the digest at seq {} is {}", past.seq, wanted.intent)]));
    }
    Ok(())
}

/// The newest points an app could go back to, with whether each was healthy.
impl State {
    /// Candidates for a rollback, newest first: `(seq, release, good)`.
    pub fn rollback_candidates(&self, app_env: &AppEnv, limit: usize) -> Vec<(Seq, Option<u32>, bool)> {
        self.timeline(app_env)
            .into_iter()
            .skip(1)
            .take(limit)
            .map(|entry| (entry.until, entry.release, entry.good))
            .collect()
    }
}
