//! What the controllers sign about the log, and why it is believed.

use serde::Serialize;
use stele_api::wire::{CheckpointAnswer, ConsistencyAnswer};
use stele_model::signature::PublicKey;
use stele_model::{ControllerId, Digest, FleetName, Time};
use stele_proof::merkle::verify_consistency;
use stele_proof::{Checkpoint as LogCheckpoint, NoteError, SignedCheckpoint, VerifierKey};

use crate::client::{Client, with_query};
use crate::exit::Failure;
use crate::session::Session;
use crate::terminal::{Tone, one_line, visible};

/// What is said when nobody outside the fleet vouches for a checkpoint.
pub(crate) const UNWITNESSED: &str = "unwitnessed: a forked log is possible";

/// Print the newest signed checkpoint of the log, verified
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele checkpoint\n  stele checkpoint --note > 2026-11-24.note       # to keep, and compare with later\n  stele checkpoint --witness w.example/1+5f2a91c3+BHn...\n\nChecked: a controller signed it whose key the fleet's root certified. With --witness: one of these witnesses\ncosigned it, or an earlier checkpoint that this one provably extends. Witnesses are what makes it impossible\nto show two logs to two readers; without one, the last line says so."
)]
pub(crate) struct Checkpoint {
    #[command(flatten)]
    trust: Trust,
    /// Print the signed note alone
    #[arg(long)]
    note: bool,
}

/// Whom to believe.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Trust {
    /// The fleet root's public key, instead of the one pinned at login
    #[arg(long, value_name = "HEX", env = "STELE_ROOT", value_parser = root_key)]
    pub(crate) root: Option<PublicKey>,
    /// A witness to believe; repeat it for several
    #[arg(long = "witness", value_name = "VKEY", env = "STELE_WITNESSES", value_delimiter = ',')]
    pub(crate) witnesses: Vec<VerifierKey>,
}

/// 64 hex digits.
pub(crate) fn root_key(text: &str) -> Result<PublicKey, String> {
    let mut bytes = [0; 32];
    match hex::decode_to_slice(text, &mut bytes) {
        Ok(()) => Ok(PublicKey(text.to_lowercase())),
        Err(_) => Err("a public key is 64 hex digits".to_owned()),
    }
}

/// A witness that cosigned.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cosigner {
    name: String,
    time: Option<Time>,
}

/// A checkpoint that was verified, and against what.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Believed {
    pub(crate) fleet: FleetName,
    pub(crate) controller: ControllerId,
    pub(crate) size: u64,
    pub(crate) root: Digest,
    pub(crate) state: Digest,
    pub(crate) chain: Digest,
    pub(crate) note: String,
    /// The fleet's root key that certified the controller's.
    pub(crate) root_key: PublicKey,
    /// Whether that key was known before, and not only said by the controllers now.
    pub(crate) pinned: bool,
    signed_by: Vec<String>,
    /// The size that witnesses cosigned; this checkpoint provably extends it.
    pub(crate) witnessed_size: Option<u64>,
    cosigned_by: Vec<Cosigner>,
    pub(crate) unwitnessed: bool,
    /// Controllers whose checkpoints differ from this one's log.
    pub(crate) differing: Vec<String>,
}

impl Checkpoint {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        let believed = believe(session, &session.client()?, &self.trust)?;
        if self.note {
            return session.terminal.line(believed.note.trim_end());
        }
        let terminal = session.terminal;
        terminal.answer(&believed, |it| {
            let mut lines = vec![visible(it.note.trim_end()), String::new()];
            lines.extend(it.reasons().into_iter().map(|line| terminal.paint(Tone::Good, &line)));
            if !it.pinned {
                lines.push(terminal.paint(
                    Tone::Busy,
                    "the root key is only what the controllers say it is; pin it: stele login --root KEY",
                ));
            }
            for line in &it.differing {
                lines.push(terminal.paint(Tone::Bad, &one_line(line)));
            }
            if it.unwitnessed {
                lines.push(terminal.paint(Tone::Busy, UNWITNESSED));
            }
            lines.join("\n")
        })
    }
}

impl Believed {
    /// As far as it is about the log's first records, so many: a witness that lags behind vouches for none after those
    /// that it saw.
    pub(crate) fn about(self, size: u64) -> Self {
        let unwitnessed = self.witnessed_size.is_none_or(|witnessed| witnessed < size);
        Self { unwitnessed, ..self }
    }

    /// Why it is believed, a line for each reason.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let pinned = if self.pinned { "pinned" } else { "not pinned" };
        let signed = format!(
            "{} records, signed by {} (certified by root {}, {pinned})",
            self.size,
            one_line(&self.signed_by.join(", ")),
            self.root_key.0.get(..16).unwrap_or(&self.root_key.0)
        );
        let cosigned = self.cosigned_by.iter().map(|by| {
            let size = self.witnessed_size.unwrap_or(self.size);
            let time = by.time.map(|time| format!(" at {}", crate::terminal::time(time))).unwrap_or_default();
            format!("cosigned by {} at {size} records{time}", one_line(&by.name))
        });
        std::iter::once(signed).chain(cosigned).collect()
    }
}

/// Fetches the newest checkpoint and verifies it.
pub(crate) fn believe(session: &Session, client: &Client, trust: &Trust) -> Result<Believed, Failure> {
    let answer: CheckpointAnswer = client.get("/v1/checkpoint")?;
    let pinned = trust.root.clone().or(session.context()?.root);
    let (keys, root, is_pinned) = controller_keys(client, &answer, pinned)?;
    let signed = parse(&answer.note)?;
    let (by, _) = signed.verify(&keys, &[]).map_err(refused)?;
    let signed_by = by.iter().map(|signed| signed.by.name().to_owned()).collect();
    let mut believed = Believed {
        fleet: signed.checkpoint.fleet.clone(),
        controller: answer.controller,
        size: signed.checkpoint.size,
        root: signed.checkpoint.root,
        state: signed.checkpoint.state,
        chain: signed.checkpoint.chain,
        note: answer.note,
        root_key: root,
        pinned: is_pinned,
        signed_by,
        witnessed_size: None,
        cosigned_by: Vec::new(),
        unwitnessed: true,
        differing: Vec::new(),
    };
    believed.differing = answer
        .compared
        .iter()
        .filter_map(|it| {
            let differs = it.differs.as_deref()?;
            Some(format!("controller {} signed another log at {} records: {differs}", it.controller, it.size))
        })
        .collect();
    if let Some(cosigned) = answer.cosigned.as_deref().map(parse).transpose()? {
        let (_, by) = cosigned.verify(&keys, &trust.witnesses).map_err(refused)?;
        if !by.is_empty() {
            extends(client, &cosigned.checkpoint, &signed.checkpoint)?;
            believed.cosigned_by = by
                .iter()
                .map(|by| Cosigner {
                    name: by.by.name().to_owned(),
                    time: by.time.map(|seconds| Time(seconds.saturating_mul(1_000_000))),
                })
                .collect();
            believed.witnessed_size = Some(cosigned.checkpoint.size);
            believed.unwitnessed = false;
        }
    }
    Ok(believed)
}

/// The keys that the root certified; which root, and whether it was known before.
pub(crate) fn controller_keys(
    client: &Client,
    answer: &CheckpointAnswer,
    pinned: Option<PublicKey>,
) -> Result<(Vec<VerifierKey>, PublicKey, bool), Failure> {
    let is_pinned = pinned.is_some();
    let root = match pinned {
        Some(root) => root,
        None => client
            .get::<stele_api::wire::ClusterAnswer>("/v1/cluster?consistency=stale")?
            .root
            .ok_or_else(|| Failure::Failed("the fleet is not founded yet: it has no root key".to_owned()))?,
    };
    let fleet = parse(&answer.note)?.checkpoint.fleet;
    let now = crate::server::wall_clock();
    let keys = answer
        .certificates
        .iter()
        .filter_map(|certificate| LogCheckpoint::key(certificate, &root, &fleet, Some(now)).ok())
        .collect();
    Ok((keys, root, is_pinned))
}

pub(crate) fn parse(note: &str) -> Result<SignedCheckpoint, Failure> {
    note.parse().map_err(refused)
}

pub(crate) fn refused(error: NoteError) -> Failure {
    Failure::Failed(format!("the checkpoint does not verify: {error}"))
}

/// Fetches the proof that one checkpoint's log begins with the other's, and verifies it.
pub(crate) fn extends(client: &Client, older: &LogCheckpoint, newer: &LogCheckpoint) -> Result<(), Failure> {
    if older.fleet != newer.fleet {
        return Err(Failure::Failed(format!(
            "one is of fleet {}, the other of {}",
            older.fleet, newer.fleet
        )));
    }
    let proof = consistency(client, older.size, newer.size)?;
    verify_consistency(older.size, newer.size, &proof.hashes, older.root, newer.root)
        .map_err(|error| Failure::Failed(format!("the log was rewritten: {error}")))
}

pub(crate) fn consistency(client: &Client, from: u64, to: u64) -> Result<ConsistencyAnswer, Failure> {
    client.get(&with_query(
        "/v1/proofs/consistency",
        &[("from", Some(from.to_string())), ("to", Some(to.to_string()))],
    ))
}
