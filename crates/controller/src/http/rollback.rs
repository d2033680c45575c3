//! Bringing an earlier state back, and what could be brought back.

use stele_api::ProblemKind;
use stele_api::limits::ROLLBACK_CANDIDATES_COUNT;
use stele_api::wire::{
    Candidate, CandidatesAnswer, CandidatesQuery, RollbackAnswer, RollbackApp, RollbackRequest, SlotNote,
};
use stele_model::decide::plan_rollback;
use stele_model::event::TargetDigest;
use stele_model::{Command, Decision, Event, Point, Revision, Scope, Seq, State, Time, diff};

use super::asked::{Asked, Why};
use super::failure::Failure;
use super::history::header_of;
use super::limits::CANDIDATES_MAX;
use super::plan::plan;
use super::status::point_seq;
use super::{Answered, json};
use crate::handle::{Consistency, Handle};

pub(super) async fn rollback(handle: &Handle, asked: &Asked) -> Answered {
    let request: RollbackRequest = asked.body()?;
    let state = handle.read(Consistency::Linearizable).await?;
    let scope = request.scope.clone();
    let point = point_seq(handle, &state, &scope, &request.to).await?;
    let past = handle.state_at(point).await?;
    let command = Command::Rollback {
        scope: scope.clone(),
        except: request.except.clone(),
        point: request.to.clone(),
        seq: point,
        now: request.now,
        strict: request.strict,
    };
    let why = Why { reason: request.reason.clone(), links: request.links.clone() };
    let mut answer = overview(&state, &past, &request, point);
    if request.plan {
        let submission = asked.submission(command, Some(scope.clone()), why)?;
        let planned = plan(handle, &state, &submission, Some(past))?;
        answer.planned = true;
        answer.differences = diff(&state, &planned.after, &scope);
        return json(&answer);
    }
    let answered = asked.submit(handle, command, Some(scope.clone()), why).await?;
    answer.deployments = answered.deployments;
    if let Some(decision) = answered.decision {
        answer.seq = Some(decision.last());
        // What the log says was done, which may be another time's doing when the key was used before.
        let (before, after) = logged_digests(handle, decision).await?;
        answer.before = before;
        answer.after = Some(after);
    } else {
        answer.after = Some(answer.before);
    }
    json(&answer)
}

/// What a rollback touches, app by app.
fn overview(state: &State, past: &State, request: &RollbackRequest, point: Seq) -> RollbackAnswer {
    let number = |revision: &Option<Revision>| {
        revision.as_ref().and_then(|revision| state.release_number(&revision.release))
    };
    let apps = plan_rollback(state, past, &request.scope, &request.except)
        .into_iter()
        .map(|plan| RollbackApp {
            from: number(&plan.from),
            to: number(&plan.to),
            moves: plan.slots.len(),
            replaced: plan.replaced.into_iter().map(|(slot, why)| SlotNote { slot, why }).collect(),
            app_env: plan.app_env,
        })
        .collect();
    RollbackAnswer {
        planned: false,
        scope: request.scope.clone(),
        to: request.to.clone(),
        point,
        apps,
        differences: Vec::new(),
        before: state.target_digest(&request.scope),
        wanted: past.target_digest(&request.scope),
        after: None,
        seq: None,
        deployments: Vec::new(),
    }
}

/// The digests the decision recorded.
async fn logged_digests(
    handle: &Handle,
    decision: Decision,
) -> Result<(TargetDigest, TargetDigest), Failure> {
    let missing = || {
        Failure::new(
            ProblemKind::Internal,
            format!("the rollback's record {} cannot be read", decision.last()),
        )
    };
    for (_, stored, _) in handle.records(decision.first, decision.count as usize).await? {
        if let Event::RolledBack { before, after, .. } = stored.decode().map_err(|_| missing())?.event {
            return Ok((before, after));
        }
    }
    Err(missing())
}

pub(super) async fn candidates(handle: &Handle, asked: &Asked) -> Answered {
    let query: CandidatesQuery = asked.query()?;
    let limit = query.limit.unwrap_or(ROLLBACK_CANDIDATES_COUNT).min(CANDIDATES_MAX);
    let state = &asked.state;
    let scope = query.scope;
    let app_env = scope.as_app_env().filter(|_| !scope.is_placed()).ok_or_else(|| {
        Failure::invalid(format!("{scope} is more or less than one app in one environment: say to when"))
            .with_next(format!("stele rollback {scope} --to \"1h ago\" --plan"))
    })?;
    let mut candidates = Vec::new();
    for entry in state.timeline(&app_env).into_iter().skip(1).take(limit) {
        let past = handle.state_at(entry.until).await?;
        let brought = header_of(handle, entry.from).await?;
        candidates.push(Candidate {
            to: name_of(state, &scope, entry.release, entry.until),
            seq: entry.until,
            time: time_of(handle, entry.until).await?,
            release: entry.release,
            good: entry.good,
            principal: brought.map(|header| header.principal),
            differences: diff(state, &past, &scope),
        });
    }
    json(&CandidatesAnswer { scope: Scope::app_env(&app_env), candidates })
}

/// `v3` where that means this point, else `seq:120`.
fn name_of(state: &State, scope: &Scope, release: Option<u32>, until: Seq) -> String {
    release
        .map(Point::Release)
        .filter(|point| state.resolve_point(scope, point).ok() == Some(until))
        .unwrap_or(Point::Seq(until))
        .to_string()
}

async fn time_of(handle: &Handle, seq: Seq) -> Result<Time, Failure> {
    Ok(header_of(handle, seq).await?.map(|header| header.time).unwrap_or_default())
}
