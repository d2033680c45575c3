//! The durable side of consensus on `RocksDB`.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message as _;
use raft::eraftpb::{Entry, Snapshot};
use raft::{Error as RaftError, GetEntriesContext, RaftState, Storage, StorageError};
use stele_consensus::size::{unreadable, within_size};
use stele_consensus::{
    Changes, LogIndex, LogStore, SnapshotHead, Staged, StagedSnapshot, StoreError, StoredSnapshot, WriteBatch,
};

use crate::database::{Batch, Database, Family, REMEDY};
use crate::disk::Disk;
use crate::error::OpenError;
use crate::limits;
use crate::meta;
use crate::reader::{Reader, Shared};
use crate::recent::Recent;
use crate::snapshots;
use crate::verify;
use crate::watermark::{self, Watermark};

/// What one put takes in a write, beside its value, in bytes, about.
const PUT_BYTES: usize = 64;
/// Small values that a write puts beside entries and records, at most.
const PUTS_BESIDE: usize = 8;

/// The layout this version writes. Since 2, the bytes of a snapshot are not with its head; since 3, what is at
/// rest may be compressed with Zstandard.
const FORMAT: u32 = 3;
/// The oldest layout it reads. A store of it becomes one of the newest when it is opened.
const OLDEST_FORMAT: u32 = 1;

/// Whose store it is. It is written once and checked at every opening, so that
/// a folder cannot end up under another controller or fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The fleet.
    pub fleet: String,
    /// The controller.
    pub node: u64,
}

/// Settings of a store.
#[derive(Debug, Clone)]
pub struct Settings {
    /// See [`limits::DISK_RESERVE_BYTES`].
    pub disk_reserve_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { disk_reserve_bytes: limits::DISK_RESERVE_BYTES }
    }
}

/// An open store. The thread that drives consensus owns it; others read through
/// [`Store::reader`].
pub struct Store {
    shared: Arc<Shared>,
    index: LogIndex,
    recent: Recent,
    watermark: Watermark,
    // Synced writes so far.
    synced: u64,
    fault: Mutex<Option<StoreError>>,
    snapshot_wanted: AtomicBool,
}

impl Store {
    /// Whether there is a store in the folder.
    pub fn exists(path: &Path) -> bool {
        Database::exists(path)
    }

    /// Creates the store of a controller that never ran before. Creating one
    /// for a controller that did run lets it forget its votes: that is why
    /// [`Store::open`] never creates.
    pub fn create(path: &Path, identity: &Identity, settings: &Settings) -> Result<Self, OpenError> {
        if identity.fleet.is_empty()
            || identity.fleet.len() > limits::MAX_FLEET_ID_BYTES
            || identity.node == 0
        {
            return Err(OpenError::InvalidIdentity { limit: limits::MAX_FLEET_ID_BYTES });
        }
        std::fs::create_dir_all(path).map_err(|error| StoreError::Io {
            operation: "creating the folder",
            place: path.display().to_string(),
            detail: error.to_string(),
        })?;
        Disk::open(path, settings.disk_reserve_bytes)?.check_room(0)?;
        let database = Database::open(path, true, settings.disk_reserve_bytes)?;
        // A creation that was interrupted left no identity and nothing else.
        if database.get(Family::Meta, meta::IDENTITY)?.is_some() {
            return Err(OpenError::Exists { path: path.to_owned() });
        }
        let mut batch = database.batch();
        batch.put(Family::Meta, meta::FORMAT, &FORMAT.to_be_bytes())?;
        batch.put(Family::Meta, meta::IDENTITY, &encode_identity(identity))?;
        batch.commit(true)?;
        Self::recover(database)
    }

    /// Opens the store of a controller that ran before. Checks every raft entry
    /// and the newest records.
    pub fn open(path: &Path, identity: &Identity, settings: &Settings) -> Result<Self, OpenError> {
        let missing = || OpenError::Missing { path: path.to_owned() };
        if !Database::exists(path) {
            return Err(missing());
        }
        let database = Database::open(path, false, settings.disk_reserve_bytes)?;
        let Some(found) = database.get(Family::Meta, meta::IDENTITY)? else {
            return Err(missing());
        };
        let format = check_format(&database, path)?;
        let found = decode_identity(&found)
            .ok_or_else(|| database.corrupt(Family::Meta, meta::IDENTITY, "it does not decode".to_owned()))?;
        if found != *identity {
            return Err(OpenError::Identity {
                path: path.to_owned(),
                found_fleet: found.fleet,
                found_node: found.node,
                fleet: identity.fleet.clone(),
                node: identity.node,
            });
        }
        if format < FORMAT {
            let mut batch = database.batch();
            batch.put(Family::Meta, meta::FORMAT, &FORMAT.to_be_bytes())?;
            batch.commit(true)?;
        }
        Self::recover(database)
    }

    fn recover(database: Database) -> Result<Self, OpenError> {
        let (watermark, proven) = Watermark::open(database.path())?;
        let synced = watermark::check(&database, proven, REMEDY)?;
        let stages = snapshots::forget_staged(&database)?;
        let mut parts = meta::recover(&database)?;
        // A follower that is a little behind is sent what it lacks, right after a start, too.
        let mut recent = Recent::default();
        parts.terms = verify::entries(&database, parts.truncated.0, |entry| recent.push(entry))?;
        let index = LogIndex::recover(parts);
        if let Some(why) = index.inconsistency() {
            let detail = format!("the log contradicts itself: {why}");
            return Err(database.corrupt(Family::Raft, b"", detail).into());
        }
        let shared = Arc::new(Shared::new(database, stages));
        shared.publish(&index);
        let store = Self {
            shared,
            index,
            recent,
            watermark,
            synced,
            fault: Mutex::new(None),
            snapshot_wanted: AtomicBool::new(false),
        };
        verify::tail(&store.reader())?;
        tracing::info!(
            path = %store.database().path().display(),
            entries = store.index.last_index() - store.index.truncated().0,
            last_seq = store.index.last_seq(),
            applied = store.index.applied(),
            "store opened"
        );
        Ok(store)
    }

    /// A handle for other threads.
    pub fn reader(&self) -> Reader {
        Reader { shared: Arc::clone(&self.shared) }
    }

    /// The newest snapshot that raft may send, to rebuild State from at a start.
    pub fn latest_snapshot(&self) -> Result<Option<StoredSnapshot>, StoreError> {
        match self.index.snapshot() {
            Some(mark) => self.reader().snapshot(mark.seq),
            None => Ok(None),
        }
    }

    fn database(&self) -> &Database {
        &self.shared.database
    }

    /// First of the newest raft entries, which are kept in memory up to [`limits::RECENT_ENTRIES_BYTES`];
    /// `u64::MAX` without one.
    pub fn first_recent(&self) -> u64 {
        self.recent.first()
    }

    fn remember(&mut self, entries: Vec<Entry>, changes: &Changes) {
        for (from, to) in &changes.delete_entries {
            self.recent.forget(&(*from..=*to));
        }
        for entry in entries {
            self.recent.push(entry);
        }
    }

    fn fill(&self, into: &mut Batch<'_>, batch: &WriteBatch, changes: &Changes) -> Result<(), StoreError> {
        // Deletions first: what they and the puts have in common stays put.
        for (from, to) in &changes.delete_entries {
            let (from, before) = (from.to_be_bytes(), (to + 1).to_be_bytes());
            into.delete_range(Family::Raft, &from, &before)?;
        }
        for entry in &batch.entries {
            let key = entry.index.to_be_bytes();
            into.put(Family::Raft, &key, &entry.encode_to_vec())?;
        }
        for (seq, record) in batch.records.iter().chain(&batch.backfill) {
            into.put(Family::Records, &seq.to_be_bytes(), record)?;
        }
        if let Some(snapshot) = &batch.install {
            snapshots::put_whole(self.database(), into, snapshot, self.shared.stages.next())?;
        }
        if let Some(StagedSnapshot { head, staged }) = &batch.snapshot {
            snapshots::put_head(self.database(), into, head, *staged)?;
        }
        let installs = batch.install.is_some();
        if installs || batch.hard_state.is_some() {
            meta::put_hard_state(into, self.index.hard_state())?;
        }
        if installs || batch.conf_state.is_some() {
            meta::put_conf_state(into, self.index.conf_state())?;
        }
        if installs || batch.retired.is_some() {
            let retired = self.index.retired().iter().copied();
            into.put(Family::Meta, meta::RETIRED, &meta::encode_numbers(retired))?;
        }
        if installs || batch.applied.is_some() {
            let applied = meta::encode_numbers([self.index.applied()]);
            into.put(Family::Meta, meta::APPLIED, &applied)?;
        }
        if changes.truncated {
            let (index, term) = self.index.truncated();
            let truncated = meta::encode_numbers([index, term]);
            into.put(Family::Meta, meta::TRUNCATED, &truncated)?;
        }
        if changes.last_seq {
            let last_seq = meta::encode_numbers([self.index.last_seq()]);
            into.put(Family::Meta, meta::LAST_SEQ, &last_seq)?;
        }
        if changes.gaps {
            meta::put_gaps(into, self.index.gaps())?;
        }
        Ok(())
    }

    fn perform(&mut self, batch: &WriteBatch, changes: &Changes) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        let mut into = shared.database.batch_of(room_for(batch));
        self.fill(&mut into, batch, changes)?;
        if batch.sync {
            self.synced += 1;
            into.put(Family::Meta, meta::SYNCED, &meta::encode_numbers([self.synced]))?;
        }
        into.commit(batch.sync)?;
        if batch.sync {
            self.watermark.advance(self.synced)?;
        }
        Ok(())
    }

    fn read_entries(&self, low: u64, high: u64, limit: u64) -> Result<Vec<Entry>, StoreError> {
        let before = Some(high.to_be_bytes().to_vec());
        let mut pairs = self.database().scan(Family::Raft, &low.to_be_bytes(), before)?;
        let mut entries = Vec::new();
        let mut bytes = 0;
        for index in low..high {
            let Some((key, value)) = pairs.next().transpose()? else {
                let detail = "the entry is not there".to_owned();
                let key = index.to_be_bytes();
                return Err(self.database().corrupt(Family::Raft, &key, detail));
            };
            let entry = verify::entry(self.database(), &key, &value, index)?;
            bytes += entry.encoded_len() as u64;
            entries.push(entry);
            // Not a byte more is read than raft will take.
            if bytes > limit {
                break;
            }
        }
        Ok(entries)
    }

    fn fail(&self, error: StoreError) {
        tracing::error!(%error, "the log cannot be gone on with");
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        fault.get_or_insert(error);
    }
}

impl LogStore for Store {
    fn write(&mut self, batch: WriteBatch) -> Result<(), StoreError> {
        if let Some(error) = self.fault() {
            return Err(error);
        }
        self.database().check_room(size_of_batch(&batch))?;
        if let Some(StagedSnapshot { head, staged }) = &batch.snapshot
            && !self.shared.stages.waits(head.seq, *staged)
        {
            return Err(StoreError::Refused(format!("the snapshot at {} is not staged", head.seq)));
        }
        let changes = self.index.admit(&batch)?;
        let written = self.perform(&batch, &changes);
        if let Err(error) = written {
            // Memory is ahead of the disk now: nobody may go on with either.
            self.fail(error.clone());
            return Err(error);
        }
        if batch.snapshot.is_some() {
            self.shared.stages.named();
            // It was wanted while it was made, over and over. Whom it does not serve asks again.
            self.snapshot_wanted.store(false, Ordering::Relaxed);
        }
        self.remember(batch.entries, &changes);
        if changes.last_seq || changes.gaps {
            self.shared.publish(&self.index);
        }
        Ok(())
    }

    fn stage_snapshot(&mut self, seq: u64, data: Vec<u8>) -> Result<Staged, StoreError> {
        self.reader().stage_snapshot(seq, &data)
    }

    fn index(&self) -> &LogIndex {
        &self.index
    }

    fn fault(&self) -> Option<StoreError> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn snapshot_wanted(&self) -> bool {
        self.snapshot_wanted.swap(false, Ordering::Relaxed)
    }
}

impl Storage for Store {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.index.hard_state().clone(), self.index.conf_state().clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.index.first_index() {
            return Err(RaftError::Store(StorageError::Compacted));
        }
        let max_size = max_size.into();
        let first_recent = self.first_recent();
        let mut entries = Vec::new();
        if low < first_recent {
            let limit = max_size.unwrap_or(u64::MAX);
            match self.read_entries(low, high.min(first_recent), limit) {
                Ok(read) => entries = read,
                Err(error) => {
                    self.fail(error);
                    return unreadable(&context);
                }
            }
            // Cut short by the size: what follows would leave a hole.
            if low + (entries.len() as u64) < high.min(first_recent) {
                return Ok(within_size(entries, max_size));
            }
        }
        let recent = self.recent.range(low, high).cloned();
        Ok(within_size(entries.into_iter().chain(recent), max_size))
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.index.term(index)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.index.first_index())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.index.last_index())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let first_index = self.index.first_index();
        let serves = |head: &SnapshotHead| head.serves(to, request_index, first_index);
        // Raft asks with every append. Where none helps, no bytes of one are read to find that out.
        let mark = self.index.snapshot();
        match mark.map_or(Ok(None), |mark| self.reader().snapshot_if(mark.seq, serves)) {
            Ok(Some(snapshot)) => return Ok(snapshot.to_raft()),
            // There is none that helps, or it was deleted: one can be made.
            Ok(_) => self.snapshot_wanted.store(true, Ordering::Relaxed),
            // Somebody looks at the fault before anything is sent.
            Err(error) => self.fail(error),
        }
        Err(RaftError::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

fn size_of_batch(batch: &WriteBatch) -> u64 {
    let entries: usize = batch.entries.iter().map(|e| e.data.len()).sum();
    let records: usize = batch.records.iter().chain(&batch.backfill).map(|record| record.1.len()).sum();
    let installed = batch.install.as_ref().map_or(0, |snapshot| snapshot.data.len());
    (entries + records + installed) as u64
}

/// What a batch takes when it is written, with keys and checksums, about.
fn room_for(batch: &WriteBatch) -> usize {
    let puts = batch.entries.len() + batch.records.len() + batch.backfill.len();
    let own = size_of_batch(batch) as usize;
    own + (puts + PUTS_BESIDE) * PUT_BYTES
}

pub(crate) fn encode_identity(identity: &Identity) -> Vec<u8> {
    let mut bytes = identity.node.to_be_bytes().to_vec();
    bytes.extend_from_slice(identity.fleet.as_bytes());
    bytes
}

/// The layout of a store; refuses one that this version does not know.
pub(crate) fn check_format(database: &Database, path: &Path) -> Result<u32, OpenError> {
    let format = database.get(Family::Meta, meta::FORMAT)?;
    let format = format.and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    let found = u32::from_be_bytes(format.unwrap_or_default());
    if (OLDEST_FORMAT..=FORMAT).contains(&found) {
        Ok(found)
    } else {
        Err(OpenError::Format { path: path.to_owned(), found, supported: FORMAT })
    }
}

pub(crate) fn decode_identity(bytes: &[u8]) -> Option<Identity> {
    let (node, fleet) = bytes.split_first_chunk::<8>()?;
    Some(Identity { fleet: String::from_utf8(fleet.to_vec()).ok()?, node: u64::from_be_bytes(*node) })
}
