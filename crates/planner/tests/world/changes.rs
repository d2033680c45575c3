//! Random lives of a few apps.

use proptest::prelude::*;
use stele_model::{Command, Decision, Seq};

use super::{Place, Spec, World, name, rollback, set_config, set_secret};

/// A change somebody may make.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Deploy { app: usize, image: u8, replicas: u32, place: Place, a: u8, b: bool, cache: bool, secret: bool },
    Config { app: usize, key: bool, value: Option<u8> },
    Secret { app: usize, value: u8 },
    Remove { app: usize },
    Back { app: usize, steps: usize, place: usize },
}

pub(crate) const APPS: [&str; 3] = ["shop/web@prod", "shop/web@staging", "shop/cart@prod"];
const PLACES: [&str; 4] = ["", ",region:eu", ",node:us-1", ""];

fn places() -> impl Strategy<Value = Place> {
    prop_oneof![
        4 => Just(Place::Anywhere),
        1 => Just(Place::Ssd),
        1 => Just(Place::Everywhere),
        1 => Just(Place::EverySsd),
    ]
}

pub(crate) fn changes() -> impl Strategy<Value = Vec<Change>> {
    let app = 0..APPS.len();
    let change = prop_oneof![
        5 => (app.clone(), 0..3_u8, 0..4_u32, places(), 0..3_u8, any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(app, image, replicas, place, a, b, cache, secret)| {
                Change::Deploy { app, image, replicas, place, a, b, cache, secret }
            }),
        3 => (app.clone(), any::<bool>(), proptest::option::of(0..3_u8))
            .prop_map(|(app, key, value)| Change::Config { app, key, value }),
        1 => (app.clone(), 0..3_u8).prop_map(|(app, value)| Change::Secret { app, value }),
        1 => app.clone().prop_map(|app| Change::Remove { app }),
        1 => (app, 0..6_usize, 0..PLACES.len())
            .prop_map(|(app, steps, place)| Change::Back { app, steps, place }),
    ];
    proptest::collection::vec(change, 1..10)
}

fn command(world: &World, change: &Change) -> Command {
    match change {
        Change::Deploy { app, image, replicas, place, a, b, cache, secret } => {
            let mut spec = Spec::new(*image, *replicas).with_env("A", &a.to_string());
            if *b {
                spec = spec.with_env("B", "b");
            }
            (spec.cache, spec.secret, spec.place) = (*cache, *secret, *place);
            spec.deploy(APPS[*app])
        }
        Change::Config { app, key, value } => {
            let value = value.map(|value| value.to_string());
            set_config(APPS[*app], if *key { "K" } else { "L" }, value.as_deref())
        }
        Change::Secret { app, value } => set_secret(APPS[*app], &value.to_string()),
        Change::Remove { app } => Command::Remove { app_env: name(APPS[*app]) },
        Change::Back { app, steps, place } => {
            let points: Vec<Seq> = world.states.keys().rev().copied().collect();
            let scope = format!("{}{}", APPS[*app], PLACES[*place]);
            rollback(&scope, points[(steps * 7).min(points.len() - 1)])
        }
    }
}

/// Makes the changes that are possible; each app's decisions.
pub(crate) fn live(world: &mut World, changes: &[Change]) -> Vec<Decision> {
    let mut decisions = Vec::new();
    for change in changes {
        let command = command(world, change);
        // What makes no sense now is refused, and part of life.
        if let Ok(Some(decision)) = world.dana(command) {
            decisions.push(decision);
        }
        world.settle();
    }
    decisions
}
