//! A drained node: nothing new comes to it, and what runs there goes elsewhere, one after the other and without a gap.

#![allow(clippy::unwrap_used)]

mod world;

use std::collections::BTreeMap;

use stele_model::event::Outcome;
use stele_model::release::{Order, Service, Volume, VolumeSource};
use stele_model::wire::Phase;
use stele_model::{Command, Event, NodeName, ReleaseChoice, State};
use stele_planner::{Watch, plan_app, staying};
use world::{Place, Spec, World, image_digest, name, rollback};

const WEB: &str = "shop/web@prod";

/// A fleet of four nodes with an app on it.
fn deployed(spec: &Spec) -> World {
    let mut world = World::new();
    world.dana(spec.deploy(WEB)).unwrap();
    world.settle();
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
    world
}

fn with_port(image: u8, replicas: u32) -> Spec {
    Spec { port: Some(8080), ..Spec::new(image, replicas) }
}

fn every(image: u8) -> Spec {
    Spec { place: Place::Everywhere, ..Spec::new(image, 1) }
}

/// How many instances each node is told to run.
fn told(state: &State) -> BTreeMap<String, usize> {
    let nodes = state.assigned.iter().map(|(node, told)| (node.to_string(), told.instances.len()));
    nodes.filter(|(_, count)| *count > 0).collect()
}

fn counts<const N: usize>(nodes: [(&str, usize); N]) -> BTreeMap<String, usize> {
    nodes.into_iter().map(|(node, count)| (node.to_owned(), count)).collect()
}

/// What stays on a node, and why.
fn whys(world: &World, node: &str) -> Vec<String> {
    staying(&world.state, &name(node))
        .into_iter()
        .map(|it| format!("{}: {}", it.instance.slot, it.why))
        .collect()
}

/// How many of the app are healthy.
fn healthy(state: &State) -> usize {
    state.assigned_to(&name(WEB)).filter(|(node, id, _)| state.is_healthy(node, id)).count()
}

#[test]
fn replicas_go_elsewhere_one_after_the_other_and_never_fewer_serve() {
    let mut world = deployed(&Spec::new(1, 8));
    let before = world.records.len();
    world.drain_or_resume("eu-1");
    world.settle();
    assert_eq!(told(&world.state), counts([("eu-2", 4), ("us-1", 2), ("us-2", 2)]), "within the region");
    let mut fewest = usize::MAX;
    for record in &world.records[before..] {
        let state = &world.states[&record.header.decision.last()];
        fewest = fewest.min(healthy(state));
        let unready = state.assigned_to(&name(WEB)).count() - healthy(state);
        assert!(unready <= 1, "the budget is one at a time, seq {}", record.header.seq);
    }
    assert_eq!(fewest, 8, "each is replaced before it goes");
    let is_deployment = |event: &Event| matches!(event, Event::DeploymentStarted { .. });
    assert!(
        !world.records[before..].iter().any(|record| is_deployment(&record.event)),
        "nothing is deployed"
    );
    assert_eq!(whys(&world, "eu-1"), Vec::<String>::new());
}

#[test]
fn nothing_new_comes_to_a_drained_node_until_it_is_resumed() {
    let mut world = World::new();
    world.drain_or_resume("eu-1");
    world.dana(Spec::new(1, 8).deploy(WEB)).unwrap();
    world.settle();
    assert_eq!(told(&world.state), counts([("eu-2", 4), ("us-1", 2), ("us-2", 2)]));
    world.drain_or_resume("eu-1");
    world.settle();
    assert_eq!(told(&world.state), counts([("eu-2", 4), ("us-1", 2), ("us-2", 2)]), "what runs stays");
    world.dana(Spec::new(1, 9).deploy(WEB)).unwrap();
    world.settle();
    assert_eq!(told(&world.state).get("eu-1"), Some(&1));
}

#[test]
fn what_runs_on_every_node_leaves_a_drained_one_and_comes_back() {
    let mut world = deployed(&every(1));
    world.drain_or_resume("eu-1");
    world.settle();
    assert_eq!(told(&world.state), counts([("eu-2", 1), ("us-1", 1), ("us-2", 1)]));
    world.drain_or_resume("eu-1");
    world.settle();
    assert_eq!(told(&world.state).len(), 4);
}

#[test]
fn what_has_no_other_place_stays_and_goes_as_soon_as_there_is_one() {
    let mut world = deployed(&with_port(1, 4));
    let all = told(&world.state);
    world.drain_or_resume("eu-1");
    assert_eq!(world.settle(), Vec::new(), "a port is free nowhere");
    assert_eq!(told(&world.state), all);
    let why = whys(&world, "eu-1").join("\n");
    assert!(why.contains("no matching node has room"), "{why}");

    // It goes on being deployed where it is, and a deployment does not fail for it.
    world.dana(with_port(2, 4).deploy(WEB)).unwrap();
    world.settle();
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
    assert_eq!(told(&world.state), all);

    // It is looked at again though nothing of its own changes.
    let mut watch = Watch::default();
    assert_eq!(watch.plan_app(&world.state, &name(WEB), world.state.time), None);
    assert_eq!(watch.due(&world.state), [name(WEB)]);

    world.enrol("us-3");
    world.settle();
    assert_eq!(told(&world.state), counts([("eu-2", 1), ("us-1", 1), ("us-2", 1), ("us-3", 1)]));
}

#[test]
fn more_replicas_come_before_those_that_have_a_place_for_the_time_being() {
    let mut world = deployed(&with_port(1, 3));
    let is_free = |node: &&str| !told(&world.state).contains_key(*node);
    let free = ["eu-1", "eu-2", "us-1", "us-2"].into_iter().find(is_free).unwrap();
    let drained = ["eu-1", "eu-2", "us-1", "us-2"].into_iter().find(|node| *node != free).unwrap();
    world.drain_or_resume(free);
    world.drain_or_resume(drained);
    assert_eq!(world.settle(), Vec::new());
    world.drain_or_resume(free);
    // Both want the last free node: the new one gets it.
    world.dana(with_port(1, 4).deploy(WEB)).unwrap();
    world.settle();
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
    assert_eq!(told(&world.state).len(), 4);
}

#[test]
fn an_only_node_keeps_what_it_has() {
    let mut world = deployed(&Spec::new(1, 2));
    for node in ["eu-1", "eu-2", "us-1", "us-2"] {
        world.drain_or_resume(node);
    }
    world.settle();
    assert_eq!(healthy(&world.state), 2);
    let left: Vec<_> = ["eu-1", "eu-2", "us-1", "us-2"].iter().flat_map(|node| whys(&world, node)).collect();
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|why| why.contains("every node is drained or pinned")), "{left:?}");
    // What is new has no place at all.
    world.dana(Spec::new(1, 3).deploy(WEB)).unwrap();
    world.settle();
    assert!(matches!(world.ended(WEB), Some(Outcome::Unplaced { .. })), "{:?}", world.ended(WEB));
    assert_eq!(healthy(&world.state), 2);
}

#[test]
fn what_does_not_become_healthy_elsewhere_leaves_what_serves_alone() {
    let mut world = deployed(&Spec::new(1, 2));
    world.sick.insert(image_digest(1));
    let node = world.state.slots(&name(WEB)).map(|(_, node)| node.to_string()).next().unwrap();
    // What runs has no check that would find it out.
    let serving = world.state.clone();
    world.silent.insert(name(&node));
    world.drain_or_resume(&node);
    world.settle();
    let why = whys(&world, &node).join("\n");
    assert!(why.contains("is not healthy yet"), "{why}");
    let (kept, id, _) = serving.assigned_to(&name(WEB)).find(|(on, ..)| on.as_str() == node).unwrap();
    assert!(world.state.is_healthy(kept, id), "{id} is still told to run");
}

#[test]
fn a_pinned_place_and_a_failed_app_stay_and_it_is_said_why() {
    let mut world = deployed(&Spec::new(1, 8));
    let first = world.state.seq;
    world.dana(Spec::new(2, 8).deploy(WEB)).unwrap();
    world.settle();
    world.dana(rollback(&format!("{WEB},region:eu"), first)).unwrap();
    world.settle();
    let all = told(&world.state);
    world.drain_or_resume("eu-1");
    world.settle();
    assert_eq!(told(&world.state), all, "a pinned place keeps what it was given");
    assert!(whys(&world, "eu-1")[0].contains("it is pinned in region:eu"), "{:?}", whys(&world, "eu-1"));
    world.drain_or_resume("us-1");
    world.settle();
    assert_eq!(told(&world.state).get("us-1"), None, "what is pinned nowhere goes");
    assert_eq!(healthy(&world.state), 8);

    let mut world = deployed(&Spec::new(1, 8));
    world.sick.insert(image_digest(2));
    world.dana(Spec::new(2, 8).deploy(WEB)).unwrap();
    world.settle();
    world.pass_the_deadline();
    world.drain_or_resume("us-1");
    world.settle();
    let why = whys(&world, "us-1").join("\n");
    assert!(why.contains("failed, and nothing of shop/web@prod changes"), "{why}");
}

#[test]
fn a_rollback_gives_a_drained_node_nothing_and_says_so() {
    let mut world = deployed(&Spec::new(1, 8));
    let first = world.state.seq;
    world.dana(Spec::new(2, 8).deploy(WEB)).unwrap();
    world.settle();
    world.drain_or_resume("eu-1");
    world.settle();
    world.dana(rollback(WEB, first)).unwrap();
    let told_of: Vec<_> = world
        .records
        .iter()
        .rev()
        .find_map(|record| match &record.event {
            Event::RolledBack { deviations, .. } => Some(deviations.clone()),
            _ => None,
        })
        .unwrap();
    assert_eq!(told_of.len(), 2, "{told_of:?}");
    assert!(
        told_of.iter().all(|it| it.why == "node eu-1 is drained; it is placed on another"),
        "{told_of:?}"
    );
    world.settle();
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
    assert_eq!(told(&world.state).get("eu-1"), None);
    assert_eq!(healthy(&world.state), 8);
}

#[test]
fn a_node_that_leaves_is_drained_no_more_if_it_comes_again() {
    let mut world = World::new();
    world.drain_or_resume("eu-1");
    assert!(world.state.is_drained(&name::<NodeName>("eu-1")));
    world.remove_node("eu-1");
    assert!(!world.state.is_drained(&name::<NodeName>("eu-1")));
    world.enrol("eu-1");
    assert!(!world.state.is_drained(&name::<NodeName>("eu-1")));
    assert_eq!(plan_app(&world.state, &name(WEB), world.state.time), None);
    let mut folded = State::default();
    world.records.iter().for_each(|record| stele_model::fold(&mut folded, record));
    assert_eq!(folded.digest(), world.state.digest());
}

#[test]
fn why_something_runs_where_it_does_leads_to_the_drain() {
    let mut world = deployed(&Spec::new(1, 8));
    world.drain_or_resume("eu-1");
    let drain = world.state.seq;
    let placed = world.look().unwrap();
    assert!(matches!(placed, Command::Place { .. }), "{placed:?}");
    assert_eq!(world.records.last().unwrap().header.cause, Some(drain));
}

const NODES: [&str; 4] = ["eu-1", "eu-2", "us-1", "us-2"];

/// Four replicas on eu-1, which is drained; of the others, these get something.
fn four_leave(open: &[&str], change: impl Fn(&mut Service)) -> World {
    let mut world = World::new();
    for other in &NODES[1..] {
        world.drain_or_resume(other);
    }
    let mut command = Spec::new(1, 4).deploy(WEB);
    if let Command::Deploy { release: ReleaseChoice::Content { release, .. }, .. } = &mut command {
        release.services.values_mut().for_each(change);
    }
    world.dana(command).unwrap();
    world.settle();
    assert_eq!(told(&world.state), counts([("eu-1", 4)]));
    for node in open {
        world.drain_or_resume(node);
    }
    world.drain_or_resume("eu-1");
    world
}

/// Makes the planner's next steps, without any report.
fn look_on(world: &mut World) {
    while world.look().is_some() {}
}

#[test]
fn what_takes_a_place_on_a_node_that_is_lost_meanwhile_costs_nobody_what_serves() {
    let mut world = four_leave(&["eu-2"], |_| {});
    look_on(&mut world);
    assert_eq!(told(&world.state), counts([("eu-1", 4), ("eu-2", 1)]), "one at a time");
    world.lose_or_return("eu-2");
    world.settle();
    assert_eq!(told(&world.state), counts([("eu-1", 4), ("eu-2", 1)]), "all four serve");
    assert!(
        whys(&world, "eu-1").iter().any(|why| why.contains("is not heard of")),
        "{:?}",
        whys(&world, "eu-1")
    );
    let mut resumed = world.clone();
    resumed.drain_or_resume("eu-1");
    resumed.settle();
    assert_eq!(told(&resumed.state), counts([("eu-1", 4), ("eu-2", 1)]), "nor does a resume");
    world.lose_or_return("eu-2");
    world.settle();
    assert_eq!(told(&world.state), counts([("eu-2", 4)]));
}

#[test]
fn what_would_go_to_a_node_that_is_drained_meanwhile_stays() {
    let mut world = four_leave(&["eu-2"], |_| {});
    // The first has a place there, and nothing yet.
    assert!(matches!(world.look(), Some(Command::Place { .. })));
    world.drain_or_resume("eu-2");
    world.settle();
    assert_eq!(told(&world.state), counts([("eu-1", 4)]));
    assert!(world.state.slots(&name(WEB)).all(|(_, node)| node.as_str() == "eu-1"));
    world.drain_or_resume("us-1");
    world.settle();
    assert_eq!(told(&world.state), counts([("us-1", 4)]));
}

#[test]
fn to_resume_a_node_calls_off_what_has_not_begun() {
    let mut world = four_leave(&["eu-2"], |_| {});
    look_on(&mut world);
    world.drain_or_resume("eu-1");
    world.settle();
    assert_eq!(told(&world.state), counts([("eu-1", 3), ("eu-2", 1)]));
}

#[test]
fn what_is_stopped_first_never_runs_twice() {
    let mut world = four_leave(&["eu-2"], |service| service.update.order = Order::StopFirst);
    let before = world.records.len();
    world.settle();
    assert_eq!(told(&world.state), counts([("eu-2", 4)]));
    for record in &world.records[before..] {
        let state = &world.states[&record.header.decision.last()];
        let mut slots = BTreeMap::new();
        for (_, id, _) in state.observed_of(&name(WEB)) {
            *slots.entry(&id.slot).or_insert(0) += 1;
        }
        assert!(slots.values().all(|runs| *runs == 1), "seq {}: {slots:?}", record.header.seq);
        assert!(healthy(state) >= 3, "one at a time");
    }
}

#[test]
fn what_writes_to_a_volume_stays_with_its_data() {
    let volume = || Volume {
        source: VolumeSource::Named("data".to_owned()),
        path: "/var/lib/db".to_owned(),
        read_only: false,
    };
    let mut world = four_leave(&["eu-2"], |service| {
        service.container.volumes.push(volume());
        service.update.max_unavailable = 4;
    });
    assert_eq!(world.settle(), Vec::new());
    assert_eq!(told(&world.state), counts([("eu-1", 4)]));
    assert!(whys(&world, "eu-1").iter().all(|why| why.contains("it writes to a volume")));
}

#[test]
fn another_service_that_is_new_has_the_last_port_before_one_that_has_a_place() {
    let mut world = World::new();
    for other in &NODES[1..] {
        world.drain_or_resume(other);
    }
    world.dana(with_port(1, 1).deploy(WEB)).unwrap();
    world.settle();
    world.drain_or_resume("eu-1");
    world.settle();
    world.drain_or_resume("eu-2");
    // Before it is looked at, another service wants the port, too, and its name comes later.
    let mut command = with_port(1, 1).deploy(WEB);
    if let Command::Deploy { release: ReleaseChoice::Content { release, .. }, .. } = &mut command {
        let web = release.services.values_mut().next().unwrap().clone();
        release.services.insert(name("zeta"), web);
    }
    world.dana(command).unwrap();
    world.settle();
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
    assert_eq!(told(&world.state), counts([("eu-1", 1), ("eu-2", 1)]));
}

#[test]
fn who_goes_back_is_told_what_leaves_a_drained_node_afterwards() {
    let mut world = deployed(&Spec::new(1, 8));
    let first = world.state.seq;
    world.dana(Spec::new(2, 8).deploy(WEB)).unwrap();
    world.settle();
    world.dana(rollback(&format!("{WEB},region:eu"), first)).unwrap();
    world.settle();
    world.drain_or_resume("eu-1");
    world.settle();
    assert_eq!(told(&world.state).get("eu-1"), Some(&2), "pinned");
    let mut strict = rollback(WEB, first);
    if let Command::Rollback { strict, .. } = &mut strict {
        *strict = true;
    }
    let refused = world.dana(strict).unwrap_err();
    assert!(format!("{refused:?}").contains("node eu-1 is drained"), "{refused:?}");
    world.dana(rollback(WEB, first)).unwrap();
    world.settle();
    assert_eq!(told(&world.state).get("eu-1"), None);
    assert_eq!(healthy(&world.state), 8);
}

#[test]
fn what_is_to_have_a_port_that_it_cannot_have_where_it_is_fails_as_on_any_node() {
    let mut world = World::new();
    for other in &NODES[1..] {
        world.drain_or_resume(other);
    }
    world.dana(with_port(1, 1).deploy("shop/cart@prod")).unwrap();
    world.dana(Spec::new(1, 1).deploy(WEB)).unwrap();
    world.settle();
    world.drain_or_resume("eu-1");
    world.settle();
    world.dana(with_port(2, 1).deploy(WEB)).unwrap();
    world.settle();
    assert!(matches!(world.ended(WEB), Some(Outcome::Unplaced { .. })), "{:?}", world.ended(WEB));
    assert_eq!(
        (told(&world.state), healthy(&world.state)),
        (counts([("eu-1", 2)]), 1),
        "what serves goes on"
    );
}

#[test]
fn what_is_not_healthy_elsewhere_is_waited_for_and_that_is_said() {
    let mut world = deployed(&Spec::new(1, 8));
    let sick: Vec<_> =
        world.state.assigned_to(&name(WEB)).map(|(node, id, _)| (node.clone(), id.clone())).collect();
    let (node, id) = sick.iter().find(|(node, _)| node.as_str() == "us-1").unwrap();
    world.tell(node, id, Phase::Unhealthy);
    world.silent.insert(node.clone());
    world.drain_or_resume("eu-1");
    world.settle();
    assert_eq!(told(&world.state).get("eu-1"), Some(&2));
    assert!(
        whys(&world, "eu-1").iter().all(|why| why.contains("the others of web")),
        "{:?}",
        whys(&world, "eu-1")
    );
    world.silent.clear();
    world.settle();
    assert_eq!(told(&world.state).get("eu-1"), None);
}

#[test]
fn what_ran_to_its_end_does_not_run_once_more_elsewhere() {
    let mut world = deployed(&Spec::new(1, 1));
    let (node, id, _) = world.state.assigned_to(&name(WEB)).next().unwrap();
    let (node, id) = (node.clone(), id.clone());
    world.tell(&node, &id, Phase::Completed);
    world.silent.insert(node.clone());
    world.drain_or_resume(node.as_str());
    assert_eq!(world.settle(), Vec::new());
    assert_eq!(whys(&world, node.as_str()), Vec::<String>::new(), "nothing runs there");
}
