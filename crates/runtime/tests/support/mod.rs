//! What the suites share: instances to run, and waiting for a reconciler to get there.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

pub mod contract;
pub mod faults;
pub mod real;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use stele_model::release::{
    Check, Container, EnvValue, File, Health, Image, InstanceSpec, Port, Protocol, Stop,
};
use stele_model::wire::{AssignedInstance, InstanceReport, Phase, observed_digest};
use stele_model::{AppEnv, Digest, InstanceId, Value};
use stele_reconcile::HostPolicy;
use stele_runtime::simulated::Deed;
use stele_runtime::{Host, Reconciler, ReconcilerConfig, Runtime, StepResult};

/// What a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Runs,
    Crashes,
    Exits,
    Missing,
    Sick,
}

/// The file that [`Deed::ChangeFile`] changes.
pub const CHANGED_FILE: &str = "/etc/app.conf";

/// One engine, real or simulated, with means to meddle with it.
pub trait Fixture: Sync {
    /// A view of the engine for a node, which several may share.
    fn runtime(&self, node: &str) -> Arc<dyn Runtime>;
    /// A container of that kind; `version` makes it another image.
    fn container(&self, kind: Kind, version: u32) -> Container;
    /// A container that runs, of an image that no other test knows. Its own registry has it, or
    /// only [`Self::mirror`] has.
    fn fresh(&self, in_mirror_alone: bool) -> Container;
    /// Where copies of images are.
    fn mirror(&self) -> String;
    /// Gives an image that is here a tag, or takes that away again.
    fn tag(&self, image: &Image, is_tagged: bool);
    /// A host port nobody else uses.
    fn free_port(&self) -> u16;
    /// Meddles with an instance's container.
    fn by_hand(&self, node: &str, instance: &InstanceId, deed: Deed) -> impl Future<Output = ()>;
    /// The content of a file in an instance's container.
    fn file(&self, node: &str, instance: &InstanceId, path: &str) -> impl Future<Output = Option<Vec<u8>>>;
}

pub fn host(fleet: &str, node: &str) -> Host {
    Host {
        fleet: fleet.parse().unwrap(),
        root: stele_model::signature::PublicKey("ab".repeat(32)),
        node: node.parse().unwrap(),
        publish_address: "127.0.0.1".to_owned(),
        policy: HostPolicy::default(),
    }
}

pub fn plain_container(image: Image, command: &[&str]) -> Container {
    Container {
        command: command.iter().map(|&word| word.to_owned()).collect(),
        stop: Stop { signal: "SIGTERM".to_owned(), grace_seconds: 2 },
        ..Container::new(image)
    }
}

pub fn instance(id: &str, container: Container) -> AssignedInstance {
    let id: InstanceId = id.parse().unwrap();
    let spec = InstanceSpec { app_env: id.slot.app_env.clone(), service: id.slot.service.clone(), container };
    AssignedInstance { spec_digest: spec.digest(), id, spec, replaces: None }
}

pub fn replacing(old: &AssignedInstance, id: &str, container: Container) -> AssignedInstance {
    AssignedInstance { replaces: Some(old.id.clone()), ..instance(id, container) }
}

pub fn published(mut container: Container, port: u16) -> Container {
    container.ports = vec![Port { container: 8080, host: Some(port), protocol: Protocol::Tcp }];
    container
}

pub fn checked(mut container: Container, check: Check) -> Container {
    container.health =
        Some(Health { check, interval_ms: 100, timeout_ms: 2_000, retries: 2, start_period_ms: 0 });
    container
}

pub fn file(content: &str, mode: u32) -> File {
    File { content: EnvValue::Value(Value::from(content)), mode }
}

pub fn image(name: &str, version: u32) -> Image {
    Image { repository: name.to_owned(), digest: Digest::of(&[name.as_bytes(), &version.to_be_bytes()]) }
}

pub fn app_env(text: &str) -> AppEnv {
    text.parse().unwrap()
}

/// A reconciler as an agent that just started has it.
pub fn agent<R: Runtime + ?Sized>(runtime: Arc<R>, desired: &[AssignedInstance]) -> Reconciler<R> {
    let config = ReconcilerConfig {
        poll_interval_ms: 200,
        inspection_interval_ms: 200,
        ..ReconcilerConfig::default()
    };
    let mut agent = Reconciler::new(runtime, config);
    agent.set_desired(desired.to_vec());
    agent
}

/// Runs an agent's loop until a step's result is as wanted.
pub async fn eventually<R: Runtime + ?Sized>(
    agent: &mut Reconciler<R>,
    what: &str,
    wanted: impl Fn(&StepResult) -> bool,
) -> StepResult {
    let mut last = None;
    let reached = async {
        loop {
            let result = agent.step().await;
            if wanted(&result) {
                return result;
            }
            let wake = result.next_wake;
            last = Some(result);
            // A change or the time, whichever comes first: as the agent itself waits.
            let _ = tokio::time::timeout(wake, agent.changed()).await;
        }
    };
    let reached = tokio::time::timeout(Duration::from_mins(1), reached).await.ok();
    reached.unwrap_or_else(|| panic!("never: {what}; last seen: {last:#?}"))
}

/// Until nothing is left to do and every instance is in that phase.
pub async fn all<R: Runtime + ?Sized>(
    agent: &mut Reconciler<R>,
    count: usize,
    phase: Phase,
) -> Vec<InstanceReport> {
    eventually(agent, &format!("{count} instances, each {phase:?}"), |result| {
        result.settled
            && result.reports.len() == count
            && result.reports.iter().all(|told| told.phase == phase)
    })
    .await
    .reports
}

/// Whether the node vouches for exactly these instances.
pub fn vouches(result: &StepResult, desired: &[AssignedInstance]) -> bool {
    let rows: BTreeMap<_, _> = desired.iter().map(|one| (&one.id, one.spec_digest)).collect();
    let expected = observed_digest(rows);
    result.observed.as_ref().is_some_and(|observed| observed.digest == expected)
}

pub fn told<'a>(result: &'a StepResult, id: &InstanceId) -> Option<&'a InstanceReport> {
    result.reports.iter().find(|told| told.id == *id)
}
