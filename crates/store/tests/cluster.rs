//! Whole clusters on RocksDB: the same storms as on the store in memory.
#![allow(clippy::unwrap_used)]

#[path = "../../consensus/tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;

use rand::rngs::StdRng;
use stele_consensus::{MembershipChange, Span, StoredSnapshot};
use stele_store::{Identity, Settings, Store};
use support::{Cluster, Disks, storm};

struct Folders(tempfile::TempDir);

fn identity(id: u64) -> Identity {
    Identity { fleet: "demo".to_owned(), node: id }
}

impl Folders {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, id: u64) -> PathBuf {
        self.0.path().join(id.to_string())
    }
}

impl Disks for Folders {
    type Store = Store;

    fn create(&mut self, id: u64) -> Store {
        Store::create(&self.path(id), &identity(id), &Settings::default()).unwrap()
    }

    // The process dies: nothing is flushed, what was written is there.
    fn crash(&mut self, id: u64, store: Store, _rng: &mut StdRng) -> Store {
        drop(store);
        Store::open(&self.path(id), &identity(id), &Settings::default()).unwrap()
    }

    fn records(store: &Store) -> BTreeMap<u64, Vec<u8>> {
        let reader = store.reader();
        let all = (1..=reader.last_seq()).filter_map(|seq| Some((seq, reader.record(seq).unwrap()?)));
        all.collect()
    }

    fn latest_snapshot(store: &Store) -> Option<StoredSnapshot> {
        store.latest_snapshot().unwrap()
    }

    fn gaps(store: &Store) -> Vec<Span> {
        store.reader().gaps()
    }
}

#[test]
fn storms_lose_nothing_that_was_acknowledged() {
    let (mut acknowledged, mut restores) = (0, 0);
    for seed in 1000..1004 {
        let mut cluster = Cluster::new(Folders::new(), 3, seed);
        acknowledged += storm(&mut cluster, 250);
        restores += cluster.oracle.borrow().restores;
    }
    assert!(acknowledged > 100, "only {acknowledged} writes were acknowledged");
    assert!(restores > 0, "no snapshot was installed");
}

#[test]
fn a_wiped_replica_rejoins_under_a_new_id_with_its_history() {
    let mut cluster = Cluster::new(Folders::new(), 3, 5);
    cluster.run_until("a leader", 200, |c| c.leader().is_some());
    cluster.run(10);
    let leader = cluster.leader().unwrap();
    for i in 0..80 {
        cluster.propose(leader, format!("write {i}").as_bytes());
        cluster.run(1);
    }
    cluster.run(10);
    cluster.keep_house(leader, true);
    let wiped = if leader == 1 { 2 } else { 1 };
    cluster.crash(wiped);
    cluster.replicas.remove(&wiped);
    let propose = |cluster: &mut Cluster<Folders>, change| {
        cluster.driver(leader).propose_membership(change, Vec::new()).unwrap();
        cluster.run(30);
    };
    propose(&mut cluster, MembershipChange::Remove(wiped));
    cluster.join(4);
    propose(&mut cluster, MembershipChange::AddLearner(4));
    cluster.heal_and_converge();
    propose(&mut cluster, MembershipChange::Promote(4));
    cluster.heal_and_converge();
    assert!(cluster.members().voters.contains(&4));
    let newcomer = cluster.replicas[&4].driver.as_ref().unwrap().store().reader();
    assert_eq!(newcomer.first_seq(), 1);
    assert_eq!(newcomer.records(1..=u64::MAX, usize::MAX).unwrap().len(), 80);
}
