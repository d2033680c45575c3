//! What would be is what then is: the simulated way to the end is the one really taken.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use std::collections::BTreeSet;

use proptest::prelude::*;
use stele_model::{AppEnv, Command, Scope, diff};
use stele_planner::simulate;
use world::changes::{APPS, changes, live};
use world::{Spec, World, name};

const STEPS_MAX: usize = 1000;

fn all() -> BTreeSet<AppEnv> {
    APPS.into_iter().map(name).collect()
}

#[test]
fn replicas_are_replaced_one_after_the_other() {
    let mut world = World::new();
    world.dana(Spec::new(1, 3).deploy(APPS[0])).unwrap();
    world.settle();
    world.dana(Spec::new(2, 3).deploy(APPS[0])).unwrap();
    let simulated = simulate(&world.state, &all(), STEPS_MAX);
    assert!(simulated.ended);
    let rounds: BTreeSet<_> = simulated
        .steps
        .iter()
        .filter(|step| matches!(step.command, Command::Assign { .. }))
        .map(|step| step.round)
        .collect();
    assert_eq!(rounds.len(), 4, "one slot a round, and the last old one goes: {:#?}", simulated.steps);
    assert!(matches!(simulated.steps.last().unwrap().command, Command::FinishDeployment { .. }));
    let cut = simulate(&world.state, &all(), 2);
    assert_eq!((cut.steps.len(), cut.ended), (2, false), "it is bounded");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn what_would_be_is_what_then_is(changes in changes(), spec in (0..3_u8, 0..5_u32)) {
        let mut world = World::new();
        live(&mut world, &changes);
        world.dana(Spec::new(spec.0, spec.1).deploy(APPS[0])).unwrap();
        let before = world.state.clone();
        let simulated = simulate(&world.state, &all(), STEPS_MAX);
        prop_assert_eq!(&before, &world.state, "nothing is written");
        prop_assert!(simulated.ended);
        let taken = world.settle();
        let planned: Vec<_> = simulated.steps.into_iter().map(|step| step.command).collect();
        prop_assert_eq!(planned.len(), taken.len());
        prop_assert_eq!(diff(&simulated.state, &world.state, &Scope::fleet()), []);
        // An instance's id is the seq that assigned it, and in between more may be logged.
        let running = |state: &stele_model::State| -> Vec<_> {
            let assigned = state.assigned.iter().flat_map(|(node, assigned)| {
                assigned.instances.iter().map(move |(id, to)| (node.clone(), id.slot.clone(), *to.spec))
            });
            assigned.collect()
        };
        prop_assert_eq!(running(&simulated.state), running(&world.state));
    }
}
