//! Why something is as it is: the model says which records it needs, and this finds them.

use stele_api::ProblemKind;
use stele_api::wire::WhyQuery;
use stele_model::State;
use stele_model::why::{Evidence, Lack, Subject, Told, why};

use super::asked::Asked;
use super::failure::Failure;
use super::limits::{WHY_LOOKUPS_MAX, WHY_RECORDS_SCANNED_MAX};
use super::status::state_at;
use super::{Answered, json, scan};
use crate::handle::Handle;

pub(super) async fn explain(handle: &Handle, asked: &Asked) -> Answered {
    let query: WhyQuery = asked.query()?;
    let subject: Subject = query.subject.parse()?;
    let state = state_at(handle, &asked.state, &subject.scope(), query.at.as_deref()).await?;
    json(&chain(handle, &state, &subject).await?)
}

async fn chain(handle: &Handle, state: &State, subject: &Subject) -> Result<stele_model::why::Why, Failure> {
    let mut evidence = Evidence::default();
    let mut left = WHY_RECORDS_SCANNED_MAX;
    for _ in 0..WHY_LOOKUPS_MAX {
        let lack = match why(state, subject, &evidence)? {
            Told::All(why) => return Ok(*why),
            Told::Lacks(lack) => lack,
        };
        let found = match &lack {
            Lack::Record(seq) => scan::record(handle, *seq).await?,
            Lack::Newest { kind, scopes, until } => {
                let matches = |header: &stele_model::Header| {
                    header.kind == *kind && scopes.iter().all(|scope| header.scopes.contains(scope))
                };
                let found = scan::newest(handle, *until, left, matches).await?;
                // All looks together are bounded, so that one answer cannot take the log's length.
                left -= until - found.as_ref().map_or(until.saturating_sub(left), |record| record.header.seq);
                found
            }
        };
        evidence.known.insert(lack, found);
    }
    Err(Failure::new(
        ProblemKind::Internal,
        format!("{subject} has more causes than WHY_LOOKUPS_MAX, {WHY_LOOKUPS_MAX}"),
    ))
}
