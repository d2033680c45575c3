//! A fleet in memory whose whole history is kept: requests, the planner's steps, and nodes that
//! do as they are told.

#![allow(dead_code, reason = "each test uses its part")]

pub(crate) mod changes;

use std::collections::{BTreeMap, BTreeSet};

use stele_model::event::{Contacts, EnrolledNode, Holder, JoinToken, Outcome, Role, Token};
use stele_model::ids::ServiceName;
use stele_model::release::{
    Container, EnvValue, File, Image, Order, Placement, Port, Protocol, Service, Update,
};
use stele_model::signature::PublicKey;
use stele_model::state::AssignedTo;
use stele_model::trial::{Trial, carry_on, try_out};
use stele_model::wire::{InstanceReport, Phase, Remarks, Report};
use stele_model::{
    AppEnv, Command, Context, Decision, Digest, Event, FlatMap, InstanceId, Links, NodeName, Record,
    Rejection, Release, ReleaseChoice, Request, Scope, Sealed, Seq, State, Time, Value,
};

pub(crate) fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

pub(crate) fn request(principal: &str, command: Command) -> Request {
    Request {
        principal: name(principal),
        command,
        idempotency: None,
        trace: Some(format!("{:032x}", 7)),
        cause: None,
        reason: Some(Value::Plain(format!("{principal} wants it"))),
        links: Links::default(),
        if_match: None,
    }
}

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) state: State,
    /// State after each decision.
    pub(crate) states: BTreeMap<Seq, State>,
    pub(crate) records: Vec<Record>,
    reports: u64,
    /// Images whose containers are never healthy.
    pub(crate) sick: BTreeSet<Digest>,
    /// Nodes that are heard of and tell nothing.
    pub(crate) silent: BTreeSet<NodeName>,
    /// Nodes that cannot remove anything.
    pub(crate) stuck: BTreeSet<NodeName>,
    /// Whether what they cannot remove has ended.
    pub(crate) ends: bool,
    /// What last happened to a node.
    node_event: Option<Seq>,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut state = State::default();
        state.keep_index();
        // From here on it is noted what changed, as in a controller.
        state.digest();
        let states = BTreeMap::from([(0, state.clone())]);
        let mut world = Self {
            state,
            states,
            records: Vec::new(),
            reports: 0,
            sick: BTreeSet::new(),
            silent: BTreeSet::new(),
            stuck: BTreeSet::new(),
            ends: false,
            node_event: None,
        };
        let admin = token("admin", Role::Admin, Holder::Person);
        let (fleet, root) = (name("demo"), PublicKey("00".repeat(32)));
        world.ask(&request("system", Command::CreateFleet { fleet, root, admin })).unwrap();
        for node in ["eu-1", "eu-2", "us-1", "us-2"] {
            world.enrol(node);
        }
        for (principal, holder) in [("dana", Holder::Person), ("ci", Holder::Service)] {
            let token = token(principal, Role::Deployer, holder);
            world.ask(&request("admin", Command::CreateToken { token })).unwrap();
        }
        world
    }

    pub(crate) fn enrol(&mut self, node: &str) {
        let hash = Digest::of(&[node.as_bytes(), &self.state.seq.to_le_bytes()]);
        let token = JoinToken {
            hash,
            node: None,
            region: name(&node[..2]),
            labels: BTreeMap::new(),
            expires: Time(30 * 86_400 * 1_000_000),
        };
        self.ask(&request("admin", Command::CreateJoinToken { token })).unwrap();
        let node = EnrolledNode {
            name: name(node),
            region: name("elsewhere"),
            labels: BTreeMap::new(),
            key: PublicKey("11".repeat(32)),
            sealing_key: "22".repeat(32),
            address: None,
        };
        self.ask(&request("system", Command::EnrollNode { join_token: hash, node })).unwrap();
        self.node_event = Some(self.state.seq);
    }

    /// Gives a node the label that [`Place::Ssd`] asks for, or takes it away.
    pub(crate) fn label(&mut self, node: &str, ssd: bool) {
        let labels = ssd.then(|| ("disk".to_owned(), "ssd".to_owned())).into_iter().collect();
        self.ask(&request("admin", Command::LabelNode { node: name(node), labels })).unwrap();
        self.node_event = Some(self.state.seq);
    }

    /// Marks a node as not heard of, or as back.
    pub(crate) fn lose_or_return(&mut self, node: &str) {
        let (node, mut lost, mut returned) = (name(node), Vec::new(), Vec::new());
        if self.state.is_reachable(&node) {
            lost.push(node);
        } else {
            returned.push(node);
        }
        self.ask(&request("system", Command::MarkNodes { lost, returned })).unwrap();
        self.node_event = Some(self.state.seq);
    }

    /// Drains a node, or has it take something again.
    pub(crate) fn drain_or_resume(&mut self, node: &str) {
        let node: NodeName = name(node);
        let is_drained = self.state.is_drained(&node);
        let command = if is_drained { Command::ResumeNode { node } } else { Command::DrainNode { node } };
        self.ask(&request("admin", command)).unwrap();
        self.node_event = Some(self.state.seq);
    }

    pub(crate) fn remove_node(&mut self, node: &str) {
        self.ask(&request("admin", Command::RemoveNode { node: name(node) })).unwrap();
        self.node_event = Some(self.state.seq);
    }

    /// Has a request decided; its decision, if anything had to change.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<Option<Decision>, Rejection> {
        let past = request.command.past_seqs().into_iter().map(|seq| (seq, self.states[&seq].clone()));
        let context = Context { now: self.state.time, past: past.collect() };
        let trial = try_out(&self.state, request, &context)?;
        let decision = trial.records.first().map(|record| record.header.decision);
        self.keep(trial);
        Ok(decision)
    }

    fn keep(&mut self, trial: Trial) {
        self.records.extend(trial.records);
        self.state = trial.after;
        self.states.insert(self.state.seq, self.state.clone());
    }

    pub(crate) fn dana(&mut self, command: Command) -> Result<Option<Decision>, Rejection> {
        self.ask(&request("dana", command))
    }

    /// Lets the planner and the nodes work until nothing moves; the planner's commands.
    pub(crate) fn settle(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        for _ in 0..1000 {
            let Some(command) = self.look() else {
                let before = self.state.seq;
                self.report();
                if self.state.seq == before {
                    return commands;
                }
                continue;
            };
            commands.push(command);
        }
        panic!("it never settles");
    }

    /// Has the planner's next command decided, if there is one.
    pub(crate) fn look(&mut self) -> Option<Command> {
        let command = stele_planner::plan(&self.state, self.state.time).into_iter().next()?;
        let cause = stele_planner::cause(&self.state, &command).or(self.node_event);
        let request = Request { cause, reason: None, ..request("system", command.clone()) };
        self.ask(&request).unwrap();
        Some(command)
    }

    pub(crate) fn pass(&mut self, seconds: u64) {
        self.state.time = Time(self.state.time.0 + seconds * 1_000_000);
    }

    /// Lets the time pass in which an instance has to become healthy.
    pub(crate) fn pass_the_deadline(&mut self) {
        self.pass(61);
        self.settle();
    }

    /// Another controller leads.
    pub(crate) fn begin_term(&mut self) {
        let term = self.state.history.term + 1;
        let event = Event::TermStarted { term, controller: 1 };
        let command = Command::Report { reports: Vec::new() };
        let trial = carry_on(&self.state, &request("system", command), vec![event], self.state.time);
        self.keep(trial);
    }

    /// How the newest deployment of an app ended.
    pub(crate) fn ended(&self, app_env: &str) -> Option<Outcome> {
        let (_, deployment) = self.state.latest_deployment(&name(app_env)).unwrap();
        deployment.finished.as_ref().map(|(_, _, outcome)| outcome.clone())
    }

    /// Every node that is heard of does what it was told and says so.
    pub(crate) fn report(&mut self) {
        self.reports += 1;
        let nodes = self.state.control.nodes.keys().filter(|node| self.state.is_reachable(node));
        let nodes = nodes.filter(|node| !self.silent.contains(*node));
        let reports = nodes.map(|node| {
            let assigned = self.state.assigned.get(node).cloned().unwrap_or_default();
            let is_sick = |to: &AssignedTo, service: &ServiceName| {
                let record = &self.state.history.releases.get(&to.revision.release).unwrap();
                self.sick.contains(&record.release.services[service].container.image.digest)
            };
            let instances = assigned.instances.iter().map(|(id, to)| InstanceReport {
                id: id.clone(),
                phase: if is_sick(to, &id.slot.service) { Phase::Unhealthy } else { Phase::Healthy },
                spec_digest: Some(to.spec.clone()),
                container: None,
                restarts: 0,
                remarks: None,
            });
            let mut instances: Vec<_> = instances.collect();
            if self.stuck.contains(node) {
                let known =
                    self.state.observed.get(node).into_iter().flat_map(|seen| seen.instances.values());
                let stays = known.filter(|known| !assigned.instances.contains_key(&known.id));
                let busy = "cannot be removed: the device is busy".to_owned();
                instances.extend(stays.map(|known| InstanceReport {
                    phase: if self.ends { Phase::Completed } else { known.phase },
                    remarks: Remarks::of(Some(busy.clone()), None, Vec::new()),
                    ..InstanceReport::clone(known)
                }));
            }
            Report {
                fleet: name("demo"),
                node: node.clone(),
                boot: 1,
                number: self.reports,
                applied: self.state.assignment_version(node),
                instances,
            }
        });
        let command = Command::Report { reports: reports.collect() };
        self.ask(&request("system", command)).unwrap();
    }

    /// A node tells how one of its instances is.
    pub(crate) fn tell(&mut self, node: &NodeName, instance: &InstanceId, phase: Phase) {
        self.reports += 1;
        let mut seen: Vec<_> =
            self.state.observed[node].instances.values().map(|told| InstanceReport::clone(told)).collect();
        seen.iter_mut().filter(|told| told.id == *instance).for_each(|told| told.phase = phase);
        let report = Report {
            fleet: name("demo"),
            node: node.clone(),
            boot: 1,
            number: self.reports,
            applied: self.state.assignment_version(node),
            instances: seen,
        };
        self.ask(&request("system", Command::Report { reports: vec![report] })).unwrap();
    }

    pub(crate) fn undo(&mut self, decisions: &[Decision]) -> Result<Option<Decision>, Rejection> {
        self.dana(undo(decisions))
    }

    pub(crate) fn intent(&self, app_env: &str) -> stele_model::event::TargetDigest {
        self.state.target_digest(&Scope::app_env(&name(app_env)))
    }
}

/// The digest of the image of a [`Spec`].
pub(crate) fn image_digest(image: u8) -> Digest {
    Digest::of(&[&[image]])
}

pub(crate) fn undo(decisions: &[Decision]) -> Command {
    Command::Undo { decisions: decisions.to_vec(), what: "it".to_owned(), now: false, pass_barriers: false }
}

fn token(principal: &str, role: Role, holder: Holder) -> Token {
    let hash = Digest::of(&[principal.as_bytes()]);
    Token { principal: name(principal), hash, role, holder, expires: Time(30 * 86_400 * 1_000_000) }
}

/// Where a release's web service runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Place {
    /// So many, anywhere.
    #[default]
    Anywhere,
    /// So many, on nodes with an ssd.
    Ssd,
    /// One on every node.
    Everywhere,
    /// One on every node with an ssd.
    EverySsd,
}

/// A release of one or two services, with what tests vary.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spec {
    pub(crate) image: u8,
    pub(crate) replicas: u32,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) file: Option<String>,
    pub(crate) cache: bool,
    pub(crate) secret: bool,
    pub(crate) place: Place,
    /// Published on the node.
    pub(crate) port: Option<u16>,
}

impl Spec {
    pub(crate) fn new(image: u8, replicas: u32) -> Self {
        Self { image, replicas, ..Self::default() }
    }

    pub(crate) fn with_env(mut self, key: &str, value: &str) -> Self {
        self.env.insert(key.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn release(&self, app_env: &AppEnv) -> Release {
        let service = |image: u8, count: u32| Service {
            container: Container::new(Image {
                repository: "registry.example/shop".to_owned(),
                digest: image_digest(image),
            }),
            placement: Placement::Replicas { count, nodes: name("") },
            update: Update { max_unavailable: 1, order: Order::StartFirst, deadline_ms: 60_000 },
        };
        let mut web = service(self.image, self.replicas);
        let count = self.replicas;
        web.placement = match self.place {
            Place::Anywhere => Placement::Replicas { count, nodes: name("") },
            Place::Ssd => Placement::Replicas { count, nodes: name("disk=ssd") },
            Place::Everywhere => Placement::Every { nodes: name("") },
            Place::EverySsd => Placement::Every { nodes: name("disk=ssd") },
        };
        let protocol = Protocol::Tcp;
        web.container.ports =
            self.port.map(|port| Port { container: port, host: Some(port), protocol }).into_iter().collect();
        for (key, value) in &self.env {
            web.container.env.insert(key.clone(), EnvValue::Value(Value::Plain(value.clone())));
        }
        if self.secret {
            web.container.env.insert("PASSWORD".to_owned(), EnvValue::Secret(name("db")));
        }
        if let Some(text) = &self.file {
            let content = EnvValue::Value(Value::Plain(text.clone()));
            web.container.files.insert("/etc/web.conf".to_owned(), File { content, mode: 0o644 });
        }
        let mut services = FlatMap::from([(name("web"), web)]);
        if self.cache {
            services.insert(name("cache"), service(200, 1));
        }
        Release { app: app_env.app.clone(), services }
    }

    pub(crate) fn deploy(&self, app_env: &str) -> Command {
        let app_env: AppEnv = name(app_env);
        let release = self.release(&app_env);
        let images = FlatMap::from([(name("web"), format!("registry.example/shop:{}", self.image))]);
        Command::Deploy {
            app_env,
            contacts: Some(Contacts::default()),
            release: ReleaseChoice::Content { release, images },
            again: false,
            barrier: None,
        }
    }
}

pub(crate) fn set_config(app_env: &str, key: &str, value: Option<&str>) -> Command {
    let value = value.map(|text| Value::Plain(text.to_owned()));
    Command::SetConfig { app_env: name(app_env), variables: BTreeMap::from([(key.to_owned(), value)]) }
}

pub(crate) fn set_secret(app_env: &str, text: &str) -> Command {
    let value =
        Sealed { subject: app_env.to_owned(), key_version: 1, nonce: "00".repeat(24), ciphertext: hex(text) };
    Command::SetSecret { app_env: name(app_env), name: name("db"), value }
}

fn hex(text: &str) -> String {
    text.bytes()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|it| char::from_digit(it.into(), 16))
        .collect()
}

pub(crate) fn rollback(scope: &str, seq: Seq) -> Command {
    Command::Rollback {
        scope: name(scope),
        except: Vec::new(),
        point: format!("seq:{seq}"),
        seq,
        now: false,
        strict: false,
        best_effort: false,
        pass_barriers: false,
        unobtainable: Vec::new(),
    }
}
