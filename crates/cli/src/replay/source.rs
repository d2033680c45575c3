//! Where records come from.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stele_api::limits::RECORDS_PAGE_MAX;
use stele_api::wire::RecordsPage;
use stele_codec::{Chain, StoredRecord};
use stele_model::Seq;
use stele_store::Reader;

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

impl Source for FromStore {
    fn next(&mut self, from: Seq, to: Seq) -> Result<Page, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::Failed(error.to_string());
        let records = self.0.records(from..=to, REPLAY_READ_BYTES).map_err(|error| failed(&error))?;
        if records.is_empty() {
            return Err(Failure::Failed(format!(
                "record {from} is not in {}: its controller was still fetching history",
                self.0.path().display()
            )));
        }
        let decode = |(seq, bytes): (Seq, Vec<u8>)| match StoredRecord::from_bytes(&bytes) {
            Ok((record, chain)) => Ok((record, Some(chain))),
            Err(error) => Err(Failure::Failed(format!("record {seq}: {error}"))),
        };
        records.into_iter().map(decode).collect()
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
            decoded.map_err(|error| Failure::Failed(format!("record {seq} is no base64: {error}")))
        };
        let wanted = page.records.iter().take(limit as usize);
        wanted
            .map(|raw| {
                let (leaf, payload) = (bytes(raw.seq, &raw.leaf)?, bytes(raw.seq, &raw.payload)?);
                Ok((StoredRecord { leaf, payload }, None))
            })
            .collect()
    }
}
