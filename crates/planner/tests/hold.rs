//! Hold: a place that goes back, or on again, takes the rest of its app on with nothing that did not succeed.

#![allow(clippy::unwrap_used)]

mod world;

use stele_model::event::Outcome;
use stele_model::{AppEnv, Command, Decision, InstanceId, NodeName, Time};
use world::{Spec, World, image_digest, name, rollback};

const WEB: &str = "shop/web@prod";

/// Four instances of one image, and then of another that has not come to them; the seq at which the first was in force.
fn world() -> (World, u64) {
    let mut world = World::new();
    world.dana(Spec::new(1, 4).deploy(WEB)).unwrap();
    world.settle();
    let good = world.state.seq;
    world.dana(Spec::new(2, 4).deploy(WEB)).unwrap();
    (world, good)
}

/// The same, and the second image failed where it came first; the seq after it.
fn failed() -> (World, u64, u64) {
    let (mut world, good) = world();
    world.sick.insert(image_digest(2));
    world.settle();
    pass_the_deadline(&mut world);
    assert!(matches!(ended(&world), Some(Outcome::Failed { .. })));
    let bad = world.state.seq;
    (world, good, bad)
}

/// Lets the time pass in which an instance has to become healthy.
fn pass_the_deadline(world: &mut World) {
    world.state.time = Time(world.state.time.0 + 61_000_000);
    world.settle();
}

fn ended(world: &World) -> Option<Outcome> {
    let (_, deployment) = world.state.latest_deployment(&name(WEB)).unwrap();
    deployment.finished.as_ref().map(|(_, _, outcome)| outcome.clone())
}

fn back(world: &mut World, region: &str, point: u64) -> Decision {
    let decision = world.dana(rollback(&format!("{WEB},region:{region}"), point)).unwrap().unwrap();
    world.settle();
    assert_eq!(ended(world), Some(Outcome::Succeeded), "{region}");
    decision
}

/// The numbers of the releases that nodes of a region are told to run.
fn releases_in(world: &World, region: &str) -> Vec<u32> {
    let app_env = name::<AppEnv>(WEB);
    let here = world.state.assigned_to(&app_env).filter(|(node, ..)| node.as_str().starts_with(region));
    let mut numbers: Vec<_> =
        here.map(|(.., to)| world.state.release_number(&to.revision.release).unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

/// What nodes of a region are told to run.
fn assigned_in(world: &World, region: &str) -> Vec<(NodeName, InstanceId)> {
    let of_app =
        world.state.assigned_to(&name::<AppEnv>(WEB)).map(|(node, id, _)| (node.clone(), id.clone()));
    of_app.filter(|(node, _)| node.as_str().starts_with(region)).collect()
}

#[test]
fn a_place_that_goes_back_takes_no_other_on_with_what_failed() {
    for (back, other) in [("eu", "us"), ("us", "eu")] {
        let (mut world, good, _) = failed();
        let (went_back, stays) = (assigned_in(&world, back), assigned_in(&world, other));
        assert_eq!((went_back.len() + stays.len(), world.settle()), (5, Vec::new()), "it stopped at one");

        for second in [false, true] {
            world.dana(rollback(&format!("{WEB},region:{back}"), good)).unwrap();
            world.settle();
            pass_the_deadline(&mut world);
            assert_eq!(ended(&world), Some(Outcome::Succeeded), "{back}");
            assert_eq!(assigned_in(&world, back).len(), 2, "{back}");
            assert_eq!(assigned_in(&world, other), stays, "{back}, again: {second}");
        }
        // Somebody decides for all of it.
        world.dana(rollback(WEB, good)).unwrap();
        world.settle();
        assert_eq!(ended(&world), Some(Outcome::Succeeded));
        assert_eq!(assigned_in(&world, "").len(), 4);
    }
}

#[test]
fn a_place_that_goes_back_takes_no_other_on_with_what_was_on_its_way() {
    let (mut world, good) = world();
    let stays = assigned_in(&world, "us");
    world.dana(rollback(&format!("{WEB},region:eu"), good)).unwrap();
    world.settle();
    assert_eq!((ended(&world), assigned_in(&world, "us")), (Some(Outcome::Succeeded), stays));
    // That is no success of what is still to be wherever no place is pinned.
    let app_env = name::<AppEnv>(WEB);
    assert!(!world.state.timeline(&app_env)[0].good);
}

#[test]
fn a_place_that_goes_on_again_goes_on_alone() {
    let (mut world, good, bad) = failed();
    let (went_back, stays) = (back(&mut world, "eu", good), releases_in(&world, "us"));
    // What was wrong with it is no longer.
    world.sick.clear();
    let mut again = world.clone();
    again.undo(&[went_back]).unwrap();
    back(&mut world, "eu", bad);
    again.settle();
    for world in [world, again] {
        assert_eq!((releases_in(&world, "eu"), releases_in(&world, "us")), (vec![2, 2], stays.clone()));
        assert_eq!(ended(&world), Some(Outcome::Succeeded));
        assert!(world.state.hold(&name(WEB)).is_some_and(|hold| hold.failed));
    }
}

#[test]
fn of_two_places_that_went_back_one_goes_on_again() {
    let (mut world, good, _) = failed();
    let decisions = ["eu", "us"].map(|region| back(&mut world, region, good));
    world.sick.clear();
    world.undo(&decisions[..1]).unwrap();
    world.settle();
    assert_eq!((releases_in(&world, "eu"), releases_in(&world, "us")), (vec![2, 2], vec![1, 1]));
    // Who deploys decides for all of it.
    world.dana(Command::Unlatch { app_env: name(WEB) }).unwrap();
    world.dana(Spec::new(2, 4).deploy(WEB)).unwrap();
    world.settle();
    assert_eq!((releases_in(&world, "eu"), releases_in(&world, "us")), (vec![2, 2], vec![2, 2]));
    assert_eq!((world.state.hold(&name(WEB)), world.state.pins(&name(WEB)).count()), (None, 0));
}

#[test]
fn what_was_broken_off_goes_on_once_nothing_is_pinned() {
    let (mut world, good) = world();
    let went_back = back(&mut world, "eu", good);
    assert!(world.state.hold(&name(WEB)).is_some_and(|hold| !hold.failed));
    let before = world.dana(rollback(&format!("{WEB},region:eu"), good));
    assert_eq!(before, Ok(None), "it is so already");
    world.undo(&[went_back]).unwrap();
    world.settle();
    assert_eq!((releases_in(&world, ""), world.state.hold(&name(WEB))), (vec![2, 2, 2, 2], None));
    assert_eq!(ended(&world), Some(Outcome::Succeeded));
}
