//! What is looked up by node and by app: follows from the facts, and is kept beside them so that nobody goes
//! through a whole fleet to find one app's instances.
//!
//! Folding keeps it up to date once it is made. A State that was read from bytes, or put together from parts,
//! has none; then the facts themselves are gone through, which gives the same.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::ids::{AppEnv, InstanceId, NodeName, ServiceName, Slot};
use crate::release::Revision;
use crate::state::State;

/// Absent until it is made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index(Option<Kept>);

/// How many instances of an app a node was told to run or told of, by both.
type Hosts = OrdMap<(AppEnv, NodeName), usize>;

#[derive(Clone, Debug, Default)]
struct Kept {
    /// How many slots each node has.
    slots: OrdMap<NodeName, usize>,
    /// None is not there.
    hosts: Hosts,
    /// The apps whose revision in force says by labels which nodes they want.
    choosing: OrdSet<AppEnv>,
}

fn add<K: Ord + Clone>(counts: &mut OrdMap<K, usize>, key: K) {
    *counts.entry(key).or_insert(0) += 1;
}

fn take<K: Ord + Clone>(counts: &mut OrdMap<K, usize>, key: K) {
    let left = counts.get(&key).map_or(0, |count| count.saturating_sub(1));
    if left == 0 {
        counts.remove(&key);
    } else {
        counts.insert(key, left);
    }
}

impl Kept {
    fn of(state: &State) -> Self {
        let choosing = state.target.intent.iter().filter(|(_, revision)| state.chooses(revision));
        let choosing = choosing.map(|(app_env, _)| app_env.clone()).collect();
        let mut kept = Self { choosing, ..Self::default() };
        for node in state.target.placement.values() {
            add(&mut kept.slots, node.clone());
        }
        for (node, assigned) in &state.assigned {
            kept.host(assigned.instances.keys(), node, add);
        }
        for (node, observed) in &state.observed {
            kept.host(observed.instances.keys(), node, add);
        }
        kept
    }

    fn host<'a>(
        &mut self,
        instances: impl Iterator<Item = &'a InstanceId>,
        node: &NodeName,
        count: fn(&mut Hosts, (AppEnv, NodeName)),
    ) {
        for id in instances {
            count(&mut self.hosts, (id.slot.app_env.clone(), node.clone()));
        }
    }
}

/// The first slot that an app in an environment could have: those of one are together.
pub(crate) fn first_slot(app_env: &AppEnv) -> Slot {
    #[allow(clippy::unwrap_used)]
    let service = ServiceName::new("0").unwrap();
    Slot { app_env: app_env.clone(), service, index: 0 }
}

/// The first instance that an app in an environment could have.
pub(crate) fn first_instance(app_env: &AppEnv) -> InstanceId {
    InstanceId { slot: first_slot(app_env), serial: 0 }
}

impl State {
    /// Has what is looked up kept from now on, for a State that is folded and looked at for long.
    pub fn keep_index(&mut self) {
        if self.index.0.is_none() {
            self.index = Index(Some(Kept::of(self)));
        }
    }

    /// How many slots each node has; one without any may not be there.
    pub fn slots_per_node(&self) -> OrdMap<NodeName, usize> {
        match &self.index.0 {
            Some(kept) => kept.slots.clone(),
            None => Kept::of(self).slots,
        }
    }

    /// The nodes that were told to run instances of an app in an environment, or told of some, in order of
    /// name. Others may be among them.
    pub fn hosts_of<'a>(&'a self, app_env: &AppEnv) -> impl Iterator<Item = &'a NodeName> + use<'a> {
        let app_env = app_env.clone();
        let (kept, all) = match &self.index.0 {
            Some(kept) => {
                #[allow(clippy::unwrap_used)]
                let first = (app_env.clone(), NodeName::new("0").unwrap());
                let nodes = kept.hosts.range(first..).take_while(move |((of, _), _)| *of == app_env);
                (Some(nodes.map(|((_, node), _)| node)), None)
            }
            None => (None, Some(self.assigned.keys().chain(self.observed.keys()).collect::<BTreeSet<_>>())),
        };
        kept.into_iter().flatten().chain(all.into_iter().flatten())
    }

    /// The apps whose instances may have to move when a node's labels change: those that say by labels which
    /// nodes they want, and those with pinned places, whose revisions may.
    pub fn choosing_by_labels(&self) -> BTreeSet<AppEnv> {
        let choosing = match &self.index.0 {
            Some(kept) => kept.choosing.clone(),
            None => Kept::of(self).choosing,
        };
        let pinned = self.target.pins.keys().map(|(app_env, _)| app_env.clone());
        choosing.into_iter().chain(pinned).collect()
    }

    fn chooses(&self, revision: &Revision) -> bool {
        let release = self.release_of(revision);
        release.is_some_and(|release| release.services.values().any(|it| !it.placement.nodes().is_any()))
    }

    /// Sets or clears the revision of an app.
    pub(crate) fn put_intent(&mut self, app_env: &AppEnv, revision: Option<Arc<Revision>>) {
        let chooses = revision.as_ref().is_some_and(|revision| self.chooses(revision));
        match revision {
            Some(revision) => self.target.intent.insert(app_env.clone(), revision),
            None => self.target.intent.remove(app_env),
        };
        let Some(kept) = &mut self.index.0 else { return };
        if chooses {
            kept.choosing.insert(app_env.clone());
        } else {
            kept.choosing.remove(app_env);
        }
    }

    /// Sets or clears a slot.
    pub(crate) fn put_slot(&mut self, slot: &Slot, node: Option<&NodeName>) {
        let before = match node {
            Some(node) => self.target.placement.insert(slot.clone(), node.clone()),
            None => self.target.placement.remove(slot),
        };
        let Some(kept) = &mut self.index.0 else { return };
        if let Some(before) = before {
            take(&mut kept.slots, before);
        }
        if let Some(node) = node {
            add(&mut kept.slots, node.clone());
        }
    }
}

impl Index {
    /// A node was told to run an instance, or told of one, that was not there before.
    pub(crate) fn came(&mut self, node: &NodeName, id: &InstanceId) {
        if let Some(kept) = &mut self.0 {
            kept.host(std::iter::once(id), node, add);
        }
    }

    /// An instance is not there any more.
    pub(crate) fn went(&mut self, node: &NodeName, id: &InstanceId) {
        if let Some(kept) = &mut self.0 {
            kept.host(std::iter::once(id), node, take);
        }
    }
}

impl State {
    /// Whether what is kept to be looked up is what the facts say, for whoever checks invariants.
    pub fn index_is_true(&self) -> bool {
        let Some(kept) = &self.index.0 else { return true };
        let anew = Kept::of(self);
        kept.slots == anew.slots && kept.hosts == anew.hosts && kept.choosing == anew.choosing
    }
}
