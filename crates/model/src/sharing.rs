//! Names that State has in many places, in memory once.
//!
//! Slots and names of nodes that are read share their memory only with what was read lately. So folding takes the
//! copy that State has already, and a State that was read from bytes, map by map, has them shared afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::digest::Digest;
use crate::ids::{InstanceId, NodeName, Time};
use crate::state::{Assigned, AssignedTo, Observed, State};
use crate::wire::InstanceReport;

impl State {
    /// A node's name, as the fleet has it.
    pub(crate) fn known_node(&self, node: &NodeName) -> NodeName {
        self.control.nodes.get_key_value(node).map_or(node, |(known, _)| known).clone()
    }

    /// An instance's name, of the slot that is in the placement.
    pub(crate) fn known_instance(&self, id: &InstanceId) -> InstanceId {
        let slot = self.target.placement.get_key_value(&id.slot).map_or(&id.slot, |(known, _)| known);
        InstanceId { slot: slot.clone(), serial: id.serial }
    }

    /// Has a State that was read from bytes share its names, and equal assignments, as it does when it is folded.
    /// Nothing of what it says changes.
    pub fn share(&mut self) {
        let mut seen: BTreeMap<(Digest, Time), Arc<AssignedTo>> = BTreeMap::new();
        let placement = &self.target.placement;
        self.target.placement =
            placement.iter().map(|(slot, node)| (slot.clone(), self.known_node(node))).collect();
        let assigned = self.assigned.iter().map(|(node, assigned)| {
            let instances = assigned.instances.iter().map(|(id, to)| {
                let same = seen.entry((*to.spec, to.since)).or_insert_with(|| Arc::clone(to));
                let to = if **same == **to {
                    Arc::clone(same)
                } else {
                    let is_same = same.revision == to.revision;
                    let revision = Arc::clone(if is_same { &same.revision } else { &to.revision });
                    let replaces = to.replaces.as_ref().map(|before| self.known_instance(before));
                    Arc::new(AssignedTo { revision, replaces, ..AssignedTo::clone(to) })
                };
                (self.known_instance(id), to)
            });
            (self.known_node(node), Assigned { instances: instances.collect(), ..assigned.clone() })
        });
        self.assigned = assigned.collect();
        let observed = self.observed.iter().map(|(node, observed)| {
            let instances = observed.instances.iter().map(|(id, report)| {
                let id = self.known_instance(id);
                (id.clone(), Arc::new(InstanceReport { id, ..InstanceReport::clone(report) }))
            });
            (self.known_node(node), Observed { instances: instances.collect(), ..observed.clone() })
        });
        self.observed = observed.collect();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ids::Slot;
    use crate::limits::RECENT_TEXTS_MAX;
    use crate::release::Revision;
    use crate::wire::Phase;

    /// Whether two slots are one in memory.
    fn is_one(one: &Slot, other: &Slot) -> bool {
        std::ptr::eq(&raw const **one, &raw const **other)
    }

    #[test]
    fn what_was_read_map_by_map_shares_its_names() {
        let mut state = State::default();
        let revision = Revision { release: Digest::EMPTY, config: None, secrets: crate::FlatMap::new() };
        // Each name is read anew for each map: so many others lie between that none is remembered.
        let names = || (0..2 * RECENT_TEXTS_MAX).map(|at| format!("shop/web@prod/web.{at}-7"));
        let read = |name: &str| name.parse::<InstanceId>().unwrap();
        for name in names() {
            state.target.placement.insert(read(&name).slot, "eu-1".parse().unwrap());
        }
        let mut assigned = Assigned::default();
        for name in names() {
            let revision = Arc::new(revision.clone());
            let to = AssignedTo { revision, spec: Digest::EMPTY.into(), replaces: None, since: Time(1) };
            assigned.instances.insert(read(&name), Arc::new(to));
        }
        state.assigned.insert("eu-1".parse().unwrap(), assigned);
        let mut observed = Observed::default();
        for name in names() {
            let (id, phase) = (read(&name), Phase::Healthy);
            let report =
                InstanceReport { id, phase, spec_digest: None, container: None, restarts: 0, remarks: None };
            observed.instances.insert(read(&name), Arc::new(report));
        }
        state.observed.insert("eu-1".parse().unwrap(), observed);

        let before = state.clone();
        state.share();
        assert_eq!(state, before);
        let (assigned, observed) =
            (state.assigned.values().next().unwrap(), state.observed.values().next().unwrap());
        let first = assigned.instances.values().next().unwrap();
        let three = state.target.placement.keys().zip(assigned.instances.iter()).zip(&observed.instances);
        for ((slot, (id, to)), (seen, report)) in three {
            assert!(
                is_one(slot, &id.slot) && is_one(slot, &seen.slot) && is_one(slot, &report.id.slot),
                "{id}"
            );
            assert!(Arc::ptr_eq(first, to), "{id}");
        }
        assert_eq!(observed.instances.len(), 2 * RECENT_TEXTS_MAX);
    }
}
