//! What is told to nodes in one command: so much as the log has room for.

use std::collections::BTreeSet;

use stele_model::decide::bytes_of_assignment;
use stele_model::event::AssignmentChange;
use stele_model::{InstanceId, NodeName};

use crate::limits::{ASSIGNMENTS_BYTES_PER_COMMAND_MAX, ASSIGNMENTS_PER_COMMAND_MAX};
use crate::rollout::{Running, Wanted};

/// A command in the making.
pub(crate) struct Changes<'a> {
    told: Vec<AssignmentChange>,
    bytes: usize,
    withdrawn: BTreeSet<(&'a NodeName, &'a InstanceId)>,
}

impl<'a> Changes<'a> {
    pub(crate) fn new() -> Self {
        Self { told: Vec::new(), bytes: 0, withdrawn: BTreeSet::new() }
    }

    pub(crate) fn into_inner(self) -> Vec<AssignmentChange> {
        self.told
    }

    /// Whether the rest has to wait for the next command.
    pub(crate) fn is_full(&self) -> bool {
        self.told.len() >= ASSIGNMENTS_PER_COMMAND_MAX || self.bytes >= ASSIGNMENTS_BYTES_PER_COMMAND_MAX
    }

    pub(crate) fn withdraw(&mut self, running: &Running<'a>) {
        if self.withdrawn.insert((running.node, running.id)) {
            self.push(AssignmentChange::Withdraw {
                node: running.node.clone(),
                instance: running.id.clone(),
            });
        }
    }

    pub(crate) fn assign(&mut self, slot: &Wanted<'a>, replaces: Option<&InstanceId>) {
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
}
