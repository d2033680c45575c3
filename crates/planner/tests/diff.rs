//! Differences between points: what people are told agrees with what digests say.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use proptest::prelude::*;
use stele_model::{Difference, Scope, diff};
use world::changes::{changes, live};
use world::{Spec, World, name, rollback, set_config, set_secret};

const WEB: &str = "shop/web@prod";

/// Differences as lines.
fn lines(differences: &[Difference]) -> Vec<String> {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    differences.iter().map(|it| format!("{}: {} -> {}", it.path, text(&it.before), text(&it.after))).collect()
}

#[test]
fn every_kind_of_change_is_told_as_people_would() {
    let mut world = World::new();
    let mut first = Spec::new(1, 1).with_env("A", "1").with_env("B", "1");
    first.file = Some("one\n".to_owned());
    world.dana(first.deploy(WEB)).unwrap();
    world.settle();
    let before = world.state.clone();
    world.dana(set_secret(WEB, "hunter2")).unwrap();
    let mut second = Spec::new(2, 2).with_env("A", "2");
    (second.file, second.secret, second.cache) = (Some("two\n".to_owned()), true, true);
    world.dana(second.deploy(WEB)).unwrap();
    world.dana(set_config(WEB, "COLOUR", Some("blue"))).unwrap();
    world.settle();
    let found = lines(&diff(&before, &world.state, &Scope::fleet()));
    let image = |image: u8| format!("registry.example/shop:{image}@{}", stele_model::Digest::of(&[&[image]]));
    let expected = [
        "config.COLOUR: - -> blue".to_owned(),
        "release: v1 -> v2".to_owned(),
        "secrets.db: - -> version 1".to_owned(),
        "services.web.container.env.A: 1 -> 2".to_owned(),
        "services.web.container.env.B: 1 -> -".to_owned(),
        "services.web.container.env.PASSWORD: - -> <secret db>".to_owned(),
        "services.web.container.files./etc/web.conf.content: one\n -> two\n".to_owned(),
        format!("services.web.container.image: {} -> {}", image(1), image(2)),
        "services.web.placement.replicas.count: 1 -> 2".to_owned(),
    ];
    for line in expected {
        assert!(found.contains(&line), "{line} is not in {found:#?}");
    }
    let cache: Vec<_> = found.iter().filter(|line| line.starts_with("services.cache")).collect();
    assert_eq!(cache.len(), 1, "a service that came is one difference: {found:#?}");
    assert!(!found.concat().contains(&"68756e74657232"[..8]), "no secret, not even sealed");
    assert!(found.iter().any(|line| line.starts_with("placement.web.1: - -> ")), "{found:#?}");
    let back = diff(&world.state, &before, &Scope::fleet());
    assert_eq!(back.len(), found.len(), "the other way round it is as much");
}

#[test]
fn an_app_that_came_is_one_difference() {
    let mut world = World::new();
    let before = world.state.clone();
    world.dana(Spec::new(1, 1).with_env("A", "1").deploy(WEB)).unwrap();
    let found = diff(&before, &world.state, &name("project:shop"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].path.as_str(), &found[0].before), ("", &None));
    let text = found[0].after.as_deref().unwrap();
    assert!(text.contains(r#""release":"v1""#) && text.contains("registry.example/shop:1@sha256:"), "{text}");
}

#[test]
fn a_region_that_is_held_back_is_told() {
    let mut world = World::new();
    world.dana(Spec::new(1, 4).deploy(WEB)).unwrap();
    world.settle();
    let first = world.state.clone();
    world.dana(Spec::new(2, 4).deploy(WEB)).unwrap();
    world.settle();
    let before = world.state.clone();
    world.dana(rollback("shop/web@prod,region:eu", first.seq)).unwrap();
    let told = |scope: &str| lines(&diff(&before, &world.state, &name(scope)));
    assert_eq!(told("fleet"), ["pins.region:eu: - -> v1"]);
    assert_eq!(told("region:us"), [""; 0]);
    assert!(told("region:eu").contains(&"release: v2 -> v1".to_owned()), "{:?}", told("region:eu"));
    assert!(told("node:eu-1").contains(&"release: v2 -> v1".to_owned()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn nothing_differs_exactly_where_digests_are_equal(
        changes in changes(),
        points in any::<[prop::sample::Index; 2]>(),
    ) {
        let mut world = World::new();
        live(&mut world, &changes);
        let states: Vec<_> = world.states.values().filter(|state| !state.control.nodes.is_empty()).collect();
        let [one, other] = points.map(|at| *at.get(&states));
        for scope in [
            "fleet", "project:shop", "env:prod", "shop/web@prod", "shop/web@staging", "shop/web", "region:eu",
            "node:us-1", "shop/web@prod,region:us", "shop/web@prod,node:eu-1", "env:prod,region:us,node:us-1",
        ] {
            let scope: Scope = name(scope);
            let differences = diff(one, other, &scope);
            let equal = one.target_digest(&scope) == other.target_digest(&scope);
            prop_assert_eq!(differences.is_empty(), equal, "{} {:?}", scope, differences);
            prop_assert_eq!(differences.len(), diff(other, one, &scope).len());
        }
    }
}
