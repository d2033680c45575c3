//! Where records come from.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stele_api::limits::RECORDS_PAGE_MAX;
use stele_api::wire::RecordsPage;
use stele_codec::{Chain, StoredRecord};
use stele_model::Seq;
use stele_store::{Reader, StoreError};

use super::divergence::Divergence;
use crate::client::{Client, with_query};
use crate::exit::Failure;
use crate::limits::REPLAY_READ_BYTES;

/// Records with the chain stored beside them, where it is stored.
pub(crate) type Page = Vec<(StoredRecord, Option<Chain>)>;

/// Gives records in order.
pub(crate) trait Source: Send {
    /// At least one record from `from` on, and none after `to`.
    fn next(&mut self, from: Seq, to: Seq) -> Result<Page, Failure>;
}

/// A controller's own store.
pub(crate) struct FromStore(pub(crate) Reader);

/// What comes before the first record that cannot be read; that one's failure when nothing does.
fn readable(
    records: impl Iterator<Item = Result<(StoredRecord, Option<Chain>), Failure>>,
) -> Result<Page, Failure> {
    let mut page = Page::new();
    for record in records {
        match record {
            Ok(record) => page.push(record),
            Err(failure) if page.is_empty() => return Err(failure),
            Err(_) => break,
        }
    }
    Ok(page)
}

/// A record whose bytes are not what anybody wrote.
fn unreadable(seq: Seq, why: impl fmt::Display) -> Failure {
    Divergence::new(seq, "record", why, "a record that can be read").into()
}

impl FromStore {
    /// A page in which something is damaged, as far as it can be read: the damage is told at its record.
    fn until_damage(&self, from: Seq, to: Seq) -> Result<Vec<(Seq, Vec<u8>)>, Failure> {
        let mut records = Vec::new();
        let mut bytes = 0;
        for seq in from..=to {
            match self.0.record(seq) {
                Ok(Some(record)) => {
                    bytes += record.len();
                    records.push((seq, record));
                }
                Ok(None) if records.is_empty() => return Err(unreadable(seq, "it is not there")),
                Err(error @ StoreError::Corrupt { .. }) if records.is_empty() => {
                    return Err(unreadable(seq, error));
                }
                Err(error) if records.is_empty() => return Err(Failure::Failed(error.to_string())),
                Ok(None) | Err(_) => break,
            }
            if bytes > REPLAY_READ_BYTES {
                break;
            }
        }
        Ok(records)
    }
}

impl Source for FromStore {
    fn next(&mut self, from: Seq, to: Seq) -> Result<Page, Failure> {
        let records = match self.0.records(from..=to, REPLAY_READ_BYTES) {
            Err(StoreError::Corrupt { .. }) => self.until_damage(from, to)?,
            records => records.map_err(|error| Failure::Failed(error.to_string()))?,
        };
        if records.is_empty() {
            return Err(Failure::Failed(format!(
                "record {from} is not in {}: its controller was still fetching history",
                self.0.path().display()
            )));
        }
        let decode = |(seq, bytes): (Seq, Vec<u8>)| match StoredRecord::from_bytes(&bytes) {
            Ok((record, chain)) => Ok((record, Some(chain))),
            Err(error) => Err(unreadable(seq, error)),
        };
        readable(records.into_iter().map(decode))
    }
}

/// The API of any controller.
pub(crate) struct FromApi(pub(crate) Client);

impl Source for FromApi {
    fn next(&mut self, from: Seq, to: Seq) -> Result<Page, Failure> {
        let limit = (to + 1 - from).min(RECORDS_PAGE_MAX as u64);
        let query = [("from", Some(from.to_string())), ("limit", Some(limit.to_string()))];
        let page: RecordsPage = self.0.get(&with_query("/v1/records", &query))?;
        if page.records.is_empty() {
            return Err(Failure::Failed(format!("the log ends at record {} instead of {to}", from - 1)));
        }
        let bytes = |seq: Seq, text: &str| {
            let decoded = STANDARD.decode(text);
            decoded.map_err(|error| unreadable(seq, format!("no base64: {error}")))
        };
        let wanted = page.records.iter().take(limit as usize);
        readable(wanted.map(|raw| {
            let (leaf, payload) = (bytes(raw.seq, &raw.leaf)?, bytes(raw.seq, &raw.payload)?);
            Ok((StoredRecord { leaf, payload }, None))
        }))
    }
}
