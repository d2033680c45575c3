//! Undo: chosen changes are taken back and later ones stay, or nothing happens.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use proptest::prelude::*;
use stele_model::decide::plan_undo;
use stele_model::{AppEnv, Command, Difference, Event, PrincipalId, RejectionKind, Scope, State, diff};
use world::changes::{APPS, changes, live};
use world::{Spec, World, name, request, rollback, set_config, undo};

const WEB: &str = "shop/web@prod";

fn env(world: &World, key: &str) -> Option<String> {
    let state = &world.state;
    let revision = state.target.intent.get(&name::<AppEnv>(WEB))?;
    let release = &state.history.releases.get(&revision.release)?.release;
    let value = release.services.values().find_map(|service| service.container.env.get(key))?;
    Some(format!("{value:?}"))
}

#[test]
fn undoing_one_change_keeps_the_later_ones() {
    let mut world = World::new();
    world.dana(Spec::new(1, 2).with_env("A", "1").deploy(WEB)).unwrap();
    world.settle();
    let second = world.dana(Spec::new(2, 2).with_env("A", "2").deploy(WEB)).unwrap().unwrap();
    world.settle();
    world.dana(set_config(WEB, "COLOUR", Some("blue"))).unwrap();
    world.dana(Spec::new(2, 3).with_env("A", "2").with_env("B", "1").deploy(WEB)).unwrap();
    world.settle();
    world.undo(&[second]).unwrap();
    let record = world.records.iter().rev().find(|it| matches!(it.event, Event::Undone { .. })).unwrap();
    assert_eq!(record.header.principal.as_str(), "dana");
    let state = &world.state;
    let revision = state.target.intent.get(&name::<AppEnv>(WEB)).unwrap();
    let made = &state.history.releases.get(&revision.release).unwrap();
    assert_eq!(made.number, 4, "it is a release that never was before");
    let web = &made.release.services[&name("web")];
    assert_eq!(*made.release.services.keys().next().unwrap(), name("web"));
    assert_eq!(
        web.container.image,
        Spec::new(1, 2).release(&name(WEB)).services[&name("web")].container.image
    );
    assert_eq!(made.images[&name("web")], "registry.example/shop:1", "with the tag it had then");
    assert_eq!(env(&world, "A"), Some(env_of("1")));
    assert_eq!(env(&world, "B"), Some(env_of("1")));
    assert!(revision.config.is_some(), "the config that came later stays");
    world.settle();
    assert_eq!(world.state.slots(&name(WEB)).count(), 3, "and so does the third replica");
    assert_eq!(world.undo(&[second]), Ok(None), "what is undone already is left alone");
}

/// A variable with this text, as [`env`] writes it.
fn env_of(text: &str) -> String {
    format!("Value({text:?})")
}

#[test]
fn a_conflict_is_told_by_field_with_both_values() {
    let mut world = World::new();
    world.dana(Spec::new(1, 2).with_env("A", "1").deploy(WEB)).unwrap();
    let second =
        world.dana(Spec::new(1, 2).with_env("A", "2").with_env("B", "2").deploy(WEB)).unwrap().unwrap();
    world.dana(Spec::new(1, 2).with_env("A", "3").with_env("B", "2").deploy(WEB)).unwrap();
    let refused = world.undo(&[second]).unwrap_err();
    assert_eq!(refused.kind, RejectionKind::Conflict);
    assert_eq!(refused.details.len(), 1, "{refused}");
    let (wanted, present) = (r#"make it "1""#, r#"it is "3""#);
    assert!(refused.details[0].contains("services.web.container.env.A"), "{refused}");
    assert!(refused.details[0].contains(wanted) && refused.details[0].contains(present), "{refused}");
}

#[test]
fn an_app_comes_and_goes_with_the_change_that_made_it() {
    let mut world = World::new();
    let made = world.dana(Spec::new(1, 2).deploy(WEB)).unwrap().unwrap();
    world.settle();
    let there = world.intent(WEB);
    let taken = world.undo(&[made]).unwrap().unwrap();
    world.settle();
    assert!(world.state.target.intent.is_empty(), "the app was not there before");
    assert!(world.state.target.placement.is_empty());
    world.undo(&[taken]).unwrap();
    assert_eq!(world.intent(WEB), there, "an undo can be undone, to the very nodes");
}

#[test]
fn several_changes_are_taken_back_newest_first() {
    let mut world = World::new();
    world.dana(Spec::new(1, 1).with_env("A", "1").deploy(WEB)).unwrap();
    world.settle();
    let first = world.intent(WEB);
    let mut chosen = Vec::new();
    for value in ["2", "3", "4"] {
        chosen.extend(world.dana(Spec::new(1, 1).with_env("A", value).deploy(WEB)).unwrap());
        world.settle();
    }
    assert!(world.undo(&chosen[..2]).is_err(), "what is between them and now stands in the way");
    world.undo(&chosen).unwrap();
    assert_eq!(world.intent(WEB), first);
}

#[test]
fn what_governs_is_never_undone() {
    let mut world = World::new();
    let token = world.state.control.tokens.get(&name::<PrincipalId>("ci")).unwrap().clone();
    let made = world.ask(&request("admin", Command::CreateToken { token })).unwrap().unwrap();
    let refused = world.undo(&[made]).unwrap_err();
    assert_eq!(refused.kind, RejectionKind::Invalid, "{refused}");
    let nobody = world.ask(&request("nobody", undo(&[made]))).unwrap_err();
    assert_eq!(nobody.kind, RejectionKind::Forbidden);
}

#[test]
fn automation_cannot_bring_back_what_was_rejected() {
    let mut world = World::new();
    world.dana(Spec::new(1, 1).deploy(WEB)).unwrap();
    let good = world.state.seq;
    world.settle();
    world.dana(Spec::new(2, 1).deploy(WEB)).unwrap();
    let back = world.dana(rollback(WEB, good)).unwrap().unwrap();
    let refused = world.ask(&request("ci", undo(&[back]))).unwrap_err();
    assert_eq!(refused.kind, RejectionKind::Forbidden, "{refused}");
    world.undo(&[back]).unwrap();
}

#[test]
fn a_barrier_is_not_passed_unasked() {
    let mut world = World::new();
    world.dana(Spec::new(1, 1).deploy(WEB)).unwrap();
    let mut command = Spec::new(2, 1).deploy(WEB);
    if let Command::Deploy { barrier, .. } = &mut command {
        *barrier = Some("migrates orders".to_owned());
    }
    let second = world.dana(command).unwrap().unwrap();
    let refused = world.undo(&[second]).unwrap_err();
    assert!(refused.details[0].contains("migrates orders"), "{refused}");
    let mut anyway = undo(&[second]);
    if let Command::Undo { pass_barriers, .. } = &mut anyway {
        *pass_barriers = true;
    }
    world.dana(anyway).unwrap();
}

fn fleet(before: &State, after: &State) -> Vec<Difference> {
    diff(before, after, &Scope::fleet())
}

/// Where an app is, and by which number its release goes, follows from the rest.
fn is_field(difference: &Difference) -> bool {
    difference.path != "release" && !difference.path.starts_with("placement.")
}

/// Whether places went back while all of the app has not succeeded: the rest is held then, and undoing keeps places
/// apart (tests/hold.rs).
fn is_held(state: &State, app_env: &AppEnv) -> bool {
    state.unsuccessful(app_env).is_some() && state.pins(app_env).next().is_some()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn undoing_the_last_change_is_a_rollback_by_one(changes in changes()) {
        let mut world = World::new();
        let decisions = live(&mut world, &changes);
        let Some(last) = decisions.iter().rev().find(|it| {
            fleet(&world.states[&(it.first - 1)], &world.states[&it.last()]).iter().any(is_field)
        }) else { return Ok(()) };
        // What the planner did for it since is part of it.
        if decisions.last() != Some(last) || APPS.iter().any(|app| is_held(&world.state, &name(app))) {
            return Ok(());
        }
        let back = rollback("fleet", last.first - 1);
        let mut other = world.clone();
        let wanted = world.states[&(last.first - 1)].target_digest(&Scope::fleet());
        // What would go on elsewhere with what failed is held, and told (tests/hold.rs).
        let plan = plan_undo(&world.state, &[*last], &world.states);
        if plan.is_ok_and(|plan| plan.apps.iter().any(|app| app.restores.is_none())) {
            return Ok(());
        }
        let undone = world.undo(&[*last]);
        if let Err(refused) = &undone {
            let rolled = other.dana(back).expect_err("both are refused or none");
            prop_assert_eq!(&rolled.details, &refused.details);
            return Ok(());
        }
        other.dana(back).unwrap();
        prop_assert_eq!(world.state.target_digest(&Scope::fleet()), wanted);
        prop_assert_eq!(other.state.target_digest(&Scope::fleet()), wanted);
        prop_assert_eq!(world.undo(&[*last]), Ok(None), "undone twice is undone once");
        world.settle();
        prop_assert_eq!(world.state.target_digest(&Scope::fleet()), wanted, "nothing drifts afterwards");
    }

    #[test]
    fn undoing_any_change_touches_its_fields_alone(changes in changes(), at in any::<prop::sample::Index>()) {
        let mut world = World::new();
        let decisions = live(&mut world, &changes);
        if decisions.is_empty() {
            return Ok(());
        }
        let chosen = *at.get(&decisions);
        let (before, after) = (world.states[&(chosen.first - 1)].clone(), world.states[&chosen.last()].clone());
        let own: Vec<_> = fleet(&before, &after).into_iter().filter(is_field).collect();
        let now = world.state.clone();
        if own.iter().any(|it| is_held(&now, &it.app_env)) {
            return Ok(());
        }
        match world.undo(&[chosen]) {
            Ok(_) => {
                for moved in fleet(&now, &world.state).iter().filter(|it| is_field(it)) {
                    let is_own = own.iter().filter(|it| it.app_env == moved.app_env).any(|it| {
                        moved.path.starts_with(it.path.as_str()) || it.path.starts_with(moved.path.as_str())
                    });
                    prop_assert!(is_own, "{moved:?} is not of what was undone: {own:?}");
                }
                for app_env in APPS {
                    let scope = Scope::app_env(&name(app_env));
                    if !own.iter().any(|it| it.app_env.to_string() == app_env) {
                        prop_assert_eq!(now.target_digest(&scope), world.state.target_digest(&scope));
                    }
                }
                for left in fleet(&before, &world.state).iter().filter(|it| is_field(it)) {
                    let is_own = own.iter().any(|it| it.app_env == left.app_env && it.path == left.path);
                    prop_assert!(!is_own, "{left:?} was not taken back");
                }
                prop_assert_eq!(world.undo(&[chosen]), Ok(None));
                world.settle();
            }
            Err(refused) => {
                prop_assert!(own.is_empty() || refused.kind == RejectionKind::Conflict, "{refused}");
                prop_assert_eq!(&now, &world.state, "nothing happened");
            }
        }
    }
}
