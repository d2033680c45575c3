//! The agent removes what nothing needs, and nothing else.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use stele_agent::Pruning;
use stele_agent::identity::Engine;
use stele_model::Digest;
use stele_model::release::Image;
use stele_model::wire::{AssignedInstance, ImagePolicy, Phase, Signed};
use stele_runtime::Runtime as _;
use stele_runtime::simulated::Simulated;
use support::{Agent, Controller, Fleet, Nats, Node, container, eventually, instance, simulated};

const GRACE: Duration = Duration::from_millis(800);

fn image(name: &str) -> Image {
    Image { repository: format!("registry.example/{name}"), digest: Digest::of(&[name.as_bytes()]) }
}

/// The instance of that index, of an image of that name.
fn of(index: u32, name: &str) -> AssignedInstance {
    instance(index, container(image(name)))
}

struct World {
    _nats: Nats,
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
        Self { _nats: nats, fleet, node, controller, runtime }
    }

    fn agent(&self) -> Agent {
        Agent::start_pruning(&self.node, &self.runtime, Pruning::After(GRACE))
    }

    fn signed(
        &self,
        seq: u64,
        instances: &[AssignedInstance],
        images: impl Into<Option<ImagePolicy>>,
    ) -> Signed {
        let mut assignment = self.fleet.assignment(seq, instances.to_vec());
        assignment.images = images.into();
        self.fleet.sign(&assignment)
    }

    /// Has the agent run exactly these, with that said about images.
    async fn run(&self, seq: u64, instances: &[AssignedInstance], images: impl Into<Option<ImagePolicy>>) {
        let signed = self.signed(seq, instances, images);
        self.controller.heard.lock().unwrap().sync_answer = Some(signed.clone());
        self.controller.publish(&signed).await;
        let ids: Vec<_> = instances.iter().map(|one| &one.id).collect();
        self.controller
            .hears(&format!("seq {seq} runs"), |heard| {
                heard.reports.iter().any(|report| {
                    report.applied.seq == seq
                        && report.instances.iter().map(|one| &one.id).eq(ids.iter().copied())
                        && report.instances.iter().all(|one| one.phase == Phase::Healthy)
                })
            })
            .await;
    }

    async fn here(&self) -> BTreeSet<String> {
        let images = self.runtime.images().await.unwrap();
        let names = images.into_iter().flat_map(|one| one.names);
        names.map(|name| name.repository.rsplit('/').next().unwrap().to_owned()).collect()
    }

    async fn becomes(&self, names: &[&str]) {
        let wanted: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
        eventually(&format!("the images here are {names:?}"), async || self.here().await == wanted).await;
    }

    /// Nothing else happens to the images for much longer than the grace.
    async fn stays(&self, names: &[&str]) {
        let wanted: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
        for _ in 0..30 {
            assert_eq!(self.here().await, wanted);
            tokio::time::sleep(GRACE / 10).await;
        }
    }
}

fn keep(seq: u64, names: &[&str]) -> ImagePolicy {
    ImagePolicy { seq, keep: Some(names.iter().map(|name| image(name)).collect()), mirror: None }
}

#[tokio::test]
async fn what_is_kept_or_runs_or_was_not_pulled_by_the_agent_stays_and_the_rest_goes() {
    let world = World::new().await;
    world.runtime.pull_by_hand(&image("by-hand"));
    let agent = world.agent();
    world.run(1, &[of(0, "one")], keep(1, &["one"])).await;
    world.run(2, &[of(1, "two")], keep(2, &["one", "two"])).await;
    world.stays(&["by-hand", "one", "two"]).await;

    world.run(3, &[of(2, "three")], keep(3, &["two"])).await;
    world.becomes(&["by-hand", "two", "three"]).await;
    world.stays(&["by-hand", "two", "three"]).await;

    // Only what is said about images changes: nothing restarts, and an older word does not count.
    let before = support::containers(&world.runtime).await;
    world.controller.publish(&world.signed(3, &[of(2, "three")], keep(2, &[]))).await;
    world.stays(&["by-hand", "two", "three"]).await;
    world.controller.publish(&world.signed(3, &[of(2, "three")], keep(4, &[]))).await;
    world.becomes(&["by-hand", "three"]).await;
    world.stays(&["by-hand", "three"]).await;
    assert_eq!(support::containers(&world.runtime).await, before);
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_that_is_told_nothing_about_images_removes_none_and_remembers_its_own() {
    let world = World::new().await;
    let agent = world.agent();
    world.run(1, &[of(0, "one"), of(1, "two")], None).await;
    // An earlier controller knows nothing of images, a later one may not know the whole window.
    world.run(2, &[of(1, "two")], None).await;
    world.stays(&["one", "two"]).await;
    world.run(3, &[of(1, "two")], ImagePolicy { seq: 3, keep: None, mirror: None }).await;
    world.stays(&["one", "two"]).await;
    agent.stop().await;

    world.controller.heard.lock().unwrap().reports.clear();
    let off = Agent::start_pruning(&world.node, &world.runtime, Pruning::Off);
    world.run(4, &[of(1, "two")], keep(4, &[])).await;
    world.stays(&["one", "two"]).await;
    off.stop().await;

    // What an earlier run of the agent pulled is known from disk.
    let agent = world.agent();
    world.becomes(&["two"]).await;
    agent.stop().await;
}

#[tokio::test]
async fn an_image_removed_by_hand_is_pulled_again_when_a_restart_needs_it() {
    let world = World::new().await;
    let agent = world.agent();
    let web = of(0, "one");
    world.run(1, std::slice::from_ref(&web), keep(1, &[])).await;
    world.run(2, &[], keep(2, &["one"])).await;
    world.becomes(&["one"]).await;
    world.runtime.prune_images();
    world.stays(&[]).await;
    world.controller.heard.lock().unwrap().reports.clear();
    world.run(3, &[web], keep(3, &["one"])).await;
    world.becomes(&["one"]).await;
    agent.stop().await;
}

#[tokio::test]
async fn without_a_verified_assignment_nothing_is_removed() {
    let world = World::new().await;
    let agent = world.agent();
    world.run(1, &[of(0, "one")], keep(1, &[])).await;
    world.run(2, &[], keep(2, &["one"])).await;
    agent.stop().await;
    world.controller.heard.lock().unwrap().sync_answer = None;
    std::fs::write(world.node.path().join("assignment.json"), b"damaged").unwrap();
    let agent = world.agent();
    world.stays(&["one"]).await;
    world.controller.publish(&world.signed(3, &[], keep(3, &[]))).await;
    world.becomes(&[]).await;
    agent.stop().await;
}
