//! Chains of causes: every container leads back to somebody's request.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use proptest::prelude::*;
use stele_model::event::Holder;
use stele_model::why::{Evidence, Lack, Subject, Told, Why, why};
use stele_model::{Command, Rejection, Seq, State};
use world::changes::{changes, live};
use world::{Spec, World, name, rollback, undo};

const WEB: &str = "shop/web@prod";

/// Asks until nothing is lacking, as a controller does.
fn explain(world: &World, state: &State, subject: &str) -> Result<Why, Rejection> {
    let subject: Subject = subject.parse()?;
    let mut evidence = Evidence::default();
    loop {
        match why(state, &subject, &evidence)? {
            Told::All(why) => return Ok(*why),
            Told::Lacks(lack) => {
                let found = match &lack {
                    Lack::Record(seq) => world.records.get(*seq as usize - 1),
                    Lack::Newest { kind, scopes, until } => {
                        world.records[..*until as usize].iter().rev().find(|it| {
                            it.header.kind == *kind
                                && scopes.iter().all(|scope| it.header.scopes.contains(scope))
                        })
                    }
                };
                assert!(evidence.known.insert(lack, found.cloned()).is_none(), "nothing is asked twice");
            }
        }
    }
}

fn kinds(why: &Why) -> Vec<&str> {
    why.steps.iter().map(|step| step.kind.as_str()).collect()
}

fn instance(world: &World, slot: &str) -> String {
    let app_env = name(WEB);
    let mut all = world.state.assigned_to(&app_env);
    all.find(|(_, id, _)| id.slot.to_string().ends_with(slot)).expect("it runs").1.to_string()
}

#[test]
fn a_container_leads_back_to_a_person() {
    let mut world = World::new();
    world.dana(Spec::new(1, 2).deploy(WEB)).unwrap();
    world.settle();
    let first = instance(&world, "web.0");
    let then = world.state.clone();
    world.dana(Spec::new(2, 2).deploy(WEB)).unwrap();
    world.settle();
    let id = instance(&world, "web.0");
    let found = explain(&world, &world.state, &id).unwrap();
    assert_eq!(
        kinds(&found),
        ["assignments_changed", "deployment_started", "placement_changed", "deployment_started"],
        "told by the second deployment, placed by the first: {found:#?}"
    );
    let [told, second, placed, ..] = &found.steps[..] else { unreachable!() };
    assert_eq!((told.cause, told.principal.as_str()), (Some(second.seq), "system"));
    assert!(told.what.contains(&id) && told.what.contains("v2"), "{}", told.what);
    assert_eq!(second.what, "shop/web@prod deployed: v1 -> v2");
    assert_eq!((second.principal.as_str(), second.holder), ("dana", Some(Holder::Person)));
    assert_eq!(second.reason.as_deref(), Some("dana wants it"));
    assert!(second.trace.is_some() && second.outcome.is_some() && second.cause.is_none());
    assert_eq!(second.also, ["made shop/web v2: web = registry.example/shop:2"]);
    assert!(placed.what.starts_with("placed shop/web@prod/web.0 on "), "{}", placed.what);
    assert!(found.is.contains("is healthy on"), "{}", found.is);

    let slot = explain(&world, &world.state, "shop/web@prod/web.0").unwrap();
    assert_eq!((slot.steps, slot.is), (found.steps, found.is), "whatever fills the slot");
    let gone = explain(&world, &world.state, &first).unwrap();
    assert!(gone.is.contains("took its place"), "{}", gone.is);
    assert!(explain(&world, &then, &first).unwrap().is.contains("is healthy on"));
    assert!(explain(&world, &then, &id).is_err(), "it was not there yet");
}

#[test]
fn what_was_brought_back_leads_to_both_requests() {
    let mut world = World::new();
    world.dana(Spec::new(1, 1).deploy(WEB)).unwrap();
    world.settle();
    let good = world.state.seq;
    world.dana(Spec::new(2, 1).deploy(WEB)).unwrap();
    world.settle();
    world.dana(rollback(WEB, good)).unwrap();
    world.settle();
    let found = explain(&world, &world.state, &instance(&world, "web.0")).unwrap();
    let requests: Vec<_> = found.steps.iter().filter(|step| step.principal.as_str() == "dana").collect();
    assert_eq!(requests.len(), 2, "{found:#?}");
    assert_eq!(requests[0].what, "shop/web@prod rolled back: v2 -> v1");
    assert_eq!(
        requests[0].also,
        [format!("v2 of {WEB} was rejected"), format!("rolled {WEB} back to seq:{good} (seq {good})")]
    );
    assert_eq!(requests[0].cause, Some(requests[1].seq), "and where v1 came from");
    assert_eq!(requests[1].also, ["made shop/web v1: web = registry.example/shop:1"]);
    let app = explain(&world, &world.state, WEB).unwrap();
    assert!(app.is.contains("should be v1; latched against v2"), "{}", app.is);
    assert_eq!(app.steps[0].what, requests[0].what);
}

#[test]
fn what_moved_leads_to_what_happened_to_its_node() {
    let mut world = World::new();
    world.dana(Spec::new(1, 2).deploy(WEB)).unwrap();
    world.settle();
    let placed =
        |world: &World| world.state.slots(&name(WEB)).map(|(_, node)| node.clone()).collect::<Vec<_>>();
    let left = placed(&world)[0].to_string();
    world.remove_node(&left);
    let removed = world.state.seq;
    world.settle();
    let found = explain(&world, &world.state, &instance(&world, "web.0")).unwrap();
    assert_eq!(kinds(&found), ["assignments_changed", "placement_changed", "node_removed"], "{found:#?}");
    let last = found.steps.last().unwrap();
    assert_eq!((last.seq, last.principal.as_str()), (removed, "admin"));
    let gone = explain(&world, &world.state, &format!("node:{left}")).unwrap();
    assert_eq!(kinds(&gone), ["node_removed"]);
}

#[test]
fn a_node_leads_to_who_let_it_in() {
    let world = World::new();
    let found = explain(&world, &world.state, "node:eu-1").unwrap();
    assert_eq!(kinds(&found), ["node_enrolled", "join_token_created"]);
    assert_eq!(found.steps[1].principal.as_str(), "admin");
    assert!(explain(&world, &world.state, "node:eu-9").is_err());
    assert!(explain(&world, &world.state, WEB).is_err(), "it was never deployed");
}

#[test]
fn a_pinned_place_and_an_undone_change_say_so() {
    let mut world = World::new();
    world.dana(Spec::new(1, 2).deploy(WEB)).unwrap();
    world.settle();
    let good = world.state.seq;
    let second = world.dana(Spec::new(2, 2).deploy(WEB)).unwrap().unwrap();
    world.settle();
    world.dana(rollback("shop/web@prod,region:eu", good)).unwrap();
    let found = explain(&world, &world.state, "shop/web@prod,node:eu-1").unwrap();
    assert!(found.is.contains("pinned in region:eu: v1"), "{}", found.is);
    assert!(found.steps[0].also.iter().any(|it| it.contains("region:eu follows v1")), "{found:#?}");
    let mut command = undo(&[second]);
    if let Command::Undo { what, .. } = &mut command {
        *what = "deploy:20".to_owned();
    }
    world.dana(command).unwrap();
    let found = explain(&world, &world.state, WEB).unwrap();
    assert!(found.steps[0].also.iter().any(|it| it.starts_with("undid deploy:20")), "{found:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn every_container_at_any_point_ends_at_a_request(
        changes in changes(),
        point in any::<prop::sample::Index>(),
    ) {
        let mut world = World::new();
        live(&mut world, &changes);
        let points: Vec<Seq> = world.states.keys().copied().collect();
        let state = &world.states[point.get(&points)];
        let running = state.assigned.values().flat_map(|assigned| assigned.instances.keys());
        for id in running {
            let found = explain(&world, state, &id.to_string()).unwrap();
            prop_assert_eq!(found.steps[0].seq, id.serial);
            prop_assert_eq!(&found.unknown, &Vec::<String>::new());
            let seqs: Vec<_> = found.steps.iter().map(|step| step.seq).collect();
            prop_assert!(seqs.windows(2).all(|pair| pair[0] > pair[1]), "newest first: {:?}", seqs);
            for step in &found.steps {
                if let Some(cause) = step.cause { prop_assert!(seqs.contains(&cause), "{step:?} leads out of {seqs:?}") } else { prop_assert_ne!(step.principal.as_str(), "system", "{:?}", step) }
            }
        }
    }
}
