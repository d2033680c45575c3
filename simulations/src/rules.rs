//! What must hold of every record, given the State before it and after it. Written against the
//! meaning of the events, not with the code that decided them.

use std::collections::{BTreeMap, BTreeSet};

use stele_model::event::{AssignmentChange, DeploymentKind, Deviation, Outcome};
use stele_model::ids::ServiceName;
use stele_model::release::{Order, Placement, Update};
use stele_model::wire::{Phase, Position};
use stele_model::{
    AppEnv, Digest, Event, InstanceId, NodeName, Release, Revision, Scope, Seq, Slot, State, decide,
};

use crate::limits::NODE_GRACE_US;
use crate::oracle::Oracle;

/// Checks the record that was just folded.
pub(crate) fn check(oracle: &mut Oracle, before: &State, seq: Seq) {
    let record = oracle.decoded[seq as usize - 1].clone();
    match &record.event {
        Event::TermStarted { term, controller } => {
            let (last, leader) = (before.history.term, before.history.leader);
            // After a dropped proposal a leader begins anew in its term.
            let holds = *term > last || (*term == last && *controller == leader);
            oracle.require(holds, "terms-increase", || {
                format!("record {seq}: {controller} in {term} after {leader} in {last}")
            });
        }
        Event::FleetRecovered { epoch, .. } => {
            let last = before.control.fleet.as_ref().map_or(0, |fleet| fleet.epoch);
            oracle.require(*epoch > last, "the-epoch-rises", || {
                format!("record {seq}: the fleet goes on in epoch {epoch} after {last}")
            });
            // All that nodes were told is told them anew.
            for node in oracle.state.control.nodes.keys().cloned().collect::<Vec<_>>() {
                note_told(oracle, node);
            }
        }
        // It is told that it runs nothing.
        Event::NodeEnrolled { node, .. } => note_told(oracle, node.name.clone()),
        Event::NodesLost { nodes } => {
            // A leader that begins anew in its term has listened all along.
            let leads = before.history.term;
            let terms = oracle.decoded.iter().rev().filter_map(|it| match it.event {
                Event::TermStarted { term, .. } => Some((term, &it.header)),
                _ => None,
            });
            let began = terms.take_while(|(term, _)| *term == leads).last();
            // Log time creeps under a leader whose clock is behind it. And a term's first record is
            // committed later than its leader began, so time itself can only tell that it waited.
            let led = began.map_or(0, |(_, began)| {
                let by_log = record.header.time.0 - began.time.0;
                by_log.max(oracle.committed_us(seq) - oracle.committed_us(began.seq))
            });
            oracle.require(led >= NODE_GRACE_US, "nodes-have-their-grace", || {
                format!("record {seq}: {nodes:?} are lost {led} us after the leader began")
            });
        }
        Event::NodesReported { reports } => {
            for report in reports {
                let Some(known) = before.observed.get(&report.node) else { continue };
                let told = Position { boot: report.boot, number: report.number };
                oracle.require(told.is_after(known.position()), "reports-never-go-back", || {
                    format!(
                        "record {seq}: report {} of {} after {}",
                        report.number, report.node, known.number
                    )
                });
            }
        }
        // What a rollback puts on a drained node waits there for another one.
        Event::PlacementChanged { app_env, slots } if record.header.principal == decide::system() => {
            check_drained(oracle, before, seq, app_env, slots);
            check_kept(oracle, before, seq, app_env, slots);
        }
        Event::AssignmentsChanged { app_env, changes } => {
            check_hold(oracle, before, seq, app_env, changes);
            check_closed(oracle, before, seq, app_env, changes);
            check_budget(oracle, before, seq, app_env, changes);
            note_assignments(oracle, seq, changes);
        }
        Event::DeploymentFinished { app_env, outcome: Outcome::Succeeded, .. } => {
            check_success(oracle, before, seq, app_env);
        }
        Event::RolledBack { scope, except, seq: point, after, deviations, .. }
            if except.is_empty() && !deviations.iter().any(is_left) =>
        {
            check_rollback(oracle, scope, *point, seq, *after);
        }
        Event::TargetChanged { app_env, .. } => {
            check_undone(oracle, before, seq, app_env);
            note_value(oracle, seq, app_env);
        }
        Event::ConfigChanged { app_env, .. } => note_value(oracle, seq, app_env),
        _ => {}
    }
    if let Some(key) = record.header.idempotency.as_ref().filter(|_| record.header.decision.first == seq) {
        let who = (record.header.principal.clone(), key.key.clone());
        if let Some(twice) = oracle.keys.insert(who, seq) {
            let detail = format!("key {:?} is decided at {twice} and again at {seq}", key.key);
            oracle.fail("a-key-is-decided-once", detail);
        }
    }
}

/// Whether an app was left as it is. What else is told are instances and nodes.
fn is_left(deviation: &Deviation) -> bool {
    deviation.what.parse::<AppEnv>().is_ok()
}

/// A rollback without exceptions ends in the exact intent of its point.
fn check_rollback(
    oracle: &mut Oracle,
    scope: &str,
    point: Seq,
    seq: Seq,
    after: stele_model::event::TargetDigest,
) {
    let Ok(scope) = scope.parse::<Scope>() else { return };
    let Some(then) = oracle.states.range(..=point).next_back().map(|(_, state)| state.clone()) else {
        return;
    };
    let wanted = then.target_digest(&scope);
    let now = oracle.state.target_digest(&scope);
    // The record is one of its decision, whose other records may stand before or behind it.
    oracle.require(after.intent == wanted.intent, "rollback-is-exact", || {
        format!(
            "record {seq}: {scope} at {point} had intent {}, the record says {}",
            wanted.intent, after.intent
        )
    });
    let whole = oracle.decoded[seq as usize - 1].header.decision.last() == seq;
    oracle.require(!whole || now.intent == wanted.intent, "rollback-is-exact", || {
        format!("record {seq}: {scope} at {point} had intent {}, now it has {}", wanted.intent, now.intent)
    });
}

fn note_value(oracle: &mut Oracle, seq: Seq, app_env: &AppEnv) {
    let state = &oracle.state;
    let config = match state.target.intent.get(app_env) {
        Some(revision) => revision.config,
        // While the app is not there, the newest bundle waits for it.
        None => state.history.config_versions.get(&(app_env.clone(), state.newest_config(app_env))).copied(),
    };
    let value = config.and_then(|config| {
        let bundle = state.history.configs.get(&config)?;
        bundle.get(crate::client::VARIABLE).map(|value| format!("{value:?}"))
    });
    oracle.values.entry(app_env.clone()).or_default().push((seq, value));
}

fn note_told(oracle: &mut Oracle, node: NodeName) {
    let told = oracle.state.assignment_version(&node);
    oracle.assignments.insert((node, told.epoch, told.seq), told.digest);
}

fn note_assignments(oracle: &mut Oracle, seq: Seq, changes: &[AssignmentChange]) {
    if oracle.untold {
        return;
    }
    let nodes: std::collections::BTreeSet<NodeName> = changes
        .iter()
        .map(|change| match change {
            AssignmentChange::Assign { node, .. } | AssignmentChange::Withdraw { node, .. } => node.clone(),
        })
        .collect();
    for node in nodes {
        let version = oracle.state.assignment_version(&node);
        let known = oracle.assignments.insert((node.clone(), version.epoch, version.seq), version.digest);
        oracle.require(
            known.is_none_or(|known| known == version.digest),
            "one-version-one-assignment",
            || format!("record {seq} changes what {node} is told and keeps its version {}", version.seq),
        );
    }
}

/// Of a rollout that did not succeed, and after which only places of its app were decided on: whether it failed. All of
/// an app is decided on by who says what it should be, or asks for the same again.
fn held_by(oracle: &Oracle, before: &State, app_env: &AppEnv) -> Option<bool> {
    let (mut since, mut of_all, mut ended) = (0, BTreeSet::new(), BTreeMap::new());
    for record in oracle.decoded.iter().take(before.seq as usize).rev() {
        match &record.event {
            Event::DeploymentFinished { app_env: of, deployment, outcome } if of == app_env => {
                ended.insert(*deployment, outcome);
            }
            Event::TargetChanged { app_env: of, .. } if of == app_env => {
                of_all.insert(record.header.decision.first);
            }
            Event::DeploymentStarted { app_env: of, kind, .. } if of == app_env => {
                let is_back = matches!(kind, DeploymentKind::Rollback | DeploymentKind::Undo);
                if !is_back || of_all.contains(&record.header.decision.first) {
                    let outcome = ended.get(&record.header.seq);
                    let succeeded = matches!(outcome, Some(Outcome::Succeeded));
                    let broken_off = matches!(outcome, None | Some(Outcome::Superseded { .. }));
                    return (since > 0 && !succeeded).then_some(!broken_off);
                }
                since += 1;
            }
            _ => {}
        }
    }
    None
}

/// To undo that places went back takes nothing on with what failed.
fn check_undone(oracle: &mut Oracle, before: &State, seq: Seq, app_env: &AppEnv) {
    let Some(started) = seq.checked_sub(2).and_then(|at| oracle.decoded.get(at as usize)) else { return };
    let is_same = matches!(
        &started.event,
        Event::DeploymentStarted { app_env: of, kind: DeploymentKind::Undo, from, to, .. }
            if of == app_env && from == to
    );
    if is_same && held_by(oracle, before, app_env) == Some(true) {
        let detail = format!("record {seq}: an undo of places lets all of {app_env} go on");
        oracle.fail("what-is-held-stays", detail);
    }
}

/// A drained node gets nothing that is not there.
fn check_drained(
    oracle: &mut Oracle,
    before: &State,
    seq: Seq,
    app_env: &AppEnv,
    slots: &[(Slot, Option<NodeName>)],
) {
    for (slot, node) in slots {
        let Some(node) = node.as_ref().filter(|node| before.is_drained(node)) else { continue };
        let is_there = |(other, on): (&Slot, &NodeName)| other.service == slot.service && on == node;
        let is_told = before.assigned_in(slot, node).next().is_some();
        oracle.require(
            is_told || before.slots(app_env).any(is_there),
            "a-drained-node-gets-nothing-new",
            || format!("record {seq} places {slot} on {node}, which is drained"),
        );
    }
}

/// Nor is it told to run one of a service that it has nothing of.
fn check_closed(
    oracle: &mut Oracle,
    before: &State,
    seq: Seq,
    app_env: &AppEnv,
    changes: &[AssignmentChange],
) {
    for change in changes {
        let AssignmentChange::Assign { node, instance, .. } = change else { continue };
        if !before.is_drained(node) || before.pin_at(app_env, node).is_some() {
            continue;
        }
        let told = before.assigned.get(node).into_iter().flat_map(|told| told.instances.keys());
        let mut own =
            told.filter(|id| id.slot.app_env == *app_env && id.slot.service == instance.slot.service);
        oracle.require(own.next().is_some(), "a-drained-node-gets-nothing-new", || {
            format!("record {seq} has {node}, which is drained, run {instance}")
        });
    }
}

/// The planner takes no replica that should be, and serves, off a drained node without another place for it.
fn check_kept(
    oracle: &mut Oracle,
    before: &State,
    seq: Seq,
    app_env: &AppEnv,
    slots: &[(Slot, Option<NodeName>)],
) {
    let revision = before.target.intent.get(app_env);
    let Some(release) = revision.and_then(|revision| before.release_of(revision)) else { return };
    // What is being deployed may want a port that it cannot have where it is, whether or not the node is drained.
    let is_deployed = before.running_deployment(app_env).is_some();
    let is_wanted = |slot: &Slot| {
        let Some(service) = release.services.get(&slot.service) else { return false };
        let may_clash = is_deployed && service.container.ports.iter().any(|port| port.host.is_some());
        matches!(service.placement, Placement::Replicas { count, .. } if slot.index < count) && !may_clash
    };
    for (slot, _) in slots.iter().filter(|(slot, node)| node.is_none() && is_wanted(slot)) {
        let Some(node) = before.target.placement.get(slot) else { continue };
        let is_free = before.is_drained(node) && before.pin_at(app_env, node).is_none();
        let serves = before.assigned_in(slot, node).any(|(id, _)| before.is_healthy(node, id));
        oracle.require(!is_free || !serves, "a-drain-takes-no-replica", || {
            format!("record {seq} takes {slot} off {node}, and places it nowhere")
        });
    }
}

/// What is in no place that was rolled back goes on with nothing that did not succeed.
fn check_hold(oracle: &mut Oracle, before: &State, seq: Seq, app_env: &AppEnv, changes: &[AssignmentChange]) {
    if held_by(oracle, before, app_env).is_none() {
        return;
    }
    for change in changes {
        let (AssignmentChange::Assign { node, instance, .. } | AssignmentChange::Withdraw { node, instance }) =
            change;
        // What a slot left behind on another node goes with it.
        let home = before.target.placement.get(&instance.slot).unwrap_or(node);
        let is_pinned = |node| before.pin_at(app_env, node).is_some();
        oracle.require(is_pinned(home) || is_pinned(node), "what-is-held-stays", || {
            format!("record {seq} changes {instance} on {node}, and only other places of {app_env} went back")
        });
    }
}

/// A slot of a service on its way.
#[derive(Default)]
struct Slots {
    /// The largest budget of a slot whose replacement begins.
    budget: u32,
    /// Slots that are held and that nothing serves.
    down: u32,
    /// Instances as the target wants them that are not healthy on a node that could say so.
    unready: u32,
    /// Slots whose old instance a new one begins to replace with this record.
    begun: u32,
    /// Slots that lose a healthy instance with this record, and have no healthy one left.
    emptied: u32,
}

/// What a rollout makes unavailable stays within the service's budget.
fn check_budget(
    oracle: &mut Oracle,
    before: &State,
    seq: Seq,
    app_env: &AppEnv,
    changes: &[AssignmentChange],
) {
    let Some((_, deployment)) = before.running_deployment(app_env) else { return };
    if deployment.now {
        return;
    }
    let mut services: BTreeMap<ServiceName, Slots> = BTreeMap::new();
    let (told_before, told_after) = (told_by_slot(before, app_env), told_by_slot(&oracle.state, app_env));
    let begun: BTreeSet<&Slot> = changes
        .iter()
        .filter_map(|change| match change {
            AssignmentChange::Assign { instance, .. } => Some(&instance.slot),
            AssignmentChange::Withdraw { .. } => None,
        })
        .collect();
    let nothing = Vec::new();
    let is_held = held_by(oracle, before, app_env).is_some();
    let mut specs = Specs::new(before);
    for (slot, node) in before.slots(app_env) {
        let fresh = fresh_instance(&mut specs, app_env, slot, node);
        let healthy = |state: &State, id: &InstanceId, node: &NodeName| {
            !state.is_reachable(node) || state.is_healthy(node, id)
        };
        let counted = services.entry(slot.service.clone()).or_default();
        let (old, new) =
            (told_before.get(slot).unwrap_or(&nothing), told_after.get(slot).unwrap_or(&nothing));
        let served = old.iter().any(|(node, id)| before.is_healthy(node, id));
        if is_held && before.pin_at(app_env, node).is_none() {
            counted.down += u32::from(!served && !old.is_empty());
            continue;
        }
        if let Some(id) = &fresh
            && !healthy(before, id, node)
        {
            counted.unready += 1;
        }
        let begins = begun.contains(slot);
        if begins {
            counted.budget = counted.budget.max(budget(before, app_env, slot, node).unwrap_or(u32::MAX));
        }
        // A rollback takes nothing away where nothing serves.
        let counts = served || deployment.kind != DeploymentKind::Rollback;
        if begins && counts && !old.is_empty() && fresh.is_none() {
            counted.begun += 1;
        }
        let serves = new.iter().any(|(node, id)| healthy(before, id, node));
        if served && !serves && !begins {
            // What holds a port that another slot needs makes way for it, as one that is being replaced.
            let lost = || old.iter().filter(|one| !new.contains(one));
            let makes_way = lost().any(|(node, id)| has_what_another_wants(before, app_env, node, id));
            // What is to be stopped first on a drained node is begun elsewhere once it has.
            let goes_first = order(before, app_env, slot, node) == Some(Order::StopFirst)
                && lost().all(|(on, _)| *on != node && before.is_drained(on));
            if makes_way || goes_first {
                counted.begun += 1;
                counted.budget = counted.budget.max(budget(before, app_env, slot, node).unwrap_or(u32::MAX));
            } else {
                counted.emptied += 1;
            }
        }
    }
    for (service, slots) in services {
        // What is held down counts, but one slot at a time goes on anyway.
        let budget = slots.budget;
        let busy = slots.unready + slots.begun + slots.down.min(budget.saturating_sub(1));
        oracle.require(slots.begun == 0 || busy <= budget, "rollouts-keep-their-budget", || {
            format!("record {seq}: {busy} slots of {app_env}/{service} are on their way, {budget} may be")
        });
        oracle.require(slots.emptied == 0, "healthy-before-withdrawn", || {
            format!("record {seq}: {} slots of {app_env}/{service} lose what serves", slots.emptied)
        });
    }
}

/// The instances that nodes are told to run, by the slots they are for.
fn told_by_slot<'a>(
    state: &'a State,
    app_env: &'a AppEnv,
) -> BTreeMap<&'a Slot, Vec<(&'a NodeName, &'a InstanceId)>> {
    let mut told: BTreeMap<&Slot, Vec<_>> = BTreeMap::new();
    for (node, id, _) in state.assigned_to(app_env) {
        told.entry(&id.slot).or_default().push((node, id));
    }
    told
}

/// Whether another slot of an app is to publish a port on a node that an instance has there.
fn has_what_another_wants(state: &State, app_env: &AppEnv, node: &NodeName, id: &InstanceId) -> bool {
    let published = |release: Option<&Release>, service: &ServiceName| -> BTreeSet<_> {
        let service = release.and_then(|release| release.services.get(service));
        let ports = service.into_iter().flat_map(|service| &service.container.ports);
        ports.filter_map(|port| Some((port.host?, port.protocol))).collect()
    };
    let told = state.assigned.get(node).and_then(|told| told.instances.get(id));
    let has = published(told.and_then(|told| state.release_of(&told.revision)), &id.slot.service);
    let release = state.revision_at(app_env, node).and_then(|revision| state.release_of(revision));
    let mut others = state.slots(app_env).filter(|(slot, home)| **slot != id.slot && *home == node);
    others.any(|(slot, _)| !has.is_disjoint(&published(release, &slot.service)))
}

/// How many slots of its service may be unavailable, by what is in force on its node.
fn budget(state: &State, app_env: &AppEnv, slot: &Slot, node: &NodeName) -> Option<u32> {
    Some(update(state, app_env, slot, node)?.max_unavailable)
}

fn order(state: &State, app_env: &AppEnv, slot: &Slot, node: &NodeName) -> Option<Order> {
    Some(update(state, app_env, slot, node)?.order)
}

fn update<'a>(state: &'a State, app_env: &AppEnv, slot: &Slot, node: &NodeName) -> Option<&'a Update> {
    let revision = state.revision_at(app_env, node)?;
    let record = state.history.releases.get(&revision.release)?;
    Some(&record.release.services.get(&slot.service)?.update)
}

/// What instances should be made of: the same for all slots of a service with one revision.
struct Specs<'a> {
    state: &'a State,
    known: Vec<(&'a Revision, &'a ServiceName, Option<Digest>)>,
}

impl<'a> Specs<'a> {
    fn new(state: &'a State) -> Self {
        Self { state, known: Vec::new() }
    }

    fn of(&mut self, app_env: &AppEnv, revision: &'a Revision, service: &'a ServiceName) -> Option<Digest> {
        let found = self.known.iter().find(|(of, name, _)| *of == revision && *name == service);
        if let Some((.., spec)) = found {
            return *spec;
        }
        let spec = self.state.instance_spec(app_env, revision, service).map(|spec| spec.digest());
        self.known.push((revision, service, spec));
        spec
    }
}

/// The instance of a slot that is as the target wants it, if the node was told of one.
fn fresh_instance<'a>(
    specs: &mut Specs<'a>,
    app_env: &AppEnv,
    slot: &'a Slot,
    node: &NodeName,
) -> Option<InstanceId> {
    let state = specs.state;
    let revision = state.revision_at(app_env, node)?;
    let spec = specs.of(app_env, revision, &slot.service)?;
    let assigned = state.assigned.get(node)?;
    let since = state.running_deployment(app_env).map(|(_, deployment)| deployment.started);
    let found = assigned.instances.iter().find(|(id, to)| {
        // What an earlier deployment left failed is tried anew.
        let failed_before = since.is_some_and(|since| to.since < since)
            && state.report_of(node, id).is_some_and(|report| report.phase == Phase::Failed);
        id.slot == *slot && to.spec == spec && !failed_before
    });
    found.map(|(id, _)| id.clone())
}

/// Whether what a slot of the same service that is held left behind on a node serves there as one of its own would.
fn is_stood_in_for<'a>(specs: &mut Specs<'a>, app_env: &AppEnv, slot: &'a Slot, node: &NodeName) -> bool {
    let state = specs.state;
    let wanted = state.revision_at(app_env, node).and_then(|it| specs.of(app_env, it, &slot.service));
    let told = state.assigned.get(node).into_iter().flat_map(|told| &told.instances);
    { told }.any(|(id, to)| {
        let is_left_behind = state.target.placement.get(&id.slot).is_some_and(|home| home != node);
        id.slot.app_env == *app_env
            && id.slot.service == slot.service
            && is_left_behind
            && Some(*to.spec) == wanted
            && state.is_healthy(node, id)
    })
}

/// A success is one: every slot has an instance as wanted, healthy where that can be known.
fn check_success(oracle: &mut Oracle, before: &State, seq: Seq, app_env: &AppEnv) {
    let is_held = held_by(oracle, before, app_env).is_some();
    let mut specs = Specs::new(before);
    for (slot, node) in before.slots(app_env) {
        let is_elsewhere = is_held && before.pin_at(app_env, node).is_none();
        if is_elsewhere || before.revision_at(app_env, node).is_none() {
            continue;
        }
        let fresh = fresh_instance(&mut specs, app_env, slot, node);
        let good = fresh.is_some_and(|id| !before.is_reachable(node) || before.is_healthy(node, &id))
            || (is_held && is_stood_in_for(&mut specs, app_env, slot, node));
        oracle.require(good, "a-success-is-one", || format!("record {seq}: {slot} on {node} is not healthy"));
    }
}
