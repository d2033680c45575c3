#![allow(clippy::unwrap_used)]
//! A small fleet in memory, whose node does what it is told but cannot remove anything.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use stele_model::event::{Contacts, EnrolledNode, Holder, JoinToken, Role, Token};
use stele_model::release::{Container, Image, Order, Placement, Port, Protocol, Service, Update};
use stele_model::signature::{Certificate, CertificateBody, PublicKey};
use stele_model::trial::try_out;
use stele_model::wire::{Remarks, Report};
use stele_model::{
    Command, Context, Digest, FlatMap, Links, PrincipalId, Release, ReleaseChoice, Request, Time,
};

use super::*;

const WEB: &str = "shop/web@prod";
const CART: &str = "shop/cart@prod";

struct Fleet {
    state: State,
    reports: u64,
}

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

impl Fleet {
    fn new() -> Self {
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

    fn ask(&mut self, command: Command) {
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

    fn enrol(&mut self, node: &str) {
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
    fn deploy(&mut self, app_env: &str, image: &str, placement: Placement) {
        let app_env: AppEnv = name(app_env);
        let digest = Digest::of(&[image.as_bytes()]);
        let mut container = Container::new(Image { repository: "registry.example/web".to_owned(), digest });
        container.ports = vec![Port { container: 80, host: Some(80), protocol: Protocol::Tcp }];
        let update = Update { max_unavailable: 1, order: Order::StartFirst, deadline_ms: 60_000 };
        let services = FlatMap::from([(name("web"), Service { container, placement, update })]);
        let release = Release { app: app_env.app.clone(), services };
        let release = ReleaseChoice::Content { release, images: FlatMap::new() };
        let contacts = Some(Contacts::default());
        self.ask(Command::Deploy { app_env, contacts, release, again: false, barrier: None });
        self.settle();
    }

    fn settle(&mut self) {
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

    fn pass(&mut self, seconds: u64) {
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

    fn leftovers(&self, scope: &str) -> Vec<ProblemStatus> {
        let scope: Scope = name(scope);
        let apps = scope.app.is_some().then(|| BTreeSet::from([name(WEB), name(CART)]));
        leftovers(&self.state, &scope, apps)
    }
}

fn one() -> Placement {
    Placement::Replicas { count: 1, nodes: name("") }
}

#[test]
fn what_a_node_has_and_should_not_is_a_problem_with_what_to_do() {
    let mut fleet = Fleet::new();
    fleet.deploy(WEB, "well", one());
    fleet.ask(Command::Remove { app_env: name(WEB) });
    fleet.settle();
    assert_eq!(fleet.leftovers("fleet"), [], "a deployment sees to it");
    fleet.pass(3600);
    for scope in ["fleet", WEB, "region:eu", "node:eu-1", "project:shop"] {
        let told = fleet.leftovers(scope);
        let [problem] = told.as_slice() else { panic!("{scope}: {told:?}") };
        assert!(
            problem.message.contains("still has it: cannot be removed: the device is busy."),
            "{problem:?}"
        );
        assert_eq!(problem.next.as_deref(), Some("docker rm --force c0ffee"));
    }
    for scope in [CART, "region:us"] {
        assert_eq!(fleet.leftovers(scope), []);
    }
    fleet.ask(Command::MarkNodes { lost: vec![name("eu-1")], returned: Vec::new() });
    assert_eq!(fleet.leftovers("fleet"), [], "a node that is lost tells nothing");
}

#[test]
fn what_serves_until_the_next_one_can_be_made_is_no_leftover() {
    let mut fleet = Fleet::new();
    fleet.deploy(WEB, "well", one());
    fleet.deploy(WEB, "sick", one());
    fleet.pass(3600);
    let (_, deployment) = fleet.state.latest_deployment(&name(WEB)).unwrap();
    assert!(deployment.has_failed());
    assert_eq!(fleet.state.observed_of(&name(WEB)).count(), 2);
    assert_eq!(fleet.leftovers("fleet"), []);
}

/// A fleet's controllers, whose certificates end so many days after the beginning.
fn certified(until: &[(ControllerId, u64)]) -> State {
    let mut state = State::default();
    for (id, days) in until {
        let body = CertificateBody {
            fleet: name("demo"),
            controller: *id,
            key: PublicKey("33".repeat(32)),
            not_before: Time(0),
            not_after: in_days(*days),
        };
        let certificate = Certificate::issue(&SigningKey::from_bytes(&[1; 32]), body);
        let controller = Controller { certificate, api: String::new(), peer: String::new() };
        state.control.controllers.insert(*id, controller);
    }
    state
}

fn in_days(days: u64) -> Time {
    Time(days * 86_400_000_000)
}

#[test]
fn certificates_that_end_soon_are_a_problem_in_time() {
    let warned = CERTIFICATE_WARNING.as_secs() / 86_400;
    let state = certified(&[(1, 1_000), (2, 2_000), (3, 2_000)]);
    // Nothing is known of the connections of controller 2, which is away.
    let shown = BTreeMap::from([(1, in_days(2_000)), (3, in_days(1_500)), (4, in_days(1))]);
    let told = |day: u64| certificates(&state, &shown, in_days(day));
    assert_eq!(told(1_000 - warned), []);
    let soon = told(1_001 - warned);
    let [problem] = soon.as_slice() else { panic!("{soon:?}") };
    let said = &problem.message;
    assert!(
        said.starts_with("controller 1 needs new certificates: that for its signatures ends on 1972-09-27."),
        "{said}"
    );
    assert!(problem.next.as_deref().unwrap().starts_with("stele controller renew --config "), "{problem:?}");
    assert_eq!(problem.scope, Scope::fleet());

    // Each of the two counts, and one that has ended all the more.
    let said = |day| -> Vec<String> {
        let ends =
            |it: ProblemStatus| it.message.split(": ").nth(1).unwrap().split('.').next().unwrap().into();
        told(day).into_iter().map(ends).collect()
    };
    assert_eq!(
        said(1_501 - warned),
        ["that for its signatures ended on 1972-09-27", "that for its connections ends on 1974-02-09",]
    );
    assert_eq!(said(1_999).len(), 3);
    assert_eq!(
        said(1_999)[2],
        "that for its signatures ends on 1975-06-24, that for its connections ended on 1974-02-09"
    );
}

#[test]
fn a_node_of_every_one_without_room_is_a_problem() {
    let mut fleet = Fleet::new();
    fleet.deploy(WEB, "well", Placement::Every { nodes: name("") });
    fleet.enrol("eu-2");
    // It is looked at first.
    fleet.deploy(CART, "well", Placement::Replicas { count: 1, nodes: name("node=eu-2") });
    let app = AppStatus {
        app_env: name(WEB),
        condition: stele_api::wire::Condition::Degraded,
        release: None,
        release_digest: None,
        deployment: None,
        last_changed: 0,
        latched: Vec::new(),
        contacts: Contacts::default(),
        pins: Vec::new(),
        held: false,
        services: vec![stele_api::wire::ServiceStatus {
            service: name("web"),
            image: String::new(),
            image_asked: None,
            wanted: 2,
            healthy: 1,
        }],
        instances: Vec::new(),
    };
    let told = problems(&fleet.state, &fleet.state, &[app], &[]);
    let told: Vec<_> = told.iter().map(|problem| problem.message.as_str()).collect();
    let without = "shop/web@prod/web.1 has no node: not every matching node has room (eu-2: port 80 is \
                   shop/cart@prod/web.0's); it has one as soon as there is room";
    assert_eq!(told, ["1 of 2 instances of web are healthy", without]);
}
