//! Deadlines: a rollout waits for whoever could not tell, and for nobody for ever.

#![allow(clippy::unwrap_used)]

mod world;

use stele_model::event::{AssignmentChange, Outcome};
use stele_model::{AppEnv, Command, NodeName, State, Time};
use world::{Spec, World, image_digest, name};

const WEB: &str = "shop/web@prod";

/// Four instances of one image, with another deployed.
fn world() -> World {
    let mut world = World::new();
    world.dana(Spec::new(1, 4).deploy(WEB)).unwrap();
    world.settle();
    world.dana(Spec::new(2, 4).deploy(WEB)).unwrap();
    world
}

/// Has the next instance assigned; its node.
fn begin_one(world: &mut World) -> String {
    let Some(Command::Assign { changes, .. }) = world.look() else { panic!("nothing was assigned") };
    let begun = changes.iter().find_map(|change| match change {
        AssignmentChange::Assign { node, .. } => Some(node.to_string()),
        AssignmentChange::Withdraw { .. } => None,
    });
    begun.unwrap()
}

fn why(world: &World) -> String {
    match world.ended(WEB) {
        Some(Outcome::Failed { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_node_that_was_lost_has_its_time_from_when_it_returned() {
    let mut world = world();
    world.lose_or_return("us-2");
    assert_eq!(begin_one(&mut world), "us-2", "it serves nobody");
    world.pass(300);
    world.lose_or_return("us-2");
    assert_eq!(world.look(), None, "it was not even told");
    let mut sick = world.clone();
    world.settle();
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));

    sick.sick.insert(image_digest(2));
    sick.settle();
    assert_eq!(sick.ended(WEB), None);
    sick.pass_the_deadline();
    assert_eq!(why(&sick), "not healthy within 60 s");
}

#[test]
fn what_was_told_while_nobody_led_counts() {
    let mut world = world();
    begin_one(&mut world);
    world.pass(300);
    world.begin_term();
    assert_eq!(world.look(), None, "nodes have not had their say");
    let mut silent = world.clone();
    world.settle();
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));

    silent.silent.extend(["eu-1", "eu-2", "us-1", "us-2"].map(name));
    silent.pass_the_deadline();
    assert_eq!(why(&silent), "not healthy within 60 s: its node tells nothing of it");
}

#[test]
fn time_in_which_nobody_listened_does_not_count() {
    let mut world = world();
    begin_one(&mut world);
    // The leader stays, and its connection to the nodes went and came.
    world.pass(300);
    world.state.listens_since(world.state.time);
    assert_eq!(world.look(), None, "nodes have not had their say");
    world.silent.extend(["eu-1", "eu-2", "us-1", "us-2"].map(name));
    world.pass(59);
    world.state.listens_since(Time(0));
    assert_eq!(world.look(), None);
    world.pass_the_deadline();
    assert_eq!(why(&world), "not healthy within 60 s: its node tells nothing of it");
}

#[test]
fn what_was_well_has_its_time_again() {
    let mut world = world();
    begin_one(&mut world);
    world.report();
    // The first one is well: its predecessor goes, and the next one begins.
    begin_one(&mut world);
    world.pass(100);
    // A restart of what was well, and the first that is heard of the next.
    world.sick.insert(image_digest(2));
    world.report();
    assert_eq!(world.look(), None, "both have just begun");
    let mut sick = world.clone();
    world.sick.clear();
    world.settle();
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));

    sick.pass(30);
    sick.settle();
    assert_eq!(sick.ended(WEB), None);
    sick.pass(31);
    sick.settle();
    assert_eq!(why(&sick), "not healthy within 60 s");
}

#[test]
fn what_nobody_noted_counts_as_before() {
    let mut world = world();
    begin_one(&mut world);
    world.sick.insert(image_digest(2));
    world.report();
    // As whoever read it from bytes has it.
    let noted = world.state.clone();
    let mut read = State::default();
    (read.seq, read.time) = (noted.seq, noted.time);
    (read.target, read.assigned, read.observed) = (noted.target, noted.assigned, noted.observed);
    (read.control, read.history) = (noted.control, noted.history);
    world.state = read;
    let mut kept = world.clone();
    world.pass(61);
    assert!(matches!(world.look(), Some(Command::FinishDeployment { .. })));

    // Who begins to note gives another deadline, and no more.
    kept.pass(61);
    kept.state.keep_index();
    assert_eq!(kept.look(), None);
    kept.pass(61);
    assert!(matches!(kept.look(), Some(Command::FinishDeployment { .. })));
    assert_eq!(kept.state.assigned_to(&name::<AppEnv>(WEB)).count(), 5);
}

#[test]
fn what_cannot_be_removed_does_not_keep_a_deployment_running() {
    let nodes = ["eu-1", "eu-2", "us-1", "us-2"].map(name::<NodeName>);
    let mut world = world();
    world.stuck.extend(nodes.clone());
    world.settle();
    assert_eq!(world.ended(WEB), None, "all is well, and what was before is still there");
    let mut freed = world.clone();
    world.pass(69);
    world.settle();
    assert_eq!(world.ended(WEB), None, "it has its deadline, and its time to stop");
    world.pass(2);
    world.settle();
    let Some(Outcome::Failed { instance, node, reason, .. }) = world.ended(WEB) else { panic!("it hangs") };
    assert_eq!(reason, "not gone within 70 s: cannot be removed: the device is busy");
    assert!(world.state.report_of(&node, &instance).is_some() && nodes.contains(&node));
    assert!(!world.state.assigned[&node].instances.contains_key(&instance));

    freed.stuck.clear();
    freed.settle();
    assert_eq!(freed.ended(WEB), Some(Outcome::Succeeded));
    // Of an app that is removed, nothing else is left to wait for.
    freed.stuck.extend(nodes);
    freed.dana(Command::Remove { app_env: name(WEB) }).unwrap();
    freed.settle();
    assert_eq!(freed.ended(WEB), None);
    freed.pass(71);
    freed.settle();
    assert_eq!(why(&freed), "not gone within 70 s: cannot be removed: the device is busy");
}

#[test]
fn what_another_comes_instead_of_has_the_time_of_both() {
    let mut world = World::new();
    let spec = |image| Spec { port: Some(80), ..Spec::new(image, 1) };
    world.dana(spec(1).deploy(WEB)).unwrap();
    world.settle();
    world.stuck.extend(["eu-1", "eu-2", "us-1", "us-2"].map(name::<NodeName>));
    world.dana(spec(2).deploy(WEB)).unwrap();
    world.settle();
    world.pass(129);
    world.settle();
    assert_eq!(world.ended(WEB), None);
    world.pass(2);
    world.settle();
    assert_eq!(why(&world), "not gone within 130 s: cannot be removed: the device is busy");
}

#[test]
fn what_cannot_be_removed_from_a_lost_node_holds_nobody_up() {
    let mut world = world();
    world.lose_or_return("us-2");
    world.settle();
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
}
