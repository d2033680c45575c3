//! One replica alone, turned by hand.
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc::{SyncSender, sync_channel};

use stele_codec::Chain;
use stele_consensus::{Config, LogStore as _};
use stele_ledger::Ledger;
use stele_peer::ca::Authority;
use stele_peer::{PeerConfig, Peers, Tls};
use stele_store::Identity;
use tokio::sync::{OnceCell, watch};

use super::*;
use crate::app::Published;
use crate::digested::Digested;
use crate::forward::Inbox;
use crate::keepalive::Keepalive;
use crate::opening::{FRESH, Place};
use crate::reached::Reached;

/// A replica that leads itself and decides, with what it lives on.
struct Alone {
    replica: Replica,
    _inputs: SyncSender<Input>,
    _runtime: tokio::runtime::Runtime,
    _folder: tempfile::TempDir,
}

const FLEET: &str = "demo";

fn peers(runtime: &tokio::runtime::Runtime, inputs: SyncSender<Input>) -> Peers {
    drop(rustls::crypto::ring::default_provider().install_default());
    let own = IpAddr::from(Ipv4Addr::LOCALHOST);
    let authority = Authority::create(FLEET).unwrap();
    let issued = authority.issue(1, &[own]).unwrap();
    let tls = Tls::from_pem(authority.certificate_pem(), &issued.certificate_pem, &issued.key_pem).unwrap();
    let config = PeerConfig { id: 1, fleet: FLEET.to_owned(), listen: (own, 0).into(), tls };
    let inbox = Inbox { inputs, handle: Arc::new(OnceCell::new()) };
    runtime.block_on(Peers::start(config, Arc::new(inbox))).unwrap()
}

impl Alone {
    fn deciding() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (data, fresh) = (folder.path().join("data"), folder.path().join(FRESH));
        std::fs::write(&fresh, "").unwrap();
        let identity = Identity { fleet: FLEET.to_owned(), node: 1 };
        let store = Place { data: &data, fresh: &fresh, identity, founders: &[1] }.open().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let (inputs, queue) = sync_channel(16);
        let first =
            Published { state: State::default(), leads: false, leader: None, term: 0, assigns_more: false };
        let app = App::new(
            1,
            Ledger::new(FLEET, State::default(), Chain::GENESIS),
            peers(&runtime, inputs.clone()),
            Keepalive::start(1, Vec::new, |_| {}).unwrap(),
            watch::channel(first).0,
            watch::channel(0).0,
            Digested::default(),
            Reached::default(),
            0,
            store.index().applied(),
            1,
        );
        let driver = Driver::new(Config::new(1), store).unwrap();
        let mut replica = Replica::new(driver, app, queue, Vec::new());
        replica.app.voters = vec![1];
        replica.driver.campaign().unwrap();
        while !replica.app.ledger.is_deciding() {
            replica.driver.ready(&mut replica.app).unwrap();
        }
        Self { replica, _inputs: inputs, _runtime: runtime, _folder: folder }
    }

    /// Decides what makes nobody look at anything, until nothing more is taken.
    fn fill(&mut self) {
        while !self.replica.app.ledger.is_full() {
            self.replica.submit(Command::StartTerm { term: 1, controller: 1 });
        }
    }

    /// Commits what was decided, and what follows of it.
    fn settle(&mut self) {
        loop {
            self.replica.propose();
            self.replica.work_off().unwrap();
            // On a busy machine it ended by the clock, and the conductor rests.
            self.replica.conductor_rests = Instant::now();
            self.replica.conduct();
            self.replica.propose();
            if !self.replica.driver.has_ready() {
                return;
            }
        }
    }

    fn state(&self) -> &State {
        self.replica.app.ledger.state()
    }
}

#[test]
fn what_a_full_batch_has_no_room_for_is_done_later() {
    let mut alone = Alone::deciding();
    alone.fill();
    alone.replica.conduct();
    alone.settle();
    assert!(alone.state().control.voters.contains(&1), "the members are recorded");

    alone.fill();
    alone.replica.app.dirty = Dirty::Apps(BTreeSet::new());
    alone.replica.app.digest_due = true;
    alone.replica.conduct();
    alone.settle();
    assert!(!alone.replica.app.digest_due);
    assert!(alone.replica.app.digest_at > 0, "the digest is recorded");
}

#[test]
fn a_snapshot_counts_when_it_is_there_and_not_when_it_is_begun() {
    let mut alone = Alone::deciding();
    while alone.state().seq < SNAPSHOT_INTERVAL_RECORDS {
        alone.fill();
        alone.settle();
    }
    let seq = alone.state().seq;
    alone.replica.snapshot().unwrap();
    assert!(!alone.replica.app.snapshots.is_free(), "one is on its way");
    assert_eq!(alone.replica.app.snapshot_at, 0);
    while !alone.replica.app.snapshots.is_free() {
        std::thread::sleep(TICK);
        alone.replica.snapshot().unwrap();
    }
    assert_eq!(alone.replica.app.snapshot_at, seq);
}
