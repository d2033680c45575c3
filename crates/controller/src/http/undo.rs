//! Taking changes back and keeping later ones.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::try_join_all;
use stele_api::ProblemKind;
use stele_api::wire::{UndoAnswer, UndoApp, UndoRequest, UndoneDecision};
use stele_model::decide::{UndoPlan, plan_undo};
use stele_model::limits::UNDO_DECISIONS_MAX;
use stele_model::rejection::{Rejection, RejectionKind};
use stele_model::trial::try_out;
use stele_model::{Answer, Command, Context, Decision, Event, Header, PrincipalId, Scope, Seq, State, diff};

use super::asked::{Asked, Why};
use super::failure::Failure;
use super::history::header_of;
use super::limits::UNDO_RECORDS_SCANNED_MAX;
use super::preflight::{Wanted, obstacles};
use super::status::point_seq;
use super::{Answered, beside, json, scan};
use crate::handle::{Consistency, Handle};

/// The changes an undo is about.
struct Chosen {
    what: String,
    between: Option<(Seq, Seq)>,
    /// Their first records' headers.
    headers: Vec<Header>,
}

pub(super) async fn undo(handle: &Handle, asked: &Asked) -> Answered {
    let request: UndoRequest = asked.body()?;
    let mut state = handle.read(Consistency::Linearizable).await?;
    let before = if request.plan { None } else { asked.answered_in(handle, &state).await? };
    let chosen = match before.as_ref().and_then(|answer| answer.decision) {
        // What was done under this key before is told as it was then, whatever has changed since.
        Some(decision) => {
            state = handle.state_at(decision.first - 1).await?;
            chosen_before(handle, &state, decision).await?
        }
        None => choose(handle, &state, &request).await?,
    };
    let mut headers = chosen.headers;
    headers.sort_by_key(|header| std::cmp::Reverse(header.seq));
    let decisions: Vec<Decision> = headers.iter().map(|header| header.decision).collect();
    let mut answer = UndoAnswer {
        planned: request.plan,
        what: chosen.what.clone(),
        between: chosen.between,
        decisions: headers.iter().map(told).collect(),
        apps: Vec::new(),
        conflicts: Vec::new(),
        blocked: Vec::new(),
        differences: Vec::new(),
        seq: None,
        deployments: Vec::new(),
    };
    let past = past(handle, &decisions).await?;
    let plan = plan_undo(&state, &decisions, &past)?;
    let after = after(&state, &plan);
    answer.apps = apps(&state, &after, &plan);
    if let Some(done) = before {
        return json(&carried_out(answer, done));
    }
    let command = Command::Undo {
        decisions: decisions.clone(),
        what: chosen.what.clone(),
        now: request.now,
        pass_barriers: request.pass_barriers,
    };
    let why = Why { reason: request.reason, links: request.links };
    // What stands in the way is about an app, too.
    let changed = plan.apps.iter().map(|app| &app.app_env);
    let about: BTreeSet<_> = changed.chain(plan.conflicts.iter().map(|conflict| &conflict.app_env)).collect();
    let scope = if about.len() == 1 { about.first().map(|app_env| Scope::app_env(app_env)) } else { None };
    let in_the_way = blocked(&state, &plan, &decisions, request.pass_barriers);
    if request.plan {
        answer.conflicts = plan.conflicts.clone();
        answer.blocked = in_the_way;
        if answer.conflicts.is_empty() && answer.blocked.is_empty() {
            // Whatever else would be refused: by who asks, or by what it is about.
            let submission = asked.submission(handle, command, scope, why).await?;
            let (state, context) = (state.clone(), Context { now: handle.now(), past });
            let tried = beside(move || try_out(&state, &submission, &context).err()).await?;
            let words = |refused: Rejection| std::iter::once(refused.message).chain(refused.details);
            answer.blocked.extend(tried.into_iter().flat_map(words));
        }
        answer.blocked.extend(obstacles_of(handle, &state, &after, &plan).await);
        answer.differences = diff(&state, &after, &Scope::fleet());
        return json(&answer);
    }
    // Refusals that need nobody's word come first, and with all their words, from the decision itself.
    if plan.conflicts.is_empty() && in_the_way.is_empty() {
        let obstacles = obstacles_of(handle, &state, &after, &plan).await;
        if !obstacles.is_empty() {
            let message = format!("{} cannot be undone", chosen.what);
            return Err(Rejection::new(RejectionKind::Conflict, message).with_details(obstacles).into());
        }
    }
    let done = asked.submit(handle, command, scope, why).await?;
    json(&carried_out(answer, done))
}

fn carried_out(answer: UndoAnswer, done: Answer) -> UndoAnswer {
    UndoAnswer { seq: done.decision.map(Decision::last), deployments: done.deployments, ..answer }
}

fn told(header: &Header) -> UndoneDecision {
    UndoneDecision {
        seq: header.seq,
        time: header.time,
        principal: header.principal.clone(),
        reason: header.reason.as_ref().map(stele_model::Value::told),
    }
}

/// State just before and just after each decision.
async fn past(handle: &Handle, decisions: &[Decision]) -> Result<BTreeMap<Seq, State>, Failure> {
    let mut past = BTreeMap::new();
    for decision in decisions {
        for seq in [decision.first - 1, decision.last()] {
            past.insert(seq, handle.target_at(seq).await?);
        }
    }
    Ok(past)
}

fn after(state: &State, plan: &UndoPlan) -> State {
    let mut after = state.clone();
    plan.apps.iter().for_each(|app| app.apply(&mut after));
    after
}

async fn obstacles_of(handle: &Handle, state: &State, after: &State, plan: &UndoPlan) -> Vec<String> {
    let apps = plan.apps.iter().map(|app| app.app_env.clone()).collect();
    let obstacles = obstacles(handle, &Wanted { state, after, apps: &apps, for_all: false }).await;
    obstacles.into_iter().map(|(app_env, why)| format!("{app_env}: {why}")).collect()
}

fn apps(state: &State, after: &State, plan: &UndoPlan) -> Vec<UndoApp> {
    let number = |state: &State, revision: Option<&stele_model::Revision>| {
        revision.and_then(|revision| state.release_number(&revision.release))
    };
    let app = |app: &stele_model::decide::UndoneApp| UndoApp {
        app_env: app.app_env.clone(),
        from: number(state, app.from.as_ref()),
        to: number(after, app.to.as_ref()),
        restores: app.restores,
        deviations: app.deviations.clone(),
    };
    plan.apps.iter().map(app).collect()
}

fn blocked(state: &State, plan: &UndoPlan, decisions: &[Decision], pass_barriers: bool) -> Vec<String> {
    let blocked = plan.apps.iter();
    let mut blocked: Vec<_> =
        blocked.flat_map(|app| app.blocked.iter().map(|why| format!("{}: {why}", app.app_env))).collect();
    if !pass_barriers {
        blocked.extend(plan.barriers(state, decisions));
    }
    blocked
}

async fn choose(handle: &Handle, state: &State, request: &UndoRequest) -> Result<Chosen, Failure> {
    let ranged = request.from.is_some() || request.to.is_some();
    match (request.deployment, request.seq, &request.actor) {
        (Some(id), None, None) if !ranged => {
            let header = at(handle, state, id).await?;
            if header.kind != "deployment_started" {
                return Err(
                    Failure::not_found(format!("there is no deployment {id}")).with_next("stele history")
                );
            }
            one(handle, format!("deploy:{id}"), header).await
        }
        (None, Some(seq), None) if !ranged => {
            let header = at(handle, state, seq).await?;
            one(handle, format!("seq:{seq}"), header).await
        }
        (None, None, Some(actor)) => {
            let scope = Scope::fleet();
            let from = request.from.as_deref().ok_or_else(|| {
                Failure::invalid("say since when: `from` is the point just before the first change")
            })?;
            let mut low = point_seq(handle, state, &scope, from).await?;
            let mut high = match request.to.as_deref() {
                Some(to) => point_seq(handle, state, &scope, to).await?,
                None => state.seq,
            };
            if low > high {
                std::mem::swap(&mut low, &mut high);
            }
            let headers = of_actor(handle, actor, low, high).await?;
            let what = format!("actor:{actor} between seq:{low} and seq:{high}");
            Ok(Chosen { what, between: Some((low, high)), headers })
        }
        _ => Err(Failure::invalid(
            "say what to undo: exactly one of deployment, seq and actor; from and to belong to actor",
        )),
    }
}

/// What a decision undid, as it was written down.
async fn chosen_before(handle: &Handle, state: &State, decision: Decision) -> Result<Chosen, Failure> {
    let record = scan::record(handle, decision.last()).await?;
    let Some(Event::Undone { what, decisions, .. }) = record.map(|record| record.event) else {
        let detail = format!("the undo's record {} cannot be read", decision.last());
        return Err(Failure::new(ProblemKind::Internal, detail));
    };
    let headers = try_join_all(decisions.into_iter().map(|first| at(handle, state, first))).await?;
    let between = between_in(&what);
    Ok(Chosen { what, between, headers })
}

/// The seqs that [`of_actor`] looked between, from what is said of them.
fn between_in(what: &str) -> Option<(Seq, Seq)> {
    let (low, high) = what.split_once(" between seq:")?.1.split_once(" and seq:")?;
    Some((low.parse().ok()?, high.parse().ok()?))
}

/// The header of a record that must be there.
async fn at(handle: &Handle, state: &State, seq: Seq) -> Result<Header, Failure> {
    let missing = || {
        Failure::not_found(format!("there is no record {seq}: the log ends at seq {}", state.seq))
            .with_next("stele events")
    };
    if seq == 0 || seq > state.seq {
        return Err(missing());
    }
    header_of(handle, seq).await?.ok_or_else(missing)
}

async fn one(handle: &Handle, what: String, header: Header) -> Result<Chosen, Failure> {
    let first = header.decision.first;
    let header = if header.seq == first { Some(header) } else { header_of(handle, first).await? };
    let headers = header.into_iter().collect();
    Ok(Chosen { what, between: None, headers })
}

/// The changes of a target that somebody made after one seq and up to another.
async fn of_actor(handle: &Handle, actor: &PrincipalId, low: Seq, high: Seq) -> Result<Vec<Header>, Failure> {
    if high - low > UNDO_RECORDS_SCANNED_MAX {
        return Err(Failure::new(
            ProblemKind::TooLarge,
            format!(
                "there are {} records between seq:{low} and seq:{high}, more than UNDO_RECORDS_SCANNED_MAX, \
                 {UNDO_RECORDS_SCANNED_MAX}: name a shorter time",
                high - low
            ),
        ));
    }
    let mut found: BTreeMap<Seq, Header> = BTreeMap::new();
    let too_many = || {
        Failure::new(
            ProblemKind::TooLarge,
            format!(
                "{actor} made more changes than UNDO_DECISIONS_MAX, {UNDO_DECISIONS_MAX}: name a shorter time"
            ),
        )
    };
    scan::forward(handle, low + 1, high, |header| {
        let changes = matches!(header.kind.as_str(), "target_changed" | "pins_changed");
        if changes && header.principal == *actor {
            found.entry(header.decision.first).or_insert_with(|| header.clone());
        }
        if found.len() > UNDO_DECISIONS_MAX { Err(too_many()) } else { Ok(()) }
    })
    .await?;
    Ok(found.into_values().map(|header| Header { seq: header.decision.first, ..header }).collect())
}
