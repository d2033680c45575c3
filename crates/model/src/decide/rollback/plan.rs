//! What restoring a scope would change, app by app and node by node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::nodes::{self, Growth};
use super::{place_of, places, preflight};
use crate::digest::Digest;
use crate::event::{Deviation, Pin};
use crate::ids::{AppEnv, NodeName, Place, Seq, Slot};
use crate::release::{Placement, Revision, Service};
use crate::scope::Scope;
use crate::specs::Specs;
use crate::state::State;

/// What a rollback would do to one app in one environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollbackPlan {
    /// Which.
    pub app_env: AppEnv,
    /// What is in force, in the place the rollback is about or else everywhere.
    pub from: Option<Revision>,
    /// What would be in force there.
    pub restored: Option<Revision>,
    /// What the app would be wherever no place is pinned.
    pub to: Option<Revision>,
    /// Places that would follow another revision, or no longer would: changes only.
    pub pins: Vec<(Place, Option<Pin>)>,
    /// Where instances would be: changes only.
    pub slots: Vec<(Slot, Option<NodeName>)>,
    /// How instances would be placed otherwise than they were, each with the reason.
    pub deviations: Vec<Deviation>,
    /// Instances whose node is lost: they are what they were as soon as it is heard of again.
    pub late: Vec<Deviation>,
    /// Why it cannot be restored; empty when it can.
    pub blocked: Vec<String>,
    /// Deployments between then and now that raised a barrier, with what it says.
    pub barriers: Vec<(Seq, String)>,
    /// The release that is rejected thereby.
    pub rejected: Option<Digest>,
    /// Whether all of the app is decided on, and not a place alone.
    pub for_all: bool,
    /// Whether it is what it should be already, and the last way there failed before it was all there.
    pub again: bool,
}

/// What would happen on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeChange {
    /// Instances made where none was.
    pub added: Vec<Slot>,
    /// Instances replaced by one of another revision.
    pub replaced: Vec<Slot>,
    /// Instances removed.
    pub removed: Vec<Slot>,
}

/// What restoring a scope to an earlier State would change, app by app, and with them the apps that
/// are as near to it already as they can be, because a node is gone.
pub fn plan_rollback(state: &State, past: &State, scope: &Scope, except: &[Scope]) -> Vec<RollbackPlan> {
    let apps: BTreeSet<_> = past.targeted().into_iter().chain(state.targeted()).collect();
    let mut plans: Vec<_> = apps
        .into_iter()
        .filter(|app_env| scope.covers_app_env(app_env))
        .filter(|app_env| !except.iter().any(|scope| !scope.is_placed() && scope.covers_app_env(app_env)))
        .map(|app_env| {
            let held: Vec<_> =
                except.iter().filter(|scope| scope.is_placed() && scope.covers_app_env(app_env)).collect();
            plan_app(state, past, app_env, scope, &held)
        })
        .filter(|plan| plan.is_change(state) || !plan.deviations.is_empty())
        .collect();
    for plan in &mut plans {
        // What was deployed to an app that is already as it was is passed by nobody.
        if !plan.is_change(state) {
            plan.barriers.clear();
        }
    }
    preflight::check(state, &mut plans);
    let mut after = state.clone();
    for plan in &plans {
        plan.apply(&mut after);
    }
    let lost = nodes::lost(state);
    for plan in &mut plans {
        plan.late = nodes::late(state, &after, plan, &lost);
    }
    plans
}

fn plan_app(state: &State, past: &State, app_env: &AppEnv, scope: &Scope, held: &[&Scope]) -> RollbackPlan {
    let place = place_of(scope);
    let in_force = |state: &State| match &place {
        Some(place) => places::revision_in(state, app_env, place),
        None => in_intent(state, app_env),
    };
    let (from, mut restored) = (in_force(state), in_force(past));
    let (to, pins, slots, deviations);
    if place.is_none() && held.is_empty() {
        (slots, deviations) = whole(state, past, app_env);
        pins = places::pins_of(past, app_env);
        to = restored.clone();
    } else {
        let part = places::restore(state, past, app_env, scope, held);
        if part.untouched {
            restored.clone_from(&from);
        }
        to = match place {
            Some(_) => in_intent(state, app_env),
            None => restored.clone(),
        };
        (pins, slots, deviations) = (part.pins, part.slots, part.deviations);
    }
    let mut pins = places::changes(state, app_env, pins);
    let is_excepted = |place: &Place| held.iter().any(|scope| place_of(scope).as_ref() == Some(place));
    if in_intent(state, app_env) == to && slots.is_empty() && pins.iter().all(|(place, _)| is_excepted(place))
    {
        // Nothing but what is excepted would be said anew.
        pins.clear();
    }
    let is_same = pins.is_empty() && slots.is_empty() && in_intent(state, app_env) == to;
    let again = is_same && places::is_half_way(state, past, app_env, scope, held);
    let blocked =
        if is_same && !again { Vec::new() } else { places::unfinished(state, app_env, scope, held) };
    let barriers = state
        .history
        .barriers
        .range((app_env.clone(), past.seq + 1)..=(app_env.clone(), u64::MAX))
        .map(|((_, seq), why)| (*seq, why.clone()))
        .collect();
    let rejected = from.as_ref().map(|revision| revision.release);
    let rejected = rejected.filter(|release| Some(release) != restored.as_ref().map(|it| &it.release));
    // A place that follows the rest of its app again rejects nothing.
    let rejected = rejected.filter(|_| place.is_none() || restored != to);
    RollbackPlan {
        pins,
        app_env: app_env.clone(),
        from,
        restored,
        to,
        slots,
        deviations,
        late: Vec::new(),
        blocked,
        barriers,
        rejected,
        for_all: place.is_none(),
        again,
    }
}

/// What an app should be wherever no place is pinned.
fn in_intent(state: &State, app_env: &AppEnv) -> Option<Revision> {
    state.target.intent.get(app_env).map(|revision| revision.as_ref().clone())
}

/// Every slot where it was, under its own index.
fn whole(state: &State, past: &State, app_env: &AppEnv) -> (Vec<(Slot, Option<NodeName>)>, Vec<Deviation>) {
    let mut slots = Vec::new();
    let mut deviations = Vec::new();
    let mut gone = Vec::new();
    let growth = Growth::of(state, past, app_env);
    let revisions = past.revisions(app_env);
    // While places are pinned, the planner places anew only what a slot waits for at the node that it lost.
    let is_counted = |slot: &Slot, service: Option<&Service>, node: &NodeName| {
        let is_replica = service.is_some_and(|service| match service.placement {
            Placement::Replicas { count, .. } => slot.index < count,
            Placement::Every { .. } => false,
        });
        is_replica && revisions.is_pinned() && past.pin_at(app_env, node).is_none()
    };
    for (slot, then, now) in past.slots_beside(state, app_env) {
        let Some(node) = then else {
            if now.is_some_and(|node| !growth.has(&slot.service, node)) {
                gone.push((slot.clone(), None));
            }
            continue;
        };
        let service = revisions.service(&slot.service, node);
        let is_pinned = past.pin_at(app_env, node).is_some();
        let closed = || nodes::closed(state, service, node, (now == then, is_pinned));
        if let Some(why) = nodes::unfit(state, past, service, node).or_else(closed) {
            deviations.push(nodes::placed_anew(slot, service, &why));
            if now.is_none() && is_counted(slot, service, node) {
                slots.push((slot.clone(), Some(node.clone())));
            }
        } else if now != then {
            slots.push((slot.clone(), Some(node.clone())));
        }
    }
    // Recorded in this order: what is where it was, then what goes.
    slots.append(&mut gone);
    deviations.extend(growth.told(&|_| true));
    (slots, deviations)
}

impl RollbackPlan {
    /// Whether anything would be another than it is.
    pub fn is_change(&self, state: &State) -> bool {
        let now = state.target.intent.get(&self.app_env).map(AsRef::as_ref);
        now != self.to.as_ref() || !self.slots.is_empty() || !self.pins.is_empty() || self.again
    }

    /// Whether something would become what was rejected by a rollback.
    pub(super) fn is_latched(&self, state: &State) -> bool {
        let now = state.target.intent.get(&self.app_env).map(AsRef::as_ref);
        let changed = self.to.as_ref().filter(|to| now != Some(*to));
        let pinned = places::pinned_anew(state, &self.app_env, &self.pins);
        changed.into_iter().chain(pinned).any(|revision| state.is_latched(&self.app_env, &revision.release))
    }

    /// Sets what the plan says in a State's target.
    pub fn apply(&self, state: &mut State) {
        let app_env = &self.app_env;
        match &self.to {
            Some(revision) => {
                state.target.intent.insert(app_env.clone(), Arc::new(revision.clone()));
            }
            None => {
                state.target.intent.remove(app_env);
            }
        }
        for (place, pin) in &self.pins {
            let key = (app_env.clone(), place.clone());
            match pin {
                Some(pin) => state.target.pins.insert(key, Arc::new(pin.clone())),
                None => state.target.pins.remove(&key),
            };
        }
        for (slot, node) in &self.slots {
            state.put_slot(slot, node.as_ref());
        }
    }

    /// What would change on each node. What a node already runs as it would be, because an earlier change has not come to
    /// it, stays as it is.
    pub fn by_node(&self, state: &State) -> BTreeMap<NodeName, NodeChange> {
        let mut after = state.clone();
        self.apply(&mut after);
        let mut nodes: BTreeMap<NodeName, NodeChange> = BTreeMap::new();
        let app_env = &self.app_env;
        // What has not come to a node yet goes on, unless it is held.
        let is_held = !self.for_all && state.unsuccessful(app_env).is_some();
        let is_left = |node: &NodeName| is_held && after.pin_at(app_env, node).is_none();
        let (mut specs, mut specs_after) = (Specs::new(state, app_env), Specs::new(&after, app_env));
        for (slot, was, is) in state.slots_beside(&after, app_env) {
            let mut changed = |node: &NodeName, what: fn(&mut NodeChange) -> &mut Vec<Slot>| {
                what(nodes.entry(node.clone()).or_default()).push(slot.clone());
            };
            match (was, is) {
                (Some(was), Some(is)) if was == is => match (specs.at(slot, was), specs_after.at(slot, is)) {
                    (before, now) if before == now && is_left(was) => {}
                    (_, Some(now)) if state.is_assigned(slot, was, now) => {}
                    (_, None) => changed(was, |change| &mut change.removed),
                    (_, Some(_)) => changed(was, |change| &mut change.replaced),
                },
                _ => {
                    if let Some(was) = was {
                        changed(was, |change| &mut change.removed);
                    }
                    // On a node that is gone it waits for another one.
                    if let Some(is) = is.filter(|node| state.control.nodes.contains_key(*node)) {
                        changed(is, |change| &mut change.added);
                    }
                }
            }
        }
        nodes
    }

    /// What will not be as it was, or not at once.
    pub fn told(&self) -> impl Iterator<Item = &Deviation> {
        self.deviations.iter().chain(&self.late)
    }

    /// Why it cannot be restored, each with the app.
    pub(super) fn why_blocked(&self) -> impl Iterator<Item = String> {
        self.blocked.iter().map(|why| format!("{}: {why}", self.app_env))
    }
}
