//! Snapshots of State: of each a small head, and its bytes in parts.
//!
//! Parts are written first, from any thread, and nobody sees them until the replica
//! writes the head. What was staged and never got a head goes when a store is opened.

use std::collections::BTreeSet;
use std::path::Path;

use prost::Message as _;
use raft::eraftpb::Snapshot;
use stele_consensus::{SnapshotHead, StoreError, StoredSnapshot};

use crate::database::{Batch, Database, Family};
use crate::limits;
use crate::meta::{self, SnapshotInfo};
use crate::reader::Reader;

/// How files are called that `RocksDB` has not taken in yet.
const STAGED: &str = "staged";

impl Reader {
    /// What snapshots there are, in order of seq.
    pub fn snapshots(&self) -> Result<Vec<SnapshotInfo>, StoreError> {
        meta::snapshot_infos(self.database())
    }

    /// The snapshot of exactly `seq`.
    pub fn snapshot(&self, seq: u64) -> Result<Option<StoredSnapshot>, StoreError> {
        let database = self.database();
        let key = seq.to_be_bytes();
        let (Some(info), Some(head)) =
            (meta::snapshot_info(database, seq)?, database.get(Family::Snapshots, &key)?)
        else {
            return Ok(None);
        };
        let corrupt = |detail: String| database.corrupt(Family::Snapshots, &key, detail);
        let head = Snapshot::decode(head.as_slice()).ok();
        // Stores of before parts have all bytes with the head.
        let StoredSnapshot { head, mut data } = head
            .as_ref()
            .and_then(StoredSnapshot::from_raft)
            .ok_or_else(|| corrupt("it is no snapshot".to_owned()))?;
        data.reserve_exact((info.bytes as usize).saturating_sub(data.len()));
        for number in 0.. {
            if data.len() as u64 >= info.bytes {
                break;
            }
            if let Some(part) = database.get(Family::Snapshots, &part_key(seq, number))? {
                data.extend_from_slice(&part);
            } else if meta::snapshot_info(database, seq)?.is_none() {
                // It was deleted meanwhile.
                return Ok(None);
            } else {
                return Err(corrupt(format!("part {number} of it is missing")));
            }
        }
        if data.len() as u64 != info.bytes {
            return Err(corrupt(format!("it has {} bytes, not {}", data.len(), info.bytes)));
        }
        Ok(Some(StoredSnapshot { head, data }))
    }

    /// The newest snapshot of `seq` or before it: where a replay to `seq` begins.
    pub fn snapshot_at_or_before(&self, seq: u64) -> Result<Option<StoredSnapshot>, StoreError> {
        let infos = self.snapshots()?;
        match infos.iter().rev().find(|info| info.seq <= seq) {
            Some(info) => self.snapshot(info.seq),
            None => Ok(None),
        }
    }

    /// Writes the bytes of a snapshot, to be named in a
    /// [batch](stele_consensus::WriteBatch::snapshot) later: see
    /// [`LogStore::stage_snapshot`](stele_consensus::LogStore::stage_snapshot).
    /// However many they are, the replica's writes go on meanwhile.
    pub fn stage_snapshot(&self, seq: u64, data: &[u8]) -> Result<(), StoreError> {
        let database = self.database();
        database.check_room(data.len() as u64)?;
        if data.is_empty() {
            return Ok(());
        }
        let file = database.path().join(format!("{seq}.{STAGED}"));
        database.ingest(Family::Snapshots, &file, parts(seq, data))
    }

    /// Keeps a snapshot that was rebuilt from records. It speeds up replays and
    /// is never sent to a follower. One made while applying is not replaced.
    pub fn put_snapshot(&self, seq: u64, data: &[u8]) -> Result<(), StoreError> {
        let known = self.snapshots()?;
        if known.iter().any(|info| info.seq == seq && info.index > 0) {
            return Ok(());
        }
        self.stage_snapshot(seq, data)?;
        let mut batch = self.database().batch();
        put_head(&mut batch, &SnapshotHead { seq, ..SnapshotHead::default() }, data.len() as u64)?;
        batch.commit(false)
    }

    /// Deletes a snapshot. The newest one stays while records are missing,
    /// because no replay could make it again.
    pub fn delete_snapshot(&self, seq: u64) -> Result<(), StoreError> {
        let newest = self.snapshots()?.last().map(|info| info.seq);
        if newest == Some(seq) && !self.gaps().is_empty() {
            return Err(StoreError::Refused(format!(
                "snapshot {seq} cannot be rebuilt while records are missing"
            )));
        }
        delete(self.database(), seq)
    }
}

/// Whether so many bytes of a snapshot are there.
pub(crate) fn is_staged(database: &Database, seq: u64, bytes: u64) -> Result<bool, StoreError> {
    let Some(last) = bytes.div_ceil(limits::SNAPSHOT_PART_BYTES as u64).checked_sub(1) else {
        return Ok(true);
    };
    let key = part_key(seq, last as u32);
    Ok(database.first_key(Family::Snapshots, &key)?.as_ref() == Some(&key))
}

/// Writes the head of a snapshot, which makes it one.
pub(crate) fn put_head(batch: &mut Batch<'_>, head: &SnapshotHead, bytes: u64) -> Result<(), StoreError> {
    let alone = StoredSnapshot { head: head.clone(), data: Vec::new() };
    batch.put(Family::Snapshots, &head.seq.to_be_bytes(), &alone.to_raft().encode_to_vec())?;
    let SnapshotHead { seq, index, term, .. } = *head;
    meta::put_snapshot_info(batch, SnapshotInfo { seq, index, term, bytes })
}

/// Writes a snapshot in one piece.
pub(crate) fn put_whole(batch: &mut Batch<'_>, snapshot: &StoredSnapshot) -> Result<(), StoreError> {
    let StoredSnapshot { head, data } = snapshot;
    let (from, before) = part_range(head.seq);
    batch.delete_range(Family::Snapshots, &from, &before)?;
    for (key, part) in parts(head.seq, data) {
        batch.put(Family::Snapshots, &key, part)?;
    }
    put_head(batch, head, data.len() as u64)
}

/// Deletes what was staged and never became a snapshot.
pub(crate) fn forget_staged(database: &Database) -> Result<(), StoreError> {
    remove_files(database.path()).map_err(|error| StoreError::Io {
        operation: "deleting files that were never taken in",
        place: database.path().display().to_string(),
        detail: error.to_string(),
    })?;
    let marked: BTreeSet<u64> = meta::snapshot_infos(database)?.iter().map(|info| info.seq).collect();
    let mut from = Vec::new();
    while let Some(key) = database.first_key(Family::Snapshots, &from)? {
        let Some((seq, _)) = key.split_first_chunk::<8>() else {
            let detail = "it is the key of no snapshot".to_owned();
            return Err(database.corrupt(Family::Snapshots, &key, detail));
        };
        let seq = u64::from_be_bytes(*seq);
        if !marked.contains(&seq) {
            delete(database, seq)?;
        }
        let Some(next) = seq.checked_add(1) else { break };
        from = next.to_be_bytes().to_vec();
    }
    Ok(())
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

fn delete(database: &Database, seq: u64) -> Result<(), StoreError> {
    let (from, before) = part_range(seq);
    let mut batch = database.batch();
    batch.delete(Family::Meta, &meta::snapshot_key(seq))?;
    batch.delete(Family::Snapshots, &seq.to_be_bytes())?;
    batch.delete_range(Family::Snapshots, &from, &before)?;
    batch.commit(false)?;
    // Not before the log says that nobody needs them.
    database.drop_files(Family::Snapshots, &from, &before)
}

fn parts(seq: u64, data: &[u8]) -> impl Iterator<Item = (Vec<u8>, &[u8])> {
    let numbered = (0..).zip(data.chunks(limits::SNAPSHOT_PART_BYTES));
    numbered.map(move |(number, part)| (part_key(seq, number), part))
}

fn part_key(seq: u64, number: u32) -> Vec<u8> {
    [&seq.to_be_bytes()[..], &number.to_be_bytes()].concat()
}

/// The keys of all parts of a snapshot: from the first on, below the second.
fn part_range(seq: u64) -> (Vec<u8>, Vec<u8>) {
    (part_key(seq, 0), seq.saturating_add(1).to_be_bytes().to_vec())
}
