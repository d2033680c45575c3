//! What is told to nodes in one command: so much as the log and each node have room for.

use std::collections::{BTreeMap, BTreeSet};

use stele_model::decide::bytes_of_assignment;
use stele_model::event::AssignmentChange;
use stele_model::limits::INSTANCES_PER_NODE_MAX;
use stele_model::{InstanceId, NodeName, State};

use crate::limits::{ASSIGNMENTS_BYTES_PER_COMMAND_MAX, ASSIGNMENTS_PER_COMMAND_MAX};
use crate::rollout::{Running, Wanted};

/// A command in the making.
pub(crate) struct Changes<'a> {
    state: &'a State,
    told: Vec<AssignmentChange>,
    bytes: usize,
    /// How many instances nodes will have been told to run.
    counts: BTreeMap<&'a NodeName, usize>,
    withdrawn: BTreeSet<(&'a NodeName, &'a InstanceId)>,
}

impl<'a> Changes<'a> {
    pub(crate) fn new(state: &'a State) -> Self {
        let (counts, withdrawn) = (BTreeMap::new(), BTreeSet::new());
        Self { state, told: Vec::new(), bytes: 0, counts, withdrawn }
    }

    pub(crate) fn into_inner(self) -> Vec<AssignmentChange> {
        self.told
    }

    /// Whether the rest has to wait for the next command.
    pub(crate) fn is_full(&self) -> bool {
        self.told.len() >= ASSIGNMENTS_PER_COMMAND_MAX || self.bytes >= ASSIGNMENTS_BYTES_PER_COMMAND_MAX
    }

    /// Whether a node may be told to run one more.
    pub(crate) fn has_room(&mut self, node: &'a NodeName) -> bool {
        *self.count_of(node) < INSTANCES_PER_NODE_MAX
    }

    pub(crate) fn is_withdrawn(&self, node: &NodeName, id: &InstanceId) -> bool {
        self.withdrawn.contains(&(node, id))
    }

    pub(crate) fn withdraw(&mut self, running: &Running<'a>) {
        if self.withdrawn.insert((running.node, running.id)) {
            let count = self.count_of(running.node);
            *count = count.saturating_sub(1);
            self.push(AssignmentChange::Withdraw {
                node: running.node.clone(),
                instance: running.id.clone(),
            });
        }
    }

    pub(crate) fn assign(&mut self, slot: &Wanted<'a>, replaces: Option<&InstanceId>) {
        *self.count_of(slot.node) += 1;
        self.push(AssignmentChange::Assign {
            node: slot.node.clone(),
            // The serial is the seq of the record, known once it is decided.
            instance: InstanceId { slot: slot.slot.clone(), serial: 0 },
            revision: slot.revision.clone(),
            spec: slot.spec,
            replaces: replaces.cloned(),
        });
    }

    fn push(&mut self, change: AssignmentChange) {
        self.bytes += bytes_of_assignment(&change);
        self.told.push(change);
    }

    fn count_of(&mut self, node: &'a NodeName) -> &mut usize {
        let told = || self.state.assigned.get(node).map_or(0, |assigned| assigned.instances.len());
        self.counts.entry(node).or_insert_with(told)
    }
}
