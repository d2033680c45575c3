//! What became of it: what nodes were told, what they told, and deployments.

use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::Mismatch;
use super::changes::{Changes, first};
use crate::ids::{AppEnv, ControllerId, InstanceId, NodeName, Seq, Time};
use crate::state::{Assigned, AssignedTo, Change, Deployment, History, Observed, State};
use crate::wire::{AssignmentVersion, InstanceReport};

maps! { ProgressMaps:
    history deployments: Seq => Arc<Deployment>;
    history latest: AppEnv => Seq;
    history changes: (AppEnv, Seq) => Change;
    history barriers: (AppEnv, Seq) => String;
}

/// What differs between two outlines in everything but their targets and what governs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProgressDelta {
    pub(super) from: (Seq, Time),
    pub(super) to: (Seq, Time),
    /// Present when they differ: term and leader.
    term: Option<(u64, ControllerId)>,
    assigned: Changes<NodeName, AssignedChange>,
    observed: Changes<NodeName, ObservedChange>,
    maps: ProgressMaps,
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

impl AssignedChange {
    fn new(before: Option<&Assigned>, after: &Assigned) -> Self {
        let Assigned { changed, instances } = after;
        let none = OrdMap::new();
        let before = before.map_or(&none, |before| &before.instances);
        Self { changed: *changed, instances: Changes::between(before, instances) }
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
}

/// What follows from other maps is not kept but put right with them.
fn put_indexes(maps: &ProgressMaps, history: &mut History) {
    let History { deployments, deployments_of, .. } = history;
    for seq in &maps.deployments.gone {
        if let Some(gone) = deployments.get(seq) {
            deployments_of.remove(&(gone.app_env.clone(), *seq));
        }
    }
    for (seq, deployment) in &maps.deployments.set {
        deployments_of.insert((deployment.app_env.clone(), *seq), ());
    }
}

impl ProgressDelta {
    pub(super) fn between(before: &State, after: &State) -> Self {
        let term = |state: &State| (state.history.term, state.history.leader);
        Self {
            from: (before.seq, before.time),
            to: (after.seq, after.time),
            term: (term(before) != term(after)).then(|| term(after)),
            assigned: Changes::with(&before.assigned, &after.assigned, AssignedChange::new),
            observed: Changes::with(&before.observed, &after.observed, ObservedChange::new),
            maps: ProgressMaps::between(before, after),
        }
    }

    pub(super) fn count(&self) -> usize {
        let assigned: usize = self.assigned.set.iter().map(|(_, change)| change.instances.count()).sum();
        let observed: usize = self.observed.set.iter().map(|(_, change)| change.instances.count()).sum();
        self.assigned.count() + assigned + self.observed.count() + observed + self.maps.count()
    }

    pub(super) fn put_on(self, state: &mut State) {
        if let Some((term, leader)) = self.term {
            (state.history.term, state.history.leader) = (term, leader);
        }
        for node in &self.assigned.gone {
            state.assigned.remove(node);
        }
        for (node, AssignedChange { changed, instances }) in self.assigned.set {
            let assigned = state.assigned.entry(node).or_default();
            assigned.changed = changed;
            instances.put_on(&mut assigned.instances);
        }
        for node in &self.observed.gone {
            state.observed.remove(node);
        }
        for (node, change) in self.observed.set {
            let ObservedChange { boot, number, applied, lost, time, instances } = change;
            let observed = state.observed.entry(node).or_default();
            (observed.boot, observed.number, observed.applied) = (boot, number, applied);
            (observed.lost, observed.time) = (lost, time);
            instances.put_on(&mut observed.instances);
        }
        put_indexes(&self.maps, &mut state.history);
        self.maps.put_on(state);
    }
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
