//! Whole clusters on the store in memory, which loses unsynced writes.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::StdRng;
use stele_consensus::memory::MemoryStore;
use stele_consensus::{
    CompactError, MembershipChange, MembershipError, NotReady, ProposeError, Role, Span, StoredSnapshot,
    TransferError,
};
use support::{Cluster, Disks, storm};

struct Memory;

impl Disks for Memory {
    type Store = MemoryStore;

    fn create(&mut self, _id: u64) -> MemoryStore {
        MemoryStore::new()
    }

    fn crash(&mut self, _id: u64, store: MemoryStore, rng: &mut StdRng) -> MemoryStore {
        let keep = rng.random_range(0..=store.unsynced());
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

fn led(voters: u64) -> (Cluster<Memory>, u64) {
    let mut cluster = Cluster::new(Memory, voters, 7);
    cluster.run_until("a leader", 200, |c| {
        c.leader().is_some_and(|id| c.replicas[&id].driver.as_ref().unwrap().status().committed_in_term)
    });
    let leader = cluster.leader().unwrap();
    (cluster, leader)
}

#[test]
fn a_commit_rides_with_the_next_append_or_is_told_when_asked() {
    let (mut cluster, leader) = led(3);
    cluster.exchange();
    cluster.driver(leader).tell_commit().unwrap();
    cluster.exchange();
    let commits = |cluster: &Cluster<Memory>| -> Vec<u64> {
        let status = |id: &u64| cluster.replicas[id].driver.as_ref().unwrap().status();
        let ids = [leader].into_iter().chain(cluster.running().into_iter().filter(|id| *id != leader));
        ids.collect::<Vec<_>>().iter().map(|id| status(id).commit).collect()
    };
    let first = commits(&cluster)[0];
    assert_eq!(commits(&cluster), [first; 3]);
    assert!(!cluster.driver(leader).has_untold_commit());

    assert!(cluster.propose(leader, b"one"));
    cluster.exchange();
    assert_eq!(commits(&cluster), [first + 1, first, first], "nobody was told by a message of its own");
    assert!(cluster.driver(leader).has_untold_commit());

    assert!(cluster.propose(leader, b"two"));
    cluster.exchange();
    assert_eq!(commits(&cluster), [first + 2, first + 1, first + 1], "the second append told of the first");

    cluster.driver(leader).tell_commit().unwrap();
    cluster.exchange();
    assert_eq!(commits(&cluster), [first + 2; 3]);
    assert!(!cluster.driver(leader).has_untold_commit());
}

#[test]
fn storms_lose_nothing_that_was_acknowledged() {
    let (mut acknowledged, mut restores) = (0, 0);
    for seed in 0..60 {
        let mut cluster = Cluster::new(Memory, 3 + 2 * (seed % 2), seed);
        acknowledged += storm(&mut cluster, 600);
        restores += cluster.oracle.borrow().restores;
    }
    // The storms must have let something through, or they proved nothing.
    assert!(acknowledged > 1000, "only {acknowledged} writes were acknowledged");
    assert!(restores > 20, "only {restores} snapshots were installed");
}

#[test]
fn one_seed_gives_one_history() {
    let run = |seed| {
        let mut cluster = Cluster::new(Memory, 3, seed);
        storm(&mut cluster, 300);
        cluster.oracle.borrow().trace.clone()
    };
    let (first, again) = (run(42), run(42));
    assert!(first == again);
    assert!(first != run(43));
}

#[test]
fn a_member_is_added_promoted_and_removed() {
    let (mut cluster, leader) = led(3);
    for i in 0..200 {
        assert!(cluster.propose(leader, format!("before {i}").as_bytes()));
        cluster.settle();
    }
    cluster.run(20);
    cluster.keep_house(leader, true);
    cluster.join(4);

    let add = MembershipChange::AddLearner(4);
    cluster.driver(leader).propose_membership(add, b"why".to_vec()).unwrap();
    // One at a time: a second would silently become an empty entry.
    let second = cluster.driver(leader).propose_membership(MembershipChange::AddLearner(5), Vec::new());
    assert_eq!(second, Err(MembershipError::Pending));
    cluster.run_until("the learner has caught up", 500, |c| {
        let status = c.replicas[&leader].driver.as_ref().unwrap().status();
        status.progress.iter().any(|peer| peer.id == 4 && peer.is_learner && peer.matched == status.commit)
    });
    let again = cluster.driver(leader).propose_membership(add, Vec::new());
    assert_eq!(again, Err(MembershipError::Exists(4)));

    let promote = MembershipChange::Promote(4);
    cluster.driver(leader).propose_membership(promote, Vec::new()).unwrap();
    cluster.run_until("the learner votes", 100, |c| c.members().voters.contains(&4));
    let again = cluster.driver(leader).propose_membership(promote, Vec::new());
    assert_eq!(again, Err(MembershipError::VotesAlready(4)));
    cluster.heal_and_converge();

    let own = cluster.driver(leader).propose_membership(MembershipChange::Remove(leader), Vec::new());
    assert_eq!(own, Err(MembershipError::IsLeader(leader)));
    let remove = MembershipChange::Remove(4);
    cluster.driver(leader).propose_membership(remove, Vec::new()).unwrap();
    cluster.run_until("it is gone", 100, |c| !c.members().voters.contains(&4));
    let reuse = cluster.driver(leader).propose_membership(add, Vec::new());
    assert_eq!(reuse, Err(MembershipError::Retired(4)));
    let unknown = cluster.driver(leader).propose_membership(remove, Vec::new());
    assert_eq!(unknown, Err(MembershipError::Retired(4)));
    cluster.heal_and_converge();

    // The removed one disturbs nobody, however long it campaigns.
    let term = cluster.driver(leader).status().term;
    cluster.run(300);
    assert_eq!(cluster.driver(leader).status().term, term);
    assert_eq!(cluster.leader(), Some(leader));

    let gone = cluster.driver(4);
    let before = gone.status().term;
    gone.campaign().unwrap();
    assert_eq!(gone.status().term, before, "who is no voter does not stand");

    // And that its id is taken survives restarts and snapshots.
    cluster.keep_house(leader, true);
    cluster.join(6);
    cluster.driver(leader).propose_membership(MembershipChange::AddLearner(6), Vec::new()).unwrap();
    cluster.run_until("6 knows", 500, |c| c.replicas[&6].driver.as_ref().unwrap().status().retired == [4]);
    cluster.crash(leader);
    cluster.restart(leader);
    assert_eq!(cluster.driver(leader).status().retired, [4]);
}

#[test]
fn a_far_behind_replica_is_sent_a_snapshot_and_backfills() {
    let (mut cluster, leader) = led(3);
    let behind = if leader == 1 { 2 } else { 1 };
    cluster.crash(behind);
    for i in 0..100 {
        cluster.propose(leader, format!("missed {i}").as_bytes());
        cluster.run(1);
    }
    cluster.run(20);
    cluster.keep_house(leader, true);
    let before = cluster.oracle.borrow().restores;
    cluster.heal_and_converge();
    assert!(cluster.oracle.borrow().restores > before);
    assert_eq!(cluster.replicas[&behind].app.seq, 100);
}

#[test]
fn a_leader_that_lacks_records_removes_nobody() {
    let (mut cluster, first) = led(3);
    let behind = if first == 1 { 2 } else { 1 };
    cluster.crash(behind);
    for i in 0..200 {
        cluster.propose(first, format!("missed {i}").as_bytes());
        cluster.run(1);
    }
    cluster.run(20);
    cluster.keep_house(first, true);
    cluster.restart(behind);
    cluster.run_until("it has State", 500, |c| c.replicas[&behind].app.seq == 200);
    cluster.driver(first).transfer_leader(behind).unwrap();
    cluster.run_until("it leads", 100, |c| c.leader() == Some(behind));
    let remove = MembershipChange::Remove(first);
    let refused = cluster.driver(behind).propose_membership(remove, Vec::new());
    let is_why = matches!(refused, Err(MembershipError::Incomplete { id, to: 200, .. }) if id == first);
    assert!(is_why, "{refused:?}");
    let regardless = MembershipChange::RemoveRegardless(3 + 1);
    let unknown = cluster.driver(behind).propose_membership(regardless, Vec::new());
    assert_eq!(unknown, Err(MembershipError::Unknown(4)), "the other rules hold");
    cluster.heal_and_converge();
    cluster.driver(behind).propose_membership(remove, Vec::new()).unwrap();
    cluster.run_until("it is gone", 100, |c| !c.members().voters.contains(&first));
    cluster.heal_and_converge();
}

#[test]
fn reads_wait_for_the_first_commit_of_the_term_and_then_see_every_write() {
    let (mut cluster, leader) = led(3);
    cluster.propose(leader, b"seen");
    cluster.run(10);
    let commit = cluster.driver(leader).status().commit;
    let follower = if leader == 3 { 1 } else { 3 };
    cluster.driver(leader).read_index(b"at the leader".to_vec()).unwrap();
    cluster.driver(follower).read_index(b"at a follower".to_vec()).unwrap();
    cluster.run(10);
    for (id, context) in [(leader, b"at the leader".to_vec()), (follower, b"at a follower".to_vec())] {
        let reads = std::mem::take(&mut cluster.replicas.get_mut(&id).unwrap().app.reads);
        assert_eq!(reads, [(context, commit)]);
    }
    assert!(matches!(cluster.driver(leader).read_index(Vec::new()), Err(NotReady::Context { .. })));

    // A leader that just won and has heard nothing back yet.
    let (mut fresh, _) = led(3);
    fresh.crash(fresh.leader().unwrap());
    let mut refused = false;
    for _ in 0..200 {
        fresh.step();
        if let Some(leader) = fresh.leader()
            && !fresh.driver(leader).status().committed_in_term
        {
            let read = fresh.driver(leader).read_index(b"early".to_vec());
            assert_eq!(read, Err(NotReady::TermNotCommitted));
            refused = true;
        }
    }
    assert!(refused, "no leader was seen before its first commit");
}

#[test]
fn an_isolated_leader_steps_down_and_answers_no_read() {
    let (mut cluster, leader) = led(3);
    cluster.isolated.insert(leader);
    cluster.driver(leader).read_index(b"stale".to_vec()).unwrap();
    cluster.propose(leader, b"lost");
    cluster.run_until("it steps down", 100, |c| {
        c.replicas[&leader].driver.as_ref().unwrap().status().role != Role::Leader
    });
    assert!(cluster.replicas[&leader].app.reads.is_empty());
    assert!(cluster.acknowledged.is_empty());
    cluster.run_until("another leads", 200, |c| c.leader().is_some_and(|id| id != leader));
    cluster.heal_and_converge();
    assert!(cluster.acknowledged.is_empty());
}

#[test]
fn only_the_leader_proposes() {
    let (mut cluster, leader) = led(3);
    let follower = if leader == 3 { 1 } else { 3 };
    let not_leader = ProposeError::NotLeader { leader: Some(leader) };
    assert_eq!(cluster.driver(follower).propose(b"x".to_vec()), Err(not_leader));
    assert_eq!(cluster.driver(leader).propose(Vec::new()), Err(ProposeError::Empty));
    let huge = vec![0; stele_consensus::limits::MAX_ENTRY_BYTES + 1];
    assert!(matches!(cluster.driver(leader).propose(huge), Err(ProposeError::TooLarge { .. })));
    let transfer = cluster.driver(follower).transfer_leader(leader);
    assert_eq!(transfer, Err(TransferError::NotLeader { leader: Some(leader) }));
}

#[test]
fn leadership_is_transferred() {
    let (mut cluster, leader) = led(3);
    let heir = if leader == 3 { 1 } else { 3 };
    assert_eq!(cluster.driver(leader).transfer_leader(9), Err(TransferError::NotVoter(9)));
    cluster.driver(leader).transfer_leader(heir).unwrap();
    assert_eq!(cluster.driver(leader).propose(b"x".to_vec()), Err(ProposeError::Transferring));
    cluster.run_until("the heir leads", 30, |c| c.leader() == Some(heir));
}

#[test]
fn what_no_snapshot_covers_is_not_compacted() {
    let (mut cluster, leader) = led(3);
    cluster.propose(leader, b"x");
    cluster.run(10);
    let applied = cluster.driver(leader).status().applied;
    let refused = cluster.driver(leader).compact(applied);
    assert_eq!(refused, Err(CompactError::NotCovered { through: applied, covered: 1 }));
    cluster.keep_house(leader, true);
    assert_eq!(cluster.driver(leader).status().first_index, applied + 1);
    assert_eq!(cluster.replicas[&leader].driver.as_ref().unwrap().store().records().len(), 1);
}
