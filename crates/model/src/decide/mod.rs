//! Deciding commands into events, or refusing them with what to do next.
//!
//! `decide` is asked once per command, by the leader. Whatever it needs to choose
//! (a time, an earlier State) is in its arguments, and whatever it chose is in the
//! events: folding them never decides again.

mod cut;
mod deploy;
mod erase;
mod fleet;
mod review;
mod rollback;
mod rollout;
mod undo;
mod validate;

pub use cut::bytes_of_assignment;
pub use rollback::{NodeChange, RollbackPlan, plan_rollback};
pub use undo::{Conflict, UndoPlan, UndoneApp, plan_undo};
pub use validate::{validate_labels, validate_release};

use std::collections::BTreeMap;

use crate::command::{Command, Request};
use crate::event::{Event, Holder, Role};
use crate::ids::{PrincipalId, Seq, Time};
use crate::limits::{IDEMPOTENCY_KEY_BYTES_MAX, IDEMPOTENCY_WINDOW_US, REASON_BYTES_MAX};
use crate::rejection::{Rejection, RejectionKind};
use crate::state::{Answer, Answered, State};

/// The principal of what controllers do by themselves.
pub const SYSTEM: &str = "system";

/// What deciding needs besides State and the request.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Log time of the decision.
    pub now: Time,
    /// The earlier States it asked for ([`Command::past_seqs`]), by seq. They may be filled from a
    /// [`crate::TargetOutline`], and so lack what nodes were told and told, and deployments.
    pub past: BTreeMap<Seq, State>,
}

/// What a request comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decided {
    /// These facts; none when nothing has to change.
    Events(Vec<Event>),
    /// It was decided before, under the same idempotency key.
    Repeated(Answer),
}

/// The principal of what controllers do by themselves.
pub fn system() -> PrincipalId {
    #[allow(clippy::expect_used)]
    PrincipalId::new(SYSTEM).expect("a constant that is a name")
}

/// For a planted bug: what a principal was answered of late, whatever it had asked.
#[cfg(feature = "planted")]
fn answered_of_late(state: &State, principal: &PrincipalId, now: Time) -> Option<Answer> {
    const OF_LATE_US: u64 = 1_000_000;
    let mut answered = state.history.answered.iter().filter(|((who, _), _)| who == principal);
    let found =
        answered.find(|(_, answered)| planted!(DedupByTime) && answered.time.0 + OF_LATE_US > now.0)?;
    Some(found.1.answer.clone())
}

/// Decides a request.
pub fn decide(state: &State, request: &Request, context: &Context) -> Result<Decided, Rejection> {
    match admit(state, request, context.now)? {
        Some(answer) => Ok(Decided::Repeated(answer)),
        None => decide_command(state, request, context).map(Decided::Events),
    }
}

/// Everything about a request that is decided before what it asks for: the answer it was given before, if it was.
pub fn admit(state: &State, request: &Request, now: Time) -> Result<Option<Answer>, Rejection> {
    check_shape(request)?;
    authorize(state, request, now)?;
    if let Some(idempotency) = request.idempotency.as_ref().filter(|_| !planted!(IgnoreKeys)) {
        let key = (request.principal.clone(), idempotency.key.clone());
        #[cfg(feature = "planted")]
        if let Some(answered) = answered_of_late(state, &key.0, now) {
            return Ok(Some(answered));
        }
        // What is remembered longer, because nothing came after it, counts no more either.
        let counts = |answered: &&Answered| now.0.saturating_sub(answered.time.0) <= IDEMPOTENCY_WINDOW_US;
        if let Some(answered) = state.history.answered.get(&key).filter(counts) {
            if answered.request == idempotency.request {
                return Ok(Some(answered.answer.clone()));
            }
            return Err(Rejection::new(
                RejectionKind::KeyReused,
                format!("idempotency key {:?} was used for another request", idempotency.key),
            )
            .with_next("use a new key for a new request"));
        }
    }
    check_precondition(state, request)?;
    Ok(None)
}

fn decide_command(state: &State, request: &Request, context: &Context) -> Result<Vec<Event>, Rejection> {
    match &request.command {
        Command::CreateFleet { fleet, root, admin } => fleet::create(state, fleet, root, admin, context.now),
        Command::CertifyController { certificate, api, peer } => {
            fleet::certify(state, certificate, api, peer, context.now)
        }
        Command::ForgetController { controller } => fleet::forget_controller(state, *controller),
        Command::Deploy { app_env, contacts, release, again, barrier } => {
            deploy::deploy(state, app_env, contacts.as_ref(), release, *again, barrier.as_deref())
        }
        Command::Remove { app_env } => deploy::remove(state, app_env),
        Command::SetConfig { app_env, variables } => deploy::set_config(state, app_env, variables),
        Command::SetSecret { app_env, name, value } => deploy::set_secret(state, app_env, name, value),
        Command::Rollback { .. } => rollback::rollback(state, &request.principal, &request.command, context),
        Command::Undo { .. } => undo::undo(state, &request.principal, &request.command, context),
        Command::MarkPoint { scope, seq, bad } => review::mark_point(state, scope, *seq, *bad),
        Command::Review { rollback } => review::review(state, &request.principal, *rollback),
        Command::EraseSubject { subject, even_in_use } => erase::erase(state, subject, *even_in_use),
        Command::Unlatch { app_env } => {
            if state.control.latches.contains_key(app_env) {
                Ok(vec![Event::Unlatched { app_env: app_env.clone() }])
            } else {
                Ok(Vec::new())
            }
        }
        Command::CreateToken { token } => fleet::create_token(state, token, context.now),
        Command::RestoreAdmin { token } => fleet::restore_admin(state, token, context.now),
        Command::RevokeToken { principal } => fleet::revoke_token(state, principal, context.now),
        Command::CreateJoinToken { token } => fleet::create_join_token(state, token, context.now),
        Command::EnrollNode { join_token, node } => fleet::enroll(state, join_token, node, context.now),
        Command::LabelNode { node, labels } => fleet::label(state, node, labels),
        Command::RemoveNode { node } => fleet::remove_node(state, node),
        Command::DrainNode { node } => fleet::drain(state, node),
        Command::ResumeNode { node } => fleet::resume(state, node),
        Command::Report { reports } => Ok(rollout::report(state, reports)),
        Command::MarkNodes { lost, returned } => Ok(rollout::mark_nodes(state, lost, returned)),
        Command::Place { app_env, slots } => rollout::place(state, app_env, slots),
        Command::Assign { app_env, changes } => rollout::assign(state, app_env, changes),
        Command::FinishDeployment { app_env, deployment, outcome } => {
            rollout::finish(state, app_env, *deployment, outcome)
        }
        Command::StartTerm { term, controller } => {
            Ok(vec![Event::TermStarted { term: *term, controller: *controller }])
        }
        Command::RecordMembership { voters, learners } => {
            let same = state.control.voters.iter().eq(voters.iter())
                && state.control.learners.iter().eq(learners.iter());
            if same {
                return Ok(Vec::new());
            }
            Ok(vec![Event::MembershipChanged { voters: voters.clone(), learners: learners.clone() }])
        }
        Command::RecordStateDigest if planted!(WrongDigest) => {
            Ok(vec![Event::StateDigestRecorded { digest: crate::digest::Digest::EMPTY }])
        }
        Command::RecordStateDigest => Ok(vec![Event::StateDigestRecorded { digest: state.clone().digest() }]),
        Command::RecordRefusal { action, scope, why } => {
            Ok(fleet::record_refusal(state, &request.principal, action, scope, why, context.now))
        }
        Command::RecoverFleet { controller, given_up } => {
            fleet::recover(state, *controller, given_up, context.now)
        }
    }
}

/// Bounds on what is logged with every record.
fn check_shape(request: &Request) -> Result<(), Rejection> {
    let too_large = |what: &str, limit: usize| {
        Err(Rejection::new(RejectionKind::TooLarge, format!("the {what} is longer than {limit} bytes")))
    };
    if request.idempotency.as_ref().is_some_and(|it| it.key.len() > IDEMPOTENCY_KEY_BYTES_MAX) {
        return too_large("idempotency key", IDEMPOTENCY_KEY_BYTES_MAX);
    }
    if request.reason.as_ref().is_some_and(|reason| reason.len() > REASON_BYTES_MAX) {
        return too_large("reason", REASON_BYTES_MAX);
    }
    let links = &request.links;
    for link in [&links.ticket, &links.commit, &links.ci_run].into_iter().flatten() {
        if link.len() > REASON_BYTES_MAX {
            return too_large("link", REASON_BYTES_MAX);
        }
    }
    if let Some(trace) = &request.trace
        && (trace.len() != 32 || !trace.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        return Err(Rejection::new(RejectionKind::Invalid, "a trace id is 32 hex digits"));
    }
    Ok(())
}

/// What each role may ask. Who may ask controllers' own commands is nobody but them.
fn authorize(state: &State, request: &Request, now: Time) -> Result<(), Rejection> {
    // A refusal is recorded by a controller in the name of whoever was refused, who
    // need not have a token at all; no API asks for it.
    if request.principal.as_str() == SYSTEM || matches!(request.command, Command::RecordRefusal { .. }) {
        return Ok(());
    }
    let forbidden = |message: String| Err(Rejection::new(RejectionKind::Forbidden, message));
    let principal = &request.principal;
    let Some(token) = state.control.tokens.get(principal).filter(|token| token.expires > now) else {
        return forbidden(format!("{principal} has no valid token"));
    };
    let needed = match &request.command {
        Command::Deploy { .. }
        | Command::Remove { .. }
        | Command::SetConfig { .. }
        | Command::SetSecret { .. }
        | Command::Rollback { .. }
        | Command::Undo { .. }
        | Command::MarkPoint { .. }
        | Command::Review { .. }
        | Command::Unlatch { .. } => Role::Deployer,
        Command::CreateToken { .. }
        | Command::RevokeToken { .. }
        | Command::CreateJoinToken { .. }
        | Command::LabelNode { .. }
        | Command::RemoveNode { .. }
        | Command::DrainNode { .. }
        | Command::ResumeNode { .. }
        | Command::EraseSubject { .. }
        | Command::CertifyController { .. }
        | Command::ForgetController { .. } => Role::Admin,
        _ => return forbidden("only controllers ask this".to_owned()),
    };
    let allowed = match token.role {
        Role::Admin => true,
        Role::Deployer => needed == Role::Deployer,
        Role::Auditor => false,
    };
    if !allowed {
        let role = format!("{:?}", token.role).to_lowercase();
        let needed = format!("{needed:?}").to_lowercase();
        return forbidden(format!("{principal} is {role}; this needs the role {needed}"));
    }
    if matches!(request.command, Command::Unlatch { .. }) && token.holder == Holder::Service {
        return forbidden(format!(
            "{principal} is a service, and a latch is there to stop automation: a person must lift it"
        ));
    }
    Ok(())
}

fn check_precondition(state: &State, request: &Request) -> Result<(), Rejection> {
    let Some((scope, expected)) = &request.if_match else { return Ok(()) };
    let actual = state.last_changed(scope);
    if actual == *expected {
        return Ok(());
    }
    Err(Rejection::new(
        RejectionKind::Precondition,
        format!("{scope} was last changed at seq {actual}, not at seq {expected}"),
    )
    .with_next(format!("stele diff {scope} seq:{expected}")))
}

impl State {
    /// The seq that last changed a scope's target; zero when nothing ever did.
    pub fn last_changed(&self, scope: &crate::scope::Scope) -> Seq {
        self.history
            .last_changed
            .iter()
            .filter(|(app_env, _)| scope.covers_app_env(app_env))
            .map(|(_, seq)| *seq)
            .max()
            .unwrap_or(0)
    }
}

/// Seq that the next event will have, when `events` precede it in the decision.
fn next_seq(state: &State, events: &[Event]) -> Seq {
    state.seq + events.len() as u64 + 1
}
