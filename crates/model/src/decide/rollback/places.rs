//! Rollback of a part of an app: one region or node, or all but some.
//!
//! Inside a place, instances are counted by service and node; which of the app's
//! replicas one is means nothing there. So an instance keeps its index unless another
//! one outside of the place has it by now.

use std::collections::{BTreeMap, BTreeSet};

use super::nodes::{self, Growth};
use super::{place_of, preflight};
use crate::event::{DeploymentKind, Deviation, Pin};
use crate::hold::is_within_a_pin;
use crate::ids::{AppEnv, NodeName, Place, RegionName, ServiceName, Slot};
use crate::release::{Placement, Protocol, Revision, Service};
use crate::revisions::Revisions;
use crate::scope::Scope;
use crate::specs::Specs;
use crate::state::State;

/// What becomes of an app when a part of it is restored.
pub(in crate::decide) struct Part {
    pub(super) pins: BTreeMap<Place, Pin>,
    pub(in crate::decide) slots: Vec<(Slot, Option<NodeName>)>,
    pub(in crate::decide) deviations: Vec<Deviation>,
    /// The app neither is in the place nor was.
    pub(super) untouched: bool,
}

/// All pins of an app.
pub(super) fn pins_of(state: &State, app_env: &AppEnv) -> BTreeMap<Place, Pin> {
    state.pins(app_env).map(|(place, pin)| (place.clone(), pin.as_ref().clone())).collect()
}

/// How pins differ from those there are.
pub(super) fn changes(
    state: &State,
    app_env: &AppEnv,
    wanted: BTreeMap<Place, Pin>,
) -> Vec<(Place, Option<Pin>)> {
    let present = pins_of(state, app_env);
    let gone = present.keys().filter(|place| !wanted.contains_key(place)).map(|place| (place.clone(), None));
    let mut changes: Vec<_> = gone.collect();
    changes.extend(
        wanted
            .into_iter()
            .filter(|(place, pin)| present.get(place) != Some(pin))
            .map(|(place, pin)| (place, Some(pin))),
    );
    changes.sort_by(|left, right| left.0.cmp(&right.0));
    changes
}

/// The revision of an app in a place, as far as no smaller place differs.
pub(super) fn revision_in(state: &State, app_env: &AppEnv, place: &Place) -> Option<Revision> {
    if let Place::Node(node) = place {
        return state.revision_at(app_env, node).cloned();
    }
    match state.target.pins.get(&(app_env.clone(), place.clone())).map(AsRef::as_ref) {
        Some(Pin::Revision(revision)) => Some(revision.clone()),
        Some(Pin::Absent) => None,
        None => state.target.intent.get(app_env).map(|revision| revision.as_ref().clone()),
    }
}

/// What places become by pins, where that is not what they are.
pub(in crate::decide) fn pinned_anew<'a>(
    state: &State,
    app_env: &AppEnv,
    pins: &'a [(Place, Option<Pin>)],
) -> impl Iterator<Item = &'a Revision> {
    pins.iter().filter_map(move |(place, pin)| {
        let revision = pin.as_ref()?.revision()?;
        (revision_in(state, app_env, place).as_ref() != Some(revision)).then_some(revision)
    })
}

/// Whether a place lies inside another one.
fn is_inside(state: &State, inner: &Place, outer: &Place) -> bool {
    match (inner, outer) {
        (Place::Node(node), Place::Region(region)) => state.region_of(node) == Some(region),
        _ => inner == outer,
    }
}

/// Makes a place what it is in `source`: its own revision, and whatever differs inside it.
fn take_over(
    source: &State,
    state: &State,
    app_env: &AppEnv,
    place: &Place,
    pins: &mut BTreeMap<Place, Pin>,
) {
    pins.retain(|present, _| !is_inside(state, present, place));
    let within = pins_of(source, app_env);
    pins.extend(within.into_iter().filter(|(inner, _)| inner != place && is_inside(state, inner, place)));
    let pin = match revision_in(source, app_env, place) {
        Some(revision) if is_present(source, app_env, place) => Pin::Revision(revision),
        _ => Pin::Absent,
    };
    pins.insert(place.clone(), pin);
}

fn covers(place: &Place, node: &NodeName, region: Option<&RegionName>) -> bool {
    match place {
        Place::Node(name) => name == node,
        Place::Region(name) => Some(name) == region,
    }
}

/// Whether an app has instances in a place, or should have by a pin.
fn is_present(state: &State, app_env: &AppEnv, place: &Place) -> bool {
    let pin = state.target.pins.get(&(app_env.clone(), place.clone())).map(AsRef::as_ref);
    matches!(pin, Some(Pin::Revision(_)))
        || state.slots(app_env).any(|(_, node)| covers(place, node, state.region_of(node)))
}

/// Whether there is anything to say of an app in a place: it is there, or a part of the place is pinned.
fn is_mentioned(state: &State, app_env: &AppEnv, place: &Place) -> bool {
    is_present(state, app_env, place)
        || state.pins(app_env).any(|(inner, _)| inner != place && is_inside(state, inner, place))
}

pub(in crate::decide) fn restore(
    state: &State,
    past: &State,
    app_env: &AppEnv,
    scope: &Scope,
    held: &[&Scope],
) -> Part {
    let mut pins;
    let target = place_of(scope);
    if let Some(place) = &target {
        if !is_mentioned(state, app_env, place) && !is_mentioned(past, app_env, place) {
            let pins = pins_of(state, app_env);
            return Part { pins, slots: Vec::new(), deviations: Vec::new(), untouched: true };
        }
        pins = pins_of(state, app_env);
        take_over(past, state, app_env, place, &mut pins);
    } else {
        pins = pins_of(past, app_env);
    }
    for place in held.iter().filter_map(|scope| place_of(scope)) {
        if is_present(state, app_env, &place) || target.is_none() {
            take_over(state, state, app_env, &place, &mut pins);
        }
    }
    // A node that left the fleet is where it was.
    let region = |node: &NodeName| state.region_of(node).or_else(|| past.region_of(node));
    let covered = |node: &NodeName| {
        scope.covers_node(node, region(node)) && !held.iter().any(|held| held.covers_node(node, region(node)))
    };
    // What is pinned to a place never grows by itself.
    let growth = target.is_none().then(|| Growth::of(state, past, app_env));
    let (slots, deviations) = restore_slots(state, past, app_env, &covered, (growth.as_ref(), &pins));
    let mut part = Part { pins, slots, deviations, untouched: false };
    if let Some(place) = &target
        && held.is_empty()
    {
        part.release(state, past, app_env, place);
    }
    part
}

impl Part {
    /// Takes off the pin of a place that is again as the app is everywhere.
    fn release(&mut self, state: &State, past: &State, app_env: &AppEnv, place: &Place) {
        let around = match place {
            Place::Region(_) => state.target.intent.get(app_env).map(|revision| revision.as_ref().clone()),
            Place::Node(node) => match state.region_of(node) {
                Some(region) => revision_in(state, app_env, &Place::Region(region.clone())),
                None => None,
            },
        };
        let was_pinned = past.target.pins.contains_key(&(app_env.clone(), place.clone()));
        let same = matches!(self.pins.get(place), Some(Pin::Revision(revision)) if Some(revision) == around.as_ref());
        // Without a pin it would be held together with the rest of the app, or take that on with it.
        let is_as_before = self.slots.is_empty() && state.pins(app_env).next().is_none();
        let is_free = is_as_before
            || is_within_a_pin(state, place, &self.pins)
            || state.unsuccessful(app_env).is_none();
        // With fewer or more instances than the app should have, the planner would change them.
        let is_whole = self.deviations.is_empty() && self.is_complete(state, app_env);
        if same && !was_pinned && is_free && is_whole {
            self.pins.remove(place);
        }
    }

    fn is_complete(&self, state: &State, app_env: &AppEnv) -> bool {
        let mut slots: BTreeMap<&Slot, &NodeName> = state.slots(app_env).collect();
        for (slot, node) in &self.slots {
            match node {
                Some(node) => slots.insert(slot, node),
                None => slots.remove(slot),
            };
        }
        // What waits for a node would be forgotten as soon as a place is pinned again.
        if slots.values().any(|node| !state.control.nodes.contains_key(*node)) {
            return false;
        }
        // What is on a drained node would leave it without a pin.
        if slots.values().any(|node| state.is_drained(node)) {
            return false;
        }
        let Some(revision) = state.target.intent.get(app_env) else { return slots.is_empty() };
        let Some(release) = state.release_of(revision) else { return false };
        release.services.iter().all(|(name, service)| {
            let mine: Vec<_> = slots.keys().filter(|slot| slot.service == *name).collect();
            match &service.placement {
                Placement::Replicas { count, .. } => {
                    mine.len() == *count as usize && mine.iter().all(|slot| slot.index < *count)
                }
                Placement::Every { nodes } => {
                    let matching = state.control.nodes.values().filter(|node| state.takes(nodes, node));
                    matching.count() == mine.len()
                }
            }
        })
    }
}

/// Whether an instance is what it should be, and well as far as its node can say.
fn is_done<'a>(state: &'a State, app_env: &'a AppEnv) -> impl FnMut(&Slot, &NodeName) -> bool + use<'a> {
    let revisions = state.revisions(app_env);
    let mut specs = Specs::new(state, app_env);
    move |slot, node| {
        let spec = revisions.at(node).and_then(|revision| specs.of(revision, &slot.service));
        spec.is_some_and(|spec| {
            if state.is_reachable(node) {
                state.is_healthy_as(slot, node, spec)
            } else {
                state.is_assigned(slot, node, spec)
            }
        })
    }
}

/// Whether what is to be restored was asked for since, and the way there failed before it was all there: it stays as it
/// is until somebody asks again.
pub(super) fn is_half_way(
    state: &State,
    past: &State,
    app_env: &AppEnv,
    scope: &Scope,
    held: &[&Scope],
) -> bool {
    let Some((seq, latest)) = state.latest_deployment(app_env) else { return false };
    let went_back = matches!(latest.kind, DeploymentKind::Rollback | DeploymentKind::Undo);
    let is_about_the_same = state.is_of_places(seq, latest) == place_of(scope).is_some();
    if !went_back || !is_about_the_same || seq <= past.seq || !latest.has_failed() {
        return false;
    }
    let covered = |node: &NodeName| {
        let region = state.region_of(node);
        scope.covers_node(node, region) && !held.iter().any(|held| held.covers_node(node, region))
    };
    let mut is_done = is_done(state, app_env);
    let (mut slots, mut are_done) = (0, true);
    for (slot, node) in state.slots(app_env).filter(|(_, node)| covered(node)) {
        slots += 1;
        are_done &= is_done(slot, node);
    }
    // What was to go may be there still.
    let told = state.assigned_to(app_env).filter(|(node, ..)| covered(node)).count();
    !are_done || told != slots
}

/// Why places that are excepted cannot be left as they are: what is in force there has not come to be, so that they would
/// go on with it.
pub(super) fn unfinished(state: &State, app_env: &AppEnv, scope: &Scope, held: &[&Scope]) -> Vec<String> {
    let Some(hold) = state.unsuccessful(app_env).filter(|_| !held.is_empty()) else { return Vec::new() };
    // One that is not healthy would end the rollback.
    let mut is_done = is_done(state, app_env);
    let places = held.iter().filter_map(|scope| place_of(scope)).filter(|place| {
        state.slots(app_env).any(|(slot, node)| {
            let region = state.region_of(node);
            let is_within = covers(place, node, region) && scope.covers_node(node, region);
            is_within && state.pin_at(app_env, node).is_none() && !is_done(slot, node)
        })
    });
    let why = hold.why();
    places
        .map(|place| {
            format!(
                "{place} cannot be left as it is, since {why} and would go on there: roll back other places one by one"
            )
        })
        .collect()
}

type Changes = (Vec<(Slot, Option<NodeName>)>, Vec<Deviation>);

fn restore_slots(
    state: &State,
    past: &State,
    app_env: &AppEnv,
    covered: &dyn Fn(&NodeName) -> bool,
    (growth, pins): (Option<&Growth<'_>>, &BTreeMap<Place, Pin>),
) -> Changes {
    let mut present: BTreeMap<(ServiceName, NodeName), BTreeSet<u32>> = BTreeMap::new();
    let mut result: BTreeMap<Slot, NodeName> = BTreeMap::new();
    for (slot, node) in state.slots(app_env) {
        if covered(node) {
            present.entry((slot.service.clone(), node.clone())).or_default().insert(slot.index);
        } else {
            result.insert(slot.clone(), node.clone());
        }
    }
    let mut missing: Vec<(&Slot, &NodeName)> = Vec::new();
    let revisions = past.revisions(app_env);
    let unfit = |slot: &Slot, node| nodes::unfit(state, past, revisions.service(&slot.service, node), node);
    for (slot, node) in past.slots(app_env).filter(|(_, node)| covered(node)) {
        if unfit(slot, node).is_some() {
            missing.push((slot, node));
            continue;
        }
        let at = present.get_mut(&(slot.service.clone(), node.clone()));
        if at.is_some_and(|indices| indices.remove(&slot.index)) {
            result.insert(slot.clone(), node.clone());
        } else {
            missing.push((slot, node));
        }
    }
    // One of the same service may be on the node already, under another index. All of them come
    // first: what is made anew takes an index that none of them has.
    missing.retain(|(slot, node)| {
        if unfit(slot, node).is_some() {
            return true;
        }
        let at = present.get_mut(&(slot.service.clone(), (*node).clone()));
        let Some(index) = at.and_then(BTreeSet::pop_first) else { return true };
        result.insert(slot.with_index(index), (*node).clone());
        false
    });
    let mut deviations = Vec::new();
    if let Some(growth) = growth {
        let grown = |node: &NodeName, service: &ServiceName| covered(node) && growth.has(service, node);
        let stay = state.slots(app_env).filter(|(slot, node)| grown(node, &slot.service));
        result.extend(stay.map(|(slot, node)| (slot.clone(), node.clone())));
        deviations.extend(growth.told(covered));
    }
    // What stays on a drained node only for the time being leaves it afterwards.
    if growth.is_some() {
        let is_pinned = |node: &NodeName| pins.keys().any(|place| covers(place, node, state.region_of(node)));
        let leaving = result.iter().filter(|(_, node)| covered(node)).filter_map(|(slot, node)| {
            let service = revisions.service(&slot.service, node);
            let why = nodes::closed(state, service, node, (true, is_pinned(node)))?;
            Some(nodes::placed_anew(slot, service, &why))
        });
        deviations.extend(leaving);
    }
    for (slot, node) in missing {
        let mut chosen = Some(node.clone());
        let closed = || nodes::closed(state, None, node, (false, false));
        if let Some(why) = unfit(slot, node).or_else(closed) {
            let service = revisions.service(&slot.service, node);
            chosen =
                service.and_then(|service| another_node(state, &revisions, slot, service, covered, &result));
            let mut deviation = nodes::placed_anew(slot, service, &why);
            if chosen.is_none() {
                deviation.why = format!("{why}, and no other one fits");
            }
            deviations.push(deviation);
        }
        let Some(chosen) = chosen else { continue };
        let taken = |index: u32| result.contains_key(&slot.with_index(index));
        let free = || (0..=u32::MAX).find(|index| !taken(*index));
        let index = if taken(slot.index) { free() } else { Some(slot.index) };
        if let Some(index) = index {
            result.insert(slot.with_index(index), chosen);
        }
    }
    let mut changes: Vec<_> = state
        .slots(app_env)
        .filter(|(slot, _)| !result.contains_key(slot))
        .map(|(slot, _)| (slot.clone(), None))
        .collect();
    changes.extend(
        result
            .into_iter()
            .filter(|(slot, node)| state.target.placement.get(slot) != Some(node))
            .map(|(slot, node)| (slot, Some(node))),
    );
    changes.sort();
    (changes, deviations)
}

/// A node in the place for an instance that cannot be on its own: the one with the fewest of its
/// service, whose ports are free there.
fn another_node(
    state: &State,
    past: &Revisions<'_>,
    slot: &Slot,
    service: &Service,
    covered: &dyn Fn(&NodeName) -> bool,
    placed: &BTreeMap<Slot, NodeName>,
) -> Option<NodeName> {
    if matches!(service.placement, Placement::Every { .. }) {
        // Every node that matches has its own.
        return None;
    }
    let others = state.filled_slots().filter(|(other, ..)| other.app_env != slot.app_env);
    let placed_here = placed.iter().map(|(other, node)| (other, node, past.service(&other.service, node)));
    let held: BTreeSet<(&NodeName, u16, Protocol)> = others
        .chain(placed_here)
        .flat_map(|(_, node, filled)| {
            let ports = filled.into_iter().flat_map(preflight::host_ports);
            ports.map(move |(port, protocol)| (node, port, protocol))
        })
        .collect();
    let has_room = |node: &NodeName| {
        !preflight::host_ports(service).any(|(port, protocol)| held.contains(&(node, port, protocol)))
    };
    state
        .control
        .nodes
        .values()
        .filter(|node| covered(&node.name) && state.is_reachable(&node.name))
        .filter(|node| state.takes(service.placement.nodes(), node))
        .filter(|node| has_room(&node.name))
        .map(|node| {
            let here = placed
                .iter()
                .filter(|(other, at)| other.service == slot.service && **at == node.name)
                .count();
            (here, &node.name)
        })
        .min()
        .map(|(_, name)| name.clone())
}
