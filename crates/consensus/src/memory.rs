//! A store in memory that loses unsynced writes when it crashes, and whose disk can
//! be made to fail, to rot and to lie. It is the fake beside the real one: the
//! simulator and this crate's tests run on it.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use prost::Message as _;
use raft::eraftpb::{Entry, Snapshot};
use raft::{Error as RaftError, GetEntriesContext, RaftState, Storage, StorageError};

use crate::batch::{Staged, StagedSnapshot, StoredSnapshot, WriteBatch};
use crate::driver::Driver;
use crate::error::StoreError;
use crate::log_index::{LogIndex, Span};
use crate::log_store::LogStore;
use crate::seal::{seal, unseal};
use crate::size::within_size;

#[derive(Debug, Clone)]
struct Image {
    index: LogIndex,
    entries: BTreeMap<u64, Entry>,
    records: BTreeMap<u64, Vec<u8>>,
    snapshots: BTreeMap<u64, StoredSnapshot>,
    staged: Option<(u64, u64, Vec<u8>)>,
}

/// What is written, piece by piece.
#[derive(Debug, Clone)]
enum Write {
    Batch(Box<WriteBatch>),
    /// Under its seq and number.
    Staged(u64, u64, Vec<u8>),
}

impl Image {
    fn perform(&mut self, write: Write) -> Result<(), StoreError> {
        let batch = match write {
            Write::Batch(batch) => *batch,
            Write::Staged(seq, stage, data) => {
                self.staged = Some((seq, stage, data));
                return Ok(());
            }
        };
        if let Some(StagedSnapshot { head, staged: Staged { stage, bytes } }) = &batch.snapshot {
            let is_it = |(at, number, data): &(u64, u64, Vec<u8>)| {
                (*at, *number, data.len() as u64) == (head.seq, *stage, *bytes)
            };
            if !self.staged.as_ref().is_some_and(is_it) {
                return Err(StoreError::Refused(format!("the snapshot at {} is not staged", head.seq)));
            }
        }
        let changes = self.index.admit(&batch)?;
        for (from, to) in changes.delete_entries {
            let tail = self.entries.split_off(&from);
            self.entries.extend(tail.into_iter().filter(|e| e.0 > to));
        }
        self.entries.extend(batch.entries.into_iter().map(|e| (e.index, e)));
        self.records.extend(batch.records);
        self.records.extend(batch.backfill);
        if let Some(snapshot) = batch.install {
            self.snapshots.insert(snapshot.head.seq, snapshot);
        }
        if let Some(StagedSnapshot { head, .. }) = batch.snapshot
            && let Some((.., data)) = self.staged.take()
        {
            self.snapshots.insert(head.seq, StoredSnapshot { head, data });
        }
        Ok(())
    }
}

/// What a store keeps, each under a number: entries by index, records and
/// snapshots by seq.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Raft's entries.
    Entry,
    /// Records.
    Record,
    /// Snapshots of State.
    Snapshot,
}

/// How a disk spoils what is read from one place of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rot {
    /// A bit is another one; its number is taken modulo how many there are.
    Flip(u64),
    /// What is read stands under another number.
    Misdirected(u64),
}

/// See the module.
#[derive(Debug)]
pub struct MemoryStore {
    current: Image,
    synced: Image,
    unsynced: Vec<Write>,
    /// Snapshots staged so far.
    stages: u64,
    wanted: Cell<bool>,
    fault: RefCell<Option<StoreError>>,
    failing: Option<StoreError>,
    fails_to_sync: bool,
    /// Syncs do nothing, and say that they did.
    lies: bool,
    /// Of `unsynced`, how many were said to be synced.
    promised: usize,
    lost: bool,
    rot: BTreeMap<(Kind, u64), Rot>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        let image = Image {
            index: LogIndex::new(),
            entries: BTreeMap::new(),
            records: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            staged: None,
        };
        Self {
            current: image.clone(),
            synced: image,
            unsynced: Vec::new(),
            stages: 0,
            wanted: Cell::new(false),
            fault: RefCell::new(None),
            failing: None,
            fails_to_sync: false,
            lies: false,
            promised: 0,
            lost: false,
            rot: BTreeMap::new(),
        }
    }

    /// Loses power: of the writes after the last sync, only the first `keep`
    /// survive.
    #[must_use]
    pub fn crash(mut self, keep: usize) -> Self {
        let lost = self.lost || keep < self.promised;
        self.unsynced.truncate(keep);
        for write in std::mem::take(&mut self.unsynced) {
            // Every batch was admitted in this order before.
            if self.synced.perform(write).is_err() {
                break;
            }
        }
        self.synced.staged = None;
        Self { current: self.synced.clone(), synced: self.synced, lost, rot: self.rot, ..Self::new() }
    }

    /// Whether a crash lost writes that were said to be synced. The real store finds
    /// out by the number of syncs that it keeps beside its log, and refuses to open.
    pub fn lost_synced_writes(&self) -> bool {
        self.lost
    }

    /// From now on syncs do nothing, and say that they did.
    pub fn lie(&mut self) {
        self.lies = true;
    }

    /// From now on whatever wants to be synced is written, and its sync fails.
    pub fn fail_syncs(&mut self) {
        self.fails_to_sync = true;
    }

    /// Spoils what is read from one place, until it is written anew.
    pub fn spoil(&mut self, kind: Kind, number: u64, rot: Rot) {
        self.rot.insert((kind, number), rot);
    }

    /// The numbers there are of a kind, from lowest to highest.
    pub fn numbers(&self, kind: Kind) -> Vec<u64> {
        match kind {
            Kind::Entry => self.current.entries.keys().copied().collect(),
            Kind::Record => self.current.records.keys().copied().collect(),
            Kind::Snapshot => self.current.snapshots.keys().copied().collect(),
        }
    }

    fn raw(&self, kind: Kind, number: u64) -> Option<Cow<'_, [u8]>> {
        match kind {
            Kind::Entry => self.current.entries.get(&number).map(|entry| entry.encode_to_vec().into()),
            Kind::Record => self.current.records.get(&number).map(|bytes| bytes.as_slice().into()),
            Kind::Snapshot => {
                self.current.snapshots.get(&number).map(|snapshot| snapshot.data.as_slice().into())
            }
        }
    }

    /// What the disk gives for one place, after the check that every read of the real
    /// store goes through.
    fn read(&self, kind: Kind, number: u64) -> Result<Option<Cow<'_, [u8]>>, StoreError> {
        let Some(rot) = self.rot.get(&(kind, number)) else { return Ok(self.raw(kind, number)) };
        let Some(value) = self.raw(kind, number) else { return Ok(None) };
        let mut sealed = seal(&key(kind, number), &value);
        match *rot {
            Rot::Flip(bit) => {
                let bit = bit as usize % (sealed.len() * 8);
                sealed[bit / 8] ^= 1 << (bit % 8);
            }
            Rot::Misdirected(other) => match self.raw(kind, other) {
                Some(value) => sealed = seal(&key(kind, other), &value),
                None => sealed.clear(),
            },
        }
        match unseal(&key(kind, number), &sealed) {
            Some(value) => Ok(Some(value.to_vec().into())),
            None => Err(StoreError::Corrupt {
                place: format!("{kind:?} {number}"),
                detail: "its checksum does not match".to_owned(),
                remedy: "Wipe this replica and let it join under a new id",
            }),
        }
    }

    /// One record, `None` when it does not exist or is missing here.
    pub fn record(&self, seq: u64) -> Result<Option<Cow<'_, [u8]>>, StoreError> {
        self.read(Kind::Record, seq)
    }

    /// Number of writes that a crash could still lose.
    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// Makes every further write fail, as a full or broken disk would.
    pub fn fail_writes(&mut self, error: StoreError) {
        self.failing = Some(error);
    }

    /// Makes every further read of entries fail.
    pub fn fail_reads(&self, error: StoreError) {
        *self.fault.borrow_mut() = Some(error);
    }

    /// Records in order, without those in gaps.
    pub fn records(&self) -> &BTreeMap<u64, Vec<u8>> {
        &self.current.records
    }

    /// The newest snapshot usable by raft.
    pub fn latest_snapshot(&self) -> Option<&StoredSnapshot> {
        let mark = self.current.index.snapshot()?;
        self.current.snapshots.get(&mark.seq)
    }

    /// The newest snapshot as the disk gives it.
    pub fn read_latest_snapshot(&self) -> Result<Option<StoredSnapshot>, StoreError> {
        let Some(mark) = self.current.index.snapshot() else { return Ok(None) };
        let Some(data) = self.read(Kind::Snapshot, mark.seq)? else { return Ok(None) };
        let kept = self.current.snapshots.get(&mark.seq);
        Ok(kept.map(|kept| StoredSnapshot { head: kept.head.clone(), data: data.into_owned() }))
    }

    fn read_entries(&self, low: u64, high: u64) -> Result<Vec<Entry>, StoreError> {
        let mut entries: Vec<_> = self.current.entries.range(low..high).map(|e| e.1.clone()).collect();
        for (_, number) in self.rot.range((Kind::Entry, low)..(Kind::Entry, high)).map(|(place, _)| place) {
            let Some(at) = entries.iter().position(|entry| entry.index == *number) else { continue };
            if let Some(bytes) = self.read(Kind::Entry, *number)? {
                // Only a planted bug lets bytes through that are no entry.
                entries[at] = Entry::decode(bytes.as_ref()).unwrap_or_default();
            }
        }
        Ok(entries)
    }

    /// The bytes of a snapshot of the state at a record, if it is kept.
    pub fn snapshot_at(&self, seq: u64) -> Option<&[u8]> {
        self.current.snapshots.get(&seq).map(|snapshot| snapshot.data.as_slice())
    }

    /// Missing records.
    pub fn gaps(&self) -> &[Span] {
        self.current.index.gaps()
    }
}

impl LogStore for MemoryStore {
    fn write(&mut self, batch: WriteBatch) -> Result<(), StoreError> {
        if let Some(error) = &self.failing {
            return Err(error.clone());
        }
        let sync = batch.sync;
        if batch.snapshot.is_some() {
            // Whom it does not serve asks again.
            self.wanted.set(false);
        }
        self.current.perform(Write::Batch(Box::new(batch.clone())))?;
        for place in written(&batch) {
            self.rot.remove(&place);
        }
        self.unsynced.push(Write::Batch(Box::new(batch)));
        if sync && self.fails_to_sync {
            return Err(StoreError::Io {
                operation: "sync",
                place: "/disk".to_owned(),
                detail: "input/output error".to_owned(),
            });
        }
        if sync && self.lies {
            self.promised = self.unsynced.len();
        } else if sync {
            self.promised = 0;
            for write in self.unsynced.drain(..) {
                self.synced.perform(write)?;
            }
        }
        Ok(())
    }

    fn stage_snapshot(&mut self, seq: u64, data: Vec<u8>) -> Result<Staged, StoreError> {
        if let Some(error) = &self.failing {
            return Err(error.clone());
        }
        self.stages += 1;
        let staged = Staged { stage: self.stages, bytes: data.len() as u64 };
        let write = Write::Staged(seq, staged.stage, data);
        self.current.perform(write.clone())?;
        self.unsynced.push(write);
        Ok(staged)
    }

    fn index(&self) -> &LogIndex {
        &self.current.index
    }

    fn fault(&self) -> Option<StoreError> {
        self.fault.borrow().clone()
    }

    fn snapshot_wanted(&self) -> bool {
        self.wanted.take()
    }
}

impl Storage for MemoryStore {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.current.index.hard_state().clone(), self.current.index.conf_state().clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.current.index.first_index() {
            return Err(RaftError::Store(StorageError::Compacted));
        }
        if self.fault.borrow().is_some() {
            return crate::size::unreadable(&context);
        }
        match self.read_entries(low, high) {
            Ok(entries) => Ok(within_size(entries, max_size.into())),
            Err(error) => {
                self.fail_reads(error);
                crate::size::unreadable(&context)
            }
        }
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.current.index.term(index)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.current.index.first_index())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.current.index.last_index())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let first_index = self.current.index.first_index();
        match self.read_latest_snapshot() {
            Ok(Some(snapshot)) if snapshot.head.serves(to, request_index, first_index) => {
                return Ok(snapshot.to_raft());
            }
            Ok(_) => self.wanted.set(true),
            Err(error) => self.fail_reads(error),
        }
        Err(RaftError::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

impl Driver<MemoryStore> {
    /// The store, to make its disk fail.
    pub fn disk(&mut self) -> &mut MemoryStore {
        self.raw.mut_store()
    }
}

fn key(kind: Kind, number: u64) -> Vec<u8> {
    [&[kind as u8][..], &number.to_be_bytes()].concat()
}

/// The places that a batch writes.
fn written(batch: &WriteBatch) -> Vec<(Kind, u64)> {
    let entries = batch.entries.iter().map(|entry| (Kind::Entry, entry.index));
    let records = batch.records.iter().chain(&batch.backfill).map(|(seq, _)| (Kind::Record, *seq));
    let made = batch.snapshot.iter().map(|it| &it.head);
    let snapshots = batch.install.iter().map(|it| &it.head).chain(made).map(|it| (Kind::Snapshot, it.seq));
    entries.chain(records).chain(snapshots).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn with_records(count: u64) -> MemoryStore {
        let mut store = MemoryStore::new();
        for seq in 1..=count {
            let records = vec![(seq, vec![seq as u8; 5])];
            store.write(WriteBatch { records, sync: true, ..WriteBatch::default() }).unwrap();
        }
        store
    }

    #[test]
    fn whatever_rots_is_never_given_out() {
        let mut store = with_records(3);
        for bit in 0..80 {
            store.spoil(Kind::Record, 2, Rot::Flip(bit));
            assert!(matches!(store.record(2), Err(StoreError::Corrupt { .. })), "bit {bit}");
        }
        store.spoil(Kind::Record, 2, Rot::Misdirected(3));
        assert!(matches!(store.record(2), Err(StoreError::Corrupt { .. })));
        assert_eq!(store.record(3).unwrap().unwrap(), &[3; 5][..]);
        let store = store.crash(0);
        assert!(store.record(2).is_err(), "rot outlives a crash");
    }

    #[test]
    fn a_disk_that_lies_loses_what_was_synced_and_it_is_known() {
        let mut store = with_records(2);
        store.lie();
        let records = vec![(3, vec![3])];
        store.write(WriteBatch { records, sync: true, ..WriteBatch::default() }).unwrap();
        assert_eq!(store.unsynced(), 1);
        let store = store.crash(0);
        assert!(store.lost_synced_writes());
        assert_eq!(store.record(3).unwrap(), None);
        assert!(!with_records(2).crash(0).lost_synced_writes());
    }

    #[test]
    fn a_failed_sync_may_have_written_and_is_an_error() {
        let mut store = with_records(1);
        store.fail_syncs();
        let batch = WriteBatch { records: vec![(2, vec![2])], sync: true, ..WriteBatch::default() };
        assert!(matches!(store.write(batch), Err(StoreError::Io { operation: "sync", .. })));
        assert_eq!(store.unsynced(), 1);
        assert_eq!(store.crash(1).record(2).unwrap().unwrap(), &[2][..]);
    }
}
