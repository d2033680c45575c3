//! Proofs about the log, fetched and verified.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use serde::Serialize;
use stele_api::wire::InclusionAnswer;
use stele_codec::StoredRecord;
use stele_model::{Digest, Header, Seq};
use stele_proof::merkle::{leaf_hash, verify_consistency, verify_inclusion};

use super::checkpoint::{Believed, Trust, UNWITNESSED, believe, consistency, parse};
use crate::client::with_query;
use crate::exit::Failure;
use crate::session::Session;
use crate::terminal::{Terminal, Tone, one_line};

/// Fetch and verify proofs about the log
#[derive(Subcommand, Debug)]
pub(crate) enum Proof {
    Inclusion(Inclusion),
    Consistency(Consistency),
}

/// Prove that a record is in the log, unchanged
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele proof inclusion 142\n  stele proof inclusion 142 --output json > record-142.proof.json\n\nThe record's header is hashed here and led to the root of a signed checkpoint, which is verified as\n`stele checkpoint` does."
)]
pub(crate) struct Inclusion {
    /// The record
    seq: Seq,
    #[command(flatten)]
    trust: Trust,
}

/// Prove that the log only grew between two sizes
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele proof consistency 1000 2000\n  stele proof consistency 1000 2000 --note 1000.note   # against a checkpoint kept since then\n\nBoth trees are also proved to be the beginning of the newest signed checkpoint's."
)]
pub(crate) struct Consistency {
    /// Records in the older tree
    from: u64,
    /// Records in the newer one
    to: u64,
    /// A checkpoint of the older size, kept earlier: its root is compared
    #[arg(long, value_name = "FILE")]
    note: Option<PathBuf>,
    #[command(flatten)]
    trust: Trust,
}

/// A record that is in the log.
#[derive(Serialize)]
struct Included {
    header: Header,
    leaf: String,
    leaf_hash: Digest,
    hashes: Vec<Digest>,
    checkpoint: Believed,
}

/// Two trees, of which one begins with the other.
#[derive(Serialize)]
struct Consistent {
    from: u64,
    to: u64,
    from_root: Digest,
    to_root: Digest,
    hashes: Vec<Digest>,
    /// Whether the older root was known from a checkpoint kept earlier.
    kept: bool,
    checkpoint: Believed,
}

impl Proof {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Inclusion(it) => it.run(session),
            Self::Consistency(it) => it.run(session),
        }
    }
}

fn not_proved(error: stele_proof::ProofError) -> Failure {
    Failure::Failed(format!("not proved: {error}"))
}

/// The last line, when nobody outside the fleet vouches for the checkpoint.
fn witness_line(terminal: Terminal, checkpoint: &Believed) -> String {
    if checkpoint.unwitnessed {
        format!("\n{}", terminal.paint(Tone::Busy, UNWITNESSED))
    } else {
        String::new()
    }
}

impl Inclusion {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let client = session.client()?;
        let checkpoint = believe(session, &client, &self.trust)?.about(self.seq);
        let query = [("seq", Some(self.seq.to_string())), ("size", Some(checkpoint.size.to_string()))];
        let proof: InclusionAnswer = client.get(&with_query("/v1/proofs/inclusion", &query))?;
        let leaf = STANDARD
            .decode(&proof.leaf)
            .map_err(|error| Failure::Failed(format!("the record's leaf is no base64: {error}")))?;
        let hash = leaf_hash(&leaf);
        let index = self.seq.saturating_sub(1);
        verify_inclusion(hash, index, checkpoint.size, &proof.hashes, checkpoint.root).map_err(not_proved)?;
        let header = StoredRecord { leaf, payload: Vec::new() }
            .header()
            .map_err(|error| Failure::Failed(format!("the record's header cannot be read: {error}")))?;
        if header.seq != self.seq {
            return Err(Failure::Failed(format!(
                "record {} stands where record {} should: the log is not in order",
                header.seq, self.seq
            )));
        }
        let included =
            Included { header, leaf: proof.leaf, leaf_hash: hash, hashes: proof.hashes, checkpoint };
        let terminal = session.terminal;
        terminal.answer(&included, |it| {
            format!(
                "record {} ({} by {}, {}) is in the log of {} records\nits payload has the hash {}{}",
                it.header.seq,
                one_line(&it.header.kind),
                it.header.principal,
                crate::terminal::time(it.header.time),
                it.checkpoint.size,
                it.header.payload,
                witness_line(terminal, &it.checkpoint)
            )
        })
    }
}

impl Consistency {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let client = session.client()?;
        let checkpoint = believe(session, &client, &self.trust)?.about(self.to);
        let Self { from, to, note, .. } = self;
        let proof = consistency(&client, from, to)?;
        verify_consistency(from, to, &proof.hashes, proof.from_root, proof.to_root).map_err(not_proved)?;
        // Two trees of nobody's prove nothing: the newer one must be the signed log's beginning.
        let onward = consistency(&client, to, checkpoint.size)?;
        verify_consistency(to, checkpoint.size, &onward.hashes, proof.to_root, checkpoint.root)
            .map_err(not_proved)?;
        let kept = note.is_some();
        if let Some(path) = note {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))?;
            let then = parse(&text)?.checkpoint;
            if (&then.fleet, then.size) != (&checkpoint.fleet, from) {
                return Err(Failure::Usage(format!(
                    "{} is a checkpoint of fleet {} at {} records, not of {} at {from}",
                    path.display(),
                    then.fleet,
                    then.size,
                    checkpoint.fleet
                )));
            }
            if then.root != proof.from_root {
                return Err(Failure::Failed(format!(
                    "the log was rewritten: {} says its root at {from} records was {}, now it is {}",
                    path.display(),
                    then.root,
                    proof.from_root
                )));
            }
        }
        let consistent = Consistent {
            from,
            to,
            from_root: proof.from_root,
            to_root: proof.to_root,
            hashes: proof.hashes,
            kept,
            checkpoint,
        };
        let terminal = session.terminal;
        terminal.answer(&consistent, |it| {
            format!(
                "the log of {} records begins with the log of {} records\nroot at {} {}\nroot at {} {}\nboth are in the \
                 signed checkpoint of {} records{}",
                it.to,
                it.from,
                it.from,
                it.from_root,
                it.to,
                it.to_root,
                it.checkpoint.size,
                witness_line(terminal, &it.checkpoint)
            )
        })
    }
}
