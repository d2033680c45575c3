//! Which slots an app has, and on which nodes.
//!
//! What is placed stays: a slot moves only when its node left the fleet or no
//! longer matches. New slots go where the service is scarcest: by region, then
//! node, then how busy the node is, then name, so that the answer is one.
//!
//! A pinned place keeps the instances it was given, whatever the app's release says of
//! their number, and while there is one, the rest of the app makes up for nothing: a
//! rollback of one region must not start containers in another. The next deployment of
//! the app lifts the pins, and with them all of this.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stele_model::event::EnrolledNode;
use stele_model::ids::ServiceName;
use stele_model::release::{Placement, Port, Service};
use stele_model::{AppEnv, NodeName, RegionName, Slot, State};

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

/// What must change so that an app is placed as its release says.
pub fn place(state: &State, app_env: &AppEnv) -> (Vec<Change>, Option<Unplaced>) {
    let present: BTreeMap<Slot, NodeName> =
        state.slots(app_env).map(|(slot, node)| (slot.clone(), node.clone())).collect();
    let mut unplaced = None;
    // First what stays, for all services, so that new slots see every port in use.
    let mut wanted: BTreeMap<Slot, NodeName> = present
        .iter()
        .filter(|(slot, node)| stays(state, slot, node))
        .map(|(slot, node)| (slot.clone(), node.clone()))
        .collect();
    let services = services_of(state, app_env);
    let lacking: Vec<_> = services
        .iter()
        .map(|(name, service)| (name, service, lacks(state, app_env, name, service, &present, &wanted)))
        .filter(|(.., count)| *count > 0)
        .collect();
    // Most looks find nothing to place; only a new slot needs to know every other app's.
    if !lacking.is_empty() {
        let mut room = Room::new(state);
        for (slot, node) in &wanted {
            if let Some(service) = service_at(state, slot, node) {
                room.take(node, service, slot);
            }
        }
        for (name, service, count) in lacking {
            let added = add(state, app_env, (name, service, count), &wanted, &mut room);
            wanted.extend(added.0);
            unplaced = unplaced.or(added.1);
        }
    }
    let mut changes: Vec<Change> = wanted
        .iter()
        .filter(|(slot, node)| present.get(slot) != Some(node))
        .map(|(slot, node)| (slot.clone(), Some(node.clone())))
        .collect();
    changes.extend(present.into_keys().filter(|slot| !wanted.contains_key(slot)).map(|slot| (slot, None)));
    (changes, unplaced)
}

/// The services of what is in force wherever no place is pinned.
fn services_of<'a>(state: &'a State, app_env: &AppEnv) -> &'a BTreeMap<ServiceName, Service> {
    static NONE: BTreeMap<ServiceName, Service> = BTreeMap::new();
    let revision = state.target.intent.get(app_env);
    let record = revision.and_then(|revision| state.history.releases.get(&revision.release));
    record.map_or(&NONE, |record| &record.release.services)
}

/// The apps whose instances may have to move when a node's labels change: those that say which
/// nodes they want, and those whose pinned places may.
pub(crate) fn choosing_by_labels(state: &State) -> impl Iterator<Item = &AppEnv> {
    state.target.intent.keys().filter(move |app_env| {
        let chooses = services_of(state, app_env).values().any(|service| !service.placement.nodes().is_any());
        chooses || state.pins(app_env).next().is_some()
    })
}

/// What fills a slot on a node: of the revision in force there.
fn service_at<'a>(state: &'a State, slot: &Slot, node: &NodeName) -> Option<&'a Service> {
    let revision = state.revision_at(&slot.app_env, node)?;
    state.history.releases.get(&revision.release)?.release.services.get(&slot.service)
}

fn is_pinned(state: &State, app_env: &AppEnv, node: &NodeName) -> bool {
    state.pin_at(app_env, node).is_some()
}

/// Whether a slot stays where it is.
fn stays(state: &State, slot: &Slot, node: &NodeName) -> bool {
    let Some(service) = service_at(state, slot, node) else { return false };
    let Some(enrolled) = state.control.nodes.get(node) else { return false };
    let counts = match service.placement {
        Placement::Replicas { count, .. } => slot.index < count,
        Placement::Every { .. } => true,
    };
    state.selects(service.placement.nodes(), enrolled) && (counts || is_pinned(state, &slot.app_env, node))
}

/// How many slots a service has too few.
fn lacks(
    state: &State,
    app_env: &AppEnv,
    name: &ServiceName,
    service: &Service,
    present: &BTreeMap<Slot, NodeName>,
    wanted: &BTreeMap<Slot, NodeName>,
) -> usize {
    let mine = |slots: &BTreeMap<Slot, NodeName>| slots.keys().filter(|slot| slot.service == *name).count();
    match &service.placement {
        Placement::Replicas { count, .. } if state.pins(app_env).next().is_none() => {
            (*count as usize).saturating_sub(mine(wanted))
        }
        // Only what lost its node is placed anew.
        Placement::Replicas { count, .. } => {
            let lost = |(slot, node): &(&Slot, &NodeName)| {
                slot.service == *name
                    && slot.index < *count
                    && !wanted.contains_key(*slot)
                    && !is_pinned(state, app_env, node)
            };
            present.iter().filter(lost).count()
        }
        Placement::Every { .. } => {
            let has: BTreeSet<_> =
                wanted.iter().filter(|(slot, _)| slot.service == *name).map(|(_, node)| node).collect();
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
        .filter(|node| state.selects(service.placement.nodes(), node))
        .filter(|node| !is_pinned(state, app_env, &node.name))
}

/// Slots a service still lacks.
fn add(
    state: &State,
    app_env: &AppEnv,
    (name, service, lacking): (&ServiceName, &Service, usize),
    wanted: &BTreeMap<Slot, NodeName>,
    room: &mut Room<'_>,
) -> (BTreeMap<Slot, NodeName>, Option<Unplaced>) {
    let slot = |index| Slot { app_env: app_env.clone(), service: name.clone(), index };
    let taken: BTreeMap<u32, &NodeName> = wanted
        .iter()
        .filter(|(slot, _)| slot.service == *name)
        .map(|(slot, node)| (slot.index, node))
        .collect();
    let matching: Vec<_> = open_nodes(state, app_env, service).collect();
    let mut added = BTreeMap::new();
    match service.placement {
        Placement::Every { .. } => {
            let has: BTreeSet<_> = taken.values().copied().collect();
            let mut free = (0..).filter(|index| !taken.contains_key(index));
            for node in matching.iter().filter(|node| !has.contains(&node.name)) {
                let Some(index) = free.next() else { break };
                if room.conflict(&node.name, service).is_none() {
                    room.take(&node.name, service, &slot(index));
                    added.insert(slot(index), node.name.clone());
                }
            }
            (added, None)
        }
        Placement::Replicas { count, .. } => {
            let mut spread = Spread::new(state, taken.values().copied());
            for index in (0..count).filter(|index| !taken.contains_key(index)).take(lacking) {
                let choice = matching
                    .iter()
                    .filter(|node| state.is_reachable(&node.name))
                    .filter(|node| room.conflict(&node.name, service).is_none())
                    .min_by_key(|node| (spread.key(node), room.busy(&node.name), &node.name));
                let Some(node) = choice else {
                    let reason = why_not(state, service, &matching, room);
                    return (added, Some(Unplaced { slot: slot(index), reason }));
                };
                room.take(&node.name, service, &slot(index));
                spread.count(node);
                added.insert(slot(index), node.name.clone());
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
        return format!("no node matches {:?}", service.placement.nodes().to_string());
    }
    let reasons: Vec<_> = matching
        .iter()
        .map(|node| {
            let why = if state.is_reachable(&node.name) {
                room.conflict(&node.name, service).unwrap_or_else(|| "it has room".to_owned())
            } else {
                "it is lost".to_owned()
            };
            format!("{}: {why}", node.name)
        })
        .collect();
    format!("no matching node has room ({})", reasons.join("; "))
}

/// How often a service stands in each region and on each node.
struct Spread {
    regions: BTreeMap<RegionName, usize>,
    nodes: BTreeMap<NodeName, usize>,
}

impl Spread {
    fn new<'a>(state: &State, taken: impl Iterator<Item = &'a NodeName>) -> Self {
        let mut spread = Self { regions: BTreeMap::new(), nodes: BTreeMap::new() };
        for node in taken {
            if let Some(node) = state.control.nodes.get(node) {
                spread.count(node);
            }
        }
        spread
    }

    fn count(&mut self, node: &EnrolledNode) {
        *self.regions.entry(node.region.clone()).or_default() += 1;
        *self.nodes.entry(node.name.clone()).or_default() += 1;
    }

    fn key(&self, node: &EnrolledNode) -> (usize, usize) {
        let regions = self.regions.get(&node.region).copied().unwrap_or(0);
        (regions, self.nodes.get(&node.name).copied().unwrap_or(0))
    }
}

/// What is used on each node by every app's slots.
struct Room<'a> {
    state: &'a State,
    ports: BTreeMap<(NodeName, Port), Slot>,
    busy: BTreeMap<NodeName, usize>,
}

/// A port as it is contended for: the host's side.
fn host_ports(service: &Service) -> impl Iterator<Item = Port> {
    service
        .container
        .ports
        .iter()
        .filter(|port| port.host.is_some())
        .map(|port| Port { container: 0, ..port.clone() })
}

impl<'a> Room<'a> {
    fn new(state: &'a State) -> Self {
        let mut room = Self { state, ports: BTreeMap::new(), busy: BTreeMap::new() };
        for (slot, node) in &state.target.placement {
            *room.busy.entry(node.clone()).or_default() += 1;
            if let Some(service) = service_at(state, slot, node) {
                room.take(node, service, slot);
            }
        }
        room
    }

    fn take(&mut self, node: &NodeName, service: &Service, slot: &Slot) {
        for port in host_ports(service) {
            self.ports.entry((node.clone(), port)).or_insert_with(|| slot.clone());
        }
        if !self.state.target.placement.contains_key(slot) {
            *self.busy.entry(node.clone()).or_default() += 1;
        }
    }

    /// Why a service cannot be on a node.
    fn conflict(&self, node: &NodeName, service: &Service) -> Option<String> {
        host_ports(service).find_map(|port| {
            let holder = self.ports.get(&(node.clone(), port.clone()))?;
            Some(format!("port {} is {holder}'s", port.host.unwrap_or_default()))
        })
    }

    fn busy(&self, node: &NodeName) -> usize {
        self.busy.get(node).copied().unwrap_or(0)
    }
}
