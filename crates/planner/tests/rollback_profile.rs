//! A rollback's own way: what serves nobody goes first, ports and erased secrets are looked for, and
//! what cannot be restored can be left.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use stele_model::decide::plan_rollback;
use stele_model::event::{AssignmentChange, Contacts, Event, Outcome};
use stele_model::limits::DEPLOYMENTS_PER_APP_MAX;
use stele_model::release::{Placement, Port, Protocol};
use stele_model::{AppEnv, Command, ReleaseChoice, Scope};
use world::{Place, Spec, World, image_digest, name, request, rollback, set_secret};

const WEB: &str = "shop/web@prod";
const CART: &str = "shop/cart@prod";

/// The number of instances assigned by each of the planner's steps.
fn begun(commands: &[Command]) -> Vec<usize> {
    let assigned = commands.iter().filter_map(|command| match command {
        Command::Assign { changes, .. } => {
            let begun = changes.iter().filter(|it| matches!(it, AssignmentChange::Assign { .. }));
            Some(begun.count()).filter(|count| *count > 0)
        }
        _ => None,
    });
    assigned.collect()
}

/// Four instances of one image, and then of another; the seq at which the first was in force.
fn world(second: u8) -> (World, u64) {
    let mut world = World::new();
    world.dana(Spec::new(1, 4).deploy(WEB)).unwrap();
    world.settle();
    let good = world.state.seq;
    world.dana(Spec::new(second, 4).deploy(WEB)).unwrap();
    (world, good)
}

#[test]
fn healthy_instances_are_replaced_one_after_the_other() {
    let (mut world, good) = world(2);
    assert_eq!(begun(&world.settle()), [1, 1, 1, 1]);
    world.dana(rollback(WEB, good)).unwrap();
    assert_eq!(begun(&world.settle()), [1, 1, 1, 1]);
}

#[test]
fn what_was_not_replaced_yet_is_not_said_to_be_replaced() {
    let (mut world, good) = world(2);
    // The first one fails beside the one it was to replace, so that no other follows.
    world.sick.insert(image_digest(2));
    assert_eq!(begun(&world.settle()), [1]);
    let plans = plan_rollback(&world.state, &world.states[&good], &name(WEB), &[]);
    assert!(plans[0].by_node(&world.state).is_empty(), "{:?}", plans[0].by_node(&world.state));
    world.dana(rollback(WEB, good)).unwrap();
    assert_eq!(begun(&world.settle()), [] as [usize; 0]);

    let (mut world, good) = self::world(2);
    world.settle();
    let plans = plan_rollback(&world.state, &world.states[&good], &name(WEB), &[]);
    let nodes = plans[0].by_node(&world.state);
    assert_eq!(nodes.values().map(|change| change.replaced.len()).sum::<usize>(), 4, "{nodes:?}");
}

#[test]
fn what_serves_nobody_is_replaced_at_once() {
    let (mut world, good) = world(2);
    world.settle();
    // All that runs falls ill.
    world.sick.insert(image_digest(2));
    world.settle();
    world.dana(rollback(WEB, good)).unwrap();
    assert_eq!(begun(&world.settle()), [4]);

    // One that is healthy still waits its turn, and goes last.
    let (mut world, good) = self::world(2);
    world.sick.insert(image_digest(2));
    world.settle();
    let healthy = world.state.assigned_to(&name::<AppEnv>(WEB)).count();
    assert!(healthy >= 4, "the rollout stopped at the first sick one, and the old ones stay");
    world.dana(rollback(WEB, good)).unwrap();
    let steps = world.settle();
    assert!(begun(&steps).iter().all(|count| *count <= 1), "{:?}", begun(&steps));
}

#[test]
fn now_replaces_all_at_once() {
    let (mut world, good) = world(2);
    world.settle();
    let mut command = rollback(WEB, good);
    if let Command::Rollback { now, .. } = &mut command {
        *now = true;
    }
    world.dana(command).unwrap();
    assert_eq!(begun(&world.settle()), [4]);
}

#[test]
fn what_is_forgotten_is_not_stepped_over() {
    let (mut world, scope) = (World::new(), name::<Scope>(WEB));
    world.dana(Spec::new(1, 1).deploy(WEB)).unwrap();
    world.settle();
    world.dana(Command::Remove { app_env: name(WEB) }).unwrap();
    world.settle();
    world.dana(Spec::new(2, 1).deploy(WEB)).unwrap();
    world.settle();
    let good = world.state.seq;
    world.sick.insert(image_digest(3));
    for number in 0..=DEPLOYMENTS_PER_APP_MAX {
        world.dana(Spec::new(3, 1).with_env("N", &number.to_string()).deploy(WEB)).unwrap();
        world.settle();
        let since = world.state.remembers_since(&scope);
        let found = world.state.last_good(&scope, since);
        if since <= good {
            assert_eq!(found, Some(good), "after {number}");
        } else {
            // That it was away before is remembered, and no way back to what was healthy last.
            assert_eq!(found, None, "after {number}");
            assert!(number > DEPLOYMENTS_PER_APP_MAX / 2, "after {number}");
        }
    }
    assert!(world.state.remembers_since(&scope) > good);
}

/// A release of one instance on a node, with a port of its host.
fn with_port(app_env: &str, image: u8, port: Option<u16>) -> Command {
    let app_env: AppEnv = name(app_env);
    let mut release = Spec::new(image, 1).release(&app_env);
    for service in release.services.values_mut() {
        service.placement = Placement::Replicas { count: 1, nodes: name("node=eu-1") };
        let publish = |host| Port { container: 8080, host: Some(host), protocol: Protocol::Tcp };
        service.container.ports = port.map(publish).into_iter().collect();
    }
    let images = stele_model::FlatMap::from([(name("web"), "registry.example/shop:1".to_owned())]);
    let release = ReleaseChoice::Content { release, images };
    Command::Deploy { app_env, contacts: Some(Contacts::default()), release, again: false, barrier: None }
}

#[test]
fn a_port_that_another_app_has_by_now_is_in_the_way() {
    let mut world = World::new();
    for command in [with_port(WEB, 1, Some(80)), with_port(WEB, 2, None), with_port(CART, 3, Some(80))] {
        world.dana(command).unwrap();
        world.settle();
    }
    let points: Vec<u64> = world.states.keys().copied().collect();
    let then = points.into_iter().find(|seq| {
        let plans = plan_rollback(&world.state, &world.states[seq], &name(WEB), &[]);
        plans.first().is_some_and(|plan| !plan.blocked.is_empty())
    });
    let then = then.expect("a point at which it had the port");
    let refused = world.dana(rollback(WEB, then)).unwrap_err();
    assert_eq!(refused.details, ["shop/web@prod: port 80 on node eu-1 is shop/cart@prod/web.0's"]);
}

#[test]
fn best_effort_leaves_what_cannot_be_restored_and_says_so() {
    let mut world = World::new();
    let secretive = Spec { secret: true, ..Spec::new(1, 1) };
    world.dana(set_secret(WEB, "hunter2")).unwrap();
    world.dana(secretive.deploy(WEB)).unwrap();
    world.dana(Spec::new(1, 1).deploy(CART)).unwrap();
    world.settle();
    let then = world.state.seq;
    let wanted = world.intent(CART);
    for app in [WEB, CART] {
        world.dana(Spec::new(2, 1).deploy(app)).unwrap();
        world.settle();
    }
    let sealed =
        [(WEB, 1), (WEB, 2), (CART, 1)].map(|(subject, version)| world.state.has_sealed(subject, version));
    assert_eq!(sealed, [true, false, false]);
    let erase = Command::EraseSubject { subject: WEB.to_owned(), even_in_use: false };
    world.ask(&request("admin", erase)).unwrap();
    let before = world.state.clone();
    let refused = world.dana(rollback("fleet", then)).unwrap_err();
    assert!(refused.details[0].contains("PASSWORD of service web was sealed"), "{refused:?}");
    assert_eq!(world.state, before, "nothing happened");

    let mut command = rollback("fleet", then);
    if let Command::Rollback { best_effort, .. } = &mut command {
        *best_effort = true;
    }
    world.dana(command).unwrap();
    let told = world.records.iter().rev().find_map(|record| match &record.event {
        Event::RolledBack { deviations, .. } => Some(deviations.clone()),
        _ => None,
    });
    let told = told.unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].what, WEB);
    assert!(told[0].why.starts_with("left as it is: PASSWORD of service web"), "{told:?}");
    assert_eq!(world.intent(CART), wanted);
    assert_eq!(world.intent(WEB), before.target_digest(&Scope::app_env(&name(WEB))));
}

#[test]
fn what_nobody_saw_healthy_has_not_succeeded() {
    let nodes = ["eu-1", "eu-2", "us-1", "us-2"];
    let (mut world, _) = world(2);
    world.sick.insert(image_digest(2));
    world.settle();
    for node in nodes {
        world.lose_or_return(node);
    }
    world.settle();
    assert_eq!(world.ended(WEB), None, "no node can say");
    world.pass_the_deadline();
    let Some(Outcome::Failed { reason, .. }) = world.ended(WEB) else { panic!("nobody saw it healthy") };
    assert!(reason.ends_with("its node is not heard of"), "{reason}");

    // Some say that it is well: the others hold nobody up.
    for node in nodes {
        world.lose_or_return(node);
    }
    world.dana(Spec::new(3, 4).deploy(WEB)).unwrap();
    world.settle();
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
    world.dana(Spec { place: Place::Everywhere, ..Spec::new(4, 4) }.deploy(WEB)).unwrap();
    world.lose_or_return("us-2");
    world.settle();
    assert_eq!(world.ended(WEB), Some(Outcome::Succeeded));
}

#[test]
fn what_no_container_has_any_more_can_be_erased() {
    let mut world = World::new();
    world.dana(set_secret(WEB, "hunter2")).unwrap();
    world.dana(Spec { secret: true, cache: true, ..Spec::new(1, 1) }.deploy(WEB)).unwrap();
    world.settle();
    let erase = || request("admin", Command::EraseSubject { subject: WEB.to_owned(), even_in_use: false });
    let refused = world.clone().ask(&erase()).unwrap_err();
    assert_eq!(refused.details, ["shop/web@prod: PASSWORD of service web"]);
    // The cache is what it was, and stays assigned under the first release.
    world.dana(Spec { cache: true, ..Spec::new(1, 1) }.deploy(WEB)).unwrap();
    world.settle();
    assert!(world.ask(&erase()).unwrap().is_some());
}
