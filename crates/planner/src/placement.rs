//! Which slots an app has, and on which nodes.
//!
//! What is placed stays: a slot moves only when its node left the fleet or no
//! longer matches. New slots go where the service is scarcest: by region, then
//! node, then how busy the node is, then name, so that the answer is one.

use std::collections::{BTreeMap, BTreeSet};

use stele_model::event::EnrolledNode;
use stele_model::ids::ServiceName;
use stele_model::release::{Placement, Port, Service};
use stele_model::{AppEnv, NodeName, RegionName, Selector, Slot, State};

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
    let services = state
        .target
        .intent
        .get(app_env)
        .and_then(|revision| state.history.releases.get(&revision.release))
        .map(|record| &record.release.services);
    let Some(services) = services else {
        return (present.into_keys().map(|slot| (slot, None)).collect(), None);
    };
    let mut unplaced = None;
    let mut wanted: BTreeMap<Slot, NodeName> = BTreeMap::new();
    // First what stays, for all services, so that new slots see every port in use.
    for (name, service) in services {
        wanted.extend(keep(state, &present, name, service));
    }
    let lacking: Vec<_> =
        services.iter().filter(|(name, service)| lacks(state, name, service, &wanted)).collect();
    // Most looks find nothing to place; only a new slot needs to know every other app's.
    if !lacking.is_empty() {
        let mut room = Room::new(state);
        for (slot, node) in &wanted {
            if let Some(service) = services.get(&slot.service) {
                room.take(node, service, slot);
            }
        }
        for (name, service) in lacking {
            let added = add(state, app_env, name, service, &wanted, &mut room);
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

fn selector(service: &Service) -> &Selector {
    match &service.placement {
        Placement::Replicas { nodes, .. } | Placement::Every { nodes } => nodes,
    }
}

/// Slots of a service that stay where they are.
fn keep(
    state: &State,
    present: &BTreeMap<Slot, NodeName>,
    name: &ServiceName,
    service: &Service,
) -> BTreeMap<Slot, NodeName> {
    present
        .iter()
        .filter(|(slot, _)| slot.service == *name)
        .filter(|(slot, _)| match service.placement {
            Placement::Replicas { count, .. } => slot.index < count,
            Placement::Every { .. } => true,
        })
        .filter(|(_, node)| {
            let node = state.control.nodes.get(*node);
            node.is_some_and(|node| selector(service).matches(&state.node_labels(node)))
        })
        .map(|(slot, node)| (slot.clone(), node.clone()))
        .collect()
}

/// Whether a service has fewer slots than it should.
fn lacks(state: &State, name: &ServiceName, service: &Service, wanted: &BTreeMap<Slot, NodeName>) -> bool {
    let has = wanted.keys().filter(|slot| slot.service == *name).count();
    let should = match &service.placement {
        Placement::Replicas { count, .. } => *count as usize,
        Placement::Every { nodes } => {
            let nodes = state.control.nodes.values().filter(|node| nodes.matches(&state.node_labels(node)));
            nodes.count()
        }
    };
    has < should
}

/// Slots a service still lacks.
fn add(
    state: &State,
    app_env: &AppEnv,
    name: &ServiceName,
    service: &Service,
    wanted: &BTreeMap<Slot, NodeName>,
    room: &mut Room<'_>,
) -> (BTreeMap<Slot, NodeName>, Option<Unplaced>) {
    let slot = |index| Slot { app_env: app_env.clone(), service: name.clone(), index };
    let taken: BTreeMap<u32, &NodeName> = wanted
        .iter()
        .filter(|(slot, _)| slot.service == *name)
        .map(|(slot, node)| (slot.index, node))
        .collect();
    let matching: Vec<_> = state
        .control
        .nodes
        .values()
        .filter(|node| selector(service).matches(&state.node_labels(node)))
        .collect();
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
            for index in (0..count).filter(|index| !taken.contains_key(index)) {
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

fn why_not(
    state: &State,
    service: &Service,
    matching: &[&std::sync::Arc<EnrolledNode>],
    room: &Room<'_>,
) -> String {
    if state.control.nodes.is_empty() {
        return "the fleet has no node; `stele node token` lets one join".to_owned();
    }
    if matching.is_empty() {
        return format!("no node matches {:?}", selector(service).to_string());
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
            let service = state
                .target
                .intent
                .get(&slot.app_env)
                .and_then(|revision| state.history.releases.get(&revision.release))
                .and_then(|record| record.release.services.get(&slot.service));
            if let Some(service) = service {
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
