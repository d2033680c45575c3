//! Who makes way for another slot's port, as far as its service can do without it.

use std::collections::{BTreeMap, BTreeSet};

use stele_model::ids::ServiceName;
use stele_model::{InstanceId, NodeName, Slot, State};

use crate::changes::Changes;
use crate::rollout::{Running, Wanted};

/// What may go for the sake of others, and what of its service is down or on its way already. Most steps need to know
/// neither.
pub(crate) struct MakeWay<'a, 'b> {
    stale: BTreeMap<(&'a NodeName, &'a InstanceId), (&'b Wanted<'a>, &'b Running<'a>)>,
    busy: BTreeMap<&'a ServiceName, BTreeSet<&'a Slot>>,
}

impl<'a, 'b> MakeWay<'a, 'b> {
    /// As it is after the changes made so far.
    pub(crate) fn new(state: &State, wanted: &'b [Wanted<'a>], changes: &Changes<'a>) -> Self {
        let (mut stale, mut busy) = (BTreeMap::new(), BTreeMap::<_, BTreeSet<_>>::new());
        for slot in wanted {
            stale.extend(slot.stale.iter().map(|it| ((it.node, it.id), (slot, it))));
            // Nodes that cannot say hold nobody up.
            let is_up = |it: &Running<'_>| {
                (state.is_healthy(it.node, it.id) || !state.is_reachable(it.node))
                    && !changes.is_withdrawn(it.node, it.id)
            };
            let is_down = || !slot.fresh.iter().chain(&slot.stale).any(is_up);
            if !slot.is_good && (slot.fresh.is_some() || is_down()) {
                busy.entry(&slot.slot.service).or_default().insert(slot.slot);
            }
        }
        Self { stale, busy }
    }

    /// An instance that may go, and the slot it is for.
    pub(crate) fn find(
        &self,
        node: &'a NodeName,
        id: &'a InstanceId,
    ) -> Option<(&'b Wanted<'a>, &'b Running<'a>)> {
        self.stale.get(&(node, id)).copied()
    }

    /// Slots of a service that are down, or on their way.
    pub(crate) fn busy_of(&self, service: &ServiceName) -> usize {
        self.busy.get(service).map_or(0, BTreeSet::len)
    }

    pub(crate) fn begin(&mut self, slot: &'a Slot) {
        self.busy.entry(&slot.service).or_default().insert(slot);
    }
}
