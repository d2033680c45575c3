//! Which apps are looked at again when a node's labels change.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use std::collections::{BTreeMap, BTreeSet};

use stele_model::release::Placement;
use stele_model::{Command, Event, ReleaseChoice};
use stele_planner::Dirty;
use world::{Spec, World, name};

/// Two apps, of which one says on which nodes it wants to be.
fn world() -> World {
    let mut world = World::new();
    world.dana(Spec::new(1, 1).deploy("shop/anywhere@prod")).unwrap();
    let mut picky = Spec::new(1, 1).deploy("shop/picky@prod");
    let Command::Deploy { release: ReleaseChoice::Content { release, .. }, .. } = &mut picky else {
        panic!("a deployment of a release")
    };
    for service in release.services.values_mut() {
        service.placement = Placement::Replicas { count: 1, nodes: name("disk=ssd") };
    }
    world.dana(picky).unwrap();
    world
}

#[test]
fn labels_are_news_to_those_who_choose_by_them() {
    let world = world();
    let node = world.state.control.nodes.keys().next().unwrap().clone();
    let header = &world.records[0].header;
    let mut dirty = Dirty::Apps(BTreeSet::new());
    dirty.note(&world.state, header, &Event::NodeLabelled { node: node.clone(), labels: BTreeMap::new() });
    assert_eq!(dirty, Dirty::Apps(BTreeSet::from([name("shop/picky@prod")])));
    dirty.note(&world.state, header, &Event::NodeRemoved { node });
    assert_eq!(dirty, Dirty::All);
}
