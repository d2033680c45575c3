//! What became of some apps, rebuilt without the rest of a fleet.
//!
//! Which nodes that takes is found first: those that were told to run something of the apps, or told of some, where
//! it begins, in what differs from there, and in the records that follow. Only what is of those nodes and apps is
//! put on then. A node that comes up late is known from the beginning, so that nothing of it is missed.

use std::collections::BTreeSet;

use super::progress::AppChange;
use super::{DeltaError, Outline, ProgressDelta, TargetOutline};
use crate::fold::is_progress;
use crate::header::Header;
use crate::ids::{AppEnv, NodeName, Seq};
use crate::state::{History, State};

/// Some apps, and the nodes that have or had to do with them.
#[derive(Clone, Debug, Default)]
pub struct Interest {
    apps: BTreeSet<AppEnv>,
    nodes: BTreeSet<NodeName>,
    /// The apps as headers write them.
    of_apps: BTreeSet<String>,
    /// The same of nodes.
    of_nodes: BTreeSet<String>,
}

impl Interest {
    /// In some apps, and no node yet.
    pub fn in_apps(apps: BTreeSet<AppEnv>) -> Self {
        let of_apps = apps.iter().map(ToString::to_string).collect();
        Self { apps, of_apps, ..Self::default() }
    }

    /// The apps.
    pub fn apps(&self) -> &BTreeSet<AppEnv> {
        &self.apps
    }

    /// The nodes, as far as is known yet.
    pub fn nodes(&self) -> &BTreeSet<NodeName> {
        &self.nodes
    }

    fn add(&mut self, node: &NodeName) {
        if self.nodes.insert(node.clone()) {
            self.of_nodes.insert(format!("node:{node}"));
        }
    }

    /// Takes in the nodes that had to do with the apps at an outline.
    pub fn in_hosts_at(&mut self, Outline(state): &Outline) {
        for app_env in self.apps.clone() {
            let assigned = state.assigned_to(&app_env).map(|(node, ..)| node);
            let hosts: BTreeSet<_> =
                assigned.chain(state.observed_of(&app_env).map(|(node, ..)| node)).collect();
            for node in hosts {
                self.add(node);
            }
        }
    }

    /// Takes in those that had to do with one of the apps in a difference.
    pub fn in_hosts_of(&mut self, change: &AppChange) {
        for node in &change.hosts {
            self.add(node);
        }
    }

    /// Takes in those that had to do with the apps in a record.
    pub fn in_hosts_by(&mut self, header: &Header) {
        if is_progress(&header.kind) && header.scopes.iter().any(|scope| self.of_apps.contains(scope)) {
            let nodes = header.scopes.iter().filter_map(|scope| scope.strip_prefix("node:"));
            // A name that cannot be read is no node's.
            for node in nodes.filter_map(|name| NodeName::new(name).ok()) {
                self.add(&node);
            }
        }
    }

    /// Whether a record may change something of the apps or nodes.
    pub(crate) fn covers(&self, header: &Header) -> bool {
        let covers = |scope| self.of_apps.contains(scope) || self.of_nodes.contains(scope);
        !is_progress(&header.kind) || header.scopes.iter().any(covers)
    }
}

/// What became of some apps, and of the nodes that have to do with them.
#[derive(Clone, Debug, PartialEq)]
pub struct Excerpt(State);

impl Excerpt {
    /// Of an outline.
    pub fn of(Outline(state): &Outline, interest: &Interest) -> Self {
        let mut excerpt = State { seq: state.seq, time: state.time, ..TargetOutline::default().0 };
        for node in &interest.nodes {
            if let Some(assigned) = state.assigned.get(node) {
                excerpt.assigned.insert(node.clone(), assigned.clone());
            }
            if let Some(observed) = state.observed.get(node) {
                excerpt.observed.insert(node.clone(), observed.clone());
            }
        }
        for app_env in &interest.apps {
            let (ours, all) = (&mut excerpt.history, &state.history);
            for (seq, deployment) in state.deployments_of(app_env, 0..=Seq::MAX) {
                ours.deployments.insert(seq, deployment.clone());
                ours.deployments_of.insert((app_env.clone(), seq), ());
            }
            if let Some(latest) = all.latest.get(app_env) {
                ours.latest.insert(app_env.clone(), *latest);
            }
            let range = (app_env.clone(), 0)..=(app_env.clone(), Seq::MAX);
            let changes = all.changes.range(range.clone());
            ours.changes.extend(changes.map(|(key, change)| (key.clone(), change.clone())));
            let barriers = all.barriers.range(range);
            ours.barriers.extend(barriers.map(|(key, barrier)| (key.clone(), barrier.clone())));
        }
        Self(excerpt)
    }

    /// Of a State that was rebuilt for these apps and nodes: without what others left in it.
    pub fn of_state(state: &State, interest: &Interest) -> Self {
        Self::of(&Outline(state.clone()), interest)
    }

    /// The last record folded.
    pub fn seq(&self) -> Seq {
        self.0.seq
    }

    /// Beside what should have been then, and with annals as a later State of the same log knows them: a State
    /// that says of the apps and nodes all that there is, and of others only what should be. It has no digest.
    /// Records of that log up to `through` may be folded onto it by [`crate::fold_about`].
    ///
    /// # Panics
    ///
    /// When the other State is not as late.
    pub fn filled(&self, target: &TargetOutline, later: &State, through: Seq) -> Result<State, DeltaError> {
        let Self(State { assigned, observed, history, .. }) = self;
        if self.seq() != target.seq() {
            return Err(DeltaError { from: self.seq(), found: target.seq() });
        }
        let filled = target.filled(later, through);
        let ours = History {
            deployments: history.deployments.clone(),
            deployments_of: history.deployments_of.clone(),
            latest: history.latest.clone(),
            changes: history.changes.clone(),
            barriers: history.barriers.clone(),
            ..filled.history
        };
        Ok(State { assigned: assigned.clone(), observed: observed.clone(), history: ours, ..filled })
    }
}

impl ProgressDelta {
    /// Turns the earlier excerpt into the later one. What it says of others than the excerpt's apps and nodes
    /// would be in the way.
    pub fn put_on(self, excerpt: &mut Excerpt) -> Result<(), DeltaError> {
        let Excerpt(state) = excerpt;
        if self.head.from != (state.seq, state.time) {
            return Err(DeltaError { from: self.head.from.0, found: state.seq });
        }
        (state.seq, state.time) = self.head.to;
        self.put(state);
        Ok(())
    }
}
