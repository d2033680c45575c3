//! The port to the durable side.

use crate::batch::{Staged, WriteBatch};
use crate::error::StoreError;
use crate::log_index::LogIndex;

/// The durable side of a replica: raft's log and the records derived from it.
///
/// Two things live in it with different life times. Raft's entries may be
/// overwritten before they commit and compacted afterwards; records are written
/// once, when their entry is applied, and stay. No raft operation touches a
/// record.
///
/// Contract of the `raft::Storage` half:
/// - a read that fails must set [`LogStore::fault`] and must not answer
///   `Compacted` or `Unavailable`, because raft answers those with a snapshot
///   and would thereby hide a broken disk;
/// - `snapshot` answers `SnapshotTemporarilyUnavailable` when no stored snapshot
///   [serves](crate::SnapshotHead::serves) the request, and [`LogStore::snapshot_wanted`] turns true.
pub trait LogStore: raft::Storage {
    /// Writes one atomic batch. It is durable on return iff `batch.sync`; a
    /// synced batch makes all earlier ones durable as well, so after a crash a
    /// prefix of all batches is there, at least up to the last synced one.
    fn write(&mut self, batch: WriteBatch) -> Result<(), StoreError>;

    /// Keeps the bytes of a snapshot of the state at record `seq`, which may be
    /// many, until a batch [names](WriteBatch::snapshot) them. Before that they
    /// are not there for anybody; what was staged before and not named is
    /// forgotten, and so it is when the store is opened.
    fn stage_snapshot(&mut self, seq: u64, data: Vec<u8>) -> Result<Staged, StoreError>;

    /// Positions and small values of the log, held in memory.
    fn index(&self) -> &LogIndex;

    /// The first read error since the store was opened. It does not go away.
    fn fault(&self) -> Option<StoreError>;

    /// Whether raft asked for a snapshot that nobody has made yet. Reading it
    /// clears it.
    fn snapshot_wanted(&self) -> bool;
}
