//! The store against raft's own store in memory: the same random operations
//! must read the same, also after reopening.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use raft::eraftpb::{Entry, HardState};
use raft::storage::MemStorage;
use raft::{GetEntriesContext, Storage};
use stele_consensus::{LogStore, SnapshotHead, StagedSnapshot, StoredSnapshot, WriteBatch, bootstrap};
use stele_store::{Identity, Settings, Store, limits};

#[derive(Debug, Clone)]
enum Op {
    /// Overwrite the log from so many entries before its end on.
    Append { back: u64, count: u64, bytes: usize },
    /// Commit and apply up to a fraction of what is there, leaving records.
    Apply { part: u64, records: u64 },
    /// Snapshot and compact up to a fraction of what is applied.
    Compact { part: u64 },
    /// Stage a snapshot that never becomes one.
    Stage,
    /// A leader's snapshot so far ahead.
    Install { ahead: u64 },
    /// As after a kill: closing flushes nothing.
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..6u64, 1..8u64, 0..200usize)
            .prop_map(|(back, count, bytes)| Op::Append { back, count, bytes }),
        4 => (0..=100u64, 0..4u64).prop_map(|(part, records)| Op::Apply { part, records }),
        2 => (0..=100u64).prop_map(|part| Op::Compact { part }),
        1 => Just(Op::Stage),
        1 => (0..20u64).prop_map(|ahead| Op::Install { ahead }),
        2 => Just(Op::Reopen),
    ]
}

fn identity() -> Identity {
    Identity { fleet: "demo".to_owned(), node: 1 }
}

/// Some bytes for a snapshot: none, a few, or several parts of them.
fn state_at(seq: u64, version: u64) -> Vec<u8> {
    let bytes = [0, 5, limits::SNAPSHOT_PART_BYTES, 2 * limits::SNAPSHOT_PART_BYTES + 7];
    vec![seq as u8; bytes[(seq + version) as usize % bytes.len()]]
}

struct Pair {
    root: tempfile::TempDir,
    store: Option<Store>,
    oracle: MemStorage,
    term: u64,
    records: Vec<(u64, Vec<u8>)>,
    gaps: Vec<(u64, u64)>,
    last_seq: u64,
    version: u64,
    snapshots: BTreeMap<u64, Vec<u8>>,
}

impl Pair {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut store = Store::create(root.path(), &identity(), &Settings::default()).unwrap();
        bootstrap(&mut store, &[1], state_at(0, 0)).unwrap();
        let oracle = MemStorage::new();
        let founding = store.latest_snapshot().unwrap().unwrap();
        oracle.wl().apply_snapshot(founding.to_raft()).unwrap();
        Self {
            root,
            store: Some(store),
            oracle,
            term: 1,
            records: Vec::new(),
            gaps: Vec::new(),
            last_seq: 0,
            version: 0,
            snapshots: BTreeMap::from([(0, state_at(0, 0))]),
        }
    }

    fn store(&mut self) -> &mut Store {
        self.store.as_mut().unwrap()
    }

    fn perform(&mut self, op: &Op) {
        match *op {
            Op::Append { back, count, bytes } => {
                let index = self.store().index().clone();
                let first = index.last_index().saturating_sub(back).max(index.hard_state().commit) + 1;
                self.term += 1;
                let term = self.term;
                let entries: Vec<Entry> = (first..first + count)
                    .map(|index| Entry { index, term, data: vec![7; bytes], ..Entry::default() })
                    .collect();
                let mut hard_state = index.hard_state().clone();
                hard_state.term = term;
                self.oracle.wl().append(&entries).unwrap();
                self.oracle.wl().set_hardstate(hard_state.clone());
                let hard_state = Some(hard_state);
                self.write(WriteBatch { entries, hard_state, sync: true, ..WriteBatch::default() });
            }
            Op::Apply { part, records } => {
                let index = self.store().index().clone();
                let (applied, last) = (index.applied(), index.last_index());
                let commit = applied + (last - applied) * part / 100;
                let hard_state = HardState { commit, ..index.hard_state().clone() };
                let new: Vec<_> =
                    (1..=records).map(|n| (self.last_seq + n, format!("{applied}/{n}").into())).collect();
                self.last_seq += records;
                self.records.extend(new.iter().cloned());
                self.oracle.wl().set_hardstate(hard_state.clone());
                self.write(WriteBatch {
                    hard_state: Some(hard_state),
                    records: new,
                    applied: Some(commit),
                    ..WriteBatch::default()
                });
            }
            Op::Compact { part } => {
                let index = self.store().index().clone();
                let (from, applied) = (index.truncated().0, index.applied());
                let through = from + (applied - from) * part / 100;
                let head = SnapshotHead {
                    seq: index.last_seq(),
                    index: applied,
                    term: index.term(applied).unwrap(),
                    conf_state: index.conf_state().clone(),
                    retired: Vec::new(),
                };
                // Of another version, it may have other bytes.
                self.version += 1;
                let data = state_at(head.seq, self.version);
                self.snapshots.insert(head.seq, data.clone());
                let staged = self.store().stage_snapshot(head.seq, data).unwrap();
                let snapshot = Some(StagedSnapshot { head, staged });
                self.write(WriteBatch { snapshot, ..WriteBatch::default() });
                self.write(WriteBatch {
                    compact_through: Some(through),
                    sync: true,
                    ..WriteBatch::default()
                });
                // Compacted to nothing, the oracle forgets where it stands; the
                // store is compared with a snapshot there instead.
                if through == from {
                    return;
                }
                if through == self.store().index().last_index() {
                    let snapshot = self.store().latest_snapshot().unwrap().unwrap();
                    let hard_state = self.store().index().hard_state().clone();
                    self.oracle.wl().apply_snapshot(snapshot.to_raft()).unwrap();
                    self.oracle.wl().set_hardstate(hard_state);
                } else {
                    self.oracle.wl().compact(through + 1).unwrap();
                }
            }
            Op::Install { ahead } => {
                let index = self.store().index().clone();
                let head = SnapshotHead {
                    seq: self.last_seq + ahead,
                    index: index.hard_state().commit + ahead + 1,
                    term: self.term,
                    conf_state: index.conf_state().clone(),
                    retired: Vec::new(),
                };
                let hard_state = HardState { commit: head.index, term: self.term, vote: 0 };
                if ahead > 0 {
                    self.gaps.push((self.last_seq + 1, head.seq));
                }
                self.last_seq = head.seq;
                self.version += 1;
                let data = state_at(head.seq, self.version);
                self.snapshots.insert(head.seq, data.clone());
                let snapshot = StoredSnapshot { head, data };
                self.oracle.wl().apply_snapshot(snapshot.to_raft()).unwrap();
                self.oracle.wl().set_hardstate(hard_state.clone());
                self.write(WriteBatch {
                    install: Some(snapshot),
                    hard_state: Some(hard_state),
                    sync: true,
                    ..WriteBatch::default()
                });
            }
            // Beyond what there is, and where one may be made later.
            Op::Stage => {
                for seq in [self.last_seq, self.last_seq + 1000] {
                    self.store().stage_snapshot(seq, state_at(seq, 0)).unwrap();
                }
            }
            Op::Reopen => {
                self.store = None;
                self.store = Some(Store::open(self.root.path(), &identity(), &Settings::default()).unwrap());
            }
        }
    }

    fn write(&mut self, batch: WriteBatch) {
        self.store().write(batch).unwrap();
    }

    fn compare(&self) {
        let store = self.store.as_ref().unwrap();
        let (first, last) = (store.first_index().unwrap(), store.last_index().unwrap());
        assert_eq!(first, self.oracle.first_index().unwrap());
        assert_eq!(last, self.oracle.last_index().unwrap());
        for index in first..=last {
            assert_eq!(store.term(index).unwrap(), self.oracle.term(index).unwrap());
        }
        assert_eq!(
            store.initial_state().unwrap().hard_state,
            self.oracle.initial_state().unwrap().hard_state
        );
        for (low, high, limit) in [
            (first, last + 1, None),
            (first, last + 1, Some(0)),
            (first, last + 1, Some(300)),
            (first + (last + 1 - first) / 2, last + 1, Some(150)),
        ] {
            if low < high {
                let context = || GetEntriesContext::empty(false);
                let ours = store.entries(low, high, limit, context()).unwrap();
                assert_eq!(ours, self.oracle.entries(low, high, limit, context()).unwrap());
            }
        }
        let reader = store.reader();
        assert_eq!(reader.last_seq(), self.last_seq);
        assert_eq!(reader.gaps(), self.gaps);
        for (seq, record) in &self.records {
            assert_eq!(reader.record(*seq).unwrap().as_ref(), Some(record));
        }
        assert_eq!(reader.verify_all().unwrap().records, self.records.len() as u64);
        for info in reader.snapshots().unwrap() {
            assert!(info.seq <= self.last_seq, "what is only staged is not there");
            assert!(
                reader.snapshot(info.seq).unwrap().unwrap().data == self.snapshots[&info.seq],
                "{info:?}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_store_reads_like_the_oracle(ops in proptest::collection::vec(op(), 1..40)) {
        let mut pair = Pair::new();
        for op in &ops {
            pair.perform(op);
            pair.compare();
        }
        pair.perform(&Op::Reopen);
        pair.compare();
    }
}
