//! The contract, kept by the simulated engine, and what can be tried on it alone.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use stele_model::InstanceId;
use stele_model::release::{Container, Image};
use stele_model::wire::Phase;
use stele_reconcile::limits::UNSEEN_GRACE_MS;
use stele_runtime::simulated::{Deed, Simulated, SimulatedClock};
use stele_runtime::{Reconciler, ReconcilerConfig, Runtime};
use support::faults::{Fault, Faulty, Order, replacement_survives};
use support::{Fixture, Kind, agent, all, eventually, host, image, instance, plain_container};

struct Memory {
    engine: Simulated,
    ports: AtomicU16,
}

impl Memory {
    fn new() -> Self {
        Self { engine: Simulated::new(host("acme", "n0"), SimulatedClock::Wall), ports: AtomicU16::new(1) }
    }
}

impl Fixture for Memory {
    fn runtime(&self, node: &str) -> Arc<dyn Runtime> {
        Arc::new(self.engine.shared_with(host("acme", node)))
    }

    fn container(&self, kind: Kind, version: u32) -> Container {
        let name = match kind {
            Kind::Runs => "runs",
            Kind::Crashes => "crash",
            Kind::Exits => "exit",
            Kind::Missing => "missing",
            Kind::Sick => "sick",
        };
        plain_container(image(name, version), &[])
    }

    fn fresh(&self, in_mirror_alone: bool) -> Container {
        let registry = if in_mirror_alone { "gone.example" } else { "registry.example" };
        plain_container(image(&format!("{registry}/runs"), self.free_port().into()), &[])
    }

    fn mirror(&self) -> String {
        "mirror.example/copies".to_owned()
    }

    fn tag(&self, image: &Image, is_tagged: bool) {
        self.engine.tag_by_hand(image, is_tagged);
    }

    fn free_port(&self) -> u16 {
        self.ports.fetch_add(1, Ordering::SeqCst)
    }

    async fn by_hand(&self, node: &str, instance: &InstanceId, deed: Deed) {
        assert!(self.engine.shared_with(host("acme", node)).by_hand(instance, deed));
    }

    async fn file(&self, _node: &str, instance: &InstanceId, path: &str) -> Option<Vec<u8>> {
        self.engine.files(instance).remove(path).map(String::into_bytes)
    }
}

contract!(Memory::new());

#[tokio::test]
async fn every_step_of_a_replacement_may_fail_or_kill_the_agent() {
    let memory = Memory::new();
    for order in [Order::StopFirst, Order::StartFirst] {
        for fault in [Fault::Fails, Fault::DiesBefore, Fault::DiesAfter] {
            let mut at = 0;
            while replacement_survives(&memory, "n1", order, fault, at).await {
                at += 1;
            }
            assert!(at >= 6, "only {at} steps were made");
        }
    }
}

#[tokio::test]
async fn an_engine_that_is_away_changes_nothing_and_is_said_to_be() {
    let engine = Simulated::new(host("acme", "n1"), SimulatedClock::Wall);
    let web = instance("shop/web@prod/web.0-1", plain_container(image("runs", 1), &[]));
    let mut agent = agent(Arc::new(engine.clone()), std::slice::from_ref(&web));
    let before = all(&mut agent, 1, Phase::Healthy).await;
    engine.set_down(true);
    let result = agent.step().await;
    assert!(result.runtime_error.unwrap().contains("down"));
    assert_eq!(result.reports, before, "the last that is known is told");
    engine.set_down(false);
    assert_eq!(all(&mut agent, 1, Phase::Healthy).await, before);
}

#[tokio::test]
async fn while_the_engine_is_away_for_long_nothing_counts_as_healthy() {
    let engine = Simulated::new(host("acme", "n1"), SimulatedClock::Manual(Arc::default()));
    engine.advance(1_000_000_000);
    let web = instance("shop/web@prod/web.0-1", plain_container(image("runs", 1), &[]));
    let mut agent = agent(Arc::new(engine.clone()), std::slice::from_ref(&web));
    eventually(&mut agent, "it runs", |result| result.settled && result.reports[0].container.is_some()).await;
    engine.advance(10_000);
    let before = all(&mut agent, 1, Phase::Healthy).await;

    engine.set_down(true);
    assert_eq!(agent.step().await.reports, before);
    engine.advance(UNSEEN_GRACE_MS - 1);
    assert_eq!(agent.step().await.reports, before, "the engine may only be restarting");
    engine.advance(1);
    let told = agent.step().await.reports;
    assert_eq!((told[0].phase, &told[0].container), (Phase::Unhealthy, &before[0].container));
    let reason = told[0].reason().unwrap().to_owned();
    assert!(reason.contains("not seen since 1970-01-12") && reason.contains("is down"), "{reason}");
    engine.advance(60_000);
    assert_eq!(agent.step().await.reports, told, "nothing new is told as time passes");

    let next = instance("shop/web@prod/web.1-1", plain_container(image("runs", 1), &[]));
    agent.set_desired(vec![web.clone(), next.clone()]);
    let told = agent.step().await.reports;
    assert_eq!((told[1].phase, told[1].reason()), (Phase::Pending, Some(reason.as_str())));

    agent.set_desired(vec![web]);
    engine.set_down(false);
    let after = all(&mut agent, 1, Phase::Healthy).await;
    assert_eq!(after, before, "it was left alone");
}

#[tokio::test]
async fn a_pull_that_is_not_wanted_any_more_keeps_no_other_waiting() {
    let engine = Simulated::new(host("acme", "n1"), SimulatedClock::Wall);
    let faulty = Faulty::new(Arc::new(engine), Fault::PullHangs, 0);
    let config = ReconcilerConfig { pulls_max: 1, ..ReconcilerConfig::default() };
    let mut agent = Reconciler::new(faulty.clone(), config);
    agent.set_desired(vec![instance("shop/web@prod/web.0-1", plain_container(image("runs", 1), &[]))]);
    agent.step().await;
    faulty.died().await;
    let fixed = instance("shop/web@prod/web.0-2", plain_container(image("runs", 2), &[]));
    agent.set_desired(vec![fixed.clone()]);
    let reports = all(&mut agent, 1, Phase::Healthy).await;
    assert_eq!(reports[0].id, fixed.id);
}

#[tokio::test]
async fn a_container_that_recovers_is_healthy_again_after_a_stable_run() {
    let clock = SimulatedClock::Manual(Arc::default());
    let engine = Simulated::new(host("acme", "n1"), clock);
    engine.advance(1_000_000);
    let web = instance("shop/web@prod/web.0-1", plain_container(image("runs", 1), &[]));
    let mut agent = agent(Arc::new(engine.clone()), std::slice::from_ref(&web));
    let runs = |result: &stele_runtime::StepResult| {
        let container = result.reports.first().and_then(|told| told.container.as_ref());
        result.settled && container.is_some()
    };
    eventually(&mut agent, "it runs", runs).await;
    for kill in 1..=3 {
        engine.by_hand(&web.id, Deed::Kill);
        // Each start is later than the one before: the clock must move for it.
        for _ in 0..10 {
            engine.advance(500);
            eventually(&mut agent, "nothing is left to do for now", |result| result.settled).await;
        }
        let phase = agent.step().await.reports[0].phase;
        assert_eq!(phase == Phase::Failed, kill >= 3, "after {kill} kills: {phase:?}");
    }
    engine.advance(20_000);
    let reports = all(&mut agent, 1, Phase::Healthy).await;
    assert_eq!(reports[0].restarts, 3);
}
