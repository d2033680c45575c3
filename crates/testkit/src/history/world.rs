//! A fleet at work: people and pipelines deploy, nodes report, things break, and everything is
//! decided as on a leader.

use std::collections::BTreeMap;

use anyhow::{Context as _, anyhow};
use stele_codec::Chain;
use stele_ledger::system_request;
use stele_model::event::{Contacts, EnrolledNode, Holder, JoinToken, Role, Token};
use stele_model::signature::PublicKey;
use stele_model::wire::{InstanceReport, Phase, Report};
use stele_model::{
    AppEnv, AppId, Command, Digest, FlatMap, FleetName, Idempotency, InstanceId, Links, NodeName,
    PrincipalId, RegionName, ReleaseChoice, Request, Scope, Sealed, Seq, State, Time, Value,
};

use super::chance::Chance;
use super::releases::{Version, release, sealed};
use super::scribe::{Scribe, Written};

/// The controller that leads, and its term.
const CONTROLLER: u64 = 1;
/// Records between two recorded State digests.
const DIGEST_INTERVAL_RECORDS: u64 = 1000;
/// Rounds a rollout may take before something must be wrong.
const ROLLOUT_ROUNDS_MAX: usize = 1000;
const REGIONS: [&str; 4] = ["ap", "eu", "sa", "us"];
const ENVIRONMENTS: [&str; 2] = ["prod", "staging"];
const PEOPLE: [&str; 4] = ["dana", "erik", "fatima", "grace"];
const YEAR_US: u64 = 365 * 24 * 3600 * 1_000_000;

/// What a fleet is like.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Its name.
    pub fleet: FleetName,
    /// Its root's public key.
    pub root: PublicKey,
    /// SHA-256 of the administrator's token.
    pub admin: Digest,
    /// How many nodes it has, spread over four regions.
    pub nodes: usize,
    /// How many apps, each in two environments, five to a project.
    pub apps: usize,
    /// When it begins.
    pub begins: Time,
    /// Between two happenings on average, in microseconds.
    pub pace_us: u64,
    /// Decides everything else.
    pub seed: u64,
}

/// The fleet, and the log it writes.
#[derive(Debug)]
pub struct World {
    shape: Shape,
    pub(crate) scribe: Scribe,
    pub(crate) chance: Chance,
    apps: Vec<AppEnv>,
    nodes: Vec<NodeName>,
    /// Of every agent: all of them start together.
    pub(crate) boot: u64,
    reports: u64,
    requests: u64,
    digest_at: Seq,
    /// The point before the last change of each app: what a rollback goes back to.
    before: BTreeMap<AppEnv, State>,
}

impl World {
    /// Founds a fleet: its nodes join and every app is deployed once.
    pub fn found(shape: Shape) -> anyhow::Result<Self> {
        let mut world = Self::new(Scribe::new(shape.begins), shape);
        world.system(Command::StartTerm { term: 1, controller: CONTROLLER })?;
        let admin = world.token("admin", world.shape.admin, Role::Admin, Holder::Person)?;
        let (fleet, root) = (world.shape.fleet.clone(), world.shape.root.clone());
        world.system(Command::CreateFleet { fleet, root, admin })?;
        world.system(Command::RecordMembership { voters: vec![CONTROLLER], learners: Vec::new() })?;
        world.make_tokens()?;
        world.grow()?;
        Ok(world)
    }

    /// Goes on with a fleet that is there, whose log was written by an earlier version of the program.
    /// What its shape says of name, root and administrator is as it was.
    pub(crate) fn upgraded(state: State, chain: Chain, shape: Shape) -> Self {
        let mut world = Self::new(Scribe::after(state, chain, shape.begins), shape);
        let state = world.scribe.state();
        world.apps = state.targeted().into_iter().cloned().collect();
        world.nodes = state.control.nodes.keys().cloned().collect();
        world.reports = state.observed.values().map(|seen| seen.number).max().unwrap_or_default();
        world.boot = state.observed.values().map(|seen| seen.boot).max().unwrap_or_default() + 1;
        world
    }

    fn new(scribe: Scribe, shape: Shape) -> Self {
        Self {
            scribe,
            chance: Chance::new(shape.seed),
            apps: Vec::new(),
            nodes: Vec::new(),
            boot: 1,
            reports: 0,
            requests: 0,
            digest_at: 0,
            before: BTreeMap::new(),
            shape,
        }
    }

    /// As many nodes join, and as many apps are deployed once, as the shape says.
    pub(crate) fn grow(&mut self) -> anyhow::Result<()> {
        for at in 0..self.shape.nodes {
            self.enrol(at)?;
        }
        let present = self.state().control.apps.len();
        for at in present..present + self.shape.apps {
            let app: AppId = format!("team-{:02}/app-{at:03}", at / 5).parse()?;
            for environment in ENVIRONMENTS {
                self.apps.push(AppEnv::new(app.clone(), environment.parse()?));
            }
        }
        self.deploy_missing()
    }

    /// Deploys those of its apps that are nowhere.
    pub(crate) fn deploy_missing(&mut self) -> anyhow::Result<()> {
        for app_env in self.apps.clone() {
            if !self.state().is_wanted(&app_env) {
                self.deploy(&app_env, Version { image: 1, replicas: 4, secret: false })?;
            }
        }
        Ok(())
    }

    /// State after everything that happened.
    pub fn state(&self) -> &State {
        self.scribe.state()
    }

    /// State's digest now.
    pub fn digest(&mut self) -> Digest {
        self.scribe.digest()
    }

    /// Its apps in their environments.
    pub fn apps(&self) -> &[AppEnv] {
        &self.apps
    }

    /// What was written since it was last taken.
    pub fn take(&mut self) -> Vec<Written> {
        self.scribe.take()
    }

    /// Lets one more thing happen.
    pub fn step(&mut self) -> anyhow::Result<()> {
        let pace = self.shape.pace_us;
        let pause = self.chance.below(2 * pace as usize) as u64;
        self.scribe.pass(pause);
        let app_env = self.apps[self.chance.below(self.apps.len())].clone();
        match self.chance.below(1000) {
            0..=24 => {
                let version = Version {
                    image: self.chance.next() % 100_000,
                    replicas: 3 + self.chance.below(3) as u32,
                    secret: false,
                };
                self.deploy(&app_env, version)?;
            }
            25..=32 => self.configure(&app_env)?,
            33..=35 => self.set_secret(&app_env)?,
            36..=37 => self.roll_back(&app_env)?,
            38..=45 => self.lose_and_find()?,
            46..=47 => self.make_tokens()?,
            48..=50 => self.refuse()?,
            51..=90 => self.label()?,
            _ => self.restart()?,
        }
        if self.state().seq >= self.digest_at + DIGEST_INTERVAL_RECORDS {
            self.digest_at = self.state().seq;
            self.system(Command::RecordStateDigest)?;
        }
        Ok(())
    }

    pub(crate) fn system(&mut self, command: Command) -> anyhow::Result<()> {
        self.scribe.ask(&system_request(command), BTreeMap::new()).map_err(|error| anyhow!("{error}"))?;
        Ok(())
    }

    /// Asks as a person or a pipeline would, with a reason and links now and then.
    pub(crate) fn ask(&mut self, principal: &str, command: Command) -> anyhow::Result<Vec<Seq>> {
        let request = self.request(principal, command)?;
        let past = match &request.command {
            Command::Rollback { seq, .. } => {
                let known = self.before.values().find(|state| state.seq == *seq);
                known.map(|state| (*seq, state.clone())).into_iter().collect()
            }
            _ => BTreeMap::new(),
        };
        let records = self.scribe.ask(&request, past).map_err(|error| anyhow!("{error}"))?;
        Ok(records.into_iter().map(|record| record.header.seq).collect())
    }

    pub(crate) fn request(&mut self, principal: &str, command: Command) -> anyhow::Result<Request> {
        self.requests += 1;
        let links = if self.chance.percent(30) {
            Links {
                ticket: Some(format!("OPS-{}", self.chance.below(5000))),
                commit: Some(self.chance.hex(20)),
                ..Links::default()
            }
        } else {
            Links::default()
        };
        Ok(Request {
            principal: principal.parse()?,
            idempotency: Some(Idempotency {
                key: self.chance.hex(16),
                request: Digest::of(&[&self.requests.to_be_bytes()]),
            }),
            trace: Some(self.chance.hex(16)),
            reason: self.chance.percent(20).then(|| Value::Plain("routine release".to_owned())),
            links,
            ..system_request(command)
        })
    }

    pub(crate) fn token(
        &self,
        principal: &str,
        hash: Digest,
        role: Role,
        holder: Holder,
    ) -> anyhow::Result<Token> {
        let expires = Time(self.scribe.now().0 + YEAR_US);
        Ok(Token { principal: principal.parse()?, hash, role, holder, expires })
    }

    pub(crate) fn make_tokens(&mut self) -> anyhow::Result<()> {
        let people = PEOPLE.into_iter().map(|name| (name, Holder::Person));
        for (name, holder) in people.chain([("ci", Holder::Service)]) {
            let hash = Digest::of(&[name.as_bytes(), self.chance.hex(8).as_bytes()]);
            let token = self.token(name, hash, Role::Deployer, holder)?;
            self.ask("admin", Command::CreateToken { token })?;
        }
        Ok(())
    }

    /// A node joins under the first name in its region that nobody has.
    pub(crate) fn enrol(&mut self, at: usize) -> anyhow::Result<NodeName> {
        let region: RegionName = REGIONS[at % REGIONS.len()].parse()?;
        let mut number = at / REGIONS.len() + 1;
        let mut name: NodeName = format!("{region}-{number}").parse()?;
        while self.state().control.nodes.contains_key(&name) {
            number += 1;
            name = format!("{region}-{number}").parse()?;
        }
        let hash = Digest::of(&[b"join", name.as_str().as_bytes(), &self.requests.to_be_bytes()]);
        let labels = BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]);
        let token = JoinToken {
            hash,
            node: Some(name.clone()),
            region: region.clone(),
            labels: labels.clone(),
            expires: Time(self.scribe.now().0 + 3_600_000_000),
        };
        self.ask("admin", Command::CreateJoinToken { token })?;
        let node = EnrolledNode {
            name: name.clone(),
            region,
            labels,
            key: PublicKey(self.chance.hex(32)),
            sealing_key: self.chance.hex(32),
            address: Some(format!("10.{}.{}.{}", at >> 16, (at >> 8) & 0xff, at & 0xff)),
        };
        self.system(Command::EnrollNode { join_token: hash, node })?;
        self.nodes.push(name.clone());
        Ok(name)
    }

    /// A node is taken out of the fleet.
    pub(crate) fn remove_node(&mut self, node: &NodeName) -> anyhow::Result<()> {
        self.nodes.retain(|present| present != node);
        self.ask("admin", Command::RemoveNode { node: node.clone() })?;
        Ok(())
    }

    pub(crate) fn person(&mut self) -> &'static str {
        PEOPLE[self.chance.below(PEOPLE.len())]
    }

    pub(crate) fn deploy(&mut self, app_env: &AppEnv, version: Version) -> anyhow::Result<()> {
        self.before.insert(app_env.clone(), self.state().clone());
        let content = release(&app_env.app, version)?;
        let images = FlatMap::from([("web".parse()?, format!("registry.example.com/{}:main", app_env.app))]);
        let command = Command::Deploy {
            app_env: app_env.clone(),
            contacts: Some(Contacts {
                owner: Some(app_env.app.project.to_string()),
                on_call: Some(format!("#{}-alerts", app_env.app.project)),
                ..Contacts::default()
            }),
            release: ReleaseChoice::Content { release: content, images },
            again: false,
            barrier: None,
        };
        let principal = if self.chance.percent(70) { "ci" } else { self.person() };
        // A latched release is refused to automation, as it should be.
        if self.ask(principal, command).is_ok() {
            self.settle(app_env)?;
        }
        Ok(())
    }

    pub(crate) fn configure(&mut self, app_env: &AppEnv) -> anyhow::Result<()> {
        self.before.insert(app_env.clone(), self.state().clone());
        let level = self.chance.below(1000).to_string();
        let variables = BTreeMap::from([
            ("FEATURE_LEVEL".to_owned(), Some(Value::Plain(level))),
            ("REGION_HINT".to_owned(), Some(Value::Plain("nearest".to_owned()))),
        ]);
        let person = self.person();
        self.ask(person, Command::SetConfig { app_env: app_env.clone(), variables })?;
        self.settle(app_env)
    }

    pub(crate) fn set_secret(&mut self, app_env: &AppEnv) -> anyhow::Result<()> {
        let value = self.seal(&app_env.to_string());
        let command = Command::SetSecret { app_env: app_env.clone(), name: "database".parse()?, value };
        let person = self.person();
        self.ask(person, command)?;
        self.settle(app_env)
    }

    /// A value sealed for a subject, under the first of its keys that is not destroyed.
    pub(crate) fn seal(&mut self, subject: &str) -> Sealed {
        let key_version = self.state().key_version(subject);
        sealed(subject, key_version, self.chance.hex(24), self.chance.hex(48))
    }

    pub(crate) fn roll_back(&mut self, app_env: &AppEnv) -> anyhow::Result<()> {
        let Some(seq) = self.before.get(app_env).map(|state| state.seq) else { return Ok(()) };
        let command = Command::Rollback {
            scope: Scope::app_env(app_env),
            except: Vec::new(),
            point: format!("seq:{seq}"),
            seq,
            now: false,
            strict: false,
            best_effort: false,
            pass_barriers: false,
            unobtainable: Vec::new(),
        };
        let person = self.person();
        if self.ask(person, command).is_ok() {
            self.settle(app_env)?;
            self.ask(person, Command::Unlatch { app_env: app_env.clone() })?;
        }
        Ok(())
    }

    pub(crate) fn lose_and_find(&mut self) -> anyhow::Result<()> {
        let node = self.nodes[self.chance.below(self.nodes.len())].clone();
        let lost = self.state().observed.get(&node).is_some_and(|seen| seen.lost);
        let (lost, returned) = if lost { (Vec::new(), vec![node]) } else { (vec![node], Vec::new()) };
        self.system(Command::MarkNodes { lost, returned })
    }

    pub(crate) fn refuse(&mut self) -> anyhow::Result<()> {
        let command = Command::RecordRefusal {
            action: "deploy".to_owned(),
            scope: "fleet".to_owned(),
            why: "intern is auditor; this needs the role deployer".to_owned(),
        };
        let principal: PrincipalId = "intern".parse()?;
        let request = Request { principal, ..system_request(command) };
        self.scribe.ask(&request, BTreeMap::new()).map_err(|error| anyhow!("{error}"))?;
        Ok(())
    }

    pub(crate) fn label(&mut self) -> anyhow::Result<()> {
        let node = self.nodes[self.chance.below(self.nodes.len())].clone();
        let labels = BTreeMap::from([
            ("disk".to_owned(), "ssd".to_owned()),
            ("rack".to_owned(), self.chance.below(64).to_string()),
            ("kernel".to_owned(), format!("6.18.{}", self.chance.below(40))),
        ]);
        self.ask("admin", Command::LabelNode { node, labels })?;
        Ok(())
    }

    /// A container of a node or two ended and was started again: what a fleet reports all day.
    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        let count = 1 + self.chance.below(2);
        let mut nodes = BTreeMap::new();
        for _ in 0..count {
            let node = self.nodes[self.chance.below(self.nodes.len())].clone();
            let assigned = self.state().assigned.get(&node).map_or(0, |node| node.instances.len());
            nodes.insert(node, self.chance.below(assigned));
        }
        let mut reports = Vec::new();
        for (node, at) in nodes {
            reports.extend(self.report(&node, |index, report| {
                if index == at {
                    report.restarts += 1;
                }
            }));
        }
        self.system(Command::Report { reports })
    }

    /// What a node says: that everything it was told to run is healthy, but for what `change` makes of it.
    pub(crate) fn report(
        &mut self,
        node: &NodeName,
        change: impl Fn(usize, &mut InstanceReport),
    ) -> Option<Report> {
        // A node that is lost says nothing.
        if !self.scribe.state().is_reachable(node) {
            return None;
        }
        self.reports += 1;
        let state = self.scribe.state();
        let assigned = state.assigned.get(node)?;
        let mut instances: Vec<_> = Vec::with_capacity(assigned.instances.len());
        for (at, (id, to)) in assigned.instances.iter().enumerate() {
            let known = state.report_of(node, id);
            let mut report = InstanceReport {
                id: id.clone(),
                phase: Phase::Healthy,
                spec_digest: Some(to.spec.clone()),
                container: Some(Digest::of(&[id.to_string().as_bytes()]).hex().into()),
                restarts: known.map_or(0, |known| known.restarts),
                remarks: None,
            };
            change(at, &mut report);
            instances.push(report);
        }
        Some(Report {
            fleet: self.shape.fleet.clone(),
            node: node.clone(),
            boot: self.boot,
            number: self.reports,
            applied: state.assignment_version(node),
            instances,
        })
    }

    /// Has the conductor's command decided, with what led to it.
    pub(crate) fn conduct(&mut self, command: Command) -> anyhow::Result<()> {
        let cause = stele_planner::cause(self.state(), &command);
        let request = Request { cause, ..system_request(command) };
        self.scribe.ask(&request, BTreeMap::new()).map_err(|error| anyhow!("{error}"))?;
        Ok(())
    }

    /// Lets the conductor and the nodes work until an app is where it should be.
    pub(crate) fn settle(&mut self, app_env: &AppEnv) -> anyhow::Result<()> {
        for _ in 0..ROLLOUT_ROUNDS_MAX {
            self.scribe.pass(200_000);
            let now = self.scribe.now();
            if let Some(command) = stele_planner::plan_app(self.state(), app_env, now) {
                let before = self.state().seq;
                self.conduct(command)?;
                if self.state().seq != before {
                    continue;
                }
            }
            if !self.report_news(app_env)? {
                return Ok(());
            }
        }
        Err(anyhow!("{app_env} never settles")).context("the generator is wrong")
    }

    /// Nodes with something new to say about an app say it; false when there is none.
    fn report_news(&mut self, app_env: &AppEnv) -> anyhow::Result<bool> {
        let state = self.state();
        let is_news = |node: &NodeName, id: &InstanceId| {
            state.report_of(node, id).is_none_or(|report| report.phase != Phase::Healthy)
        };
        let mut nodes: Vec<NodeName> = state
            .assigned_to(app_env)
            .filter(|(node, id, _)| is_news(node, id))
            .map(|(node, ..)| node.clone())
            .collect();
        // What was withdrawn is gone as soon as it was told.
        nodes.extend(state.observed_of(app_env).filter_map(|(node, id, _)| {
            let assigned = state.assigned.get(node)?;
            (!assigned.instances.contains_key(id)).then(|| node.clone())
        }));
        nodes.sort();
        nodes.dedup();
        let mut reports = Vec::new();
        for node in nodes {
            reports.extend(self.report(&node, |_, _| {}));
        }
        let before = self.state().seq;
        if !reports.is_empty() {
            self.system(Command::Report { reports })?;
        }
        Ok(self.state().seq != before)
    }
}
