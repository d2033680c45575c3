//! Checkpoints, as in C2SP tlog-checkpoint: what a controller signs about the log at a size.
//!
//! Two extension lines go beyond the tree: the digest of State after the last record,
//! and the chain there.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stele_model::signature::{Certificate, PublicKey};
use stele_model::{ControllerId, Digest, FleetName, Time};

use crate::error::NoteError;
use crate::limits::TREE_LEAVES_MAX;
use crate::note::{Note, SignatureKind, Signed, VerifierKey};

/// What the origin begins with; the fleet's name follows.
const ORIGIN: &str = "stele/";

/// The log, as it was when it had `size` records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Whose log.
    pub fleet: FleetName,
    /// How many records, which is also the seq of the last one. It ends a decision.
    pub size: u64,
    /// The tree's root over them.
    pub root: Digest,
    /// The digest of State after them.
    pub state: Digest,
    /// The chain after them.
    pub chain: Digest,
}

impl Checkpoint {
    /// The origin line of a fleet's checkpoints.
    pub fn origin(fleet: &FleetName) -> String {
        format!("{ORIGIN}{fleet}")
    }

    /// The name of a controller's key on them.
    pub fn key_name(fleet: &FleetName, controller: ControllerId) -> String {
        format!("{ORIGIN}{fleet}/controller-{controller}")
    }

    /// The key that a certificate vouches for, to verify checkpoints with, if the certificate
    /// is by this root, for this fleet, and valid now (when a clock can be trusted).
    pub fn key(
        certificate: &Certificate,
        root: &PublicKey,
        fleet: &FleetName,
        now: Option<Time>,
    ) -> Result<VerifierKey, NoteError> {
        certificate
            .check(root, fleet, now)
            .map_err(|error| NoteError::malformed("certificate", error.to_string()))?;
        let name = Self::key_name(fleet, certificate.body.controller);
        VerifierKey::new(&name, SignatureKind::Ed25519, &certificate.body.key)
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", Self::origin(&self.fleet))?;
        writeln!(f, "{}", self.size)?;
        writeln!(f, "{}", STANDARD.encode(self.root.0))?;
        writeln!(f, "state {}", self.state)?;
        writeln!(f, "chain {}", self.chain)
    }
}

impl FromStr for Checkpoint {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let malformed = |why: &str| NoteError::malformed("checkpoint", why);
        let mut lines = text.split('\n');
        let mut line = |what: &str| lines.next().ok_or_else(|| malformed(&format!("it has no {what}")));
        let fleet = line("origin")?
            .strip_prefix(ORIGIN)
            .and_then(|fleet| FleetName::new(fleet).ok())
            .ok_or_else(|| malformed("its origin is not stele/<fleet>"))?;
        let size = line("size")?
            .parse()
            .ok()
            .filter(|size| *size <= TREE_LEAVES_MAX)
            .ok_or_else(|| malformed("its size is not a number of records"))?;
        let root = STANDARD
            .decode(line("root")?)
            .ok()
            .and_then(|root| <[u8; 32]>::try_from(root).ok())
            .map(Digest)
            .ok_or_else(|| malformed("its root is not a hash in base64"))?;
        let mut digest = |what: &'static str| {
            line(what)?
                .strip_prefix(what)
                .and_then(|rest| rest.strip_prefix(' ')?.parse::<Digest>().ok())
                .ok_or_else(|| {
                    malformed(&format!("its line of the {what} is not {what} sha256:<64 hex digits>"))
                })
        };
        let (state, chain) = (digest("state")?, digest("chain")?);
        let checkpoint = Self { fleet, size, root, state, chain };
        // There is one way to write it: a plus sign, an upper-case digit or a line more is another text.
        if checkpoint.to_string() != text {
            return Err(malformed("it is not written as a checkpoint is, or more follows"));
        }
        Ok(checkpoint)
    }
}

/// A checkpoint on its note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// Its note, with all signatures.
    pub note: Note,
}

impl SignedCheckpoint {
    /// Puts a checkpoint on a note, not signed yet.
    pub fn new(checkpoint: Checkpoint) -> Result<Self, NoteError> {
        Ok(Self { note: Note::new(&checkpoint.to_string())?, checkpoint })
    }

    /// Checks that at least one of these controllers signed, and that no signature of a known
    /// key is wrong. The second list are the witnesses that cosigned.
    pub fn verify<'a>(
        &self,
        controllers: &'a [VerifierKey],
        witnesses: &'a [VerifierKey],
    ) -> Result<(Vec<Signed<'a>>, Vec<Signed<'a>>), NoteError> {
        Ok((self.note.verify(controllers)?, self.note.signed_by(witnesses)?))
    }
}

impl fmt::Display for SignedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.note.fmt(f)
    }
}

impl FromStr for SignedCheckpoint {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let note: Note = text.parse()?;
        Ok(Self { checkpoint: note.text().parse()?, note })
    }
}
