//! Nodes that are not what they were: gone, labelled otherwise, new, or lost.
//!
//! Nodes and their labels are of `control`, which is never rolled back. Where they keep an
//! instance from being where it was, or make a service grow, the planner would do so right after
//! the rollback: it is told beforehand, as a deviation.

use std::collections::BTreeSet;

use super::plan::RollbackPlan;
use crate::event::{Deviation, EnrolledNode};
use crate::ids::{AppEnv, NodeName, Place, ServiceName, Slot};
use crate::release::{Placement, Service};
use crate::state::State;

/// Whether a node is of a fleet and one that a service may run on.
fn matches(state: &State, node: &NodeName, service: &Service) -> bool {
    let enrolled = state.control.nodes.get(node);
    enrolled.is_some_and(|node| state.selects(service.placement.nodes(), node))
}

/// Whether it may also get something new.
fn takes(state: &State, node: &NodeName, service: &Service) -> bool {
    let enrolled = state.control.nodes.get(node);
    enrolled.is_some_and(|node| state.takes(service.placement.nodes(), node))
}

/// Why an instance does not stay on a node where it was, or gets none that is not there: the node is drained. What writes
/// to its volumes stays, and so does what is pinned there.
pub(super) fn closed(
    state: &State,
    service: Option<&Service>,
    node: &NodeName,
    (is_there, is_pinned): (bool, bool),
) -> Option<String> {
    let stays = is_there && (is_pinned || service.is_some_and(Service::leaves_data_behind));
    (state.is_drained(node) && !stays).then(|| format!("node {node} is drained"))
}

/// Why an instance of a service cannot be on the node where it was, if it cannot.
///
/// One that was about to leave its node even then is put back there, and leaves it as it did then.
pub(super) fn unfit(
    state: &State,
    past: &State,
    service: Option<&Service>,
    node: &NodeName,
) -> Option<String> {
    if !state.control.nodes.contains_key(node) {
        return Some(format!("node {node} is no longer of the fleet"));
    }
    let service = service?;
    let selector = service.placement.nodes();
    if selector.is_any() {
        return None;
    }
    (matches(past, node, service) && !matches(state, node, service))
        .then(|| format!("node {node} no longer matches {:?}", selector.to_string()))
}

/// What becomes of an instance that cannot be where it was.
pub(super) fn placed_anew(slot: &Slot, service: Option<&Service>, why: &str) -> Deviation {
    let is_everywhere = service.is_some_and(|service| matches!(service.placement, Placement::Every { .. }));
    let instead = if is_everywhere { "it is not placed" } else { "it is placed on another" };
    Deviation { what: slot.to_string(), why: format!("{why}; {instead}") }
}

/// Nodes that have or get an instance which they did not have then, since a service that runs on
/// every node that matches finds more of them now.
pub(super) struct Growth<'a> {
    app_env: &'a AppEnv,
    nodes: BTreeSet<(&'a ServiceName, &'a NodeName)>,
}

impl<'a> Growth<'a> {
    /// When an app is restored wherever no place of it was pinned.
    pub(super) fn of(state: &'a State, past: &'a State, app_env: &'a AppEnv) -> Self {
        let revision = past.target.intent.get(app_env);
        let release = revision.and_then(|revision| past.release_of(revision));
        let services = release.into_iter().flat_map(|release| &release.services);
        let every = services.filter(|(_, service)| matches!(service.placement, Placement::Every { .. }));
        let is_new = |service: &Service, node: &EnrolledNode| {
            takes(state, &node.name, service) && !takes(past, &node.name, service)
        };
        let is_pinned = |node: &EnrolledNode| {
            let pinned = |place| past.target.pins.contains_key(&(app_env.clone(), place));
            pinned(Place::Node(node.name.clone())) || pinned(Place::Region(node.region.clone()))
        };
        let nodes = every
            .flat_map(|(name, service)| {
                let nodes = state.control.nodes.values();
                let new = nodes.filter(move |node| is_new(service, node) && !is_pinned(node));
                new.map(move |node| (name, &node.name))
            })
            .collect();
        Self { app_env, nodes }
    }

    pub(super) fn has(&self, service: &ServiceName, node: &NodeName) -> bool {
        self.nodes.contains(&(service, node))
    }

    pub(super) fn told(&self, covered: &dyn Fn(&NodeName) -> bool) -> Vec<Deviation> {
        let told = self.nodes.iter().filter(|(_, node)| covered(node)).map(|(service, node)| Deviation {
            what: format!("{}/{service} on {node}", self.app_env),
            why: format!("it runs on every node that matches, and {node} did not match then, or was drained"),
        });
        told.collect()
    }
}

/// Nodes that cannot do anything now.
pub(super) fn lost(state: &State) -> BTreeSet<&NodeName> {
    let lost = state.observed.iter().filter(|(_, seen)| seen.lost).map(|(node, _)| node);
    lost.filter(|node| state.control.nodes.contains_key(*node)).collect()
}

/// Instances that a plan changes and whose node cannot do so now.
pub(super) fn late(
    state: &State,
    after: &State,
    plan: &RollbackPlan,
    lost: &BTreeSet<&NodeName>,
) -> Vec<Deviation> {
    if lost.is_empty() {
        return Vec::new();
    }
    let app_env = &plan.app_env;
    let told = |slot: &Slot, node: &NodeName, what: &str| Deviation {
        what: slot.to_string(),
        why: format!("node {node} is lost; it is {what} there when the node is heard of again"),
    };
    let is_changed = |slot: &Slot, node: &NodeName| {
        state.target.placement.get(slot) != Some(node)
            || state.revision_at(app_env, node) != after.revision_at(app_env, node)
    };
    let restored = after.slots(app_env).filter(|(slot, node)| lost.contains(node) && is_changed(slot, node));
    let left = |slot: &Slot, node: &NodeName| after.target.placement.get(slot) != Some(node);
    let stopped = state.slots(app_env).filter(|(slot, node)| lost.contains(node) && left(slot, node));
    let restored = restored.map(|(slot, node)| told(slot, node, "restored"));
    restored.chain(stopped.map(|(slot, node)| told(slot, node, "stopped"))).collect()
}
