//! Undo: the effect of chosen decisions is taken back, and what came later stays.

mod content;
mod plan;

pub use plan::{Conflict, UndoPlan, UndoneApp, plan_undo};

use std::collections::BTreeSet;

use super::{Context, deploy, rollout};
use crate::command::Command;
use crate::event::{DeploymentKind, Event};
use crate::header::Decision;
use crate::ids::{PrincipalId, Seq};
use crate::limits::{REASON_BYTES_MAX, UNDO_DECISIONS_MAX};
use crate::rejection::{Rejection, RejectionKind};
use crate::scope::Scope;
use crate::state::State;

pub(super) fn undo(
    state: &State,
    principal: &PrincipalId,
    command: &Command,
    context: &Context,
) -> Result<Vec<Event>, Rejection> {
    let Command::Undo { decisions, what, now, pass_barriers } = command else {
        return Err(Rejection::new(RejectionKind::Invalid, "not an undo"));
    };
    if what.len() > REASON_BYTES_MAX {
        let message = format!("what is undone is told in at most {REASON_BYTES_MAX} bytes");
        return Err(Rejection::new(RejectionKind::TooLarge, message));
    }
    if decisions.len() > UNDO_DECISIONS_MAX {
        let message = format!(
            "{} decisions are more than UNDO_DECISIONS_MAX, {UNDO_DECISIONS_MAX}: undo fewer at once",
            decisions.len()
        );
        return Err(Rejection::new(RejectionKind::TooLarge, message));
    }
    let plan = plan_undo(state, decisions, &context.past)?;
    check(state, principal, decisions, what, *pass_barriers, &plan)?;
    if plan.apps.is_empty() {
        return Ok(Vec::new());
    }
    let mut after = state.clone();
    let mut events = Vec::new();
    for app in &plan.apps {
        events.extend(app.made.iter().cloned());
        deploy::start(state, &app.app_env, DeploymentKind::Undo, app.to.clone(), *now, None, &mut events);
        app.apply(&mut after);
        let app_env = app.app_env.clone();
        if !app.pins.is_empty() && after.pins(&app_env).next().is_none() {
            deploy::decide_for_all(state, &app_env, app.to.as_ref(), &mut events);
        }
        if !app.pins.is_empty() {
            events.push(Event::PinsChanged { app_env: app_env.clone(), pins: app.pins.clone() });
        }
        events.extend(rollout::placement_changes(&app_env, &app.slots));
        if let Some(release) = app.rejected {
            events.push(Event::Latched { app_env, release });
        }
    }
    let mut apps = Vec::new();
    for app in &plan.apps {
        let scope = Scope::app_env(&app.app_env);
        let before = state.target_digest(&scope);
        let digest = after.target_digest_after(&scope, state, before);
        let then = app.restores.and_then(|seq| context.past.get(&seq)).map(|past| past.intent_digest(&scope));
        // Like a rollback, what says that it restores is exact or refused.
        if then.is_some_and(|then| then != digest.intent) {
            let message = format!("{} would not be what it was, though it should", app.app_env);
            return Err(Rejection::new(RejectionKind::Conflict, message));
        }
        apps.push((app.app_env.clone(), before, digest));
    }
    let chosen: BTreeSet<Seq> = decisions.iter().map(|decision| decision.first).collect();
    let decisions = chosen.into_iter().rev().collect();
    events.push(Event::Undone { what: what.clone(), decisions, apps });
    Ok(events)
}

/// Everything that stands in the way.
fn check(
    state: &State,
    principal: &PrincipalId,
    decisions: &[Decision],
    what: &str,
    pass_barriers: bool,
    plan: &UndoPlan,
) -> Result<(), Rejection> {
    let conflict = |message: String, details: Vec<String>| {
        Err(Rejection::new(RejectionKind::Conflict, message).with_details(details))
    };
    if decisions.is_empty() {
        return Err(Rejection::new(RejectionKind::NotFound, format!("{what}: nothing was changed by that")));
    }
    if plan.without_effect.len() == decisions.len() {
        let message = format!("{what}: this changed no app, and what governs the fleet is never undone");
        return Err(Rejection::new(RejectionKind::Invalid, message).with_next("stele history fleet"));
    }
    if !plan.conflicts.is_empty() {
        let details = plan.conflicts.iter().map(ToString::to_string).collect();
        return conflict(format!("{what} cannot be undone: later changes are in its way"), details);
    }
    let blocked: Vec<_> = plan
        .apps
        .iter()
        .flat_map(|app| app.blocked.iter().map(|why| format!("{}: {why}", app.app_env)))
        .collect();
    if !blocked.is_empty() {
        return conflict(format!("{what} cannot be undone"), blocked);
    }
    let barriers: Vec<_> = plan.barriers(state, decisions);
    if !pass_barriers && !barriers.is_empty() {
        return conflict(
            format!("undoing {what} leaves what those deployments did outside of Stele"),
            barriers,
        );
    }
    // A latch is there to stop automation, by whatever way it comes.
    let latched = plan.apps.iter().find(|app| app.is_latched(state));
    if let Some(app) = latched.filter(|_| state.is_service(principal)) {
        let message = format!("{} is latched against that release: a person must undo this", app.app_env);
        return Err(Rejection::new(RejectionKind::Forbidden, message)
            .with_next(format!("stele unlatch {}", app.app_env)));
    }
    Ok(())
}
