#![allow(clippy::unwrap_used)]

use stele_bus::Auth;
use stele_bus::join::NatsAccess;
use stele_codec::{Chain, Snapshot};
use stele_consensus::{ConfState, SnapshotHead, StoredSnapshot, WriteBatch};
use stele_model::value::Sealed;
use stele_model::{Event, Time};

use super::*;
use crate::found::{Founding, Place, found};
use crate::opening;
use crate::past::{Past, PastError};

/// Certificates are issued as of now.
fn now() -> Moment {
    Moment { wall_us: crate::handle::now().0, monotonic_us: 0 }
}

/// A founded fleet, of which this test plays controller 1 as the leader, and controller 3 is what is left.
struct Fleet {
    folder: tempfile::TempDir,
    configs: BTreeMap<ControllerId, Config>,
    leader: Ledger<()>,
    /// The last entry of the leader's.
    index: u64,
}

const TERM: u64 = 2;

impl Fleet {
    fn of(ids: &[ControllerId]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = |id: &ControllerId| Place {
            id: *id,
            api: format!("127.0.0.1:{}", 7400 + id).parse().unwrap(),
            peer: format!("127.0.0.1:{}", 7500 + id).parse().unwrap(),
        };
        let founding = Founding {
            fleet: "demo".parse().unwrap(),
            controllers: ids.iter().map(place).collect(),
            nats: NatsAccess {
                urls: vec!["nats://127.0.0.1:4222".to_owned()],
                auth: Auth::None,
                tls_root: None,
            },
            admin: "admin".parse().unwrap(),
        };
        let founded = found(folder.path(), &founding).unwrap();
        let configs = founded.configs.iter().map(|(id, path)| (*id, Config::read(path).unwrap())).collect();
        let mut leader = Ledger::new("demo", State::default(), Chain::GENESIS);
        leader.elected(TERM, 1);
        assert!(leader.caught_up(now()));
        Self { folder, configs, leader, index: 1 }
    }

    /// That of three, whose controller 3 has applied that the fleet was founded.
    fn left() -> (Self, Store) {
        let mut fleet = Self::of(&[1, 2, 3]);
        let mut store = fleet.first_start(3);
        let config = fleet.config(3).clone();
        let (fleet_name, root, admin) =
            (config.fleet.clone(), config.root.clone(), config.first_admin.clone().unwrap());
        fleet.ask(Command::CreateFleet { fleet: fleet_name, root, admin });
        for config in fleet.configs.clone().values() {
            fleet.ask(Command::CertifyController {
                certificate: config.certificate.clone(),
                api: config.api_url.clone(),
                peer: config.peer_address.clone(),
            });
        }
        fleet.ask(Command::RecordMembership { voters: vec![1, 2, 3], learners: Vec::new() });
        let (index, bytes, records) = fleet.close();
        append(&mut store, index, bytes, index);
        store.write(WriteBatch { records, applied: Some(index), ..WriteBatch::default() }).unwrap();
        (fleet, store)
    }

    fn config(&self, id: ControllerId) -> &Config {
        &self.configs[&id]
    }

    /// The log of a controller that runs for the first time.
    fn first_start(&self, id: ControllerId) -> Store {
        let Config { data, fresh, founders, .. } = self.config(id);
        let identity = Identity { fleet: "demo".to_owned(), node: id };
        opening::Place { data, fresh, identity, founders }.open().unwrap()
    }

    fn ask(&mut self, command: Command) {
        let asked = self.leader.submit((), &system_request(command), BTreeMap::new(), now());
        assert_eq!(asked, Submitted::Waiting);
    }

    /// The leader's next entry and its records.
    fn close(&mut self) -> (u64, Vec<u8>, Records) {
        let (bytes, _) = self.leader.close_batch().unwrap();
        self.index += 1;
        self.leader.proposed(self.index);
        let committed = self.leader.commit(self.index, TERM, &bytes).unwrap();
        (self.index, bytes, committed.records)
    }

    /// An entry of one record.
    fn project(&mut self, number: u64) -> (u64, Vec<u8>) {
        self.ask(Command::RecordMembership { voters: vec![1, 2, 3], learners: vec![number] });
        self.ask(Command::RecordMembership { voters: vec![1, 2, 3], learners: Vec::new() });
        let (index, bytes, _) = self.close();
        (index, bytes)
    }

    fn examine(&self) -> anyhow::Result<Survivor> {
        Survivor::examine(self.config(3), Some("two disks burnt"), false)
    }

    fn refused(&self) -> String {
        format!("{:#}", self.examine().err().unwrap())
    }
}

/// Appends an entry of the leader's, and hears what is committed.
fn append(store: &mut Store, index: u64, data: Vec<u8>, commit: u64) {
    let mut batch = WriteBatch { sync: true, ..WriteBatch::default() };
    batch.entries.resize_with(1, Default::default);
    (batch.entries[0].index, batch.entries[0].term, batch.entries[0].data) = (index, TERM, data);
    let mut hard_state = store.index().hard_state().clone();
    (hard_state.term, hard_state.commit) = (TERM, commit);
    batch.hard_state = Some(hard_state);
    store.write(batch).unwrap();
}

#[test]
fn what_is_left_is_told_kept_and_goes_on_in_the_next_epoch() {
    let (mut fleet, mut store) = Fleet::left();
    let applied = store.index().last_seq();
    let (index, bytes) = fleet.project(11);
    append(&mut store, index, bytes, index);
    // Of these nobody who is left can tell whether they are committed.
    for number in [12, 13] {
        let (next, bytes) = fleet.project(number);
        append(&mut store, next, bytes, index);
    }
    let before = store.index().clone();
    drop(store);

    let survivor = fleet.examine().unwrap();
    let found = survivor.found().clone();
    assert_eq!((found.controller, found.voted, found.voters.as_slice()), (3, true, &[1, 2, 3][..]));
    assert_eq!((found.last_seq, found.uncertain_records), (applied + 6, 4));
    assert_eq!((found.last_term, found.last_index), (TERM, index + 2));
    assert_eq!(found.given_up, [1, 2]);
    // The next one is that of the time, so that whoever goes on last is followed.
    let age = crate::handle::now().0 / 1_000_000 - found.epoch;
    assert!(age < 3600, "epoch {}", found.epoch);
    // The term's record, the recovery, and one for each that is forgotten.
    assert_eq!(found.recovered_seq, found.last_seq + 4);
    assert_eq!((found.missing_records.len(), found.missing_keys.len()), (0, 0));
    // It was a look and nothing more.
    drop(survivor);
    let identity = Identity { fleet: "demo".to_owned(), node: 3 };
    let log = fleet.config(3).data.join("log");
    assert_eq!(Store::open(&log, &identity, &Settings::default()).unwrap().index(), &before);

    let found = fleet.examine().unwrap().recover().unwrap();
    let store = Store::open(&log, &identity, &Settings::default()).unwrap();
    let at = store.index();
    assert_eq!((at.conf_state().voters.as_slice(), at.last_seq()), (&[3][..], found.recovered_seq));
    assert_eq!(at.retired().iter().copied().collect::<Vec<_>>(), [1, 2]);
    assert_eq!((at.applied(), at.hard_state().commit, at.last_index()), (index + 3, index + 3, index + 3));
    // Every record links to the one before it.
    let (state, _, _) = rebuild(&store).unwrap();
    let control = &state.control;
    assert_eq!(control.fleet.as_ref().unwrap().epoch, found.epoch);
    assert_eq!(control.voters.iter().copied().collect::<Vec<_>>(), [3]);
    assert_eq!(control.retired.iter().copied().collect::<Vec<_>>(), [1, 2, 11, 12, 13]);
    assert_eq!(control.controllers.keys().copied().collect::<Vec<_>>(), [3]);
    let bytes = store.reader().record(found.last_seq + 2).unwrap().unwrap();
    let record = stele_codec::RecordBytes::read(&bytes).unwrap().0.decode().unwrap();
    let wanted = Event::FleetRecovered { epoch: found.epoch, controller: 3, given_up: vec![1, 2] };
    assert_eq!(record.event, wanted);
    assert_eq!(record.header.reason.unwrap().plain(), Some("two disks burnt"));
    drop(store);

    // Once is enough, unless it is an older copy.
    assert!(fleet.refused().contains("votes alone"), "{}", fleet.refused());
    let restored = Survivor::examine(fleet.config(3), None, true).unwrap();
    assert!(restored.found().epoch > found.epoch);
    assert!(restored.found().given_up.is_empty());
    restored.recover().unwrap();
}

#[test]
fn only_a_controller_that_is_left_and_does_not_run_is_recovered() {
    let fleet = Fleet::of(&[1, 2, 3]);
    assert!(fleet.refused().contains("has never run"));
    drop(fleet.first_start(3));
    assert!(fleet.refused().contains("found it again"), "{}", fleet.refused());
    let log = fleet.config(3).data.join("log");
    let keep = fleet.folder.path().join("kept");
    std::fs::rename(&log, &keep).unwrap();
    assert!(fleet.refused().contains("there is no log in"), "{}", fleet.refused());
    assert!(!log.exists(), "nothing was made");
    // Another controller's log.
    drop(fleet.first_start(2));
    std::fs::rename(fleet.config(2).data.join("log"), &log).unwrap();
    assert!(fleet.refused().contains("belongs to controller 2"), "{}", fleet.refused());

    let (left, store) = Fleet::left();
    assert!(left.refused().contains("runs: stop it first"), "{}", left.refused());
    drop(store);
    left.examine().unwrap();

    let (gone, mut store) = Fleet::left();
    store.write(WriteBatch { retired: Some(vec![3]), ..WriteBatch::default() }).unwrap();
    drop(store);
    assert!(gone.refused().contains("was removed from the fleet"), "{}", gone.refused());

    let (alone, mut store) = Fleet::left();
    let conf_state = ConfState { voters: vec![3], ..ConfState::default() };
    store.write(WriteBatch { conf_state: Some(conf_state), ..WriteBatch::default() }).unwrap();
    drop(store);
    assert!(alone.refused().contains("votes alone"), "{}", alone.refused());
}

#[test]
fn keys_that_are_gone_are_named() {
    let fleet = Fleet::of(&[1, 2, 3]);
    let config = fleet.config(3);
    let keys = config.data.join("keys");
    std::fs::create_dir_all(&keys).unwrap();
    let keyring = Keyring::open(keys, read_key(&config.master_key).unwrap()).unwrap();
    keyring.keep(&keyring.make("shop/web@prod", 1).unwrap()).unwrap();
    let mut state = State::default();
    let app_env: stele_model::AppEnv = "shop/web@prod".parse().unwrap();
    for (number, version) in [(1, 1), (2, 2)] {
        let value = Sealed {
            subject: "shop/web@prod".to_owned(),
            key_version: version,
            nonce: String::new(),
            ciphertext: String::new(),
        };
        state.history.secrets.insert((app_env.clone(), "db".parse().unwrap(), number), 1, value);
    }
    let missing = vec![("shop/web@prod".to_owned(), 2)];
    assert_eq!(look_for_keys(config, &state).unwrap(), (2, missing));
}

#[test]
fn what_is_before_and_behind_missing_records_can_be_looked_at() {
    let (mut fleet, mut store) = Fleet::left();
    let mut known = vec![fleet.leader.state().clone()];
    let mut decide = |fleet: &mut Fleet| {
        fleet.ask(Command::RecordMembership {
            voters: vec![1, 2, 3],
            learners: vec![known.len() as u64 + 10],
        });
        let closed = fleet.close();
        known.push(fleet.leader.state().clone());
        closed
    };
    for _ in 0..3 {
        decide(&mut fleet);
    }
    // It gets State instead of these, and goes on from there.
    let at = fleet.leader.state().clone();
    let snapshot = Snapshot { chain: fleet.leader.chain(), state: at.clone() };
    let conf_state = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
    let head = SnapshotHead { seq: at.seq, index: fleet.index, term: TERM, conf_state, retired: Vec::new() };
    let install = Some(StoredSnapshot { head, data: snapshot.encode() });
    store.write(WriteBatch { install, sync: true, ..WriteBatch::default() }).unwrap();
    for _ in 0..3 {
        let (index, bytes, records) = decide(&mut fleet);
        append(&mut store, index, bytes, index);
        store.write(WriteBatch { records, applied: Some(index), ..WriteBatch::default() }).unwrap();
    }

    let last = fleet.leader.state();
    let past = Past::new(store.reader(), 1 << 20);
    for (number, state) in known.iter().enumerate() {
        let (found, at_time) = (past.state_at(state.seq, last), past.seq_at(state.time, last.seq));
        match number {
            // Whether a missing record is of the same time, nobody knows.
            0 => assert_eq!(found.unwrap(), *state),
            1 | 2 => assert!(matches!(found, Err(PastError::Missing(_))), "{number}"),
            // The snapshot is of the last one.
            3 => assert_eq!(found.unwrap().target, state.target),
            _ => {
                assert_eq!((found.unwrap(), at_time.unwrap()), (state.clone(), state.seq), "{number}");
                continue;
            }
        }
        assert!(matches!(at_time, Err(PastError::Missing(_))), "{number}: {at_time:?}");
    }
    let early = Time(known[0].time.0 - 1);
    assert_eq!(past.seq_at(early, last.seq).unwrap(), known[0].seq - 1);
    assert_eq!(past.seq_at(Time(u64::MAX), last.seq).unwrap(), last.seq);
}
