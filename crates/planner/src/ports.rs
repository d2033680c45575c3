//! Who holds the host ports of a node: of two containers that publish one, the second cannot start.

use std::collections::BTreeMap;

use stele_model::ids::ServiceName;
use stele_model::release::{Port, Service};
use stele_model::state::AssignedTo;
use stele_model::wire::Phase;
use stele_model::{Digest, InstanceId, NodeName, State, Time};

/// A port as it is contended for: the host's side.
pub(crate) fn host_ports(service: &Service) -> impl Iterator<Item = Port> {
    service
        .container
        .ports
        .iter()
        .filter(|port| port.host.is_some())
        .map(|port| Port { container: 0, ..port.clone() })
}

/// What instances are made of, each looked up once: a node has many of the same.
pub(crate) struct Ports<'a> {
    state: &'a State,
    known: BTreeMap<(Digest, ServiceName), Made>,
}

#[derive(Default)]
struct Made {
    ports: Vec<Port>,
    stop_ms: u64,
}

/// An instance that has a port of its node.
pub(crate) struct Holder<'a> {
    pub(crate) id: &'a InstanceId,
    pub(crate) port: u16,
    /// Since when it goes; its node should still run what does not.
    pub(crate) leaves: Option<Time>,
    /// How long it may take to stop.
    pub(crate) stop_ms: u64,
}

impl<'a> Ports<'a> {
    pub(crate) fn new(state: &'a State) -> Self {
        Self { state, known: BTreeMap::new() }
    }

    /// The host ports that an instance has.
    pub(crate) fn of(&mut self, id: &InstanceId, to: &AssignedTo) -> &[Port] {
        &self.made(id, to).ports
    }

    fn made(&mut self, id: &InstanceId, to: &AssignedTo) -> &Made {
        let key = (to.revision.release, id.slot.service.clone());
        self.known.entry(key).or_insert_with(|| {
            let release = self.state.release_of(&to.revision);
            let service = release.and_then(|release| release.services.get(&id.slot.service));
            service.map_or_else(Made::default, |service| Made {
                ports: host_ports(service).collect(),
                stop_ms: u64::from(service.container.stop.grace_seconds) * 1000,
            })
        })
    }

    /// Whether what should be in an instance's slot on a node has a port there.
    pub(crate) fn is_to_have(&self, node: &NodeName, id: &InstanceId, port: u16) -> bool {
        let state = self.state;
        let revisions = state.revisions(&id.slot.app_env);
        let service = revisions.service(&id.slot.service, node);
        state.target.placement.get(&id.slot) == Some(node)
            && service.is_some_and(|service| host_ports(service).any(|held| held.host == Some(port)))
    }

    /// The instances that hold ports of a node which a service wants: those that it should run, and those that are
    /// not gone yet. What has ended holds none, even if it cannot be removed.
    pub(crate) fn holders(&mut self, node: &NodeName, service: &Service) -> Vec<Holder<'a>> {
        let wanted: Vec<_> = host_ports(service).collect();
        if wanted.is_empty() {
            return Vec::new();
        }
        let state = self.state;
        let told = state.assigned.get(node).into_iter().flat_map(|assigned| &assigned.instances);
        let told = told.map(|(id, to)| (id, to, None));
        let has_ended = |id| state.report_of(node, id).is_some_and(|it| it.phase == Phase::Completed);
        let leaving = state.leaving(node).filter(|(id, _)| !has_ended(id));
        let leaving = leaving.filter_map(|(id, left)| Some((id, left.was.as_ref()?, Some(left.since))));
        let mut holders = Vec::new();
        for (id, to, leaves) in told.chain(leaving) {
            let Made { ports, stop_ms } = self.made(id, to);
            if let Some(port) = ports.iter().find(|port| wanted.contains(port)).and_then(|port| port.host) {
                holders.push(Holder { id, port, leaves, stop_ms: *stop_ms });
            }
        }
        holders
    }
}
