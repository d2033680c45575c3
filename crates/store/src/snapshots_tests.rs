#![allow(clippy::unwrap_used)]
use std::path::Path;

use raft::Storage as _;
use stele_consensus::{LogStore as _, StagedSnapshot, WriteBatch, bootstrap};

use super::*;
use crate::store::{Identity, Settings, Store};

fn identity() -> Identity {
    Identity { fleet: "demo".to_owned(), node: 1 }
}

fn open(path: &Path) -> Store {
    Store::open(path, &identity(), &Settings::default()).unwrap()
}

/// A store as versions before there were parts left it, with a snapshot at its beginning.
fn old_store(path: &Path, data: &[u8]) {
    let mut store = Store::create(path, &identity(), &Settings::default()).unwrap();
    bootstrap(&mut store, &[1], data.to_vec()).unwrap();
    let snapshot = store.latest_snapshot().unwrap().unwrap();
    drop(store);
    let database = Database::open(path, false, 0).unwrap();
    let SnapshotHead { seq, index, term, .. } = snapshot.head;
    let (from, last) = part_range(seq, 1);
    let mut batch = database.batch();
    batch.put(Family::Meta, meta::FORMAT, &1u32.to_be_bytes()).unwrap();
    batch.delete_range(Family::Snapshots, &from, &last).unwrap();
    batch.put(Family::Snapshots, &seq.to_be_bytes(), &snapshot.to_raft().encode_to_vec()).unwrap();
    let info = SnapshotInfo { seq, index, term, bytes: data.len() as u64, stage: None };
    meta::put_snapshot_info(&mut batch, info).unwrap();
    batch.commit(true).unwrap();
}

#[test]
fn a_snapshot_of_before_there_were_parts_is_read_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    old_store(folder.path(), b"the state at the beginning");
    let mut store = open(folder.path());
    let old = store.latest_snapshot().unwrap().unwrap();
    assert_eq!(old.data, b"the state at the beginning");
    assert_eq!(store.reader().verify_all().unwrap().snapshots, 1);

    // It is of the newest layout from now on, which older versions refuse.
    let format = store.reader().database().get(Family::Meta, meta::FORMAT).unwrap();
    assert_eq!(format.unwrap(), 3u32.to_be_bytes());
    let staged = store.stage_snapshot(old.head.seq, b"the same".to_vec()).unwrap();
    let snapshot = Some(StagedSnapshot { head: old.head, staged });
    store.write(WriteBatch { snapshot, sync: true, ..WriteBatch::default() }).unwrap();
    drop(store);
    let store = open(folder.path());
    assert_eq!(store.latest_snapshot().unwrap().unwrap().data, b"the same");
}

#[test]
fn a_store_of_before_zstandard_becomes_one_of_the_newest_layout() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path(), &identity(), &Settings::default()).unwrap();
    drop(store);
    let database = Database::open(folder.path(), false, 0).unwrap();
    let mut batch = database.batch();
    batch.put(Family::Meta, meta::FORMAT, &2u32.to_be_bytes()).unwrap();
    batch.commit(true).unwrap();
    drop(database);
    let store = open(folder.path());
    let format = store.reader().database().get(Family::Meta, meta::FORMAT).unwrap();
    assert_eq!(format.unwrap(), 3u32.to_be_bytes());
}

#[test]
fn the_bytes_of_a_snapshot_that_helps_nobody_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::create(folder.path(), &identity(), &Settings::default()).unwrap();
    bootstrap(&mut store, &[1, 2], b"the state at the beginning".to_vec()).unwrap();
    assert!(store.snapshot(1, 2).is_ok());
    // Whoever read them would notice that they are gone, and the replica would stop.
    let (from, last) = part_range(0, 1);
    let reader = store.reader();
    let mut batch = reader.database().batch();
    batch.delete_range(Family::Snapshots, &from, &last).unwrap();
    batch.commit(true).unwrap();
    assert!(store.snapshot(1, 3).is_err(), "it does not know of the one who asks");
    assert_eq!(store.fault(), None);
    assert!(store.snapshot_wanted());

    // It is wanted over and over while one is made, and that one is all that was wanted.
    assert!(store.snapshot(1, 3).is_err());
    let mut head = SnapshotHead { index: 1, term: 1, ..SnapshotHead::default() };
    head.conf_state.voters = vec![1, 2, 3];
    let staged = store.stage_snapshot(0, b"the same".to_vec()).unwrap();
    let snapshot = Some(StagedSnapshot { head, staged });
    store.write(WriteBatch { snapshot, ..WriteBatch::default() }).unwrap();
    assert!(!store.snapshot_wanted());
    assert_eq!(store.snapshot(1, 3).unwrap().metadata.unwrap().index, 1);
}
