//! Broken disks, impossible logs and messages no correct peer sends.
#![allow(clippy::unwrap_used)]

use raft::eraftpb::{Entry, HardState, MessageType};
use stele_consensus::memory::MemoryStore;
use stele_consensus::{
    Applied, Committed, Config, DriveError, Driver, Handler, HandlerError, LogIndex, LogStore, Message,
    Recovered, RoleChange, SnapshotHead, Staged, StagedSnapshot, StartError, StepError, StoreError,
    StoredSnapshot, WriteBatch, bootstrap,
};

#[derive(Default)]
struct Sink {
    sent: Vec<Message>,
    applied: u64,
}

impl Handler for Sink {
    fn send(&mut self, messages: Vec<Message>) {
        self.sent.extend(messages);
    }
    fn role(&mut self, _change: RoleChange) {}
    fn restore(&mut self, _snapshot: &StoredSnapshot) -> Result<(), HandlerError> {
        Ok(())
    }
    fn apply(&mut self, _entry: Committed) -> Result<Applied, HandlerError> {
        Ok(Applied::default())
    }
    fn applied(&mut self, index: u64) {
        self.applied = index;
    }
    fn read(&mut self, _context: Vec<u8>, _index: u64) {}
}

fn broken() -> StoreError {
    StoreError::Io { operation: "write", place: "/data".to_owned(), detail: "no".to_owned() }
}

fn founded(voters: &[u64]) -> MemoryStore {
    let mut store = MemoryStore::new();
    bootstrap(&mut store, voters, Vec::new()).unwrap();
    store
}

fn settled(driver: &mut Driver<MemoryStore>) -> Sink {
    let mut sink = Sink::default();
    while driver.ready(&mut sink).unwrap() {}
    sink
}

fn message(kind: MessageType, term: u64) -> Message {
    Message { msg_type: kind as i32, from: 2, to: 1, term, ..Message::default() }
}

#[test]
fn a_vote_that_was_not_written_is_not_sent() {
    let mut store = founded(&[1, 2, 3]);
    store.fail_writes(broken());
    let mut driver = Driver::new(Config::new(1), store).unwrap();
    let request = Message { log_term: 1, index: 1, ..message(MessageType::MsgRequestVote, 5) };
    driver.step(request).unwrap();
    let mut sink = Sink::default();
    assert_eq!(driver.ready(&mut sink), Err(DriveError::Store(broken())));
    assert!(sink.sent.is_empty(), "sent {:?}", sink.sent);
    // And it is over: nothing else is taken or given.
    assert!(matches!(driver.ready(&mut sink), Err(DriveError::Stopped(_))));
    assert!(matches!(driver.tick(), Err(DriveError::Stopped(_))));
    assert!(driver.propose(b"x".to_vec()).is_err());
    assert!(driver.read_index(b"x".to_vec()).is_err());
}

#[test]
fn a_failed_read_stops_and_does_not_become_a_snapshot() {
    let mut driver = Driver::new(Config::new(1), founded(&[1])).unwrap();
    driver.campaign().unwrap();
    settled(&mut driver);
    for i in 0..10u8 {
        driver.propose(vec![i]).unwrap();
        settled(&mut driver);
    }
    driver.store().fail_reads(broken());
    assert_eq!(driver.propose(b"x".to_vec()).map(|_| ()), Ok(()));
    let mut sink = Sink::default();
    let stopped = loop {
        match driver.ready(&mut sink) {
            Ok(true) => {}
            other => break other,
        }
    };
    assert_eq!(stopped, Err(DriveError::Store(broken())));
    assert!(sink.sent.iter().all(|m| m.msg_type != MessageType::MsgSnapshot as i32));
}

#[test]
fn logs_that_raft_would_panic_on_are_reported() {
    let sound = Recovered {
        truncated: (1, 1),
        terms: vec![1, 1],
        hard_state: HardState { term: 1, vote: 0, commit: 3 },
        applied: 2,
        ..Recovered::default()
    };
    assert_eq!(LogIndex::recover(sound.clone()).inconsistency(), None);
    let why = |change: fn(&mut Recovered)| {
        let mut parts = sound.clone();
        change(&mut parts);
        LogIndex::recover(parts).inconsistency().unwrap()
    };
    assert!(why(|p| p.hard_state.commit = 1).contains("only 1 is committed"));
    assert!(why(|p| p.hard_state.commit = 9).contains("the log ends at 3"));
    assert!(why(|p| p.applied = 0).contains("only 0 was applied"));
    assert!(why(|p| p.terms = vec![1, 7]).contains("term 7"));
}

#[test]
fn a_store_refuses_writes_that_rewrite_what_is_decided() {
    let mut store = founded(&[1]);
    let entry = |index, term| Entry { index, term, data: vec![1], ..Entry::default() };
    store
        .write(WriteBatch {
            entries: vec![entry(2, 1), entry(3, 1)],
            hard_state: Some(HardState { term: 1, vote: 1, commit: 2 }),
            records: vec![(1, b"one".to_vec())],
            applied: Some(2),
            ..WriteBatch::default()
        })
        .unwrap();
    let staged = store.stage_snapshot(1, b"state".to_vec()).unwrap();
    let mut refuse = |what: &str, batch: WriteBatch| {
        let before = store.index().clone();
        assert!(matches!(store.write(batch), Err(StoreError::Refused(_))), "{what}");
        assert_eq!(*store.index(), before, "{what}");
    };
    let batch = WriteBatch::default;
    refuse("a committed entry", WriteBatch { entries: vec![entry(2, 2)], ..batch() });
    refuse("a hole", WriteBatch { entries: vec![entry(5, 1)], ..batch() });
    refuse("an inner hole", WriteBatch { entries: vec![entry(4, 1), entry(6, 1)], ..batch() });
    refuse("an old record", WriteBatch { records: vec![(1, b"new".to_vec())], ..batch() });
    refuse("a record too far", WriteBatch { records: vec![(3, b"new".to_vec())], ..batch() });
    refuse("a record that is not missing", WriteBatch { backfill: vec![(1, vec![])], ..batch() });
    refuse("applied beyond commit", WriteBatch { applied: Some(3), ..batch() });
    refuse("applied backwards", WriteBatch { applied: Some(1), ..batch() });
    refuse("compaction of the unapplied", WriteBatch { compact_through: Some(3), ..batch() });
    let hard = |term, commit| Some(HardState { term, vote: 1, commit });
    refuse("a term backwards", WriteBatch { hard_state: hard(0, 2), ..batch() });
    refuse("a commit backwards", WriteBatch { hard_state: hard(1, 1), ..batch() });
    refuse("a commit beyond the log", WriteBatch { hard_state: hard(1, 4), ..batch() });
    let old = SnapshotHead { seq: 1, index: 1, term: 1, ..SnapshotHead::default() };
    let early = SnapshotHead { index: 3, ..old.clone() };
    let install = Some(StoredSnapshot { head: old.clone(), data: Vec::new() });
    refuse("a snapshot of the past", WriteBatch { install, ..batch() });
    let snapshot = Some(StagedSnapshot { head: early, staged });
    refuse("a snapshot of the future", WriteBatch { snapshot, ..batch() });
    let staged = Staged { stage: staged.stage + 1, ..staged };
    let snapshot = Some(StagedSnapshot { head: old, staged });
    refuse("a snapshot that nobody staged", WriteBatch { snapshot, ..batch() });
}

#[test]
fn installing_a_snapshot_drops_the_whole_log_and_keeps_every_record() {
    let mut store = founded(&[1]);
    let entries = (2..=9).map(|index| Entry { index, term: 1, ..Entry::default() }).collect();
    store
        .write(WriteBatch {
            entries,
            hard_state: Some(HardState { term: 1, vote: 1, commit: 3 }),
            records: vec![(1, b"one".to_vec())],
            applied: Some(3),
            ..WriteBatch::default()
        })
        .unwrap();
    // It ends before the log does: a tail kept behind it would be a lie.
    let head = SnapshotHead { seq: 5, index: 6, term: 3, ..SnapshotHead::default() };
    let snapshot = StoredSnapshot { head, data: Vec::new() };
    store
        .write(WriteBatch {
            install: Some(snapshot),
            hard_state: Some(HardState { term: 3, vote: 0, commit: 6 }),
            sync: true,
            ..WriteBatch::default()
        })
        .unwrap();
    let index = store.index();
    assert_eq!((index.first_index(), index.last_index(), index.last_term()), (7, 6, 3));
    assert_eq!((index.applied(), index.last_seq()), (6, 5));
    assert_eq!(index.gaps(), [(2, 5)]);
    assert_eq!(store.records().keys().copied().collect::<Vec<_>>(), [1]);

    let fill = |seq: u64| WriteBatch { backfill: vec![(seq, vec![0])], ..WriteBatch::default() };
    store.write(fill(3)).unwrap();
    assert_eq!(store.gaps(), [(2, 2), (4, 5)]);
    for seq in [2, 5, 4] {
        store.write(fill(seq)).unwrap();
    }
    assert!(store.gaps().is_empty());
}

#[test]
fn a_replica_that_lost_its_log_says_so_instead_of_panicking() {
    let mut driver = Driver::new(Config::new(1), founded(&[1, 2, 3])).unwrap();
    let heartbeat = Message { commit: 40, ..message(MessageType::MsgHeartbeat, 2) };
    let lost = driver.step(heartbeat).unwrap_err();
    assert_eq!(lost, StepError::LostLog { acknowledged: 40, last: 1 });
    assert!(lost.to_string().contains("under a new id"));
}

#[test]
fn a_leader_that_contradicts_what_is_committed_is_an_error_and_no_panic() {
    let mut driver = Driver::new(Config::new(1), founded(&[1, 2, 3])).unwrap();
    let entry = |index, term| Entry { index, term, ..Entry::default() };
    let append = |term, entries, commit| Message {
        index: 1,
        log_term: 1,
        entries,
        commit,
        ..message(MessageType::MsgAppend, term)
    };
    driver.step(append(2, vec![entry(2, 2)], 2)).unwrap();
    while driver.ready(&mut Sink::default()).unwrap() {}
    // The same entry once more is no contradiction.
    driver.step(append(3, vec![entry(2, 2)], 2)).unwrap();
    while driver.ready(&mut Sink::default()).unwrap() {}
    let contradicted = driver.step(append(3, vec![entry(2, 3)], 2)).unwrap_err();
    assert_eq!(contradicted, StepError::Contradicted { from: 2, index: 2 });
}

#[test]
fn messages_that_no_correct_peer_sends_are_dropped() {
    let mut driver = Driver::new(Config::new(1), founded(&[1, 2, 3])).unwrap();
    let entry = |index, term, entry_type| Entry { index, term, entry_type, ..Entry::default() };
    let append = |entries| Message { index: 1, log_term: 1, entries, ..message(MessageType::MsgAppend, 2) };
    let mut unknown_change = entry(2, 1, 1);
    unknown_change.data = vec![0x10, 10, 0x18, 4];
    let head = SnapshotHead { index: 9, term: 1, ..SnapshotHead::default() };
    let mut no_voters = StoredSnapshot { head, data: Vec::new() };
    no_voters.head.conf_state.voters_outgoing = vec![1, 2, 3];
    let snapshot = |snapshot: &StoredSnapshot| Message {
        snapshot: Some(snapshot.to_raft()),
        ..message(MessageType::MsgSnapshot, 2)
    };
    let mut read = Message { term: 2, ..message(MessageType::MsgReadIndex, 0) };
    read.entries = vec![Entry { data: b"context".to_vec(), ..Entry::default() }];
    let wrong = [
        append(vec![unknown_change]),
        Message { log_term: 0, index: 48, commit: 48, ..append(Vec::new()) },
        Message { index: u64::MAX, ..append(vec![entry(0, 1, 0)]) },
        Message { term: u64::MAX, ..message(MessageType::MsgHeartbeat, 2) },
        snapshot(&no_voters),
        read,
        Message { to: 3, ..message(MessageType::MsgHeartbeat, 2) },
        Message { from: 0, ..message(MessageType::MsgHeartbeat, 2) },
        Message { from: 1, ..message(MessageType::MsgHeartbeat, 2) },
        Message { msg_type: 999, ..message(MessageType::MsgHeartbeat, 2) },
        message(MessageType::MsgPropose, 0),
        message(MessageType::MsgTransferLeader, 2),
        message(MessageType::MsgHup, 2),
        message(MessageType::MsgReadIndex, 0),
        message(MessageType::MsgReadIndexResp, 2),
        message(MessageType::MsgHeartbeat, 0),
        message(MessageType::MsgSnapshot, 2),
        append(vec![entry(3, 2, 0)]),
        append(vec![entry(2, 9, 0)]),
        append(vec![entry(2, 2, 77)]),
    ];
    for message in wrong {
        let words = format!("{message:?}");
        let dropped = driver.step(message);
        assert!(matches!(dropped, Err(StepError::Dropped { .. })), "{words}");
    }
    assert!(settled(&mut driver).sent.is_empty());
    driver.step(append(vec![entry(2, 2, 0)])).unwrap();
    assert_eq!(settled(&mut driver).sent.len(), 1);
}

#[test]
fn bursts_of_ticks_start_no_election() {
    let mut driver = Driver::new(Config::new(1), founded(&[1, 2, 3])).unwrap();
    driver.tick_capped(10_000).unwrap();
    assert!(settled(&mut driver).sent.is_empty());
    for _ in 0..40 {
        driver.tick().unwrap();
    }
    assert!(!settled(&mut driver).sent.is_empty(), "but silence does");
}

#[test]
fn founding_takes_an_empty_store_and_sensible_voters() {
    let mut store = founded(&[1]);
    assert!(bootstrap(&mut store, &[1], Vec::new()).is_err());
    assert!(bootstrap(&mut MemoryStore::new(), &[], Vec::new()).is_err());
    assert!(bootstrap(&mut MemoryStore::new(), &[0], Vec::new()).is_err());
    let invalid = Config { heartbeat_ticks: 0, ..Config::new(1) };
    assert!(matches!(Driver::new(invalid, founded(&[1])), Err(StartError::Config(_))));
}
