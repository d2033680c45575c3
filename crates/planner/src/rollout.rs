//! From what is assigned to what is targeted, a few slots at a time, gated by health.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stele_model::event::{DeploymentKind, Outcome};
use stele_model::ids::ServiceName;
use stele_model::release::Service;
use stele_model::state::AssignedTo;
use stele_model::wire::{InstanceReport, Phase};
use stele_model::{AppEnv, Command, Digest, InstanceId, NodeName, Revision, Seq, Slot, Specs, State, Time};

use crate::deadline::{failure, leftover, nobody_saw, unproven};
use crate::placement::{Unplaced, has_home};
use crate::replace::Step;

/// An instance a node has been told to run.
#[derive(Clone)]
pub(crate) struct Running<'a> {
    pub(crate) node: &'a NodeName,
    pub(crate) id: &'a InstanceId,
    pub(crate) to: &'a Arc<AssignedTo>,
}

/// A slot that should be filled, with what fills it.
pub(crate) struct Wanted<'a> {
    pub(crate) slot: &'a Slot,
    pub(crate) node: &'a NodeName,
    pub(crate) service: &'a Service,
    /// What is in force on the node.
    pub(crate) revision: &'a Revision,
    pub(crate) spec: Digest,
    /// The instance that is as it should be, if there is one.
    pub(crate) fresh: Option<Running<'a>>,
    /// Whether that one is healthy, or on a node that cannot say: unreachable nodes hold nobody up.
    pub(crate) is_good: bool,
    /// Whether it was healthy when it was last heard of.
    pub(crate) was_healthy: bool,
    /// All others in the slot.
    pub(crate) stale: Vec<Running<'a>>,
}

/// How many slots are replaced together.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As many as the service's budget allows.
    Careful,
    /// A rollback: what serves nobody is replaced whatever the budget, since that takes nothing away.
    Rescue,
    /// All.
    AtOnce,
}

/// The next step, or the end, of an app's way to its target.
pub(crate) fn advance(
    state: &State,
    app_env: &AppEnv,
    unplaced: Option<Unplaced>,
    now: Time,
) -> Option<Command> {
    let deployment = state.running_deployment(app_env);
    // What failed stays as it is until somebody decides.
    let stopped = state.latest_deployment(app_env).is_some_and(|(_, latest)| latest.has_failed());
    if stopped {
        return None;
    }
    let since = deployment.map_or(Time(0), |(_, deployment)| deployment.started);
    let (mut wanted, mut left) = wanted_slots(state, app_env, since);
    let held = state
        .hold(app_env)
        .filter(|_| !planted!(HoldForgotten))
        .map(|_| hold(state, app_env, &mut wanted, &mut left));
    if let Some((seq, _)) = deployment {
        if let Some(outcome) = failure(state, &wanted, since, now) {
            return Some(finish(app_env, seq, outcome));
        }
        // What waits for a node outside of the places that it is about is no part of it.
        let unplaced = unplaced.filter(|_| !deployment.is_some_and(|(seq, it)| state.is_of_places(seq, it)));
        if let Some(Unplaced { slot, reason }) = unplaced {
            return Some(finish(app_env, seq, Outcome::Unplaced { slot, reason }));
        }
    }
    let pace = match deployment {
        Some((_, deployment)) if deployment.now => Pace::AtOnce,
        Some((_, deployment)) if deployment.kind == DeploymentKind::Rollback => Pace::Rescue,
        _ => Pace::Careful,
    };
    let mut step = Step::new(state, &wanted, left, held.as_ref(), pace, deployment.is_some());
    step.replace();
    let (changes, waiting) = step.end();
    if !changes.is_empty() {
        return Some(Command::Assign { app_env: app_env.clone(), changes });
    }
    let (seq, deployment) = deployment?;
    // Nothing new is on its way to being healthy: at most, something has to go.
    if wanted.iter().all(|slot| slot.is_good || slot.fresh.is_none()) {
        let lingering = lingering(state, app_env, &wanted, held.is_some());
        if let Some(outcome) = leftover(state, deployment, lingering, now) {
            return Some(finish(app_env, seq, outcome));
        }
        if let Some(Unplaced { slot, reason }) =
            waiting.and_then(|waiting| waiting.unplaced(state, &wanted, since, now))
        {
            return Some(finish(app_env, seq, Outcome::Unplaced { slot, reason }));
        }
    }
    if !is_filled(&wanted) || lingering(state, app_env, &wanted, held.is_some()).next().is_some() {
        return None;
    }
    let outcome = match unproven(&wanted) {
        Some(service) if !planted!(FinishEarly) => nobody_saw(state, &wanted, service, since, now)?,
        _ => Outcome::Succeeded,
    };
    Some(finish(app_env, seq, outcome))
}

/// Slots of each service that are left as they are, and where nothing is healthy.
pub(crate) type Down<'a> = BTreeMap<&'a ServiceName, u32>;

/// Leaves what is in no pinned place as it is.
fn hold<'a>(
    state: &'a State,
    app_env: &AppEnv,
    wanted: &mut Vec<Wanted<'a>>,
    left: &mut Vec<Running<'a>>,
) -> Down<'a> {
    let is_pinned = |node: &NodeName| state.pin_at(app_env, node).is_some();
    let is_healthy = |it: &&Running<'_>| state.is_healthy(it.node, it.id);
    let (mut down, mut behind) = (Down::new(), Vec::new());
    left.retain(|running| is_pinned(running.node));
    wanted.retain(|slot| {
        if is_pinned(slot.node) {
            return true;
        }
        let instances = || slot.fresh.iter().chain(&slot.stale);
        let (here, elsewhere): (Vec<_>, Vec<_>) = instances().partition(|it| is_pinned(it.node));
        if elsewhere.iter().any(is_healthy) {
            // What it left behind in a pinned place serves nobody any more.
            left.extend(here.into_iter().cloned());
            return false;
        }
        if instances().next().is_some() && !here.iter().any(is_healthy) {
            *down.entry(&slot.slot.service).or_default() += 1;
        }
        behind.extend(here.into_iter().cloned());
        false
    });
    for running in behind {
        stand_in(state, running, wanted);
    }
    down
}

/// Has what a slot that went elsewhere left behind count for the slot of its service that is to be on its node: where a
/// place goes back to what it was, that may be there still, and be all that serves. Where it is something else and both
/// cannot run, it makes room.
fn stand_in<'a>(state: &State, behind: Running<'a>, wanted: &mut [Wanted<'a>]) {
    let is_here = |slot: &&mut Wanted<'_>| {
        slot.node == behind.node
            && slot.slot.service == behind.id.slot.service
            && slot.fresh.is_none()
            && slot.stale.is_empty()
    };
    let Some(slot) = wanted.iter_mut().find(is_here) else { return };
    if behind.to.spec == slot.spec && state.is_healthy(behind.node, behind.id) {
        slot.fresh = Some(behind);
        (slot.is_good, slot.was_healthy) = (true, true);
    } else if slot.service.container.is_exclusive() || excludes(state, &behind) {
        slot.stale.push(behind);
    }
}

fn finish(app_env: &AppEnv, deployment: Seq, outcome: Outcome) -> Command {
    Command::FinishDeployment { app_env: app_env.clone(), deployment, outcome }
}

/// The slots that should be filled, and the instances that fill none of them, in order.
fn wanted_slots<'a>(
    state: &'a State,
    app_env: &'a AppEnv,
    since: Time,
) -> (Vec<Wanted<'a>>, Vec<Running<'a>>) {
    let revisions = state.revisions(app_env);
    let mut specs = Specs::new(state, app_env);
    let mut nodes = state.nodes();
    let mut running: Vec<_> =
        state.assigned_to(app_env).map(|(node, id, to)| Running { node, id, to }).collect();
    running.sort_by(|one, other| one.id.slot.cmp(&other.id.slot));
    let mut running = running.into_iter().peekable();
    let (mut wanted, mut left) = (Vec::new(), Vec::new());
    for (slot, node) in state.slots(app_env) {
        while let Some(instance) = running.next_if(|instance| instance.id.slot < *slot) {
            left.push(instance);
        }
        let mut stale: Vec<_> =
            std::iter::from_fn(|| running.next_if(|instance| instance.id.slot == *slot)).collect();
        let revision = revisions.at(node);
        let service = revisions.service(&slot.service, node);
        let spec = revision.and_then(|revision| specs.of(revision, &slot.service));
        let (Some(revision), Some(service), Some(spec)) = (revision, service, spec) else {
            left.extend(stale);
            continue;
        };
        if revisions.is_pinned() && !has_home(state, service, slot, node) {
            left.extend(stale);
            continue;
        }
        let fresh = stale
            .iter()
            .position(|instance| {
                instance.node == node && instance.to.spec == spec && !failed_before(state, instance, since)
            })
            .map(|at| stale.remove(at));
        // Nodes that cannot say excuse it.
        let is_good =
            fresh.as_ref().is_some_and(|it| nodes.is_healthy(it.node, it.id) || !nodes.is_reachable(it.node));
        let was_healthy = fresh.as_ref().is_some_and(|it| {
            let report = nodes.report_of(it.node, it.id);
            report.is_some_and(|report| report.is_well())
        });
        wanted.push(Wanted { slot, node, service, revision, spec, fresh, is_good, was_healthy, stale });
    }
    left.extend(running);
    (wanted, left)
}

/// A deployment tries anew what an earlier one left failed.
fn failed_before(state: &State, running: &Running<'_>, since: Time) -> bool {
    running.to.since < since
        && state.report_of(running.node, running.id).is_some_and(|report| report.phase == Phase::Failed)
}

pub(crate) fn excludes(state: &State, running: &Running<'_>) -> bool {
    state
        .instance_spec(&running.id.slot.app_env, &running.to.revision, &running.id.slot.service)
        .is_some_and(|spec| spec.container.is_exclusive())
}

/// Everything that should be there is, and is good.
fn is_filled(wanted: &[Wanted<'_>]) -> bool {
    wanted.iter().all(|slot| {
        let is_good = slot.is_good || planted!(FinishEarly);
        slot.stale.is_empty() && slot.fresh.is_some() && is_good
    })
}

/// What nodes that are heard of still tell of, and nothing wants. Where what is in no pinned place is held, only pinned
/// places count.
fn lingering<'a>(
    state: &'a State,
    app_env: &'a AppEnv,
    wanted: &[Wanted<'a>],
    is_held: bool,
) -> impl Iterator<Item = (&'a NodeName, &'a InstanceId, &'a InstanceReport)> {
    let fresh: BTreeSet<&InstanceId> =
        wanted.iter().filter_map(|slot| Some(slot.fresh.as_ref()?.id)).collect();
    let is_lost = |node| state.observed.get(node).is_some_and(|seen| seen.lost);
    let is_pinned = |node: &NodeName| state.pin_at(app_env, node).is_some();
    // In a pinned place may be what nothing else serves for a slot that is held.
    let serves_elsewhere = move |node: &NodeName, id: &InstanceId| {
        state.assigned.get(node).is_some_and(|told| told.instances.contains_key(id))
            && state.target.placement.get(&id.slot).is_some_and(|home| !is_pinned(home))
    };
    let is_elsewhere =
        move |node: &NodeName, id: &InstanceId| is_held && (!is_pinned(node) || serves_elsewhere(node, id));
    state
        .observed_of(app_env)
        .filter(move |(node, id, _)| !fresh.contains(id) && !is_lost(*node) && !is_elsewhere(node, id))
        .map(|(node, id, report)| (node, id, report.as_ref()))
}
