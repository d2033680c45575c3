//! What is sealed for a subject: destroying it, and opening a reason.

use stele_api::ProblemKind;
use stele_api::wire::{
    ErasedSubject, ErasureAnswer, ErasureRequest, ErasuresAnswer, ReadQuery, ReasonAnswer, ReasonQuery,
};
use stele_model::{Command, Decision, Seq, Value};

use super::asked::{Asked, Why};
use super::failure::Failure;
use super::status::state_at;
use super::{Answered, json};
use crate::handle::{Consistency, Handle};
use crate::limits::{ERASURE_CONFIRMATION_DEADLINE, ERASURE_CONFIRMATION_INTERVAL};

pub(super) async fn erase(handle: &Handle, asked: &Asked) -> Answered {
    let ErasureRequest { subject, even_in_use, reason, links } = asked.body()?;
    // A misspelt subject must not be said to be unreadable now, while the one that was meant is not.
    let state = handle.read(Consistency::Linearizable).await?;
    if stele_model::value::is_subject(&subject)
        && !state.control.erased.contains_key(&subject)
        && handle.keepers_of(&subject, state.key_version(&subject)).await.is_empty()
    {
        let detail = format!("nothing was ever sealed for {subject}: no controller has a key of it");
        return Err(Failure::new(ProblemKind::NotFound, detail));
    }
    let command = Command::EraseSubject { subject: subject.clone(), even_in_use };
    let answer = asked.submit(handle, command, None, Why { reason, links }).await?;
    let state = handle.read(Consistency::Linearizable).await?;
    let through = state.control.erased.get(&subject).copied().unwrap_or_default();
    let deadline = tokio::time::Instant::now() + ERASURE_CONFIRMATION_DEADLINE;
    let keepers = loop {
        let keepers = handle.keepers_of(&subject, through).await;
        if keepers.is_empty() || tokio::time::Instant::now() >= deadline {
            break keepers;
        }
        tokio::time::sleep(ERASURE_CONFIRMATION_INTERVAL).await;
    };
    json(&ErasureAnswer { subject, through, seq: answer.decision.map(Decision::last), keepers })
}

pub(super) async fn erased(handle: &Handle, asked: &Asked) -> Answered {
    let query: ReadQuery = asked.query()?;
    let state = state_at(handle, &asked.state, &stele_model::Scope::fleet(), query.at.as_deref()).await?;
    let erased = state.control.erased.iter();
    let erased =
        erased.map(|(subject, through)| ErasedSubject { subject: subject.clone(), through: *through });
    json(&ErasuresAnswer { erased: erased.collect() })
}

pub(super) async fn reason(handle: &Handle, asked: &Asked) -> Answered {
    let ReasonQuery { consistency: _ } = asked.query()?;
    let seq: Seq = asked.path("seq")?;
    let found = if seq <= asked.state.seq { handle.records(seq, 1).await? } else { Vec::new() };
    let Some((_, stored, _)) = found.into_iter().find(|(found, ..)| *found == seq) else {
        return Err(Failure::new(
            ProblemKind::NotFound,
            format!("there is no record {seq}: the newest is {}", asked.state.seq),
        ));
    };
    let header = stored.header().map_err(|error| Failure::new(ProblemKind::Internal, error.to_string()))?;
    let (reason, sealed_for) = match header.reason {
        None => (None, None),
        Some(Value::Plain(reason)) => (Some(reason), None),
        Some(Value::Sealed(sealed)) => (handle.open(&sealed).await?, Some(sealed.subject)),
    };
    json(&ReasonAnswer { seq, reason, sealed_for })
}
