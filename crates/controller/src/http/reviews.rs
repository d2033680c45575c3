//! What people say of points and of rollbacks afterwards.

use stele_api::wire::{MarkAnswer, MarkRequest, ReadQuery, ReviewOwed, ReviewRequest, ReviewsAnswer};
use stele_model::{Command, Decision, Event};

use super::asked::{Asked, Why};
use super::changes::changed;
use super::scopes::check_known;
use super::status::{point_seq, state_at};
use super::{Answered, json, scan};
use crate::handle::{Consistency, Handle};

pub(super) async fn mark(handle: &Handle, asked: &Asked) -> Answered {
    let request: MarkRequest = asked.body()?;
    let state = handle.read(Consistency::Linearizable).await?;
    let scope = request.scope;
    check_known(&scope, &[&state])?;
    let point = point_seq(handle, &state, &scope, &request.point).await?;
    let command = Command::MarkPoint { scope, seq: point, bad: request.bad };
    let why = Why { reason: request.reason, links: request.links };
    let answer = asked.submit(handle, command, None, why).await?;
    json(&MarkAnswer { point, seq: answer.decision.map(Decision::last) })
}

pub(super) async fn review(handle: &Handle, asked: &Asked) -> Answered {
    let request: ReviewRequest = asked.body()?;
    let command = Command::Review { rollback: request.rollback };
    let why = Why { reason: request.reason, links: request.links };
    let answer = asked.submit(handle, command, None, why).await?;
    json(&changed(&answer))
}

pub(super) async fn owed(handle: &Handle, asked: &Asked) -> Answered {
    let query: ReadQuery = asked.query()?;
    let state = state_at(handle, &asked.state, &stele_model::Scope::fleet(), query.at.as_deref()).await?;
    let mut owed = Vec::new();
    for rollback in state.control.reviews.keys() {
        // Where its record is missing, there is nothing to tell of it.
        let Some(record) = scan::record_here(handle, *rollback).await? else { continue };
        let Event::RolledBack { scope, point, .. } = record.event else { continue };
        owed.push(ReviewOwed {
            rollback: *rollback,
            time: record.header.time,
            principal: record.header.principal,
            scope,
            to: point,
            reason: record.header.reason.as_ref().map(stele_model::Value::told),
        });
    }
    json(&ReviewsAnswer { owed })
}
