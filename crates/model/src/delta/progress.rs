//! What became of it: what nodes were told, what they told, and deployments.
//!
//! It is told apart by node and by app, so that whoever asks for some of them reads theirs alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::Mismatch;
use super::changes::{Changed, Changes, by_app, changed_by_app, first};
use crate::ids::{AppEnv, ControllerId, InstanceId, NodeName, Seq, Time};
use crate::state::{Assigned, AssignedTo, Change, Deployment, History, Observed, State};
use crate::wire::{AssignmentVersion, InstanceReport};

/// What differs between two outlines in everything but their targets and what governs.
#[derive(Clone, Debug, PartialEq)]
pub struct ProgressDelta {
    /// Of neither nodes nor apps.
    pub head: ProgressHead,
    /// By node.
    pub nodes: BTreeMap<NodeName, NodeChange>,
    /// By app in an environment.
    pub apps: BTreeMap<AppEnv, AppChange>,
}

/// Between what a delta is, and what is of no node and no app.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProgressHead {
    pub(super) from: (Seq, Time),
    pub(super) to: (Seq, Time),
    /// Present when they differ: term and leader.
    term: Option<(u64, ControllerId)>,
}

/// What differs in what one node has been told, and told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeChange {
    assigned: Changed<AssignedChange>,
    observed: Changed<ObservedChange>,
}

/// What differs in an app's deployments and changes, and on which nodes something of it does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppChange {
    /// Nodes that were told another thing about an instance of it, or told one.
    pub(super) hosts: Vec<NodeName>,
    deployments: Changes<Seq, Arc<Deployment>>,
    latest: Changed<Seq>,
    changes: Changes<Seq, Change>,
    barriers: Changes<Seq, String>,
}

/// What differs in what one node has been told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct AssignedChange {
    changed: Seq,
    instances: Changes<InstanceId, Arc<AssignedTo>>,
}

/// What differs in what one node told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ObservedChange {
    boot: u64,
    number: u64,
    applied: AssignmentVersion,
    lost: bool,
    time: Time,
    instances: Changes<InstanceId, Arc<InstanceReport>>,
}

impl ProgressHead {
    pub(super) fn put(&self, state: &mut State) {
        (state.seq, state.time) = self.to;
        if let Some((term, leader)) = self.term {
            (state.history.term, state.history.leader) = (term, leader);
        }
    }
}

impl AssignedChange {
    fn new(before: Option<&Assigned>, after: &Assigned) -> Self {
        let Assigned { changed, instances } = after;
        let none = OrdMap::new();
        let before = before.map_or(&none, |before| &before.instances);
        Self { changed: *changed, instances: Changes::between(before, instances) }
    }

    fn put_on(self, assigned: &mut Assigned) {
        assigned.changed = self.changed;
        self.instances.put_on(&mut assigned.instances);
    }
}

impl ObservedChange {
    fn new(before: Option<&Observed>, after: &Observed) -> Self {
        let Observed { boot, number, applied, lost, time, instances } = after;
        let none = OrdMap::new();
        let before = before.map_or(&none, |before| &before.instances);
        Self {
            boot: *boot,
            number: *number,
            applied: *applied,
            lost: *lost,
            time: *time,
            instances: Changes::between(before, instances),
        }
    }

    fn put_on(self, observed: &mut Observed) {
        let Self { boot, number, applied, lost, time, instances } = self;
        (observed.boot, observed.number, observed.applied) = (boot, number, applied);
        (observed.lost, observed.time) = (lost, time);
        instances.put_on(&mut observed.instances);
    }
}

impl NodeChange {
    fn count(&self) -> usize {
        let assigned = self.assigned.count(|change| 1 + change.instances.count());
        assigned + self.observed.count(|change| 1 + change.instances.count())
    }

    /// The instances of which something differs.
    fn instances(&self) -> impl Iterator<Item = &InstanceId> {
        let assigned = self.assigned.to().into_iter().flat_map(|change| change.instances.keys());
        assigned.chain(self.observed.to().into_iter().flat_map(|change| change.instances.keys()))
    }

    fn put_on(self, node: &NodeName, state: &mut State) {
        self.assigned.put_on(&mut state.assigned, node, AssignedChange::put_on);
        self.observed.put_on(&mut state.observed, node, ObservedChange::put_on);
    }
}

impl AppChange {
    fn count(&self) -> usize {
        self.deployments.count() + self.latest.count(|_| 1) + self.changes.count() + self.barriers.count()
    }

    fn put_on(self, app_env: &AppEnv, history: &mut History) {
        // What follows from other maps is not kept but put right with them.
        for seq in &self.deployments.gone {
            history.deployments_of.remove(&(app_env.clone(), *seq));
        }
        for (seq, _) in &self.deployments.set {
            history.deployments_of.insert((app_env.clone(), *seq), ());
        }
        self.deployments.put_on(&mut history.deployments);
        self.latest.put_into(&mut history.latest, app_env);
        self.changes.put_on_as(&mut history.changes, |seq| (app_env.clone(), seq));
        self.barriers.put_on_as(&mut history.barriers, |seq| (app_env.clone(), seq));
    }
}

fn nodes_between(before: &State, after: &State) -> BTreeMap<NodeName, NodeChange> {
    let mut nodes: BTreeMap<NodeName, NodeChange> = BTreeMap::new();
    for item in before.assigned.diff(&after.assigned) {
        let (node, change) = Changed::of(item, AssignedChange::new);
        nodes.entry(node.clone()).or_default().assigned = change;
    }
    for item in before.observed.diff(&after.observed) {
        let (node, change) = Changed::of(item, ObservedChange::new);
        nodes.entry(node.clone()).or_default().observed = change;
    }
    nodes
}

fn apps_between(
    before: &History,
    after: &History,
    nodes: &BTreeMap<NodeName, NodeChange>,
) -> BTreeMap<AppEnv, AppChange> {
    let mut apps: BTreeMap<AppEnv, AppChange> = BTreeMap::new();
    by_app(
        &before.deployments,
        &after.deployments,
        &mut apps,
        |seq, deployment| (deployment.app_env.clone(), *seq),
        |app| &mut app.deployments,
    );
    changed_by_app(&before.latest, &after.latest, &mut apps, |app| &mut app.latest);
    by_app(
        &before.changes,
        &after.changes,
        &mut apps,
        |(app_env, seq), _| (app_env.clone(), *seq),
        |app| &mut app.changes,
    );
    by_app(
        &before.barriers,
        &after.barriers,
        &mut apps,
        |(app_env, seq), _| (app_env.clone(), *seq),
        |app| &mut app.barriers,
    );
    for (node, change) in nodes {
        for id in change.instances() {
            let hosts = match apps.get_mut(&id.slot.app_env) {
                Some(app) => &mut app.hosts,
                None => &mut apps.entry(id.slot.app_env.clone()).or_default().hosts,
            };
            if hosts.last() != Some(node) {
                hosts.push(node.clone());
            }
        }
    }
    apps
}

impl ProgressDelta {
    pub(super) fn between(before: &State, after: &State) -> Self {
        let term = |state: &State| (state.history.term, state.history.leader);
        let head = ProgressHead {
            from: (before.seq, before.time),
            to: (after.seq, after.time),
            term: (term(before) != term(after)).then(|| term(after)),
        };
        let nodes = nodes_between(before, after);
        let apps = apps_between(&before.history, &after.history, &nodes);
        Self { head, nodes, apps }
    }

    pub(super) fn count(&self) -> usize {
        let nodes: usize = self.nodes.values().map(NodeChange::count).sum();
        nodes + self.apps.values().map(AppChange::count).sum::<usize>()
    }

    pub(super) fn put(self, state: &mut State) {
        for (node, change) in self.nodes {
            change.put_on(&node, state);
        }
        for (app_env, change) in self.apps {
            change.put_on(&app_env, &mut state.history);
        }
    }
}

/// The first difference in deployments and what is known of changes.
pub(super) fn first_of_apps(one: &History, other: &History) -> Option<Mismatch> {
    first("history.deployments", &one.deployments, &other.deployments)
        .or_else(|| first("history.latest", &one.latest, &other.latest))
        .or_else(|| first("history.changes", &one.changes, &other.changes))
        .or_else(|| first("history.barriers", &one.barriers, &other.barriers))
}

/// The first difference in what nodes were told, or told.
pub(super) fn first_nested(one: &State, other: &State) -> Option<Mismatch> {
    let assigned = first("assigned", &one.assigned, &other.assigned).map(|mismatch| {
        let pair = one.assigned.iter().zip(other.assigned.iter()).find(|(one, other)| one != other);
        let inner =
            pair.filter(|((node, _), (same, _))| node == same).and_then(|((node, one), (_, other))| {
                first(&format!("assigned[{node}].instances"), &one.instances, &other.instances)
            });
        inner.unwrap_or(mismatch)
    });
    assigned.or_else(|| {
        first("observed", &one.observed, &other.observed).map(|mismatch| {
            let pair = one.observed.iter().zip(other.observed.iter()).find(|(one, other)| one != other);
            let inner =
                pair.filter(|((node, _), (same, _))| node == same).and_then(|((node, one), (_, other))| {
                    first(&format!("observed[{node}].instances"), &one.instances, &other.instances)
                });
            inner.unwrap_or(mismatch)
        })
    })
}
