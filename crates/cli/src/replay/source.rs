//! Where records come from.

use std::fmt;
use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stele_api::limits::RECORDS_PAGE_MAX;
use stele_api::wire::{RawRecord, RecordsPage};
use stele_codec::{Chain, RecordBytes, StoredRecord};
use stele_model::Seq;
use stele_store::{Reader, StoreError};

use super::divergence::Divergence;
use crate::client::{Client, with_query};
use crate::exit::Failure;
use crate::options::ReadOptions;

/// What is done with a record and the chain that is stored beside it, where one is. Answers whether to go on.
pub(crate) type Each<'a> = dyn FnMut(RecordBytes<'_>, Option<Chain>) -> bool + 'a;

/// Gives records in order.
pub(crate) trait Source: Send {
    /// Hands on at least one record from `from` on, and none after `to`.
    fn read(&mut self, from: Seq, to: Seq, each: &mut Each<'_>) -> Result<(), Failure>;
}

/// A record whose bytes are not what anybody wrote.
fn unreadable(seq: Seq, why: impl fmt::Display) -> Failure {
    Divergence::new(seq, "record", why, "a record that can be read").into()
}

/// A controller's own store.
pub(crate) struct FromStore(pub(crate) Reader);

impl Source for FromStore {
    fn read(&mut self, from: Seq, to: Seq, each: &mut Each<'_>) -> Result<(), Failure> {
        let mut next = from;
        let mut malformed = None;
        let read = self.0.each_record(from..=to, |seq, bytes| match RecordBytes::read(bytes) {
            Ok((record, chain)) => {
                next = seq + 1;
                each(record, Some(chain))
            }
            Err(error) => {
                malformed = Some(unreadable(seq, error));
                false
            }
        });
        match read {
            Err(error @ StoreError::Corrupt { .. }) => Err(unreadable(next, error)),
            Err(error) => Err(Failure::Failed(error.to_string())),
            Ok(()) => match malformed {
                Some(failure) => Err(failure),
                None if next == from => Err(Failure::Failed(format!(
                    "record {from} is not in {}: its controller still had to fetch it, or it was lost with a quorum",
                    self.0.path().display()
                ))),
                None => Ok(()),
            },
        }
    }
}

/// The API of any controller.
pub(crate) struct FromApi(pub(crate) Client, pub(crate) ReadOptions);

impl FromApi {
    /// As many records as one answer has. Of one that is unreadable, those before it are given.
    pub(crate) fn page(
        &self,
        from: Seq,
        to: Seq,
    ) -> Result<impl Iterator<Item = Result<StoredRecord, Failure>>, Failure> {
        let limit = (to.saturating_sub(from) + 1).min(RECORDS_PAGE_MAX as u64);
        let query =
            [("from", Some(from.to_string())), ("limit", Some(limit.to_string())), self.1.consistency()];
        let page: RecordsPage = self.0.get(&with_query("/v1/records", &query))?;
        if page.records.is_empty() {
            return Err(Failure::Failed(format!(
                "the log ends at record {} instead of {to}",
                from.saturating_sub(1)
            )));
        }
        Ok(stored(from..=to, page.records))
    }
}

/// Each record is at its place in the answer: what a controller says of where it is proves nothing.
fn stored(
    seqs: RangeInclusive<Seq>,
    records: Vec<RawRecord>,
) -> impl Iterator<Item = Result<StoredRecord, Failure>> {
    seqs.zip(records).map(|(seq, raw)| {
        let bytes = |text: &str| {
            let decoded = STANDARD.decode(text);
            decoded.map_err(|error| unreadable(seq, format!("no base64: {error}")))
        };
        Ok(StoredRecord { leaf: bytes(&raw.leaf)?, payload: bytes(&raw.payload)? })
    })
}

impl Source for FromApi {
    fn read(&mut self, from: Seq, to: Seq, each: &mut Each<'_>) -> Result<(), Failure> {
        for stored in self.page(from, to)? {
            if !each(RecordBytes::from(&stored?), None) {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_unreadable_record_of_an_answer_hides_none_before_it() {
        let raw = |leaf: &str| RawRecord { seq: 7, leaf: leaf.to_owned(), payload: String::new() };
        let mut given = stored(3..=5, vec![raw("YQ=="), raw("%"), raw("YQ=="), raw("YQ==")]);
        assert_eq!(given.next().unwrap().unwrap().leaf, b"a");
        let Some(Err(Failure::Diverged(divergence))) = given.next() else { panic!("it is no base64") };
        assert_eq!(divergence.seq, 4, "whatever is said of where it is");
        assert!(given.next().unwrap().is_ok());
        assert!(given.next().is_none(), "no more was asked for");
    }
}
