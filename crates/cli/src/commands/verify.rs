//! Verifying the log without trusting the controllers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use stele_api::limits::RECORDS_PAGE_MAX;
use stele_api::wire::{RawRecord, RecordsPage, ShowAnswer};
use stele_codec::{StoredRecord, Verifier};
use stele_model::{Digest, Seq};

use super::event_line::event_line;
use crate::client::with_query;
use crate::exit::Failure;
use crate::session::Session;
use crate::terminal::Output;

/// Fetch the whole log, verify it from its first record, fold it again, and compare
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele verify\n  stele verify --print          # the whole log, each record verified\n  stele verify --to 1200\n\nChecked: no record is missing or out of order, every payload matches its header's hash, every header is\nchained to the one before it, every state digest in the log equals the one folded here, and the\ncontrollers' state digest at the end does, too."
)]
pub(crate) struct Verify {
    /// Only up to this record
    #[arg(long, value_name = "SEQ")]
    to: Option<Seq>,
    /// Print every record as it is verified
    #[arg(long)]
    print: bool,
}

/// What was verified.
#[derive(Serialize)]
struct Verified {
    records: Seq,
    state_digests_matched: u64,
    chain: Digest,
    state_digest: Digest,
    controller_agrees: bool,
}

impl Verify {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        let client = session.client()?;
        let mut verifier = Verifier::new();
        let mut last = self.to;
        loop {
            let from = verifier.state().seq + 1;
            let wanted =
                last.map_or(RECORDS_PAGE_MAX as u64, |last| (last + 1 - from).min(RECORDS_PAGE_MAX as u64));
            if wanted == 0 {
                break;
            }
            let path = with_query(
                "/v1/records",
                &[("from", Some(from.to_string())), ("limit", Some(wanted.to_string()))],
            );
            let page: RecordsPage = client.get(&path)?;
            // The log goes on growing: what was there at the first look is what is verified.
            let end = *last.get_or_insert(page.last);
            if page.records.is_empty() && from <= end {
                return Err(Failure::Failed(format!("the log ends at record {} instead of {end}", from - 1)));
            }
            for raw in page.records.iter().take((end + 1).saturating_sub(from) as usize) {
                let record = verifier
                    .push(&decode(raw)?, None)
                    .map_err(|error| Failure::Failed(format!("the log does not verify: {error}")))?;
                if self.print {
                    session.terminal.item(&record, |record| event_line(session.terminal, record))?;
                }
            }
        }
        let digests = verifier.digests_matched();
        let (mut state, chain) = verifier.into_parts();
        let path = with_query("/v1/show", &[("at", Some(format!("seq:{}", state.seq)))]);
        let show: ShowAnswer = client.get(&path)?;
        let folded = state.digest();
        let verified = Verified {
            records: state.seq,
            state_digests_matched: digests,
            chain: chain.0,
            state_digest: folded,
            controller_agrees: show.state_digest == folded,
        };
        if !verified.controller_agrees {
            return Err(Failure::Failed(format!(
                "the log folds into state {folded} at seq {}, but the controller says {}",
                state.seq, show.state_digest
            )));
        }
        if self.print && session.terminal.output != Output::Table {
            return Ok(());
        }
        session.terminal.answer(&verified, |it| {
            format!(
                "{} records verified from genesis, {} state digests matched\nchain {}\nstate {} (the controller agrees)",
                it.records, it.state_digests_matched, it.chain, it.state_digest
            )
        })
    }
}

fn decode(raw: &RawRecord) -> Result<StoredRecord, Failure> {
    let bytes = |text: &str| {
        STANDARD
            .decode(text)
            .map_err(|error| Failure::Failed(format!("record {} is no base64: {error}", raw.seq)))
    };
    Ok(StoredRecord { leaf: bytes(&raw.leaf)?, payload: bytes(&raw.payload)? })
}
