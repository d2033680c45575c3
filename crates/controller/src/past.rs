//! State at any point of the past: the nearest snapshot, and the records from there.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use stele_codec::{Chain, DecodeError, Snapshot, StoredRecord};
use stele_model::{Header, Seq, State, Time, fold};
use stele_store::{Reader, StoreError};

use crate::limits::{PAST_STATE_INTERVAL_RECORDS, PAST_STATES_MAX, RECORDS_PER_READ_BYTES};

/// Why the past cannot be rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum PastError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Stored bytes are not what they should be.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// Records are missing here.
    #[error("the record {0} is not here yet: this controller is still fetching history; ask another one")]
    Missing(Seq),
}

/// Rebuilds past States. Those it met on the way are kept, because whoever looks
/// at the past looks around there.
pub(crate) struct Past {
    reader: Reader,
    known: Mutex<BTreeMap<Seq, State>>,
}

impl Past {
    pub(crate) fn new(reader: Reader) -> Self {
        Self { reader, known: Mutex::default() }
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
        while state.seq < seq {
            let left = (seq - state.seq) as usize;
            let records = self.records(state.seq + 1, left.min(1 << 16))?;
            if records.is_empty() {
                return Err(PastError::Missing(state.seq + 1));
            }
            for (_, stored, _) in records {
                fold(&mut state, &stored.decode()?);
                if state.seq.is_multiple_of(PAST_STATE_INTERVAL_RECORDS) {
                    self.keep(&state);
                }
            }
        }
        self.keep(&state);
        Ok(state)
    }

    fn nearest(&self, seq: Seq) -> Result<State, PastError> {
        let known = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.range(..=seq).next_back().map(|(_, state)| state.clone())
        };
        let known_seq = known.as_ref().map_or(0, |state| state.seq);
        let stored = self.reader.snapshots()?.into_iter().rev().find(|info| info.seq <= seq);
        match stored {
            Some(info) if info.seq > known_seq => {
                let snapshot = self.reader.snapshot(info.seq)?.ok_or(PastError::Missing(info.seq))?;
                Ok(Snapshot::decode(&snapshot.data)?.state)
            }
            _ => Ok(known.unwrap_or_default()),
        }
    }

    fn keep(&self, state: &State) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(state.seq, state.clone());
        while known.len() > PAST_STATES_MAX {
            known.pop_first();
        }
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
