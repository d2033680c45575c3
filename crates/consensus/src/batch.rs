//! What the driver asks the durable side to write, as one atomic batch.

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};

/// Where a snapshot of State stands in the log, and who the members were.
///
/// It is stamped with the index and term that were *applied* when its bytes
/// were made, never with the commit index: a replica that installs it resumes
/// right after that entry, so a later stamp would skip entries.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SnapshotHead {
    /// Last record folded into it.
    pub seq: u64,
    /// Raft index of the last entry applied.
    pub index: u64,
    /// Raft term of that entry.
    pub term: u64,
    /// Members after that entry.
    pub conf_state: ConfState,
    /// Ids that were removed and must never be used again.
    pub retired: Vec<u64>,
}

impl SnapshotHead {
    /// Whether it can bring controller `to` to this state, for a leader whose
    /// entries begin at `first_index` and who was asked for `request_index`.
    ///
    /// Its members must include the receiver, who otherwise ignores it: one
    /// made before the receiver was added is of no use to it, however new its
    /// entries are, and sending it would repeat for ever.
    pub fn serves(&self, to: u64, request_index: u64, first_index: u64) -> bool {
        self.index > 0
            && self.index >= request_index
            && self.index + 1 >= first_index
            && is_member(&self.conf_state, to)
    }
}

/// A snapshot of State as raft carries it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StoredSnapshot {
    /// Where it stands.
    pub head: SnapshotHead,
    /// Opaque bytes of the application.
    pub data: Vec<u8>,
}

/// Bytes of a snapshot that a store has been given: see
/// [`LogStore::stage_snapshot`](crate::LogStore::stage_snapshot).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Staged {
    /// Under which number the store keeps them. It is used once.
    pub stage: u64,
    /// How many they are.
    pub bytes: u64,
}

/// A snapshot whose bytes are staged.
#[derive(Debug, Clone, PartialEq)]
pub struct StagedSnapshot {
    /// Where it stands.
    pub head: SnapshotHead,
    /// Its bytes.
    pub staged: Staged,
}

impl StoredSnapshot {
    /// The form in which raft sends it to a follower. `seq` and the retired ids
    /// travel in front of the application's bytes.
    pub fn to_raft(&self) -> Snapshot {
        let SnapshotHead { seq, index, term, conf_state, retired } = &self.head;
        let mut data = Vec::with_capacity(16 + 8 * retired.len() + self.data.len());
        data.extend_from_slice(&seq.to_be_bytes());
        data.extend_from_slice(&(retired.len() as u64).to_be_bytes());
        for id in retired {
            data.extend_from_slice(&id.to_be_bytes());
        }
        data.extend_from_slice(&self.data);
        Snapshot {
            data,
            metadata: Some(SnapshotMetadata {
                conf_state: Some(conf_state.clone()),
                index: *index,
                term: *term,
            }),
        }
    }

    /// The reverse of [`StoredSnapshot::to_raft`]; `None` when malformed.
    pub fn from_raft(snapshot: &Snapshot) -> Option<Self> {
        let (seq, rest) = take_u64(&snapshot.data)?;
        let (count, mut rest) = take_u64(rest)?;
        if count > rest.len() as u64 / 8 {
            return None;
        }
        let mut retired = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let (id, tail) = take_u64(rest)?;
            retired.push(id);
            rest = tail;
        }
        let metadata = snapshot.metadata.as_ref()?;
        let head = SnapshotHead {
            seq,
            index: metadata.index,
            term: metadata.term,
            conf_state: metadata.conf_state.clone()?,
            retired,
        };
        Some(Self { head, data: rest.to_vec() })
    }
}

/// Whether a controller is in a configuration, in whatever part.
pub(crate) fn is_member(conf_state: &ConfState, id: u64) -> bool {
    conf_state.voters.contains(&id)
        || conf_state.learners.contains(&id)
        || conf_state.voters_outgoing.contains(&id)
        || conf_state.learners_next.contains(&id)
}

fn take_u64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (head, tail) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*head), tail))
}

/// One atomic write. Fields left empty change nothing. They take effect in the
/// order in which they are declared.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WriteBatch {
    /// A leader's snapshot to install. It drops *every* raft entry: a stale
    /// tail kept behind it would let this replica vote as if it held entries
    /// that it does not hold. Records stay; the missing ones become a gap.
    pub install: Option<StoredSnapshot>,
    /// Entries to append. They overwrite whatever follows the first of them.
    pub entries: Vec<Entry>,
    /// Term, vote and commit.
    pub hard_state: Option<HardState>,
    /// New records, in order of seq, following the last one.
    pub records: Vec<(u64, Vec<u8>)>,
    /// Members as of `applied`.
    pub conf_state: Option<ConfState>,
    /// Removed ids, the full list, as of `applied`.
    pub retired: Option<Vec<u64>>,
    /// Index of the last entry applied.
    pub applied: Option<u64>,
    /// Old records that fill gaps, in any order.
    pub backfill: Vec<(u64, Vec<u8>)>,
    /// A snapshot made here. From this write on it is there.
    pub snapshot: Option<StagedSnapshot>,
    /// Drop raft entries up to and including this index. Never touches records.
    pub compact_through: Option<u64>,
    /// Whether the write must be on the disk itself before the call returns,
    /// with everything written before it.
    pub sync: bool,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_snapshot_survives_the_trip_through_raft() {
        let head = SnapshotHead {
            seq: 7,
            index: 9,
            term: 3,
            conf_state: ConfState { voters: vec![1, 2], learners: vec![5], ..ConfState::default() },
            retired: vec![3, 4],
        };
        let snapshot = StoredSnapshot { head, data: b"state".to_vec() };
        assert_eq!(StoredSnapshot::from_raft(&snapshot.to_raft()).unwrap(), snapshot);
    }

    #[test]
    fn a_malformed_snapshot_is_refused() {
        let head = SnapshotHead { retired: vec![1], ..SnapshotHead::default() };
        let mut raft = StoredSnapshot { head, data: Vec::new() }.to_raft();
        raft.data.truncate(20);
        assert_eq!(StoredSnapshot::from_raft(&raft), None);
        raft.data.truncate(3);
        assert_eq!(StoredSnapshot::from_raft(&raft), None);
        raft.data = [0u8; 8].into_iter().chain([0xff; 8]).collect();
        assert_eq!(StoredSnapshot::from_raft(&raft), None);
    }
}
