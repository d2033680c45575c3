//! The log's Merkle tree as this controller keeps it, what it signs about it, and how
//! that compares with what the others sign.
//!
//! All of it is derived: the tree is rebuilt from the records whenever it is behind or
//! gone. Nothing here runs on the replica's thread.

mod compare;
mod cosign;
mod follow;
mod git;
mod nodes;
mod publish;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use stele_codec::{Chain, DecodeError, StoredRecord};
use stele_model::{ControllerId, Digest, Seq, State, fold};
use stele_proof::merkle::{consistency_proof, inclusion_proof, root};
use stele_proof::note::VerifierKey;
use stele_proof::tile::{TileHashes, TileKind, TilePath, nodes_at, push_entry};
use stele_proof::{NoteError, ProofError, SignedCheckpoint};
use stele_store::{Reader, StoreError};
use tokio::sync::watch;

use crate::digested::Digested;
use crate::limits::{
    CHECKPOINT_FACTS_KEPT, CHECKPOINT_STATES_KEPT, CHECKPOINT_STATES_KEPT_MIN, RECORDS_PER_READ_BYTES,
};
use nodes::Nodes;

pub(crate) use compare::run as compare;
pub(crate) use follow::run as follow;
pub(crate) use nodes::Mark;
pub(crate) use publish::run as publish;

/// Why the tree says nothing.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Stored records are not what they should be.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// There is no such leaf, tree or tile.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// A checkpoint cannot be written down.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Records are missing here.
    #[error(
        "the record {0} is not here: this controller still fetches history, or the record was lost with a quorum; \
         ask another controller"
    )]
    Missing(Seq),
    /// Nothing was signed yet.
    #[error("this controller has signed no checkpoint yet: its tree of the log is still being built")]
    NoCheckpoint,
    /// A task of this controller's failed.
    #[error("reading the tree failed: {0}")]
    Failed(String),
}

/// How another controller's newest checkpoint compares with ours at its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) size: u64,
    /// What differs; nothing when they agree.
    pub(crate) differs: Option<String>,
}

/// What this controller knows of the log's tree. Shared by the tasks that keep it and the API.
pub(crate) struct Proofs {
    nodes: Nodes,
    /// Leaves in the tree.
    size: AtomicU64,
    checkpoint: watch::Sender<Option<Arc<SignedCheckpoint>>>,
    /// The newest checkpoint that a witness cosigned.
    cosigned: Mutex<Option<Arc<SignedCheckpoint>>>,
    witnesses: Vec<VerifierKey>,
    /// States of the newest checkpoints, with their digests made: others' are reached from there.
    states: Mutex<VecDeque<Signed>>,
    /// Where the replica's thread finds the newest of them.
    digested: Digested,
    verdicts: Mutex<BTreeMap<ControllerId, Verdict>>,
    /// Why this replica must not answer any more.
    diverged: OnceLock<String>,
}

/// State of a checkpoint.
struct Signed {
    state: State,
    /// How many facts had to be hashed for it: no more than changed since the one before.
    changed: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proofs {
    pub(crate) fn new(reader: Reader, witnesses: Vec<VerifierKey>, digested: Digested) -> Self {
        Self {
            digested,
            nodes: Nodes::new(reader),
            size: AtomicU64::new(0),
            checkpoint: watch::Sender::new(None),
            cosigned: Mutex::default(),
            witnesses,
            states: Mutex::default(),
            verdicts: Mutex::default(),
            diverged: OnceLock::new(),
        }
    }

    /// The newest checkpoint signed here, with its cosignatures when there are some already.
    pub(crate) fn checkpoint(&self) -> Option<Arc<SignedCheckpoint>> {
        let newest = self.checkpoint.borrow().clone()?;
        Some(self.cosigned().filter(|cosigned| cosigned.checkpoint == newest.checkpoint).unwrap_or(newest))
    }

    /// The first State from a seq on that a checkpoint signs, with that checkpoint; nothing when there is
    /// none in time.
    pub(crate) async fn signed_since(
        &self,
        seq: Seq,
        within: Duration,
    ) -> Option<(State, Arc<SignedCheckpoint>)> {
        let mut newest = self.checkpoint.subscribe();
        let covers = |it: &Option<Arc<SignedCheckpoint>>| {
            it.as_ref().is_some_and(|signed| signed.checkpoint.size >= seq)
        };
        let signed = tokio::time::timeout(within, newest.wait_for(covers)).await.ok()?.ok()?.clone()?;
        let state = {
            let states = lock(&self.states);
            states.iter().find(|it| it.state.seq == signed.checkpoint.size)?.state.clone()
        };
        Some((state, signed))
    }

    /// The newest checkpoint that a known witness cosigned.
    pub(crate) fn cosigned(&self) -> Option<Arc<SignedCheckpoint>> {
        lock(&self.cosigned).clone()
    }

    /// The witnesses this controller was told of.
    pub(crate) fn witnesses(&self) -> &[VerifierKey] {
        &self.witnesses
    }

    /// How the others' checkpoints compare with ours.
    pub(crate) fn verdicts(&self) -> BTreeMap<ControllerId, Verdict> {
        lock(&self.verdicts).clone()
    }

    /// Why this replica must not answer any more, if so.
    pub(crate) fn diverged(&self) -> Option<&str> {
        self.diverged.get().map(String::as_str)
    }

    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    fn hashes(&self) -> TileHashes<&Nodes> {
        TileHashes::new(&self.nodes, self.size())
    }

    /// The root when there were so many records.
    pub(crate) fn root(&self, size: u64) -> Result<Digest, TreeError> {
        root(&self.hashes(), size)
    }

    pub(crate) fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Digest>, TreeError> {
        self.check(size)?;
        inclusion_proof(&self.hashes(), index, size)
    }

    pub(crate) fn consistency(&self, from: u64, to: u64) -> Result<Vec<Digest>, TreeError> {
        self.check(to)?;
        consistency_proof(&self.hashes(), from, to)
    }

    fn check(&self, size: u64) -> Result<(), TreeError> {
        if size > self.size() {
            return Err(ProofError::Outside { what: format!("a size of {size}"), size: self.size() }.into());
        }
        Ok(())
    }

    /// A tile or bundle, unless the tree does not reach so far.
    pub(crate) fn tile(&self, path: &TilePath) -> Result<Option<Vec<u8>>, TreeError> {
        let level = match path.kind {
            TileKind::Hashes(level) => level,
            TileKind::Entries => 0,
        };
        let first = path.index * u64::from(stele_proof::limits::TILE_WIDTH);
        let end = first + u64::from(path.width);
        if end > nodes_at(self.size(), level) {
            return Ok(None);
        }
        match path.kind {
            TileKind::Hashes(_) => self.nodes.read(path).map(Some),
            TileKind::Entries => self.bundle(first, end).map(Some),
        }
    }

    /// The leaves `first..end`, one after the other.
    fn bundle(&self, first: u64, end: u64) -> Result<Vec<u8>, TreeError> {
        let mut bundle = Vec::new();
        let mut next = first;
        while next < end {
            let records = self.records(next + 1, end)?;
            for (seq, record, _) in &records {
                push_entry(&mut bundle, &record.leaf)?;
                next = *seq;
            }
        }
        Ok(bundle)
    }

    /// At least one record of a range, as many as fit.
    fn records(&self, from: Seq, to: Seq) -> Result<Vec<(Seq, StoredRecord, Chain)>, TreeError> {
        let records = self.nodes.reader().records(from..=to, RECORDS_PER_READ_BYTES)?;
        if records.is_empty() {
            return Err(TreeError::Missing(from));
        }
        let decoded = records.into_iter().map(|(seq, bytes)| {
            let (record, chain) = StoredRecord::from_bytes(&bytes)?;
            Ok((seq, record, chain))
        });
        decoded.collect()
    }

    /// A record's leaf.
    pub(crate) fn leaf(&self, seq: Seq) -> Result<Vec<u8>, TreeError> {
        let bytes = self.nodes.reader().record(seq)?.ok_or(TreeError::Missing(seq))?;
        Ok(StoredRecord::from_bytes(&bytes)?.0.leaf)
    }

    /// The chain at a record.
    fn chain(&self, seq: Seq) -> Result<Digest, TreeError> {
        let bytes = self.nodes.reader().record(seq)?.ok_or(TreeError::Missing(seq))?;
        Ok(StoredRecord::from_bytes(&bytes)?.1.0)
    }

    /// Makes the digest of a State that is later than any remembered, and remembers it.
    fn digest_and_keep(&self, mut state: State) -> Digest {
        let newest = lock(&self.states).back().map(|it| it.state.clone());
        if let Some(before) = newest.filter(|it| it.seq <= state.seq) {
            state.adopt_digest(&before);
        }
        let changed = state.undigested();
        let digest = state.digest();
        self.digested.put(state.clone());
        let mut states = lock(&self.states);
        states.push_back(Signed { state, changed });
        let facts = |states: &VecDeque<Signed>| states.iter().skip(1).map(|it| it.changed).sum::<usize>();
        while states.len() > CHECKPOINT_STATES_KEPT
            || states.len() > CHECKPOINT_STATES_KEPT_MIN && facts(&states) > CHECKPOINT_FACTS_KEPT
        {
            states.pop_front();
        }
        digest
    }

    /// The digest of State at a seq, if it was not long ago: what changed since one of our own
    /// checkpoints is folded and hashed, and nothing else.
    fn recent_digest(&self, seq: Seq) -> Result<Option<Digest>, TreeError> {
        let known = {
            let states = lock(&self.states);
            states.iter().rev().find(|it| it.state.seq <= seq).map(|it| it.state.clone())
        };
        let Some(mut state) = known else { return Ok(None) };
        while state.seq < seq {
            for (_, stored, _) in self.records(state.seq + 1, seq)? {
                fold(&mut state, &stored.decode()?);
            }
        }
        Ok(Some(state.digest()))
    }
}
