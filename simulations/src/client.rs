//! Clients and operators: they write and read, ask again when they hear nothing, and remember
//! what they were told.

use std::collections::BTreeMap;
use std::rc::Rc;

use stele_ledger::Outcome;
use stele_linear::Deed;
use stele_model::event::{Contacts, EnrolledNode, Holder, JoinToken, Role, TargetDigest, Token};
use stele_model::release::{
    Check, Container, EnvValue, Health, Image, Order, Placement, Port, Protocol, Service, Update,
};
use stele_model::signature::public_key;
use stele_model::{
    AppEnv, Command, Decision, Digest, FlatMap, PrincipalId, Release, ReleaseChoice, Scope, Sealed, Seq,
    Time, Value,
};

use crate::limits::{CLIENT_ATTEMPTS_MAX, CLIENT_RETRY_US, CLIENT_WAIT_US, EPOCH_US};
use crate::oracle::Oracle;
use crate::rng::Rng;
use crate::setup::{Keys, Setup, node_name};
use crate::wire::{Asked, Told, Want};

/// The one variable that clients set, so that each app is a register.
pub(crate) const VARIABLE: &str = "GREETING";
/// The one secret that clients set.
const SECRET: &str = "database";

/// What a client has begun and not ended.
#[derive(Debug)]
struct Pending {
    asked: Rc<Asked>,
    attempts: u32,
    /// The last record that anybody was told of when it was first asked.
    floor: Seq,
    /// For a write of the register: which, and to what.
    register: Option<(AppEnv, String)>,
}

/// A client.
pub(crate) struct Client {
    principal: PrincipalId,
    rng: Rng,
    pending: Option<Pending>,
    /// Tells attempts apart.
    pub(crate) attempt: u64,
    /// When it does something by itself.
    pub(crate) due_us: u64,
    requests: u64,
    /// What is to be done before anything else, last first.
    founding: Vec<(PrincipalId, Command)>,
    /// Decisions it was told of.
    mine: Vec<Decision>,
    /// The last of them, when it was a rollback of a place, which is often undone at once.
    of_place: Option<Decision>,
    /// Whether it stops after what is pending.
    pub(crate) done: bool,
    /// An operator's next request is a rollback.
    pub(crate) panics: bool,
    /// Writes acknowledged, refused, and of unknown outcome; reads answered.
    pub(crate) counts: [u64; 4],
}

/// What all clients together know.
#[derive(Default)]
pub(crate) struct Histories {
    /// The highest seq anybody was told of.
    pub(crate) told: Seq,
    /// Whether the fleet is founded.
    pub(crate) founded: bool,
    /// Decisions acknowledged, by principal and key.
    pub(crate) acknowledged: BTreeMap<(PrincipalId, String), Decision>,
    /// What each past point was first read as.
    past: BTreeMap<Seq, TargetDigest>,
}

impl Histories {
    /// What was decided after a record is lost with all who had it.
    pub(crate) fn forget_after(&mut self, last: Seq) {
        self.told = self.told.min(last);
        self.acknowledged.retain(|_, decision| decision.last() <= last);
        self.past.split_off(&(last + 1));
    }
}

fn name<T: std::str::FromStr>(text: &str) -> T {
    #[allow(clippy::unwrap_used)]
    text.parse().ok().unwrap()
}

/// A write of the variable that makes an app a register.
pub(crate) fn set_variable(app_env: AppEnv, value: Value) -> (Want, Option<(AppEnv, String)>) {
    let register = (app_env.clone(), format!("{value:?}"));
    let variables = BTreeMap::from([(VARIABLE.to_owned(), Some(value))]);
    (Want::Command(Command::SetConfig { app_env, variables }), Some(register))
}

/// The app of an index.
pub(crate) fn app_env(index: u64) -> AppEnv {
    name(&format!("shop/app{index}@prod"))
}

impl Client {
    /// A client of a world; the first one founds the fleet.
    pub(crate) fn new(index: usize, setup: &Setup, keys: &Keys) -> Self {
        let mut founding = Vec::new();
        if index == 0 {
            let admin: PrincipalId = name("admin");
            let expires = Time(EPOCH_US + 20 * 86_400 * 1_000_000);
            for client in 1..setup.clients {
                let principal: PrincipalId = name(&format!("dev{client}"));
                let hash = Digest::of(&[principal.as_str().as_bytes()]);
                let token = Token { principal, hash, role: Role::Deployer, holder: Holder::Person, expires };
                founding.push((admin.clone(), Command::CreateToken { token }));
            }
            for agent in 0..setup.agents as usize {
                let hash = Digest::of(&[b"join", &agent.to_le_bytes()]);
                let region = name(["eu", "us", "ap"][agent % 3]);
                let token = JoinToken {
                    hash,
                    node: None,
                    region,
                    labels: BTreeMap::new(),
                    expires: Time(EPOCH_US + 86_400_000_000),
                };
                let node = EnrolledNode {
                    name: node_name(agent),
                    region: name("eu"),
                    labels: BTreeMap::new(),
                    key: public_key(&keys.node(agent)),
                    sealing_key: "22".repeat(32),
                    address: None,
                };
                founding.push((admin.clone(), Command::CreateJoinToken { token }));
                let enrol = Command::EnrollNode { join_token: hash, node };
                founding.push((stele_model::decide::system(), enrol));
            }
            founding.reverse();
        }
        let principal = if index == 0 { name("admin") } else { name(&format!("dev{index}")) };
        Self {
            principal,
            rng: Rng::fork(setup.seed, 0x0d00_0000 + index as u64),
            pending: None,
            attempt: 0,
            due_us: 1_000_000 + index as u64 * 100_000,
            requests: 0,
            founding,
            mine: Vec::new(),
            of_place: None,
            done: false,
            panics: false,
            counts: [0; 4],
        }
    }

    /// Whether nothing is awaited.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_none() && self.founding.is_empty()
    }

    /// What was decided after a record is lost with all who had it: it is told so, and speaks of it no more.
    pub(crate) fn forget_after(&mut self, last: Seq) {
        self.mine.retain(|decision| decision.last() <= last);
        self.of_place = self.of_place.take().filter(|decision| decision.last() <= last);
        let is_lost = |pending: &Pending| matches!(pending.asked.want, Want::ReadAt(at) if at > last);
        self.pending = self.pending.take().filter(|pending| !is_lost(pending));
        if let Some(pending) = &mut self.pending {
            pending.floor = pending.floor.min(last);
        }
    }

    /// Its time has come: what to send, if anything.
    pub(crate) fn wake(&mut self, now_us: u64, setup: &Setup, histories: &Histories) -> Option<Rc<Asked>> {
        if let Some(pending) = &mut self.pending {
            // No answer came.
            pending.attempts += 1;
            if pending.attempts > CLIENT_ATTEMPTS_MAX && histories.founded {
                self.counts[2] += 1;
                self.pending = None;
            } else {
                self.attempt += 1;
                self.due_us = now_us + CLIENT_WAIT_US;
                return Some(Rc::clone(&pending.asked));
            }
        }
        if self.done || (self.founding.is_empty() && !histories.founded) {
            self.due_us = now_us + 500_000;
            return None;
        }
        self.requests += 1;
        let key = format!("{}-{}", self.principal, self.requests);
        let (principal, want, register) = if let Some((principal, command)) = self.founding.last() {
            (principal.clone(), Want::Command(command.clone()), None)
        } else {
            let (want, register) = self.choose(setup);
            (self.principal.clone(), want, register)
        };
        let asked = Rc::new(Asked { principal, key, want });
        self.pending =
            Some(Pending { asked: Rc::clone(&asked), attempts: 1, floor: histories.told, register });
        self.attempt += 1;
        self.due_us = now_us + CLIENT_WAIT_US;
        Some(asked)
    }

    /// Asks for something at once, unless it waits for an answer or the fleet is not founded.
    pub(crate) fn ask(
        &mut self,
        now_us: u64,
        want: Want,
        register: Option<(AppEnv, String)>,
        histories: &Histories,
    ) -> Option<Rc<Asked>> {
        if !self.is_idle() || !histories.founded || self.done {
            return None;
        }
        self.requests += 1;
        let key = format!("{}-{}", self.principal, self.requests);
        let asked = Rc::new(Asked { principal: self.principal.clone(), key, want });
        let floor = histories.told;
        self.pending = Some(Pending { asked: Rc::clone(&asked), attempts: 1, floor, register });
        self.attempt += 1;
        self.due_us = now_us + CLIENT_WAIT_US;
        Some(asked)
    }

    fn choose(&mut self, setup: &Setup) -> (Want, Option<(AppEnv, String)>) {
        let app_env = app_env(self.rng.below(setup.apps));
        if std::mem::take(&mut self.panics) {
            return (Want::Rollback { scope: self.scope(&app_env), point: "prev".to_owned() }, None);
        }
        if let Some(decision) = self.of_place.take().filter(|_| self.rng.chance(400)) {
            return (Want::Undo(decision), None);
        }
        match self.rng.below(100) {
            0..22 => {
                let release = self.release(&app_env);
                let command = Command::Deploy {
                    app_env,
                    contacts: Some(Contacts::default()),
                    release: ReleaseChoice::Content { release, images: FlatMap::new() },
                    again: self.rng.chance(300),
                    barrier: None,
                };
                (Want::Command(command), None)
            }
            22..45 => {
                // Few values, so that setting one again often changes nothing.
                let value = Value::Plain(format!("hello {}", self.rng.below(4)));
                if self.rng.chance(150) {
                    return (Want::Command(self.set_sealed(app_env)), None);
                }
                set_variable(app_env, value)
            }
            45..58 => {
                let point = match self.rng.below(4) {
                    0 => "last-good".to_owned(),
                    1 => "prev".to_owned(),
                    2 => "prev:2".to_owned(),
                    _ => match self.rng.pick(&self.mine).copied() {
                        Some(decision) => format!("seq:{}", decision.last()),
                        None => "prev".to_owned(),
                    },
                };
                (Want::Rollback { scope: self.scope(&app_env), point }, None)
            }
            58..64 => match self.rng.pick(&self.mine).copied() {
                Some(decision) => (Want::Undo(decision), None),
                None => (Want::Read, None),
            },
            64..68 => (Want::Command(Command::Unlatch { app_env }), None),
            68..70 => (Want::Command(Command::Remove { app_env }), None),
            // Only an administrator may.
            76..80 if self.principal.as_str() == "admin" => {
                let node = node_name(self.rng.below(setup.agents) as usize);
                let is_drain = self.rng.chance(500);
                let command =
                    if is_drain { Command::DrainNode { node } } else { Command::ResumeNode { node } };
                (Want::Command(command), None)
            }
            70..76 => match self.rng.pick(&self.mine).copied() {
                Some(decision) => (Want::ReadAt(decision.last()), None),
                None => (Want::Read, None),
            },
            _ => (Want::Read, None),
        }
    }

    /// An app, or what a region or a node has of it.
    fn scope(&mut self, app_env: &AppEnv) -> Scope {
        let place = match self.rng.below(10) {
            0..6 => return Scope::app_env(app_env),
            6..9 => format!("region:{}", ["eu", "us", "ap"][self.rng.below(3) as usize]),
            _ => format!("node:{}", node_name(self.rng.below(3) as usize)),
        };
        name(&format!("{app_env},{place}"))
    }

    /// A value that nobody here can open, as a variable or as a secret.
    fn set_sealed(&mut self, app_env: AppEnv) -> Command {
        let sealed = self.sealed(&app_env);
        if self.rng.chance(500) {
            return Command::SetSecret { app_env, name: name(SECRET), value: sealed };
        }
        let variables = BTreeMap::from([("TOKEN".to_owned(), Some(Value::Sealed(sealed)))]);
        Command::SetConfig { app_env, variables }
    }

    fn sealed(&mut self, app_env: &AppEnv) -> Sealed {
        let mut hex = |bytes: usize| {
            let drawn: Vec<u8> = (0..bytes).map(|_| self.rng.below(256) as u8).collect();
            hex::encode(drawn)
        };
        let (nonce, ciphertext) = (hex(24), hex(40));
        Sealed { subject: app_env.to_string(), key_version: 1, nonce, ciphertext }
    }

    /// A release, most often a good one.
    fn release(&mut self, app_env: &AppEnv) -> Release {
        let word = match self.rng.below(10) {
            0 => "crashes",
            1 => "unwell",
            _ => "good",
        };
        let variant = self.rng.below(5);
        let image = Image {
            repository: format!("registry.example/{word}"),
            digest: Digest::of(&[word.as_bytes(), &variant.to_le_bytes()]),
        };
        let mut web = Container::new(image.clone());
        if self.rng.chance(400) {
            // Two of it cannot run on one node, so that the old one must go first.
            let host = 8000 + u16::from(app_env.app.app.as_str().ends_with('1'));
            web.ports = vec![Port { container: 80, host: Some(host), protocol: Protocol::Tcp }];
        }
        if word == "unwell" || self.rng.chance(500) {
            web.health = Some(Health {
                check: Check::Tcp { port: 80 },
                interval_ms: 2_000,
                timeout_ms: 1_000,
                retries: 2,
                start_period_ms: 3_000,
            });
        }
        if self.rng.chance(150) {
            let sealed = self.sealed(app_env);
            web.env.insert("SEALED".to_owned(), EnvValue::Value(Value::Sealed(sealed)));
        }
        let update = |order, max_unavailable| Update { max_unavailable, order, deadline_ms: 45_000 };
        let order = if self.rng.chance(300) { Order::StopFirst } else { Order::StartFirst };
        let web = Service {
            container: web,
            placement: Placement::Replicas { count: self.rng.range(1, 4) as u32, nodes: name("") },
            update: update(order, self.rng.range(1, 2) as u32),
        };
        let mut services = BTreeMap::from([(name("web"), web)]);
        if self.rng.chance(500) {
            let worker = Service {
                container: Container::new(Image {
                    repository: "registry.example/good".to_owned(),
                    digest: Digest::of(&[b"worker", &self.rng.below(2).to_le_bytes()]),
                }),
                placement: Placement::Every { nodes: name("region=eu") },
                update: update(Order::StartFirst, 1),
            };
            services.insert(name("worker"), worker);
        }
        Release { app: app_env.app.clone(), services: services.into_iter().collect() }
    }

    /// An answer arrived.
    pub(crate) fn hear(
        &mut self,
        now_us: u64,
        attempt: u64,
        told: Told,
        setup: &Setup,
        histories: &mut Histories,
        oracle: &mut Oracle,
    ) {
        let Some(pending) = &self.pending else { return };
        // An answer to an attempt that was given up is one nobody waits for.
        if attempt != self.attempt {
            return;
        }
        match told {
            Told::Unavailable | Told::Outcome(Outcome::Unknown | Outcome::NotLeader | Outcome::Busy) => {
                self.due_us = now_us + CLIENT_RETRY_US;
                return;
            }
            Told::Outcome(Outcome::Rejected(_)) => self.counts[1] += 1,
            Told::Outcome(Outcome::Done(answer)) => {
                self.counts[0] += 1;
                match answer.decision {
                    Some(decision) => {
                        acknowledged(pending, decision, histories, oracle);
                        self.mine.push(decision);
                        let is_of_place =
                            matches!(&pending.asked.want, Want::Rollback { scope, .. } if scope.is_placed());
                        self.of_place = is_of_place.then_some(decision);
                    }
                    None => nothing_changed(pending, oracle),
                }
            }
            Told::State { seq, target, values } => {
                self.counts[3] += 1;
                read(pending, seq, target, &values, histories, oracle);
            }
        }
        self.pending = None;
        if self.founding.pop().is_some() && self.founding.is_empty() {
            histories.founded = true;
        }
        let think = if histories.founded { 1000 * self.rng.range(50, setup.think_ms) } else { 1_000 };
        self.due_us = now_us + think;
    }
}

fn acknowledged(pending: &Pending, decision: Decision, histories: &mut Histories, oracle: &mut Oracle) {
    let Asked { principal, key, .. } = &*pending.asked;
    let found = oracle.decoded.get(decision.last() as usize - 1);
    let is_there = found.is_some_and(|record| {
        record.header.decision == decision
            && record.header.principal == *principal
            && (*principal == stele_model::decide::system()
                || record.header.idempotency.as_ref().is_some_and(|it| it.key == *key))
    });
    oracle.require(is_there, "acknowledged-is-committed", || {
        format!("{key} was told that it is decided at {}, which the log does not say", decision.first)
    });
    // Decided at its first attempt or at a later one, but never before it was asked.
    fits(pending, &Deed::Write { seq: decision.first }, "linearizable-writes", oracle);
    histories.told = histories.told.max(decision.last());
    if *principal != stele_model::decide::system() {
        let before = histories.acknowledged.insert((principal.clone(), key.clone()), decision);
        oracle.require(before.is_none_or(|before| before == decision), "one-key-one-answer", || {
            format!("{key} was told of two decisions")
        });
    }
}

/// "Nothing had to change" must have been true at some moment between question and answer.
fn nothing_changed(pending: &Pending, oracle: &mut Oracle) {
    let Some((app_env, value)) = &pending.register else { return };
    let read = Deed::Read { register: app_env.clone(), value: Some(value.clone()) };
    fits(pending, &read, "linearizable-no-ops", oracle);
}

/// Whether what a client was told can have been so between its question and the answer.
fn fits(pending: &Pending, deed: &Deed<AppEnv>, invariant: &'static str, oracle: &mut Oracle) {
    if let Err(why) = deed.earliest(pending.floor, &oracle.values) {
        oracle.fail(invariant, format!("{} after {} attempts: {why}", pending.asked.key, pending.attempts));
    }
}

fn read(
    pending: &Pending,
    seq: Seq,
    target: TargetDigest,
    values: &[(AppEnv, Option<String>)],
    histories: &mut Histories,
    oracle: &mut Oracle,
) {
    let key = &pending.asked.key;
    if let Want::ReadAt(at) = pending.asked.want {
        let known = *histories.past.entry(at).or_insert(target);
        oracle.require(seq == at && target == known, "the-past-never-changes", || {
            format!("{key} read {at} as it was at {seq}: {target:?} instead of {known:?}")
        });
    } else {
        fits(pending, &Deed::ReadAsOf { seq }, "linearizable-reads", oracle);
        histories.told = histories.told.max(seq);
    }
    let Some(state) = oracle.states.get(&seq).cloned() else {
        return oracle.fail("reads-are-committed", format!("{key} read at {seq}, where no decision ends"));
    };
    let expected = crate::app::told_state(&state);
    let same =
        matches!(&expected, Told::State { target: is, values: are, .. } if *is == target && are == values);
    oracle.require(same, "reads-are-committed", || format!("{key} read {seq} as it never was"));
}
