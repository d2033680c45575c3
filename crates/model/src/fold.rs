//! Folding events into State: total, pure, and frozen per event and schema.

use std::sync::Arc;

use crate::delta::Interest;
use crate::event::{AssignmentChange, Event, Outcome, Pin, Record, ReportedChange};
use crate::header::{Header, Headline};
use crate::ids::{AppEnv, Place, Seq, Time};
use crate::leaf::Leaf;
use crate::limits::{
    BARRIERS_PER_APP_MAX, CHANGES_PER_APP_MAX, DEPLOYMENTS_PER_APP_MAX, IDEMPOTENCY_COUNT_MAX,
    IDEMPOTENCY_WINDOW_US, REFUSAL_WINDOW_US, REVIEWS_OWED_MAX,
};
use crate::state::{
    Answer, Answered, Assigned, AssignedTo, Change, Controller, Deployment, Fleet, Refusals, ReleaseRecord,
    State,
};
use crate::wire::InstanceReport;

/// Folds one record.
///
/// # Panics
/// If the record is not the next one: folding out of order would make a State
/// that never was, and a control plane that is wrong must stop.
pub fn fold(state: &mut State, record: &Record) {
    let Record { header, event } = record;
    advance(state, header.seq, header.time);
    apply(state, header, event);
    remember_answer(state, header, event);
}

/// Folds what a record changes of what should be and what governs, onto a State that was filled from a
/// [`crate::TargetOutline`]. The record is not asked for where it changes nothing of that.
///
/// # Panics
/// As [`fold`].
pub fn fold_target<E>(
    state: &mut State,
    headline: &Headline<'_>,
    record: impl FnOnce() -> Result<Record, E>,
) -> Result<(), E> {
    match Touches::by(headline.kind) {
        Touches::Target | Touches::Anything => fold(state, &record()?),
        Touches::Progress | Touches::Annals => advance(state, headline.seq, headline.time),
    }
    Ok(())
}

/// Folds what a record changes of what governs, and of what should be and what became of some apps, onto a State
/// that was filled from a [`crate::Excerpt`] of the same interest. The record is not asked for where it changes
/// nothing of that.
///
/// # Panics
/// As [`fold`].
pub fn fold_about<E>(
    state: &mut State,
    interest: &Interest,
    headline: &Headline<'_>,
    record: impl FnOnce() -> Result<Record, E>,
) -> Result<(), E> {
    if interest.covers(headline) {
        fold(state, &record()?);
    } else {
        advance(state, headline.seq, headline.time);
    }
    Ok(())
}

/// What events of a kind may change of a State of the past, whose annals are known already. The golden log holds
/// every kind in every schema, and States are rebuilt of it in all of these ways.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Touches {
    /// Nothing but what became of targets: what most records tell.
    Progress,
    /// Nothing but what should be of the apps that its scopes name.
    Target,
    /// Annals alone.
    Annals,
    /// Anything: what governs, and whatever is not known here.
    Anything,
}

impl Touches {
    pub(crate) fn by(kind: &str) -> Self {
        match kind {
            "term_started"
            | "state_digest_recorded"
            | "nodes_lost"
            | "nodes_returned"
            | "deployment_started"
            | "deployment_finished"
            | "assignments_changed"
            | "nodes_reported"
            | "undone" => Self::Progress,
            "target_changed" | "placement_changed" | "pins_changed" => Self::Target,
            "release_created" | "config_changed" | "secret_changed" => Self::Annals,
            _ => Self::Anything,
        }
    }
}

fn advance(state: &mut State, seq: Seq, time: Time) {
    assert_eq!(seq, state.seq + 1, "records are folded in order, each once");
    assert!(time > state.time, "log time is strictly increasing");
    (state.seq, state.time) = (seq, time);
}

fn apply(state: &mut State, header: &Header, event: &Event) {
    match event {
        Event::TermStarted { term, controller } => {
            state.history.term = *term;
            state.history.leader = *controller;
            #[cfg(feature = "planted")]
            if planted!(FoldPerReplica) && stele_planted::replica() == 2 {
                state.history.leader = 2;
            }
            state.touch(Leaf::Term);
            state.note(|notes| notes.term_began(header.time));
        }
        Event::FleetCreated { fleet, root, epoch } => {
            state.control.fleet = Some(Fleet { name: fleet.clone(), root: root.clone(), epoch: *epoch });
            state.touch(Leaf::Fleet);
        }
        Event::ControllerCertified { certificate, api, peer } => {
            let id = certificate.body.controller;
            let controller =
                Controller { certificate: certificate.clone(), api: api.clone(), peer: peer.clone() };
            state.control.controllers.insert(id, controller);
            state.touch(Leaf::Controller(id));
        }
        Event::MembershipChanged { voters, learners } => {
            let now: imbl::OrdSet<_> = voters.iter().chain(learners).copied().collect();
            let before = state.control.voters.clone().union(state.control.learners.clone());
            for gone in before.relative_complement(now) {
                state.control.retired.insert(gone);
            }
            state.control.voters = voters.iter().copied().collect();
            state.control.learners = learners.iter().copied().collect();
            state.touch(Leaf::Members);
        }
        Event::ControllerRemoved { controller } => {
            state.control.controllers.remove(controller);
            state.touch(Leaf::Controller(*controller));
        }
        Event::FleetRecovered { epoch, controller, given_up } => {
            if let Some(fleet) = &mut state.control.fleet {
                fleet.epoch = *epoch;
            }
            state.control.retired.extend(given_up.iter().copied());
            state.control.voters = [*controller].into_iter().collect();
            state.control.learners = imbl::OrdSet::new();
            state.touch(Leaf::Fleet);
            state.touch(Leaf::Members);
        }
        Event::TokenCreated { token } => {
            let replaced = state.control.tokens.insert(token.principal.clone(), token.clone());
            if let Some(replaced) = replaced {
                state.control.bearers.remove(&replaced.hash);
            }
            state.control.bearers.insert(token.hash, token.principal.clone());
            state.touch(Leaf::Token(token.principal.clone()));
        }
        Event::TokenRevoked { principal } => {
            if let Some(token) = state.control.tokens.remove(principal) {
                state.control.bearers.remove(&token.hash);
            }
            state.touch(Leaf::Token(principal.clone()));
        }
        Event::JoinTokenCreated { token } => {
            state.control.join_tokens.insert(token.hash, token.clone());
            state.touch(Leaf::JoinToken(token.hash));
        }
        Event::NodeEnrolled { node, join_token } => {
            state.control.join_tokens.remove(join_token);
            state.touch(Leaf::JoinToken(*join_token));
            state.control.nodes.insert(node.name.clone(), Arc::new(node.clone()));
            state.touch(Leaf::Node(node.name.clone()));
        }
        Event::NodeLabelled { node, labels } => {
            if let Some(present) = state.control.nodes.get_mut(node) {
                Arc::make_mut(present).labels = labels.clone();
            }
            state.touch(Leaf::Node(node.clone()));
        }
        Event::NodeRemoved { node } => remove_node(state, node),
        Event::NodeDrained { node } => {
            state.control.drained.insert(node.clone(), header.seq);
            state.touch(Leaf::Drained(node.clone()));
        }
        Event::NodeResumed { node } => {
            state.control.drained.remove(node);
            state.touch(Leaf::Drained(node.clone()));
        }
        Event::NodesLost { nodes } | Event::NodesReturned { nodes } => {
            let lost = matches!(event, Event::NodesLost { .. });
            for node in nodes {
                state.observed.entry(node.clone()).or_default().lost = lost;
                state.touch(Leaf::Observed(node.clone()));
                state.note(|notes| notes.is_heard(node, !lost, header.time));
            }
        }
        Event::ProjectCreated { project } => {
            state.control.projects.insert(project.clone());
            state.touch(Leaf::Registry);
        }
        Event::EnvironmentCreated { environment } => {
            state.control.environments.insert(environment.clone());
            state.touch(Leaf::Registry);
        }
        Event::AppDeclared { app, contacts } => {
            state.control.apps.insert(app.clone(), contacts.clone());
            state.touch(Leaf::App(app.clone()));
        }
        Event::ReleaseCreated { number, digest, release, images } => {
            state.history.numbers.insert((release.app.clone(), *number), header.seq, *digest);
            let record = ReleaseRecord {
                number: *number,
                seq: header.seq,
                release: release.clone(),
                images: images.clone(),
            };
            state.history.releases.insert(*digest, header.seq, Arc::new(record));
            state.touch(Leaf::Release(*digest));
        }
        Event::ConfigChanged { app_env, version, digest, variables } => {
            state.history.config_versions.insert((app_env.clone(), *version), header.seq, *digest);
            state.history.configs.insert(*digest, header.seq, Arc::new(variables.clone()));
            state.touch(Leaf::Config(app_env.clone(), *version));
        }
        Event::SecretChanged { app_env, name, version, value } => {
            state.history.secrets.insert(
                (app_env.clone(), name.clone(), *version),
                header.seq,
                value.clone(),
            );
            state.touch(Leaf::Secret(app_env.clone(), name.clone(), *version));
        }
        Event::DeploymentStarted { app_env, kind, from, to, now, barrier } => {
            let deployment = Deployment {
                app_env: app_env.clone(),
                kind: *kind,
                from: from.clone(),
                to: to.clone(),
                now: *now,
                principal: header.principal.clone(),
                started: header.time,
                finished: None,
            };
            state.history.deployments.insert(header.seq, Arc::new(deployment));
            state.history.deployments_of.insert((app_env.clone(), header.seq), ());
            state.history.latest.insert(app_env.clone(), header.seq);
            state.touch(Leaf::Deployment(header.seq));
            state.touch(Leaf::AppHistory(app_env.clone()));
            if let Some(barrier) = barrier {
                raise_barrier(state, app_env, header.seq, barrier);
            }
        }
        Event::DeploymentFinished { deployment, app_env, outcome } => {
            finish_deployment(state, header, *deployment, app_env, outcome);
        }
        Event::TargetChanged { app_env, revision } => {
            let revision = revision.clone().map(Arc::new);
            state.put_intent(app_env, revision.clone());
            let at = header.decision.last();
            let change = Change { first: header.decision.first, revision };
            if state.history.changes.insert((app_env.clone(), at), change).is_none() {
                state.index.changed(app_env);
            }
            state.touch(Leaf::Intent(app_env.clone()));
            state.touch(Leaf::Change(app_env.clone(), at));
            forget_old_changes(state, app_env);
            target_changed(state, header, app_env);
        }
        Event::PlacementChanged { app_env, slots } => {
            for (slot, node) in slots {
                state.put_slot(slot, node.as_ref());
                state.touch(Leaf::Placement(slot.clone()));
            }
            target_changed(state, header, app_env);
        }
        Event::AssignmentsChanged { app_env: _, changes } => {
            let mut shared = None;
            for change in changes {
                change_assignment(state, header, change, &mut shared);
            }
            #[cfg(feature = "planted")]
            number_in_map_order(state, header, changes);
        }
        Event::NodesReported { reports } => {
            for report in reports {
                observe(state, header, report);
            }
        }
        // A digest is checked by whoever verifies the log, and what an undo did is in
        // the other events of its decision: neither changes anything.
        Event::StateDigestRecorded { .. } | Event::Undone { .. } => {}
        // What a rollback did is in the other events of its decision; since schema 2, somebody also
        // begins to owe a look at it.
        Event::RolledBack { .. } if header.schema < 2 => {}
        Event::RolledBack { .. } => {
            state.control.reviews.insert(header.seq, header.principal.clone());
            state.touch(Leaf::Review(header.seq));
            while state.control.reviews.len() > REVIEWS_OWED_MAX {
                let Some((oldest, _)) = state.control.reviews.get_min().cloned() else { break };
                state.control.reviews.remove(&oldest);
                state.touch(Leaf::Review(oldest));
            }
        }
        Event::Reviewed { rollback } => {
            state.control.reviews.remove(rollback);
            state.touch(Leaf::Review(*rollback));
        }
        Event::PinsChanged { app_env, pins } => {
            for (place, pin) in pins {
                set_pin(state, app_env, place, pin.as_ref());
            }
            target_changed(state, header, app_env);
        }
        Event::PointMarked { scope, seq, bad } => {
            let mark = (scope.clone(), *seq);
            if *bad {
                state.control.marked_bad.insert(mark);
            } else {
                state.control.marked_bad.remove(&mark);
            }
            state.touch(Leaf::MarkedBad(scope.clone(), *seq));
        }
        Event::SubjectErased { subject, through } => {
            state.control.erased.insert(subject.clone(), *through);
            state.touch(Leaf::Erased(subject.clone()));
        }
        Event::Latched { app_env, release } => {
            state.control.latches.entry(app_env.clone()).or_default().insert(*release);
            state.touch(Leaf::Latch(app_env.clone()));
        }
        Event::Unlatched { app_env } => {
            state.control.latches.remove(app_env);
            state.touch(Leaf::Latch(app_env.clone()));
        }
        Event::Refused { .. } => {
            let refusals = state.control.refusals.entry(header.principal.clone()).or_default();
            if header.time.0 - refusals.since.0 > REFUSAL_WINDOW_US {
                *refusals = Refusals { since: header.time, logged: 0 };
            }
            refusals.logged += 1;
            state.touch(Leaf::Refusals(header.principal.clone()));
        }
    }
}

fn remove_node(state: &mut State, node: &crate::ids::NodeName) {
    state.control.nodes.remove(node);
    state.touch(Leaf::Node(node.clone()));
    // One that comes under its name is another node.
    if state.control.drained.remove(node).is_some() {
        state.touch(Leaf::Drained(node.clone()));
    }
    state.note(|notes| notes.is_removed(node));
    if let Some(observed) = state.observed.remove(node) {
        state.touch(Leaf::Observed(node.clone()));
        for id in observed.instances.keys() {
            state.instance_went(node, id);
            state.touch(Leaf::ObservedInstance(node.clone(), id.clone()));
        }
    }
    if let Some(assigned) = state.assigned.remove(node) {
        state.touch(Leaf::Assigned(node.clone()));
        for id in assigned.instances.keys() {
            state.instance_went(node, id);
            state.touch(Leaf::AssignedTo(node.clone(), id.clone()));
        }
    }
}

fn set_pin(state: &mut State, app_env: &AppEnv, place: &Place, pin: Option<&Pin>) {
    let key = (app_env.clone(), place.clone());
    match pin {
        Some(pin) => state.target.pins.insert(key, Arc::new(pin.clone())),
        None => state.target.pins.remove(&key),
    };
    state.touch(Leaf::Pin(app_env.clone(), place.clone()));
}

fn raise_barrier(state: &mut State, app_env: &AppEnv, deployment: u64, barrier: &str) {
    state.history.barriers.insert((app_env.clone(), deployment), barrier.to_owned());
    state.touch(Leaf::Barrier(app_env.clone(), deployment));
    let range = (app_env.clone(), 0)..=(app_env.clone(), u64::MAX);
    let seqs: Vec<_> = state.history.barriers.range(range).map(|((_, seq), _)| *seq).collect();
    for seq in &seqs[..seqs.len().saturating_sub(BARRIERS_PER_APP_MAX)] {
        state.history.barriers.remove(&(app_env.clone(), *seq));
        state.touch(Leaf::Barrier(app_env.clone(), *seq));
    }
}

fn target_changed(state: &mut State, header: &Header, app_env: &AppEnv) {
    state.history.last_changed.insert(app_env.clone(), header.seq);
    state.touch(Leaf::AppHistory(app_env.clone()));
}

fn finish_deployment(
    state: &mut State,
    header: &Header,
    deployment: u64,
    app_env: &AppEnv,
    outcome: &Outcome,
) {
    if let Some(present) = state.history.deployments.get_mut(&deployment) {
        if present.finished.is_none() {
            state.index.finished(&present.app_env);
        }
        Arc::make_mut(present).finished = Some((header.time, header.seq, outcome.clone()));
    }
    state.touch(Leaf::Deployment(deployment));
    let excess = state.finished_of(app_env).saturating_sub(DEPLOYMENTS_PER_APP_MAX);
    if excess == 0 {
        return;
    }
    let finished = state.deployments_of(app_env, 0..=Seq::MAX).filter(|(_, it)| it.finished.is_some());
    let oldest: Vec<_> = finished.take(excess).map(|(seq, _)| seq).collect();
    for seq in oldest {
        state.history.deployments.remove(&seq);
        state.history.deployments_of.remove(&(app_env.clone(), seq));
        state.index.forgot_finished(app_env);
        state.touch(Leaf::Deployment(seq));
    }
}

fn forget_old_changes(state: &mut State, app_env: &AppEnv) {
    let excess = state.changes_of(app_env).saturating_sub(CHANGES_PER_APP_MAX);
    if excess == 0 {
        return;
    }
    let range = (app_env.clone(), 0)..=(app_env.clone(), u64::MAX);
    let changes = state.history.changes.range(range);
    let oldest: Vec<_> = changes.take(excess).map(|((_, seq), _)| *seq).collect();
    for seq in oldest {
        state.history.changes.remove(&(app_env.clone(), seq));
        state.index.forgot_change(app_env);
        state.touch(Leaf::Change(app_env.clone(), seq));
    }
}

/// For a planted bug: what is numbered while a map is gone through, whose order is each process's own.
#[cfg(feature = "planted")]
fn number_in_map_order(state: &mut State, header: &Header, changes: &[AssignmentChange]) {
    if !planted!(FoldInMapOrder) || changes.is_empty() {
        return;
    }
    let begin = stele_planted::replica() as usize % changes.len();
    let order = (0..changes.len()).map(|at| &changes[(begin + at) % changes.len()]);
    for (number, change) in order.enumerate() {
        let AssignmentChange::Assign { node, instance, .. } = change else { continue };
        let Some(assigned) = state.assigned.get_mut(node) else { continue };
        if let Some(to) = assigned.instances.get(instance).map(|to| AssignedTo::clone(to)) {
            let to = AssignedTo { since: crate::Time(header.time.0 + number as u64), ..to };
            assigned.instances.insert(instance.clone(), Arc::new(to));
        }
        state.touch(Leaf::AssignedTo(node.clone(), instance.clone()));
    }
}

/// `shared` is what was assigned last: most instances of a record are told the same, and share it, or what they are
/// made of.
fn change_assignment(
    state: &mut State,
    header: &Header,
    change: &AssignmentChange,
    shared: &mut Option<Arc<AssignedTo>>,
) {
    let (node, id) = match change {
        AssignmentChange::Assign { node, instance, .. } | AssignmentChange::Withdraw { node, instance } => {
            (node, instance)
        }
    };
    let (known, known_before) = match change {
        AssignmentChange::Assign { replaces, .. } => {
            (state.known_instance(id), replaces.as_ref().map(|before| state.known_instance(before)))
        }
        AssignmentChange::Withdraw { .. } => (id.clone(), None),
    };
    let assigned: &mut Assigned = state.assigned.entry(node.clone()).or_default();
    if !(planted!(AssignmentKeepsSeq) && matches!(change, AssignmentChange::Withdraw { .. })) {
        assigned.changed = header.seq;
    }
    match change {
        AssignmentChange::Assign { revision, spec, .. } => {
            let same = shared.as_ref().filter(|last| *last.revision == *revision);
            let to = AssignedTo {
                revision: same.map_or_else(|| Arc::new(revision.clone()), |last| Arc::clone(&last.revision)),
                spec: (*spec).into(),
                replaces: known_before,
                since: header.time,
            };
            let to = shared.take().filter(|last| **last == to).unwrap_or_else(|| Arc::new(to));
            *shared = Some(Arc::clone(&to));
            if assigned.instances.insert(known, to).is_none() {
                state.index.came(&state.known_node(node), id);
            }
        }
        AssignmentChange::Withdraw { .. } => {
            if let Some(was) = assigned.instances.remove(id) {
                state.instance_went(node, id);
                if state.report_of(node, id).is_some() {
                    state.note(|notes| notes.is_leaving(node, id, header.time, Some(was)));
                }
            }
        }
    }
    state.touch(Leaf::Assigned(node.clone()));
    state.touch(Leaf::AssignedTo(node.clone(), id.clone()));
}

fn observe(state: &mut State, header: &Header, report: &ReportedChange) {
    let node = &report.node;
    let named = state.known_node(node);
    let observed = state.observed.entry(node.clone()).or_default();
    observed.boot = report.boot;
    observed.number = report.number;
    observed.applied = report.applied;
    observed.time = header.time;
    let assigned = state.assigned.get(node);
    for change in &report.changed {
        // What it was told is in memory already, under the same name.
        let known = assigned.and_then(|assigned| assigned.instances.get_key_value(&change.id));
        let id = known.map_or(&change.id, |(id, _)| id);
        let told = InstanceReport { id: id.clone(), ..change.clone() };
        let before = observed.instances.insert(id.clone(), Arc::new(told));
        if before.is_none() {
            state.index.came(&named, id);
        }
        if let Some(notes) = &mut state.index.notes {
            notes.is_well(&named, id, change.is_well(), header.time);
            if before.is_none() && known.is_none() {
                notes.is_leaving(&named, id, header.time, None);
            }
        }
    }
    for id in &report.gone {
        let is_known = state.observed.get_mut(node).is_some_and(|it| it.instances.remove(id).is_some());
        if is_known {
            state.instance_went(node, id);
        }
        if let Some(notes) = &mut state.index.notes {
            notes.is_gone(node, id);
        }
    }
    state.touch(Leaf::Observed(node.clone()));
    let changed = report.changed.iter().map(|change| &change.id);
    for id in changed.chain(&report.gone) {
        state.touch(Leaf::ObservedInstance(node.clone(), id.clone()));
    }
}

fn remember_answer(state: &mut State, header: &Header, event: &Event) {
    // A State of the past may know nothing of this, and nothing else depends on it.
    if state.leaves.are_partial() {
        return;
    }
    let Some(idempotency) = &header.idempotency else { return };
    let key = (header.principal.clone(), idempotency.key.clone());
    let is_first = header.seq == header.decision.first;
    if is_first {
        let answer = Answer { decision: Some(header.decision), ..Answer::default() };
        let answered = Answered { request: idempotency.request, answer, time: header.time };
        if let Some(replaced) = state.history.answered.insert(key.clone(), answered) {
            state.history.answered_by_age.remove(&(replaced.time, key.0.clone(), key.1.clone()));
        }
        state.history.answered_by_age.insert((header.time, key.0.clone(), key.1.clone()), ());
    }
    if let Some(answered) = state.history.answered.get_mut(&key) {
        note_in_answer(&mut answered.answer, header, event);
    }
    state.touch(Leaf::Answered(key.0, key.1));
    while let Some(((time, principal, key), ())) = state.history.answered_by_age.get_min().cloned() {
        let expired = header.time.0 - time.0 > IDEMPOTENCY_WINDOW_US;
        if !expired && state.history.answered.len() <= IDEMPOTENCY_COUNT_MAX {
            break;
        }
        state.history.answered_by_age.remove(&(time, principal.clone(), key.clone()));
        state.history.answered.remove(&(principal.clone(), key.clone()));
        state.touch(Leaf::Answered(principal, key));
    }
}

/// Adds what the caller wants to know of one record of its decision.
pub(crate) fn note_in_answer(answer: &mut Answer, header: &Header, event: &Event) {
    match event {
        Event::ReleaseCreated { number, .. } => answer.release = Some(*number),
        Event::DeploymentStarted { .. } => answer.deployments.push(header.seq),
        _ => {}
    }
}

/// What the caller of a decision is answered.
pub fn answer_of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Answer {
    let mut answer = Answer::default();
    for Record { header, event } in records {
        answer.decision = Some(header.decision);
        note_in_answer(&mut answer, header, event);
    }
    answer
}
