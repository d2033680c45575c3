//! Hold: a place that goes back, or on again, takes the rest of its app on with nothing that did not succeed.

#![allow(clippy::unwrap_used)]

mod world;

use std::collections::BTreeSet;

use stele_model::decide::plan_rollback;
use stele_model::event::Outcome;
use stele_model::limits::DEPLOYMENTS_PER_APP_MAX;
use stele_model::{AppEnv, Command, Decision, InstanceId, NodeName, Point, Rejection, Scope};
use world::{Place, Spec, World, image_digest, name, rollback};

const WEB: &str = "shop/web@prod";

/// Four instances of one image, and then of another that has not come to them; the seq at which the first was in force.
fn world() -> (World, u64) {
    world_of(4)
}

fn world_of(second: u32) -> (World, u64) {
    let mut world = World::new();
    world.dana(Spec::new(1, 4).deploy(WEB)).unwrap();
    world.settle();
    let good = world.state.seq;
    world.dana(Spec::new(2, second).deploy(WEB)).unwrap();
    (world, good)
}

/// The same, and the second image failed where it came first; the seq after it.
fn failed() -> (World, u64, u64) {
    failed_at(4)
}

fn failed_at(second: u32) -> (World, u64, u64) {
    let (mut world, good) = world_of(second);
    world.sick.insert(image_digest(2));
    world.settle();
    world.pass_the_deadline();
    assert!(matches!(world.ended(WEB), Some(Outcome::Failed { .. })));
    let bad = world.state.seq;
    (world, good, bad)
}

fn back(world: &mut World, region: &str, point: u64) -> Decision {
    let decision = world.dana(rollback(&format!("{WEB},region:{region}"), point)).unwrap().unwrap();
    world.settle();
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded), "{region}");
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
            world.pass_the_deadline();
            assert_eq!(world.ended(WEB), Some(Outcome::Succeeded), "{back}");
            assert_eq!(assigned_in(&world, back).len(), 2, "{back}");
            assert_eq!(assigned_in(&world, other), stays, "{back}, again: {second}");
        }
        // Somebody decides for all of it.
        world.dana(rollback(WEB, good)).unwrap();
        world.settle();
        assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
        assert_eq!(assigned_in(&world, "").len(), 4);
    }
}

#[test]
fn a_place_that_goes_back_takes_no_other_on_with_what_was_on_its_way() {
    let (mut world, good) = world();
    let stays = assigned_in(&world, "us");
    world.dana(rollback(&format!("{WEB},region:eu"), good)).unwrap();
    world.settle();
    assert_eq!((world.ended(WEB), assigned_in(&world, "us")), (Some(Outcome::Succeeded), stays));
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
        assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
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
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
}

#[test]
fn what_is_held_down_keeps_no_place_from_going_back() {
    let (mut world, good) = world();
    world.settle();
    world.dana(Spec::new(3, 4).deploy(WEB)).unwrap();
    world.sick.insert(image_digest(3));
    world.settle();
    world.pass_the_deadline();
    assert!(matches!(world.ended(WEB), Some(Outcome::Failed { .. })));
    for node in ["us-1", "us-2"] {
        world.lose_or_return(node);
    }
    let down = releases_in(&world, "us");
    back(&mut world, "eu", good);
    assert_eq!((releases_in(&world, "eu"), releases_in(&world, "us")), (vec![1, 1], down));
}

/// Rolls back all of it but a place.
fn back_but(world: &mut World, but: &str, point: u64) -> Result<Option<Decision>, Rejection> {
    let mut command = rollback(WEB, point);
    if let Command::Rollback { except, .. } = &mut command {
        *except = vec![name(but)];
    }
    world.dana(command)
}

#[test]
fn what_goes_on_everywhere_is_decided_for_all() {
    // Broken off, gone on with everywhere, and then it failed after all.
    let (mut world, good) = world();
    let first = back(&mut world, "eu", good);
    world.undo(&[first]).unwrap();
    let mut well = world.clone();
    world.sick.insert(image_digest(2));
    world.settle();
    world.pass_the_deadline();
    assert!(matches!(world.ended(WEB), Some(Outcome::Failed { .. })));
    let again = back(&mut world, "eu", good);
    let stays = releases_in(&world, "us");
    world.sick.clear();
    world.undo(&[again]).unwrap();
    world.settle();
    assert_eq!((releases_in(&world, "eu"), releases_in(&world, "us")), (vec![2, 2], stays));

    // Or it succeeded: then a place that goes back holds nothing, and is released when it follows the rest again.
    well.settle();
    assert_eq!(well.ended(WEB), Some(Outcome::Succeeded));
    let all_well = well.state.seq;
    back(&mut well, "eu", good);
    assert_eq!(well.state.hold(&name(WEB)), None);
    back(&mut well, "eu", all_well);
    assert_eq!(well.state.pins(&name(WEB)).count(), 0);
    assert!(well.state.timeline(&name(WEB))[0].good);
}

#[test]
fn a_rollback_of_all_decides_for_all_though_places_stay_pinned() {
    let (mut world, good, _) = failed();
    back(&mut world, "eu", good);
    let one_back = world.state.seq;
    back(&mut world, "us", good);
    world.sick.clear();
    world.dana(rollback(WEB, one_back)).unwrap();
    world.settle();
    assert_eq!((world.ended(WEB), world.state.hold(&name(WEB))), (Some(Outcome::Succeeded), None));
    assert_eq!((releases_in(&world, "eu"), releases_in(&world, "us")), (vec![1, 1], vec![2, 2]));
}

#[test]
fn what_failed_cannot_be_excepted_where_it_would_go_on() {
    let (mut world, good, _) = failed();
    let before = world.state.clone();
    for but in ["region:us", "region:eu"] {
        let refused = back_but(&mut world, but, good).unwrap_err();
        assert!(refused.details[0].contains("cannot be left as it is, since deployment"), "{refused}");
    }
    assert_eq!(world.state, before, "nothing happened");
    // Neither can what is still on its way, whether or not it can be heard of.
    let (mut on_its_way, good) = world_of(4);
    on_its_way.lose_or_return("us-1");
    let refused = back_but(&mut on_its_way, "region:us", good).unwrap_err();
    assert!(refused.details[0].contains("did not come to its end and would go on there"), "{refused}");
    // What is there already may be left.
    back(&mut world, "us", good);
    back_but(&mut world, "region:us", good).unwrap();
    world.settle();
    assert_eq!((world.ended(WEB), releases_in(&world, "")), (Some(Outcome::Succeeded), vec![1, 1, 1, 1]));
}

#[test]
fn the_hold_outlasts_what_is_remembered() {
    let (mut world, good, bad) = failed();
    let stays = releases_in(&world, "us");
    world.sick.clear();
    for _ in 0..=DEPLOYMENTS_PER_APP_MAX / 2 {
        back(&mut world, "eu", good);
        back(&mut world, "eu", bad);
    }
    assert_eq!((releases_in(&world, "eu"), releases_in(&world, "us")), (vec![2, 2], stays));
    assert!(world.state.hold(&name(WEB)).is_some_and(|hold| hold.deployment.is_none()));
}

#[test]
fn a_place_that_goes_on_has_the_instances_that_it_had() {
    let (mut well, good) = world_of(6);
    well.settle();
    assert_eq!(well.ended(WEB), Some(Outcome::Succeeded));
    let (failed, same, _) = failed_at(6);
    assert_eq!(good, same);
    for mut world in [well, failed] {
        let had = world.state.slots(&name(WEB)).filter(|(_, node)| node.as_str().starts_with("eu")).count();
        let decisions = ["eu", "us"].map(|region| back(&mut world, region, good));
        assert_eq!(releases_in(&world, ""), vec![1, 1, 1, 1]);
        world.sick.clear();
        world.undo(&decisions[..1]).unwrap();
        world.settle();
        assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
        assert_eq!((releases_in(&world, "eu"), releases_in(&world, "us")), (vec![2; had], vec![1, 1]));
    }
}

#[test]
fn what_was_decided_again_is_no_earlier_state() {
    let (mut world, good) = world();
    world.settle();
    let went_back = back(&mut world, "eu", good);
    world.undo(&[went_back]).unwrap();
    world.settle();
    let entries = world.state.timeline(&name(WEB));
    assert_eq!(entries.iter().map(|entry| entry.release).collect::<Vec<_>>(), [Some(2), Some(1)]);
    let scope = Scope::app_env(&name(WEB));
    let previous = world.state.resolve_point(&scope, &Point::Previous(1)).unwrap();
    assert_eq!(world.states[&previous].pins(&name(WEB)).count(), 0);
    assert_eq!(world.state.resolve_point(&scope, &Point::LastGood), Ok(previous));
}

#[test]
fn a_plan_for_all_tells_that_what_is_held_goes_on() {
    let (mut world, good, bad) = failed();
    back(&mut world, "eu", good);
    let nodes = |scope: &str| -> BTreeSet<String> {
        let plans = plan_rollback(&world.state, &world.states[&bad], &name(scope), &[]);
        let nodes = plans.iter().flat_map(|plan| plan.by_node(&world.state).into_keys());
        nodes.map(|node| node.as_str()[..2].to_owned()).collect()
    };
    assert_eq!(nodes(&format!("{WEB},region:eu")), BTreeSet::from(["eu".to_owned()]));
    assert_eq!(nodes(WEB), BTreeSet::from(["eu".to_owned(), "us".to_owned()]));
}

#[test]
fn what_came_everywhere_is_not_held_though_it_is_forgotten() {
    let (mut world, good) = world();
    world.settle();
    let all_well = world.state.seq;
    back(&mut world, "us", good);
    for _ in 0..=DEPLOYMENTS_PER_APP_MAX / 2 {
        back(&mut world, "eu", good);
        back(&mut world, "eu", all_well);
    }
    assert_eq!(world.state.hold(&name(WEB)), None);
    assert_eq!((releases_in(&world, "eu"), releases_in(&world, "us")), (vec![2, 2], vec![1, 1]));
}

#[test]
fn a_place_that_follows_the_rest_again_rejects_nothing() {
    let (mut world, good, bad) = failed();
    back(&mut world, "eu", good);
    world.sick.clear();
    back(&mut world, "eu", bad);
    let latched = world.state.control.latches.get(&name::<AppEnv>(WEB)).unwrap();
    let numbers: Vec<_> = latched.iter().filter_map(|it| world.state.release_number(it)).collect();
    assert_eq!(numbers, [2], "the one that went back once, not the good one");
}

/// Two instances, one in each region, of two images one after the other, and then of another one that is to be in one
/// region alone and never gets well; the seqs at which the first two were in force.
fn moved(port: Option<u16>) -> (World, [u64; 2]) {
    let mut world = World::new();
    let seqs = [100, 1].map(|image| {
        world.dana(Spec { port, ..Spec::new(image, 2) }.deploy(WEB)).unwrap();
        world.settle();
        world.state.seq
    });
    for node in ["us-1", "us-2"] {
        world.label(node, true);
    }
    world.sick.insert(image_digest(2));
    world.dana(Spec { port, place: Place::Ssd, ..Spec::new(2, 2) }.deploy(WEB)).unwrap();
    world.settle();
    world.pass_the_deadline();
    assert!(matches!(world.ended(WEB), Some(Outcome::Failed { .. })));
    assert_eq!(assigned_in(&world, "eu").len(), 1, "what serves is there still");
    (world, seqs)
}

#[test]
fn what_a_slot_left_behind_counts_where_its_place_goes_back() {
    for port in [None, Some(8080)] {
        let (mut world, [_, good]) = moved(port);
        let (left, stays) = (assigned_in(&world, "eu"), assigned_in(&world, "us"));
        let went_back = back(&mut world, "eu", good);
        assert_eq!(assigned_in(&world, "eu"), left, "{port:?}: it is what it was");
        assert_eq!(assigned_in(&world, "us"), stays, "{port:?}");
        // Neither does who takes that back, or decides for all of it, stop what serves.
        let mut undone = world.clone();
        undone.undo(&[went_back]).unwrap();
        undone.settle();
        assert_eq!(assigned_in(&undone, "eu"), left, "{port:?}");
        world.dana(rollback(WEB, good)).unwrap();
        world.settle();
        assert_eq!((world.ended(WEB), releases_in(&world, "")), (Some(Outcome::Succeeded), vec![2, 2]));
        assert_eq!(assigned_in(&world, "eu"), left, "{port:?}");
    }
}

#[test]
fn what_a_slot_left_behind_makes_room_where_it_is_something_else() {
    for port in [None, Some(8080)] {
        let (mut world, [first, _]) = moved(port);
        let left = assigned_in(&world, "eu");
        back(&mut world, "eu", first);
        let now = assigned_in(&world, "eu");
        // Where both can run, what serves stays beside it.
        assert_eq!(now.len(), if port.is_some() { 1 } else { 2 });
        assert_eq!(now.iter().any(|it| *it == left[0]), port.is_none());
    }
}
