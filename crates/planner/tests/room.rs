//! Room: what a node has no room for goes elsewhere, waits, or is told of, and is never started in vain.

#![allow(clippy::unwrap_used)]

mod world;

use std::collections::BTreeMap;

use stele_model::event::{AssignmentChange, Contacts, Outcome};
use stele_model::ids::ServiceName;
use stele_model::limits::INSTANCES_PER_NODE_MAX;
use stele_model::release::{Placement, Port, Protocol, Service};
use stele_model::{AppEnv, Command, FlatMap, ReleaseChoice};
use world::{Place, Spec, World, image_digest, name, request, rollback};

const WEB: &str = "shop/web@prod";
const CART: &str = "shop/cart@prod";
const OTHER: &str = "shop/other@prod";

/// A service of one instance, with a port of its host, on one node.
fn service(app_env: &str, image: u8, port: Option<u16>) -> Service {
    let mut service =
        Spec::new(image, 1).release(&name(app_env)).services[&name::<ServiceName>("web")].clone();
    let publish = |host| Port { container: 8080, host: Some(host), protocol: Protocol::Tcp };
    service.container.ports = port.map(publish).into_iter().collect();
    service.placement = Placement::Replicas { count: 1, nodes: name("node=eu-1") };
    service
}

fn deploy<const N: usize>(app_env: &str, services: [(&str, Service); N]) -> Command {
    let app_env: AppEnv = name(app_env);
    let mut release = Spec::new(1, 1).release(&app_env);
    release.services = services.into_iter().map(|(service, it)| (name(service), it)).collect();
    let images = FlatMap::new();
    let release = ReleaseChoice::Content { release, images };
    Command::Deploy { app_env, contacts: Some(Contacts::default()), release, again: false, barrier: None }
}

/// So many on the node.
fn many(image: u8, count: usize) -> Service {
    let mut many = service(WEB, image, None);
    let count = u32::try_from(count).unwrap();
    many.placement = Placement::Replicas { count, nodes: name("node=eu-1") };
    many.update.max_unavailable = 100;
    many
}

fn unplaced(world: &World, app_env: &str) -> String {
    match world.ended(app_env) {
        Some(Outcome::Unplaced { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

/// How often each node stands for an app's slots.
fn nodes(world: &World, app_env: &str) -> BTreeMap<String, usize> {
    let mut nodes = BTreeMap::new();
    for (_, node) in world.state.slots(&name(app_env)) {
        *nodes.entry(node.to_string()).or_default() += 1;
    }
    nodes
}

/// How many are begun and withdrawn by each of the planner's steps.
fn steps(commands: &[Command]) -> Vec<(usize, usize)> {
    let assigned = commands.iter().filter_map(|command| match command {
        Command::Assign { changes, .. } => {
            let begun = changes.iter().filter(|it| matches!(it, AssignmentChange::Assign { .. })).count();
            Some((begun, changes.len() - begun))
        }
        _ => None,
    });
    assigned.collect()
}

#[test]
fn what_is_on_a_full_node_is_replaced_and_nothing_is_added() {
    let mut world = World::new();
    world.dana(deploy(WEB, [("web", many(1, INSTANCES_PER_NODE_MAX))])).unwrap();
    world.settle();
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
    let full = "eu-1: it has 1000 instances, the most it may have";
    world.dana(deploy(CART, [("web", service(CART, 1, None))])).unwrap();
    world.settle();
    assert_eq!(unplaced(&world, CART), format!("no matching node has room ({full})"));
    world.dana(Spec { place: Place::Everywhere, ..Spec::new(1, 1) }.deploy(CART)).unwrap();
    world.settle();
    assert_eq!(unplaced(&world, CART), format!("not every matching node has room ({full})"));

    // Starting the new one first would be one too many.
    world.dana(deploy(WEB, [("web", many(2, INSTANCES_PER_NODE_MAX))])).unwrap();
    let commands = world.settle();
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
    assert!(steps(&commands).iter().all(|step| *step == (100, 100)), "{:?}", steps(&commands));
}

#[test]
fn what_waits_for_room_does_not_wait_for_ever() {
    let mut world = World::new();
    let few = INSTANCES_PER_NODE_MAX - 1;
    world.dana(deploy(WEB, [("web", many(1, few))])).unwrap();
    world.settle();
    world.sick.insert(image_digest(2));
    world.dana(deploy(WEB, [("web", many(2, few))])).unwrap();
    world.settle();
    world.pass_the_deadline();
    assert!(
        matches!(world.ended(WEB), Some(Outcome::Failed { .. })),
        "the last one stands beside the others"
    );
    world.dana(deploy(CART, [("web", service(CART, 1, None))])).unwrap();
    world.settle();
    assert_eq!(world.ended(CART), None);
    world.pass_the_deadline();
    assert_eq!(unplaced(&world, CART), "eu-1 has 1000 instances, the most it may have");
}

#[test]
fn a_port_that_is_taken_on_one_node_of_every_one_is_told() {
    let mut world = World::new();
    world.dana(deploy(WEB, [("web", service(WEB, 1, Some(80)))])).unwrap();
    world.settle();
    let everywhere = Spec { place: Place::Everywhere, port: Some(80), ..Spec::new(1, 1) };
    world.dana(everywhere.deploy(CART)).unwrap();
    world.settle();
    let why = "not every matching node has room (eu-1: port 80 is shop/web@prod/web.0's)";
    assert_eq!(unplaced(&world, CART), why);

    world.dana(Command::Remove { app_env: name(WEB) }).unwrap();
    world.settle();
    world.dana(Spec { image: 2, ..everywhere }.deploy(CART)).unwrap();
    world.settle();
    assert_eq!((world.ended(CART), nodes(&world, CART).len()), (Some(Outcome::Succeeded), 4));
    // Who joins later has one, too.
    world.enrol("eu-3");
    world.settle();
    assert_eq!(world.state.assigned_to(&name(CART)).count(), 5);
}

#[test]
fn a_port_that_goes_from_one_service_to_another_is_free_first() {
    let mut world = World::new();
    world.dana(deploy(WEB, [("web", service(WEB, 1, Some(80)))])).unwrap();
    world.settle();
    world.dana(deploy(WEB, [("frontend", service(WEB, 1, Some(80)))])).unwrap();
    let mut stuck = world.clone();
    assert_eq!(steps(&world.settle()), [(0, 1), (1, 0)]);
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));

    stuck.stuck.insert(name("eu-1"));
    assert_eq!(steps(&stuck.settle()), [(0, 1)]);
    stuck.pass(131);
    stuck.settle();
    let Some(Outcome::Failed { reason, .. }) = stuck.ended(WEB) else { panic!("it waits for ever") };
    assert!(reason.ends_with("the device is busy"), "{reason}");

    // Two that swap theirs.
    let both = |one, other| [("a", service(WEB, 1, Some(one))), ("b", service(WEB, 1, Some(other)))];
    world.dana(deploy(WEB, both(80, 81))).unwrap();
    world.settle();
    world.dana(deploy(WEB, both(81, 80))).unwrap();
    world.settle();
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
}

#[test]
fn a_port_that_goes_from_one_app_to_another_is_free_first() {
    let mut world = World::new();
    world.dana(deploy(WEB, [("web", service(WEB, 1, Some(80)))])).unwrap();
    world.settle();
    world.stuck.insert(name("eu-1"));
    world.dana(Command::Remove { app_env: name(WEB) }).unwrap();
    world.settle();
    world.dana(deploy(CART, [("web", service(CART, 1, Some(80)))])).unwrap();
    world.settle();
    assert_eq!(world.state.assigned_to(&name(CART)).count(), 0);
    let mut stuck = world.clone();
    world.stuck.clear();
    world.settle();
    assert_eq!(world.ended(CART), Some(Outcome::Succeeded));

    // Its own deadline, and the other's time to stop.
    stuck.pass_the_deadline();
    assert_eq!(stuck.ended(CART), None);
    stuck.pass(10);
    stuck.settle();
    let why = unplaced(&stuck, CART);
    assert!(why.starts_with("port 80 of eu-1 is still shop/web@prod/web.0-"), "{why}");
}

#[test]
fn slots_that_change_places_do_so_one_after_the_other() {
    let mut world = World::new();
    let ported = |image| Spec { port: Some(80), ..Spec::new(image, 4) };
    world.dana(ported(1).deploy(WEB)).unwrap();
    world.settle();
    // As after a rollback to where they stood otherwise.
    let slots: Vec<_> =
        world.state.slots(&name(WEB)).map(|(slot, node)| (slot.clone(), node.clone())).collect();
    let moved = slots.iter().enumerate().map(|(at, (slot, _))| {
        let (_, node) = &slots[(at + 1) % slots.len()];
        (slot.clone(), Some(node.clone()))
    });
    world.dana(ported(2).deploy(WEB)).unwrap();
    let place = Command::Place { app_env: name(WEB), slots: moved.collect() };
    world.ask(&request("system", place)).unwrap();
    let app_env: AppEnv = name(WEB);
    for _ in 0..100 {
        if world.look().is_none() {
            world.report();
        }
        let serving =
            world.state.assigned_to(&app_env).filter(|(node, id, _)| world.state.is_healthy(node, id));
        assert!(serving.count() >= 3, "one at a time is down");
    }
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
}

#[test]
fn what_made_way_is_down_until_it_is_healthy_again() {
    let mut world = World::new();
    let release = |image, a, b| {
        let mut both = service(WEB, image, b);
        both.placement = Placement::Replicas { count: 2, nodes: name("region=eu") };
        deploy(WEB, [("a", service(WEB, image, Some(a))), ("b", both)])
    };
    world.dana(release(1, 80, Some(81))).unwrap();
    world.settle();
    // The first of two has the port that another service gets, and the second could go on at once.
    world.dana(release(2, 81, None)).unwrap();
    let app_env: AppEnv = name(WEB);
    for _ in 0..20 {
        if world.look().is_none() {
            world.report();
        }
        let serves = world
            .state
            .assigned_to(&app_env)
            .filter(|(node, id, _)| id.slot.service.as_str() == "b" && world.state.is_healthy(node, id));
        assert!(serves.count() >= 1, "one at a time is down");
    }
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
}

#[test]
fn what_was_replaced_in_vain_keeps_no_port_from_the_next() {
    let mut world = World::new();
    world.dana(deploy(WEB, [("web", service(WEB, 1, Some(80)))])).unwrap();
    world.settle();
    // The node keeps what serves until the next one can start, and that never can.
    world.stuck.insert(name("eu-1"));
    world.sick.insert(image_digest(2));
    world.dana(deploy(WEB, [("web", service(WEB, 2, Some(80)))])).unwrap();
    world.settle();
    world.pass_the_deadline();
    assert!(matches!(world.ended(WEB), Some(Outcome::Failed { .. })));
    world.dana(deploy(WEB, [("web", service(WEB, 3, Some(80)))])).unwrap();
    assert_eq!(steps(&world.settle()), [(1, 1)]);
}

#[test]
fn what_serves_a_slot_is_what_the_next_one_replaces() {
    let mut world = World::new();
    world.dana(deploy(WEB, [("web", service(WEB, 1, None))])).unwrap();
    world.settle();
    // It fails beside the one that serves, which needs no port.
    world.sick.insert(image_digest(2));
    let mut failed = service(WEB, 2, None);
    failed.container.user = Some("nobody".to_owned());
    world.dana(deploy(WEB, [("web", failed)])).unwrap();
    world.settle();
    world.pass_the_deadline();
    let app_env: AppEnv = name(WEB);
    let serves = |world: &World| {
        let told = world.state.assigned_to(&app_env).filter(|(node, id, _)| world.state.is_healthy(node, id));
        told.map(|(_, id, _)| id.clone()).collect::<Vec<_>>()
    };
    let before = serves(&world);
    assert_eq!((world.state.assigned_to(&app_env).count(), before.len()), (2, 1));
    world.dana(deploy(WEB, [("web", service(WEB, 3, Some(80)))])).unwrap();
    assert_eq!(steps(&world.settle()), [(1, 2)], "neither can be beside the new one");
    let replaced: Vec<_> =
        world.state.assigned_to(&app_env).filter_map(|(.., to)| to.replaces.clone()).collect();
    assert_eq!(replaced, before);
}

#[test]
fn a_node_that_is_lost_is_not_waited_for() {
    let mut world = World::new();
    let both = |one, other| [("a", service(WEB, 1, Some(one))), ("b", service(WEB, 1, Some(other)))];
    world.dana(deploy(WEB, both(80, 81))).unwrap();
    world.settle();
    world.lose_or_return("eu-1");
    world.dana(deploy(WEB, both(81, 80))).unwrap();
    let commands = world.settle();
    assert_eq!(steps(&commands).iter().map(|(begun, _)| begun).sum::<usize>(), 2, "it is told all there is");
}

#[test]
fn what_cannot_stay_beside_another_is_placed_anew() {
    let mut world = World::new();
    for node in ["eu-1", "us-1"] {
        world.label(node, true);
    }
    let crowded = Spec { place: Place::Ssd, ..Spec::new(1, 4) };
    world.dana(crowded.deploy(WEB)).unwrap();
    world.settle();
    assert_eq!(nodes(&world, WEB).into_values().collect::<Vec<_>>(), [2, 2]);

    let mut ported = world.clone();
    ported.dana(Spec { port: Some(80), place: Place::Anywhere, ..crowded.clone() }.deploy(WEB)).unwrap();
    ported.settle();
    assert_eq!(nodes(&ported, WEB).into_values().collect::<Vec<_>>(), [1, 1, 1, 1]);
    assert_eq!(ported.ended(WEB), Some(Outcome::Succeeded));

    let mut every = world.clone();
    every.dana(Spec { place: Place::EverySsd, ..crowded }.deploy(WEB)).unwrap();
    every.settle();
    assert_eq!(nodes(&every, WEB).into_values().collect::<Vec<_>>(), [1, 1]);
    assert_eq!(every.ended(WEB), Some(Outcome::Succeeded));
    assert_eq!(every.state.assigned_to(&name(WEB)).count(), 2);
}

#[test]
fn what_wants_the_port_of_another_app_moves() {
    let mut world = World::new();
    world.dana(deploy(CART, [("web", service(CART, 1, Some(80)))])).unwrap();
    world.settle();
    world.dana(deploy(WEB, [("web", service(WEB, 1, None))])).unwrap();
    world.settle();
    assert_eq!(nodes(&world, WEB)["eu-1"], 1);
    world.dana(Spec { port: Some(80), ..Spec::new(1, 1) }.deploy(WEB)).unwrap();
    world.settle();
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
    assert!(!nodes(&world, WEB).contains_key("eu-1") && nodes(&world, WEB).len() == 1);
    // Both have what they were told, and nobody moves again.
    assert_eq!(world.settle(), Vec::new());
}

#[test]
fn what_has_ended_keeps_no_port_though_it_cannot_be_removed() {
    let mut world = World::new();
    world.dana(deploy(WEB, [("web", service(WEB, 1, Some(80)))])).unwrap();
    world.settle();
    (world.stuck, world.ends) = ([name("eu-1")].into(), true);
    world.dana(Command::Remove { app_env: name(WEB) }).unwrap();
    world.settle();
    world.dana(deploy(CART, [("web", service(CART, 1, Some(80)))])).unwrap();
    world.settle();
    assert_eq!(world.ended(CART), Some(Outcome::Succeeded));
}

#[test]
fn what_moves_without_a_deployment_waits_for_nothing() {
    let mut world = World::new();
    let move_to = |world: &mut World, from: &str, to: &str| {
        world.label(to, true);
        world.label(from, false);
        world.settle();
    };
    world.label("eu-1", true);
    world.dana(Spec { place: Place::Ssd, port: Some(80), ..Spec::new(1, 1) }.deploy(WEB)).unwrap();
    world.settle();
    // It cannot be removed where it was, and nobody would tell that it waits there for itself.
    world.stuck.insert(name("eu-1"));
    move_to(&mut world, "eu-1", "us-1");
    move_to(&mut world, "us-1", "eu-1");
    let told: Vec<_> = world.state.assigned_to(&name(WEB)).map(|(node, ..)| node.to_string()).collect();
    assert_eq!(told, ["eu-1"]);
}

#[test]
fn a_slot_on_a_lost_node_counts_for_no_budget() {
    let mut world = World::new();
    let both = |one, other| {
        let services = [("a", one), ("b", other)].map(|(called, port)| {
            let mut service = service(WEB, 1, Some(port));
            service.placement = Placement::Replicas { count: 2, nodes: name("region=eu") };
            (called, service)
        });
        deploy(WEB, services)
    };
    world.dana(both(80, 81)).unwrap();
    world.settle();
    world.lose_or_return("eu-2");
    world.dana(both(81, 80)).unwrap();
    world.settle();
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
}

#[test]
fn nobody_elses_comings_and_goings_make_it_wait_longer() {
    let mut world = World::new();
    world.dana(deploy(WEB, [("web", service(WEB, 1, Some(80)))])).unwrap();
    world.dana(deploy(OTHER, [("web", service(OTHER, 1, None))])).unwrap();
    world.settle();
    world.stuck.insert(name("eu-1"));
    world.dana(Command::Remove { app_env: name(WEB) }).unwrap();
    world.settle();
    world.dana(deploy(CART, [("web", service(CART, 1, Some(80)))])).unwrap();
    world.pass(60);
    world.dana(Command::Remove { app_env: name(OTHER) }).unwrap();
    world.settle();
    assert_eq!(world.ended(CART), None, "what holds the port has its time to stop");
    world.pass(11);
    world.settle();
    assert!(unplaced(&world, CART).starts_with("port 80 of eu-1 is still shop/web@prod/web.0-"));
}

#[test]
fn what_a_rollback_put_back_stays_whatever_is_deployed_before_it_is_done() {
    let mut world = World::new();
    // The planner looks at it first.
    world.dana(deploy(CART, [("web", service(CART, 1, Some(80)))])).unwrap();
    world.settle();
    let good = world.state.seq;
    let anywhere = |port| {
        let mut service = service(CART, 2, port);
        service.placement = Placement::Replicas { count: 1, nodes: name("") };
        service
    };
    world.dana(deploy(CART, [("web", anywhere(None))])).unwrap();
    world.dana(deploy(WEB, [("web", service(WEB, 1, None))])).unwrap();
    world.settle();
    let before = world.states[&good].target_digest(&name(CART));

    world.dana(rollback(CART, good)).unwrap();
    world.dana(deploy(WEB, [("web", anywhere(Some(80)))])).unwrap();
    world.settle();
    assert_eq!(world.state.target_digest(&name(CART)), before);
    assert_eq!((world.ended(CART), world.ended(WEB)), (Some(Outcome::Succeeded), Some(Outcome::Succeeded)));
    assert!(!nodes(&world, WEB).contains_key("eu-1"));
}

#[test]
fn what_is_held_down_counts_for_those_who_make_way_too() {
    let mut world = World::new();
    let both = |image, one, other| {
        let services = [("a", one), ("b", other)].map(|(called, port)| {
            let mut service = service(WEB, image, Some(port));
            service.placement = Placement::Replicas { count: 4, nodes: name("") };
            service.update.max_unavailable = 2;
            (called, service)
        });
        deploy(WEB, services)
    };
    world.dana(both(1, 80, 81)).unwrap();
    world.settle();
    let good = world.state.seq;
    world.dana(both(2, 81, 80)).unwrap();
    world.settle();
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
    world.sick.insert(image_digest(3));
    world.dana(both(3, 81, 80)).unwrap();
    world.settle();
    world.pass_the_deadline();
    assert!(matches!(world.ended(WEB), Some(Outcome::Failed { .. })));
    // What failed in one region is well by now.
    world.silent.extend(["us-1", "us-2"].map(name));
    world.sick.clear();
    world.settle();

    world.dana(rollback("shop/web@prod,region:eu", good)).unwrap();
    let Some(Command::Assign { changes, .. }) = world.look() else { panic!("nothing goes back") };
    let withdrawn: Vec<_> = changes
        .iter()
        .filter_map(|change| match change {
            AssignmentChange::Withdraw { instance, .. } => Some(instance.slot.service.to_string()),
            AssignmentChange::Assign { .. } => None,
        })
        .collect();
    assert_eq!(withdrawn, ["b"], "another one is down in the other region");
    world.settle();
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
}
