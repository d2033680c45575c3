//! Rollback: whatever happened, a scope is again exactly what it was, nothing else is touched,
//! and nothing drifts afterwards.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use std::collections::BTreeSet;

use proptest::prelude::*;
use stele_model::event::Event;
use stele_model::{Command, NodeName, Scope, State, fold};
use world::changes::{APPS, Change, changes, live};
use world::{World, name, rollback};

const SCOPES: [&str; 12] = [
    "fleet",
    "project:shop",
    "env:prod",
    "project:shop,env:staging",
    "shop/web@prod",
    "shop/cart@prod",
    "region:eu",
    "region:us,env:prod",
    "node:us-1",
    "shop/web@prod,region:eu",
    "shop/web@staging,node:eu-1",
    "project:shop,node:eu-2",
];

/// What may happen to a node.
#[derive(Clone, Copy, Debug)]
enum Happens {
    ComesOrGoes,
    IsLabelled(bool),
    IsLostOrReturns,
    IsDrainedOrResumed,
}

/// A part of a life: some changes, and then something may happen to a node.
#[derive(Clone, Debug)]
struct Chapter {
    changes: Vec<Change>,
    node: Option<(usize, Happens)>,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        Just(Happens::ComesOrGoes),
        any::<bool>().prop_map(Happens::IsLabelled),
        Just(Happens::IsLostOrReturns),
        Just(Happens::IsDrainedOrResumed),
    ]
}

fn chapters(moves: bool) -> impl Strategy<Value = Vec<Chapter>> {
    let node = if moves { proptest::option::of((0..4_usize, happens())).boxed() } else { Just(None).boxed() };
    let chapter = (changes(), node).prop_map(|(changes, node)| Chapter { changes, node });
    proptest::collection::vec(chapter, 1..4)
}

/// What is found by going through all slots is what looking up each of them finds.
fn gone_through_as_looked_up(state: &State, past: &State) {
    let filled: Vec<_> = state.filled_slots().collect();
    let looked_up = state.target.placement.iter().map(|(slot, node)| {
        let release = state.revision_at(&slot.app_env, node).and_then(|revision| state.release_of(revision));
        (slot, node, release.and_then(|release| release.services.get(&slot.service)))
    });
    assert_eq!(filled, looked_up.collect::<Vec<_>>());
    let apps: BTreeSet<_> = past.targeted().into_iter().chain(state.targeted()).collect();
    for app_env in apps {
        let revisions = state.revisions(app_env);
        for node in state.control.nodes.keys() {
            assert_eq!(revisions.at(node), state.revision_at(app_env, node), "{app_env} on {node}");
        }
        let beside: Vec<_> = past.slots_beside(state, app_env).collect();
        let slots: BTreeSet<_> =
            past.slots(app_env).chain(state.slots(app_env)).map(|(slot, _)| slot).collect();
        let both = |slot| (slot, past.target.placement.get(slot), state.target.placement.get(slot));
        assert_eq!(beside, slots.into_iter().map(both).collect::<Vec<_>>(), "{app_env}");
    }
}

const NODES: [&str; 4] = ["eu-1", "eu-2", "us-1", "us-2"];

fn world_of(chapters: &[Chapter]) -> World {
    let mut world = World::new();
    // So that there is somewhere to be for what wants an ssd.
    for node in ["eu-1", "us-1"] {
        world.label(node, true);
    }
    for Chapter { changes, node } in chapters {
        live(&mut world, changes);
        if let Some((at, happens)) = node {
            let node = NODES[*at];
            let is_there = world.state.control.nodes.contains_key(&name::<NodeName>(node));
            match happens {
                Happens::ComesOrGoes if is_there => world.remove_node(node),
                _ if !is_there => world.enrol(node),
                Happens::IsLabelled(ssd) => world.label(node, *ssd),
                Happens::IsDrainedOrResumed => world.drain_or_resume(node),
                Happens::ComesOrGoes | Happens::IsLostOrReturns => world.lose_or_return(node),
            }
            world.settle();
        }
    }
    world
}

/// Every app in every place, as the smallest scopes there are.
fn cells() -> Vec<Scope> {
    APPS.iter().flat_map(|app| NODES.iter().map(move |node| name(&format!("{app},node:{node}")))).collect()
}

fn covers(scope: &Scope, cell: &Scope) -> bool {
    let node = cell.node.as_ref().unwrap();
    let region = name(&node.as_str()[..2]);
    scope.covers_app_env(&cell.as_app_env().unwrap()) && scope.covers_node(node, Some(&region))
}

fn deviating(state: &World) -> BTreeSet<String> {
    let last = state.records.iter().rev().find_map(|record| match &record.event {
        Event::RolledBack { deviations, .. } => Some(deviations.clone()),
        _ => None,
    });
    last.into_iter().flatten().map(|deviation| deviation.what).collect()
}

/// Whether the planner was done placing: a change that was just asked for has no places yet, and
/// gets them after a rollback to it, as it did then.
fn is_placed(state: &State) -> bool {
    !stele_planner::plan(state, state.time).iter().any(|command| matches!(command, Command::Place { .. }))
}

/// A past seq: one at which a decision ended.
fn point(world: &World, at: prop::sample::Index) -> u64 {
    let points: Vec<u64> = world.states.keys().copied().collect();
    *at.get(&points)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn a_scope_is_what_it_was_and_nothing_else_is_touched(
        life in chapters(false),
        scope in prop::sample::select(&SCOPES[..]),
        at in any::<prop::sample::Index>(),
    ) {
        let mut world = world_of(&life);
        let scope: Scope = name(scope);
        let seq = point(&world, at);
        let wanted = world.states[&seq].target_digest(&scope);
        let before = world.state.clone();
        match world.dana(rollback(&scope.to_string(), seq)) {
            Err(refused) => {
                // Only a secret's or a region's absence could be in the way, and none is erased here.
                prop_assert!(!refused.details.is_empty(), "{refused}");
                prop_assert_eq!(&before, &world.state, "nothing happened");
                return Ok(());
            }
            Ok(None) => prop_assert_eq!(world.state.target_digest(&scope), wanted),
            Ok(Some(_)) => {
                prop_assert_eq!(deviating(&world), BTreeSet::new(), "every node is there");
                prop_assert_eq!(world.state.target_digest(&scope), wanted);
            }
        }
        for cell in cells().iter().filter(|cell| !covers(&scope, cell)) {
            prop_assert_eq!(before.target_digest(cell), world.state.target_digest(cell), "{} was touched", cell);
        }
        prop_assert_eq!(world.dana(rollback(&scope.to_string(), seq)), Ok(None), "done twice is done once");
        if !is_placed(&world.states[&seq]) {
            return Ok(());
        }
        world.settle();
        prop_assert_eq!(world.state.target_digest(&scope), wanted, "nothing drifts afterwards");
        prop_assert!(world.state.index_is_true(), "what is looked up is what is there");
        let (mut earlier, mut adopted) = (world.states[&seq].clone(), world.state.clone());
        earlier.digest();
        adopted.adopt_digest(&earlier);
        prop_assert_eq!(adopted.digest(), world.state.clone().digest(), "whoever hashed what");
        for cell in cells().iter().filter(|cell| !covers(&scope, cell)) {
            prop_assert_eq!(before.target_digest(cell), world.state.target_digest(cell), "{} drifted", cell);
        }
    }

    #[test]
    fn rolling_a_rollback_back_is_as_if_it_never_was(
        life in chapters(false),
        scope in prop::sample::select(&SCOPES[..]),
        at in any::<prop::sample::Index>(),
    ) {
        let mut world = world_of(&life);
        let seq = point(&world, at);
        let (before, whole) = (world.state.seq, world.state.target_digest(&Scope::fleet()));
        let cells_before: Vec<_> = cells().iter().map(|cell| world.state.target_digest(cell)).collect();
        if !matches!(world.dana(rollback(scope, seq)), Ok(Some(_))) {
            return Ok(());
        }
        world.settle();
        world.dana(rollback(scope, before)).unwrap();
        world.settle();
        let cells_after: Vec<_> = cells().iter().map(|cell| world.state.target_digest(cell)).collect();
        prop_assert_eq!(cells_before, cells_after);
        if name::<Scope>(scope).region.is_none() && name::<Scope>(scope).node.is_none() {
            prop_assert_eq!(world.state.target_digest(&Scope::fleet()), whole);
        }
    }

    #[test]
    fn whatever_nodes_do_intent_is_exact_and_every_difference_is_told(
        life in chapters(true),
        scope in prop::sample::select(&SCOPES[..]),
        at in any::<prop::sample::Index>(),
        strict in any::<bool>(),
    ) {
        let mut world = world_of(&life);
        let scope: Scope = name(scope);
        let seq = point(&world, at);
        let wanted = world.states[&seq].target_digest(&scope);
        let before = world.state.clone();
        gone_through_as_looked_up(&before, &world.states[&seq]);
        let mut command = rollback(&scope.to_string(), seq);
        if let Command::Rollback { strict: is_strict, .. } = &mut command {
            *is_strict = strict;
        }
        prop_assert!(before.index_is_true(), "what is looked up is what is there");
        if !matches!(world.dana(command), Ok(Some(_))) {
            prop_assert_eq!(&before, &world.state);
            return Ok(());
        }
        let told = deviating(&world);
        let now = world.state.target_digest(&scope);
        prop_assert_eq!(now.intent, wanted.intent);
        prop_assert!(!strict || told.is_empty(), "strict, and yet {told:?}");
        for cell in cells().iter().filter(|cell| told.is_empty() && covers(&scope, cell)) {
            let node = cell.node.as_ref().unwrap();
            let is_lost = before.control.nodes.contains_key(node) && !before.is_reachable(node);
            let stays = before.target_digest(cell) == world.state.target_digest(cell);
            prop_assert!(!is_lost || stays, "{cell} cannot be restored now, and nobody told");
        }
        if told.is_empty() {
            prop_assert_eq!(now.placement, wanted.placement);
        }
        for cell in cells().iter().filter(|cell| !covers(&scope, cell)) {
            prop_assert_eq!(before.target_digest(cell).intent, world.state.target_digest(cell).intent);
        }
        let placed = is_placed(&world.states[&seq]);
        world.settle();
        let then = world.state.target_digest(&scope);
        // What an app is inside of a place depends on whether it has instances there.
        if placed || !scope.is_placed() {
            prop_assert_eq!(then.intent, wanted.intent);
        }
        if told.is_empty() && placed {
            prop_assert_eq!(then.placement, wanted.placement, "what nobody told of drifts afterwards");
        }
    }

    #[test]
    fn what_is_excepted_stays(
        life in chapters(false),
        except in prop::sample::select(&SCOPES[3..]),
        at in any::<prop::sample::Index>(),
    ) {
        let mut world = world_of(&life);
        let except: Scope = name(except);
        let seq = point(&world, at);
        let (past, before) = (world.states[&seq].clone(), world.state.clone());
        let mut command = rollback("fleet", seq);
        if let Command::Rollback { except: list, .. } = &mut command {
            list.push(except.clone());
        }
        prop_assert!(before.index_is_true(), "what is looked up is what is there");
        if !matches!(world.dana(command), Ok(Some(_))) {
            prop_assert_eq!(&before, &world.state);
            return Ok(());
        }
        for cell in &cells() {
            let now = world.state.target_digest(cell);
            let of = if covers(&except, cell) { &before } else { &past };
            prop_assert_eq!(now.placement, of.target_digest(cell).placement, "{}", cell);
            prop_assert_eq!(now.intent, of.target_digest(cell).intent, "{}", cell);
        }
    }

    #[test]
    fn any_prefix_replayed_is_the_state_there_was(life in chapters(true)) {
        let world = world_of(&life);
        let mut state = State::default();
        for record in &world.records {
            fold(&mut state, record);
            if let Some(live) = world.states.get(&record.header.seq) {
                prop_assert_eq!(&state, live);
            }
        }
    }
}
