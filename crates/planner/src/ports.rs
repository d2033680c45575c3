//! Who holds the host ports of a node: of two containers that publish one, the second cannot start.

use std::collections::BTreeMap;
use std::sync::Arc;

use stele_model::ids::ServiceName;
use stele_model::release::{Port, Service};
use stele_model::state::AssignedTo;
use stele_model::{Digest, InstanceId, NodeName, State};

/// A port as it is contended for: the host's side.
pub(crate) fn host_ports(service: &Service) -> impl Iterator<Item = Port> {
    service
        .container
        .ports
        .iter()
        .filter(|port| port.host.is_some())
        .map(|port| Port { container: 0, ..port.clone() })
}

/// The host ports of what instances are made of, each looked up once: a node has many of the same.
pub(crate) struct Ports<'a> {
    state: &'a State,
    known: BTreeMap<(Digest, ServiceName), Vec<Port>>,
}

/// An instance that has a port of its node.
pub(crate) struct Holder<'a> {
    pub(crate) id: &'a InstanceId,
    pub(crate) port: u16,
    /// Whether its node should still run it.
    pub(crate) is_told: bool,
}

impl<'a> Ports<'a> {
    pub(crate) fn new(state: &'a State) -> Self {
        Self { state, known: BTreeMap::new() }
    }

    /// What an instance has.
    pub(crate) fn of(&mut self, id: &InstanceId, to: &AssignedTo) -> &[Port] {
        let key = (to.revision.release, id.slot.service.clone());
        self.known.entry(key).or_insert_with(|| {
            let release = self.state.release_of(&to.revision);
            let service = release.and_then(|release| release.services.get(&id.slot.service));
            service.into_iter().flat_map(host_ports).collect()
        })
    }

    fn held(&mut self, id: &InstanceId, to: &AssignedTo, wanted: &[Port]) -> Option<u16> {
        self.of(id, to).iter().find(|port| wanted.contains(port))?.host
    }

    /// The instances that hold ports of a node which a service wants: those that it should run, and those that are
    /// not gone yet.
    pub(crate) fn holders(&mut self, node: &NodeName, service: &Service) -> Vec<Holder<'a>> {
        let wanted: Vec<_> = host_ports(service).collect();
        if wanted.is_empty() {
            return Vec::new();
        }
        let state = self.state;
        let told = state.assigned.get(node).into_iter().flat_map(|assigned| &assigned.instances);
        let told = told.map(|(id, to)| (id, to, true));
        let leaving = state.leaving(node).filter_map(|(id, left)| Some((id, left.was.as_ref()?, false)));
        let holder = |(id, to, is_told): (&'a InstanceId, &Arc<AssignedTo>, bool)| {
            let port = self.held(id, to, &wanted)?;
            Some(Holder { id, port, is_told })
        };
        told.chain(leaving).filter_map(holder).collect()
    }
}
