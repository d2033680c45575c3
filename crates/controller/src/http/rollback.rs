//! Bringing an earlier state back, and what could be brought back.

use stele_api::ProblemKind;
use stele_api::limits::{ROLLBACK_CANDIDATES_COUNT, ROLLBACK_CANDIDATES_MAX};
use stele_api::wire::{
    Barrier, Candidate, CandidatesAnswer, CandidatesQuery, NodeChange, RollbackAnswer, RollbackApp,
    RollbackRequest,
};
use stele_model::decide::{RollbackPlan, plan_rollback};
use stele_model::event::{Deviation, TargetDigest};
use stele_model::point::{Earlier, Verdict};
use stele_model::trial::try_out;
use stele_model::{
    Answer, AppEnv, Command, Context, Decision, Event, Point, Revision, Scope, Seq, Slot, State, diff,
};

use super::asked::{Asked, Why};
use super::failure::Failure;
use super::history::header_of;
use super::preflight::{Wanted, obstacles};
use super::scopes::{check_known, check_scopes, with_environment};
use super::status::point_seq;
use super::{Answered, beside, json, written};
use crate::handle::{Consistency, Handle};

pub(super) async fn rollback(handle: &Handle, asked: &Asked) -> Answered {
    let mut request: RollbackRequest = asked.body()?;
    let mut state = handle.read(Consistency::Linearizable).await?;
    let before = if request.plan { None } else { asked.answered_in(handle, &state).await? };
    // What was done under this key before is told as it was then, whatever has changed since.
    let done = match before.as_ref().and_then(|answer| answer.decision) {
        Some(decision) => Some(logged(handle, decision).await?),
        None => None,
    };
    if let Some(done) = &done {
        state = handle.state_at(done.decision.first - 1).await?;
    }
    request.scope = with_environment(&state, request.scope, |scope| {
        format!("stele rollback {scope} --to {}", Point::quoted(&request.to))
    })?;
    let scope = request.scope.clone();
    check_scopes(&scope, &request.except, &[&state])?;
    let point = match &done {
        Some(done) => done.point,
        None => point_seq(handle, &state, &scope, &request.to).await?,
    };
    let past = handle.target_at(point).await?;
    // Of a large fleet there is much to plan and to tell, which no other request should wait for.
    let planning = {
        let (state, past) = (state.clone(), past.clone());
        let (scope, except) = (scope.clone(), request.except.clone());
        beside(move || {
            let plans = plan_rollback(&state, &past, &scope, &except);
            let after = applied(&state, &plans);
            (plans, after)
        })
    };
    let (mut plans, after) = planning.await?;
    if let Some(answered) = before {
        let answer = match done {
            Some(done) => {
                let after = handle.target_at(done.decision.last()).await?;
                plans.retain(|plan| !diff(&state, &after, &Scope::app_env(&plan.app_env)).is_empty());
                let mut answer = overview(&state, &past, &request, point, &plans, Ok)?;
                answer.differences = diff(&state, &after, &scope);
                done.put_into(&mut answer, answered);
                answer
            }
            None => unchanged(overview(&state, &past, &request, point, &[], Ok)?),
        };
        return json(&answer);
    }
    let unobtainable = obstacles_of(handle, &state, &after, &plans, !scope.is_placed()).await;
    for (app_env, why) in &unobtainable {
        let blocked = plans.iter_mut().filter(|plan| plan.app_env == *app_env);
        blocked.for_each(|plan| plan.blocked.push(why.clone()));
    }
    let command = Command::Rollback {
        scope: scope.clone(),
        except: request.except.clone(),
        point: request.to.clone(),
        seq: point,
        now: request.now,
        strict: request.strict,
        best_effort: request.best_effort,
        pass_barriers: request.pass_barriers,
        unobtainable,
    };
    let why = Why { reason: request.reason.clone(), links: request.links.clone() };
    if request.plan {
        let mut answer = overview(&state, &past, &request, point, &plans, Ok)?;
        // A plan of what would be refused says why, app by app.
        let submission = asked.submission(handle, passing(command), Some(scope.clone()), why).await?;
        let context = Context { now: handle.now(), past: [(point, past)].into() };
        answer.planned = true;
        answer.differences = beside(move || {
            let planned = try_out(&state, &submission, &context)?;
            Ok::<_, Failure>(diff(&state, &planned.after, &scope))
        })
        .await??;
        return json(&answer);
    }
    // The decision does not wait for what is told of it, nor for that to be written.
    let told = beside(move || {
        let mut answer = overview(&state, &past, &request, point, &plans, |apps| written(&apps))?;
        let mut planned = state.clone();
        plans.iter().filter(|plan| plan.blocked.is_empty()).for_each(|plan| plan.apply(&mut planned));
        answer.differences = diff(&state, &planned, &request.scope);
        Ok::<_, Failure>(answer)
    });
    let answered = asked.submit(handle, command, Some(scope), why).await?;
    let mut answer = told.await??;
    let Some(decision) = answered.decision else { return json(&unchanged(answer)) };
    logged(handle, decision).await?.put_into(&mut answer, answered);
    json(&answer)
}

/// Of a rollback to what is there already.
fn unchanged<A>(answer: RollbackAnswer<A>) -> RollbackAnswer<A> {
    RollbackAnswer { after: Some(answer.before), ..answer }
}

fn applied(state: &State, plans: &[RollbackPlan]) -> State {
    let mut after = state.clone();
    for plan in plans {
        plan.apply(&mut after);
    }
    after
}

async fn obstacles_of(
    handle: &Handle,
    state: &State,
    after: &State,
    plans: &[RollbackPlan],
    for_all: bool,
) -> Vec<(AppEnv, String)> {
    let changed = plans.iter().filter(|plan| plan.is_change(state));
    let apps = changed.map(|plan| plan.app_env.clone()).collect();
    obstacles(handle, &Wanted { state, after, apps: &apps, for_all }).await
}

/// The same rollback where nothing is refused, to show what it would come to.
fn passing(command: Command) -> Command {
    match command {
        Command::Rollback { scope, except, point, seq, now, unobtainable, .. } => Command::Rollback {
            scope,
            except,
            point,
            seq,
            now,
            strict: false,
            best_effort: true,
            pass_barriers: true,
            unobtainable,
        },
        other => other,
    }
}

/// What a rollback touches, app by app, each as `write` gives them.
fn overview<A>(
    state: &State,
    past: &State,
    request: &RollbackRequest,
    point: Seq,
    plans: &[RollbackPlan],
    write: impl FnOnce(Vec<RollbackApp>) -> Result<A, Failure>,
) -> Result<RollbackAnswer<A>, Failure> {
    let before = state.target_digest(&request.scope);
    Ok(RollbackAnswer {
        planned: false,
        scope: request.scope.clone(),
        to: request.to.clone(),
        point,
        apps: write(
            plans.iter().filter(|plan| plan.is_change(state)).map(|plan| app(state, plan)).collect(),
        )?,
        differences: Vec::new(),
        before,
        wanted: past.target_digest_after(&request.scope, state, before),
        after: None,
        seq: None,
        deployments: Vec::new(),
        deviations: plans.iter().flat_map(RollbackPlan::told).cloned().collect(),
    })
}

fn app(state: &State, plan: &RollbackPlan) -> RollbackApp {
    let number = |revision: &Option<Revision>| {
        revision.as_ref().and_then(|revision| state.release_number(&revision.release))
    };
    let nodes = plan.by_node(state).into_iter().map(|(node, change)| {
        let stele_model::decide::NodeChange { added, replaced, removed } = change;
        (node, NodeChange { added, replaced, removed })
    });
    let is_there = |slot: &Slot| state.target.placement.contains_key(slot);
    RollbackApp {
        app_env: plan.app_env.clone(),
        from: number(&plan.from),
        to: number(&plan.restored),
        moves: plan.slots.iter().filter(|(slot, node)| node.is_some() && is_there(slot)).count(),
        deviations: plan.told().cloned().collect(),
        blocked: plan.blocked.clone(),
        barriers: barriers_of(plan).collect(),
        nodes: nodes.collect(),
        volumes: volumes(state, &plan.app_env, plan.restored.as_ref()),
    }
}

fn barriers_of(plan: &RollbackPlan) -> impl Iterator<Item = Barrier> {
    plan.barriers.iter().map(|(seq, what)| Barrier { deployment: *seq, what: what.clone() })
}

/// What no rollback brings back, because it is not in the log: the data in volumes.
fn volumes(state: &State, app_env: &AppEnv, restored: Option<&Revision>) -> Vec<String> {
    let revisions = state.target.intent.get(app_env).map(AsRef::as_ref).into_iter().chain(restored);
    let mut volumes: Vec<String> = revisions
        .filter_map(|revision| state.history.releases.get(&revision.release))
        .flat_map(|record| &record.release.services)
        .flat_map(|(name, service)| {
            service.container.volumes.iter().map(move |volume| format!("{} of service {name}", volume.path))
        })
        .collect();
    volumes.sort();
    volumes.dedup();
    volumes
}

/// What the decision recorded.
struct Logged {
    decision: Decision,
    point: Seq,
    before: TargetDigest,
    after: TargetDigest,
    deviations: Vec<Deviation>,
}

impl Logged {
    fn put_into<A>(self, answer: &mut RollbackAnswer<A>, answered: Answer) {
        answer.seq = Some(self.decision.last());
        answer.before = self.before;
        answer.after = Some(self.after);
        answer.deviations = self.deviations;
        answer.deployments = answered.deployments;
    }
}

async fn logged(handle: &Handle, decision: Decision) -> Result<Logged, Failure> {
    // It is the last one of its decision.
    let record = super::scan::record(handle, decision.last()).await?;
    let Some(Event::RolledBack { seq: point, before, after, deviations, .. }) = record.map(|it| it.event)
    else {
        let detail = format!("the rollback's record {} cannot be read", decision.last());
        return Err(Failure::new(ProblemKind::Internal, detail));
    };
    Ok(Logged { decision, point, before, after, deviations })
}

pub(super) async fn candidates(handle: &Handle, asked: &Asked) -> Answered {
    let query: CandidatesQuery = asked.query()?;
    let limit = query.limit.unwrap_or(ROLLBACK_CANDIDATES_COUNT);
    if limit > ROLLBACK_CANDIDATES_MAX {
        // Fewer would look like all there are.
        return Err(Failure::invalid(format!(
            "at most {ROLLBACK_CANDIDATES_MAX} candidates are listed (ROLLBACK_CANDIDATES_MAX); any earlier point can be \
             named by its seq"
        ))
        .with_next(format!("stele history {}", query.scope)));
    }
    let state = &asked.state;
    let scope = with_environment(state, query.scope, |scope| format!("stele rollback {scope}"))?;
    check_known(&scope, &[state])?;
    // State keeps an app's newest changes and deployments, the log all of them. Whatever was deployed in vain since, the
    // way out is among those listed.
    let is_enough = |state: &State, since| {
        let mut certain = state.earlier(&scope, since).take_while(|earlier| earlier.is_certain);
        let listed: Vec<_> = certain.by_ref().take(limit).collect();
        let is_good = |earlier: &Earlier| earlier.verdict == Verdict::Good;
        listed.len() == limit && (listed.iter().any(is_good) || certain.any(|earlier| is_good(&earlier)))
    };
    let (state, since) = &handle.remembering(state, &scope, is_enough).await?;
    let mut candidates: Vec<Candidate> = Vec::new();
    // What State forgot was not looked at.
    let mut more = *since > 0;
    for earlier in state.earlier(&scope, *since) {
        let has_good = candidates.iter().any(|it| it.verdict == Verdict::Good);
        let is_full = candidates.len() >= limit;
        more |= is_full;
        if is_full && (has_good || limit == 0) {
            break;
        }
        if is_full && (earlier.verdict != Verdict::Good || !earlier.is_certain) {
            continue;
        }
        if let Some(one) = candidate(handle, state, &scope, earlier, query.check).await? {
            candidates.truncate(limit - 1);
            candidates.push(one);
        }
    }
    json(&CandidatesAnswer { scope, candidates, more })
}

/// What a rollback to an earlier point would come to; nothing where it would change nothing.
async fn candidate(
    handle: &Handle,
    state: &State,
    scope: &Scope,
    Earlier { point, verdict, .. }: Earlier,
    check: bool,
) -> Result<Option<Candidate>, Failure> {
    let past = handle.target_at(point).await?;
    let differences = diff(state, &past, scope);
    // A place may be as it was though its app is not.
    if differences.is_empty() {
        return Ok(None);
    }
    let entry = scope
        .as_app_env()
        .and_then(|app_env| state.timeline(&app_env).into_iter().find(|entry| entry.until == point));
    let brought = match &entry {
        Some(entry) => header_of(handle, entry.from).await?,
        None => None,
    };
    let release = entry.and_then(|entry| entry.release);
    let mut candidate = Candidate {
        to: name_of(state, scope, release, point),
        seq: point,
        time: past.time,
        release,
        verdict,
        principal: brought.map(|header| header.principal),
        differences,
        checked: check,
        blocked: Vec::new(),
        deviations: Vec::new(),
        barriers: Vec::new(),
    };
    if check {
        let plans = plan_rollback(state, &past, scope, &[]);
        let after = applied(state, &plans);
        let unobtainable = obstacles_of(handle, state, &after, &plans, !scope.is_placed()).await;
        let known = plans.iter().flat_map(|plan| plan.blocked.iter().map(|why| (&plan.app_env, why)));
        let told = unobtainable.iter().map(|(app_env, why)| (app_env, why));
        candidate.blocked = known.chain(told).map(|(app_env, why)| format!("{app_env}: {why}")).collect();
        candidate.barriers = plans.iter().flat_map(barriers_of).collect();
        candidate.deviations = plans.iter().flat_map(RollbackPlan::told).cloned().collect();
    }
    Ok(Some(candidate))
}

/// `v3` where that means this point, else `seq:120`.
fn name_of(state: &State, scope: &Scope, release: Option<u32>, until: Seq) -> String {
    release
        .map(Point::Release)
        .filter(|point| state.resolve_point(scope, point).ok() == Some(until))
        .unwrap_or(Point::Seq(until))
        .to_string()
}
