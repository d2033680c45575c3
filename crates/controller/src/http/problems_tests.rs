#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use stele_model::event::Contacts;
use stele_model::release::Placement;
use stele_model::signature::{Certificate, CertificateBody, PublicKey};
use stele_model::{Command, Time};

use super::*;
use crate::small_fleet::{CART, Fleet, WEB, name, one};

fn left(fleet: &Fleet, scope: &str) -> Vec<ProblemStatus> {
    let scope: Scope = name(scope);
    let apps = scope.app.is_some().then(|| BTreeSet::from([name(WEB), name(CART)]));
    leftovers(&fleet.state, &scope, apps)
}

#[test]
fn what_a_node_has_and_should_not_is_a_problem_with_what_to_do() {
    let mut fleet = Fleet::new();
    fleet.deploy(WEB, "well", one());
    fleet.ask(Command::Remove { app_env: name(WEB) });
    fleet.settle();
    assert_eq!(left(&fleet, "fleet"), [], "a deployment sees to it");
    fleet.pass(3600);
    for scope in ["fleet", WEB, "region:eu", "node:eu-1", "project:shop"] {
        let told = left(&fleet, scope);
        let [problem] = told.as_slice() else { panic!("{scope}: {told:?}") };
        assert!(
            problem.message.contains("still has it: cannot be removed: the device is busy."),
            "{problem:?}"
        );
        assert_eq!(problem.next.as_deref(), Some("docker rm --force c0ffee"));
    }
    for scope in [CART, "region:us"] {
        assert_eq!(left(&fleet, scope), []);
    }
    fleet.ask(Command::MarkNodes { lost: vec![name("eu-1")], returned: Vec::new() });
    assert_eq!(left(&fleet, "fleet"), [], "a node that is lost tells nothing");
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
    assert_eq!(left(&fleet, "fleet"), []);
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
