//! A cluster in one thread: replicas, a network that loses, repeats and
//! reorders, crashes at any step, and an oracle that sees every applied entry.
//! Everything comes from one seed.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, dead_code, unreachable_pub)]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stele_consensus::recovery::{Held, Takeover, Unapplied, take_over, unapplied};
use stele_consensus::{
    Applied, Committed, CommittedKind, ConfState, Config, Driver, Handler, HandlerError, LogStore,
    MembershipChange, Message, Role, RoleChange, Span, StoredSnapshot, bootstrap,
};

/// Where the stores of a cluster come from.
pub trait Disks {
    type Store: LogStore;
    /// The store of a replica that never ran before.
    fn create(&mut self, id: u64) -> Self::Store;
    /// What is left of a store after a crash.
    fn crash(&mut self, id: u64, store: Self::Store, rng: &mut StdRng) -> Self::Store;
    fn records(store: &Self::Store) -> BTreeMap<u64, Vec<u8>>;
    fn latest_snapshot(store: &Self::Store) -> Option<StoredSnapshot>;
    fn gaps(store: &Self::Store) -> Vec<Span>;
}

/// What all replicas together must agree on.
#[derive(Default)]
pub struct Oracle {
    entries: BTreeMap<u64, (u64, CommittedKind)>,
    records: BTreeMap<u64, Vec<u8>>,
    digests: BTreeMap<u64, u64>,
    leaders: BTreeMap<u64, u64>,
    /// Everything that happened, for comparing two runs of one seed.
    pub trace: Vec<String>,
    /// Snapshots installed.
    pub restores: u64,
}

fn mix(digest: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(digest ^ 0x9e37_79b9_7f4a_7c15, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(7)
    })
}

/// A state machine whose state is the digest of all its records.
pub struct App {
    id: u64,
    oracle: Rc<RefCell<Oracle>>,
    pub seq: u64,
    pub digest: u64,
    pub applied: u64,
    pub outbox: Vec<Message>,
    pub reads: Vec<(Vec<u8>, u64)>,
    /// Fails that many applications from now.
    pub fail_in: Option<u64>,
}

impl App {
    fn new(id: u64, oracle: &Rc<RefCell<Oracle>>) -> Self {
        Self {
            id,
            oracle: Rc::clone(oracle),
            seq: 0,
            digest: 0,
            applied: 0,
            outbox: Vec::new(),
            reads: Vec::new(),
            fail_in: None,
        }
    }

    /// Rebuilds the state the way a controller does: newest snapshot, then the
    /// records after it.
    fn rebuild<D: Disks>(&mut self, store: &D::Store) {
        if let Some(snapshot) = D::latest_snapshot(store) {
            self.load(&snapshot);
        }
        for (seq, record) in D::records(store).split_off(&(self.seq + 1)) {
            assert_eq!(seq, self.seq + 1, "replica {} has a hole in its records", self.id);
            self.fold(&record);
        }
        self.applied = store.index().applied();
        assert_eq!(self.seq, store.index().last_seq(), "replica {} lost records", self.id);
    }

    fn load(&mut self, snapshot: &StoredSnapshot) {
        self.seq = snapshot.head.seq;
        self.digest = match <[u8; 8]>::try_from(snapshot.data.as_slice()) {
            Ok(bytes) => u64::from_be_bytes(bytes),
            Err(_) => 0,
        };
    }

    fn fold(&mut self, record: &[u8]) {
        self.seq += 1;
        self.digest = mix(self.digest, record);
        let mut oracle = self.oracle.borrow_mut();
        let known = oracle.digests.entry(self.seq).or_insert(self.digest);
        assert_eq!(*known, self.digest, "replica {} has another history at {}", self.id, self.seq);
    }
}

impl Handler for App {
    fn send(&mut self, messages: Vec<Message>) {
        self.outbox.extend(messages);
    }

    fn role(&mut self, change: RoleChange) {
        let mut oracle = self.oracle.borrow_mut();
        oracle.trace.push(format!("{} {change:?}", self.id));
        if change.role == Role::Leader {
            let leader = *oracle.leaders.entry(change.term).or_insert(self.id);
            assert_eq!(leader, self.id, "two leaders in term {}", change.term);
        }
    }

    fn restore(&mut self, snapshot: &StoredSnapshot) -> Result<(), HandlerError> {
        assert!(snapshot.head.index >= self.applied, "a snapshot took replica {} back", self.id);
        self.load(snapshot);
        self.applied = snapshot.head.index;
        let mut oracle = self.oracle.borrow_mut();
        oracle.restores += 1;
        oracle.trace.push(format!("{} restored {}", self.id, snapshot.head.index));
        if self.seq > 0 {
            assert_eq!(oracle.digests.get(&self.seq), Some(&self.digest));
        }
        Ok(())
    }

    fn apply(&mut self, entry: Committed) -> Result<Applied, HandlerError> {
        if let Some(left) = &mut self.fail_in {
            if *left == 0 {
                return Err("crashed while applying".into());
            }
            *left -= 1;
        }
        assert_eq!(entry.index, self.applied + 1, "replica {} skipped an entry", self.id);
        self.applied = entry.index;
        {
            let mut oracle = self.oracle.borrow_mut();
            oracle.trace.push(format!("{} applied {}@{}", self.id, entry.index, entry.term));
            let known = oracle.entries.entry(entry.index).or_insert_with(|| (entry.term, entry.kind.clone()));
            assert_eq!(known.0, entry.term, "replica {} differs at {}", self.id, entry.index);
            assert_eq!(known.1, entry.kind, "replica {} differs at {}", self.id, entry.index);
        }
        let mut applied = Applied::default();
        if let CommittedKind::Normal(data) = entry.kind {
            self.fold(&data);
            let mut oracle = self.oracle.borrow_mut();
            let known = oracle.records.entry(self.seq).or_insert_with(|| data.clone());
            assert_eq!(*known, data);
            applied.records.push((self.seq, data));
        }
        Ok(applied)
    }

    fn applied(&mut self, index: u64) {
        assert_eq!(index, self.applied);
    }

    fn read(&mut self, context: Vec<u8>, index: u64) {
        self.reads.push((context, index));
    }
}

pub struct Replica<S: LogStore> {
    pub driver: Option<Driver<S>>,
    /// What a crash left, while the replica is down.
    pub parked: Option<S>,
    pub app: App,
}

/// How hostile the world is.
#[derive(Clone, Copy)]
pub struct Weather {
    pub lose: f64,
    pub repeat: f64,
    pub max_delay: u64,
}

pub const CALM: Weather = Weather { lose: 0.0, repeat: 0.0, max_delay: 1 };
pub const STORM: Weather = Weather { lose: 0.1, repeat: 0.05, max_delay: 6 };

pub struct Cluster<D: Disks> {
    pub disks: D,
    pub rng: StdRng,
    seed: u64,
    pub replicas: BTreeMap<u64, Replica<D::Store>>,
    network: BTreeMap<(u64, u64), Message>,
    sent: u64,
    pub now: u64,
    pub weather: Weather,
    pub isolated: BTreeSet<u64>,
    pub oracle: Rc<RefCell<Oracle>>,
    /// Proposals whose entry was applied with its index and term.
    pub acknowledged: Vec<Vec<u8>>,
    waiting: Vec<(u64, u64, u64, Vec<u8>)>,
}

fn config(id: u64, seed: u64) -> Config {
    let mut config = Config::new(id);
    config.snapshot_retry_ticks = 40;
    config.max_append_bytes = 256;
    config.max_inflight_appends = 8;
    // Replicas that tell a commit at once and such that do not live together.
    config.lets_commits_ride = !(seed + id).is_multiple_of(5);
    config.election_timeout = Some(Box::new(move |id, term| {
        let hash = mix(seed, &[id.to_be_bytes(), term.to_be_bytes()].concat());
        10 + (hash % 10) as usize
    }));
    config
}

impl<D: Disks> Cluster<D> {
    /// A cluster founded by replicas 1 to `voters`.
    pub fn new(disks: D, voters: u64, seed: u64) -> Self {
        let mut cluster = Self {
            disks,
            rng: StdRng::seed_from_u64(seed),
            seed,
            replicas: BTreeMap::new(),
            network: BTreeMap::new(),
            sent: 0,
            now: 0,
            weather: CALM,
            isolated: BTreeSet::new(),
            oracle: Rc::default(),
            acknowledged: Vec::new(),
            waiting: Vec::new(),
        };
        let ids: Vec<u64> = (1..=voters).collect();
        for id in &ids {
            let mut store = cluster.disks.create(*id);
            bootstrap(&mut store, &ids, Vec::new()).unwrap();
            cluster.add(*id, store);
        }
        cluster
    }

    /// Starts a replica that is in no configuration yet.
    pub fn join(&mut self, id: u64) {
        let store = self.disks.create(id);
        self.add(id, store);
    }

    fn add(&mut self, id: u64, store: D::Store) {
        let app = App::new(id, &self.oracle);
        self.replicas.insert(id, Replica { driver: None, parked: Some(store), app });
        self.restart(id);
    }

    pub fn crash(&mut self, id: u64) {
        let replica = self.replicas.get_mut(&id).unwrap();
        if let Some(driver) = replica.driver.take() {
            let store = self.disks.crash(id, driver.into_store(), &mut self.rng);
            replica.parked = Some(store);
            self.oracle.borrow_mut().trace.push(format!("{id} crashed"));
        }
    }

    pub fn restart(&mut self, id: u64) {
        let replica = self.replicas.get_mut(&id).unwrap();
        // Who knows that it was removed does not come back.
        let removed = |store: &mut D::Store| store.index().retired().contains(&id);
        if let Some(store) = replica.parked.take_if(|store| !removed(store)) {
            replica.app = App::new(id, &self.oracle);
            replica.app.rebuild::<D>(&store);
            replica.driver = Some(Driver::new(config(id, self.seed), store).unwrap());
        }
    }

    /// Makes a replica that is down the only voter. What it had not applied becomes records as applying it would
    /// have made them. Answers what that was.
    pub fn take_over(&mut self, id: u64, given_up: &[u64], word: &[u8]) -> Vec<Unapplied> {
        let store = self.replicas.get_mut(&id).unwrap().parked.as_mut().unwrap();
        let tail = unapplied(store).unwrap();
        let data = tail.iter().filter_map(|entry| match &entry.held {
            Held::Data(data) => Some(data.clone()),
            _ => None,
        });
        let records: Vec<_> = (store.index().last_seq() + 1..).zip(data.chain([word.to_vec()])).collect();
        // Nobody applies them again.
        self.oracle.borrow_mut().records.extend(records.iter().cloned());
        let takeover = Takeover { id, given_up: given_up.to_vec(), data: word.to_vec(), records };
        take_over(store, takeover).unwrap();
        tail
    }

    pub fn driver(&mut self, id: u64) -> &mut Driver<D::Store> {
        self.replicas.get_mut(&id).unwrap().driver.as_mut().unwrap()
    }

    pub fn running(&self) -> Vec<u64> {
        let up = self.replicas.iter().filter(|(_, replica)| replica.driver.is_some());
        up.map(|(id, _)| *id).collect()
    }

    /// The leader of the highest term.
    pub fn leader(&self) -> Option<u64> {
        let drivers = self.replicas.values().filter_map(|replica| replica.driver.as_ref());
        let leaders = drivers.map(Driver::status).filter(|s| s.role == Role::Leader);
        leaders.max_by_key(|status| status.term).map(|status| status.id)
    }

    pub fn propose(&mut self, id: u64, data: &[u8]) -> bool {
        match self.driver(id).propose(data.to_vec()) {
            Ok((index, term)) => {
                self.waiting.push((id, index, term, data.to_vec()));
                true
            }
            Err(_) => false,
        }
    }

    /// One tick of every clock, and all that follows from it.
    pub fn step(&mut self) {
        self.now += 1;
        for id in self.running() {
            if self.driver(id).tick().is_err() {
                self.crash(id);
            }
        }
        self.settle();
        let later = self.network.split_off(&(self.now + 1, 0));
        for (_, message) in std::mem::replace(&mut self.network, later) {
            self.deliver(message);
        }
        self.settle();
    }

    /// Lets everything arrive, and what follows from it, while every clock stands.
    pub fn exchange(&mut self) {
        loop {
            self.settle();
            if self.network.is_empty() {
                return;
            }
            for (_, message) in std::mem::take(&mut self.network) {
                self.deliver(message);
            }
        }
    }

    pub fn run(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.step();
        }
    }

    /// Runs until something holds; fails after `ticks`.
    pub fn run_until(&mut self, what: &str, ticks: u64, holds: impl Fn(&Self) -> bool) {
        for _ in 0..ticks {
            if holds(self) {
                return;
            }
            self.step();
            for id in self.running() {
                self.keep_house(id, false);
            }
        }
        panic!("seed {}: never within {ticks} ticks: {what}", self.seed);
    }

    fn deliver(&mut self, message: Message) {
        let (from, to) = (message.from, message.to);
        if self.isolated.contains(&from) != self.isolated.contains(&to) {
            return;
        }
        let Some(replica) = self.replicas.get_mut(&to) else { return };
        if let Some(driver) = &mut replica.driver
            && let Err(error) = driver.step(message)
        {
            let harmless = matches!(error, stele_consensus::StepError::Dropped { .. });
            assert!(harmless, "seed {}: replica {to}: {error}", self.seed);
        }
    }

    /// Works off everything that is ready, and hands messages to the network.
    pub fn settle(&mut self) {
        for id in self.running() {
            let replica = self.replicas.get_mut(&id).unwrap();
            let driver = replica.driver.as_mut().unwrap();
            let outcome = loop {
                match driver.ready(&mut replica.app) {
                    Ok(true) => {}
                    other => break other,
                }
            };
            for message in std::mem::take(&mut replica.app.outbox) {
                self.transmit(message);
            }
            if outcome.is_err() {
                self.crash(id);
            }
        }
        self.acknowledge();
    }

    fn transmit(&mut self, message: Message) {
        let copies = 1 + usize::from(self.rng.random_bool(self.weather.repeat));
        for _ in 0..copies {
            if !self.rng.random_bool(self.weather.lose) {
                let due = self.now + self.rng.random_range(1..=self.weather.max_delay);
                self.sent += 1;
                self.network.insert((due, self.sent), message.clone());
            }
        }
    }

    fn acknowledge(&mut self) {
        let oracle = self.oracle.borrow();
        self.waiting.retain(|(id, index, term, data)| {
            let replica = &self.replicas[id];
            if replica.app.applied < *index {
                return true;
            }
            // Applied here: it is ours if and only if index and term agree.
            if let Some((found, CommittedKind::Normal(bytes))) = oracle.entries.get(index)
                && found == term
            {
                assert_eq!(bytes, data);
                self.acknowledged.push(data.clone());
            }
            false
        });
    }

    /// What a controller does beside raft: snapshots, compaction, backfill.
    pub fn keep_house(&mut self, id: u64, compact: bool) {
        let replica = self.replicas.get_mut(&id).unwrap();
        let Some(driver) = &mut replica.driver else { return };
        if driver.snapshot_wanted() || compact {
            let (seq, digest) = (replica.app.seq, replica.app.digest);
            driver.create_snapshot(seq, digest.to_be_bytes().to_vec()).unwrap();
        }
        if compact {
            let through = driver.status().applied;
            driver.compact(through).unwrap();
        }
        let Some((from, to)) = D::gaps(driver.store()).first().copied() else { return };
        let to = to.min(from + 16);
        let wanted: Vec<u64> = (from..=to).collect();
        let found = self.running().into_iter().find_map(|other| {
            let records = D::records(self.replicas[&other].driver.as_ref().unwrap().store());
            let found: Option<Vec<_>> =
                wanted.iter().map(|seq| Some((*seq, records.get(seq)?.clone()))).collect();
            found
        });
        if let Some(records) = found {
            self.driver(id).backfill(records).unwrap();
        }
    }

    /// Ends all faults and waits until every member of the configuration agrees,
    /// history included.
    pub fn heal_and_converge(&mut self) {
        self.weather = CALM;
        self.isolated.clear();
        for id in self.replicas.keys().copied().collect::<Vec<_>>() {
            self.replicas.get_mut(&id).unwrap().app.fail_in = None;
            self.restart(id);
        }
        for _ in 0..3000 {
            self.step();
            for id in self.running() {
                self.keep_house(id, false);
            }
            if self.converged() {
                self.check_history();
                return;
            }
        }
        let statuses: Vec<String> = self
            .replicas
            .values()
            .map(|replica| {
                let driver = replica.driver.as_ref().unwrap();
                format!("{:?}, missing {:?}\n", driver.status(), D::gaps(driver.store()))
            })
            .collect();
        panic!("seed {}: the healed cluster never agreed:\n{}", self.seed, statuses.concat());
    }

    pub fn members(&self) -> ConfState {
        let leader = self.leader().unwrap();
        self.replicas[&leader].driver.as_ref().unwrap().status().conf_state
    }

    fn converged(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let status = self.replicas[&leader].driver.as_ref().unwrap().status();
        let members = status.conf_state.voters.iter().chain(&status.conf_state.learners);
        status.committed_in_term
            && status.last_index == status.applied
            && members.into_iter().all(|id| {
                let replica = &self.replicas[id];
                replica.app.applied == status.applied
                    && D::gaps(replica.driver.as_ref().unwrap().store()).is_empty()
            })
    }

    fn check_history(&self) {
        let oracle = self.oracle.borrow();
        let members = self.members();
        for id in members.voters.iter().chain(&members.learners) {
            let store = self.replicas[id].driver.as_ref().unwrap().store();
            let records = D::records(store);
            assert!(records == oracle.records, "seed {}: replica {id} differs", self.seed);
        }
        let written: BTreeSet<&Vec<u8>> = oracle.records.values().collect();
        for data in &self.acknowledged {
            assert!(written.contains(data), "seed {}: an acknowledged write is lost", self.seed);
        }
    }
}

/// Proposes a membership change, whichever makes sense; it may be refused.
fn change_members<D: Disks>(cluster: &mut Cluster<D>) {
    let Some(leader) = cluster.leader() else { return };
    let members = cluster.members();
    let newcomer = cluster.replicas.keys().max().unwrap() + 1;
    let change = if let Some(learner) = members.learners.first() {
        MembershipChange::Promote(*learner)
    } else if members.voters.len() > 4 {
        let at = cluster.rng.random_range(0..members.voters.len());
        MembershipChange::Remove(members.voters[at])
    } else {
        MembershipChange::AddLearner(newcomer)
    };
    let proposed = cluster.driver(leader).propose_membership(change, Vec::new());
    if proposed.is_ok() && change == MembershipChange::AddLearner(newcomer) {
        cluster.join(newcomer);
    }
}

/// Storms for `ticks`, then heals; checks safety all along and liveness at the
/// end. Answers how many writes were acknowledged.
pub fn storm<D: Disks>(cluster: &mut Cluster<D>, ticks: u64) -> usize {
    cluster.weather = STORM;
    let mut written = 0u64;
    for _ in 0..ticks {
        cluster.step();
        let ids: Vec<u64> = cluster.replicas.keys().copied().collect();
        let any = ids[cluster.rng.random_range(0..ids.len())];
        match cluster.rng.random_range(0..100) {
            0..2 => cluster.crash(any),
            2..14 => cluster.restart(any),
            14 => cluster.isolated = BTreeSet::from([any]),
            15..20 => cluster.isolated.clear(),
            20..22 => cluster.keep_house(any, true),
            22..36 => cluster.keep_house(any, false),
            36 => {
                let left = cluster.rng.random_range(0..4);
                cluster.replicas.get_mut(&any).unwrap().app.fail_in = Some(left);
            }
            37 => {
                if let Some(leader) = cluster.leader() {
                    // Refused when the target is not a voter.
                    drop(cluster.driver(leader).transfer_leader(any));
                }
            }
            38..90 => {
                if let Some(leader) = cluster.leader() {
                    written += 1;
                    cluster.propose(leader, format!("write {written}").as_bytes());
                }
            }
            _ => change_members(cluster),
        }
    }
    cluster.heal_and_converge();
    cluster.acknowledged.len()
}
