//! Destroying what was sealed for a subject.

use stele_api::wire::{ErasedSubject, ErasureAnswer, ErasureRequest, ErasuresAnswer, ReadQuery};
use stele_model::{Command, Decision};

use super::asked::{Asked, Why};
use super::status::state_at;
use super::{Answered, json};
use crate::handle::{Consistency, Handle};
use crate::limits::{ERASURE_CONFIRMATION_DEADLINE, ERASURE_CONFIRMATION_INTERVAL};

pub(super) async fn erase(handle: &Handle, asked: &Asked) -> Answered {
    let ErasureRequest { subject, even_in_use, reason, links } = asked.body()?;
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
