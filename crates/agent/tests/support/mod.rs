//! A fleet of one node: a root, a controller that answers over a real NATS server, and an agent.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use stele_agent::identity::{Engine, Enrollment, Keys};
use stele_agent::{DataDir, Error, Home, Pruning, run_with};
use stele_bus::join::NatsAccess;
use stele_bus::server::{NatsServer, NatsServerConfig};
use stele_bus::{Audience, BusConfig, ControllerBus, purposes};
use stele_model::digest::Digest;
use stele_model::ids::{InstanceId, Time};
use stele_model::release::{Container, EnvValue, File, Image, InstanceSpec, Stop};
use stele_model::signature::{Certificate, CertificateBody, PublicKey, public_key};
use stele_model::wire::{
    AssignedInstance, Assignment, AssignmentVersion, Heartbeat, RemovedControllers, Report, ReportAck,
    Signed, SyncRequest, WrappedKey, assignment_digest,
};
use stele_runtime::simulated::{Simulated, SimulatedClock};
use stele_runtime::{Host, Runtime};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Longest any test waits for anything; reaching it fails the test.
pub const DEADLINE: Duration = Duration::from_mins(2);

/// Awaits `future`, and fails with what was awaited at the deadline.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = tokio::time::timeout(DEADLINE, future).await else { panic!("waited in vain: {what}") };
    value
}

/// Asks again and again until the answer is yes.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    within(what, async {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        while !Box::pin(holds()).await {
            tick.tick().await;
        }
    })
    .await;
}

pub struct Nats {
    pub server: NatsServer,
    pub dir: tempfile::TempDir,
}

impl Nats {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config =
            NatsServerConfig { token: Some("secret".to_owned()), ..NatsServerConfig::new(dir.path()) };
        Self { server: NatsServer::spawn(config).await.unwrap(), dir }
    }

    /// Kills the server and deletes everything it kept; the result starts it again, empty.
    pub fn wipe(self) -> (NatsServerConfig, tempfile::TempDir) {
        let Self { server, dir } = self;
        let config = server.stop();
        std::fs::remove_dir_all(dir.path().join("jetstream")).unwrap();
        (config, dir)
    }

    pub async fn again((config, dir): (NatsServerConfig, tempfile::TempDir)) -> Self {
        Self { server: NatsServer::spawn(config).await.unwrap(), dir }
    }

    pub fn config(&self, fleet: &Fleet) -> BusConfig {
        BusConfig {
            urls: vec![self.server.url()],
            auth: self.server.auth(),
            root_ca: None,
            fleet: fleet.name.parse().unwrap(),
            name: "controller".to_owned(),
        }
    }
}

/// A fleet's keys, and those of its one controller.
#[derive(Clone)]
pub struct Fleet {
    pub name: String,
    pub root: SigningKey,
    pub controller: SigningKey,
    pub certificate: Certificate,
}

impl Fleet {
    pub fn new(name: &str) -> Self {
        Self::with_keys(name, 1, 2)
    }

    pub fn with_keys(name: &str, root: u8, controller: u8) -> Self {
        Self::with_controller(name, root, controller, 1)
    }

    /// One whose controller has this id.
    pub fn with_controller(name: &str, root: u8, controller: u8, id: u64) -> Self {
        let [root, controller] = [root, controller].map(|seed| SigningKey::from_bytes(&[seed; 32]));
        let certificate = Certificate::issue(
            &root,
            CertificateBody {
                fleet: name.parse().unwrap(),
                controller: id,
                key: public_key(&controller),
                not_before: Time(0),
                not_after: Time(u64::MAX),
            },
        );
        Self { name: name.to_owned(), root, controller, certificate }
    }

    pub fn assignment(&self, seq: u64, instances: Vec<AssignedInstance>) -> Assignment {
        let digest =
            assignment_digest(instances.iter().map(|one| (&one.id, &one.spec_digest, one.replaces.as_ref())));
        Assignment {
            fleet: self.name.parse().unwrap(),
            node: "eu-1".parse().unwrap(),
            version: AssignmentVersion { epoch: 1, seq, digest },
            instances,
            keys: Vec::new(),
            images: None,
            controller: self.certificate.clone(),
        }
    }

    pub fn sign(&self, assignment: &Assignment) -> Signed {
        Signed::new(&self.controller, purposes::ASSIGNMENT, assignment)
    }

    pub fn signed(&self, seq: u64, instances: Vec<AssignedInstance>) -> Signed {
        self.sign(&self.assignment(seq, instances))
    }
}

pub fn container(image: Image) -> Container {
    Container { stop: Stop { signal: "SIGTERM".to_owned(), grace_seconds: 1 }, ..Container::new(image) }
}

/// An instance of service `web` with that index, as serial 1.
pub fn instance(index: u32, container: Container) -> AssignedInstance {
    let id: InstanceId = format!("shop/web@prod/web.{index}-1").parse().unwrap();
    let spec = InstanceSpec { app_env: id.slot.app_env.clone(), service: id.slot.service.clone(), container };
    let spec_digest = spec.digest();
    AssignedInstance { id, spec, spec_digest, replaces: None }
}

/// A simulated instance that runs.
pub fn web(index: u32) -> AssignedInstance {
    let image = Image { repository: "test/web".to_owned(), digest: Digest::of(&[b"web"]) };
    instance(index, container(image))
}

/// An instance with a variable and a file that only the node can read, and the key for them.
pub fn sealed_web(index: u32, sealing_key: &str) -> (AssignedInstance, WrappedKey) {
    let key = [42; 32];
    let seal = |text, nonce| {
        EnvValue::Value(stele_model::Value::Sealed(stele_bus::sealing::seal(
            "shop/web@prod",
            1,
            &key,
            text,
            [nonce; 24],
        )))
    };
    let mut one = web(index);
    one.spec.container.env.insert("PASSWORD".to_owned(), seal("hunter2-env", 1));
    one.spec
        .container
        .files
        .insert("/etc/password".to_owned(), File { content: seal("hunter2-file", 2), mode: 0o600 });
    one.spec_digest = one.spec.digest();
    let wrapped = stele_bus::sealing::wrap(&key, "shop/web@prod", 1, sealing_key, [5; 32], [6; 24]).unwrap();
    (one, wrapped)
}

#[derive(Default)]
pub struct Heard {
    pub reports: Vec<Report>,
    pub heartbeats: Vec<Heartbeat>,
    pub syncs: Vec<SyncRequest>,
    /// What sync is answered with; nobody answers while there is none.
    pub sync_answer: Option<Signed>,
    /// Acknowledgements that will be lost, and forgeries sent in their place.
    pub acks_to_lose: u32,
    /// A boot of the node that reports of earlier ones are passed over for.
    pub later_boot: u64,
}

/// A controller that believes what the node's key signed, and remembers it.
pub struct Controller {
    pub bus: ControllerBus,
    pub fleet: Fleet,
    pub heard: Arc<Mutex<Heard>>,
    changed: watch::Sender<u64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Controller {
    pub async fn start(nats: &Nats, fleet: &Fleet, node: PublicKey) -> Self {
        let bus = ControllerBus::connect(nats.config(fleet)).await.unwrap();
        within("NATS", bus.connections().wait_for(|now| now.up)).await.unwrap();
        let heard: Arc<Mutex<Heard>> = Arc::default();
        let changed = watch::Sender::new(0_u64);
        let mut controller =
            Self { bus: bus.clone(), fleet: fleet.clone(), heard, changed, tasks: Vec::new() };
        controller.hear_reports(node.clone()).await;
        controller.hear_heartbeats(node.clone()).await;
        controller.hear_syncs(node).await;
        controller
    }

    async fn hear_reports(&mut self, node: PublicKey) {
        let mut reports = self.bus.reports(Audience::One).await.unwrap();
        let (heard, changed, fleet) = (self.heard.clone(), self.changed.clone(), self.fleet.clone());
        self.tasks.push(tokio::spawn(async move {
            while let Some(message) = reports.next().await {
                let Ok((from, reply)) = message else { continue };
                let report: Report = from.signed.open(&node, purposes::REPORT).unwrap();
                let later = heard.lock().unwrap().later_boot;
                let ack = ReportAck {
                    node: report.node.clone(),
                    boot: report.boot.max(later),
                    number: report.number,
                    controller: fleet.certificate.clone(),
                };
                let lose = {
                    let mut heard = heard.lock().unwrap();
                    heard.reports.push(report);
                    let lose = heard.acks_to_lose > 0;
                    heard.acks_to_lose = heard.acks_to_lose.saturating_sub(1);
                    lose
                };
                changed.send_modify(|count| *count += 1);
                let key = if lose { SigningKey::from_bytes(&[99; 32]) } else { fleet.controller.clone() };
                let _ = reply.send(&Signed::new(&key, purposes::REPORT_ACK, &ack)).await;
            }
        }));
    }

    async fn hear_heartbeats(&mut self, node: PublicKey) {
        let mut heartbeats = self.bus.heartbeats(Audience::Every).await.unwrap();
        let (heard, changed) = (self.heard.clone(), self.changed.clone());
        self.tasks.push(tokio::spawn(async move {
            while let Some(Ok(from)) = heartbeats.next().await {
                let beat: Heartbeat = from.signed.open(&node, purposes::HEARTBEAT).unwrap();
                heard.lock().unwrap().heartbeats.push(beat);
                changed.send_modify(|count| *count += 1);
            }
        }));
    }

    async fn hear_syncs(&mut self, node: PublicKey) {
        let mut syncs = self.bus.sync_requests().await.unwrap();
        let (heard, changed) = (self.heard.clone(), self.changed.clone());
        self.tasks.push(tokio::spawn(async move {
            while let Some(Ok((signed, reply))) = syncs.next().await {
                let request: SyncRequest = signed.open(&node, purposes::SYNC).unwrap();
                let answer = {
                    let mut heard = heard.lock().unwrap();
                    heard.syncs.push(request);
                    heard.sync_answer.clone()
                };
                changed.send_modify(|count| *count += 1);
                if let Some(answer) = answer {
                    let _ = reply.send(Some(&answer)).await;
                } else {
                    let _ = reply.send(None).await;
                }
            }
        }));
    }

    /// Tells nodes which controllers were removed.
    pub async fn publish_removed(&self, controllers: &[u64]) {
        let removed = RemovedControllers {
            fleet: self.fleet.name.parse().unwrap(),
            controllers: controllers.iter().copied().collect(),
            at: Time(1),
            controller: self.fleet.certificate.clone(),
        };
        let signed = Signed::new(&self.fleet.controller, purposes::REMOVED, &removed);
        self.bus.publish_removed(&signed).await.unwrap();
    }

    pub async fn publish(&self, assignment: &Signed) {
        self.bus
            .publish_assignment(&"eu".parse().unwrap(), &"eu-1".parse().unwrap(), assignment)
            .await
            .unwrap();
    }

    /// Waits until what was heard satisfies `holds`.
    pub async fn hears(&self, what: &str, mut holds: impl FnMut(&Heard) -> bool) {
        let mut changed = self.changed.subscribe();
        within(what, async {
            while !holds(&self.heard.lock().unwrap()) {
                changed.changed().await.unwrap();
            }
        })
        .await;
    }

    /// Waits for a report on that seq in which exactly those instances are healthy and no other is there.
    pub async fn hears_healthy(&self, seq: u64, indexes: &[u32]) -> Report {
        let mut found = None;
        let ids: Vec<_> = indexes.iter().map(|index| web(*index).id).collect();
        self.hears(&format!("healthy {indexes:?} at seq {seq}"), |heard| {
            let matching = |report: &&Report| {
                report.applied.seq == seq
                    && report.instances.iter().map(|one| &one.id).eq(ids.iter())
                    && report.instances.iter().all(|one| one.phase == stele_model::wire::Phase::Healthy)
            };
            found = heard.reports.iter().rev().find(matching).cloned();
            found.is_some()
        })
        .await;
        found.unwrap()
    }
}

/// A node that has joined.
pub struct Node {
    pub dir: tempfile::TempDir,
    pub keys: Keys,
}

impl Node {
    pub fn enroll(nats: &Nats, fleet: &Fleet, engine: Engine) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path());
        let keys = Keys::load_or_make(&data).unwrap();
        let enrollment = Enrollment {
            fleet: fleet.name.parse().unwrap(),
            node: "eu-1".parse().unwrap(),
            region: "eu".parse().unwrap(),
            epoch: 1,
            root: public_key(&fleet.root),
            nats: NatsAccess { urls: vec![nats.server.url()], auth: nats.server.auth(), tls_root: None },
            engine,
        };
        enrollment.save(&data).unwrap();
        Self { dir, keys }
    }

    pub fn data(&self) -> DataDir {
        DataDir::new(self.dir.path())
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

pub fn simulated(fleet: &Fleet) -> Arc<Simulated> {
    let host = Host {
        fleet: fleet.name.parse().unwrap(),
        root: stele_model::signature::PublicKey("ab".repeat(32)),
        node: "eu-1".parse().unwrap(),
        publish_address: "127.0.0.1".to_owned(),
        policy: stele_reconcile::HostPolicy::default(),
    };
    Arc::new(Simulated::new(host, SimulatedClock::Wall))
}

/// Containers there are, by instance, with their engine's id.
pub async fn containers(runtime: &Simulated) -> BTreeMap<InstanceId, String> {
    let observed = runtime.observe().await.unwrap();
    observed.containers().iter().map(|one| (one.instance.clone(), one.id.clone())).collect()
}

/// A running agent.
pub struct Agent {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), Error>>,
}

impl Agent {
    pub fn start(node: &Node, runtime: &Arc<Simulated>) -> Self {
        Self::start_pruning(node, runtime, Pruning::default())
    }

    pub fn start_pruning(node: &Node, runtime: &Arc<Simulated>, pruning: Pruning) -> Self {
        let home = Home::open(node.data()).unwrap().with_pruning(pruning);
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime: Arc<dyn Runtime> = runtime.clone();
        let task = tokio::spawn(async move {
            run_with(home, runtime, async {
                let _ = stopped.await;
            })
            .await
        });
        Self { stop, task }
    }

    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        within("the agent ends", self.task).await.unwrap().unwrap();
    }
}
