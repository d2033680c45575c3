//! Which slots an app has, and on which nodes.
//!
//! What is placed stays: a slot moves only when its node left the fleet, is drained or no
//! longer matches, or when two of them cannot be there together. New slots go where
//! the service is scarcest: by region, then node, then how busy the node is, then
//! name, so that the answer is one. To drain a node takes no replica away, nor its data:
//! one that has no other place stays there until it has, and one that writes to a volume stays.
//!
//! A pinned place keeps the instances it was given, whatever the app's release says of
//! their number, and while there is one, the rest of the app makes up for nothing: a
//! rollback of one region must not start containers in another. The next deployment of
//! the app lifts the pins, and with them all of this.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use stele_model::event::{DeploymentKind, EnrolledNode};
use stele_model::ids::ServiceName;
use stele_model::limits::INSTANCES_PER_NODE_MAX;
use stele_model::release::{Placement, Port, Service};
use stele_model::wire::Phase;
use stele_model::{AppEnv, NodeName, RegionName, Slot, State};

use crate::clashes::{Clashes, Others};
use crate::limits::NODES_NAMED_MAX;
use crate::ports::host_ports;

/// A slot for which no node fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unplaced {
    /// Which.
    pub slot: Slot,
    /// Why.
    pub reason: String,
}

/// Slots to set or clear, and a slot that has no node.
type Change = (Slot, Option<NodeName>);

/// How an app is to be placed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placing {
    /// What must change.
    pub changes: Vec<Change>,
    /// A slot for which no node fits.
    pub unplaced: Option<Unplaced>,
    /// Slots that stay on a drained node because no other fits: the first of each service.
    pub kept: Vec<Unplaced>,
}

/// What must change so that an app is placed as its release says.
pub fn place(state: &State, app_env: &AppEnv) -> Placing {
    // First what stays, for all services, so that new slots see every port in use.
    let revisions = state.revisions(app_env);
    let mut clashes = Clashes::new(state, app_env);
    let (staying, leaving): (Vec<Placed<'_>>, Vec<_>) = state
        .slots(app_env)
        .map(|(slot, node)| Placed { slot, node, service: revisions.service(&slot.service, node) })
        .partition(|placed| {
            // What is rolled back in one place moves nothing in another.
            stays(state, placed) && (revisions.is_pinned() || !clashes.with(placed))
        });
    let mut evicted: BTreeMap<&ServiceName, Vec<Evicted<'_>>> = BTreeMap::new();
    for it in evicted_of(state, app_env, &leaving) {
        if revisions.is_pinned() || !clashes.with(it.placed) {
            evicted.entry(&it.placed.slot.service).or_default().push(it);
        }
    }
    let mut unplaced = None;
    let mut added = BTreeMap::new();
    let mut waiting = BTreeSet::new();
    // Most looks find nothing to place; only a new slot needs to know every other app's.
    let mut room = None;
    let services = || revisions.everywhere().into_iter().flat_map(|release| &release.services);
    for (name, service) in services() {
        let sheltered = evicted.get(name).map_or(&[][..], Vec::as_slice);
        let homeless = homeless(state, app_env, (name, service), &leaving, sheltered);
        let count = (homeless.len(), sheltered.len());
        let lacking = lacks(state, app_env, (name, service), revisions.is_pinned(), &staying, count);
        if lacking == 0 {
            unplaced = unplaced.or_else(|| vanishing(state, app_env, (name, service)));
            continue;
        }
        let room = room.get_or_insert_with(|| Room::new(state, app_env, &staying, &leaving));
        let (slots, without) = add(state, app_env, (name, service, lacking), &staying, sheltered, room);
        if revisions.is_pinned() {
            let left = homeless.into_iter().filter(|slot| !slots.contains_key(slot));
            waiting.extend(left.take(lacking.saturating_sub(slots.len())));
        }
        added.extend(slots);
        unplaced = unplaced.or(without);
    }
    // What has a place for the time being comes after all that has none.
    let mut kept = Vec::new();
    for (name, service) in services() {
        let Some(evicted) = evicted.remove(name) else { continue };
        let room = room.get_or_insert_with(|| Room::new(state, app_env, &staying, &leaving));
        let placed = staying.iter().filter(|placed| placed.slot.service == *name);
        let new = added.iter().filter(|(slot, _)| slot.service == *name).map(|(_, node)| node.clone());
        let taken: Vec<NodeName> = placed.map(|placed| placed.node.clone()).chain(new).collect();
        let turns = turns(state, app_env, (name, service), &staying);
        let moved = relocate(state, app_env, service, evicted, (&taken, turns), room);
        added.extend(moved.slots);
        kept.extend(moved.kept);
    }
    let left = leaving.iter().filter(|placed| !added.contains_key(placed.slot));
    let left = left.filter(|placed| !waiting.contains(placed.slot));
    let cleared: Vec<_> = left.map(|placed| (placed.slot.clone(), None)).collect();
    let is_new = |(slot, node): &(Slot, NodeName)| state.target.placement.get(slot) != Some(node);
    let set = added.into_iter().filter(is_new).map(|(slot, node)| (slot, Some(node)));
    Placing { changes: set.chain(cleared).collect(), unplaced, kept }
}

/// A slot as it is.
pub(crate) struct Placed<'a> {
    pub(crate) slot: &'a Slot,
    pub(crate) node: &'a NodeName,
    /// What fills it; absent when nothing should.
    pub(crate) service: Option<&'a Service>,
}

fn is_pinned(state: &State, app_env: &AppEnv, node: &NodeName) -> bool {
    state.pin_at(app_env, node).is_some()
}

/// Whether a slot stays where it is.
fn stays(state: &State, placed: &Placed<'_>) -> bool {
    let Some(service) = placed.service else { return false };
    let Some(enrolled) = state.control.nodes.get(placed.node) else { return false };
    let counts = match service.placement {
        Placement::Replicas { count, .. } => placed.slot.index < count,
        Placement::Every { .. } => true,
    };
    may_be_on(state, service, enrolled)
        && ((counts && !is_driven_out(state, service, placed))
            || is_pinned(state, &placed.slot.app_env, placed.node))
}

/// Whether what is on a node is to leave it, since it is drained.
fn is_driven_out(state: &State, service: &Service, placed: &Placed<'_>) -> bool {
    let is_there = || state.assigned_in(placed.slot, placed.node).next().is_some();
    state.is_drained(placed.node)
        && !(service.leaves_data_behind() && is_there())
        && !is_done(state, placed.slot, placed.node)
}

/// Whether what a slot has on a node ran to its end: elsewhere it would do so once more.
pub(crate) fn is_done(state: &State, slot: &Slot, node: &NodeName) -> bool {
    let has_ended = |id| state.report_of(node, id).is_some_and(|report| report.phase == Phase::Completed);
    state.assigned_in(slot, node).any(|(id, _)| has_ended(id))
}

fn may_be_on(state: &State, service: &Service, node: &EnrolledNode) -> bool {
    state.selects(service.placement.nodes(), node)
}

/// Whether a slot is where an instance may be. While places of its app are pinned, one that may not waits there for a
/// node: nothing else would say that there is one to be placed.
pub(crate) fn has_home(state: &State, service: &Service, slot: &Slot, node: &NodeName) -> bool {
    let may_stay = || {
        !state.is_drained(node)
            || is_pinned(state, &slot.app_env, node)
            || state.assigned_in(slot, node).next().is_some()
    };
    state.control.nodes.get(node).is_some_and(|node| may_be_on(state, service, node)) && may_stay()
}

/// The replicas of a service that lost their node outside of pinned places, but for those that are on a drained one.
fn homeless<'a>(
    state: &State,
    app_env: &AppEnv,
    (name, service): (&ServiceName, &Service),
    leaving: &[Placed<'a>],
    sheltered: &[Evicted<'_>],
) -> Vec<&'a Slot> {
    let Placement::Replicas { count, .. } = service.placement else { return Vec::new() };
    leaving
        .iter()
        .filter(|placed| placed.slot.service == *name && placed.slot.index < count)
        .filter(|placed| !is_pinned(state, app_env, placed.node))
        .map(|placed| placed.slot)
        .filter(|slot| !sheltered.iter().any(|it| it.placed.slot == *slot))
        .collect()
}

/// A replica that is to leave a drained node, and has something where it is.
struct Evicted<'a> {
    placed: &'a Placed<'a>,
    /// Where it stays until it has another place: a drained node, too, or the one that it left for it.
    shelter: &'a NodeName,
    /// Whether it serves there.
    serves: bool,
}

/// The replicas that are to leave drained nodes.
fn evicted_of<'a>(state: &'a State, app_env: &AppEnv, leaving: &'a [Placed<'a>]) -> Vec<Evicted<'a>> {
    let is_driven_out = |placed: &&Placed<'_>| {
        let Some(service) = placed.service else { return false };
        let Placement::Replicas { count, .. } = service.placement else { return false };
        placed.slot.index < count
            && state.is_drained(placed.node)
            && !is_pinned(state, app_env, placed.node)
            && state.control.nodes.get(placed.node).is_some_and(|node| may_be_on(state, service, node))
    };
    let driven_out: Vec<_> = leaving.iter().filter(is_driven_out).collect();
    if driven_out.is_empty() {
        return Vec::new();
    }
    let mut told: BTreeMap<&Slot, Vec<(bool, &NodeName)>> = BTreeMap::new();
    for (node, id, _) in state.assigned_to(app_env) {
        told.entry(&id.slot).or_default().push((state.is_healthy(node, id), node));
    }
    let evicted = driven_out.into_iter().filter_map(|placed| {
        let service = placed.service?;
        let may_stay = |node: &NodeName| {
            state.control.nodes.get(node).is_some_and(|node| may_be_on(state, service, node))
        };
        let there = told.get(placed.slot)?.iter().filter(|(_, node)| may_stay(node));
        // Where it serves, and rather where it is to be.
        let (serves, shelter) = there.max_by_key(|(serves, node)| (*serves, *node == placed.node))?;
        Some(Evicted { placed, shelter, serves: *serves })
    });
    evicted.collect()
}

/// How many replicas of a service that serve may begin to leave drained nodes now. None at all while nothing of the app
/// changes.
fn turns(
    state: &State,
    app_env: &AppEnv,
    (name, service): (&ServiceName, &Service),
    staying: &[Placed<'_>],
) -> Option<usize> {
    let has_failed = state.latest_deployment(app_env).is_some_and(|(_, latest)| latest.has_failed());
    if has_failed || state.hold(app_env).is_some() {
        return None;
    }
    if state.running_deployment(app_env).is_some_and(|(_, deployment)| deployment.now) {
        return Some(usize::MAX);
    }
    let is_busy = |placed: &&Placed<'_>| {
        let mut there = state.assigned_in(placed.slot, placed.node);
        state.is_reachable(placed.node) && !there.any(|(id, _)| state.is_healthy(placed.node, id))
    };
    let mine = staying.iter().filter(|placed| placed.slot.service == *name);
    let busy = mine.filter(is_busy).count();
    Some((service.update.max_unavailable as usize).saturating_sub(busy))
}

/// Where evicted replicas of a service are to be.
struct Relocated {
    slots: BTreeMap<Slot, NodeName>,
    /// The first that stays because no node fits.
    kept: Option<Unplaced>,
}

/// Moves replicas off drained nodes, as many as have their turn; the others stay where they are.
fn relocate(
    state: &State,
    app_env: &AppEnv,
    service: &Service,
    mut evicted: Vec<Evicted<'_>>,
    (taken, turns): (&[NodeName], Option<usize>),
    room: &mut Room<'_>,
) -> Relocated {
    let matching: Vec<_> = open_nodes(state, app_env, service).collect();
    let mut choices = Choices::new(state, fit(state, service, &matching, room), taken.iter(), room);
    let mut left = turns.unwrap_or_default();
    let mut relocated = Relocated { slots: BTreeMap::new(), kept: None };
    // To move what serves nobody takes nothing away.
    evicted.sort_by_key(|it| it.serves);
    for Evicted { placed, shelter, serves } in evicted {
        let has_turn = turns.is_some() && (!serves || left > 0);
        let best = choices.best().filter(|_| has_turn);
        match best {
            None if has_turn && planted!(DrainTakesAway) => {}
            Some(node) => {
                room.take(node, service, placed.slot);
                choices.take(node, room.busy(node), room.conflict(node, service).is_none());
                left = left.saturating_sub(usize::from(serves));
                relocated.slots.insert(placed.slot.clone(), node.clone());
            }
            None => {
                if has_turn {
                    let reason = || why_not(state, service, &matching, room);
                    let kept = || Unplaced { slot: placed.slot.clone(), reason: reason() };
                    relocated.kept.get_or_insert_with(kept);
                }
                relocated.slots.insert(placed.slot.clone(), shelter.clone());
            }
        }
    }
    relocated
}

/// A slot of a service that would come to an end by a deployment, because it is to run on every node that matches and
/// none does: that is a mistyped label more often than what somebody wants, and would look like success. Who goes back
/// is told beforehand.
fn vanishing(state: &State, app_env: &AppEnv, (name, service): (&ServiceName, &Service)) -> Option<Unplaced> {
    let Placement::Every { nodes } = &service.placement else { return None };
    let (_, deployment) = state.running_deployment(app_env)?;
    if matches!(deployment.kind, DeploymentKind::Rollback | DeploymentKind::Undo) {
        return None;
    }
    let is_matched = || state.control.nodes.values().any(|node| state.selects(nodes, node));
    let mut told = state.assigned_to(app_env);
    let mut is_there = || told.any(|(_, id, _)| id.slot.service == *name);
    (!is_matched() && is_there()).then(|| Unplaced {
        slot: Slot::new(app_env.clone(), name.clone(), 0),
        reason: format!("no node matches {:?}, and what runs would be stopped", nodes.to_string()),
    })
}

/// How many slots a service has too few.
fn lacks(
    state: &State,
    app_env: &AppEnv,
    (name, service): (&ServiceName, &Service),
    has_pins: bool,
    staying: &[Placed<'_>],
    (homeless, sheltered): (usize, usize),
) -> usize {
    let mine = staying.iter().filter(|placed| placed.slot.service == *name);
    match &service.placement {
        Placement::Replicas { count, .. } if !has_pins => {
            (*count as usize).saturating_sub(mine.count() + sheltered)
        }
        // Only what lost its node is placed anew.
        Placement::Replicas { .. } => homeless,
        Placement::Every { .. } => {
            let has: BTreeSet<_> = mine.map(|placed| placed.node).collect();
            open_nodes(state, app_env, service).filter(|node| !has.contains(&node.name)).count()
        }
    }
}

/// Nodes where new instances of a service may go.
fn open_nodes<'a>(
    state: &'a State,
    app_env: &AppEnv,
    service: &Service,
) -> impl Iterator<Item = &'a Arc<EnrolledNode>> {
    state
        .control
        .nodes
        .values()
        .filter(|node| {
            let nodes = service.placement.nodes();
            state.takes(nodes, node) || (planted!(DrainForgotten) && state.selects(nodes, node))
        })
        .filter(|node| !is_pinned(state, app_env, &node.name))
}

/// Nodes where one more of a service has room.
fn fit<'a>(
    state: &State,
    service: &Service,
    matching: &[&'a Arc<EnrolledNode>],
    room: &Room<'_>,
) -> Vec<&'a EnrolledNode> {
    let has_room = |node: &&&Arc<EnrolledNode>| {
        state.is_reachable(&node.name) && room.conflict(&node.name, service).is_none()
    };
    matching.iter().filter(has_room).copied().map(AsRef::as_ref).collect()
}

/// Slots a service still lacks.
fn add(
    state: &State,
    app_env: &AppEnv,
    (name, service, lacking): (&ServiceName, &Service, usize),
    staying: &[Placed<'_>],
    sheltered: &[Evicted<'_>],
    room: &mut Room<'_>,
) -> (BTreeMap<Slot, NodeName>, Option<Unplaced>) {
    let slot = |index| Slot::new(app_env.clone(), name.clone(), index);
    let mine = staying.iter().filter(|placed| placed.slot.service == *name);
    let taken: BTreeMap<u32, &NodeName> = mine.map(|placed| (placed.slot.index, placed.node)).collect();
    let matching: Vec<_> = open_nodes(state, app_env, service).collect();
    let mut added = BTreeMap::new();
    match service.placement {
        Placement::Every { .. } => {
            let has: BTreeSet<_> = taken.values().copied().collect();
            let mut free = (0..).filter(|index| !taken.contains_key(index));
            let mut without = Vec::new();
            for node in matching.iter().filter(|node| !has.contains(&node.name)) {
                let Some(index) = free.next() else { break };
                if let Some(why) = room.conflict(&node.name, service) {
                    without.push((slot(index), format!("{}: {why}", node.name)));
                    continue;
                }
                room.take(&node.name, service, &slot(index));
                added.insert(slot(index), node.name.clone());
            }
            let unplaced = without.first().map(|(slot, _)| {
                let why = named(without.iter().map(|(_, why)| why.clone()), without.len());
                Unplaced { slot: slot.clone(), reason: format!("not every matching node has room ({why})") }
            });
            (added, unplaced)
        }
        Placement::Replicas { count, .. } => {
            let fit = fit(state, service, &matching, room);
            let mut choices = Choices::new(state, fit, taken.values().copied(), room);
            let is_sheltered = |index: &u32| sheltered.iter().any(|it| it.placed.slot.index == *index);
            let free = (0..count).filter(|index| !taken.contains_key(index) && !is_sheltered(index));
            for index in free.take(lacking) {
                let Some(node) = choices.best() else {
                    let reason = why_not(state, service, &matching, room);
                    return (added, Some(Unplaced { slot: slot(index), reason }));
                };
                room.take(node, service, &slot(index));
                choices.take(node, room.busy(node), room.conflict(node, service).is_none());
                added.insert(slot(index), node.clone());
            }
            (added, None)
        }
    }
}

fn why_not(state: &State, service: &Service, matching: &[&Arc<EnrolledNode>], room: &Room<'_>) -> String {
    if state.control.nodes.is_empty() {
        return "the fleet has no node; `stele node token` lets one join".to_owned();
    }
    if matching.is_empty() {
        let nodes = service.placement.nodes();
        let is_matched = state.control.nodes.values().any(|node| state.selects(nodes, node));
        return match is_matched {
            true if nodes.is_any() => "every node is drained or pinned".to_owned(),
            true => format!("every node that matches {:?} is drained or pinned", nodes.to_string()),
            false => format!("no node matches {:?}", nodes.to_string()),
        };
    }
    let reasons = matching.iter().map(|node| {
        let why = if state.is_reachable(&node.name) {
            room.conflict(&node.name, service).unwrap_or_else(|| "it has room".to_owned())
        } else {
            "it is lost".to_owned()
        };
        format!("{}: {why}", node.name)
    });
    format!("no matching node has room ({})", named(reasons, matching.len()))
}

/// The first few reasons, and how many others there are.
fn named(reasons: impl Iterator<Item = String>, count: usize) -> String {
    let reasons: Vec<_> = reasons.take(NODES_NAMED_MAX).collect();
    let others = match count - reasons.len() {
        0 => String::new(),
        others => format!("; and {others} others"),
    };
    format!("{}{others}", reasons.join("; "))
}

/// The nodes a service may go to, in the order in which they are chosen: by how often it stands in their
/// region, then on them, then by how busy they are, then by name.
struct Choices<'a> {
    regions: BTreeMap<&'a RegionName, Region<'a>>,
    region_of: BTreeMap<&'a NodeName, (&'a RegionName, Rank)>,
}

/// How often the service stands on a node, and how many slots the node has.
type Rank = (usize, usize);

#[derive(Default)]
struct Region<'a> {
    /// How often the service stands in it.
    count: usize,
    nodes: BTreeSet<(Rank, &'a NodeName)>,
}

impl<'a> Choices<'a> {
    fn new(
        state: &State,
        fit: Vec<&'a EnrolledNode>,
        taken: impl Iterator<Item = &'a NodeName>,
        room: &Room<'_>,
    ) -> Self {
        let mut counts: BTreeMap<&NodeName, usize> = BTreeMap::new();
        for node in taken {
            *counts.entry(node).or_default() += 1;
        }
        let mut choices = Self { regions: BTreeMap::new(), region_of: BTreeMap::new() };
        for node in fit {
            let rank = (counts.get(&node.name).copied().unwrap_or(0), room.busy(&node.name));
            choices.regions.entry(&node.region).or_default().nodes.insert((rank, &node.name));
            choices.region_of.insert(&node.name, (&node.region, rank));
        }
        for (node, count) in counts {
            let region = state.region_of(node).and_then(|region| choices.regions.get_mut(region));
            if let Some(region) = region {
                region.count += count;
            }
        }
        choices
    }

    fn best(&self) -> Option<&'a NodeName> {
        let best = |region: &Region<'a>| Some((region.count, *region.nodes.first()?));
        self.regions.values().filter_map(best).min().map(|(_, (_, node))| node)
    }

    /// Counts one more on a node, which is so busy now, and may have no room for another.
    fn take(&mut self, node: &'a NodeName, busy: usize, has_room: bool) {
        let Some((name, rank)) = self.region_of.get_mut(node) else { return };
        let Some(region) = self.regions.get_mut(*name) else { return };
        region.nodes.remove(&(*rank, node));
        region.count += 1;
        *rank = (rank.0 + 1, busy);
        if has_room {
            region.nodes.insert((*rank, node));
        }
    }
}

/// What is used on each node by every app's slots.
struct Room<'a> {
    /// How many slots each node has.
    busy: OrdMap<NodeName, usize>,
    /// The same without those that leave.
    full: OrdMap<NodeName, usize>,
    /// Ports of other apps, which only a service that wants some needs to know.
    others: Others<'a>,
    /// Ports of the app's own, those taken since included.
    taken: BTreeMap<(NodeName, Port), Slot>,
}

impl<'a> Room<'a> {
    fn new(state: &'a State, app_env: &'a AppEnv, staying: &[Placed<'_>], leaving: &[Placed<'_>]) -> Self {
        let busy = state.slots_per_node();
        let mut full = busy.clone();
        for placed in leaving {
            let count = full.entry(placed.node.clone()).or_default();
            *count = count.saturating_sub(1);
        }
        let others = Others::new(state, app_env, None);
        let mut room = Self { busy, full, others, taken: BTreeMap::new() };
        for placed in staying {
            if let Some(service) = placed.service {
                room.take_ports(placed.node, service, placed.slot);
            }
        }
        room
    }

    fn take_ports(&mut self, node: &NodeName, service: &Service, slot: &Slot) {
        for port in host_ports(service) {
            self.taken.entry((node.clone(), port)).or_insert_with(|| slot.clone());
        }
    }

    /// Takes what a slot needs that was not on the node.
    fn take(&mut self, node: &NodeName, service: &Service, slot: &Slot) {
        self.take_ports(node, service, slot);
        *self.full.entry(node.clone()).or_default() += 1;
        if !self.others.state.target.placement.contains_key(slot) {
            *self.busy.entry(node.clone()).or_default() += 1;
        }
    }

    /// Why a service cannot be on a node.
    fn conflict(&self, node: &NodeName, service: &Service) -> Option<String> {
        if self.full.get(node).is_some_and(|count| *count >= INSTANCES_PER_NODE_MAX) {
            return Some(format!("it has {INSTANCES_PER_NODE_MAX} instances, the most it may have"));
        }
        host_ports(service).find_map(|port| {
            let number = port.host.unwrap_or_default();
            let own = || self.taken.get(&(node.clone(), port.clone()));
            let holder = self.others.holder(node, &port).or_else(own)?;
            Some(format!("port {number} is {holder}'s"))
        })
    }

    fn busy(&self, node: &NodeName) -> usize {
        self.busy.get(node).copied().unwrap_or(0)
    }
}
