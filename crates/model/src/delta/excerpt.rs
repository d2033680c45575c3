//! What became of some apps, rebuilt without the rest of a fleet.
//!
//! Which nodes that takes is found first: those that were told to run something of the apps, or told of some, where
//! it begins, in what differs from there, and in the records that follow. Only what is of those nodes and apps is
//! put on then. A node that comes up late is known from the beginning, so that nothing of it is missed.

use std::collections::BTreeSet;

use super::progress::AppChange;
use super::{DeltaError, Outline, ProgressDelta, TargetOutline};
use crate::fold::Touches;
use crate::header::Headline;
use crate::ids::{AppEnv, NodeName, Seq};
use crate::index::{first_instance, has_some_of};
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
    // An outline keeps nothing to look them up by: all nodes are gone through.
    pub fn in_hosts_at(&mut self, Outline(state): &Outline) {
        for app_env in self.apps.clone() {
            let first = first_instance(&app_env);
            for (node, assigned) in &state.assigned {
                if has_some_of(&assigned.instances, &first) {
                    self.add(node);
                }
            }
            for (node, observed) in &state.observed {
                if has_some_of(&observed.instances, &first) {
                    self.add(node);
                }
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
    pub fn in_hosts_by(&mut self, headline: &Headline<'_>) {
        if Touches::by(headline.kind) == Touches::Progress && self.names_an_app(headline) {
            let nodes = headline.scopes.iter().filter_map(|scope| scope.strip_prefix("node:"));
            // A name that cannot be read is no node's.
            for node in nodes.filter_map(|name| NodeName::new(name).ok()) {
                self.add(&node);
            }
        }
    }

    fn names_an_app(&self, headline: &Headline<'_>) -> bool {
        headline.scopes.iter().any(|scope| self.of_apps.contains(*scope))
    }

    /// Whether a record may change something of the apps or nodes.
    pub(crate) fn covers(&self, headline: &Headline<'_>) -> bool {
        match Touches::by(headline.kind) {
            Touches::Progress => {
                self.names_an_app(headline)
                    || headline.scopes.iter().any(|scope| self.of_nodes.contains(*scope))
            }
            Touches::Target => self.names_an_app(headline),
            Touches::Annals => false,
            Touches::Anything => true,
        }
    }
}

/// What became of some apps, and of the nodes that have to do with them: what these were told and told, and the
/// apps' latest deployments, back to the newest one of all of the app.
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
            let Some((latest, _)) = state.latest_deployment(app_env) else { continue };
            let ours = &mut excerpt.history;
            ours.latest.insert(app_env.clone(), latest);
            // What is held follows from those since the newest one of all of the app, and from that.
            for (seq, deployment) in state.deployments_of(app_env, 0..=Seq::MAX).rev() {
                ours.deployments.insert(seq, deployment.clone());
                ours.deployments_of.insert((app_env.clone(), seq), ());
                if !deployment.leaves_the_rest() {
                    break;
                }
            }
            let oldest = ours
                .deployments_of
                .range((app_env.clone(), 0)..)
                .next()
                .map_or(latest, |((_, seq), ())| *seq);
            let since = (app_env.clone(), oldest)..=(app_env.clone(), Seq::MAX);
            for (key, change) in state.history.changes.range(since) {
                ours.changes.insert(key.clone(), change.clone());
            }
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
    /// that says of the apps and nodes what this does, and of what should be what the outline does. It has no digest.
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
