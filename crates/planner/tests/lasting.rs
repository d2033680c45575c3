//! What serves goes on serving until what comes instead of it is well, also where that is not in its slot.

#![allow(clippy::unwrap_used)]

mod world;

use stele_model::event::{Contacts, Outcome};
use stele_model::release::{Order, Placement, Service, Volume, VolumeSource};
use stele_model::{AppEnv, Command, FlatMap, ReleaseChoice};
use world::{Place, Spec, World, image_digest, name, rollback};

const WEB: &str = "shop/web@prod";

/// A release of one service of four instances.
fn deploy(service: &str, image: u8, port: Option<u16>) -> Command {
    let app_env: AppEnv = name(WEB);
    let mut release = Spec { port, ..Spec::new(image, 4) }.release(&app_env);
    release.services = release.services.into_iter().map(|(_, it)| (name(service), it)).collect();
    let release = ReleaseChoice::Content { release, images: FlatMap::new() };
    Command::Deploy { app_env, contacts: Some(Contacts::default()), release, again: false, barrier: None }
}

/// How many instances of a service are healthy.
fn healthy(world: &World, service: &str) -> usize {
    let told = world.state.assigned_to(&name(WEB));
    let told = told.filter(|(node, id, _)| world.state.is_healthy(node, id));
    told.filter(|(_, id, _)| id.slot.service.as_str() == service).count()
}

/// Has the planner and the nodes do one thing after the other; the least that was healthy meanwhile, of all services.
fn least(world: &mut World, services: [&str; 2]) -> usize {
    let mut least = usize::MAX;
    for _ in 0..60 {
        if world.look().is_none() {
            world.report();
        }
        least = least.min(services.iter().map(|service| healthy(world, service)).sum());
    }
    least
}

fn deployed() -> World {
    let mut world = World::new();
    world.dana(deploy("web", 1, None)).unwrap();
    world.settle();
    assert_eq!(healthy(&world, "web"), 4);
    world
}

#[test]
fn a_service_that_is_renamed_serves_until_the_new_one_does() {
    let mut world = deployed();
    world.dana(deploy("frontend", 2, None)).unwrap();
    assert_eq!(least(&mut world, ["web", "frontend"]), 4);
    assert_eq!((healthy(&world, "web"), healthy(&world, "frontend")), (0, 4));
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
}

#[test]
fn a_release_that_does_not_work_stops_nothing_that_does() {
    let world = deployed();
    let renamed = deploy("frontend", 2, None);
    let fewer = Spec::new(2, 1).deploy(WEB);
    for change in [renamed, fewer] {
        let mut world = world.clone();
        let good = world.state.seq;
        world.sick.insert(image_digest(2));
        world.dana(change).unwrap();
        world.settle();
        world.pass_the_deadline();
        assert!(matches!(world.ended(WEB), Some(Outcome::Failed { .. })));
        assert!(healthy(&world, "web") >= 3, "one at most is replaced");
        // Nothing has to start to go back but what was replaced.
        world.dana(rollback(WEB, good)).unwrap();
        world.settle();
        assert_eq!((healthy(&world, "web"), healthy(&world, "frontend")), (4, 0));
        assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
    }
}

#[test]
fn fewer_replicas_are_fewer_once_those_are_well() {
    let mut world = deployed();
    world.dana(Spec::new(2, 1).deploy(WEB)).unwrap();
    assert_eq!(world.look().map(|command| matches!(command, Command::Place { .. })), Some(true));
    world.look().unwrap();
    assert_eq!(healthy(&world, "web"), 4, "the first one is started beside them");
    world.settle();
    assert_eq!(healthy(&world, "web"), 1);
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
}

#[test]
fn a_port_goes_from_one_service_to_another_on_one_node_after_the_other() {
    let mut world = World::new();
    world.dana(deploy("web", 1, Some(80))).unwrap();
    world.settle();
    world.dana(deploy("frontend", 2, Some(80))).unwrap();
    assert_eq!(least(&mut world, ["web", "frontend"]), 3, "one at a time is down");
    assert_eq!((healthy(&world, "web"), healthy(&world, "frontend")), (0, 4));
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
}

#[test]
fn a_full_node_makes_room_for_what_comes() {
    let mut world = World::new();
    let many = u32::try_from(stele_model::limits::INSTANCES_PER_NODE_MAX).unwrap();
    let of = |service: &str, image| {
        let mut change = deploy(service, image, None);
        if let Command::Deploy { release: ReleaseChoice::Content { release, .. }, .. } = &mut change {
            let one: &mut Service = release.services.values_mut().next().unwrap();
            one.placement = Placement::Replicas { count: many, nodes: name("node=eu-1") };
        }
        change
    };
    world.dana(of("web", 1)).unwrap();
    world.settle();
    world.dana(of("frontend", 2)).unwrap();
    world.settle();
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
    assert_eq!(healthy(&world, "frontend"), many as usize);
}

#[test]
fn what_runs_on_every_node_that_matches_is_not_stopped_by_a_label_that_none_has() {
    let mut world = World::new();
    for node in ["eu-1", "us-1"] {
        world.label(node, true);
    }
    // To match no node from the start on is no mistake: one may join.
    let every = Spec { place: Place::EverySsd, ..Spec::new(1, 1) };
    world.dana(every.deploy(WEB)).unwrap();
    world.settle();
    assert_eq!((world.ended(WEB), healthy(&world, "web")), (Some(Outcome::Succeeded), 2));
    let mut mistyped = every.release(&name(WEB));
    for service in mistyped.services.values_mut() {
        service.placement = Placement::Every { nodes: name("disk=sdd") };
    }
    let release = ReleaseChoice::Content { release: mistyped, images: FlatMap::new() };
    let mistyped = Command::Deploy {
        app_env: name(WEB),
        contacts: Some(Contacts::default()),
        release,
        again: false,
        barrier: None,
    };
    let mut fresh = World::new();
    fresh.dana(mistyped.clone()).unwrap();
    fresh.settle();
    assert_eq!(fresh.ended(WEB), Some(Outcome::Succeeded));

    world.dana(mistyped).unwrap();
    world.settle();
    let Some(Outcome::Unplaced { reason, .. }) = world.ended(WEB) else { panic!("{:?}", world.ended(WEB)) };
    assert_eq!(reason, "no node matches \"disk=sdd\", and what runs would be stopped");
    assert_eq!(healthy(&world, "web"), 2);
}

#[test]
fn what_must_not_be_beside_another_makes_way_first() {
    let volume = |one: &mut Service| {
        let source = VolumeSource::Named("data".to_owned());
        one.container.volumes = vec![Volume { source, path: "/data".to_owned(), read_only: false }];
    };
    let stop_first = |one: &mut Service| one.update.order = Order::StopFirst;
    for make in [volume, stop_first] {
        let mut world = World::new();
        let of = |service: &str, image| {
            let mut change = deploy(service, image, None);
            if let Command::Deploy { release: ReleaseChoice::Content { release, .. }, .. } = &mut change {
                let one: &mut Service = release.services.values_mut().next().unwrap();
                one.placement = Placement::Replicas { count: 1, nodes: name("node=eu-1") };
                make(one);
            }
            change
        };
        world.dana(of("db", 1)).unwrap();
        world.settle();
        world.dana(of("database", 2)).unwrap();
        for _ in 0..20 {
            if world.look().is_none() {
                world.report();
            }
            assert!(healthy(&world, "db") + healthy(&world, "database") <= 1, "two at once");
        }
        assert_eq!((world.ended(WEB), healthy(&world, "database")), (Some(Outcome::Succeeded), 1));
    }
}

#[test]
fn who_goes_back_to_a_label_that_none_has_goes_back_with_the_rest() {
    let mut world = World::new();
    world.label("eu-1", true);
    let every = Spec { place: Place::EverySsd, cache: true, ..Spec::new(1, 1) };
    world.dana(every.deploy(WEB)).unwrap();
    world.settle();
    let good = world.state.seq;
    world.dana(Spec { place: Place::Everywhere, ..Spec::new(2, 1) }.deploy(WEB)).unwrap();
    world.settle();
    world.label("eu-1", false);
    world.settle();
    world.dana(rollback(WEB, good)).unwrap();
    world.settle();
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
    assert_eq!((healthy(&world, "web"), healthy(&world, "cache")), (0, 1));
}
