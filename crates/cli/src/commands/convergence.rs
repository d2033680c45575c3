//! Proof that the fleet is what State says.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stele_api::limits::RECORDS_PAGE_MAX;
use stele_api::wire::{RawRecord, RecordsPage};
use stele_codec::{StoredRecord, Verifier};
use stele_model::convergence::{ConvergenceProof, Summary, against, open};
use stele_model::signature::PublicKey;
use stele_model::wire::Signed;
use stele_model::{Scope, Time};
use stele_proof::note::SignatureKind;
use stele_proof::{Checkpoint as LogCheckpoint, VerifierKey};

use super::checkpoint::{parse, refused, root_key};
use crate::client::with_query;
use crate::exit::Failure;
use crate::files::read_at_most;
use crate::limits::{PROOF_AGE_US_MAX, PROOF_BYTES_MAX};
use crate::options::ReadOptions;
use crate::session::{Session, count};
use crate::terminal::{Terminal, Tone, one_line, time};

/// What to prove or verify, as asked of `stele status`.
#[derive(clap::Args, Debug)]
#[command(group = clap::ArgGroup::new("proof").args(["prove", "verify"]))]
pub(super) struct Convergence {
    /// Prove it: compare every node's own signed statement of what it observes with what it was told
    #[arg(long, conflicts_with_all = ["problems", "at", "verify"])]
    prove: bool,
    /// Keep the proof in this file, for somebody who does not trust us
    #[arg(long, value_name = "FILE", requires = "prove")]
    export: Option<PathBuf>,
    /// Verify a proof that was kept, offline
    #[arg(long, value_name = "FILE", conflicts_with_all = ["problems", "at", "stale", "scope"])]
    verify: Option<PathBuf>,
    /// The fleet root's public key, instead of the one pinned at login: without either, nobody vouches for the
    /// controller that lists the nodes
    #[arg(long, value_name = "HEX", env = "STELE_ROOT", value_parser = root_key)]
    root: Option<PublicKey>,
    /// Compare with the whole log too, fetched and folded here: so nothing of the list is on the controller's word
    #[arg(long, requires = "proof")]
    log: bool,
}

impl Convergence {
    /// Whether anything of it was asked for.
    pub(super) fn is_asked(&self) -> bool {
        self.prove || self.verify.is_some()
    }

    pub(super) fn run(mut self, session: &Session, scope: &Scope, read: ReadOptions) -> Result<(), Failure> {
        let pinned = self.pinned(session)?;
        let hint = if self.root.is_none() && pinned.is_some() {
            "\n  next: where it is another fleet's than the one logged in to, repeat with --root KEY"
        } else {
            ""
        };
        self.root = self.root.or(pinned);
        let signed = if let Some(path) = &self.verify {
            read_proof(path)?
        } else {
            let path =
                with_query("/v1/convergence", &[("scope", Some(scope.to_string())), read.consistency()]);
            session.client()?.get(&path)?
        };
        let (proof, summary) = open(&signed, self.root.as_ref())
            .map_err(|error| Failure::Failed(format!("the proof is not believed: {error}{hint}")))?;
        if self.verify.is_none() {
            answers((&proof.scope, proof.made), scope, crate::server::wall_clock())?;
        }
        let is_signed = verify_checkpoint(&proof)?;
        if self.log {
            compare_with_log(session, &proof, read)?;
        }
        if let Some(path) = &self.export {
            let text = serde_json::to_vec_pretty(&signed)
                .map_err(|error| Failure::Failed(format!("the proof cannot be written: {error}")))?;
            std::fs::write(path, text)
                .map_err(|error| Failure::Failed(format!("cannot write {}: {error}", path.display())))?;
        }
        let terminal = session.terminal;
        terminal.answer(&summary, |summary| render(terminal, summary, is_signed, &self))?;
        if summary.matches {
            Ok(())
        } else if summary.nodes == 0 {
            Err(Failure::Failed(format!("there is no node in {}, so nothing is proved", summary.scope)))
        } else {
            let differing = count(summary.differing.len(), "node");
            Err(Failure::Failed(format!("{differing} of {} not proved to match", summary.nodes)))
        }
    }
}

impl Convergence {
    /// The root's key that was pinned at login. A file is also verified where nobody ever logged in.
    fn pinned(&self, session: &Session) -> Result<Option<PublicKey>, Failure> {
        match session.context() {
            Ok(context) => Ok(context.root),
            Err(_) if self.verify.is_some() => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

/// Whether a proof is of what was asked, and of now: another one that is as true proves something else.
fn answers((of, made): (&Scope, Time), asked: &Scope, now: Time) -> Result<(), Failure> {
    if of != asked {
        return Err(Failure::Failed(format!("{asked} was asked for, and the proof is of {of}")));
    }
    if made.0.abs_diff(now.0) > PROOF_AGE_US_MAX {
        return Err(Failure::Failed(format!(
            "the proof was made {} by the controller's clock, and it is {} here: an old proof, or one of the clocks is \
             wrong",
            time(made),
            time(now)
        )));
    }
    Ok(())
}

fn read_proof(path: &Path) -> Result<Signed, Failure> {
    let unreadable = |why: String| Failure::Usage(format!("{}: {why}", path.display()));
    let text = read_at_most(path, "PROOF_BYTES_MAX", PROOF_BYTES_MAX).map_err(unreadable)?;
    serde_json::from_slice(&text).map_err(|error| unreadable(format!("it is no proof: {error}")))
}

/// Whether a checkpoint in the proof, signed by the same controller, is of its record and its State. One
/// that is of anything else is refused.
fn verify_checkpoint(proof: &ConvergenceProof) -> Result<bool, Failure> {
    let Some(note) = &proof.checkpoint else { return Ok(false) };
    let signed = parse(note)?;
    let by = &proof.controller.body;
    let name = LogCheckpoint::key_name(&proof.fleet, by.controller);
    let key = VerifierKey::new(&name, SignatureKind::Ed25519, &by.key).map_err(refused)?;
    signed.verify(&[key], &[]).map_err(refused)?;
    let LogCheckpoint { fleet, size, state, .. } = &signed.checkpoint;
    if (fleet, *size, *state) == (&proof.fleet, proof.seq, proof.state_digest) {
        return Ok(true);
    }
    Err(Failure::Failed(format!(
        "the proof is not believed: it is of State {} at seq {}, and its checkpoint of {state} at seq {size}",
        proof.state_digest, proof.seq
    )))
}

/// Fetches the log up to the proof's record, verifies and folds it, and compares.
fn compare_with_log(session: &Session, proof: &ConvergenceProof, read: ReadOptions) -> Result<(), Failure> {
    let client = session.client()?;
    let mut verifier = Verifier::new();
    while verifier.state().seq < proof.seq {
        let from = verifier.state().seq + 1;
        let wanted = (proof.seq + 1 - from).min(RECORDS_PAGE_MAX as u64);
        let path = with_query(
            "/v1/records",
            &[("from", Some(from.to_string())), ("limit", Some(wanted.to_string())), read.consistency()],
        );
        let page: RecordsPage = client.get(&path)?;
        if page.records.is_empty() {
            let seq = proof.seq;
            return Err(Failure::Failed(format!("the log ends at record {} instead of {seq}", from - 1)));
        }
        for raw in page.records.iter().take(usize::try_from(wanted).unwrap_or(usize::MAX)) {
            verifier
                .push(&stored(raw)?, None)
                .map_err(|error| Failure::Failed(format!("the log does not verify: {error}")))?;
        }
    }
    let (state, _) = verifier.into_parts();
    against(proof, &state).map_err(|error| Failure::Failed(format!("the proof is not believed: {error}")))
}

fn stored(raw: &RawRecord) -> Result<StoredRecord, Failure> {
    let bytes = |text: &str| {
        STANDARD
            .decode(text)
            .map_err(|error| Failure::Failed(format!("record {} is no base64: {error}", raw.seq)))
    };
    Ok(StoredRecord { leaf: bytes(&raw.leaf)?, payload: bytes(&raw.payload)? })
}

fn render(terminal: Terminal, summary: &Summary, is_signed: bool, asked: &Convergence) -> String {
    let (tone, verb) = if summary.matches { (Tone::Good, "match") } else { (Tone::Bad, "match") };
    let mut lines = vec![terminal.paint(
        tone,
        &format!(
            "{} of {} {verb} state {} at seq {} ({})",
            summary.matching,
            count(summary.nodes, "node"),
            summary.state_digest.short(),
            summary.seq,
            summary.scope
        ),
    )];
    for region in &summary.regions {
        let same = if region.expected == region.observed { "=" } else { "≠" };
        lines.push(format!(
            "  {}: {} of {}, expected {} {same} observed {}",
            region.region,
            region.matching,
            region.nodes,
            region.expected.short(),
            region.observed.short()
        ));
    }
    if !summary.differing.is_empty() {
        lines.push(format!(
            "{}:",
            if summary.differing.len() == 1 { "This one differs" } else { "These differ" }
        ));
        for node in &summary.differing {
            lines.push(format!("- {} in {}", terminal.paint(Tone::Bad, node.name.as_str()), node.region));
            lines.extend(node.why.iter().map(|why| format!("    {}", one_line(why))));
        }
    }
    for app_env in &summary.moving {
        lines.push(format!("{app_env} is on its way: nodes are compared with what they were told so far."));
    }
    lines.push(format!("expected {}", summary.expected));
    lines.push(format!("observed {}", summary.observed));
    let age = |oldest: Time| format!(", statements up to {} s old", summary.made.millis_since(oldest) / 1000);
    let age = summary.oldest.map(age).unwrap_or_default();
    lines.push(terminal.paint(Tone::Faint, &format!("as of {}{age}", time(summary.made))));
    if is_signed {
        let line = format!("a checkpoint of the log's {} records signs that State", summary.seq);
        lines.push(terminal.paint(Tone::Faint, &line));
    }
    lines.push(terminal.paint(Tone::Faint, trust(asked)));
    if let Some(path) = &asked.export {
        lines.push(format!(
            "kept in {0}; verify it with: stele status --verify {0} --root KEY",
            path.display()
        ));
    }
    lines.join("\n")
}

/// What the answer rests on.
fn trust(asked: &Convergence) -> &'static str {
    match (&asked.root, asked.log) {
        (Some(_), true) => {
            "nodes' signatures verified; their keys and what they were told agree with the log"
        }
        (Some(_), false) => {
            "nodes' signatures verified; their keys and what they were told are a certified controller's word \
             (--log compares them with the log)"
        }
        (None, true) => {
            "nodes' signatures verified; their keys and what they were told agree with the log fetched"
        }
        (None, false) => {
            "nodes' signatures verified; that these are the fleet's nodes is the controller's word (--root KEY, --log)"
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn another_proof_than_was_asked_for_is_none() {
        let (eu, node): (Scope, Scope) = ("region:eu".parse().unwrap(), "node:eu-1".parse().unwrap());
        let now = Time(1_700_000_000_000_000);
        answers((&eu, now), &eu, now).unwrap();
        assert!(answers((&node, now), &eu, now).is_err());
        let yesterday = Time(now.0 - 86_400_000_000);
        let old = format!("{:?}", answers((&eu, yesterday), &eu, now).unwrap_err());
        assert!(old.contains("old proof"), "{old}");
    }
}
