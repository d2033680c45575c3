//! Logs made by deciding: a leader alone, its conductor, and nodes that obey or fail.

use std::collections::BTreeMap;

use stele_codec::{Chain, StoredRecord};
use stele_ledger::{Ledger, Moment, Outcome, Submitted, system_request};
use stele_model::event::{Contacts, EnrolledNode, Holder, JoinToken, Role, Token};
use stele_model::release::EnvValue;
use stele_model::signature::PublicKey;
use stele_model::wire::{InstanceReport, Phase, Remarks, Report};
use stele_model::{
    AppEnv, Command, Digest, Event, FlatMap, Idempotency, NodeName, Release, ReleaseChoice, Request, Scope,
    Sealed, State, Time, Value, fold,
};

use crate::corpus::{self, name};

const TERM: u64 = 3;
const NODES: [(&str, &str); 3] = [("eu-1", "eu"), ("eu-2", "eu"), ("us-1", "us")];
const APPS: [&str; 3] = ["shop/web@prod", "shop/web@staging", "blog/site@prod"];

/// One thing that happens. Numbers choose among what there is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Deploy {
        app: usize,
        image: u8,
        replicas: u8,
    },
    Remove {
        app: usize,
    },
    SetConfig {
        app: usize,
        value: u8,
    },
    SetSecret {
        app: usize,
    },
    Rollback {
        app: usize,
        steps: u32,
    },
    /// Of a part of it: a region, a node, an environment, or everything but a node.
    RollbackPart {
        app: usize,
        part: usize,
        steps: u32,
    },
    /// Takes back one of the last decisions.
    Undo {
        back: usize,
    },
    Mark {
        app: usize,
        bad: bool,
    },
    Review,
    Unlatch {
        app: usize,
    },
    Conduct,
    Report {
        failing: bool,
    },
    Lose {
        node: usize,
    },
    Return {
        node: usize,
    },
    RemoveNode {
        node: usize,
    },
    DrainNode {
        node: usize,
    },
    ResumeNode {
        node: usize,
    },
    Enrol {
        node: usize,
    },
    Label {
        node: usize,
        value: u8,
    },
    Token {
        revoke: bool,
    },
    Refuse,
    Members {
        count: u64,
    },
    RecordDigest,
}

pub(crate) struct Log {
    ledger: Ledger<()>,
    /// Folds what commits, and keeps its digest up to date whenever it is asked for.
    replica: State,
    pub(crate) records: Vec<(StoredRecord, Chain)>,
    states: BTreeMap<u64, State>,
    index: u64,
    clock: u64,
    reports: u64,
    keys: u64,
}

fn app(at: usize) -> AppEnv {
    name(APPS[at % APPS.len()])
}

fn node(at: usize) -> NodeName {
    name(NODES[at % NODES.len()].0)
}

/// A small release of an app.
pub(crate) fn release(app_env: &AppEnv, image: u8, replicas: u8) -> Release {
    let mut release = corpus::release();
    release.app = app_env.app.clone();
    let services = release.services.into_iter();
    release.services =
        services.filter(|(service, _)| ["web", "worker"].contains(&service.as_str())).collect();
    for service in release.services.values_mut() {
        service.container.image.digest = Digest::of(&[b"image", &[image]]);
        service.container.files = FlatMap::new();
        // Only sometimes, so that apps without the secret, or without a free port, can be deployed too.
        if image.is_multiple_of(2) {
            service.container.ports.retain(|port| port.host.is_none());
            let env = std::mem::take(&mut service.container.env).into_iter();
            service.container.env = env.filter(|(_, value)| !matches!(value, EnvValue::Secret(_))).collect();
        }
        if let stele_model::release::Placement::Replicas { count, .. } = &mut service.placement {
            *count = u32::from(replicas);
        }
    }
    release
}

impl Log {
    pub(crate) fn new() -> Self {
        let mut log = Self {
            ledger: Ledger::new("demo", State::default(), Chain::GENESIS),
            replica: State::default(),
            records: Vec::new(),
            states: BTreeMap::new(),
            index: 1,
            clock: 1_700_000_000_000_000,
            reports: 0,
            keys: 0,
        };
        log.ledger.elected(TERM, 1);
        let now = log.now();
        assert!(log.ledger.caught_up(now));
        log.commit();
        let admin = log.token("admin", Role::Admin);
        log.ask(Command::CreateFleet { fleet: name("demo"), root: PublicKey("d4".repeat(32)), admin });
        for at in 0..NODES.len() {
            log.step(Step::Enrol { node: at });
        }
        log
    }

    pub(crate) fn state(&self) -> &State {
        self.ledger.state()
    }

    pub(crate) fn chain(&self) -> Chain {
        self.ledger.chain()
    }

    /// State's digest, hashing only what was touched since it was last asked for.
    pub(crate) fn digest(&mut self) -> Digest {
        assert_eq!(&self.replica, self.ledger.state());
        self.replica.digest()
    }

    fn now(&mut self) -> Moment {
        self.clock += 1_000;
        Moment { wall_us: self.clock, monotonic_us: self.clock }
    }

    fn token(&self, principal: &str, role: Role) -> Token {
        Token {
            principal: name(principal),
            hash: Digest::of(&[principal.as_bytes(), &self.clock.to_be_bytes()]),
            role,
            holder: Holder::Person,
            expires: Time(self.clock + 86_400_000_000),
        }
    }

    fn sealed(&mut self, app_env: &AppEnv) -> Sealed {
        self.keys += 1;
        Sealed { ciphertext: format!("{:064x}", self.keys), ..corpus::sealed(&app_env.to_string()) }
    }

    /// Asks, and commits what was decided. A refusal leaves the log as it is.
    pub(crate) fn ask(&mut self, command: Command) {
        self.keys += 1;
        // Every other request may be repeated.
        let idempotency = self.keys.is_multiple_of(2).then(|| Idempotency {
            key: format!("key-{}", self.keys),
            request: Digest::of(&[&self.keys.to_be_bytes()]),
        });
        self.request(&Request { idempotency, ..system_request(command) });
    }

    fn request(&mut self, request: &Request) {
        let past = request.command.past_seqs().into_iter();
        let past = past.filter_map(|seq| Some((seq, self.states.get(&seq)?.clone()))).collect();
        let now = self.now();
        match self.ledger.submit((), request, past, now) {
            Submitted::Waiting => self.commit(),
            Submitted::Confirm((), Outcome::Rejected(_) | Outcome::Done(_)) => {}
            other => panic!("{other:?}"),
        }
    }

    fn commit(&mut self) {
        while let Some((bytes, _)) = self.ledger.close_batch() {
            self.index += 1;
            self.ledger.proposed(self.index);
            let committed = self.ledger.commit(self.index, TERM, &bytes).unwrap();
            for record in &committed.decoded {
                fold(&mut self.replica, record);
            }
            for (_, kept) in committed.records {
                self.records.push(StoredRecord::from_bytes(&kept).unwrap());
            }
        }
        self.states.insert(self.state().seq, self.state().clone());
    }

    pub(crate) fn step(&mut self, step: Step) {
        match step {
            Step::Deploy { app: at, image, replicas } => {
                let barrier = image.is_multiple_of(5);
                let app_env = app(at);
                self.ask(Command::Deploy {
                    contacts: Some(Contacts { owner: Some("team".to_owned()), ..Contacts::default() }),
                    release: ReleaseChoice::Content {
                        release: release(&app_env, image, replicas),
                        images: FlatMap::from([(name("web"), format!("web:{image}"))]),
                    },
                    app_env,
                    again: false,
                    barrier: barrier.then(|| format!("image {image} rewrites the orders")),
                });
            }
            Step::Remove { app: at } => self.ask(Command::Remove { app_env: app(at) }),
            Step::SetConfig { app: at, value } => {
                let value = (value > 0).then(|| Value::Plain(value.to_string()));
                let variables = BTreeMap::from([("LEVEL".to_owned(), value)]);
                self.ask(Command::SetConfig { app_env: app(at), variables });
            }
            Step::SetSecret { app: at } => {
                let value = self.sealed(&app(at));
                self.ask(Command::SetSecret { app_env: app(at), name: name("database"), value });
            }
            Step::Rollback { app: at, steps } => self.roll_back(Scope::app_env(&app(at)), steps),
            Step::RollbackPart { app: at, part, steps } => self.roll_back_part(&app(at), part, steps),
            Step::Undo { back } => self.undo(back),
            Step::Mark { app: at, bad } => {
                let (scope, seq) = (Scope::app_env(&app(at)), self.state().seq);
                self.ask(Command::MarkPoint { scope, seq, bad });
            }
            Step::Review => {
                if let Some((rollback, _)) = self.state().control.reviews.get_min().cloned() {
                    let review = system_request(Command::Review { rollback });
                    self.request(&Request { principal: name("admin"), ..review });
                }
            }
            Step::Unlatch { app: at } => self.ask(Command::Unlatch { app_env: app(at) }),
            Step::Conduct => {
                for command in stele_planner::plan(self.state(), Time(self.clock)) {
                    self.ask(command);
                }
            }
            Step::Report { failing } => self.report(failing),
            Step::Lose { node: at } => {
                self.ask(Command::MarkNodes { lost: vec![node(at)], returned: Vec::new() });
            }
            Step::Return { node: at } => {
                self.ask(Command::MarkNodes { lost: Vec::new(), returned: vec![node(at)] });
            }
            Step::RemoveNode { node: at } => self.ask(Command::RemoveNode { node: node(at) }),
            Step::DrainNode { node: at } => self.ask(Command::DrainNode { node: node(at) }),
            Step::ResumeNode { node: at } => self.ask(Command::ResumeNode { node: node(at) }),
            Step::Enrol { node: at } => self.enrol(at),
            Step::Label { node: at, value } => {
                let labels = BTreeMap::from([("spot".to_owned(), value.to_string())]);
                self.ask(Command::LabelNode { node: node(at), labels });
            }
            Step::Token { revoke: true } => self.ask(Command::RevokeToken { principal: name("ci") }),
            Step::Token { revoke: false } => {
                let token = self.token("ci", Role::Deployer);
                self.ask(Command::CreateToken { token });
            }
            Step::Refuse => {
                let (action, scope) = ("deploy".to_owned(), "fleet".to_owned());
                let command = Command::RecordRefusal { action, scope, why: "it may not".to_owned() };
                self.request(&Request { principal: name("nobody"), ..system_request(command) });
            }
            Step::Members { count } => {
                self.ask(Command::RecordMembership { voters: (1..=count).collect(), learners: vec![9] });
            }
            Step::RecordDigest => self.ask(Command::RecordStateDigest),
        }
    }

    fn enrol(&mut self, at: usize) {
        let (node, region) = NODES[at % NODES.len()];
        let hash = Digest::of(&[b"join", &self.clock.to_be_bytes()]);
        let token = JoinToken {
            hash,
            node: None,
            region: name(region),
            labels: BTreeMap::new(),
            expires: Time(self.clock + 3_600_000_000),
        };
        self.ask(Command::CreateJoinToken { token });
        let node = EnrolledNode {
            name: name(node),
            region: name(region),
            labels: BTreeMap::new(),
            key: PublicKey("b2".repeat(32)),
            sealing_key: "c3".repeat(32),
            address: None,
        };
        self.ask(Command::EnrollNode { join_token: hash, node });
    }

    fn roll_back_part(&mut self, app_env: &AppEnv, part: usize, steps: u32) {
        let scope: Scope = match part % 4 {
            0 => name(&format!("{app_env},region:eu")),
            1 => name("node:eu-1"),
            2 => name("env:prod"),
            _ => name("fleet"),
        };
        let except = if part % 4 == 3 { vec![name("node:us-1")] } else { Vec::new() };
        // Points of a wide scope are those of one of its apps.
        let point = stele_model::Point::Previous(steps);
        let Ok(seq) = self.state().resolve_point(&Scope::app_env(app_env), &point) else { return };
        self.ask(Command::Rollback {
            scope,
            except,
            point: point.to_string(),
            seq,
            now: part.is_multiple_of(2),
            strict: false,
            best_effort: true,
            pass_barriers: true,
            unobtainable: Vec::new(),
        });
    }

    fn undo(&mut self, back: usize) {
        let decisions = self.records.iter().rev().map(|(stored, _)| stored.decode().unwrap());
        let mut changes = decisions.filter(|record| matches!(record.event, Event::TargetChanged { .. }));
        let Some(record) = changes.nth(back) else { return };
        let what = format!("seq:{}", record.header.seq);
        let decisions = vec![record.header.decision];
        self.ask(Command::Undo { decisions, what, now: false, pass_barriers: true });
    }

    fn roll_back(&mut self, scope: Scope, steps: u32) {
        let point = stele_model::Point::Previous(steps);
        let Ok(seq) = self.state().resolve_point(&scope, &point) else { return };
        self.ask(Command::Rollback {
            scope,
            except: Vec::new(),
            point: point.to_string(),
            seq,
            now: false,
            strict: false,
            best_effort: steps > 1,
            pass_barriers: true,
            unobtainable: Vec::new(),
        });
    }

    fn report(&mut self, failing: bool) {
        self.reports += 1;
        let mut reports = Vec::new();
        for node in self.state().control.nodes.keys() {
            let assigned = self.state().assigned.get(node).cloned().unwrap_or_default();
            let instances = assigned.instances.iter().map(|(id, to)| InstanceReport {
                id: id.clone(),
                phase: if failing { Phase::Failed } else { Phase::Healthy },
                spec_digest: Some(to.spec.clone()),
                container: Some(id.to_string().into()),
                restarts: 0,
                remarks: Remarks::of(
                    failing.then(|| "exited with 3".to_owned()),
                    failing.then_some(3),
                    Vec::new(),
                ),
            });
            reports.push(Report {
                fleet: name("demo"),
                node: node.clone(),
                boot: 1,
                number: self.reports,
                applied: self.state().assignment_version(node),
                instances: instances.collect(),
            });
        }
        self.ask(Command::Report { reports });
    }

    /// Lets conductor and nodes work until neither has anything to do.
    pub(crate) fn settle(&mut self) {
        loop {
            let before = self.state().seq;
            self.step(Step::Conduct);
            self.step(Step::Report { failing: false });
            if self.state().seq == before {
                return;
            }
        }
    }
}
