#![allow(clippy::unwrap_used)]
//! A small fleet in memory, whose node does what it is told but cannot remove anything.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use stele_model::event::{Contacts, EnrolledNode, Holder, JoinToken, Role, Token};
use stele_model::release::{Container, Image, Order, Placement, Port, Protocol, Service, Update};
use stele_model::signature::{Certificate, CertificateBody, PublicKey};
use stele_model::trial::try_out;
use stele_model::wire::{Assignment, InstanceReport, Phase, Remarks, Report};
use stele_model::{
    AppEnv, Command, Context, Digest, FlatMap, Links, NodeName, PrincipalId, Release, ReleaseChoice, Request,
    State, Time,
};

pub(crate) const WEB: &str = "shop/web@prod";
pub(crate) const CART: &str = "shop/cart@prod";

pub(crate) struct Fleet {
    pub(crate) state: State,
    reports: u64,
}

pub(crate) fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

impl Fleet {
    pub(crate) fn new() -> Self {
        let mut fleet = Self { state: State::default(), reports: 0 };
        fleet.state.keep_index();
        let expires = Time(86_400_000_000);
        let hash = Digest::of(&[b"admin"]);
        let admin =
            Token { principal: name("admin"), hash, role: Role::Admin, holder: Holder::Person, expires };
        let root = PublicKey("00".repeat(32));
        fleet.ask(Command::CreateFleet { fleet: name("demo"), root, admin });
        fleet.enrol("eu-1");
        fleet
    }

    pub(crate) fn ask(&mut self, command: Command) {
        let system = matches!(
            command,
            Command::CreateFleet { .. }
                | Command::EnrollNode { .. }
                | Command::Place { .. }
                | Command::Assign { .. }
                | Command::FinishDeployment { .. }
                | Command::MarkNodes { .. }
                | Command::Report { .. }
        );
        let principal: PrincipalId = name(if system { "system" } else { "admin" });
        let request = Request {
            principal,
            command,
            idempotency: None,
            trace: None,
            cause: None,
            reason: None,
            links: Links::default(),
            if_match: None,
        };
        let context = Context { now: self.state.time, ..Context::default() };
        self.state = try_out(&self.state, &request, &context).unwrap().after;
    }

    pub(crate) fn enrol(&mut self, node: &str) {
        let (hash, expires) = (Digest::of(&[node.as_bytes()]), Time(86_400_000_000));
        let token = JoinToken { hash, node: None, region: name("eu"), labels: BTreeMap::new(), expires };
        self.ask(Command::CreateJoinToken { token });
        let node = EnrolledNode {
            name: name(node),
            region: name("eu"),
            labels: BTreeMap::new(),
            key: PublicKey("11".repeat(32)),
            sealing_key: "22".repeat(32),
            address: None,
        };
        self.ask(Command::EnrollNode { join_token: hash, node });
    }

    /// Has an app with port 80, of an image that may be one that never becomes healthy.
    pub(crate) fn deploy(&mut self, app_env: &str, image: &str, placement: Placement) {
        self.deploy_container(app_env, web(image), placement);
    }

    pub(crate) fn deploy_container(&mut self, app_env: &str, container: Container, placement: Placement) {
        let app_env: AppEnv = name(app_env);
        let update = Update { max_unavailable: 1, order: Order::StartFirst, deadline_ms: 60_000 };
        let services = FlatMap::from([(name("web"), Service { container, placement, update })]);
        let release = Release { app: app_env.app.clone(), services };
        let release = ReleaseChoice::Content { release, images: FlatMap::new() };
        let contacts = Some(Contacts::default());
        self.ask(Command::Deploy { app_env, contacts, release, again: false, barrier: None });
        self.settle();
    }

    pub(crate) fn settle(&mut self) {
        loop {
            let before = self.state.seq;
            if let Some(command) = stele_planner::plan(&self.state, self.state.time).into_iter().next() {
                self.ask(command);
            } else {
                self.report();
            }
            if self.state.seq == before {
                return;
            }
        }
    }

    pub(crate) fn pass(&mut self, seconds: u64) {
        self.state.time = Time(self.state.time.0 + seconds * 1_000_000);
        self.settle();
    }

    fn report(&mut self) {
        self.reports += 1;
        let state = &self.state;
        let sick = Digest::of(&[b"sick"]);
        let reports = state.control.nodes.keys().filter(|node| state.is_reachable(node)).map(|node| {
            let told = state.assigned.get(node).cloned().unwrap_or_default();
            let assigned = told.instances.iter().map(|(id, to)| {
                let release = state.release_of(&to.revision).unwrap();
                let is_sick = release.services[&id.slot.service].container.image.digest == sick;
                InstanceReport {
                    id: id.clone(),
                    phase: if is_sick { Phase::Pulling } else { Phase::Healthy },
                    spec_digest: Some(to.spec.clone()),
                    container: Some("c0ffee".into()),
                    restarts: 0,
                    remarks: None,
                }
            });
            let known = state.observed.get(node).into_iter().flat_map(|seen| seen.instances.values());
            let left = known.filter(|known| !told.instances.contains_key(&known.id)).map(|known| {
                let reason = Some("cannot be removed: the device is busy".to_owned());
                InstanceReport {
                    remarks: Remarks::of(reason, None, Vec::new()),
                    ..InstanceReport::clone(known)
                }
            });
            Report {
                fleet: name("demo"),
                node: node.clone(),
                boot: 1,
                number: self.reports,
                applied: state.assignment_version(node),
                instances: assigned.chain(left).collect(),
            }
        });
        let command = Command::Report { reports: reports.collect() };
        self.ask(command);
    }
}

pub(crate) fn one() -> Placement {
    Placement::Replicas { count: 1, nodes: name("") }
}

/// A container with port 80.
pub(crate) fn web(image: &str) -> Container {
    let digest = Digest::of(&[image.as_bytes()]);
    let mut container = Container::new(Image { repository: "registry.example/web".to_owned(), digest });
    container.ports = vec![Port { container: 80, host: Some(80), protocol: Protocol::Tcp }];
    container
}

/// A node's assignment without what fills it, by a controller that signs with a key that nobody has.
pub(crate) fn empty_assignment(state: &State, node: &NodeName) -> Assignment {
    let body = CertificateBody {
        fleet: name("demo"),
        controller: 1,
        key: PublicKey("33".repeat(32)),
        not_before: Time(0),
        not_after: Time(86_400_000_000),
    };
    Assignment {
        fleet: name("demo"),
        node: node.clone(),
        version: state.assignment_version(node),
        instances: Vec::new(),
        keys: Vec::new(),
        images: None,
        controller: Certificate::issue(&SigningKey::from_bytes(&[1; 32]), body),
    }
}
