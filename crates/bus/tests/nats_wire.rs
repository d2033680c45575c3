//! Assignments, reports, sync and questions over a real NATS server.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use stele_bus::{AgentBus, AgentEvent, Audience, ControllerBus, Error};
use support::{Nats, eventually, next, signed, up, within};

/// Long enough for an answer on loopback, short enough to lose one on purpose.
const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn an_assignment_reaches_its_node_and_no_other() {
    let nats = Nats::start().await;
    let controller = nats.controller().await;
    let (_mine, mut inbox) = nats.listening_agent("eu-1").await;
    let (_other, mut other_inbox) = nats.listening_agent("eu-2").await;
    let region = "eu".parse().unwrap();

    let for_mine = signed(&"for eu-1");
    let for_other = signed(&"for eu-2");
    controller.publish_assignment(&region, &"eu-2".parse().unwrap(), &for_other).await.unwrap();
    controller.publish_assignment(&region, &"eu-1".parse().unwrap(), &for_mine).await.unwrap();

    // The other's was sent before it, and would have come first.
    assert!(matches!(next(&mut inbox).await, AgentEvent::Assignment(got) if got == for_mine));
    assert!(matches!(next(&mut other_inbox).await, AgentEvent::Assignment(got) if got == for_other));
}

#[tokio::test]
async fn the_largest_assignment_passes_and_a_larger_one_is_a_clear_error() {
    let nats = Nats::start().await;
    let controller = nats.controller().await;
    let (_agent, mut inbox) = nats.listening_agent("eu-1").await;
    let (region, node) = ("eu".parse().unwrap(), "eu-1".parse().unwrap());
    let overhead = serde_json::to_vec(&signed(&"")).unwrap().len();
    let room = stele_bus::limits::ASSIGNMENT_BYTES_MAX - overhead;

    let largest = signed(&"x".repeat(room));
    controller.publish_assignment(&region, &node, &largest).await.unwrap();
    assert!(matches!(next(&mut inbox).await, AgentEvent::Assignment(got) if got == largest));

    let larger = signed(&"x".repeat(room + 1));
    let error = controller.publish_assignment(&region, &node, &larger).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    assert!(error.to_string().contains("8388609 bytes is too large"), "{error}");
}

#[tokio::test]
async fn a_server_that_carries_too_little_is_named_as_the_cause() {
    let dir = tempfile::tempdir().unwrap();
    let config = stele_bus::server::NatsServerConfig {
        max_payload: 4096,
        ..stele_bus::server::NatsServerConfig::new(dir.path())
    };
    let server = stele_bus::server::NatsServer::spawn(config).await.unwrap();
    let nats = Nats { server, dir };
    let controller = nats.controller().await;
    assert_eq!(controller.assignment_bytes_max(), 4096);
    let big = signed(&"x".repeat(5000));
    let error = controller
        .publish_assignment(&"eu".parse().unwrap(), &"eu-1".parse().unwrap(), &big)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("raise its max_payload from 4096 to 8388608"), "{error}");
    // The same is said before there is anything to send.
    controller.check_assignment(4096).unwrap();
    let before = controller.check_assignment(4097).unwrap_err();
    assert!(matches!(before, Error::ServerPayload { bytes: 4097, max: 4096, .. }), "{before}");
}

#[tokio::test]
async fn a_server_that_is_not_reached_bounds_nothing() {
    let nats = Nats::start().await;
    let config = nats.config("controller");
    nats.server.stop();
    let controller = ControllerBus::connect(config).await.unwrap();
    let most = stele_bus::limits::ASSIGNMENT_BYTES_MAX;
    assert_eq!(controller.assignment_bytes_max(), most);
    assert!(matches!(controller.check_assignment(1), Err(Error::Disconnected)));
    assert!(matches!(controller.check_assignment(most + 1), Err(Error::TooLarge { .. })));
}

#[tokio::test]
async fn a_report_whose_acknowledgement_was_lost_is_acknowledged_when_resent() {
    let nats = Nats::start().await;
    let controller = nats.controller().await;
    let mut reports = controller.reports(Audience::One).await.unwrap();
    let (agent, _inbox) = nats.agent("eu-1").await;
    let report = signed(&"report 1");
    let ack = signed(&"ack 1");

    // The subscription may still be on its way; until it is there, nobody answers.
    eventually("the controller listens", async || {
        matches!(agent.report(&signed(&"hello"), SHORT).await, Err(Error::TimedOut { .. }))
    })
    .await;
    let (hello, _lost) = within("hello", reports.next()).await.unwrap().unwrap();
    assert_eq!(hello.signed, signed(&"hello"));

    let lost = agent.report(&report, SHORT).await;
    assert!(matches!(lost, Err(Error::TimedOut { .. })), "{lost:?}");

    let controller_side = async {
        let (first, _dropped) = reports.next().await.unwrap().unwrap();
        let (second, reply) = reports.next().await.unwrap().unwrap();
        assert_eq!((&first.signed, &second.signed), (&report, &report));
        assert_eq!((second.region.as_str(), second.node.as_str()), ("eu", "eu-1"));
        reply.send(&ack).await.unwrap();
    };
    let agent_side = async { agent.report(&report, support::DEADLINE).await.unwrap() };
    let ((), got) = within("the resent report", async { tokio::join!(controller_side, agent_side) }).await;
    assert_eq!(got, ack);
}

#[tokio::test]
async fn every_controller_can_hear_heartbeats() {
    let nats = Nats::start().await;
    let (one, two) = (nats.controller().await, nats.controller().await);
    let mut first = one.heartbeats(Audience::Every).await.unwrap();
    let mut second = two.heartbeats(Audience::Every).await.unwrap();
    let (agent, _inbox) = nats.agent("eu-1").await;
    let beat = signed(&"alive");
    let beats = async {
        let mut tick = tokio::time::interval(SHORT);
        loop {
            tick.tick().await;
            agent.heartbeat(&beat).await.unwrap();
        }
    };
    let both = async {
        for heartbeats in [&mut first, &mut second] {
            let heard = heartbeats.next().await.unwrap().unwrap();
            assert_eq!((heard.signed, heard.node.as_str()), (beat.clone(), "eu-1"));
        }
    };
    within("heartbeats", async {
        tokio::select! { () = beats => {}, () = both => {} }
    })
    .await;
}

async fn serve_sync(bus: ControllerBus, who: &'static str) -> tokio::task::JoinHandle<()> {
    let mut requests = bus.sync_requests().await.unwrap();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let (request, reply) = request.unwrap();
            let answer = signed(&format!("{who} answers {}", request.body));
            reply.send(Some(&answer)).await.unwrap();
        }
    })
}

async fn sync_until_answered(agent: &AgentBus) -> String {
    within("an answer to sync", async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            if let Ok(Some(answer)) = agent.sync(&signed(&"sync")).await {
                return answer.body;
            }
        }
    })
    .await
}

#[tokio::test]
async fn sync_is_answered_once_by_whichever_controller_is_there() {
    let nats = Nats::start().await;
    let (one, two) = (nats.controller().await, nats.controller().await);
    let first = serve_sync(one.clone(), "one").await;
    let second = serve_sync(two.clone(), "two").await;
    let (agent, _inbox) = nats.agent("eu-1").await;

    let body = sync_until_answered(&agent).await;
    assert!(body.contains("answers \\\"sync\\\""), "{body}");
    first.abort();
    drop(one);
    eventually("controller two answers alone", async || {
        sync_until_answered(&agent).await.starts_with("\"two")
    })
    .await;
    second.abort();
}

#[tokio::test]
async fn a_node_that_is_current_is_told_so() {
    let nats = Nats::start().await;
    let controller = nats.controller().await;
    let mut requests = controller.sync_requests().await.unwrap();
    let (agent, _inbox) = nats.agent("eu-1").await;
    let answer = async {
        loop {
            let (_, reply) = requests.next().await.unwrap().unwrap();
            reply.send(None).await.unwrap();
        }
    };
    let ask = eventually("the node learns that it is current", async || {
        matches!(agent.sync(&signed(&"sync")).await, Ok(None))
    });
    tokio::select! { () = ask => {}, () = answer => {} }
}

#[tokio::test]
async fn a_question_reaches_its_node_and_nobody_when_it_is_away() {
    let nats = Nats::start().await;
    let controller = nats.controller().await;
    let (region, node) = ("eu".parse().unwrap(), "eu-1".parse().unwrap());
    let request = signed(&"a question");
    let away = controller.ask(&region, &node, &request, SHORT).await.unwrap_err();
    assert!(away.to_string().contains("the node's agent is not connected"), "{away}");

    let (_agent, mut inbox) = nats.agent("eu-1").await;
    let serve = async {
        loop {
            if let AgentEvent::Asked(got, reply) = inbox.next().await.unwrap() {
                assert_eq!(got, request);
                reply.send(&signed(&"an answer")).await.unwrap();
            }
        }
    };
    let ask = eventually("an answer", async || {
        controller
            .ask(&region, &node, &request, SHORT)
            .await
            .is_ok_and(|answer| answer == signed(&"an answer"))
    });
    tokio::select! { () = ask => {}, () = serve => {} }
}

#[tokio::test]
async fn garbage_is_an_error_to_the_receiver_and_nothing_more() {
    let nats = Nats::start().await;
    let controller = nats.controller().await;
    let mut reports = controller.reports(Audience::Every).await.unwrap();
    let mut heartbeats = controller.heartbeats(Audience::Every).await.unwrap();
    let mut syncs = controller.sync_requests().await.unwrap();
    let (agent, mut inbox) = nats.agent("eu-1").await;
    let stranger = nats.stranger().await;
    let send = async |subject: &'static str, payload: &'static str| {
        stranger.publish_with_reply(subject, "nowhere", payload.into()).await.unwrap();
    };

    eventually("controllers listen", async || {
        agent
            .report(&signed(&"hello"), SHORT)
            .await
            .is_err_and(|error| matches!(error, Error::TimedOut { .. }))
    })
    .await;
    within("hello", reports.next()).await.unwrap().unwrap();
    send("stele.acme.eu.node.eu-1.report", "not json").await;
    send("stele.acme.eu.node.eu-1.report", "{\"body\":1}").await;
    send("stele.acme.EU!.node.eu-1.report", "{}").await;
    stranger
        .publish("stele.acme.eu.node.eu-1.report", "{\"body\":\"\",\"signature\":\"\"}".into())
        .await
        .unwrap();
    for _ in 0..3 {
        let error = within("an error", reports.next()).await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{error}");
    }
    let error = within("an error", reports.next()).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::NoReply { .. }), "{error}");

    send("stele.acme.eu.node.eu-1.heartbeat", "\u{0}\u{1}").await;
    assert!(within("an error", heartbeats.next()).await.unwrap().is_err());
    send("stele.acme.eu.sync", "[]").await;
    assert!(within("an error", syncs.next()).await.unwrap().is_err());

    send("stele.acme.eu.node.eu-1.assignment", "{").await;
    send("stele.acme.eu.node.eu-1.ask", "").await;
    let huge = "x".repeat(stele_bus::limits::QUESTION_BYTES_MAX + 1);
    stranger.publish_with_reply("stele.acme.eu.node.eu-1.ask", "nowhere", huge.into()).await.unwrap();
    for _ in 0..3 {
        assert!(matches!(next(&mut inbox).await, AgentEvent::Garbage(_)));
    }

    // All of them still work.
    let fine = signed(&"fine");
    controller.publish_assignment(&"eu".parse().unwrap(), &"eu-1".parse().unwrap(), &fine).await.unwrap();
    assert!(matches!(next(&mut inbox).await, AgentEvent::Assignment(got) if got == fine));
    assert!(agent.report(&fine, SHORT).await.is_err());
    assert_eq!(within("a report", reports.next()).await.unwrap().unwrap().0.signed, fine);
}

#[tokio::test]
async fn agents_come_back_by_themselves_to_a_server_that_was_replaced() {
    let nats = Nats::start().await;
    let controller = nats.controller().await;
    let (agent, mut inbox) = nats.agent("eu-1").await;

    let nats = nats.replace_with_an_empty_one().await;
    // The loss itself may be too short to be seen; the new connection never is.
    within("the agent is told of the new connection", async {
        while !matches!(inbox.next().await, Some(AgentEvent::Connected)) {}
    })
    .await;
    assert!(agent.is_connected());
    up(&mut controller.connections(), 2).await;

    let fine = signed(&"after the loss");
    let send = eventually("never", async || {
        let (region, node) = ("eu".parse().unwrap(), "eu-1".parse().unwrap());
        controller.publish_assignment(&region, &node, &fine).await.unwrap();
        false
    });
    let receive =
        async { assert!(matches!(next(&mut inbox).await, AgentEvent::Assignment(got) if got == fine)) };
    tokio::select! { () = send => {}, () = receive => {} }
    drop(nats);
}

#[tokio::test]
async fn an_agent_that_starts_first_waits_for_the_server() {
    let nats = Nats::start().await;
    let config = nats.config("eu-1");
    let Nats { server, dir } = nats;
    let restart = server.stop();
    let (agent, mut inbox) =
        AgentBus::connect(config, "eu".parse().unwrap(), "eu-1".parse().unwrap()).await.unwrap();
    assert!(!agent.is_connected());
    assert!(matches!(agent.heartbeat(&signed(&"x")).await, Err(Error::Disconnected)));

    let server = stele_bus::server::NatsServer::spawn(restart).await.unwrap();
    assert!(matches!(next(&mut inbox).await, AgentEvent::Connected));
    drop((server, dir));
}

#[tokio::test]
async fn a_bad_configuration_is_refused_at_once() {
    let nats = Nats::start().await;
    let none = stele_bus::BusConfig { urls: Vec::new(), ..nats.config("x") };
    assert!(matches!(ControllerBus::connect(none).await, Err(Error::NoUrl)));
    let bad = stele_bus::BusConfig { urls: vec!["nats://:x".to_owned()], ..nats.config("x") };
    assert!(matches!(ControllerBus::connect(bad).await, Err(Error::Url { .. })));
    let events =
        AgentBus::connect(nats.config("x"), "events".parse().unwrap(), "eu-1".parse().unwrap()).await;
    assert!(matches!(events, Err(Error::ReservedRegion)));
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let nats = Nats::start().await;
    let other = tempfile::tempdir().unwrap();
    let taken = stele_bus::server::NatsServerConfig {
        port: Some(nats.server.port()),
        ..stele_bus::server::NatsServerConfig::new(other.path())
    };
    let error = stele_bus::server::NatsServer::spawn(taken).await.unwrap_err();
    assert!(error.to_string().contains("address already in use"), "{error}");
    let missing = stele_bus::server::NatsServerConfig {
        program: "no-such-program".into(),
        ..stele_bus::server::NatsServerConfig::new(other.path())
    };
    let error = stele_bus::server::NatsServer::spawn(missing).await.unwrap_err();
    assert!(error.to_string().contains("is it installed?"), "{error}");
}
