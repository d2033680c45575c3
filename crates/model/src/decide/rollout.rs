//! What controllers and nodes do while deployments run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::cut::{Assignments, bytes_of_assignment, in_parts, in_records};
use super::next_seq;
use crate::event::{AssignmentChange, Event, Outcome, ReportedChange};
use crate::ids::{AppEnv, InstanceId, NodeName, Seq, Slot};
use crate::limits::{CHANGES_PER_RECORD_MAX, INSTANCES_PER_NODE_MAX};
use crate::rejection::{Rejection, RejectionKind};
use crate::specs::Specs;
use crate::state::State;
use crate::wire::{InstanceReport, Report};

fn conflict(message: impl Into<String>) -> Rejection {
    Rejection::new(RejectionKind::Conflict, message)
}

pub(super) fn place(
    state: &State,
    app_env: &AppEnv,
    slots: &[(Slot, Option<NodeName>)],
) -> Result<Vec<Event>, Rejection> {
    let mut changes = Vec::new();
    for (slot, node) in slots {
        if slot.app_env != *app_env {
            return Err(conflict(format!("{slot} is not of {app_env}")));
        }
        if let Some(node) = node
            && !state.control.nodes.contains_key(node)
        {
            return Err(conflict(format!("{slot} cannot be on {node}: there is no such node")));
        }
        if state.target.placement.get(slot) != node.as_ref() {
            changes.push((slot.clone(), node.clone()));
        }
    }
    Ok(placement_changes(app_env, &changes).collect())
}

/// The records that set or clear slots of an app.
pub(super) fn placement_changes(
    app_env: &AppEnv,
    slots: &[(Slot, Option<NodeName>)],
) -> impl Iterator<Item = Event> {
    let of = |slots: &[_]| Event::PlacementChanged { app_env: app_env.clone(), slots: slots.to_vec() };
    slots.chunks(CHANGES_PER_RECORD_MAX).map(of)
}

pub(super) fn assign(
    state: &State,
    app_env: &AppEnv,
    changes: &[AssignmentChange],
) -> Result<Vec<Event>, Rejection> {
    let first = next_seq(state, &[]);
    let mut decided = Assignments::new(first);
    let mut counts: BTreeMap<NodeName, usize> = BTreeMap::new();
    let mut specs = Specs::new(state, app_env);
    for change in changes {
        match change {
            AssignmentChange::Assign { node, instance, revision, replaces, .. } => {
                if instance.slot.app_env != *app_env {
                    return Err(conflict(format!("{instance} is not of {app_env}")));
                }
                if !state.control.nodes.contains_key(node) {
                    return Err(conflict(format!("{instance} cannot be on {node}: there is no such node")));
                }
                let spec = specs.of(revision, &instance.slot.service).ok_or_else(|| {
                    conflict(format!("{instance} refers to a service or secret that is not there"))
                })?;
                *count_of(state, &mut counts, node) += 1;
                decided.push(bytes_of_assignment(change), |seq| AssignmentChange::Assign {
                    node: node.clone(),
                    instance: InstanceId { slot: instance.slot.clone(), serial: seq },
                    revision: revision.clone(),
                    spec,
                    replaces: replaces.clone(),
                });
            }
            AssignmentChange::Withdraw { node, instance } => {
                let present =
                    state.assigned.get(node).is_some_and(|node| node.instances.contains_key(instance));
                if present && instance.slot.app_env == *app_env {
                    let count = count_of(state, &mut counts, node);
                    *count = count.saturating_sub(1);
                    decided.push(bytes_of_assignment(change), |_| change.clone());
                }
            }
        }
    }
    if let Some((node, _)) = counts.iter().find(|(_, count)| **count > INSTANCES_PER_NODE_MAX) {
        return Err(Rejection::new(
            RejectionKind::TooLarge,
            format!("{node} would have more than {INSTANCES_PER_NODE_MAX} instances"),
        ));
    }
    Ok(decided.into_events(app_env))
}

fn count_of<'a>(state: &State, counts: &'a mut BTreeMap<NodeName, usize>, node: &NodeName) -> &'a mut usize {
    counts
        .entry(node.clone())
        .or_insert_with(|| state.assigned.get(node).map_or(0, |node| node.instances.len()))
}

pub(super) fn finish(
    state: &State,
    app_env: &AppEnv,
    deployment: Seq,
    outcome: &Outcome,
) -> Result<Vec<Event>, Rejection> {
    match state.running_deployment(app_env) {
        Some((running, _)) if running == deployment => Ok(vec![Event::DeploymentFinished {
            deployment,
            app_env: app_env.clone(),
            outcome: outcome.clone(),
        }]),
        _ => Err(conflict(format!("deployment {deployment} of {app_env} is not running"))),
    }
}

/// What is new in verified reports. A repeated report is nothing new, and so is one older than what is known, of
/// whichever boot: it may be sent by whoever kept it.
pub(super) fn report(state: &State, reports: &[Report]) -> Vec<Event> {
    let mut news = Vec::new();
    let mut seen = BTreeSet::new();
    for report in reports {
        if !state.control.nodes.contains_key(&report.node) || !seen.insert(&report.node) {
            continue;
        }
        let known = state.observed.get(&report.node).cloned().unwrap_or_default();
        let (at, known_at) = (report.position(), known.position());
        let again = at == known_at && !planted!(ReportCountsTwice);
        let older = at != known_at && !at.is_after(known_at) && !planted!(OldReportCounts);
        if again || older {
            continue;
        }
        let told: BTreeMap<&InstanceId, &InstanceReport> =
            report.instances.iter().map(|instance| (&instance.id, instance)).collect();
        let changed: Vec<_> = told
            .values()
            .filter(|instance| known.instances.get(&instance.id).map(Arc::as_ref) != Some(**instance))
            .map(|instance| (*instance).clone())
            .collect();
        let gone: Vec<_> = known.instances.keys().filter(|id| !told.contains_key(id)).cloned().collect();
        let is_nothing = changed.is_empty() && gone.is_empty() && known.applied == report.applied;
        if is_nothing && !planted!(ReportCountsTwice) {
            continue;
        }
        news.extend(in_parts(ReportedChange {
            node: report.node.clone(),
            boot: report.boot,
            number: report.number,
            applied: report.applied,
            changed,
            gone,
        }));
    }
    in_records(news)
}

pub(super) fn mark_nodes(state: &State, lost: &[NodeName], returned: &[NodeName]) -> Vec<Event> {
    let is_lost = |node: &NodeName| state.observed.get(node).is_some_and(|seen| seen.lost);
    let known = |node: &&NodeName| state.control.nodes.contains_key(*node);
    let lost: Vec<_> = lost.iter().filter(known).filter(|node| !is_lost(node)).cloned().collect();
    let returned: Vec<_> = returned.iter().filter(known).filter(|node| is_lost(node)).cloned().collect();
    let lost = lost.chunks(CHANGES_PER_RECORD_MAX).map(|nodes| Event::NodesLost { nodes: nodes.to_vec() });
    let returned = returned.chunks(CHANGES_PER_RECORD_MAX);
    lost.chain(returned.map(|nodes| Event::NodesReturned { nodes: nodes.to_vec() })).collect()
}
