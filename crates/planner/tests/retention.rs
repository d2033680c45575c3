//! Retention: whatever a point in the window needs on a node stays there, and the list is not
//! longer than it must be.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use std::collections::BTreeSet;

use proptest::prelude::*;
use stele_model::limits::RELEASES_KEPT_MIN;
use stele_model::release::{Image, Placement};
use stele_model::{AppEnv, Command, Digest, NodeName, Seq, State};
use stele_planner::retention::{Pinned, Retained, Unknown, pinned, pins_changed};
use world::changes::{APPS, changes, live};
use world::{Spec, World, name, rollback};

/// What the shell does with the log: what was pinned at the beginning, and after each rollback.
fn pinned_then(world: &World, since: Seq) -> Pinned {
    let mut found = pinned(&world.states[&since]);
    for seq in pins_changed(&world.state, since) {
        let (_, after) = world.states.range(seq..).next().unwrap();
        found.extend(pinned(after));
    }
    found
}

fn retained(world: &World, since: Seq) -> Retained {
    Retained::new(&world.state, since, &pinned_then(world, since))
}

/// What instances in a past State would be made of, were they on a node as it is now.
fn needed(then: &State, now: &State, node: &NodeName) -> BTreeSet<Image> {
    let labels = now.node_labels(&now.control.nodes[node]);
    let apps: BTreeSet<AppEnv> = APPS.iter().map(|app| name(app)).collect();
    let revisions = apps.iter().flat_map(|app| {
        // A rollback can give any place what another one had.
        let there = then.control.nodes.keys().filter_map(|there| then.revision_at(app, there));
        there.chain(then.target.intent.get(app).map(AsRef::as_ref))
    });
    let releases: BTreeSet<Digest> = revisions.map(|revision| revision.release).collect();
    let services = releases
        .iter()
        .flat_map(|release| then.history.releases.get(release).unwrap().release.services.values());
    services
        .filter(|service| {
            let nodes = service.placement.nodes();
            nodes.matches(&labels)
        })
        .map(|service| service.container.image.clone())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn an_image_that_a_point_in_the_window_needs_is_never_given_up(
        life in changes(),
        rest in changes(),
        at in any::<prop::sample::Index>(),
    ) {
        let mut world = World::new();
        live(&mut world, &life);
        world.remove_node("us-2");
        world.settle();
        live(&mut world, &rest);
        let points: Vec<Seq> = world.states.keys().copied().collect();
        let since = *at.get(&points);
        let retained = retained(&world, since);
        for node in world.state.control.nodes.keys() {
            let keep: BTreeSet<Image> = retained.on(&world.state, node).unwrap().into_iter().collect();
            for (point, then) in world.states.range(since..) {
                let needed = needed(then, &world.state, node);
                prop_assert!(keep.is_superset(&needed), "seq {point} needs {needed:?} on {node}, kept is {keep:?}");
            }
            // Whatever runs there is never given up either.
            for (id, to) in world.state.assigned.get(node).map(|it| &it.instances).into_iter().flatten() {
                let image = &world.state.history.releases.get(&to.revision.release).unwrap().release.services[&id.slot.service];
                prop_assert!(keep.contains(&image.container.image));
            }
        }
        prop_assert_eq!(retained.on(&world.state, &name("us-2")).unwrap(), Vec::new(), "it left the fleet");
    }
}

fn image(at: u8) -> Image {
    Image { repository: "registry.example/shop".to_owned(), digest: Digest::of(&[&[at]]) }
}

fn deploy(world: &mut World, at: u8) -> Seq {
    world.dana(Spec::new(at, 2).deploy(APPS[0])).unwrap();
    world.settle();
    world.state.seq
}

fn kept(world: &World, since: Seq) -> Vec<Image> {
    let mut keep = retained(world, since).on(&world.state, &name("eu-1")).unwrap();
    keep.sort();
    keep
}

fn images(at: impl IntoIterator<Item = u8>) -> Vec<Image> {
    let mut images: Vec<_> = at.into_iter().map(image).collect();
    images.sort();
    images
}

#[test]
fn what_was_in_force_before_the_window_goes_but_the_last_few_stay() {
    let mut world = World::new();
    let seqs: Vec<Seq> = (0..8).map(|at| deploy(&mut world, at)).collect();
    let few = u8::try_from(RELEASES_KEPT_MIN).unwrap();
    assert_eq!(kept(&world, world.state.seq), images(8 - few..8), "nothing else was in force lately");
    assert_eq!(kept(&world, seqs[2]), images(2..8), "in force at the very beginning of the window");
    assert_eq!(kept(&world, 0), images(0..8));
    // The same again under one seq: deterministic.
    assert_eq!(retained(&world, seqs[3]), retained(&world, seqs[3]));
}

#[test]
fn a_removed_app_keeps_its_images_for_the_window_alone() {
    let mut world = World::new();
    let in_force = (0..5).map(|at| deploy(&mut world, at)).fold(0, Seq::max);
    world.dana(Command::Remove { app_env: name(APPS[0]) }).unwrap();
    world.settle();
    assert_eq!(kept(&world, in_force), images(2..5), "it was in force, so its last few stay");
    assert_eq!(kept(&world, world.state.seq), Vec::new());
}

#[test]
fn what_a_place_was_pinned_to_in_the_window_stays_after_the_pin_is_lifted() {
    let mut world = World::new();
    let first = deploy(&mut world, 0);
    for at in 1..6 {
        deploy(&mut world, at);
    }
    let since = world.state.seq;
    world.dana(rollback(&format!("{},region:eu", APPS[0]), first)).unwrap();
    world.settle();
    deploy(&mut world, 6);
    assert!(world.state.target.pins.is_empty(), "the deployment lifted the pin");
    assert_eq!(kept(&world, since), images([0, 4, 5, 6]));
}

#[test]
fn images_stay_only_where_they_could_run() {
    let mut world = World::new();
    let mut release = Spec::new(1, 1).release(&name(APPS[0]));
    for service in release.services.values_mut() {
        service.placement = Placement::Replicas { count: 1, nodes: name("region=us") };
    }
    let release = stele_model::ReleaseChoice::Content { release, images: [].into() };
    let (app_env, contacts) = (name(APPS[0]), Some(stele_model::event::Contacts::default()));
    world.dana(Command::Deploy { app_env, contacts, release, again: false, barrier: None }).unwrap();
    world.settle();
    let retained = retained(&world, 0);
    let on = |node| retained.on(&world.state, &name(node)).unwrap();
    assert_eq!((on("us-1"), on("eu-1")), (images([1]), Vec::new()));
    assert_eq!(retained.images(), BTreeSet::from([&image(1)]));
}

#[test]
fn an_app_that_changes_too_often_to_be_known_gives_nothing_up() {
    let mut world = World::new();
    deploy(&mut world, 1);
    let app_env: AppEnv = name(APPS[0]);
    let change = world.state.history.changes.iter().next().unwrap().1.clone();
    world.state.history.changes.clear();
    for at in 0..stele_model::limits::CHANGES_PER_APP_MAX as u64 {
        let change = stele_model::state::Change { first: 100_000 + at, ..change.clone() };
        world.state.history.changes.insert((app_env.clone(), 100_000 + at), change);
    }
    world.state.seq = 200_000;
    let on = |since| Retained::new(&world.state, since, &Pinned::new()).on(&world.state, &name("eu-1"));
    assert_eq!(on(50), Err(Unknown::Forgotten(app_env)));
    assert_eq!(on(150_000), Ok(images([1])));
}
