//! How long a rollout waits.
//!
//! A deadline never counts time in which a node could not have told: it begins anew when a term does, since nobody
//! heard anything before, when the leader was cut off from the nodes or slept, and when a node that was lost is heard of
//! again. And it counts from when a node first tells of an instance, or tells that it is not well any more, because
//! before that it worked at something else.

use std::collections::BTreeSet;

use stele_model::event::Outcome;
use stele_model::ids::ServiceName;
use stele_model::release::Update;
use stele_model::state::Deployment;
use stele_model::wire::{InstanceReport, Phase};
use stele_model::{InstanceId, NodeName, State, Time};

use crate::limits::LEAVING_MS;
use crate::rollout::{Running, Wanted};

/// From when on an instance has its time to become healthy.
fn begins(state: &State, running: &Running<'_>, started: Time) -> Time {
    let Running { node, id, to } = running;
    let could_tell = state.could_tell_since(node);
    let unwell = state.unwell_since(node, id).unwrap_or_default();
    to.since.max(started).max(could_tell).max(unwell)
}

/// The first new instance that failed, or did not become healthy in its time.
/// An instance that was there before the deployment has its time from the deployment's start.
pub(crate) fn failure(state: &State, wanted: &[Wanted<'_>], started: Time, now: Time) -> Option<Outcome> {
    wanted.iter().find_map(|slot| {
        let fresh = slot.fresh.as_ref()?;
        if slot.is_good {
            return None;
        }
        let report = state.report_of(fresh.node, fresh.id);
        let failed = report.is_some_and(|report| report.phase == Phase::Failed);
        let Update { deadline_ms, .. } = slot.service.update;
        let waited = now.millis_since(begins(state, fresh, started));
        if !failed && waited <= deadline_ms {
            return None;
        }
        let told = report.and_then(|report| report.reason().map(str::to_owned));
        let reason = match (failed, told) {
            (true, told) => told.unwrap_or_else(|| "it failed".to_owned()),
            (false, told) => {
                let silent = || "its node tells nothing of it".to_owned();
                let seen = told.or_else(|| report.is_none().then(silent));
                let seen = seen.map(|seen| format!(": {seen}")).unwrap_or_default();
                format!("not healthy within {} s{seen}", deadline_ms / 1000)
            }
        };
        Some(Outcome::Failed {
            instance: fresh.id.clone(),
            node: fresh.node.clone(),
            reason,
            exit_code: report.and_then(|report| report.exit_code()),
            log_tail: report.map(|report| report.log_tail().to_vec()).unwrap_or_default(),
        })
    })
}

/// The first instance that is there still though its node should not run it any more, for longer than it may take to
/// be gone.
pub(crate) fn leftover<'a>(
    state: &State,
    deployment: &Deployment,
    mut lingering: impl Iterator<Item = (&'a NodeName, &'a InstanceId, &'a InstanceReport)>,
    now: Time,
) -> Option<Outcome> {
    lingering.find_map(|(node, id, report)| {
        if state.assigned.get(node).is_some_and(|told| told.instances.contains_key(id)) {
            return None;
        }
        let left = state.left(node, id).map(|left| left.since).unwrap_or_default();
        let begins = left.max(deployment.started).max(state.could_tell_since(node));
        let patience_ms = patience_ms(state, deployment, node, id);
        if now.millis_since(begins) <= patience_ms {
            return None;
        }
        let told = report.reason().map(|told| format!(": {told}")).unwrap_or_default();
        Some(Outcome::Failed {
            instance: id.clone(),
            node: node.clone(),
            reason: format!("not gone within {} s{told}", patience_ms / 1000),
            exit_code: report.exit_code(),
            log_tail: report.log_tail().to_vec(),
        })
    })
}

/// How long an instance may take to be gone: its service's deadline and its time to stop, as they are now or were when
/// the deployment began, whichever is longer. What exactly it was made of is not known any more. One that another
/// comes instead of goes only when that can start, which has a deadline of its own.
fn patience_ms(state: &State, deployment: &Deployment, node: &NodeName, id: &InstanceId) -> u64 {
    let told = state.assigned.get(node).into_iter().flat_map(|told| told.instances.values());
    let deadlines = if { told }.any(|to| to.replaces.as_ref() == Some(id)) { 2 } else { 1 };
    let revisions = state.revision_at(&id.slot.app_env, node).into_iter().chain(&deployment.from);
    let services =
        revisions.filter_map(|revision| state.release_of(revision)?.services.get(&id.slot.service));
    let patience = services.map(|service| {
        let stop_ms = u64::from(service.container.stop.grace_seconds) * 1000;
        service.update.deadline_ms.saturating_mul(deadlines).saturating_add(stop_ms)
    });
    patience.max().unwrap_or(LEAVING_MS)
}

/// A service of which no instance is healthy, or was when it was last heard of. Nodes that cannot say excuse their own
/// instances, but where no other ever was, nothing is known of a service; and what is not known to work is not what
/// one goes back to.
pub(crate) fn unproven<'a>(wanted: &[Wanted<'a>]) -> Option<&'a ServiceName> {
    let healthy = wanted.iter().filter(|slot| slot.was_healthy).map(|slot| &slot.slot.service);
    let proven: BTreeSet<&ServiceName> = healthy.collect();
    wanted.iter().map(|slot| &slot.slot.service).find(|service| !proven.contains(service))
}

/// That a service's time is up, for all of its instances.
pub(crate) fn nobody_saw(
    state: &State,
    wanted: &[Wanted<'_>],
    service: &ServiceName,
    started: Time,
    now: Time,
) -> Option<Outcome> {
    let mut slots = wanted.iter().filter(|slot| slot.slot.service == *service).peekable();
    let first = slots.peek().and_then(|slot| slot.fresh.clone())?;
    let deadline_ms = slots.peek()?.service.update.deadline_ms;
    let is_over = |fresh: &Running<'_>| now.millis_since(begins(state, fresh, started)) > deadline_ms;
    slots.all(|slot| slot.fresh.as_ref().is_some_and(is_over)).then(|| Outcome::Failed {
        instance: first.id.clone(),
        node: first.node.clone(),
        reason: format!("nobody saw it healthy within {} s: its node is not heard of", deadline_ms / 1000),
        exit_code: None,
        log_tail: Vec::new(),
    })
}
