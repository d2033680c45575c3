//! State at any point of the past: the milestone before it, and the records from there.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use stele_codec::{Chain, DecodeError, Snapshot, StoredRecord};
use stele_model::delta::DeltaError;
use stele_model::{Delta, Header, Seq, State, Time, fold};
use stele_store::{Reader, StoreError};

use crate::limits::{PAST_FACT_BYTES, PAST_MEMORY_BYTES, RECORDS_PER_READ_BYTES};
use crate::milestones::{MilestoneError, Milestones, at_or_before, base_of};

/// Why the past cannot be rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum PastError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Stored bytes are not what they should be.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// A milestone cannot be used.
    #[error(transparent)]
    Milestone(#[from] MilestoneError),
    /// A milestone does not continue the one it should.
    #[error(transparent)]
    Delta(#[from] DeltaError),
    /// Records are missing here.
    #[error("the record {0} is not here yet: this controller is still fetching history; ask another one")]
    Missing(Seq),
}

/// Rebuilds past States. Those it met are kept as far as there is room, because whoever
/// looks at the past looks around there.
pub(crate) struct Past {
    reader: Reader,
    milestones: Milestones,
    known: Mutex<Known>,
}

/// States kept in memory. They share most of what they are made of.
#[derive(Default)]
struct Known {
    states: BTreeMap<Seq, Kept>,
    bytes: usize,
    uses: u64,
}

struct Kept {
    state: State,
    /// What it takes beyond what it shares, about.
    bytes: usize,
    used: u64,
}

impl Known {
    /// The last one at or before a seq.
    fn nearest(&mut self, seq: Seq) -> Option<State> {
        self.uses += 1;
        let (_, kept) = self.states.range_mut(..=seq).next_back()?;
        kept.used = self.uses;
        Some(kept.state.clone())
    }

    fn keep(&mut self, state: &State, facts: usize) {
        self.uses += 1;
        let bytes = facts.saturating_mul(PAST_FACT_BYTES);
        let kept = Kept { state: state.clone(), bytes, used: self.uses };
        self.bytes += bytes;
        if let Some(replaced) = self.states.insert(state.seq, kept) {
            self.bytes -= replaced.bytes;
        }
        while self.bytes > PAST_MEMORY_BYTES && self.states.len() > 1 {
            let oldest = self.states.iter().min_by_key(|(_, kept)| kept.used).map(|(seq, _)| *seq);
            let Some(forgotten) = oldest.and_then(|seq| self.states.remove(&seq)) else { return };
            self.bytes -= forgotten.bytes;
        }
    }
}

impl Past {
    pub(crate) fn new(reader: Reader) -> Self {
        Self { milestones: Milestones::new(reader.clone()), reader, known: Mutex::default() }
    }

    pub(crate) fn milestones(&self) -> &Milestones {
        &self.milestones
    }

    /// Records from a seq on, in order, as they are stored.
    pub(crate) fn records(
        &self,
        from: Seq,
        limit: usize,
    ) -> Result<Vec<(Seq, StoredRecord, Chain)>, PastError> {
        let to = from.saturating_add(limit.max(1) as u64 - 1);
        let records = self.reader.records(from..=to, RECORDS_PER_READ_BYTES)?;
        records
            .into_iter()
            .map(|(seq, bytes)| {
                let (record, chain) = StoredRecord::from_bytes(&bytes)?;
                Ok((seq, record, chain))
            })
            .collect()
    }

    pub(crate) fn header(&self, seq: Seq) -> Result<Header, PastError> {
        let bytes = self.reader.record(seq)?.ok_or(PastError::Missing(seq))?;
        Ok(StoredRecord::from_bytes(&bytes)?.0.header()?)
    }

    /// State right after a record.
    pub(crate) fn state_at(&self, seq: Seq) -> Result<State, PastError> {
        let mut state = self.nearest(seq)?;
        let begin = state.seq;
        self.fold_to(&mut state, seq)?;
        if state.seq > begin {
            self.known().keep(&state, (state.seq - begin) as usize);
        }
        Ok(state)
    }

    /// Folds the records after a State, up to a seq.
    pub(crate) fn fold_to(&self, state: &mut State, seq: Seq) -> Result<(), PastError> {
        while state.seq < seq {
            let left = (seq - state.seq) as usize;
            let records = self.records(state.seq + 1, left)?;
            if records.is_empty() {
                return Err(PastError::Missing(state.seq + 1));
            }
            for (_, stored, _) in records {
                fold(state, &stored.decode()?);
            }
        }
        Ok(())
    }

    fn nearest(&self, seq: Seq) -> Result<State, PastError> {
        let known = self.known().nearest(seq).unwrap_or_default();
        let milestone = at_or_before(seq).min(self.milestones.through()?);
        if known.seq >= milestone.max(1) {
            return Ok(known);
        }
        if milestone > 0 {
            return self.milestone(milestone);
        }
        // While history is fetched there is no milestone; but the snapshot that came instead of it.
        match self.reader.snapshot_at_or_before(seq)?.map(|snapshot| Snapshot::decode(&snapshot.data)) {
            Some(Ok(snapshot)) => Ok(snapshot.state),
            // One of an earlier version says nothing here; the records do, once they are there.
            None | Some(Err(DecodeError::Format { .. })) => Ok(State::default()),
            Some(Err(error)) => Err(error.into()),
        }
    }

    /// State at a milestone.
    pub(crate) fn milestone(&self, seq: Seq) -> Result<State, PastError> {
        if seq == 0 {
            return Ok(State::default());
        }
        if let Some(state) = self.known().nearest(seq).filter(|state| state.seq == seq) {
            return Ok(state);
        }
        let mut state = self.milestone(base_of(seq))?;
        let delta = self.milestones.get(seq)?.ok_or(PastError::Missing(seq))?;
        let facts = delta.count();
        delta.put_on(&mut state)?;
        self.known().keep(&state, facts);
        Ok(state)
    }

    /// Keeps a State in memory that differs in so many facts from one that is kept already.
    pub(crate) fn keep(&self, state: &State, facts: usize) {
        self.known().keep(state, facts);
    }

    /// Keeps State at a milestone in memory, as the neighbour of an earlier one: what is equal in
    /// both is kept once. Answers the State kept, hashed.
    pub(crate) fn keep_beside(&self, earlier: &State, state: &State) -> Result<State, PastError> {
        let delta = Delta::between(earlier, state);
        let facts = delta.count();
        let mut shared = earlier.clone();
        delta.put_on(&mut shared)?;
        shared.digest();
        self.known().keep(&shared, facts);
        Ok(shared)
    }

    /// Whether there is room for more in memory.
    pub(crate) fn has_room(&self) -> bool {
        // What is read later needs some, too.
        self.known().bytes < PAST_MEMORY_BYTES / 4 * 3
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last record at or before a time; zero when there is none.
    pub(crate) fn seq_at(&self, time: Time, last: Seq) -> Result<Seq, PastError> {
        let (mut low, mut high) = (0, last);
        // Log time is strictly increasing, so it can be searched by halves.
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if self.header(middle)?.time <= time {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        Ok(low)
    }

    /// The last seq at or before this one that ends a decision: no point lies inside one.
    pub(crate) fn whole(&self, seq: Seq) -> Result<Seq, PastError> {
        if seq == 0 {
            return Ok(0);
        }
        let decision = self.header(seq)?.decision;
        Ok(if decision.last() == seq { seq } else { decision.first - 1 })
    }
}
