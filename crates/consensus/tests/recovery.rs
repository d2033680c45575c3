//! A quorum that is lost for good, and the replica that goes on.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use stele_consensus::memory::MemoryStore;
use stele_consensus::recovery::{Held, Takeover, is_alone, next_entry, take_over, unapplied};
use stele_consensus::{
    ConfState, LogStore as _, MembershipChange, MembershipError, Role, Span, StoreError, StoredSnapshot,
    WriteBatch, bootstrap,
};
use support::{Cluster, Disks};

/// A disk that loses nothing.
struct Memory;

impl Disks for Memory {
    type Store = MemoryStore;

    fn create(&mut self, _id: u64) -> MemoryStore {
        MemoryStore::new()
    }

    fn crash(&mut self, _id: u64, store: MemoryStore, _rng: &mut StdRng) -> MemoryStore {
        let keep = store.unsynced();
        store.crash(keep)
    }

    fn records(store: &MemoryStore) -> BTreeMap<u64, Vec<u8>> {
        store.records().clone()
    }

    fn latest_snapshot(store: &MemoryStore) -> Option<StoredSnapshot> {
        store.latest_snapshot().cloned()
    }

    fn gaps(store: &MemoryStore) -> Vec<Span> {
        store.gaps().to_vec()
    }
}

/// Three replicas of which one leads.
fn led() -> (Cluster<Memory>, u64) {
    let mut cluster = Cluster::new(Memory, 3, 7);
    cluster.run_until("a leader", 200, |c| {
        c.leader().is_some_and(|id| c.replicas[&id].driver.as_ref().unwrap().status().committed_in_term)
    });
    let leader = cluster.leader().unwrap();
    (cluster, leader)
}

/// Loses all but one, which takes what it has for the log.
fn lose_all_but(cluster: &mut Cluster<Memory>, id: u64) {
    for other in cluster.running() {
        cluster.crash(other);
    }
    cluster.replicas.retain(|other, _| *other == id);
}

#[test]
fn who_is_left_keeps_all_it_has_and_decides_alone() {
    let (mut cluster, leader) = led();
    for count in 0..20 {
        assert!(cluster.propose(leader, format!("certain {count}").as_bytes()));
        cluster.run(3);
    }
    cluster.run(10);
    let acknowledged = cluster.acknowledged.len();
    assert_eq!(acknowledged, 20);
    // What only the leader has: nobody can tell whether it is committed.
    cluster.isolated.insert(leader);
    for count in 0..3 {
        assert!(cluster.propose(leader, format!("uncertain {count}").as_bytes()));
    }
    cluster.settle();
    let term = cluster.driver(leader).status().term;
    lose_all_but(&mut cluster, leader);
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let tail = cluster.take_over(leader, &others, b"recovered");
    assert_eq!(tail.iter().filter(|entry| !entry.is_committed).count(), 3);

    cluster.restart(leader);
    cluster.driver(leader).campaign().unwrap();
    cluster.isolated.clear();
    cluster.run_until("it leads", 100, |c| c.leader() == Some(leader));
    let status = cluster.driver(leader).status();
    assert!(status.term > term + 1, "{status:?}");
    assert_eq!((status.conf_state.voters, status.retired), (vec![leader], others.clone()));
    let records = cluster.driver(leader).store().records().clone();
    let texts: Vec<_> = records.values().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect();
    assert_eq!(
        texts[18..],
        ["certain 18", "certain 19", "uncertain 0", "uncertain 1", "uncertain 2", "recovered"]
    );

    // It grows again, but by nobody who was there before.
    assert!(cluster.propose(leader, b"after"));
    cluster.run_until("it decides", 50, |c| c.acknowledged.last().is_some_and(|last| last == b"after"));
    for other in others {
        let back = cluster.driver(leader).propose_membership(MembershipChange::AddLearner(other), Vec::new());
        assert_eq!(back, Err(MembershipError::Retired(other)));
    }
    for new in [4, 5] {
        cluster.join(new);
        cluster.driver(leader).propose_membership(MembershipChange::AddLearner(new), Vec::new()).unwrap();
        cluster.run_until("it follows", 500, |c| {
            let status = c.replicas[&leader].driver.as_ref().unwrap().status();
            status.progress.iter().any(|peer| peer.id == new && peer.matched == status.commit)
        });
        cluster.driver(leader).propose_membership(MembershipChange::Promote(new), Vec::new()).unwrap();
        cluster.run_until("it votes", 100, |c| c.members().voters.contains(&new));
    }
    cluster.heal_and_converge();
    let records = cluster.driver(leader).store().records().clone();
    assert_eq!(cluster.driver(4).store().records(), &records);
}

#[test]
fn a_promotion_that_had_begun_does_not_take_the_quorum_away_again() {
    let (mut cluster, leader) = led();
    cluster.join(4);
    cluster.driver(leader).propose_membership(MembershipChange::AddLearner(4), Vec::new()).unwrap();
    cluster.run_until("it follows", 500, |c| {
        let status = c.replicas[&leader].driver.as_ref().unwrap().status();
        status.progress.iter().any(|peer| peer.id == 4 && peer.matched == status.commit)
    });
    cluster.isolated.insert(leader);
    cluster.driver(leader).propose_membership(MembershipChange::Promote(4), Vec::new()).unwrap();
    cluster.settle();
    lose_all_but(&mut cluster, leader);
    let others: Vec<u64> = (1..=4).filter(|id| *id != leader).collect();
    let tail = cluster.take_over(leader, &others, b"recovered");
    assert_eq!(tail.last().unwrap().held, Held::Members(vec![4]));

    for _ in 0..2 {
        cluster.restart(leader);
        cluster.driver(leader).campaign().unwrap();
        cluster.isolated.clear();
        cluster.run(30);
        let status = cluster.driver(leader).status();
        assert_eq!((status.role, status.conf_state.voters), (Role::Leader, vec![leader]));
        assert!(cluster.propose(leader, b"alone"));
        cluster.run(3);
        assert_eq!(cluster.acknowledged.last().unwrap(), b"alone");
        cluster.crash(leader);
    }
}

fn founded() -> MemoryStore {
    let mut store = MemoryStore::new();
    bootstrap(&mut store, &[1, 2, 3], Vec::new()).unwrap();
    store
}

fn takeover(given_up: &[u64]) -> Takeover {
    Takeover {
        id: 3,
        given_up: given_up.to_vec(),
        data: b"word".to_vec(),
        records: vec![(1, b"word".to_vec())],
    }
}

#[test]
fn it_is_one_write_that_a_crash_keeps_or_not() {
    let mut store = founded();
    assert!(!is_alone(store.index(), 3, &[]));
    let (index, term) = next_entry(store.index());
    take_over(&mut store, takeover(&[1, 2])).unwrap();
    assert_eq!(store.unsynced(), 0);
    let store = store.crash(0);
    let at = store.index();
    assert_eq!((at.last_index(), at.last_term(), at.applied(), at.last_seq()), (index, term, index, 1));
    assert_eq!((at.hard_state().commit, at.hard_state().vote, at.hard_state().term), (index, 3, term));
    assert_eq!(at.inconsistency(), None);
    assert!(is_alone(at, 3, &unapplied(&store).unwrap()));

    let mut full = founded();
    full.fail_writes(StoreError::Refused("full".to_owned()));
    take_over(&mut full, takeover(&[1, 2])).unwrap_err();
    assert_eq!(full.crash(0).index(), founded().index(), "nothing happened");
}

#[test]
fn nobody_is_left_a_member_and_no_stranger_takes_over() {
    let why = |store: &mut MemoryStore, it: Takeover| take_over(store, it).unwrap_err().to_string();
    assert!(why(&mut founded(), takeover(&[1])).contains("controller 2 is a member"));
    assert!(why(&mut founded(), takeover(&[1, 2, 3])).contains("controller 3 is no member"));
    assert!(why(&mut MemoryStore::new(), takeover(&[1, 2])).contains("controller 3 is no member"));
    let mut removed = founded();
    removed.write(WriteBatch { retired: Some(vec![3]), ..WriteBatch::default() }).unwrap();
    assert!(why(&mut removed, takeover(&[1, 2])).contains("controller 3 is no member"));
    let empty = Takeover { data: Vec::new(), ..takeover(&[1, 2]) };
    assert!(why(&mut founded(), empty).contains("0 bytes"));
    // A learner may be all that is left.
    let mut learner = founded();
    let conf_state = ConfState { voters: vec![1, 2], learners: vec![3], ..ConfState::default() };
    learner.write(WriteBatch { conf_state: Some(conf_state), ..WriteBatch::default() }).unwrap();
    take_over(&mut learner, takeover(&[1, 2])).unwrap();
    assert_eq!(learner.index().conf_state().voters, [3]);
}
