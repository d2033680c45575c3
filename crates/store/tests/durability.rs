//! What a store promises when things go wrong: damage is found, full disks are
//! refused, folders are not mixed up.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use raft::eraftpb::{Entry, HardState};
use raft::{GetEntriesContext, Storage};
use stele_consensus::{
    LogStore, SnapshotHead, Staged, StagedSnapshot, StoredSnapshot, WriteBatch, bootstrap,
};
use stele_store::limits::{DERIVED_UNFLUSHED_BYTES, RECENT_ENTRIES_BYTES, SNAPSHOT_PART_BYTES};
use stele_store::{Identity, OpenError, Settings, Store, StoreError, open_read_only};

fn identity(node: u64) -> Identity {
    Identity { fleet: "demo".to_owned(), node }
}

fn create(path: &Path) -> Store {
    let mut store = Store::create(path, &identity(1), &Settings::default()).unwrap();
    bootstrap(&mut store, &[1], b"genesis".to_vec()).unwrap();
    store
}

fn open(path: &Path) -> Result<Store, OpenError> {
    Store::open(path, &identity(1), &Settings::default())
}

/// Entry `index` with a payload that can be found in a file.
fn entry(index: u64) -> Entry {
    let data = format!("<payload of entry {index}>").into_bytes();
    Entry { index, term: 1, data, ..Entry::default() }
}

fn write_entries(store: &mut Store, indexes: std::ops::RangeInclusive<u64>, sync: bool) {
    let commit = *indexes.end();
    let entries: Vec<Entry> = indexes.clone().map(entry).collect();
    let first_seq = store.index().last_seq() + 1;
    let records: Vec<_> = (first_seq..)
        .zip(indexes)
        .map(|(seq, _)| (seq, format!("<payload of record {seq}>").into_bytes()))
        .collect();
    store
        .write(WriteBatch {
            entries,
            hard_state: Some(HardState { term: 1, vote: 1, commit }),
            records,
            applied: Some(commit),
            sync,
            ..WriteBatch::default()
        })
        .unwrap();
}

fn files(path: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(path).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    files
}

/// Bytes that cannot be compressed.
fn noise(count: usize) -> Vec<u8> {
    let next = |x: &u32| Some(x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    std::iter::successors(Some(1), next).map(|x| (x >> 24) as u8).take(count).collect()
}

/// Flips one bit of `needle` in the write-ahead log.
fn flip_in_log(path: &Path, needle: &str) {
    for file in files(path, "log") {
        let mut bytes = fs::read(&file).unwrap();
        if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle.as_bytes()) {
            bytes[at + 3] ^= 0x10;
            fs::write(&file, bytes).unwrap();
            return;
        }
    }
    panic!("'{needle}' is in no write-ahead log of {}", path.display());
}

/// Opens the database without the store, as a bug or another program might.
fn raw(path: &Path, mut change: impl FnMut(&rocksdb::DB)) {
    let families = ["default", "raft", "meta", "records", "snapshots", "derived"];
    let mut options = rocksdb::Options::default();
    // Files stay as they were written.
    options.set_disable_auto_compactions(true);
    let families = families.map(|family| (family, options.clone()));
    let db = rocksdb::DB::open_cf_with_opts(&options, path, families).unwrap();
    change(&db);
}

#[test]
fn what_was_written_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = create(folder.path());
    write_entries(&mut store, 2..=9, true);
    drop(store);
    let store = open(folder.path()).unwrap();
    let read = store.entries(2, 10, None, GetEntriesContext::empty(false)).unwrap();
    assert_eq!(read, (2..=9).map(entry).collect::<Vec<_>>());
    assert_eq!((store.index().applied(), store.index().last_seq()), (9, 8));
    let verified = store.reader().verify_all().unwrap();
    assert_eq!((verified.entries, verified.records, verified.snapshots), (8, 8, 1));
}

#[test]
fn the_newest_entries_are_in_memory_by_their_bytes_and_all_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = create(folder.path());
    let large = |index| Entry { index, term: 1, data: vec![7; RECENT_ENTRIES_BYTES / 4], ..Entry::default() };
    for index in 2..=9 {
        store.write(WriteBatch { entries: vec![large(index)], ..WriteBatch::default() }).unwrap();
    }
    // Three, for each takes a little more than its data.
    let all: Vec<_> = (2..=9).map(large).collect();
    for _ in 0..2 {
        assert_eq!(store.first_recent(), 7);
        let read = store.entries(2, 10, None, GetEntriesContext::empty(false)).unwrap();
        assert_eq!(read, all);
        // They are after a start, too.
        drop(store);
        store = open(folder.path()).unwrap();
    }
}

#[test]
fn a_folder_belongs_to_one_controller_and_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    assert!(!Store::exists(&path));
    assert!(matches!(open(&path), Err(OpenError::Missing { .. })));
    assert!(!path.exists(), "opening must not create");
    let store = create(&path);
    assert!(matches!(open(&path), Err(OpenError::Locked { .. })));
    drop(store);
    assert!(Store::exists(&path));
    let again = Store::create(&path, &identity(1), &Settings::default());
    assert!(matches!(again, Err(OpenError::Exists { .. })));
    let other = Store::open(&path, &identity(2), &Settings::default());
    assert!(matches!(other, Err(OpenError::Identity { found_node: 1, node: 2, .. })));
    let fleet = Identity { fleet: "prod".to_owned(), node: 1 };
    let other = Store::open(&path, &fleet, &Settings::default());
    assert!(matches!(other, Err(OpenError::Identity { .. })));
    // Wiped, it is missing, and not a fresh start under the same id.
    fs::remove_dir_all(&path).unwrap();
    assert!(open(&path).err().unwrap().to_string().contains("under a new id"));
    let nobody = Identity { fleet: String::new(), node: 0 };
    assert!(matches!(
        Store::create(&path, &nobody, &Settings::default()),
        Err(OpenError::InvalidIdentity { .. })
    ));
}

#[test]
fn a_bit_flipped_in_the_write_ahead_log_stops_the_opening() {
    for needle in ["<payload of entry 3>", "<payload of record 2>"] {
        let folder = tempfile::tempdir().unwrap();
        let mut store = create(folder.path());
        write_entries(&mut store, 2..=4, true);
        write_entries(&mut store, 5..=8, true);
        drop(store);
        flip_in_log(folder.path(), needle);
        let error = open(folder.path()).err().unwrap();
        assert!(matches!(error, OpenError::Store(StoreError::Corrupt { .. })), "{needle}: {error}");
        let words = error.to_string();
        assert!(words.contains(&folder.path().display().to_string()), "{words}");
        assert!(words.contains("under a new id"), "{words}");
    }
}

#[test]
fn a_value_changed_behind_our_back_is_named() {
    for (family, key, words) in [
        ("raft", 3u64.to_be_bytes().as_slice(), "column family raft, key 3 is damaged"),
        ("records", &2u64.to_be_bytes(), "column family records, key 2 is damaged"),
        ("meta", b"hard_state", "column family meta, key 'hard_state' is damaged"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut store = create(folder.path());
        write_entries(&mut store, 2..=9, true);
        drop(store);
        raw(folder.path(), |db| {
            let handle = db.cf_handle(family).unwrap();
            let mut value = db.get_cf(handle, key).unwrap().unwrap();
            let last = value.len() - 1;
            value[last] ^= 1;
            db.put_cf(handle, key, value).unwrap();
        });
        let error = open(folder.path()).err().unwrap().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_missing_entry_or_record_is_noticed() {
    for (family, key) in [("raft", 5u64), ("records", 4)] {
        let folder = tempfile::tempdir().unwrap();
        let mut store = create(folder.path());
        write_entries(&mut store, 2..=9, true);
        drop(store);
        raw(folder.path(), |db| {
            db.delete_cf(db.cf_handle(family).unwrap(), key.to_be_bytes()).unwrap();
        });
        let error = open(folder.path()).err().unwrap();
        assert!(matches!(error, OpenError::Store(StoreError::Corrupt { .. })), "{error}");
    }
    // Also when the log merely ends too early for what was committed.
    let folder = tempfile::tempdir().unwrap();
    let mut store = create(folder.path());
    write_entries(&mut store, 2..=9, true);
    drop(store);
    raw(folder.path(), |db| {
        db.delete_cf(db.cf_handle("raft").unwrap(), 9u64.to_be_bytes()).unwrap();
    });
    let error = open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("entry 9 is committed, but the log ends at 8"), "{error}");
}

#[test]
fn a_torn_tail_that_nobody_was_promised_is_normal() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = create(folder.path());
    write_entries(&mut store, 2..=4, true);
    let log = files(folder.path(), "log").pop().unwrap();
    let synced = fs::metadata(&log).unwrap().len();
    write_entries(&mut store, 5..=8, false);
    drop(store);
    let whole = fs::read(&log).unwrap();
    assert!(whole.len() as u64 > synced, "the unsynced write is in the log");
    // Cut the unsynced write off at any byte: it is gone whole, the rest is there.
    for cut in (synced as usize..whole.len()).step_by(37) {
        let copy = tempfile::tempdir().unwrap();
        for file in fs::read_dir(folder.path()).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
        fs::write(copy.path().join(log.file_name().unwrap()), &whole[..cut]).unwrap();
        let store = open(copy.path()).unwrap();
        assert_eq!(store.index().last_index(), 4, "cut at {cut}");
        assert_eq!(store.index().applied(), 4);
        assert_eq!(store.reader().last_seq(), 3);
    }
}

#[test]
fn no_flipped_bit_loses_what_was_synced() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = create(folder.path());
    write_entries(&mut store, 2..=4, true);
    let log = files(folder.path(), "log").pop().unwrap();
    let before = fs::metadata(&log).unwrap().len() as usize;
    write_entries(&mut store, 5..=5, true);
    drop(store);
    let whole = fs::read(&log).unwrap();
    let copy = tempfile::tempdir().unwrap();
    for at in (0..whole.len()).filter(|at| *at >= before || at % 13 == 0) {
        for file in fs::read_dir(copy.path()).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        for file in fs::read_dir(folder.path()).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(copy.path().join(log.file_name().unwrap()), damaged).unwrap();
        // Either nothing is missing, or it does not open.
        match open(copy.path()) {
            Ok(store) => assert_eq!(store.index().last_index(), 5, "byte {at} of {}", whole.len()),
            Err(OpenError::Store(StoreError::Corrupt { .. } | StoreError::Io { .. })) => {}
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
}

#[test]
fn a_log_cut_off_behind_our_back_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = create(folder.path());
    write_entries(&mut store, 2..=4, true);
    let log = files(folder.path(), "log").pop().unwrap();
    let before = fs::metadata(&log).unwrap().len();
    write_entries(&mut store, 5..=5, true);
    drop(store);
    fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(before).unwrap();
    let error = open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("3 writes were synced, and only 2 of them are there"), "{error}");
    // A copy that somebody verifies is no less than that.
    let error = stele_store::open_read_only(folder.path()).err().unwrap().to_string();
    assert!(error.contains("3 writes were synced, and only 2 of them are there"), "{error}");
}

#[test]
fn a_full_disk_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    drop(create(folder.path()));
    let full = Settings { disk_reserve_bytes: u64::MAX / 4 };
    let mut store = Store::open(folder.path(), &identity(1), &full).unwrap();
    let before = store.index().clone();
    let refused = store.write(WriteBatch { entries: vec![entry(2)], ..WriteBatch::default() });
    let Err(StoreError::DiskFull { path, free_bytes, needed_bytes }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(path, folder.path().display().to_string());
    assert!(free_bytes < needed_bytes);
    assert_eq!(*store.index(), before);
    let reader = store.reader();
    assert!(matches!(
        reader.put_derived(&[(b"k".to_vec(), Some(Vec::new()))]),
        Err(StoreError::DiskFull { .. })
    ));
    assert!(matches!(reader.put_snapshot(5, b"x"), Err(StoreError::DiskFull { .. })));
    drop((store, reader));
    let new = folder.path().join("new");
    let refused = Store::create(&new, &identity(1), &full);
    assert!(matches!(refused, Err(OpenError::Store(StoreError::DiskFull { .. }))));
    assert_eq!(open(folder.path()).unwrap().index().last_index(), 1);
}

#[test]
fn records_are_read_in_pieces_and_outlive_compaction() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = create(folder.path());
    write_entries(&mut store, 2..=101, true);
    let conf_state = store.index().conf_state().clone();
    let head = SnapshotHead { seq: 100, index: 101, term: 1, conf_state, ..Default::default() };
    let staged = store.stage_snapshot(100, Vec::new()).unwrap();
    let snapshot = Some(StagedSnapshot { head, staged });
    store.write(WriteBatch { snapshot, ..WriteBatch::default() }).unwrap();
    store.write(WriteBatch { compact_through: Some(101), sync: true, ..WriteBatch::default() }).unwrap();
    drop(store);
    let store = open(folder.path()).unwrap();
    assert_eq!((store.index().first_index(), store.index().last_index()), (102, 101));
    let reader = store.reader();
    assert_eq!((reader.first_seq(), reader.last_seq()), (1, 100));
    let mut next = 1;
    let mut pieces = 0;
    while next <= 100 {
        let piece = reader.records(next..=u64::MAX, 200).unwrap();
        assert!(piece.iter().map(|record| record.1.len()).sum::<usize>() <= 200);
        for (seq, record) in piece {
            assert_eq!(seq, next);
            assert_eq!(record, format!("<payload of record {seq}>").into_bytes());
            next += 1;
        }
        pieces += 1;
    }
    assert!(pieces > 10);
    assert_eq!(reader.records(7..=7, 0).unwrap().len(), 1, "at least one, however small the limit");
    assert!(reader.records(101..=200, 100).unwrap().is_empty());
    assert!(reader.records(std::ops::RangeInclusive::new(9, 3), 100).unwrap().is_empty());
}

#[test]
fn records_before_a_damaged_file_are_shown_and_the_first_within_it_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut later = None;
    drop(create(folder.path()));
    // RocksDB looks at three files or fewer without asking what is in them.
    for file in 0..5 {
        let mut store = open(folder.path()).unwrap();
        write_entries(&mut store, file * 400 + 2..=(file + 1) * 400 + 1, true);
        drop(store);
        raw(folder.path(), |db| {
            db.flush_cf(db.cf_handle("records").unwrap()).unwrap();
            let begins =
                |file: &rocksdb::LiveFile| file.start_key.as_deref() == Some(&1601_u64.to_be_bytes());
            let of_records = |file: &rocksdb::LiveFile| file.column_family_name == "records" && begins(file);
            later = db.live_files().unwrap().into_iter().find(of_records);
        });
    }
    let later = later.unwrap();
    assert_eq!(later.level, 0);
    let later = folder.path().join(later.name.trim_start_matches('/'));
    let mut bytes = fs::read(&later).unwrap();
    bytes[10] ^= 1;
    fs::write(&later, bytes).unwrap();
    let (_, reader) = open_read_only(folder.path()).unwrap();
    let mut shown = Vec::new();
    let error = reader.each_record(1..=2000, |seq, record| {
        assert_eq!(record, format!("<payload of record {seq}>").into_bytes());
        shown.push(seq);
        true
    });
    let error = error.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(shown.iter().copied().eq(1..=1600), "shown: {} of 1600; {error}", shown.len());
    assert!(error.to_string().contains("column family records, key 1601"), "{error}");
}

#[test]
fn records_stop_in_front_of_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = create(folder.path());
    write_entries(&mut store, 2..=4, true);
    let head = SnapshotHead { seq: 6, index: 9, term: 1, ..Default::default() };
    let snapshot = StoredSnapshot { head, data: Vec::new() };
    store.write(WriteBatch { install: Some(snapshot), sync: true, ..WriteBatch::default() }).unwrap();
    write_entries(&mut store, 10..=11, true);
    let reader = store.reader();
    let seqs = |from| -> Vec<u64> {
        reader.records(from..=99, usize::MAX).unwrap().into_iter().map(|record| record.0).collect()
    };
    assert_eq!(reader.gaps(), [(4, 6)]);
    assert_eq!(seqs(1), [1, 2, 3]);
    assert!(seqs(5).is_empty());
    assert_eq!(seqs(7), [7, 8]);
    assert!(matches!(reader.delete_snapshot(6), Err(StoreError::Refused(_))));
    let backfill = (4..=6).map(|seq| (seq, vec![seq as u8])).collect();
    store.write(WriteBatch { backfill, ..WriteBatch::default() }).unwrap();
    assert_eq!(seqs(1), (1..=8).collect::<Vec<u64>>());
    reader.delete_snapshot(6).unwrap();
    drop((store, reader));
    let reader = open(folder.path()).unwrap().reader();
    assert!(reader.gaps().is_empty());
    assert_eq!(reader.verify_all().unwrap().records, 8);
}

#[test]
fn snapshots_are_kept_by_seq_and_can_be_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = create(folder.path());
    write_entries(&mut store, 2..=31, true);
    let reader = store.reader();
    for seq in [10, 20] {
        reader.put_snapshot(seq, format!("state at {seq}").as_bytes()).unwrap();
    }
    let at = |seq| reader.snapshot_at_or_before(seq).unwrap().map(|snapshot| snapshot.head.seq);
    assert_eq!((at(9), at(10), at(19), at(99)), (Some(0), Some(10), Some(10), Some(20)));
    assert_eq!(reader.snapshot(20).unwrap().unwrap().data, b"state at 20");
    // One for replays only is never sent to a follower.
    assert_eq!(store.latest_snapshot().unwrap().unwrap().head.seq, 0);
    for info in reader.snapshots().unwrap() {
        reader.delete_snapshot(info.seq).unwrap();
    }
    assert!(reader.snapshots().unwrap().is_empty());
    assert_eq!(at(99), None);
    // Without any, a follower waits until one is made.
    assert!(store.snapshot(0, 1).is_err());
    assert!(store.snapshot_wanted());
    assert!(!store.snapshot_wanted());
}

#[test]
fn a_snapshot_is_there_once_its_head_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = create(folder.path());
    write_entries(&mut store, 2..=31, true);
    let data: Vec<u8> = (0..3 * SNAPSHOT_PART_BYTES + 17).map(|at| (at % 251) as u8).collect();
    let head = |store: &Store, seq: u64| SnapshotHead {
        seq,
        index: seq + 1,
        term: 1,
        conf_state: store.index().conf_state().clone(),
        retired: vec![7],
    };
    let name = |store: &mut Store, seq: u64, staged: Staged| {
        let snapshot = Some(StagedSnapshot { head: head(store, seq), staged });
        store.write(WriteBatch { snapshot, sync: true, ..WriteBatch::default() })
    };
    let refuse = |store: &mut Store, seq: u64, staged: Staged| {
        let refused = name(store, seq, staged);
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    };
    // Nobody sees what is staged, and nothing can be made of what is not.
    let reader = store.reader();
    let first = reader.stage_snapshot(20, &data).unwrap();
    assert_eq!(reader.snapshot(20).unwrap(), None);
    refuse(&mut store, 21, first);
    refuse(&mut store, 20, Staged { bytes: 1, ..first });
    let second = reader.stage_snapshot(20, &data).unwrap();
    refuse(&mut store, 20, first);
    name(&mut store, 20, second).unwrap();
    refuse(&mut store, 20, second);
    let whole = StoredSnapshot { head: head(&store, 20), data: data.clone() };
    assert_eq!(store.latest_snapshot().unwrap().as_ref(), Some(&whole));

    // What is staged for the same record, by another version perhaps, leaves it as it is until it is named.
    let other = reader.stage_snapshot(20, b"other").unwrap();
    assert_eq!(reader.snapshot(20).unwrap().as_ref(), Some(&whole));
    name(&mut store, 20, other).unwrap();
    assert_eq!(reader.snapshot(20).unwrap().unwrap().data, b"other");
    let again = reader.stage_snapshot(20, &data).unwrap();
    name(&mut store, 20, again).unwrap();

    // One is staged and forgotten, and one was being written when power was lost.
    let forgotten = reader.stage_snapshot(30, &data).unwrap();
    let leftover = folder.path().join("25.staged");
    fs::write(&leftover, b"half of").unwrap();
    drop((store, reader));
    let mut store = open(folder.path()).unwrap();
    assert!(!leftover.exists());
    assert_eq!(store.latest_snapshot().unwrap(), Some(whole));
    refuse(&mut store, 30, forgotten);
    assert_eq!(store.reader().verify_all().unwrap().snapshots, 2);

    // A deleted one gives its file back.
    let bytes = |folder: &Path| -> u64 {
        files(folder, "sst").iter().map(|file| fs::metadata(file).unwrap().len()).sum()
    };
    let noise = noise(data.len());
    let before = bytes(folder.path());
    store.reader().put_snapshot(29, &noise).unwrap();
    assert!(bytes(folder.path()) > before + data.len() as u64 / 2);
    store.reader().delete_snapshot(29).unwrap();
    let reader = store.reader();
    assert_eq!(reader.snapshot(29).unwrap(), None);
    assert!(bytes(folder.path()) < before + data.len() as u64 / 2);
}

#[test]
fn a_damaged_part_of_a_snapshot_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = create(folder.path());
    write_entries(&mut store, 2..=31, true);
    let before = files(folder.path(), "sst");
    store.reader().put_snapshot(20, &noise(3 * SNAPSHOT_PART_BYTES)).unwrap();
    drop(store);
    let file = files(folder.path(), "sst").into_iter().find(|file| !before.contains(file)).unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let reader = open(folder.path()).unwrap().reader();
    let read = reader.snapshot(20);
    assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{:?}", read.map(|read| read.map(|it| it.head)));
}

#[test]
fn derived_values_are_scanned_and_deleted_by_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let store = create(folder.path());
    let reader = store.reader();
    let put = |key: &[u8]| (key.to_vec(), Some(key.to_vec()));
    let keys: [&[u8]; 6] = [b"a", b"ab", b"b", b"\xff", b"\xff\xff", b"\xff\xff\x01"];
    reader.put_derived(&keys.map(put)).unwrap();
    let scan = |prefix: &[u8], after: Option<&[u8]>, limit| -> Vec<Vec<u8>> {
        reader.scan_derived(prefix, after, limit).unwrap().into_iter().map(|pair| pair.0).collect()
    };
    assert_eq!(scan(b"", None, 9), keys.map(<[u8]>::to_vec));
    assert_eq!(scan(b"a", None, 9), [b"a".to_vec(), b"ab".to_vec()]);
    assert_eq!(scan(b"a", Some(b"a"), 9), [b"ab".to_vec()]);
    assert_eq!(scan(b"\xff", None, 2), [b"\xff".to_vec(), b"\xff\xff".to_vec()]);
    reader.delete_all_derived(b"\xff\xff").unwrap();
    assert_eq!(scan(b"", None, 9).len(), 4);
    reader.put_derived(&[(b"ab".to_vec(), None)]).unwrap();
    assert_eq!(reader.get_derived(b"ab").unwrap(), None);
    assert_eq!(reader.get_derived(b"a").unwrap(), Some(b"a".to_vec()));
    reader.delete_all_derived(b"").unwrap();
    assert!(scan(b"", None, 9).is_empty());
    assert!(matches!(reader.put_derived(&[put(b"")]), Err(StoreError::Refused(_))));
}

/// Where the process that crashes writes.
const CRASH_IN: &str = "STELE_TEST_CRASH_IN";
const DERIVED_BYTES: usize = 64 * 1024;
/// Enough that some of it is in files, and some is not.
const DERIVED_VALUES: u64 = DERIVED_UNFLUSHED_BYTES * 5 / 2 / DERIVED_BYTES as u64;

fn derived_key(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

/// Synced records, then values that are derived, then synced records.
fn derive(path: &Path) -> Store {
    let mut store = create(path);
    write_entries(&mut store, 2..=3, true);
    let value = noise(DERIVED_BYTES);
    for number in 1..=DERIVED_VALUES {
        let mark = (b"through".to_vec(), Some(derived_key(number)));
        store.reader().put_derived(&[(derived_key(number), Some(value.clone())), mark]).unwrap();
    }
    write_entries(&mut store, 4..=5, true);
    store
}

/// How many derived values there are: the first ones, without a gap.
fn derived(store: &Store) -> u64 {
    let mark = store.reader().get_derived(b"through").unwrap();
    let through = mark.map_or(0, |mark| u64::from_be_bytes(mark.try_into().unwrap()));
    let there = store.reader().scan_derived(&[0], None, usize::MAX).unwrap();
    assert!(there.iter().map(|(key, _)| key.clone()).eq((1..=through).map(derived_key)), "up to {through}");
    through
}

#[test]
fn derived_values_take_no_log_and_a_crash_leaves_the_first_of_them() {
    if let Some(path) = std::env::var_os(CRASH_IN) {
        let _store = derive(Path::new(&path));
        std::process::abort();
    }
    let folder = tempfile::tempdir().unwrap();
    let (ended, crashed) = (folder.path().join("ended"), folder.path().join("crashed"));
    let store = derive(&ended);
    let logs = files(&ended, "log");
    let bytes: u64 = logs.iter().map(|log| fs::metadata(log).unwrap().len()).sum();
    assert!(bytes < DERIVED_BYTES as u64, "{bytes} bytes of log");
    assert_eq!(derived(&store), DERIVED_VALUES);
    // Whoever ends in order loses nothing.
    drop(store);
    assert_eq!(derived(&open(&ended).unwrap()), DERIVED_VALUES);

    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "derived_values_take_no_log_and_a_crash_leaves_the_first_of_them"])
        .env(CRASH_IN, &crashed)
        .output()
        .unwrap()
        .status;
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(6), "{status}");
    let store = open(&crashed).unwrap();
    assert_eq!((store.index().applied(), store.index().last_seq()), (5, 4));
    let left = derived(&store);
    assert!(left > 0 && left < DERIVED_VALUES, "{left} of {DERIVED_VALUES}");
}
