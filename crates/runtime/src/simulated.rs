//! A container engine in memory: no latency, no chance, nothing written anywhere.
//!
//! What an image does is in its repository's last part, by how it begins: `missing` cannot be
//! pulled, `crash` ends at once with exit code 1, `exit` ends at once with 0, `sick` runs but
//! fails its health checks; everything else runs for good. Nothing can be pulled from the registry
//! `gone.example`.
//!
//! Its requests are made and checked by the same code as Docker's.

mod behaviour;
mod changes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bollard::models::{ContainerCreateBody, ContainerInspectResponse, NetworkSettings};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use stele_model::release::{Check, Image, Protocol, Restart};
use stele_model::wire::{AssignedInstance, HostPort, TakenPort};
use stele_model::{AppEnv, Digest, FleetName, InstanceId, NodeName};
use stele_reconcile::{ContainerState, HostPolicy, ImageHere, Observation, ObservedContainer};

use self::behaviour::Behaviour;
use self::changes::Changes;
use crate::host::Host;
use crate::inspect::{ImageShown, differences, same_content};
use crate::request::{create_request, plain};
use crate::runtime::{Change, LogLine, LogRequest, LogStream, Runtime, RuntimeError};

/// Docker's first pause before it starts an ended container again; doubled each time. Milliseconds.
const ENGINE_RESTART_MS: u64 = 100;

#[derive(Clone, Debug)]
struct Container {
    node: NodeName,
    fleet: FleetName,
    name: String,
    instance: InstanceId,
    spec_digest: Digest,
    behaviour: Behaviour,
    restart: Restart,
    grace_seconds: u32,
    ports: BTreeSet<(String, u16, Protocol)>,
    /// What it was made as: labels included, which are believed by nobody who inspects it.
    body: ContainerCreateBody,
    files: BTreeMap<String, (String, u32)>,
    state: ContainerState,
    exit_code: Option<i64>,
    created_ms: u64,
    started_ms: Option<u64>,
    starts: u32,
    drift: Option<String>,
    log: Vec<LogLine>,
}

impl Container {
    fn is_up(&self) -> bool {
        matches!(self.state, ContainerState::Running | ContainerState::Paused)
    }

    fn is_of(&self, host: &Host) -> bool {
        (&self.fleet, &self.node) == (&host.fleet, &host.node)
    }
}

#[derive(Debug, Default)]
struct Engine {
    made: u64,
    containers: BTreeMap<String, Container>,
    networks: BTreeSet<(FleetName, NodeName, AppEnv)>,
    volumes: BTreeSet<String>,
    images: BTreeMap<String, Image>,
    /// Names of images that somebody gave a tag.
    tagged: BTreeSet<String>,
    down: bool,
}

impl Engine {
    /// The image under its own name, or the same content under another.
    fn find(&self, image: &Image) -> Option<String> {
        let name = image.to_string();
        if self.images.contains_key(&name) {
            return Some(name);
        }
        let same = self.images.iter().find(|(_, other)| other.digest == image.digest);
        same.map(|(name, _)| name.clone())
    }

    fn uses(&self, name: &str) -> bool {
        self.containers.values().any(|one| one.body.image.as_deref() == Some(name))
    }
}

/// Where the simulated engine's time comes from.
#[derive(Clone, Debug, Default)]
pub enum SimulatedClock {
    /// The host's clock.
    #[default]
    Wall,
    /// Moved by [`Simulated::advance`] alone; milliseconds since 1970.
    Manual(Arc<AtomicU64>),
}

/// One node's view of a simulated engine.
#[derive(Clone, Debug)]
pub struct Simulated {
    host: Host,
    clock: SimulatedClock,
    engine: Arc<Mutex<Engine>>,
    changes: Changes,
}

impl Default for Simulated {
    fn default() -> Self {
        #[allow(clippy::expect_used)]
        let host = Host {
            fleet: FleetName::new("simulated").expect("a constant name is valid"),
            root: stele_model::signature::PublicKey("ab".repeat(32)),
            node: NodeName::new("simulated").expect("a constant name is valid"),
            publish_address: "127.0.0.1".to_owned(),
            policy: HostPolicy::default(),
        };
        Self::new(host, SimulatedClock::Wall)
    }
}

impl Simulated {
    /// An empty engine of its own.
    pub fn new(host: Host, clock: SimulatedClock) -> Self {
        Self { host, clock, engine: Arc::default(), changes: Changes::default() }
    }

    /// Another node's view of the same engine.
    #[must_use]
    pub fn shared_with(&self, host: Host) -> Self {
        Self { host, ..self.clone() }
    }

    /// Moves a manual clock on.
    pub fn advance(&self, ms: u64) {
        if let SimulatedClock::Manual(now) = &self.clock {
            now.fetch_add(ms, Ordering::SeqCst);
        }
        self.changes.tell(&Change::Unknown);
    }

    /// Whether the engine answers.
    pub fn set_down(&self, down: bool) {
        self.engine().down = down;
        self.changes.tell(&Change::Unknown);
    }

    /// Does something by hand to an instance's container, behind the agent's back. Whether there was one.
    pub fn by_hand(&self, instance: &InstanceId, deed: Deed) -> bool {
        let now = self.now_ms();
        let mut engine = self.engine();
        let own = |one: &Container| self.is_own(&one.fleet, &one.node) && one.instance == *instance;
        let Some(id) = engine.containers.iter().find(|(_, one)| own(one)).map(|(id, _)| id.clone()) else {
            return false;
        };
        if deed == Deed::Remove {
            engine.containers.remove(&id);
        } else if deed == Deed::Duplicate {
            engine.made += 1;
            let copy_id = format!("{:064x}", engine.made);
            if let Some(mut copy) = engine.containers.get(&id).cloned() {
                copy.name = format!("copy-{}", engine.made);
                copy.created_ms = now;
                copy.drift = Some("its name is another".to_owned());
                engine.containers.insert(copy_id, copy);
            }
        } else if let Some(one) = engine.containers.get_mut(&id) {
            match deed {
                Deed::Kill => {
                    one.state = ContainerState::Exited;
                    one.exit_code = Some(137);
                }
                Deed::Pause => one.state = ContainerState::Paused,
                Deed::Change => {
                    one.drift = Some("Memory is 1, was unset".to_owned());
                    one.body.host_config.get_or_insert_default().memory = Some(1);
                }
                Deed::ChangeFile => {
                    for (text, _) in one.files.values_mut() {
                        text.push('!');
                    }
                }
                Deed::Impostor => one.body.cmd = Some(vec!["something-else".to_owned()]),
                Deed::Remove | Deed::Duplicate => {}
            }
        }
        drop(engine);
        self.changes.tell(&Change::Container(id));
        true
    }

    /// The files in an instance's container.
    pub fn files(&self, instance: &InstanceId) -> BTreeMap<String, String> {
        let engine = self.engine();
        let found = engine.containers.values().find(|one| one.instance == *instance);
        let files = found.map(|one| one.files.clone()).unwrap_or_default();
        files.into_iter().map(|(path, (text, _))| (path, text)).collect()
    }

    /// The engine's names of all volumes.
    pub fn volumes(&self) -> BTreeSet<String> {
        self.engine().volumes.clone()
    }

    fn is_own(&self, fleet: &FleetName, node: &NodeName) -> bool {
        *fleet == self.host.fleet && *node == self.host.node
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        // A panic while it was held is a failed test already.
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn up(&self) -> Result<MutexGuard<'_, Engine>, RuntimeError> {
        let engine = self.engine();
        if engine.down {
            Err(RuntimeError::Unreachable("the simulated engine is down".to_owned()))
        } else {
            Ok(engine)
        }
    }

    fn look(&self) -> Result<Observation, RuntimeError> {
        let now = self.now_ms();
        let engine = self.up()?;
        let networks = engine.networks.iter().filter(|(fleet, node, _)| self.is_own(fleet, node));
        let own = engine.containers.iter().filter(|(_, one)| self.is_own(&one.fleet, &one.node));
        let containers = own.map(|(id, one)| one.observed(id, now)).collect();
        Ok(Observation::new(containers, networks.map(|(_, _, app_env)| app_env.clone()).collect()))
    }

    fn make(&self, instance: &AssignedInstance) -> Result<String, RuntimeError> {
        let mut request = create_request(&self.host, instance)?;
        let now = self.now_ms();
        let mut engine = self.up()?;
        let Some(name) = engine.find(&instance.spec.container.image) else {
            return Err(RuntimeError::Engine(format!("No such image: {}", request.image)));
        };
        request.body.image = Some(name);
        if let Some((id, _)) = engine.containers.iter().find(|(_, one)| one.name == request.name) {
            let words = format!(
                "Conflict. The container name \"/{}\" is already in use by container \"{id}\"",
                request.name
            );
            return Err(RuntimeError::Engine(words));
        }
        if !engine.networks.contains(&(
            self.host.fleet.clone(),
            self.host.node.clone(),
            instance.spec.app_env.clone(),
        )) {
            let name = self.host.network_name(&instance.spec.app_env);
            return Err(RuntimeError::Engine(format!("network {name} not found")));
        }
        engine.volumes.extend(request.volumes);
        engine.made += 1;
        let id = format!("{:064x}", engine.made);
        let container = &instance.spec.container;
        let published = container.ports.iter().filter_map(|port| Some((port.host?, port.protocol)));
        let one = Container {
            node: self.host.node.clone(),
            fleet: self.host.fleet.clone(),
            name: request.name,
            instance: instance.id.clone(),
            spec_digest: instance.spec_digest,
            behaviour: Behaviour::of(&container.image.repository),
            restart: container.restart,
            grace_seconds: container.stop.grace_seconds,
            ports: published
                .map(|(port, protocol)| (self.host.publish_address.clone(), port, protocol))
                .collect(),
            body: request.body,
            files: BTreeMap::new(),
            state: ContainerState::Created,
            exit_code: Some(0),
            created_ms: now,
            started_ms: None,
            starts: 0,
            drift: None,
            log: Vec::new(),
        };
        engine.containers.insert(id.clone(), one);
        Ok(id)
    }

    fn compare(&self, instance: &AssignedInstance, container: &str) -> Result<Vec<String>, RuntimeError> {
        let mut request = create_request(&self.host, instance)?;
        let (body, files) = match self.up()?.containers.get(container) {
            Some(one) => (one.body.clone(), one.files.clone()),
            None => return Ok(vec!["its container is gone".to_owned()]),
        };
        if let Some(name) = same_content(&request.image, body.image.as_deref()) {
            (request.image, request.body.image) = (name.clone(), Some(name));
        }
        let image = ImageShown { id: request.image.clone(), ..ImageShown::default() };
        let mut found = differences(&request.body, &image, &inspection_of(&body)?)?;
        for (path, file) in &instance.spec.container.files {
            let wanted = plain(&file.content, &format!("the file {path}"))?;
            found.extend(match files.get(path) {
                None => Some(format!("the file {path} is missing")),
                Some((text, _)) if text != wanted => {
                    Some(format!("the content of the file {path} was changed"))
                }
                Some((_, mode)) if *mode != file.mode => {
                    Some(format!("the mode of the file {path} was changed"))
                }
                Some(_) => None,
            });
        }
        Ok(found)
    }

    /// Removes images that no container needs, as `docker image prune --all` does by hand.
    pub fn prune_images(&self) {
        let mut engine = self.engine();
        let used: BTreeSet<_> = engine.containers.values().filter_map(|one| one.body.image.clone()).collect();
        engine.images.retain(|image, _| used.contains(image));
    }

    /// Gives an image a tag, as `docker tag` does by hand, or takes that away.
    pub fn tag_by_hand(&self, image: &Image, is_tagged: bool) {
        let mut engine = self.engine();
        if is_tagged {
            engine.tagged.insert(image.to_string());
        } else {
            engine.tagged.remove(&image.to_string());
        }
    }

    /// Has an image here that no agent pulled, as `docker pull` by hand does.
    pub fn pull_by_hand(&self, image: &Image) {
        self.engine().images.insert(image.to_string(), image.clone());
    }

    fn begin(&self, id: &str) -> Result<(), RuntimeError> {
        let now = self.now_ms();
        let mut engine = self.up()?;
        let ports = match engine.containers.get(id) {
            None => return Err(RuntimeError::Engine(format!("No such container: {id}"))),
            Some(one) if one.state == ContainerState::Running => return Ok(()),
            Some(one) => one.ports.clone(),
        };
        let taken = engine
            .containers
            .values()
            .filter(|one| one.is_up())
            .flat_map(|one| &one.ports)
            .find(|port| ports.contains(port));
        if let Some((address, port, _)) = taken {
            let words = format!("Bind for {address}:{port} failed: port is already allocated");
            return Err(RuntimeError::Engine(words));
        }
        if let Some(one) = engine.containers.get_mut(id) {
            one.starts += 1;
            one.started_ms = Some(now);
            one.state = ContainerState::Running;
            one.exit_code = Some(0);
            one.log.push(LogLine {
                time_ms: Some(now),
                stderr: false,
                text: format!("start {}", one.starts),
            });
            if let Some(code) = one.ends_with() {
                one.state = ContainerState::Exited;
                one.exit_code = Some(code);
                one.log.push(LogLine { time_ms: Some(now), stderr: true, text: format!("ends with {code}") });
            }
        }
        Ok(())
    }

    fn with<T>(&self, id: &str, change: impl FnOnce(&mut Container) -> T) -> Result<T, RuntimeError> {
        let mut engine = self.up()?;
        let one = engine.containers.get_mut(id);
        one.map(change).ok_or_else(|| RuntimeError::Engine(format!("No such container: {id}")))
    }

    /// An answer, after what was done to a container is told.
    fn done<T>(
        &self,
        container: &str,
        outcome: Result<T, RuntimeError>,
    ) -> BoxFuture<'static, Result<T, RuntimeError>>
    where
        T: Send + 'static,
    {
        if outcome.is_ok() {
            self.changes.tell(&Change::Container(container.to_owned()));
        }
        Box::pin(std::future::ready(outcome))
    }
}

/// Something done by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// `docker kill`.
    Kill,
    /// `docker pause`.
    Pause,
    /// `docker rm --force`.
    Remove,
    /// `docker update --memory 1`.
    Change,
    /// Another container with the same labels.
    Duplicate,
    /// Its files are changed inside it.
    ChangeFile,
    /// It is made anew under its own name and labels, with another command.
    Impostor,
}

impl Container {
    fn ends_with(&self) -> Option<i64> {
        match self.behaviour {
            Behaviour::Crashes => Some(1),
            Behaviour::Exits => Some(0),
            Behaviour::Runs | Behaviour::Sick | Behaviour::Missing => None,
        }
    }

    /// Docker starts an ended container again by itself, ever more slowly. What would have
    /// happened by now is computed rather than played.
    fn observed(&self, id: &str, now: u64) -> ObservedContainer {
        let ended = self.state == ContainerState::Exited
            && self.ends_with().is_some_and(|code| self.exit_code == Some(code));
        let again = match self.restart {
            Restart::Always => ended,
            Restart::OnFailure => ended && self.exit_code != Some(0),
            Restart::Never => false,
        };
        let elapsed = now.saturating_sub(self.started_ms.unwrap_or(now));
        let restart_count = if again { (elapsed / ENGINE_RESTART_MS + 1).ilog2() } else { 0 };
        ObservedContainer {
            id: id.to_owned(),
            instance: self.instance.clone(),
            spec_digest: Some(self.spec_digest),
            state: if again { ContainerState::Restarting } else { self.state },
            exit_code: self.exit_code,
            oom_killed: false,
            error: None,
            restart_count,
            created_ms: self.created_ms,
            started_ms: self.started_ms,
            stop_grace_seconds: self.grace_seconds,
            address: Some(std::net::Ipv4Addr::LOCALHOST.into()),
            drift: self.drift.clone(),
            left_out: None,
        }
    }
}

/// What a container made so shows when it is inspected.
fn inspection_of(body: &ContainerCreateBody) -> Result<ContainerInspectResponse, RuntimeError> {
    let unfit = |error: serde_json::Error| RuntimeError::Spec(error.to_string());
    let config = serde_json::to_value(body).and_then(serde_json::from_value).map_err(unfit)?;
    let endpoints = body.networking_config.clone().and_then(|networking| networking.endpoints_config);
    Ok(ContainerInspectResponse {
        image: body.image.clone(),
        config: Some(config),
        host_config: body.host_config.clone(),
        network_settings: Some(NetworkSettings { networks: endpoints, ..NetworkSettings::default() }),
        ..ContainerInspectResponse::default()
    })
}

impl Runtime for Simulated {
    fn now_ms(&self) -> u64 {
        match &self.clock {
            SimulatedClock::Wall => jiff::Timestamp::now().as_millisecond().try_into().unwrap_or_default(),
            SimulatedClock::Manual(now) => now.load(Ordering::SeqCst),
        }
    }

    fn observe(&self) -> BoxFuture<'_, Result<Observation, RuntimeError>> {
        Box::pin(std::future::ready(self.look()))
    }

    fn admit(&self, instance: &AssignedInstance) -> Result<(), RuntimeError> {
        for (path, file) in &instance.spec.container.files {
            plain(&file.content, &format!("the file {path}"))?;
        }
        create_request(&self.host, instance).map(drop)
    }

    fn pull<'a>(&'a self, image: &'a Image) -> BoxFuture<'a, Result<(), RuntimeError>> {
        let missing = Behaviour::of(&image.repository) == Behaviour::Missing;
        let outcome = self.up().and_then(|mut engine| {
            if missing {
                let words = format!("manifest for {image} not found: manifest unknown");
                return Err(RuntimeError::NoSuchImage(words));
            }
            engine.images.insert(image.to_string(), image.clone());
            Ok(())
        });
        Box::pin(std::future::ready(outcome))
    }

    fn ensure_network<'a>(&'a self, app_env: &'a AppEnv) -> BoxFuture<'a, Result<(), RuntimeError>> {
        let own = (self.host.fleet.clone(), self.host.node.clone(), app_env.clone());
        let outcome = self.up().map(|mut engine| {
            engine.networks.insert(own);
        });
        Box::pin(std::future::ready(outcome))
    }

    fn remove_network<'a>(&'a self, app_env: &'a AppEnv) -> BoxFuture<'a, Result<(), RuntimeError>> {
        let own = (self.host.fleet.clone(), self.host.node.clone(), app_env.clone());
        let outcome = self.up().and_then(|mut engine| {
            let uses =
                |one: &Container| self.is_own(&one.fleet, &one.node) && one.instance.slot.app_env == *app_env;
            if engine.containers.values().any(|one| uses(one) && one.state == ContainerState::Running) {
                return Err(RuntimeError::Engine("network has active endpoints".to_owned()));
            }
            engine.networks.remove(&own);
            Ok(())
        });
        Box::pin(std::future::ready(outcome))
    }

    fn create<'a>(&'a self, instance: &'a AssignedInstance) -> BoxFuture<'a, Result<String, RuntimeError>> {
        let made = self.make(instance);
        let container = made.as_ref().map_or_else(|_| String::new(), Clone::clone);
        self.done(&container, made)
    }

    fn write_files<'a>(
        &'a self,
        instance: &'a AssignedInstance,
        container: &'a str,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        let files: Result<BTreeMap<_, _>, _> = instance
            .spec
            .container
            .files
            .iter()
            .map(|(path, file)| Ok((path.clone(), (plain(&file.content, path)?.to_owned(), file.mode))))
            .collect();
        let outcome = files.and_then(|files| self.with(container, |one| one.files = files));
        self.done(container, outcome)
    }

    fn inspect<'a>(
        &'a self,
        instance: &'a AssignedInstance,
        container: &'a str,
    ) -> BoxFuture<'a, Result<Vec<String>, RuntimeError>> {
        Box::pin(std::future::ready(self.compare(instance, container)))
    }

    fn has_image<'a>(&'a self, image: &'a Image) -> BoxFuture<'a, Result<bool, RuntimeError>> {
        let has = self.up().map(|engine| engine.find(image).is_some());
        Box::pin(std::future::ready(has))
    }

    fn images(&self) -> BoxFuture<'_, Result<Vec<ImageHere>, RuntimeError>> {
        let here = self.up().map(|engine| {
            let here = engine.images.iter().map(|(name, image)| ImageHere {
                names: vec![image.clone()],
                is_tagged: engine.tagged.contains(name),
                is_used: engine.uses(name),
            });
            here.collect()
        });
        Box::pin(std::future::ready(here))
    }

    fn remove_image<'a>(&'a self, image: &'a Image) -> BoxFuture<'a, Result<(), RuntimeError>> {
        let name = image.to_string();
        let outcome = self.up().and_then(|mut engine| {
            if engine.uses(&name) {
                let words = format!("conflict: unable to remove {name}: a container is using it");
                return Err(RuntimeError::Engine(words));
            }
            engine.images.remove(&name);
            engine.tagged.remove(&name);
            Ok(())
        });
        Box::pin(std::future::ready(outcome))
    }

    fn ports_taken<'a>(
        &'a self,
        ports: &'a [HostPort],
    ) -> BoxFuture<'a, Result<Vec<TakenPort>, RuntimeError>> {
        let taken = self.up().map(|engine| {
            let other = |port: &HostPort| {
                let wanted = (self.host.publish_address.clone(), port.port, port.protocol);
                let holder =
                    engine.containers.values().find(|one| one.is_up() && one.ports.contains(&wanted))?;
                let holder = Some(holder).filter(|one| !one.is_of(&self.host))?;
                Some(TakenPort { port: *port, holder: format!("container {}", holder.name) })
            };
            ports.iter().filter_map(other).collect()
        });
        Box::pin(std::future::ready(taken))
    }

    fn start<'a>(&'a self, container: &'a str) -> BoxFuture<'a, Result<(), RuntimeError>> {
        self.done(container, self.begin(container))
    }

    fn stop<'a>(
        &'a self,
        container: &'a str,
        _grace_seconds: u32,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        let stopped = self.with(container, |one| match one.state {
            ContainerState::Paused => Err(RuntimeError::Engine(format!("Container {container} is paused"))),
            ContainerState::Running => {
                one.state = ContainerState::Exited;
                one.exit_code = Some(143);
                Ok(())
            }
            _ => {
                // As Docker has it: one stopped on request is not started again.
                one.restart = Restart::Never;
                Ok(())
            }
        });
        let gone = !self.engine().containers.contains_key(container);
        self.done(container, if gone { Ok(()) } else { stopped.and_then(|outcome| outcome) })
    }

    fn remove<'a>(&'a self, container: &'a str) -> BoxFuture<'a, Result<(), RuntimeError>> {
        let outcome = self.up().map(|mut engine| drop(engine.containers.remove(container)));
        self.done(container, outcome)
    }

    fn unpause<'a>(&'a self, container: &'a str) -> BoxFuture<'a, Result<(), RuntimeError>> {
        let outcome = self.with(container, |one| one.state = ContainerState::Running);
        self.done(container, outcome)
    }

    fn check<'a>(
        &'a self,
        container: &'a ObservedContainer,
        _check: &'a Check,
        _timeout_ms: u64,
    ) -> BoxFuture<'a, Result<(), String>> {
        let behaviour = self.with(&container.id, |one| one.behaviour);
        Box::pin(std::future::ready(match behaviour {
            Ok(Behaviour::Sick) => Err("the simulated container is sick".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }))
    }

    fn logs(&self, container: &str, request: LogRequest) -> LogStream {
        let lines = match self.with(container, |one| one.log.clone()) {
            Ok(lines) => lines.into_iter().filter(|line| request.reaches(line)).collect::<Vec<_>>(),
            Err(error) => return futures::stream::iter([Err(error)]).boxed(),
        };
        let skipped = request.tail.map_or(0, |tail| lines.len().saturating_sub(tail));
        let printed = futures::stream::iter(lines.into_iter().skip(skipped).map(Ok));
        // A simulated container prints nothing more; following it waits for ever, as with one that is silent.
        if request.follow { printed.chain(futures::stream::pending()).boxed() } else { printed.boxed() }
    }

    fn changes(&self) -> BoxStream<'static, Change> {
        self.changes.listen()
    }
}
