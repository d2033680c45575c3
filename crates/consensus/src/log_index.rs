//! The in-memory picture of a log, and the one place where a write is checked
//! before any store performs it.

use std::collections::{BTreeSet, VecDeque};

use raft::eraftpb::{ConfState, HardState};
use raft::{Error as RaftError, StorageError};

use crate::batch::{SnapshotHead, StagedSnapshot, StoredSnapshot, WriteBatch};
use crate::error::StoreError;

/// Where the newest snapshot usable by raft stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotMark {
    /// Last record folded into it.
    pub seq: u64,
    /// Raft index applied.
    pub index: u64,
    /// Raft term of that index.
    pub term: u64,
}

/// Inclusive bounds, of raft indexes or of record seqs.
pub type Span = (u64, u64);

/// What a store must do besides the obvious puts of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Raft entries to delete, before the new ones are put.
    pub delete_entries: Vec<Span>,
    /// Whether [`LogIndex::truncated`] changed.
    pub truncated: bool,
    /// Whether [`LogIndex::gaps`] changed.
    pub gaps: bool,
    /// Whether [`LogIndex::last_seq`] changed.
    pub last_seq: bool,
}

/// Positions and small values of one replica's log.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LogIndex {
    truncated: u64,
    // terms[0] is the term of the truncated index, terms[i] that of truncated + i.
    terms: VecDeque<u64>,
    hard_state: HardState,
    conf_state: ConfState,
    applied: u64,
    retired: BTreeSet<u64>,
    last_seq: u64,
    gaps: Vec<Span>,
    snapshot: Option<SnapshotMark>,
}

/// The parts a store reads back from disk, to build a [`LogIndex`] from.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// Index and term after which the raft entries begin.
    pub truncated: Span,
    /// Terms of the entries that follow it, without a hole.
    pub terms: Vec<u64>,
    /// Term, vote, commit.
    pub hard_state: HardState,
    /// Members as of `applied`.
    pub conf_state: ConfState,
    /// Last entry applied.
    pub applied: u64,
    /// Removed ids.
    pub retired: Vec<u64>,
    /// Last record known.
    pub last_seq: u64,
    /// Records missing below `last_seq`.
    pub gaps: Vec<Span>,
    /// Newest snapshot usable by raft.
    pub snapshot: Option<SnapshotMark>,
}

fn refused(why: String) -> StoreError {
    StoreError::Refused(why)
}

impl LogIndex {
    /// An empty log.
    pub fn new() -> Self {
        Self { terms: VecDeque::from([0]), ..Self::default() }
    }

    /// Rebuilds the picture from what was read back.
    pub fn recover(parts: Recovered) -> Self {
        let mut terms = VecDeque::with_capacity(parts.terms.len() + 1);
        terms.push_back(parts.truncated.1);
        terms.extend(parts.terms);
        Self {
            truncated: parts.truncated.0,
            terms,
            hard_state: parts.hard_state,
            conf_state: parts.conf_state,
            applied: parts.applied,
            retired: parts.retired.into_iter().collect(),
            last_seq: parts.last_seq,
            gaps: parts.gaps,
            snapshot: parts.snapshot,
        }
    }

    /// Why raft could not be started on this log, if so. Raft 0.7.0 panics when
    /// applied exceeds commit or commit exceeds the last index.
    pub fn inconsistency(&self) -> Option<String> {
        let commit = self.hard_state.commit;
        if self.applied > commit {
            return Some(format!("entry {} was applied, but only {commit} is committed", self.applied));
        }
        if commit > self.last_index() {
            return Some(format!("entry {commit} is committed, but the log ends at {}", self.last_index()));
        }
        if self.applied < self.truncated {
            return Some(format!(
                "the log begins after entry {}, but only {} was applied",
                self.truncated, self.applied
            ));
        }
        if self.last_term() > self.hard_state.term {
            return Some(format!(
                "the log holds an entry of term {}, but the stored term is {}",
                self.last_term(),
                self.hard_state.term
            ));
        }
        None
    }

    /// Whether nothing was ever written.
    pub fn is_empty(&self) -> bool {
        *self == Self::new()
    }

    /// First raft entry held.
    pub fn first_index(&self) -> u64 {
        self.truncated + 1
    }

    /// Last raft entry held (or the truncated index when none is).
    pub fn last_index(&self) -> u64 {
        self.truncated + self.terms.len() as u64 - 1
    }

    /// Term of the last entry.
    pub fn last_term(&self) -> u64 {
        self.terms.back().copied().unwrap_or_default()
    }

    /// Term of one entry, as `raft::Storage::term` answers it.
    pub fn term(&self, index: u64) -> raft::Result<u64> {
        let Some(offset) = index.checked_sub(self.truncated) else {
            return Err(RaftError::Store(StorageError::Compacted));
        };
        match self.terms.get(offset as usize) {
            Some(term) => Ok(*term),
            None => Err(RaftError::Store(StorageError::Unavailable)),
        }
    }

    /// Index and term after which the raft entries begin.
    pub fn truncated(&self) -> Span {
        (self.truncated, self.terms.front().copied().unwrap_or_default())
    }

    /// Term, vote and commit.
    pub fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    /// Members as of [`LogIndex::applied`].
    pub fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    /// Last entry applied.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Removed ids.
    pub fn retired(&self) -> &BTreeSet<u64> {
        &self.retired
    }

    /// Last record, 0 without one. Records up to it exist here unless they are
    /// in a gap.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Records missing here, as inclusive spans in order: a snapshot was
    /// installed and its records have not been fetched yet.
    pub fn gaps(&self) -> &[Span] {
        &self.gaps
    }

    /// Newest snapshot usable by raft.
    pub fn snapshot(&self) -> Option<SnapshotMark> {
        self.snapshot
    }

    /// Checks a batch against the log and, if it is sound, takes it in. A store
    /// calls this first and then performs the batch; if performing it fails,
    /// the store is unusable anyway.
    pub fn admit(&mut self, batch: &WriteBatch) -> Result<Changes, StoreError> {
        self.check(batch)?;
        let mut changes = Changes::default();
        if let Some(snapshot) = &batch.install {
            self.install(&snapshot.head, &mut changes);
        }
        if let Some(first) = batch.entries.first() {
            let keep = (first.index - self.truncated) as usize;
            let last_new = first.index + batch.entries.len() as u64 - 1;
            if self.last_index() > last_new {
                changes.delete_entries.push((last_new + 1, self.last_index()));
            }
            self.terms.truncate(keep);
            self.terms.extend(batch.entries.iter().map(|entry| entry.term));
        }
        if let Some(hard_state) = &batch.hard_state {
            self.hard_state = hard_state.clone();
        }
        if let Some((seq, _)) = batch.records.last() {
            self.last_seq = *seq;
            changes.last_seq = true;
        }
        if let Some(conf_state) = &batch.conf_state {
            self.conf_state = conf_state.clone();
        }
        if let Some(retired) = &batch.retired {
            self.retired = retired.iter().copied().collect();
        }
        if let Some(applied) = batch.applied {
            self.applied = applied;
        }
        for (seq, _) in &batch.backfill {
            self.fill(*seq);
            changes.gaps = true;
        }
        if let Some(snapshot) = &batch.snapshot {
            self.mark(&snapshot.head);
        }
        if let Some(through) = batch.compact_through
            && through > self.truncated
        {
            changes.delete_entries.push((self.truncated + 1, through));
            self.terms.drain(..(through - self.truncated) as usize);
            self.truncated = through;
            changes.truncated = true;
        }
        Ok(changes)
    }

    fn install(&mut self, snapshot: &SnapshotHead, changes: &mut Changes) {
        // The whole log goes: keeping a tail beyond the snapshot would let this
        // replica claim, and vote on the strength of, entries whose
        // predecessors it never checked.
        let kept = self.stale_tail(snapshot.index);
        let last = if kept.is_empty() { self.last_index() } else { snapshot.index };
        if last > self.truncated {
            changes.delete_entries.push((self.truncated + 1, last));
        }
        self.truncated = snapshot.index;
        self.terms = std::iter::once(snapshot.term).chain(kept).collect();
        self.applied = snapshot.index;
        self.conf_state = snapshot.conf_state.clone();
        self.retired = snapshot.retired.iter().copied().collect();
        if snapshot.seq > self.last_seq {
            self.gaps.push((self.last_seq + 1, snapshot.seq));
            self.last_seq = snapshot.seq;
            changes.gaps = true;
            changes.last_seq = true;
        }
        // A leader at the same term as the snapshot had that term too.
        self.hard_state.commit = self.hard_state.commit.max(snapshot.index);
        self.hard_state.term = self.hard_state.term.max(snapshot.term);
        changes.truncated = true;
        self.mark(snapshot);
    }

    /// For a planted bug: the terms of the entries beyond a snapshot that is installed.
    fn stale_tail(&self, index: u64) -> Vec<u64> {
        if !planted!(KeepStaleTail) {
            return Vec::new();
        }
        (index + 1..=self.last_index()).filter_map(|index| self.term(index).ok()).collect()
    }

    fn mark(&mut self, snapshot: &SnapshotHead) {
        if self.snapshot.is_none_or(|old| old.index <= snapshot.index) {
            self.snapshot =
                Some(SnapshotMark { seq: snapshot.seq, index: snapshot.index, term: snapshot.term });
        }
    }

    fn fill(&mut self, seq: u64) {
        let Some(at) = self.gaps.iter().position(|gap| gap.0 <= seq && seq <= gap.1) else {
            return;
        };
        let (from, to) = self.gaps[at];
        let rest = [(from, seq - 1), (seq + 1, to)];
        self.gaps.splice(at..=at, rest.into_iter().filter(|span| span.0 <= span.1));
    }

    fn check(&self, batch: &WriteBatch) -> Result<(), StoreError> {
        let mut last = self.last_index();
        let mut first = self.first_index();
        let mut commit = self.hard_state.commit;
        let mut applied = self.applied;
        let mut last_seq = self.last_seq;
        if let Some(StoredSnapshot { head: snapshot, .. }) = &batch.install {
            if snapshot.index < commit || snapshot.index == 0 {
                return Err(refused(format!(
                    "a snapshot of entry {} would undo committed entry {commit}",
                    snapshot.index
                )));
            }
            if snapshot.seq < last_seq {
                return Err(refused(format!(
                    "a snapshot of record {} would undo record {last_seq}",
                    snapshot.seq
                )));
            }
            last = snapshot.index;
            first = last + 1;
            commit = snapshot.index;
            applied = snapshot.index;
            last_seq = snapshot.seq;
        }
        if let Some(entry) = batch.entries.first() {
            if entry.index <= commit || entry.index < first || entry.index > last + 1 {
                return Err(refused(format!(
                    "entry {} does not follow a log that is committed up to {commit} and ends at {last}",
                    entry.index
                )));
            }
            for (expected, entry) in (entry.index..).zip(&batch.entries) {
                if entry.index != expected {
                    return Err(refused(format!("entry {} where {expected} belongs", entry.index)));
                }
                last = expected;
            }
        }
        if let Some(hard_state) = &batch.hard_state {
            if hard_state.term < self.hard_state.term || hard_state.commit < commit {
                return Err(refused(format!(
                    "hard state {hard_state:?} goes back from {:?}",
                    self.hard_state
                )));
            }
            commit = hard_state.commit;
        }
        // Kept true at every write, because raft panics on opening otherwise.
        if commit > last {
            return Err(refused(format!("entry {commit} cannot be committed in a log that ends at {last}")));
        }
        for (seq, _) in &batch.records {
            if *seq != last_seq + 1 {
                return Err(refused(format!("record {seq} does not follow record {last_seq}")));
            }
            last_seq = *seq;
        }
        if let Some(index) = batch.applied {
            if index < applied || index > commit {
                return Err(refused(format!(
                    "entry {index} cannot be applied after {applied} with {commit} committed"
                )));
            }
            applied = index;
        }
        for (seq, _) in &batch.backfill {
            if !self.gaps.iter().any(|gap| gap.0 <= *seq && *seq <= gap.1) {
                return Err(refused(format!("record {seq} is not missing, and records are written once")));
            }
        }
        if let Some(StagedSnapshot { head: snapshot, .. }) = &batch.snapshot
            && (snapshot.index > applied || snapshot.seq > last_seq || snapshot.index == 0)
        {
            return Err(refused(format!(
                "a snapshot of entry {} and record {} cannot be made at entry {applied} and record {last_seq}",
                snapshot.index, snapshot.seq
            )));
        }
        if let Some(through) = batch.compact_through
            && (through > applied || !batch.entries.is_empty())
        {
            return Err(refused(format!("entries up to {through} cannot be dropped, {applied} is applied")));
        }
        Ok(())
    }
}
