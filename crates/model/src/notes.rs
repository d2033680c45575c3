//! Moments that folding saw and no fact says: from when on a deadline may count.
//!
//! They are kept beside State, for the planner alone: nothing is decided by them that is not written to the log, and
//! they are in no digest. Who reads State from bytes has none of what was before, and who leads has folded the
//! beginning of its own term; so every leader knows what happened in its term, and nothing counts from before it. That it
//! could hear nobody for a while, no record says: it notes that itself.

use std::sync::Arc;

use imbl::OrdMap;

use crate::ids::{InstanceId, NodeName, Time};
use crate::state::{AssignedTo, State};

/// A moment for each of some instances, by node. No node has none.
type Moments<V> = OrdMap<NodeName, OrdMap<InstanceId, V>>;

#[derive(Clone, Debug)]
pub(crate) struct Notes {
    /// When the present term began, or noting did, or nodes could be heard again after nobody listened.
    since: Time,
    /// When nodes that are heard of came back.
    returned: OrdMap<NodeName, Time>,
    /// Since when nodes say of instances that they are not well.
    unwell: Moments<Time>,
    /// Instances that nodes still tell of though they should not run them any more.
    leaving: Moments<Leaving>,
}

/// An instance that is there still, and should not be.
#[derive(Clone, Debug)]
pub struct Leaving {
    /// Since when.
    pub since: Time,
    /// What it was told to be, if that is known.
    pub was: Option<Arc<AssignedTo>>,
}

fn remove<V: Clone>(moments: &mut Moments<V>, node: &NodeName, id: &InstanceId) {
    if let Some(of_node) = moments.get_mut(node)
        && of_node.remove(id).is_some()
        && of_node.is_empty()
    {
        moments.remove(node);
    }
}

impl Notes {
    pub(crate) fn since(time: Time) -> Self {
        Self { since: time, returned: OrdMap::new(), unwell: OrdMap::new(), leaving: OrdMap::new() }
    }

    pub(crate) fn term_began(&mut self, time: Time) {
        self.since = time;
    }

    fn listens_since(&mut self, time: Time) {
        self.since = self.since.max(time);
    }

    pub(crate) fn is_heard(&mut self, node: &NodeName, is_heard: bool, time: Time) {
        if is_heard {
            self.returned.insert(node.clone(), time);
        } else {
            self.returned.remove(node);
        }
    }

    pub(crate) fn is_removed(&mut self, node: &NodeName) {
        self.returned.remove(node);
        self.unwell.remove(node);
        self.leaving.remove(node);
    }

    pub(crate) fn is_well(&mut self, node: &NodeName, id: &InstanceId, is_well: bool, time: Time) {
        if is_well {
            remove(&mut self.unwell, node, id);
        } else {
            self.unwell.entry(node.clone()).or_default().entry(id.clone()).or_insert(time);
        }
    }

    pub(crate) fn is_leaving(
        &mut self,
        node: &NodeName,
        id: &InstanceId,
        since: Time,
        was: Option<Arc<AssignedTo>>,
    ) {
        self.leaving.entry(node.clone()).or_default().insert(id.clone(), Leaving { since, was });
    }

    pub(crate) fn is_gone(&mut self, node: &NodeName, id: &InstanceId) {
        remove(&mut self.unwell, node, id);
        remove(&mut self.leaving, node, id);
    }
}

impl State {
    pub(crate) fn note(&mut self, note: impl FnOnce(&mut Notes)) {
        if let Some(notes) = &mut self.index.notes {
            note(notes);
        }
    }

    /// Notes that whoever leads heard no node before now, as after it was cut off or slept.
    pub fn listens_since(&mut self, time: Time) {
        self.note(|notes| notes.listens_since(time));
    }

    /// From when on a node that is heard of could tell: since the term began, its leader listens, and it came back.
    pub fn could_tell_since(&self, node: &NodeName) -> Time {
        let Some(notes) = &self.index.notes else { return Time(0) };
        notes.returned.get(node).map_or(notes.since, |returned| notes.since.max(*returned))
    }

    /// Since when a node says of an instance that it is not well, as far as it is known.
    pub fn unwell_since(&self, node: &NodeName, id: &InstanceId) -> Option<Time> {
        self.index.notes.as_ref()?.unwell.get(node)?.get(id).copied()
    }

    /// The instances that a node tells of though it should not run them any more, as far as it is known since when.
    pub fn leaving(&self, node: &NodeName) -> impl Iterator<Item = (&InstanceId, &Leaving)> {
        let leaving = self.index.notes.as_ref().and_then(|notes| notes.leaving.get(node));
        leaving.into_iter().flatten()
    }

    /// The same of one instance.
    pub fn left(&self, node: &NodeName, id: &InstanceId) -> Option<&Leaving> {
        self.index.notes.as_ref()?.leaving.get(node)?.get(id)
    }
}
