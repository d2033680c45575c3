//! A leader, a follower and obedient nodes, without any I/O.

use std::collections::BTreeMap;

use stele_codec::{Chain, StoredRecord, Verifier};
use stele_ledger::{Ledger, Moment, Outcome, Submitted, system_request};
use stele_model::event::{Contacts, EnrolledNode, Holder, JoinToken, Role, Token};
use stele_model::release::{Container, Image, Order, Placement, Port, Protocol, Service, Update};
use stele_model::signature::PublicKey;
use stele_model::wire::{InstanceReport, Phase, Remarks, Report};
use stele_model::{
    Answer, AppEnv, Command, Digest, FlatMap, Links, NodeName, Record, Rejection, Release, ReleaseChoice,
    Request, Scope, State, Time,
};

pub(crate) const LEADER: u64 = 1;
pub(crate) const TERM: u64 = 7;

pub(crate) struct World {
    pub(crate) leader: Ledger<u64>,
    pub(crate) follower: Ledger<u64>,
    pub(crate) records: Vec<(StoredRecord, Record)>,
    pub(crate) states: BTreeMap<u64, State>,
    answers: BTreeMap<u64, Outcome>,
    index: u64,
    clock: u64,
    waiter: u64,
    reports: u64,
    /// Nodes whose containers never become healthy.
    pub(crate) broken: Vec<NodeName>,
    /// Everything runs and nothing is healthy.
    pub(crate) unwell: bool,
    /// Slots whose containers run and are not healthy.
    pub(crate) unwell_slots: Vec<String>,
}

pub(crate) fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

impl World {
    pub(crate) fn new() -> Self {
        let ledger = || Ledger::new("demo", State::default(), Chain::GENESIS);
        let mut world = Self {
            leader: ledger(),
            follower: ledger(),
            records: Vec::new(),
            states: BTreeMap::new(),
            answers: BTreeMap::new(),
            index: 1,
            clock: 1_000_000_000,
            waiter: 0,
            reports: 0,
            broken: Vec::new(),
            unwell: false,
            unwell_slots: Vec::new(),
        };
        world.leader.elected(TERM, LEADER);
        let now = world.now();
        assert!(world.leader.caught_up(now));
        world.replicate();
        let admin = world.token("admin", Role::Admin, Holder::Person);
        world.system(Command::CreateFleet { fleet: name("demo"), root: PublicKey("00".repeat(32)), admin });
        for (node, region) in
            [("eu-1", "eu"), ("eu-2", "eu"), ("us-1", "us"), ("us-2", "us"), ("ap-1", "ap"), ("ap-2", "ap")]
        {
            world.enrol(node, region);
        }
        for (principal, role, holder) in [
            ("dana", Role::Deployer, Holder::Person),
            ("ci", Role::Deployer, Holder::Service),
            ("ada", Role::Auditor, Holder::Person),
        ] {
            let token = world.token(principal, role, holder);
            world.ask("admin", Command::CreateToken { token }).unwrap();
        }
        world
    }

    pub(crate) fn now(&mut self) -> Moment {
        self.clock += 1000;
        Moment { wall_us: self.clock, monotonic_us: self.clock }
    }

    pub(crate) fn pass(&mut self, seconds: u64) {
        self.clock += seconds * 1_000_000;
    }

    fn token(&self, principal: &str, role: Role, holder: Holder) -> Token {
        Token {
            principal: name(principal),
            hash: Digest::of(&[principal.as_bytes()]),
            role,
            holder,
            expires: Time(self.clock + 30 * 86_400 * 1_000_000),
        }
    }

    pub(crate) fn enrol(&mut self, node: &str, region: &str) {
        let hash = Digest::of(&[b"join", node.as_bytes()]);
        let token = JoinToken {
            hash,
            node: None,
            region: name(region),
            labels: BTreeMap::new(),
            expires: Time(self.clock + 3_600_000_000),
        };
        self.ask("admin", Command::CreateJoinToken { token }).unwrap();
        let node = EnrolledNode {
            name: name(node),
            region: name("elsewhere"),
            labels: BTreeMap::new(),
            key: PublicKey("11".repeat(32)),
            sealing_key: "22".repeat(32),
            address: None,
        };
        self.system(Command::EnrollNode { join_token: hash, node });
    }

    pub(crate) fn state(&self) -> &State {
        self.leader.state()
    }

    /// Asks as somebody, commits, and returns the answer.
    pub(crate) fn ask(&mut self, principal: &str, command: Command) -> Result<Answer, Rejection> {
        let request = Request { principal: name(principal), ..system_request(command) };
        self.request(&request)
    }

    pub(crate) fn request(&mut self, request: &Request) -> Result<Answer, Rejection> {
        let past = request.command.past_seqs().into_iter();
        let past: BTreeMap<_, _> = past.map(|seq| (seq, self.states[&seq].clone())).collect();
        self.waiter += 1;
        let now = self.now();
        let outcome = match self.leader.submit(self.waiter, request, past, now) {
            Submitted::Waiting => {
                assert_eq!(self.replicate(), 1, "one request, one entry");
                self.answers.remove(&self.waiter).expect("it was answered when it committed")
            }
            Submitted::Confirm(_, outcome) | Submitted::Answer(_, outcome) => outcome,
        };
        match outcome {
            Outcome::Done(answer) => Ok(answer),
            Outcome::Rejected(rejection) => Err(rejection),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn system(&mut self, command: Command) -> Answer {
        self.request(&system_request(command)).unwrap()
    }

    /// Commits what is decided on both replicas, which must agree in everything.
    fn replicate(&mut self) -> usize {
        let mut entries = 0;
        while let Some((bytes, _)) = self.leader.close_batch() {
            self.index += 1;
            self.leader.proposed(self.index);
            let own = self.leader.commit(self.index, TERM, &bytes).unwrap();
            let other = self.follower.commit(self.index, TERM, &bytes).unwrap();
            assert_eq!(own.records, other.records);
            assert_eq!(own.decoded, other.decoded);
            for ((_, kept), record) in own.records.iter().zip(own.decoded) {
                self.records.push((StoredRecord::from_bytes(kept).unwrap().0, record));
            }
            self.answers.extend(own.answers);
            self.states.insert(self.leader.state().seq, self.leader.state().clone());
            entries += 1;
        }
        assert_eq!(self.leader.state(), self.follower.state());
        assert_eq!(self.leader.chain(), self.follower.chain());
        entries
    }

    /// Lets conductor and nodes work until nothing moves any more.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            let now = Time(self.clock);
            let commands = stele_planner::plan(self.state(), now);
            if !commands.is_empty() {
                for command in commands {
                    self.system(command);
                }
                continue;
            }
            if !self.report() {
                return;
            }
        }
        panic!("it never settles");
    }

    /// One look of the conductor, or else one report of the nodes.
    pub(crate) fn advance(&mut self) {
        let now = Time(self.clock);
        let commands = stele_planner::plan(self.state(), now);
        if commands.is_empty() {
            self.report();
        }
        for command in commands {
            self.system(command);
        }
    }

    /// Every node does what it was told and says so; false when that is no news.
    pub(crate) fn report(&mut self) -> bool {
        let before = self.state().seq;
        self.reports += 1;
        let mut reports = Vec::new();
        for node in self.state().control.nodes.keys() {
            let version = self.state().assignment_version(node);
            let assigned = self.state().assigned.get(node).cloned().unwrap_or_default();
            let instances = assigned.instances.iter().map(|(id, to)| {
                let works = !self.broken.contains(node) || self.serves(id);
                InstanceReport {
                    id: id.clone(),
                    phase: match (works, self.unwell || self.unwell_slots.contains(&id.slot.to_string())) {
                        (false, _) => Phase::Failed,
                        (true, true) => Phase::Unhealthy,
                        (true, false) => Phase::Healthy,
                    },
                    spec_digest: Some(to.spec.clone()),
                    container: Some(id.to_string().into()),
                    restarts: 0,
                    remarks: Remarks::of(
                        (!works).then(|| "exited with 3".to_owned()),
                        (!works).then_some(3),
                        if works { Vec::new() } else { vec!["cannot bind".to_owned()] },
                    ),
                }
            });
            reports.push(Report {
                fleet: name("demo"),
                node: node.clone(),
                boot: 1,
                number: self.reports,
                applied: version,
                instances: instances.collect(),
            });
        }
        for reports in reports.chunks(200) {
            self.system(Command::Report { reports: reports.to_vec() });
        }
        self.state().seq != before
    }

    /// What ran before a node broke goes on running.
    fn serves(&self, id: &stele_model::InstanceId) -> bool {
        self.state()
            .observed
            .values()
            .any(|seen| seen.instances.get(id).is_some_and(|report| report.phase == Phase::Healthy))
    }

    pub(crate) fn deploy(&mut self, principal: &str, release: Release) -> Result<Answer, Rejection> {
        let command = Command::Deploy {
            app_env: shop(),
            contacts: Some(Contacts { owner: Some("team-shop".to_owned()), ..Contacts::default() }),
            release: ReleaseChoice::Content { release, images: FlatMap::new() },
            again: false,
            barrier: None,
        };
        self.ask(principal, command)
    }

    pub(crate) fn rollback(&mut self, principal: &str, point: &str) -> Result<Answer, Rejection> {
        let scope = Scope::app_env(&shop());
        let seq = self.state().resolve_point(&scope, &point.parse().unwrap())?;
        let command = Command::Rollback {
            scope,
            except: Vec::new(),
            point: point.to_owned(),
            seq,
            now: false,
            strict: false,
            best_effort: false,
            pass_barriers: false,
            unobtainable: Vec::new(),
        };
        self.ask(principal, command)
    }

    /// What runs where, as spec digests by slot, by the nodes' own word.
    pub(crate) fn running(&self) -> BTreeMap<String, (NodeName, Digest)> {
        let mut running = BTreeMap::new();
        for (node, seen) in &self.state().observed {
            for (id, report) in &seen.instances {
                let present = (node.clone(), **report.spec_digest.as_ref().unwrap());
                let twice = running.insert(id.slot.to_string(), present);
                assert_eq!(twice, None, "{} runs twice", id.slot);
            }
        }
        running
    }

    /// The whole log, verified like a stranger would.
    pub(crate) fn verify(&self) -> (State, u64) {
        let mut verifier = Verifier::new();
        for (stored, _) in &self.records {
            verifier.push(stored, None).unwrap();
        }
        let matched = verifier.digests_matched();
        let (mut state, chain) = verifier.into_parts();
        assert_eq!(chain, self.leader.chain());
        assert_eq!(&state, self.state());
        assert_eq!(state.digest(), self.state().clone().digest());
        (state, matched)
    }
}

pub(crate) fn shop() -> AppEnv {
    name("shop/web@prod")
}

pub(crate) fn links() -> Links {
    Links::default()
}

/// A release of shop/web: so many web servers of an image, and one worker for each node of eu.
pub(crate) fn release(image: &str, replicas: u32, extra: bool) -> Release {
    let service = |image: &str, placement, port: Option<u16>| Service {
        container: Container {
            ports: port
                .map(|host| Port { container: 8080, host: Some(host), protocol: Protocol::Tcp })
                .into_iter()
                .collect(),
            ..Container::new(Image {
                repository: "registry.example/shop".to_owned(),
                digest: Digest::of(&[image.as_bytes()]),
            })
        },
        placement,
        update: Update { max_unavailable: 1, order: Order::StartFirst, deadline_ms: 60_000 },
    };
    let count = |count| Placement::Replicas { count, nodes: name("") };
    let mut services = FlatMap::from([
        (name("web"), service(image, count(replicas), Some(8080))),
        (name("worker"), service("worker", Placement::Every { nodes: name("region=eu") }, None)),
    ]);
    if extra {
        services.insert(name("cache"), service("cache", count(1), None));
    }
    Release { app: name("shop/web"), services }
}
