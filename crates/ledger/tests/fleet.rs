//! Deployments and rollbacks of a whole fleet, in memory: deciding, committing on
//! two replicas, planning, and nodes that do as they are told.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use stele_ledger::system_request;
use stele_model::event::Outcome;
use stele_model::ids::ServiceName;
use stele_model::limits::{
    IDEMPOTENCY_WINDOW_US, INSTANCES_PER_NODE_MAX, LOG_LINE_BYTES_MAX, LOG_TAIL_LINES_MAX,
};
use stele_model::point::Verdict;
use stele_model::release::EnvValue;
use stele_model::wire::{InstanceReport, Phase, Remarks, Report};
use stele_model::{Command, Digest, Idempotency, NodeName, RejectionKind, Scope, Sealed};
use world::{World, links, name, release, shop};

#[test]
fn a_rollback_restores_intent_and_placement_exactly() {
    let mut world = World::new();
    world.deploy("dana", release("one", 3, false)).unwrap();
    world.settle();
    let scope = Scope::app_env(&shop());
    let (then, ran) = (world.state().target_digest(&scope), world.running());
    assert_eq!(ran.len(), 5, "three web servers and a worker on each node of eu");

    world.deploy("ci", release("two", 4, true)).unwrap();
    world.settle();
    assert_eq!(world.running().len(), 7);
    assert_ne!(world.state().target_digest(&scope), then);

    let answer = world.rollback("dana", "v1").unwrap();
    assert_eq!(answer.deployments.len(), 1);
    assert_eq!(world.state().target_digest(&scope), then, "the target is what it was, before anything moved");
    world.settle();
    assert_eq!(world.running(), ran, "the same containers on the same nodes");
    assert_eq!(world.state().target_digest(&scope), then, "nothing drifts afterwards");
    let (_, deployment) = world.state().latest_deployment(&shop()).unwrap();
    assert!(matches!(deployment.finished, Some((_, _, Outcome::Succeeded))));
    world.system(Command::RecordStateDigest);
    let (_, matched) = world.verify();
    assert_eq!(matched, 1);
}

#[test]
fn rolling_back_a_rollback_works() {
    let mut world = World::new();
    for image in ["one", "two"] {
        world.deploy("dana", release(image, 2, false)).unwrap();
        world.settle();
    }
    let two = world.running();
    world.rollback("dana", "prev").unwrap();
    world.settle();
    assert_ne!(world.running(), two);
    world.rollback("dana", "prev").unwrap();
    world.settle();
    assert_eq!(world.running(), two);
}

#[test]
fn a_rejected_release_is_latched_until_a_person_unlatches() {
    let mut world = World::new();
    world.deploy("ci", release("one", 2, false)).unwrap();
    world.settle();
    world.deploy("ci", release("two", 2, false)).unwrap();
    world.settle();
    world.rollback("dana", "last-good").unwrap();
    world.settle();
    let refused = world.deploy("ci", release("two", 2, false)).unwrap_err();
    assert_eq!(refused.kind, RejectionKind::Conflict);
    assert_eq!(refused.next.as_deref(), Some("stele unlatch shop/web@prod"));
    let refused = world.ask("ci", Command::Unlatch { app_env: shop() }).unwrap_err();
    assert_eq!(refused.kind, RejectionKind::Forbidden, "automation does not lift a latch");
    world.deploy("ci", release("three", 2, false)).expect("a release that was not rejected is welcome");
    world.settle();
    world.ask("dana", Command::Unlatch { app_env: shop() }).unwrap();
    world.deploy("ci", release("two", 2, false)).unwrap();
}

#[test]
fn a_failed_instance_stops_the_rollout_within_its_budget() {
    let mut world = World::new();
    world.deploy("dana", release("one", 3, false)).unwrap();
    world.settle();
    let before = world.running();
    world.broken = world.state().control.nodes.keys().cloned().collect();
    world.deploy("dana", release("bad", 3, false)).unwrap();
    world.settle();
    let (_, deployment) = world.state().latest_deployment(&shop()).unwrap();
    let Some((_, _, Outcome::Failed { reason, exit_code, log_tail, .. })) = &deployment.finished else {
        panic!("{:?}", deployment.finished)
    };
    assert_eq!((reason.as_str(), *exit_code, log_tail.len()), ("exited with 3", Some(3), 1));
    let changed = world.running().iter().filter(|(slot, ran)| before.get(*slot) != Some(ran)).count();
    assert_eq!(changed, 1, "one slot at a time: the others still serve the old release");
    world.rollback("dana", "v1").unwrap();
    world.broken.clear();
    world.settle();
    assert_eq!(world.running(), before);
}

#[test]
fn what_was_unwell_before_a_deployment_has_its_time_from_there() {
    let mut world = World::new();
    world.deploy("dana", release("one", 2, false)).unwrap();
    world.settle();
    world.unwell = true;
    world.report();
    world.pass(3600);
    world.deploy("dana", release("two", 2, false)).unwrap();
    world.settle();
    let latest = |world: &World| world.state().latest_deployment(&shop()).unwrap().1.finished.clone();
    assert_eq!(latest(&world), None, "the worker did not change, and may still become healthy");
    world.pass(61);
    world.settle();
    assert!(matches!(latest(&world), Some((_, _, Outcome::Failed { .. }))), "but not for ever");
}

#[test]
fn an_app_that_cannot_be_placed_says_why() {
    let mut world = World::new();
    world.deploy("dana", release("one", 7, false)).unwrap();
    world.settle();
    let (_, deployment) = world.state().latest_deployment(&shop()).unwrap();
    let Some((_, _, Outcome::Unplaced { reason, .. })) = &deployment.finished else {
        panic!("{:?}", deployment.finished)
    };
    assert!(reason.contains("port 8080"), "{reason}");
}

#[test]
fn a_removed_app_leaves_nothing_and_can_come_back() {
    let mut world = World::new();
    world.deploy("dana", release("one", 3, true)).unwrap();
    world.settle();
    let before = world.running();
    world.ask("dana", Command::Remove { app_env: shop() }).unwrap();
    world.settle();
    assert!(world.running().is_empty());
    assert_eq!(
        world.state().target_digest(&Scope::fleet()).intent,
        Digest::EMPTY,
        "absent facts hash to nothing"
    );
    world.rollback("dana", "prev").unwrap();
    world.settle();
    assert_eq!(world.running(), before);
}

/// A record's header names the nodes it is about, and has no room for all of these.
#[test]
fn an_app_on_every_node_of_a_large_fleet_fits_into_the_log() {
    const NODES: usize = 1_000;
    let mut world = World::new();
    let filler = "n".repeat(55);
    let names: Vec<String> = (0..NODES).map(|at| format!("{filler}-{at}")).collect();
    for node in &names {
        world.enrol(node, "eu");
    }
    world.deploy("dana", release("one", 3, true)).unwrap();
    world.settle();
    let before = world.running();
    assert!(before.len() > NODES, "{} instances", before.len());
    assert!(world.state().index_is_true());
    let (_, deployment) = world.state().latest_deployment(&shop()).unwrap();
    assert!(matches!(deployment.finished, Some((_, _, Outcome::Succeeded))));

    world.ask("dana", Command::Remove { app_env: shop() }).unwrap();
    world.settle();
    assert!(world.running().is_empty());
    world.rollback("dana", "prev").unwrap();
    world.settle();
    assert_eq!(world.running(), before);

    let lost: Vec<_> = names.iter().map(|node| name(node)).collect();
    world.system(Command::MarkNodes { lost: lost.clone(), returned: Vec::new() });
    assert!(lost.iter().all(|node| !world.state().is_reachable(node)));
    assert!(world.state().index_is_true());
    world.verify();
}

/// Every assignment names all secrets of its app.
#[test]
fn an_app_of_many_secrets_fits_into_the_log() {
    const REPLICAS: u32 = 700;
    let mut world = World::new();
    let filler = "s".repeat(50);
    let secrets: Vec<String> = (0..100).map(|at| format!("{filler}-{at}")).collect();
    for secret in &secrets {
        let value = Sealed {
            subject: "shop/web@prod".to_owned(),
            key_version: 1,
            nonce: String::new(),
            ciphertext: String::new(),
        };
        world.ask("dana", Command::SetSecret { app_env: shop(), name: name(secret), value }).unwrap();
    }
    let mut release = release("one", REPLICAS, false);
    let web = release.services.get_mut(&name::<ServiceName>("web")).unwrap();
    web.container.ports.clear();
    for secret in &secrets {
        web.container.env.insert(secret.replace('-', "_"), EnvValue::Secret(name(secret)));
    }
    world.deploy("dana", release).unwrap();
    world.settle();
    assert_eq!(world.running().len(), REPLICAS as usize + 2);
    world.verify();
}

#[test]
fn what_a_node_in_trouble_tells_fits_into_the_log() {
    let mut world = World::new();
    let tell = |world: &mut World, number: u64, instances: Vec<InstanceReport>| {
        let before = world.state().seq;
        let version = world.state().assignment_version(&name("eu-1"));
        let report =
            Report { fleet: name("demo"), node: name("eu-1"), boot: 1, number, applied: version, instances };
        world.system(Command::Report { reports: vec![report.clone()] });
        let known = world.state().observed[&name::<NodeName>("eu-1")].clone();
        let told: Vec<_> = known.instances.values().map(|told| (**told).clone()).collect();
        assert_eq!((known.number, told), (number, report.instances), "all of it is known");
        world.state().seq - before
    };
    let lines = vec!["x".repeat(LOG_LINE_BYTES_MAX); LOG_TAIL_LINES_MAX];
    let failed = |at: usize| InstanceReport {
        id: name(&format!("shop/web@prod/web.{at:04}-1")),
        phase: Phase::Failed,
        spec_digest: None,
        container: None,
        restarts: 3,
        remarks: Remarks::of(Some("r".repeat(1024)), Some(1), lines.clone()),
    };
    // As much as a report can be.
    assert!(tell(&mut world, 1, (0..40).map(failed).collect()) > 1);
    let short = |at| InstanceReport { remarks: None, ..failed(at) };
    tell(&mut world, 2, (0..INSTANCES_PER_NODE_MAX).map(short).collect());
    tell(&mut world, 3, Vec::new());
    // A header names every app that a node tells of.
    let of_app = |at: usize| {
        let filler = "a".repeat(58);
        let id = name(&format!("{filler}/{filler}-{at:04}@{filler}/web.0-1"));
        InstanceReport { id, remarks: None, ..failed(0) }
    };
    assert!(tell(&mut world, 4, (0..INSTANCES_PER_NODE_MAX).map(of_app).collect()) > 1);
    assert!(tell(&mut world, 5, Vec::new()) > 1);
    world.verify();
}

#[test]
fn what_a_node_said_before_its_last_start_is_no_news() {
    let mut world = World::new();
    let tell = |world: &mut World, boot: u64, number: u64, restarts: u32| {
        let one = InstanceReport {
            id: name("shop/web@prod/web.0-1"),
            phase: Phase::Failed,
            spec_digest: None,
            container: None,
            restarts,
            remarks: None,
        };
        let applied = world.state().assignment_version(&name("eu-1"));
        let report =
            Report { fleet: name("demo"), node: name("eu-1"), boot, number, applied, instances: vec![one] };
        world.system(Command::Report { reports: vec![report] });
        let known = &world.state().observed[&name::<NodeName>("eu-1")];
        (known.boot, known.number, known.instances.values().next().unwrap().restarts)
    };
    assert_eq!(tell(&mut world, 5, 1, 1), (5, 1, 1));
    assert_eq!(tell(&mut world, 6, 1, 2), (6, 1, 2));
    assert_eq!(tell(&mut world, 5, 1, 1), (6, 1, 2), "somebody sent it again");
    assert_eq!(tell(&mut world, 5, 9, 3), (6, 1, 2), "it was under way when the agent started again");
    assert_eq!(tell(&mut world, 6, 2, 3), (6, 2, 3));
    world.verify();
}

#[test]
fn roles_bound_what_may_be_asked() {
    let mut world = World::new();
    for principal in ["ada", "nobody"] {
        let refused = world.deploy(principal, release("one", 1, false)).unwrap_err();
        assert_eq!(refused.kind, RejectionKind::Forbidden);
    }
    let refused = world.ask("dana", Command::RemoveNode { node: name("eu-1") }).unwrap_err();
    assert_eq!(refused.kind, RejectionKind::Forbidden);
    let refused = world.ask("admin", Command::RecordStateDigest).unwrap_err();
    assert_eq!(refused.kind, RejectionKind::Forbidden, "what controllers do is theirs alone");
    world.pass(40 * 86_400);
    let refused = world.deploy("dana", release("one", 1, false)).unwrap_err();
    assert_eq!(refused.kind, RejectionKind::Forbidden, "the token has expired");
}

#[test]
fn the_same_key_gives_the_same_answer_and_another_body_is_refused() {
    let mut world = World::new();
    let mut request = system_request(Command::Deploy {
        app_env: shop(),
        contacts: Some(stele_model::event::Contacts::default()),
        release: stele_model::ReleaseChoice::Content {
            release: release("one", 1, false),
            images: stele_model::FlatMap::new(),
        },
        again: false,
        barrier: None,
    });
    request.principal = name("dana");
    request.links = links();
    request.idempotency = Some(Idempotency { key: "k1".to_owned(), request: Digest::of(&[b"body"]) });
    let first = world.request(&request).unwrap();
    let seq = world.state().seq;
    assert_eq!(world.request(&request).unwrap(), first);
    assert_eq!(world.state().seq, seq, "nothing was decided again");
    request.idempotency = Some(Idempotency { key: "k1".to_owned(), request: Digest::of(&[b"other"]) });
    assert_eq!(world.request(&request).unwrap_err().kind, RejectionKind::KeyReused);
    world.pass(IDEMPOTENCY_WINDOW_US / 1_000_000);
    world.request(&request).expect("the key is free again, though nothing was asked for under another since");
}

#[test]
fn if_match_refuses_what_changed_in_the_meantime() {
    let mut world = World::new();
    world.deploy("dana", release("one", 1, false)).unwrap();
    world.settle();
    let scope = Scope::app_env(&shop());
    let seen = world.state().last_changed(&scope);
    world.deploy("ci", release("two", 1, false)).unwrap();
    let mut request = system_request(Command::Remove { app_env: shop() });
    request.principal = name("dana");
    request.if_match = Some((scope.clone(), seen));
    assert_eq!(world.request(&request).unwrap_err().kind, RejectionKind::Precondition);
    request.if_match = Some((scope.clone(), world.state().last_changed(&scope)));
    world.request(&request).unwrap();
}

#[test]
fn refusals_are_logged_but_cannot_flood_the_log() {
    let mut world = World::new();
    let before = world.state().seq;
    for _ in 0..100 {
        let mut request = system_request(Command::RecordRefusal {
            action: "deploy".to_owned(),
            scope: "shop/web@prod".to_owned(),
            why: "no".to_owned(),
        });
        request.principal = name("ada");
        world.request(&request).unwrap();
    }
    assert_eq!(world.state().seq - before, u64::from(stele_model::limits::REFUSALS_PER_WINDOW_MAX));
    assert_eq!(world.records.last().unwrap().1.header.principal.as_str(), "ada", "it names who was refused");
}

#[test]
fn entries_of_another_term_or_history_are_void_everywhere() {
    let mut world = World::new();
    let seq = world.state().seq;
    let entry = stele_codec::Entry {
        fleet: "demo".to_owned(),
        term: world::TERM + 1,
        first: seq + 1,
        previous: world.leader.chain(),
        records: Vec::new(),
    };
    let committed = world.follower.commit(900, world::TERM, &entry.encode()).unwrap();
    assert!(committed.records.is_empty());
    let entry = stele_codec::Entry { term: world::TERM, first: seq + 5, ..entry };
    let committed = world.follower.commit(901, world::TERM, &entry.encode()).unwrap();
    assert!(committed.records.is_empty());
    assert_eq!(world.follower.state().seq, seq);
}

fn set_config(world: &mut World, key: &str, value: &str) {
    let variables = std::collections::BTreeMap::from([(key.to_owned(), Some(value.into()))]);
    world.ask("dana", Command::SetConfig { app_env: shop(), variables }).unwrap();
    world.settle();
}

fn config(world: &World) -> stele_model::FlatMap<String, stele_model::Value> {
    let digest = world.state().target.intent[&shop()].config.unwrap();
    world.state().history.configs.get(&digest).unwrap().as_ref().clone()
}

#[test]
fn config_goes_on_from_what_is_in_force_after_a_rollback() {
    let mut world = World::new();
    world.deploy("dana", release("one", 1, false)).unwrap();
    world.settle();
    set_config(&mut world, "X", "1");
    set_config(&mut world, "X", "2");
    world.rollback("dana", "prev").unwrap();
    world.settle();
    assert_eq!(config(&world)["X"], "1".into());
    set_config(&mut world, "Y", "1");
    assert_eq!(config(&world)["X"], "1".into(), "what was rolled back does not come back by itself");
    set_config(&mut world, "X", "2");
    assert_eq!(config(&world)["X"], "2".into(), "and is set again when somebody asks");
}

#[test]
fn last_good_asked_again_steps_further_back() {
    let mut world = World::new();
    world.deploy("dana", release("one", 1, false)).unwrap();
    world.settle();
    for value in ["1", "2", "3"] {
        set_config(&mut world, "X", value);
    }
    for value in ["2", "1"] {
        world.rollback("dana", "last-good").unwrap();
        world.settle();
        assert_eq!(config(&world)["X"], value.into());
    }
}

#[test]
fn what_was_healthy_stays_so_before_it_was_deployed_again() {
    let mut world = World::new();
    let deploy = |world: &mut World, app: &str, image: &str, again: bool| {
        let mut release = release(image, 1, false);
        for service in release.services.values_mut() {
            service.container.ports.clear();
        }
        release.app = name(app);
        let command = Command::Deploy {
            app_env: name(&format!("{app}@prod")),
            contacts: Some(stele_model::event::Contacts::default()),
            release: stele_model::ReleaseChoice::Content { release, images: stele_model::FlatMap::new() },
            again,
            barrier: None,
        };
        world.ask("dana", command).unwrap();
        world.settle();
    };
    deploy(&mut world, "shop/web", "one", false);
    deploy(&mut world, "blog/site", "one", false);
    let both_were_healthy = world.state().seq;
    deploy(&mut world, "blog/site", "two", false);
    deploy(&mut world, "shop/web", "one", true);
    deploy(&mut world, "shop/web", "two", false);

    let scope: Scope = name("env:prod");
    let mut points = world.state().earlier(&scope, 0);
    let then = points.find(|it| it.point <= both_were_healthy + 1).unwrap();
    assert_eq!(then.verdict, Verdict::Good, "shop/web was healthy then, too: {then:?}");
}

#[test]
fn the_last_administrator_cannot_be_made_less() {
    let mut world = World::new();
    let mut token = world.state().control.tokens[&name::<stele_model::PrincipalId>("admin")].clone();
    token.role = stele_model::event::Role::Auditor;
    let refused = world.ask("admin", Command::CreateToken { token: token.clone() }).unwrap_err();
    assert_eq!(refused.kind, RejectionKind::Conflict);
    let second = stele_model::event::Token {
        principal: name("eve"),
        hash: Digest::of(&[b"eve"]),
        role: stele_model::event::Role::Admin,
        ..token.clone()
    };
    world.ask("admin", Command::CreateToken { token: second }).unwrap();
    world.ask("admin", Command::CreateToken { token }).expect("there is another one");
}

#[test]
fn a_slot_that_fell_over_counts_against_the_budget() {
    let mut world = World::new();
    let release = |image| {
        let mut release = release(image, 3, false);
        for service in release.services.values_mut() {
            // Nothing exclusive: the new one starts before the old one stops.
            service.container.ports.clear();
        }
        release
    };
    world.deploy("dana", release("one")).unwrap();
    world.settle();
    world.deploy("dana", release("two")).unwrap();
    let renewed = |world: &World| {
        let web: Vec<_> = world
            .state()
            .assigned_to(&shop())
            .filter(|(_, id, _)| id.slot.service.as_str() == "web")
            .map(|(_, _, to)| world.state().release_number(&to.revision.release))
            .collect();
        (web.len(), web.iter().filter(|number| **number == Some(2)).count())
    };
    for _ in 0..20 {
        if renewed(&world) == (4, 2) {
            break;
        }
        world.advance();
    }
    assert_eq!(renewed(&world), (4, 2), "one is done, the next has begun");
    world.unwell_slots.push("shop/web@prod/web.0".to_owned());
    world.settle();
    assert_eq!(renewed(&world), (3, 2), "while the first is down, the third is not touched");
}
