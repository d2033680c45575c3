//! A store in memory that loses unsynced writes when it crashes. It is the fake
//! beside the real one: the simulator and this crate's tests run on it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use raft::eraftpb::{Entry, Snapshot};
use raft::{Error as RaftError, GetEntriesContext, RaftState, Storage, StorageError};

use crate::batch::{StoredSnapshot, WriteBatch};
use crate::driver::Driver;
use crate::error::StoreError;
use crate::log_index::{LogIndex, Span};
use crate::log_store::LogStore;
use crate::size::within_size;

#[derive(Debug, Clone)]
struct Image {
    index: LogIndex,
    entries: BTreeMap<u64, Entry>,
    records: BTreeMap<u64, Vec<u8>>,
    meta: BTreeMap<Vec<u8>, Vec<u8>>,
    snapshots: BTreeMap<u64, StoredSnapshot>,
}

impl Image {
    fn perform(&mut self, batch: WriteBatch) -> Result<(), StoreError> {
        let changes = self.index.admit(&batch)?;
        for (from, to) in changes.delete_entries {
            let tail = self.entries.split_off(&from);
            self.entries.extend(tail.into_iter().filter(|e| e.0 > to));
        }
        self.entries.extend(batch.entries.into_iter().map(|e| (e.index, e)));
        self.records.extend(batch.records);
        self.records.extend(batch.backfill);
        self.meta.extend(batch.meta);
        for snapshot in batch.install.into_iter().chain(batch.snapshot) {
            self.snapshots.insert(snapshot.seq, snapshot);
        }
        Ok(())
    }
}

/// See the module.
#[derive(Debug)]
pub struct MemoryStore {
    current: Image,
    synced: Image,
    unsynced: Vec<WriteBatch>,
    wanted: Cell<bool>,
    fault: RefCell<Option<StoreError>>,
    failing: Option<StoreError>,
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
            meta: BTreeMap::new(),
            snapshots: BTreeMap::new(),
        };
        Self {
            current: image.clone(),
            synced: image,
            unsynced: Vec::new(),
            wanted: Cell::new(false),
            fault: RefCell::new(None),
            failing: None,
        }
    }

    /// Loses power: of the writes after the last sync, only the first `keep`
    /// survive.
    #[must_use]
    pub fn crash(mut self, keep: usize) -> Self {
        self.unsynced.truncate(keep);
        for batch in std::mem::take(&mut self.unsynced) {
            // Every batch was admitted in this order before.
            if self.synced.perform(batch).is_err() {
                break;
            }
        }
        Self { current: self.synced.clone(), synced: self.synced, ..Self::new() }
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

    /// A value stored through [`Applied::meta`](crate::Applied::meta).
    pub fn meta(&self, key: &[u8]) -> Option<&[u8]> {
        self.current.meta.get(key).map(Vec::as_slice)
    }

    /// The newest snapshot usable by raft.
    pub fn latest_snapshot(&self) -> Option<&StoredSnapshot> {
        let mark = self.current.index.snapshot()?;
        self.current.snapshots.get(&mark.seq)
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
        self.current.perform(batch.clone())?;
        self.unsynced.push(batch);
        if sync {
            for batch in self.unsynced.drain(..) {
                self.synced.perform(batch)?;
            }
        }
        Ok(())
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
        let entries = self.current.entries.range(low..high).map(|e| e.1.clone());
        Ok(within_size(entries, max_size.into()))
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
        match self.latest_snapshot() {
            Some(snapshot) if snapshot.serves(to, request_index, first_index) => Ok(snapshot.to_raft()),
            _ => {
                self.wanted.set(true);
                Err(RaftError::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}

impl Driver<MemoryStore> {
    /// Makes every further write of this replica fail: see [`MemoryStore::fail_writes`].
    pub fn fail_writes(&mut self, error: StoreError) {
        self.raw.mut_store().fail_writes(error);
    }
}
