//! What is looked up by node and by app: follows from the facts, and is kept beside them so that nobody goes
//! through a whole fleet to find one app's instances, nor through all of an app's past to forget the oldest of it.
//!
//! Folding keeps it up to date once it is made. A State that was read from bytes, or put together from parts,
//! has none; then the facts themselves are gone through, which gives the same.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::ids::{AppEnv, InstanceId, NodeName, Seq, ServiceName, Slot};
use crate::notes::Notes;
use crate::release::Revision;
use crate::state::State;

/// Each part is absent until it is made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    kept: Option<Kept>,
    counts: Option<Counts>,
    /// The one part that does not follow from the facts.
    pub(crate) notes: Option<Notes>,
}

/// The nodes that were told to run something of an app or told of it, by app. None without any is there.
type Hosts = OrdMap<AppEnv, OrdSet<NodeName>>;

#[derive(Clone, Debug, Default, PartialEq)]
struct Kept {
    /// How many slots each node has.
    slots: OrdMap<NodeName, usize>,
    hosts: Hosts,
    /// The apps whose revision in force says by labels which nodes they want.
    choosing: OrdSet<AppEnv>,
}

/// How much is known of each app's past, which is bounded.
#[derive(Clone, Debug, Default, PartialEq)]
struct Counts {
    /// Deployments that have ended.
    finished: OrdMap<AppEnv, usize>,
    /// Changes of its target.
    changes: OrdMap<AppEnv, usize>,
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
            kept.host(assigned.instances.keys(), node);
        }
        for (node, observed) in &state.observed {
            kept.host(observed.instances.keys(), node);
        }
        kept
    }

    fn host<'a>(&mut self, instances: impl Iterator<Item = &'a InstanceId>, node: &NodeName) {
        for id in instances {
            self.hosts.entry(id.slot.app_env.clone()).or_default().insert(node.clone());
        }
    }

    fn host_no_more(&mut self, app_env: &AppEnv, node: &NodeName) {
        if let Some(nodes) = self.hosts.get_mut(app_env) {
            nodes.remove(node);
            if nodes.is_empty() {
                self.hosts.remove(app_env);
            }
        }
    }
}

impl Counts {
    fn of(state: &State) -> Self {
        let mut counts = Self::default();
        let deployments = state.history.deployments.values();
        for deployment in deployments.filter(|deployment| deployment.finished.is_some()) {
            add(&mut counts.finished, deployment.app_env.clone());
        }
        for (app_env, _) in state.history.changes.keys() {
            add(&mut counts.changes, app_env.clone());
        }
        counts
    }
}

/// The first slot that an app in an environment could have: those of one are together.
pub(crate) fn first_slot(app_env: &AppEnv) -> Slot {
    #[allow(clippy::unwrap_used)]
    let service = ServiceName::new("0").unwrap();
    Slot::new(app_env.clone(), service, 0)
}

/// The first instance that an app in an environment could have.
pub(crate) fn first_instance(app_env: &AppEnv) -> InstanceId {
    InstanceId { slot: first_slot(app_env), serial: 0 }
}

/// Whether an instance is there of the app whose first one this could be.
pub(crate) fn has_some_of<V>(instances: &OrdMap<InstanceId, V>, first: &InstanceId) -> bool {
    instances.get_next(first).is_some_and(|(id, _)| id.slot.app_env == first.slot.app_env)
}

impl State {
    /// Has what is looked up kept from now on, for a State that is folded and looked at for long.
    pub fn keep_index(&mut self) {
        if self.index.kept.is_none() {
            self.index.kept = Some(Kept::of(self));
        }
        if self.index.notes.is_none() {
            self.index.notes = Some(Notes::since(self.time));
        }
        self.keep_counts();
    }

    /// The same of that alone which is needed to fold: how much is known of each app's past.
    pub fn keep_counts(&mut self) {
        if self.index.counts.is_none() {
            self.index.counts = Some(Counts::of(self));
        }
    }

    /// How many deployments of an app in an environment are known that have ended.
    pub(crate) fn finished_of(&self, app_env: &AppEnv) -> usize {
        if let Some(counts) = &self.index.counts {
            return counts.finished.get(app_env).copied().unwrap_or(0);
        }
        let deployments = self.deployments_of(app_env, 0..=Seq::MAX);
        deployments.filter(|(_, deployment)| deployment.finished.is_some()).count()
    }

    /// How many changes of the target of an app in an environment are known.
    pub(crate) fn changes_of(&self, app_env: &AppEnv) -> usize {
        if let Some(counts) = &self.index.counts {
            return counts.changes.get(app_env).copied().unwrap_or(0);
        }
        let range = (app_env.clone(), 0)..=(app_env.clone(), Seq::MAX);
        self.history.changes.range(range).count()
    }

    /// How many slots each node has; one without any may not be there.
    pub fn slots_per_node(&self) -> OrdMap<NodeName, usize> {
        match &self.index.kept {
            Some(kept) => kept.slots.clone(),
            None => Kept::of(self).slots,
        }
    }

    /// The nodes that were told to run instances of an app in an environment, or told of some, in order of
    /// name. Others may be among them.
    pub fn hosts_of<'a>(&'a self, app_env: &AppEnv) -> impl Iterator<Item = &'a NodeName> + use<'a> {
        let (kept, all) = match &self.index.kept {
            Some(kept) => (kept.hosts.get(app_env), None),
            None => (None, Some(self.assigned.keys().chain(self.observed.keys()).collect::<BTreeSet<_>>())),
        };
        kept.into_iter().flatten().chain(all.into_iter().flatten())
    }

    /// The apps whose instances may have to move when a node's labels change: those that say by labels which
    /// nodes they want, and those with pinned places, whose revisions may.
    pub fn choosing_by_labels(&self) -> BTreeSet<AppEnv> {
        let choosing = match &self.index.kept {
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
        let Some(kept) = &mut self.index.kept else { return };
        if chooses {
            kept.choosing.insert(app_env.clone());
        } else {
            kept.choosing.remove(app_env);
        }
    }

    /// Sets or clears a slot.
    pub(crate) fn put_slot(&mut self, slot: &Slot, node: Option<&NodeName>) {
        let node = node.map(|node| self.known_node(node));
        let before = match &node {
            Some(node) => self.target.placement.insert(slot.clone(), node.clone()),
            None => self.target.placement.remove(slot),
        };
        let Some(kept) = &mut self.index.kept else { return };
        if let Some(before) = before {
            take(&mut kept.slots, before);
        }
        if let Some(node) = node {
            add(&mut kept.slots, node);
        }
    }

    /// A node was told not to run an instance any more, or does not tell of it any more.
    pub(crate) fn instance_went(&mut self, node: &NodeName, id: &InstanceId) {
        let Some(kept) = &mut self.index.kept else { return };
        let first = first_instance(&id.slot.app_env);
        let assigned = self.assigned.get(node).is_some_and(|it| has_some_of(&it.instances, &first));
        if !assigned && !self.observed.get(node).is_some_and(|it| has_some_of(&it.instances, &first)) {
            kept.host_no_more(&id.slot.app_env, node);
        }
    }
}

impl Index {
    /// A node was told to run an instance, or told of one, that was not there before.
    pub(crate) fn came(&mut self, node: &NodeName, id: &InstanceId) {
        if let Some(kept) = &mut self.kept {
            kept.host(std::iter::once(id), node);
        }
    }

    /// A deployment of an app has ended.
    pub(crate) fn finished(&mut self, app_env: &AppEnv) {
        if let Some(counts) = &mut self.counts {
            add(&mut counts.finished, app_env.clone());
        }
    }

    /// One that had is not known any more.
    pub(crate) fn forgot_finished(&mut self, app_env: &AppEnv) {
        if let Some(counts) = &mut self.counts {
            take(&mut counts.finished, app_env.clone());
        }
    }

    /// An app's target changed.
    pub(crate) fn changed(&mut self, app_env: &AppEnv) {
        if let Some(counts) = &mut self.counts {
            add(&mut counts.changes, app_env.clone());
        }
    }

    /// A change of it is not known any more.
    pub(crate) fn forgot_change(&mut self, app_env: &AppEnv) {
        if let Some(counts) = &mut self.counts {
            take(&mut counts.changes, app_env.clone());
        }
    }
}

impl State {
    /// Whether what is kept to be looked up is what the facts say, for whoever checks invariants.
    pub fn index_is_true(&self) -> bool {
        let Index { kept, counts, notes: _ } = &self.index;
        kept.as_ref().is_none_or(|kept| *kept == Kept::of(self))
            && counts.as_ref().is_none_or(|counts| *counts == Counts::of(self))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::digest::Digest;
    use crate::event::{DeploymentKind, Event, Outcome, Record};
    use crate::fold::fold;
    use crate::header::{Decision, Header, Links};
    use crate::ids::Time;
    use crate::limits::{CHANGES_PER_APP_MAX, DEPLOYMENTS_PER_APP_MAX};

    fn record(seq: Seq, decision: Decision, event: Event) -> Record {
        let header = Header {
            seq,
            time: Time(seq),
            decision,
            principal: "dana".parse().unwrap(),
            cause: None,
            trace: None,
            idempotency: None,
            kind: event.kind().to_owned(),
            schema: Event::schema_of(event.kind()),
            codec: 1,
            scopes: event.scopes(),
            reason: None,
            links: Links::default(),
            payload: Digest::EMPTY,
        };
        Record { header, event }
    }

    #[test]
    fn as_much_is_forgotten_of_an_app_whether_it_was_counted_or_not() {
        let (mut counted, mut walked) = (State::default(), State::default());
        counted.keep_counts();
        assert_eq!(counted.digest(), walked.digest());
        for _ in 0..CHANGES_PER_APP_MAX + 10 {
            for name in ["shop/web@prod", "shop/web@staging"] {
                let app_env: AppEnv = name.parse().unwrap();
                let begins = walked.seq + 1;
                let finished = |deployment, app_env| Event::DeploymentFinished {
                    deployment,
                    app_env,
                    outcome: Outcome::Succeeded,
                };
                let events = [
                    Event::DeploymentStarted {
                        app_env: app_env.clone(),
                        kind: DeploymentKind::Deploy,
                        from: None,
                        to: None,
                        now: false,
                        barrier: None,
                    },
                    // Twice in one decision, which is one change.
                    Event::TargetChanged { app_env: app_env.clone(), revision: None },
                    Event::TargetChanged { app_env: app_env.clone(), revision: None },
                    finished(begins, app_env.clone()),
                    // Once more, and one that there never was.
                    finished(begins, app_env.clone()),
                    finished(begins + 1, app_env),
                ];
                let decision = Decision { first: begins, count: events.len() as u32 };
                for event in events {
                    let record = record(walked.seq + 1, decision, event);
                    fold(&mut counted, &record);
                    fold(&mut walked, &record);
                }
            }
        }
        assert!(counted.index_is_true());
        assert_eq!(counted, walked);
        assert_eq!(counted.digest(), walked.digest());
        assert_eq!(walked.history.changes.len(), 2 * CHANGES_PER_APP_MAX);
        assert_eq!(walked.history.deployments.len(), 2 * DEPLOYMENTS_PER_APP_MAX);
    }
}
