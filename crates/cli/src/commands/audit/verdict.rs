//! What a pack proves, for people and programs.

use std::fmt::Write as _;

use serde::Serialize;
use stele_model::{Digest, FleetName, Scope, Seq, Time};
use stele_proof::pack::{CheckpointSeen, Verified, Witnessed};

use crate::commands::checkpoint::UNWITNESSED;
use crate::terminal::{Terminal, Tone, one_line, time};

const VERIFIED: &str = "VERIFIED";

/// What a pack was verified to be.
#[derive(Serialize)]
pub(super) struct Proven {
    /// `VERIFIED`, or that a fork is possible.
    verdict: String,
    pub(super) fleet: FleetName,
    pub(super) scope: Scope,
    between: (String, String),
    pub(super) first: Seq,
    pub(super) last: Seq,
    pub(super) payloads: usize,
    checkpoints: Vec<Seen>,
    /// The last record that a witness vouches for; absent when that is all of them.
    witnessed_up_to: Option<Seq>,
    state_digests: Vec<StateDigest>,
    not_decoded: Vec<NotDecoded>,
    report: String,
}

#[derive(Serialize)]
struct Seen {
    size: u64,
    root: Digest,
    state: Digest,
    chain: Digest,
    signed_by: Vec<String>,
    cosigned_by: Vec<Cosigner>,
}

#[derive(Serialize)]
struct Cosigner {
    name: String,
    time: Time,
}

#[derive(Serialize)]
struct StateDigest {
    seq: Seq,
    digest: Digest,
}

#[derive(Serialize)]
struct NotDecoded {
    seq: Seq,
    kind: String,
    schema: u16,
    why: String,
}

impl From<CheckpointSeen> for Seen {
    fn from(seen: CheckpointSeen) -> Self {
        let cosigner =
            |(name, seconds): (String, u64)| Cosigner { name, time: Time(seconds.saturating_mul(1_000_000)) };
        Self {
            size: seen.checkpoint.size,
            root: seen.checkpoint.root,
            state: seen.checkpoint.state,
            chain: seen.checkpoint.chain,
            signed_by: seen.signers,
            cosigned_by: seen.witnesses.into_iter().map(cosigner).collect(),
        }
    }
}

impl From<Verified> for Proven {
    fn from(verified: Verified) -> Self {
        let (verdict, witnessed_up_to) = match verified.witnessed {
            Witnessed::Whole => (VERIFIED.to_owned(), None),
            Witnessed::UpTo(0) => (UNWITNESSED.to_owned(), Some(0)),
            Witnessed::UpTo(seq) => (format!("{UNWITNESSED} after record {seq}"), Some(seq)),
        };
        let digest = |(seq, digest)| StateDigest { seq, digest };
        let not_decoded = verified.not_decoded.into_iter();
        Self {
            verdict,
            fleet: verified.fleet,
            scope: verified.scope,
            between: verified.between,
            first: verified.first,
            last: verified.last,
            payloads: verified.payloads,
            checkpoints: verified.checkpoints.into_iter().map(Seen::from).collect(),
            witnessed_up_to,
            state_digests: verified.state_digests.into_iter().map(digest).collect(),
            not_decoded: not_decoded
                .map(|it| NotDecoded { seq: it.seq, kind: it.kind, schema: it.schema, why: it.why })
                .collect(),
            report: verified.report,
        }
    }
}

impl Proven {
    /// Whether somebody besides the fleet vouches for all of it.
    pub(super) fn is_witnessed(&self) -> bool {
        self.witnessed_up_to.is_none()
    }

    pub(super) fn report(&self) -> &str {
        &self.report
    }

    /// Who signed, what was not understood, and the verdict, a line each.
    pub(super) fn lines(&self, terminal: Terminal) -> Vec<String> {
        let mut lines: Vec<_> = self.checkpoints.iter().map(checkpoint_line).collect();
        lines.extend(self.not_decoded.iter().map(|it| {
            format!(
                "not decoded: record {} ({:?}, schema {}); it is proved all the same",
                it.seq, it.kind, it.schema
            )
        }));
        let tone = if self.is_witnessed() { Tone::Good } else { Tone::Busy };
        lines.push(terminal.paint(tone, &self.verdict));
        lines
    }
}

fn checkpoint_line(seen: &Seen) -> String {
    let mut line =
        format!("checkpoint of {} records: signed by {}", seen.size, one_line(&seen.signed_by.join(", ")));
    for by in &seen.cosigned_by {
        let _ = write!(line, ", cosigned by {} at {}", one_line(&by.name), time(by.time));
    }
    line
}
