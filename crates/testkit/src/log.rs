//! One controller's log, read whole and checked without trusting it.

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stele_api::limits::RECORDS_PAGE_MAX;
use stele_api::wire::{RecordsPage, ShowAnswer};
use stele_codec::{Chain, StoredRecord, Verifier};
use stele_model::{Digest, Record, Seq};

use crate::client::Client;

/// A log that verified from its first record.
#[derive(Debug)]
pub struct VerifiedLog {
    /// Every record, in order from seq 1.
    pub records: Vec<Record>,
    /// The chain's last hash: equal chains are equal histories, byte by byte.
    pub chain: Chain,
    /// Digest of State as folded here.
    pub folded: Digest,
    /// Digest of State as the controller has it at the same seq.
    pub told: Digest,
}

/// Reads a controller's own copy of the log up to `to`, replays it, and asks what it made of it.
pub fn fetch_log(client: &Client, to: Seq) -> anyhow::Result<VerifiedLog> {
    let mut verifier = Verifier::new();
    let mut records = Vec::new();
    while (records.len() as u64) < to {
        let from = records.len() as u64 + 1;
        let limit = (to + 1 - from).min(RECORDS_PAGE_MAX as u64);
        let page: RecordsPage = client.read(&format!("/v1/records?from={from}&limit={limit}"))?;
        anyhow::ensure!(!page.records.is_empty(), "the log ends before record {from} of {to}");
        for raw in page.records {
            let record = StoredRecord {
                leaf: STANDARD.decode(&raw.leaf).context("a leaf is no base64")?,
                payload: STANDARD.decode(&raw.payload).context("a payload is no base64")?,
            };
            let record = verifier
                .push(&record, None)
                .with_context(|| format!("record {} does not verify", raw.seq))?;
            records.push(record);
        }
    }
    let (mut state, chain) = verifier.into_parts();
    let show: ShowAnswer = client.read(&format!("/v1/show?at=seq:{to}&digest=true&consistency=stale"))?;
    let told = show.state_digest.context("the controller tells no digest of State")?;
    Ok(VerifiedLog { records, chain, folded: state.digest(), told })
}
