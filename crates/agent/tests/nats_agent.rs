//! The agent on a real NATS server, with a simulated container engine.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use stele_agent::identity::Engine;
use stele_agent::limits::QUESTIONS_CONCURRENCY_MAX;
use stele_agent::{Error, Home};
use stele_bus::ask::{Answer, Outcome, Question, Request, Stamp};
use stele_bus::limits::ASKED_IMAGES_MAX;
use stele_bus::purposes;
use stele_model::Digest;
use stele_model::ids::Time;
use stele_model::release::Image;
use stele_model::wire::Signed;
use stele_runtime::simulated::{Deed, Simulated};
use support::{
    Agent, Controller, Fleet, Nats, Node, containers, eventually, sealed_web, simulated, web, within,
};

struct World {
    nats: Nats,
    fleet: Fleet,
    node: Node,
    controller: Controller,
    runtime: Arc<Simulated>,
}

impl World {
    async fn new() -> Self {
        let nats = Nats::start().await;
        let fleet = Fleet::new("acme");
        let node = Node::enroll(&nats, &fleet, Engine::Simulated);
        let controller = Controller::start(&nats, &fleet, node.keys.public()).await;
        let runtime = simulated(&fleet);
        Self { nats, fleet, node, controller, runtime }
    }
}

#[tokio::test]
async fn what_is_assigned_runs_and_what_is_withdrawn_goes() {
    let world = World::new().await;
    let agent = Agent::start(&world.node, &world.runtime);
    world.controller.hears("a heartbeat", |heard| !heard.heartbeats.is_empty()).await;

    world.controller.publish(&world.fleet.signed(1, vec![web(0), web(1)])).await;
    let report = world.controller.hears_healthy(1, &[0, 1]).await;
    let running = containers(&world.runtime).await;
    assert_eq!(running.len(), 2);
    for told in &report.instances {
        assert_eq!(told.container.as_ref().map(ToString::to_string).as_ref(), running.get(&told.id));
        assert_eq!(told.spec_digest, Some(web(0).spec_digest.into()));
    }

    world.controller.publish(&world.fleet.signed(2, vec![web(1)])).await;
    world.controller.hears_healthy(2, &[1]).await;
    let left = containers(&world.runtime).await;
    assert_eq!(left.get(&web(1).id), running.get(&web(1).id), "the other one was not touched");
    assert_eq!(left.len(), 1);
    agent.stop().await;
    assert_eq!(containers(&world.runtime).await, left, "containers outlive their agent");
}

#[tokio::test]
async fn what_the_log_does_not_know_any_more_goes_in_the_next_epoch() {
    let world = World::new().await;
    world.controller.heard.lock().unwrap().sync_answer = Some(world.fleet.signed(9, vec![web(0)]));
    let agent = Agent::start(&world.node, &world.runtime);
    world.controller.hears_healthy(9, &[0]).await;

    let mut nothing = world.fleet.assignment(0, Vec::new());
    nothing.version.epoch = 2;
    let nothing = world.fleet.sign(&nothing);
    world.controller.heard.lock().unwrap().sync_answer = Some(nothing.clone());
    world.controller.publish(&nothing).await;
    world
        .controller
        .hears("that nothing is left", |heard| {
            let told = heard.reports.last().map(|report| (report.applied.epoch, report.instances.len()));
            let stated = heard.heartbeats.last().and_then(|last| last.observed.as_ref());
            told == Some((2, 0)) && stated.is_some_and(|it| it.instances == 0 && it.differs.is_empty())
        })
        .await;
    assert!(containers(&world.runtime).await.is_empty());
    agent.stop().await;

    // It was told to run nothing, and vouches for that only once it has looked.
    world.runtime.set_down(true);
    let beats = world.controller.heard.lock().unwrap().heartbeats.len();
    let agent = Agent::start(&world.node, &world.runtime);
    world.controller.hears("heartbeats", |heard| heard.heartbeats.len() >= beats + 2).await;
    for heartbeat in &world.controller.heard.lock().unwrap().heartbeats[beats..] {
        assert_eq!((heartbeat.applied.epoch, &heartbeat.observed), (2, &None));
    }
    agent.stop().await;
}

#[tokio::test]
async fn what_is_not_for_this_node_or_not_from_this_fleet_or_old_is_refused() {
    let world = World::new().await;
    let agent = Agent::start(&world.node, &world.runtime);
    let fleet = &world.fleet;
    world.controller.publish(&fleet.signed(5, vec![web(0)])).await;
    // Whatever came before the agent listened comes with sync.
    world.controller.heard.lock().unwrap().sync_answer = Some(fleet.signed(5, vec![web(0)]));
    world.controller.hears_healthy(5, &[0]).await;
    let syncs = world.controller.heard.lock().unwrap().syncs.len();

    let of_another_root = Fleet::with_keys("acme", 3, 4).signed(10, vec![web(1)]);
    let of_another_fleet = Fleet::with_keys("other", 1, 2).signed(10, vec![web(1)]);
    let of_another_node = {
        let mut assignment = fleet.assignment(10, vec![web(1)]);
        assignment.node = "eu-2".parse().unwrap();
        fleet.sign(&assignment)
    };
    let tampered = {
        let signed = fleet.signed(10, vec![web(1)]);
        Signed { body: signed.body.replace("web.1-1", "web.2-1"), ..signed }
    };
    let signed_by_nobody = {
        let stranger = SigningKey::from_bytes(&[77; 32]);
        Signed::new(&stranger, purposes::ASSIGNMENT, &fleet.assignment(10, vec![web(1)]))
    };
    let for_another_purpose =
        Signed::new(&fleet.controller, purposes::REPORT_ACK, &fleet.assignment(10, vec![web(1)]));
    let lying_digest = {
        let mut assignment = fleet.assignment(10, vec![web(1)]);
        assignment.version.digest = fleet.assignment(10, vec![web(0)]).version.digest;
        fleet.sign(&assignment)
    };
    let old = fleet.signed(4, vec![web(1)]);
    let conflicting = fleet.signed(5, vec![web(1)]);
    for bad in [
        of_another_root,
        of_another_fleet,
        of_another_node,
        tampered,
        signed_by_nobody,
        for_another_purpose,
        lying_digest,
        old,
        conflicting,
    ] {
        world.controller.publish(&bad).await;
    }
    world.controller.hears("doubt leads to sync", |heard| heard.syncs.len() > syncs).await;
    world.controller.publish(&fleet.signed(11, vec![web(0), web(3)])).await;
    world.controller.hears_healthy(11, &[0, 3]).await;

    for report in &world.controller.heard.lock().unwrap().reports {
        assert!([0, 5, 11].contains(&report.applied.seq), "{report:?}");
        let ids: Vec<_> = report.instances.iter().map(|one| one.id.slot.index).collect();
        assert!(ids.iter().all(|index| [0, 3].contains(index)), "{ids:?}");
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_removed_controller_is_not_believed_any_more() {
    let world = World::new().await;
    let agent = Agent::start(&world.node, &world.runtime);
    let removed = Fleet::with_controller("acme", 1, 3, 2);
    world.controller.hears("a heartbeat", |heard| !heard.heartbeats.is_empty()).await;
    world.controller.publish(&removed.signed(1, vec![web(0)])).await;
    world.controller.hears_healthy(1, &[0]).await;

    world.controller.publish_removed(&[2]).await;
    let data = world.node.data();
    eventually("it is kept", async || data.read("removed.json").unwrap().is_some()).await;
    let syncs = world.controller.heard.lock().unwrap().syncs.len();
    world.controller.publish(&removed.signed(2, vec![web(1)])).await;
    world.controller.hears("doubt leads to sync", |heard| heard.syncs.len() > syncs).await;
    world.controller.publish(&world.fleet.signed(3, vec![web(0), web(2)])).await;
    world.controller.hears_healthy(3, &[0, 2]).await;
    agent.stop().await;

    // What it signed before it was removed stands; what it signs now is refused by the next agent, too.
    let agent = Agent::start(&world.node, &world.runtime);
    let beats = world.controller.heard.lock().unwrap().heartbeats.len();
    world.controller.hears("the next agent", |heard| heard.heartbeats.len() > beats).await;
    world.controller.publish(&removed.signed(4, vec![web(1)])).await;
    world.controller.publish(&world.fleet.signed(5, vec![web(0)])).await;
    world.controller.hears_healthy(5, &[0]).await;
    for report in &world.controller.heard.lock().unwrap().reports {
        assert!([0, 1, 3, 5].contains(&report.applied.seq), "{report:?}");
    }
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_whose_later_start_is_known_goes_past_it() {
    let world = World::new().await;
    let later = 1 << 52;
    world.controller.heard.lock().unwrap().later_boot = later;
    let agent = Agent::start(&world.node, &world.runtime);
    let told = |boot| move |heard: &support::Heard| heard.reports.iter().any(|report| report.boot == boot);
    world.controller.hears("a report past it", told(later + 1)).await;
    agent.stop().await;
    let agent = Agent::start(&world.node, &world.runtime);
    world.controller.hears("a report of the next start", told(later + 2)).await;
    agent.stop().await;
}

#[tokio::test]
async fn without_nats_an_agent_starts_from_disk_and_keeps_what_it_verified() {
    let world = World::new().await;
    let agent = Agent::start(&world.node, &world.runtime);
    world.controller.heard.lock().unwrap().sync_answer = Some(world.fleet.signed(1, vec![web(0)]));
    world.controller.hears_healthy(1, &[0]).await;
    agent.stop().await;
    drop(world.controller);
    let nats = world.nats.wipe();

    // The host starts anew, with an engine that lost everything and no network.
    let empty = simulated(&world.fleet);
    let agent = Agent::start(&world.node, &empty);
    eventually("the container is made from disk", async || containers(&empty).await.len() == 1).await;
    let before = containers(&empty).await;
    assert!(empty.by_hand(&web(0).id, Deed::Remove));
    eventually("and again when it is removed", async || {
        let now = containers(&empty).await;
        now.len() == 1 && now != before
    })
    .await;

    let nats = Nats::again(nats).await;
    let controller = Controller::start(&nats, &world.fleet, world.node.keys.public()).await;
    controller.hears_healthy(1, &[0]).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_report_is_sent_until_its_own_acknowledgement_is_verified() {
    let world = World::new().await;
    world.controller.heard.lock().unwrap().acks_to_lose = 2;
    let agent = Agent::start(&world.node, &world.runtime);
    world
        .controller
        .hears("a heartbeat with it acknowledged", |heard| {
            heard.heartbeats.last().is_some_and(|beat| beat.acked == 1)
        })
        .await;
    let boot = {
        let heard = world.controller.heard.lock().unwrap();
        let numbers: Vec<_> = heard.reports.iter().map(|report| (report.boot, report.number)).collect();
        let boot = heard.heartbeats[0].boot;
        assert_eq!(numbers, [(boot, 1), (boot, 1), (boot, 1)]);
        assert!(heard.heartbeats.iter().all(|beat| beat.boot == boot));
        let beats: Vec<_> = heard.heartbeats.iter().map(|beat| beat.number).collect();
        assert!(beats.is_sorted_by(|one, next| one < next) && beats[0] == 1, "{beats:?}");
        boot
    };
    agent.stop().await;

    let agent = Agent::start(&world.node, &world.runtime);
    world
        .controller
        .hears("another boot", |heard| {
            heard.reports.last().is_some_and(|report| report.boot > boot && report.number == 1)
        })
        .await;
    agent.stop().await;
}

#[tokio::test]
async fn sealed_values_are_opened_for_the_engine_and_never_for_the_disk() {
    let world = World::new().await;
    let (instance, key) = sealed_web(0, &world.node.keys.sealing_public());
    let mut assignment = world.fleet.assignment(1, vec![instance.clone()]);
    // The key is missing at first: nothing runs, and the reason is told.
    world.controller.heard.lock().unwrap().sync_answer = Some(world.fleet.sign(&assignment));
    let agent = Agent::start(&world.node, &world.runtime);
    world
        .controller
        .hears("that a value is sealed", |heard| {
            heard
                .reports
                .iter()
                .flat_map(|report| &report.instances)
                .any(|told| told.reason().is_some_and(|reason| reason.contains("still sealed")))
        })
        .await;

    assignment.keys.push(key);
    world.controller.publish(&world.fleet.sign(&assignment)).await;
    let report = world.controller.hears_healthy(1, &[0]).await;
    assert_eq!(report.instances[0].spec_digest, Some(instance.spec_digest.into()));
    let files = world.runtime.files(&instance.id);
    assert_eq!(files.get("/etc/password").map(String::as_str), Some("hunter2-file"));
    agent.stop().await;

    let mut kept = 0;
    for entry in std::fs::read_dir(world.node.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
        kept += 1;
    }
    assert!(kept >= 5, "keys, node, assignment, version and lock are kept");

    // What is on disk is enough to open it again.
    let empty = simulated(&world.fleet);
    let agent = Agent::start(&world.node, &empty);
    eventually("the file is opened again", async || {
        empty.files(&instance.id).get("/etc/password").is_some_and(|text| text == "hunter2-file")
    })
    .await;
    agent.stop().await;
}

/// Long enough that an answer certainly comes.
const ANSWERED_WITHIN: Duration = Duration::from_mins(1);
/// An answer that did not come until now is taken to be refused; a slow machine only hides a fault.
const UNANSWERED_AFTER: Duration = Duration::from_secs(1);

#[tokio::test]
async fn controllers_get_answers_and_nobody_else_does() {
    let world = World::new().await;
    world.controller.heard.lock().unwrap().sync_answer = Some(world.fleet.signed(1, vec![web(0)]));
    let agent = Agent::start(&world.node, &world.runtime);
    world.controller.hears_healthy(1, &[0]).await;
    let (region, node) = ("eu".parse().unwrap(), "eu-1".parse().unwrap());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let request = Request {
        fleet: "acme".parse().unwrap(),
        node: "eu-1".parse().unwrap(),
        question: Question::Logs { instance: web(0).id, lines: 10, since_ms: None },
        asked: Time(u64::try_from(now.as_micros()).unwrap()),
        controller: world.fleet.certificate.clone(),
    };
    let sign = |key: &SigningKey, request: &Request| Signed::new(key, purposes::QUESTION, request);
    let right = sign(&world.fleet.controller, &request);
    let forged = sign(&SigningKey::from_bytes(&[77; 32]), &request);
    let replayed =
        sign(&world.fleet.controller, &Request { asked: Time(1_800_000_000_000_000), ..request.clone() });
    let elsewhere =
        sign(&world.fleet.controller, &Request { node: "eu-2".parse().unwrap(), ..request.clone() });

    let bus = &world.controller.bus;
    let (answer, forged, replayed, elsewhere) = within("answers", async {
        tokio::join!(
            bus.ask(&region, &node, &right, ANSWERED_WITHIN),
            bus.ask(&region, &node, &forged, UNANSWERED_AFTER),
            bus.ask(&region, &node, &replayed, UNANSWERED_AFTER),
            bus.ask(&region, &node, &elsewhere, UNANSWERED_AFTER),
        )
    })
    .await;
    let answer: Answer = answer.unwrap().open(&world.node.keys.public(), purposes::ANSWER).unwrap();
    let Outcome::Logs { lines, stamps, is_cut: false } = answer.outcome else {
        panic!("{:?}", answer.outcome)
    };
    assert_eq!(lines, ["start 1"]);
    let [Stamp { time_ms: Some(started), stderr: false }] = stamps[..] else { panic!("{stamps:?}") };
    assert_eq!((answer.question, answer.asked), (request.question.clone(), request.asked));
    for refused in [forged, replayed, elsewhere] {
        assert!(matches!(refused, Err(stele_bus::Error::TimedOut { .. })), "{refused:?}");
    }

    let asked = async |question: Question| {
        let signed = sign(&world.fleet.controller, &Request { question, ..request.clone() });
        let answer: Answer = bus.ask(&region, &node, &signed, ANSWERED_WITHIN).await.unwrap().peek().unwrap();
        answer.outcome
    };
    let why = "the instance has no container on this node".to_owned();
    let of_first = |since_ms| Question::Logs { instance: web(0).id, lines: 10, since_ms: Some(since_ms) };
    let told = async |since_ms| match asked(of_first(since_ms)).await {
        Outcome::Logs { lines, .. } => lines,
        other => panic!("{other:?}"),
    };
    assert_eq!(told(started).await, ["start 1"]);
    assert_eq!(told(started + 1).await, Vec::<String>::new());
    // Whoever follows all instances of a node asks of all of them at once, and each is answered.
    let crowd = futures::future::join_all((0..QUESTIONS_CONCURRENCY_MAX * 4).map(|_| told(started))).await;
    assert!(crowd.iter().all(|lines| lines == &["start 1"]), "{crowd:?}");
    let unknown = Question::Logs { instance: web(9).id, lines: 10, since_ms: None };
    assert_eq!(asked(unknown).await, Outcome::Failed { why });

    let (here, elsewhere) =
        (web(0).spec.container.image, Image { repository: "test/none".to_owned(), digest: Digest::EMPTY });
    let images = vec![elsewhere, here.clone()];
    assert_eq!(asked(Question::Images { images }).await, Outcome::Images { here: vec![here.clone()] });
    let too_many = Question::Images { images: vec![here; ASKED_IMAGES_MAX + 1] };
    assert!(matches!(asked(too_many).await, Outcome::Failed { why } if why.contains("256")));
    agent.stop().await;
}

#[tokio::test]
async fn a_nats_that_was_lost_with_everything_on_it_is_healed_by_sync() {
    let world = World::new().await;
    world.controller.heard.lock().unwrap().sync_answer = Some(world.fleet.signed(1, vec![web(0)]));
    let agent = Agent::start(&world.node, &world.runtime);
    world.controller.hears_healthy(1, &[0]).await;
    let before = containers(&world.runtime).await;

    // Published while nobody hears it, and lost.
    let wiped = world.nats.wipe();
    world.controller.heard.lock().unwrap().sync_answer = Some(world.fleet.signed(2, vec![web(0), web(1)]));
    assert!(world.runtime.by_hand(&web(0).id, Deed::Kill), "it is there while NATS is away");
    let nats = Nats::again(wiped).await;
    world.controller.hears_healthy(2, &[0, 1]).await;
    let after = containers(&world.runtime).await;
    assert_eq!(before.get(&web(0).id), after.get(&web(0).id), "started again, not made anew");
    agent.stop().await;
    drop(nats);
}

#[tokio::test]
async fn a_damaged_assignment_leaves_containers_alone_until_sync_and_lets_nothing_old_in() {
    let world = World::new().await;
    let second = world.fleet.signed(2, vec![web(0)]);
    world.controller.heard.lock().unwrap().sync_answer = Some(second.clone());
    let agent = Agent::start(&world.node, &world.runtime);
    world.controller.hears_healthy(2, &[0]).await;
    agent.stop().await;
    let before = containers(&world.runtime).await;

    std::fs::write(world.node.path().join("assignment.json"), "{\"body\":\"half of i").unwrap();
    let (beats, syncs) = {
        let mut heard = world.controller.heard.lock().unwrap();
        heard.sync_answer = Some(world.fleet.signed(1, Vec::new()));
        heard.reports.clear();
        (heard.heartbeats.len(), heard.syncs.len())
    };
    let agent = Agent::start(&world.node, &world.runtime);
    world
        .controller
        .hears("two attempts at sync", |heard| {
            heard.syncs.len() >= syncs + 2 && heard.heartbeats.len() > beats
        })
        .await;
    {
        let heard = world.controller.heard.lock().unwrap();
        assert_eq!(heard.heartbeats.last().unwrap().applied.seq, 0, "it says that it has nothing");
        assert!(heard.reports.iter().all(|report| report.applied.seq == 0));
    }
    assert_eq!(containers(&world.runtime).await, before, "nothing was stopped");

    world.controller.heard.lock().unwrap().sync_answer = Some(second);
    world.controller.hears_healthy(2, &[0]).await;
    assert_eq!(containers(&world.runtime).await, before);
    agent.stop().await;
}

#[tokio::test]
async fn an_engine_that_is_away_is_not_taken_for_an_empty_one() {
    let world = World::new().await;
    world.controller.heard.lock().unwrap().sync_answer = Some(world.fleet.signed(1, vec![web(0)]));
    let agent = Agent::start(&world.node, &world.runtime);
    world.controller.hears_healthy(1, &[0]).await;
    agent.stop().await;

    world.runtime.set_down(true);
    let beats = {
        let mut heard = world.controller.heard.lock().unwrap();
        heard.reports.clear();
        heard.heartbeats.len()
    };
    let agent = Agent::start(&world.node, &world.runtime);
    world.controller.hears("heartbeats", |heard| heard.heartbeats.len() >= beats + 2).await;
    assert!(world.controller.heard.lock().unwrap().reports.is_empty());
    world.runtime.set_down(false);
    world.controller.hears_healthy(1, &[0]).await;
    agent.stop().await;
}

#[tokio::test]
async fn one_data_directory_has_one_agent() {
    let world = World::new().await;
    let agent = Agent::start(&world.node, &world.runtime);
    world.controller.hears("a heartbeat", |heard| !heard.heartbeats.is_empty()).await;
    assert!(matches!(Home::open(world.node.data()), Err(Error::Locked(_))));
    agent.stop().await;
    Home::open(world.node.data()).unwrap();
}
