//! Looking through the log for records that no index names.

use stele_api::ProblemKind;
use stele_codec::StoredRecord;
use stele_model::{Header, Record, Seq};

use super::failure::Failure;
use super::limits::RECORDS_PER_SCAN;
use crate::handle::{Handle, ReadError};
use crate::past::PastError;

fn damaged(error: &impl std::fmt::Display) -> Failure {
    Failure::new(ProblemKind::Internal, error.to_string())
}

/// One record, also when it is missing here.
pub(super) async fn record_here(handle: &Handle, seq: Seq) -> Result<Option<Record>, Failure> {
    match handle.records(seq, 1).await {
        Err(ReadError::Past(PastError::Missing(_))) => Ok(None),
        _ => record(handle, seq).await,
    }
}

/// One record of the log.
pub(super) async fn record(handle: &Handle, seq: Seq) -> Result<Option<Record>, Failure> {
    let found = handle.records(seq, 1).await?;
    let stored = found.first().filter(|(at, ..)| *at == seq).map(|(_, stored, _)| stored);
    stored.map(StoredRecord::decode).transpose().map_err(|error| damaged(&error))
}

/// Goes through headers of a range in order, until told to stop.
pub(super) async fn forward(
    handle: &Handle,
    from: Seq,
    to: Seq,
    mut look: impl FnMut(&Header) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut next = from;
    while next <= to {
        let left = usize::try_from(to - next + 1).unwrap_or(usize::MAX);
        let records = handle.records(next, left.min(RECORDS_PER_SCAN)).await?;
        let Some((last, ..)) = records.last() else { return Ok(()) };
        next = last + 1;
        for (_, stored, _) in &records {
            look(&stored.header().map_err(|error| damaged(&error))?)?;
        }
    }
    Ok(())
}

/// The newest record up to `until` that matches, among so many.
pub(super) async fn newest(
    handle: &Handle,
    until: Seq,
    records_max: u64,
    matches: impl Fn(&Header) -> bool,
) -> Result<Option<Record>, Failure> {
    let end = until.saturating_sub(records_max);
    let mut high = until;
    while high > end {
        let low = high.saturating_sub(RECORDS_PER_SCAN as u64).max(end);
        let mut found = None;
        forward(handle, low + 1, high, |header| {
            if matches(header) {
                found = Some(header.seq);
            }
            Ok(())
        })
        .await?;
        if let Some(seq) = found {
            return record(handle, seq).await;
        }
        high = low;
    }
    Ok(None)
}
