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
use crate::ids::{Place, PrincipalId};
use crate::limits::{DEVIATION_BYTES, DEVIATIONS_BYTES_MAX};
use crate::point::Point;
use crate::rejection::{Rejection, RejectionKind};
use crate::scope::Scope;
use crate::state::State;

pub(super) fn rollback(
    state: &State,
    principal: &PrincipalId,
    command: &Command,
    context: &Context,
) -> Result<Vec<Event>, Rejection> {
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
    for excepted in except {
        check_place(state, excepted)?;
    }
    check_exceptions(scope, except)?;
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
            let best_effort = Flags { best_effort: true, ..Flags::of(command) };
            return Err(refuse(blocked, format!("{} --plan", in_words(command, best_effort))));
        }
    }
    deviations.extend(plans.iter().flat_map(RollbackPlan::told).cloned());
    if *strict && !deviations.is_empty() {
        let details = deviations.iter().map(|Deviation { what, why }| format!("{what}: {why}")).collect();
        return Err(refuse(details, in_words(command, Flags { strict: false, ..Flags::of(command) })));
    }
    plans.retain(|plan| plan.is_change(state));
    if plans.is_empty() {
        return Ok(Vec::new());
    }
    check_latches(state, principal, &plans)?;
    if !*pass_barriers {
        check_barriers(&plans, command, point)?;
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
    let deviations = bounded(deviations, DEVIATIONS_BYTES_MAX);
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
    check_place(state, scope)
}

/// A node outside of the region that is named with it is in neither of the two: nothing is.
fn check_place(state: &State, scope: &Scope) -> Result<(), Rejection> {
    if let (Some(node), Some(region)) = (&scope.node, &scope.region)
        && let Some(own) = state.region_of(node).filter(|own| *own != region)
    {
        return Err(Rejection::new(
            RejectionKind::Invalid,
            format!("node {node} is in region {own}, not in {region}: nothing is in {scope}"),
        ));
    }
    Ok(())
}

/// Going back is no way around a latch for automation either: to the release before a bad one and back again, it would
/// deploy what a person has rejected.
fn check_latches(state: &State, principal: &PrincipalId, plans: &[RollbackPlan]) -> Result<(), Rejection> {
    if !state.is_service(principal) {
        return Ok(());
    }
    let Some(plan) = plans.iter().find(|plan| plan.is_latched(state)) else { return Ok(()) };
    let app_env = &plan.app_env;
    Err(Rejection::new(
        RejectionKind::Forbidden,
        format!("{app_env} is latched against the release that it would go back to: a person must do this"),
    )
    .with_next(format!("stele unlatch {app_env}")))
}

/// As many deviations as the log has room for, and how many more there are. Where many nodes are lost, each of their
/// instances is one, and that must not keep anybody from going back.
fn bounded(mut deviations: Vec<Deviation>, bytes_max: usize) -> Vec<Deviation> {
    let mut bytes = 0;
    let room = deviations.iter().take_while(|Deviation { what, why }| {
        bytes += what.len() + why.len() + DEVIATION_BYTES;
        bytes <= bytes_max
    });
    let kept = room.count();
    let more = deviations.len() - kept;
    if more > 0 {
        deviations.truncate(kept);
        let what = format!("{more} more");
        deviations.push(Deviation { what, why: "the log has no room for all of them".to_owned() });
    }
    deviations
}

fn check_barriers(plans: &[RollbackPlan], command: &Command, point: &str) -> Result<(), Rejection> {
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
    .with_next(in_words(command, Flags { pass_barriers: true, ..Flags::of(command) })))
}

/// What a rollback refuses or passes over.
#[derive(Clone, Copy)]
struct Flags {
    strict: bool,
    best_effort: bool,
    pass_barriers: bool,
}

impl Flags {
    const fn of(command: &Command) -> Self {
        let Command::Rollback { strict, best_effort, pass_barriers, .. } = command else {
            return Self { strict: false, best_effort: false, pass_barriers: false };
        };
        Self { strict: *strict, best_effort: *best_effort, pass_barriers: *pass_barriers }
    }
}

/// A rollback as somebody would type it: what was asked for and is left out would be done to what it left alone.
fn in_words(command: &Command, flags: Flags) -> String {
    let Command::Rollback { scope, except, point, now, .. } = command else { return String::new() };
    let mut words = format!("stele rollback {scope} --to {}", Point::quoted(point));
    for excepted in except {
        words.push_str(" --except ");
        words.push_str(&excepted.to_string());
    }
    let Flags { strict, best_effort, pass_barriers } = flags;
    let options = [(*now, " --now"), (strict, " --strict"), (best_effort, " --best-effort")];
    for (_, word) in options.into_iter().chain([(pass_barriers, " --pass-barriers")]).filter(|(is, _)| *is) {
        words.push_str(word);
    }
    words
}

/// An exception that leaves nothing out would be taken for one that protects something.
fn check_exceptions(scope: &Scope, except: &[Scope]) -> Result<(), Rejection> {
    let vain = except.iter().find(|excepted| !excepted.may_meet(scope));
    vain.map_or(Ok(()), |excepted| {
        let message = format!("{excepted} has nothing in common with {scope}, so there is nothing to except");
        Err(Rejection::new(RejectionKind::Invalid, message))
    })
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
