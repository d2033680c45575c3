#![allow(clippy::unwrap_used)]

use stele_model::Command;
use stele_model::event::Contacts;
use stele_model::release::Placement;

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
