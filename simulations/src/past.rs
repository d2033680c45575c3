//! What a controller knows of the past: State as of its start and at any record, and history that an
//! installed snapshot left missing. It stands for the controller's `start.rs`, `past.rs` and `backfill.rs`.

use stele_codec::{Chain, Snapshot, StoredRecord};
use stele_consensus::LogStore as _;
use stele_consensus::memory::MemoryStore;
use stele_model::{Digest, Seq, State, fold};
use stele_planted::{Bug, is_planted};

use crate::controller::Process;
use crate::limits::HOUSEKEEPING_US;
use crate::wire::{Out, Packet};

/// Filling what an installed snapshot left missing, one gap at a time.
#[derive(Default)]
pub(crate) struct Filling {
    /// What has come of the gap.
    records: Vec<(Seq, Vec<u8>)>,
    /// Counts on when nobody had the next record of a gap, as far as asked.
    turn: usize,
    /// In a row.
    refusals: usize,
}

/// After so many answers without the next record of a gap, in a row, another gap has its turn.
const GAP_REFUSALS: usize = 12;

/// State as of the last record: the newest snapshot, and what follows it.
pub(crate) fn recover(store: &MemoryStore) -> Result<(State, Chain, Seq), String> {
    let newest = store.read_latest_snapshot().map_err(|error| error.to_string())?;
    let (mut state, mut chain) = match newest {
        Some(snapshot) => {
            let read = Snapshot::decode(&snapshot.data).map_err(|error| error.to_string())?;
            (read.state, read.chain)
        }
        None => (State::default(), Chain::GENESIS),
    };
    let snapshot_at = state.seq;
    let mut last = store.index().last_seq();
    if is_planted(Bug::RecoverShort) {
        last = last.saturating_sub(1);
    }
    for seq in state.seq + 1..=last {
        let bytes = store.record(seq).map_err(|error| error.to_string())?;
        let bytes = bytes.ok_or_else(|| format!("record {seq} is missing from this log"))?;
        let (stored, kept) = StoredRecord::from_bytes(&bytes).map_err(|error| error.to_string())?;
        chain = chain.link(&stored.leaf);
        if kept != chain {
            return Err(format!("record {seq} does not continue the log before it"));
        }
        fold(&mut state, &stored.decode().map_err(|error| error.to_string())?);
    }
    Ok((state, chain, snapshot_at))
}

/// A record as the disk gives it; none where it is missing or damaged, which nobody is told otherwise.
fn stored(store: &MemoryStore, seq: Seq) -> Option<(StoredRecord, Chain)> {
    StoredRecord::from_bytes(&store.record(seq).ok()??).ok()
}

impl Process {
    /// Keeps a State now and then, as milestones do.
    pub(crate) fn remember(&mut self) {
        const STRIDE: u64 = 32;
        let state = self.app.ledger.state();
        let newest = self.past.last_key_value().map_or(0, |(seq, _)| *seq);
        if state.seq >= newest + STRIDE {
            self.past.insert(state.seq, state.clone());
        }
    }

    /// State right after a record, rebuilt from the log here.
    pub(crate) fn state_at(&self, seq: Seq) -> Option<State> {
        if self.state().seq == seq {
            return Some(self.state().clone());
        }
        let seq = if is_planted(Bug::PastOffByOne) { seq.saturating_sub(1) } else { seq };
        let mut state =
            self.past.range(..=seq).next_back().map(|(_, state)| state.clone()).unwrap_or_default();
        if seq > self.state().seq {
            return None;
        }
        // The snapshot that came instead of records is of the last of them.
        let gap = self.store().gaps().iter().rfind(|(_, to)| state.seq < *to && *to <= seq);
        if let Some((_, to)) = gap {
            state = Snapshot::decode(self.store().snapshot_at(*to)?).ok()?.state;
        }
        for at in state.seq + 1..=seq {
            let (stored, _) = stored(self.store(), at)?;
            fold(&mut state, &stored.decode().ok()?);
        }
        Some(state)
    }

    /// The last record of the decision that a record is of.
    pub(crate) fn whole(&self, seq: Seq) -> Option<Seq> {
        if seq == 0 {
            return Some(0);
        }
        let (stored, _) = stored(self.store(), seq)?;
        Some(stored.header().ok()?.decision.last())
    }

    /// The gap that is filled now. What cannot be had keeps nothing else back.
    fn gap_to_fill(&self) -> Option<(Seq, Seq)> {
        let gaps = self.store().gaps();
        gaps.get(self.filling.turn.checked_rem(gaps.len())?).copied()
    }

    /// The next page of what an installed snapshot left missing.
    pub(crate) fn ask_for_gap(&mut self, status: &stele_consensus::Status) {
        let Some((from, to)) = self.gap_to_fill() else { return };
        let next = self.filling.records.last().map_or(from, |(seq, _)| seq + 1);
        let voters = &status.conf_state.voters;
        let at = (self.kept_us / HOUSEKEEPING_US) as usize;
        if let Some(peer) = voters.get(at % voters.len().max(1)).filter(|peer| **peer != self.app.id) {
            self.app.out.push(Out::Peer(*peer, Packet::WantRecords { from: next, to }));
        }
    }

    /// Keeps what fills a gap once its whole chain is proven to lead to the snapshot's.
    pub(crate) fn backfill(
        &mut self,
        records: Vec<(Seq, Vec<u8>)>,
    ) -> Result<(), stele_consensus::DriveError> {
        let Some((from, to)) = self.gap_to_fill() else { return Ok(()) };
        let next = self.filling.records.last().map_or(from, |(seq, _)| seq + 1);
        if records.is_empty() {
            self.filling.refusals += 1;
            if self.filling.refusals > GAP_REFUSALS {
                (self.filling.refusals, self.filling.turn) = (0, self.filling.turn.wrapping_add(1));
                self.filling.records.clear();
            }
            return Ok(());
        }
        self.filling.refusals = 0;
        if records.first().is_none_or(|(seq, _)| *seq != next) {
            return Ok(());
        }
        self.filling.records.extend(records.into_iter().filter(|(seq, _)| *seq <= to));
        if is_planted(Bug::BackfillAnything) {
            let mut page = std::mem::take(&mut self.filling.records);
            // Off by one: each record is kept under its successor's seq.
            let bytes: Vec<_> = page.iter().map(|(_, bytes)| bytes.clone()).collect();
            page.iter_mut().zip(bytes.into_iter().rev()).for_each(|(kept, bytes)| kept.1 = bytes);
            return self.driver.backfill(page);
        }
        if self.filling.records.last().is_some_and(|(seq, _)| *seq == to) {
            let gap = std::mem::take(&mut self.filling.records);
            if self.is_proven(from, to, &gap) {
                return self.driver.backfill(gap);
            }
        }
        Ok(())
    }

    pub(crate) fn is_proven(&self, from: Seq, to: Seq, records: &[(Seq, Vec<u8>)]) -> bool {
        let before = from.checked_sub(1).filter(|seq| *seq > 0);
        let mut chain = match before.map(|seq| stored(self.store(), seq)) {
            None => Chain::GENESIS,
            Some(Some((_, chain))) => chain,
            Some(None) => return false,
        };
        for (_, bytes) in records {
            let Ok((stored, kept)) = StoredRecord::from_bytes(bytes) else { return false };
            chain = chain.link(&stored.leaf);
            let payload = stored.header().is_ok_and(|it| it.payload == Digest::of(&[&stored.payload]));
            if kept != chain || !payload {
                return false;
            }
        }
        let after = self.store().snapshot_at(to).and_then(|data| Snapshot::decode(data).ok());
        after.is_some_and(|snapshot| snapshot.chain == chain)
    }
}
