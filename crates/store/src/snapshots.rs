//! Snapshots of State: of each a small head, and its bytes in parts.
//!
//! Parts are written first, from any thread, under a number of their own (a *stage*), and
//! nobody sees them until the replica writes the head, which names the stage. So bytes that
//! a head names are never written over. A stage without a head goes with the next one, or
//! when the store is opened.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prost::Message as _;
use raft::eraftpb::Snapshot;
use stele_consensus::{SnapshotHead, Staged, StoreError, StoredSnapshot};

use crate::database::{Batch, Database, Family};
use crate::limits;
use crate::meta::{self, SnapshotInfo};
use crate::reader::Reader;

/// How files are called that `RocksDB` has not taken in yet.
const STAGED: &str = "staged";

/// The stages of an open store.
#[derive(Debug, Default)]
pub(crate) struct Stages(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Number of the newest.
    last: u64,
    /// The one that has no head yet, with its seq.
    waiting: Option<(u64, Staged)>,
}

impl Stages {
    /// Whose numbers go on after `last`.
    pub(crate) fn after(last: u64) -> Self {
        Self(Mutex::new(Known { last, waiting: None }))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that was never used.
    pub(crate) fn next(&self) -> u64 {
        let mut known = self.lock();
        known.last += 1;
        known.last
    }

    /// Whether these are the bytes that wait for a head of `seq`.
    pub(crate) fn waits(&self, seq: u64, staged: Staged) -> bool {
        self.lock().waiting == Some((seq, staged))
    }

    /// They have it.
    pub(crate) fn named(&self) {
        self.lock().waiting = None;
    }
}

impl Reader {
    /// What snapshots there are, in order of seq.
    pub fn snapshots(&self) -> Result<Vec<SnapshotInfo>, StoreError> {
        meta::snapshot_infos(self.database())
    }

    /// The snapshot of exactly `seq`.
    pub fn snapshot(&self, seq: u64) -> Result<Option<StoredSnapshot>, StoreError> {
        self.snapshot_if(seq, |_| true)
    }

    /// The same, if it is what is wanted: its bytes, which may be many, are read only then.
    pub(crate) fn snapshot_if(
        &self,
        seq: u64,
        is_wanted: impl Fn(&SnapshotHead) -> bool,
    ) -> Result<Option<StoredSnapshot>, StoreError> {
        let database = self.database();
        let key = seq.to_be_bytes();
        let corrupt = |detail: String| database.corrupt(Family::Snapshots, &key, detail);
        loop {
            let Some(info) = meta::snapshot_info(database, seq)? else { return Ok(None) };
            let Some(head) = database.get(Family::Snapshots, &key)? else { return Ok(None) };
            let head = Snapshot::decode(head.as_slice()).ok();
            // One of before there were parts has all its bytes with the head.
            let mut snapshot = head
                .as_ref()
                .and_then(StoredSnapshot::from_raft)
                .ok_or_else(|| corrupt("it is no snapshot".to_owned()))?;
            if !is_wanted(&snapshot.head) {
                return Ok(None);
            }
            if let Some(stage) = info.stage {
                match self.parts_of(seq, stage, info.bytes)? {
                    Ok(data) => snapshot.data = data,
                    Err(number) if meta::snapshot_info(database, seq)? == Some(info) => {
                        return Err(corrupt(format!("part {number} of it is missing")));
                    }
                    // It was deleted, or replaced, meanwhile.
                    Err(_) => continue,
                }
            }
            let bytes = snapshot.data.len();
            if bytes as u64 != info.bytes {
                return Err(corrupt(format!("it has {bytes} bytes, not {}", info.bytes)));
            }
            return Ok(Some(snapshot));
        }
    }

    /// The bytes that were staged; or else the number of the part that is missing.
    fn parts_of(&self, seq: u64, stage: u64, bytes: u64) -> Result<Result<Vec<u8>, u32>, StoreError> {
        let mut data = Vec::with_capacity(usize::try_from(bytes).unwrap_or_default());
        for number in 0..bytes.div_ceil(limits::SNAPSHOT_PART_BYTES as u64) as u32 {
            match self.database().get(Family::Snapshots, &part_key(seq, stage, number))? {
                Some(part) => data.extend_from_slice(&part),
                None => return Ok(Err(number)),
            }
        }
        Ok(Ok(data))
    }

    /// The newest snapshot of `seq` or before it: where a replay to `seq` begins.
    pub fn snapshot_at_or_before(&self, seq: u64) -> Result<Option<StoredSnapshot>, StoreError> {
        for info in self.snapshots()?.iter().rev().filter(|info| info.seq <= seq) {
            // Or it was deleted meanwhile.
            if let Some(snapshot) = self.snapshot(info.seq)? {
                return Ok(Some(snapshot));
            }
        }
        Ok(None)
    }

    /// Writes the bytes of a snapshot, to be named in a
    /// [batch](stele_consensus::WriteBatch::snapshot) later: see
    /// [`LogStore::stage_snapshot`](stele_consensus::LogStore::stage_snapshot).
    /// However many they are, the replica's writes go on meanwhile.
    pub fn stage_snapshot(&self, seq: u64, data: &[u8]) -> Result<Staged, StoreError> {
        let database = self.database();
        let forgotten = self.shared.stages.lock().waiting.take();
        if let Some((seq, Staged { stage, .. })) = forgotten {
            delete_parts(database, seq, stage)?;
        }
        database.check_room(data.len() as u64)?;
        let stage = self.shared.stages.next();
        let staged = Staged { stage, bytes: data.len() as u64 };
        // There is no file without any value.
        if !data.is_empty() {
            let file = database.path().join(format!("{stage}.{STAGED}"));
            database.ingest(Family::Snapshots, &file, parts(seq, stage, data))?;
        }
        self.shared.stages.lock().waiting = Some((seq, staged));
        Ok(staged)
    }

    /// Keeps a snapshot that was rebuilt from records. It speeds up replays and
    /// is never sent to a follower. One made while applying is not replaced.
    pub fn put_snapshot(&self, seq: u64, data: &[u8]) -> Result<(), StoreError> {
        let known = self.snapshots()?;
        if known.iter().any(|info| info.seq == seq && info.index > 0) {
            return Ok(());
        }
        let staged = self.stage_snapshot(seq, data)?;
        let mut batch = self.database().batch();
        put_head(self.database(), &mut batch, &SnapshotHead { seq, ..SnapshotHead::default() }, staged)?;
        batch.commit(false)?;
        self.shared.stages.named();
        Ok(())
    }

    /// Deletes a snapshot, and syncs. The newest one stays while records are
    /// missing, because no replay could make it again.
    pub fn delete_snapshot(&self, seq: u64) -> Result<(), StoreError> {
        let database = self.database();
        let newest = self.snapshots()?.last().map(|info| info.seq);
        if newest == Some(seq) && !self.gaps().is_empty() {
            return Err(StoreError::Refused(format!(
                "snapshot {seq} cannot be rebuilt while records are missing"
            )));
        }
        let stage = meta::snapshot_info(database, seq)?.and_then(|info| info.stage);
        let mut batch = database.batch();
        batch.delete(Family::Meta, &meta::snapshot_key(seq))?;
        batch.delete(Family::Snapshots, &seq.to_be_bytes())?;
        batch.commit(true)?;
        stage.map_or(Ok(()), |stage| delete_parts(database, seq, stage))
    }
}

/// Writes the head of a snapshot, which makes it one. What was the snapshot of that seq goes.
pub(crate) fn put_head(
    database: &Database,
    batch: &mut Batch<'_>,
    head: &SnapshotHead,
    Staged { stage, bytes }: Staged,
) -> Result<(), StoreError> {
    let SnapshotHead { seq, index, term, .. } = *head;
    if let Some(SnapshotInfo { stage: Some(old), .. }) = meta::snapshot_info(database, seq)? {
        forget_parts(batch, seq, old)?;
    }
    let alone = StoredSnapshot { head: head.clone(), data: Vec::new() };
    batch.put(Family::Snapshots, &seq.to_be_bytes(), &alone.to_raft().encode_to_vec())?;
    meta::put_snapshot_info(batch, SnapshotInfo { seq, index, term, bytes, stage: Some(stage) })
}

/// Writes a snapshot in one piece, under a stage of its own.
pub(crate) fn put_whole(
    database: &Database,
    batch: &mut Batch<'_>,
    snapshot: &StoredSnapshot,
    stage: u64,
) -> Result<(), StoreError> {
    let StoredSnapshot { head, data } = snapshot;
    for (key, part) in parts(head.seq, stage, data) {
        batch.put(Family::Snapshots, &key, part)?;
    }
    put_head(database, batch, head, Staged { stage, bytes: data.len() as u64 })
}

/// Deletes what was staged and never became a snapshot.
pub(crate) fn forget_staged(database: &Database) -> Result<Stages, StoreError> {
    remove_files(database.path()).map_err(|error| StoreError::Io {
        operation: "deleting files that were never taken in",
        place: database.path().display().to_string(),
        detail: error.to_string(),
    })?;
    // One without bytes has no parts.
    let named = meta::snapshot_infos(database)?.into_iter().filter_map(|info| info.stage).max();
    let mut newest = named.unwrap_or_default();
    let mut from = Vec::new();
    while let Some(key) = database.first_key(Family::Snapshots, &from)? {
        from = match key.as_chunks::<8>() {
            ([_], []) => [&key[..], &[0]].concat(),
            ([seq, stage], [_, _, _, _]) => {
                let (seq, stage) = (u64::from_be_bytes(*seq), u64::from_be_bytes(*stage));
                newest = newest.max(stage);
                if meta::snapshot_info(database, seq)?.and_then(|info| info.stage) != Some(stage) {
                    delete_parts(database, seq, stage)?;
                }
                let (_, last) = part_range(seq, stage);
                [&last[..], &[0]].concat()
            }
            _ => {
                let detail = "it is the key of no snapshot".to_owned();
                return Err(database.corrupt(Family::Snapshots, &key, detail));
            }
        };
    }
    Ok(Stages::after(newest))
}

fn remove_files(folder: &Path) -> std::io::Result<()> {
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == STAGED) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Deletes bytes that no head names, with the file they are in.
fn delete_parts(database: &Database, seq: u64, stage: u64) -> Result<(), StoreError> {
    let mut batch = database.batch();
    forget_parts(&mut batch, seq, stage)?;
    batch.commit(true)?;
    let (from, last) = part_range(seq, stage);
    database.drop_files(Family::Snapshots, &from, &last)
}

fn forget_parts(batch: &mut Batch<'_>, seq: u64, stage: u64) -> Result<(), StoreError> {
    let (from, last) = part_range(seq, stage);
    batch.delete_range(Family::Snapshots, &from, &last)?;
    // The range ends below it.
    batch.delete(Family::Snapshots, &last)
}

fn parts(seq: u64, stage: u64, data: &[u8]) -> impl Iterator<Item = (Vec<u8>, &[u8])> {
    let numbered = (0..).zip(data.chunks(limits::SNAPSHOT_PART_BYTES));
    numbered.map(move |(number, part)| (part_key(seq, stage, number), part))
}

fn part_key(seq: u64, stage: u64, number: u32) -> Vec<u8> {
    [&seq.to_be_bytes()[..], &stage.to_be_bytes(), &number.to_be_bytes()].concat()
}

/// The first and the last key that a part of a snapshot can have.
fn part_range(seq: u64, stage: u64) -> (Vec<u8>, Vec<u8>) {
    (part_key(seq, stage, 0), part_key(seq, stage, u32::MAX))
}

#[cfg(test)]
#[path = "snapshots_tests.rs"]
mod tests;
