//! Ways back that are asked for again, by whoever may not, of a place that is none, or after nodes have gone.

#![allow(clippy::unwrap_used)]

mod world;

use stele_model::event::{Holder, Outcome, Role, Token};
use stele_model::{AppEnv, Command, Digest, Request, State, Time};
use stele_planner::Watch;
use world::{Place, Spec, World, image_digest, name, request, rollback, set_secret};

const WEB: &str = "shop/web@prod";
const CART: &str = "shop/cart@prod";

/// How many instances of a release are healthy, by region.
fn healthy(world: &World, app_env: &str, release: u32) -> (usize, usize) {
    let told = world.state.assigned_to(&name::<AppEnv>(app_env));
    let told = told.filter(|(node, id, to)| {
        world.state.is_healthy(node, id) && world.state.release_number(&to.revision.release) == Some(release)
    });
    let (eu, us): (Vec<_>, Vec<_>) = told.partition(|(node, ..)| node.as_str().starts_with("eu"));
    (eu.len(), us.len())
}

/// A rollback of all of an app but a place.
fn rollback_but(place: &str, seq: u64) -> Command {
    let mut command = rollback(WEB, seq);
    if let Command::Rollback { except, .. } = &mut command {
        except.push(name(place));
    }
    command
}

fn deployed(images: &[u8]) -> World {
    let mut world = World::new();
    for image in images {
        world.dana(Spec::new(*image, 4).deploy(WEB)).unwrap();
        world.settle();
    }
    world
}

/// The first release in force, then the second, and a way back to the first that failed: what it is made of cannot run for
/// now.
fn failed_way_back(scope: &str) -> (World, u64) {
    let mut world = deployed(&[1]);
    let good = world.state.seq;
    world.dana(Spec::new(2, 4).deploy(WEB)).unwrap();
    world.settle();
    world.sick.insert(image_digest(1));
    world.dana(rollback(scope, good)).unwrap();
    world.settle();
    world.pass_the_deadline();
    assert!(matches!(world.ended(WEB), Some(Outcome::Failed { .. })));
    world.sick.clear();
    world.settle();
    (world, good)
}

#[test]
fn a_way_back_that_failed_is_gone_again() {
    let (mut world, good) = failed_way_back(WEB);
    assert_eq!(
        (healthy(&world, WEB, 1), healthy(&world, WEB, 2)),
        ((1, 0), (2, 2)),
        "it stopped at the first one"
    );
    assert!(world.dana(rollback(WEB, good)).unwrap().is_some());
    world.settle();
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
    assert_eq!((healthy(&world, WEB, 1), healthy(&world, WEB, 2)), ((2, 2), (0, 0)));
    assert_eq!(world.dana(rollback(WEB, good)).unwrap(), None, "now it is as it was");
}

#[test]
fn a_place_whose_way_back_failed_goes_again_and_takes_no_other_with_it() {
    let (mut world, good) = failed_way_back(&format!("{WEB},region:us"));
    assert_eq!((healthy(&world, WEB, 1), healthy(&world, WEB, 2)), ((0, 1), (2, 2)));
    let elsewhere = format!("{WEB},region:eu");
    let then = world.state.seq;
    assert_eq!(world.dana(rollback(&elsewhere, then)).unwrap(), None);
    assert!(world.dana(rollback(&format!("{WEB},region:us"), good)).unwrap().is_some());
    world.settle();
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
    assert_eq!((healthy(&world, WEB, 1), healthy(&world, WEB, 2)), ((0, 2), (2, 0)));
}

#[test]
fn what_failed_before_the_point_is_not_tried_again_by_going_there() {
    let (mut world, _) = failed_way_back(WEB);
    let then = world.state.seq;
    assert_eq!(world.dana(rollback("fleet", then)).unwrap(), None);
}

#[test]
fn automation_does_not_go_back_to_what_was_rejected() {
    let mut world = deployed(&[1]);
    let good = world.state.seq;
    world.dana(Spec::new(2, 4).deploy(WEB)).unwrap();
    world.settle();
    let bad = world.state.seq;
    // Where it was not rejected yet, automation may go back.
    world.ask(&request("ci", rollback(WEB, good))).unwrap().unwrap();
    world.settle();
    for scope in [WEB, "shop/web@prod,region:eu", "fleet"] {
        let refused = world.ask(&request("ci", rollback(scope, bad))).unwrap_err();
        assert!(refused.message.contains("a person must"), "{scope}: {refused}");
    }
    // Another place goes back though the rest of the app is what was rejected there.
    let mut world = deployed(&[1, 2]);
    world.ask(&request("ci", rollback("shop/web@prod,region:eu", good))).unwrap().unwrap();
    world.settle();
    world.ask(&request("ci", rollback("shop/web@prod,region:us", good))).unwrap().unwrap();
    world.settle();
    assert_eq!(healthy(&world, WEB, 1), (2, 2));
    world.dana(rollback(WEB, bad)).unwrap().unwrap();
    // What is excepted stays what it is, though that was rejected elsewhere.
    let mut world = deployed(&[1, 2]);
    world.ask(&request("ci", rollback("shop/web@prod,region:eu", good))).unwrap().unwrap();
    world.settle();
    world.ask(&request("ci", rollback_but("region:us", good))).unwrap().unwrap();
    world.settle();
    assert_eq!((healthy(&world, WEB, 1), healthy(&world, WEB, 2)), ((2, 0), (0, 2)));
}

#[test]
fn a_node_outside_of_the_region_is_no_place() {
    let mut world = deployed(&[1]);
    let good = world.state.seq;
    world.dana(Spec::new(2, 4).deploy(WEB)).unwrap();
    world.settle();
    let refused = world.dana(rollback("region:eu,node:us-1", good)).unwrap_err();
    assert_eq!(refused.message, "node us-1 is in region us, not in eu: nothing is in region:eu,node:us-1");
    let excepting = rollback_but("region:eu,node:us-1", good);
    assert!(world.dana(excepting).unwrap_err().message.starts_with("node us-1 is in region us"));
    world.dana(rollback("region:us,node:us-1", good)).unwrap().unwrap();
}

#[test]
fn a_secret_that_was_rolled_back_does_not_come_back_by_itself() {
    let mut world = World::new();
    let spec = |image| Spec { secret: true, ..Spec::new(image, 2) };
    world.dana(set_secret(WEB, "right")).unwrap();
    world.dana(spec(1).deploy(WEB)).unwrap();
    world.settle();
    let good = world.state.seq;
    world.dana(set_secret(WEB, "wrong")).unwrap();
    world.settle();
    let version = |state: &State| state.target.intent[&name::<AppEnv>(WEB)].secrets[&name("db")];
    assert_eq!(version(&world.state), 2);
    world.dana(rollback(WEB, good)).unwrap();
    world.settle();
    assert_eq!(world.dana(spec(1).deploy(WEB)).unwrap(), None, "it is in force already");
    world.dana(spec(2).deploy(WEB)).unwrap();
    assert_eq!(version(&world.state), 1);
    world.dana(set_secret(WEB, "right again")).unwrap();
    assert_eq!(version(&world.state), 3, "and is set again when somebody asks");
}

fn pinned() -> World {
    let mut world = deployed(&[1]);
    let good = world.state.seq;
    world.dana(Spec::new(2, 4).deploy(WEB)).unwrap();
    world.settle();
    world.dana(rollback(&format!("{WEB},region:us"), good)).unwrap();
    world.settle();
    assert_eq!((healthy(&world, WEB, 1), healthy(&world, WEB, 2)), ((0, 2), (2, 0)));
    world
}

#[test]
fn what_loses_its_node_beside_a_pinned_place_is_placed_anew() {
    let mut world = pinned();
    let before = world.state.seq;
    world.remove_node("eu-2");
    world.settle();
    assert_eq!((healthy(&world, WEB, 1), healthy(&world, WEB, 2)), ((0, 2), (2, 0)));
    // What was in the pinned place is made up for nowhere.
    world.remove_node("us-2");
    world.settle();
    assert_eq!((healthy(&world, WEB, 1), healthy(&world, WEB, 2)), ((0, 1), (2, 0)));
    // As it was before both, as far as there are nodes for it.
    world.dana(Command::Remove { app_env: name(WEB) }).unwrap();
    world.settle();
    world.dana(rollback(WEB, before)).unwrap();
    world.settle();
    assert_eq!((healthy(&world, WEB, 1), healthy(&world, WEB, 2)), ((0, 1), (2, 0)));
}

#[test]
fn what_has_no_room_beside_a_pinned_place_waits_for_it() {
    let mut world = World::new();
    let ported = |image| Spec { port: Some(80), ..Spec::new(image, 4) };
    world.dana(ported(1).deploy(WEB)).unwrap();
    world.settle();
    let good = world.state.seq;
    world.dana(ported(2).deploy(WEB)).unwrap();
    world.settle();
    let before = world.state.seq;
    world.dana(rollback(&format!("{WEB},region:us"), good)).unwrap();
    world.settle();
    world.remove_node("eu-2");
    world.settle();
    assert_eq!((healthy(&world, WEB, 1), healthy(&world, WEB, 2)), ((0, 2), (1, 0)));
    assert_eq!(world.state.slots(&name(WEB)).count(), 4, "one waits");
    // That is nothing to a place that goes back or on.
    let then = world.state.seq;
    world.dana(rollback(&format!("{WEB},region:us"), before)).unwrap().unwrap();
    world.settle();
    assert_eq!((world.ended(WEB), healthy(&world, WEB, 2).1), (Some(Outcome::Succeeded), 2));
    world.dana(rollback(&format!("{WEB},region:us"), then)).unwrap().unwrap();
    world.settle();
    assert_eq!((world.ended(WEB), healthy(&world, WEB, 1).1), (Some(Outcome::Succeeded), 2));
    world.enrol("eu-3");
    world.settle();
    assert_eq!((healthy(&world, WEB, 1), healthy(&world, WEB, 2)), ((0, 2), (2, 0)));
}

#[test]
fn what_has_no_room_is_looked_at_when_others_may_have_left_some() {
    let mut world = World::new();
    world.dana(Spec { port: Some(80), ..Spec::new(1, 1) }.deploy(CART)).unwrap();
    world.settle();
    let taken = world.state.slots(&name(CART)).next().unwrap().1.clone();
    world.remove_node(taken.as_str());
    world.settle();
    let every = Spec { place: Place::Everywhere, port: Some(80), ..Spec::new(1, 1) };
    world.dana(Command::Remove { app_env: name(CART) }).unwrap();
    world.settle();
    world.dana(every.deploy(WEB)).unwrap();
    world.settle();
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
    // A node joins on which another app is first.
    let mut watch = Watch::default();
    world.enrol("eu-9");
    let only = Spec { port: Some(80), ..Spec::new(1, 1) };
    world.dana(only.deploy(CART)).unwrap();
    for app_env in [CART, WEB] {
        let app_env = name(app_env);
        while let Some(command) = watch.plan_app(&world.state, &app_env, world.state.time) {
            world.ask(&request("system", command)).unwrap();
        }
    }
    world.report();
    while let Some(command) = watch.plan_app(&world.state, &name(CART), world.state.time) {
        world.ask(&request("system", command)).unwrap();
    }
    assert_eq!(watch.plan_app(&world.state, &name(WEB), world.state.time), None);
    assert_eq!(watch.due(&world.state), [name::<AppEnv>(WEB)], "nothing of its own has changed");
    assert!(watch.due(&world.state).is_empty(), "and nobody else's since");
    world.dana(Command::Remove { app_env: name(CART) }).unwrap();
    world.settle();
    assert_eq!(world.state.assigned_to(&name(WEB)).count(), 4);
    assert_eq!(watch.plan_app(&world.state, &name(WEB), world.state.time), None);
    assert!(watch.due(&world.state).is_empty());
}

#[test]
fn a_port_that_another_app_is_about_to_give_up_is_waited_for() {
    let mut world = World::new();
    world.dana(Spec { port: Some(80), ..Spec::new(1, 4) }.deploy(WEB)).unwrap();
    world.settle();
    // Its next release does without the port, and does not work.
    world.sick.insert(image_digest(2));
    world.dana(Spec::new(2, 4).deploy(WEB)).unwrap();
    world.settle();
    world.dana(Spec { port: Some(80), place: Place::Everywhere, ..Spec::new(3, 1) }.deploy(CART)).unwrap();
    world.settle();
    assert!(world.state.assigned_to(&name(CART)).count() < 4, "what still has it is in the way");
    let mut works = world.clone();
    world.pass_the_deadline();
    world.pass(30);
    world.settle();
    let Some(Outcome::Unplaced { reason, .. }) = world.ended(CART) else { panic!("{:?}", world.ended(CART)) };
    assert!(reason.contains("port 80 of") && reason.contains("is still shop/web@prod/web."), "{reason}");

    works.sick.clear();
    works.settle();
    assert_eq!(works.ended(WEB), Some(Outcome::Succeeded));
    assert_eq!(works.ended(CART), Some(Outcome::Succeeded));
}

#[test]
fn who_governs_a_controller_makes_an_administrator_where_none_is_left() {
    let mut world = World::new();
    let token = |principal: &str, role, world: &World| Token {
        principal: name(principal),
        hash: Digest::of(&[principal.as_bytes(), b"new"]),
        role,
        holder: Holder::Person,
        expires: Time(world.state.time.0 + 60 * 86_400 * 1_000_000),
    };
    let restore = |token| request("system", Command::RestoreAdmin { token });
    assert_eq!(world.ask(&restore(token("eve", Role::Admin, &world))).unwrap(), None, "one is valid");
    world.pass(31 * 86_400);
    assert!(world.ask(&request("admin", Command::Remove { app_env: name(WEB) })).is_err());
    assert!(world.ask(&restore(token("dana", Role::Deployer, &world))).is_err());
    let by_somebody = Request { principal: name("dana"), ..restore(token("dana", Role::Admin, &world)) };
    assert!(world.ask(&by_somebody).is_err());
    world.ask(&restore(token("dana", Role::Admin, &world))).unwrap().unwrap();
    assert_eq!(world.ask(&restore(token("eve", Role::Admin, &world))).unwrap(), None);
    let token = token("admin", Role::Admin, &world);
    world.dana(Command::CreateToken { token }).unwrap().unwrap();
}
