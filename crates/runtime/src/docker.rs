//! Docker, or whatever speaks its API on a socket, through bollard.
//!
//! Decisions worth knowing:
//!
//! - The engine restarts containers (`unless-stopped`, `on-failure`), not the agent alone, so
//!   that they survive while the agent is away; the agent starts what the engine does not.
//! - Config files are uploaded into the container before its first start. So inspection shows
//!   two instances of one spec as equal, and file contents vanish with the container: nothing
//!   is left on the host for secrets to linger in. The price is that they cannot be put into a
//!   container whose root filesystem is read-only, and that root inside it could change them.
//! - What can be changed by hand (`docker update`, `network connect`, `rename`) is written on
//!   the container as a label when it is made. So drift is found by inspection alone, also by
//!   an agent that was killed right after making the container.
//! - Each app has a network of its own on each node, out of the engine's address pools. Docker's
//!   default pools hold about thirty; a host with more apps needs `default-address-pools`.
//! - Docker cannot end an exec. A health check that hangs leaves its process in the container
//!   each time it is given up: give exec checks a timeout of their own.
//! - bollard logs request bodies at debug level through the `log` crate. They contain plain
//!   environment values: never bridge `log` at that level.

mod folders;
mod images;
mod lacking;
mod logs;
mod networks;
mod ports;
mod unknown;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bollard::exec::StartExecResults;
use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary, ExecConfig, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder, EventsOptionsBuilder,
    ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder,
    StopContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use stele_model::AppEnv;
use stele_model::release::{Check, Image};
use stele_model::wire::{AssignedInstance, HostPort, TakenPort};
use stele_reconcile::{ContainerState, ImageHere, Observation, ObservedContainer};
use tokio::sync::OnceCell;

use crate::host::{Host, LABEL_CONFIG, LABEL_INSTANCE, LABEL_SPEC};
use crate::inspect::{differences, file_difference, same_content};
use crate::limits::{
    ARCHIVE_MARGIN_BYTES, EVENTS_RETRY_MS, EXEC_OUTPUT_BYTES_MAX, INSPECTS_MAX, LOOK_TIMEOUT_MS,
    REQUEST_TIMEOUT_MS, STOP_MARGIN_MS,
};
use crate::probe;
use crate::registry::Logins;
use crate::request::{Drift, create_request, drift, mutable_of_inspection, plain};
use crate::runtime::{Change, LogRequest, LogStream, Runtime, RuntimeError};

/// How to reach the engine, and for whom.
#[derive(Clone, Debug)]
pub struct DockerConfig {
    /// The node acted for.
    pub host: Host,
    /// Such as `unix:///run/podman/podman.sock`. `DOCKER_HOST` or Docker's own when absent.
    pub socket: Option<String>,
    /// Credentials for registries.
    pub logins: Logins,
}

/// One node's view of a Docker engine.
#[derive(Debug)]
pub struct Docker {
    config: DockerConfig,
    client: OnceCell<bollard::Docker>,
    lacking: OnceCell<BTreeSet<&'static str>>,
}

type Failed = bollard::errors::Error;

fn engine_error(error: Failed) -> RuntimeError {
    match error {
        Failed::DockerResponseServerError { message, .. } => RuntimeError::Engine(message),
        Failed::DockerStreamError { error } => RuntimeError::Engine(error),
        other => RuntimeError::Unreachable(other.to_string()),
    }
}

fn status(error: &Failed) -> Option<u16> {
    match error {
        Failed::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// Takes the statuses that mean "already so" for success.
fn unless_already(outcome: Result<(), Failed>, already: &[u16]) -> Result<(), RuntimeError> {
    match outcome {
        Err(error) if status(&error).is_some_and(|status| already.contains(&status)) => Ok(()),
        other => other.map_err(engine_error),
    }
}

impl Docker {
    /// Reaches nothing yet: an engine that is down when the agent starts is only late.
    pub fn new(config: DockerConfig) -> Self {
        Self { config, client: OnceCell::new(), lacking: OnceCell::new() }
    }

    async fn client(&self) -> Result<&bollard::Docker, RuntimeError> {
        self.client
            .get_or_try_init(async || {
                let client = match &self.config.socket {
                    Some(socket) => bollard::Docker::connect_with_host(socket),
                    None => bollard::Docker::connect_with_defaults(),
                };
                let client =
                    client.map_err(engine_error)?.with_timeout(Duration::from_millis(REQUEST_TIMEOUT_MS));
                client.negotiate_version().await.map_err(engine_error)
            })
            .await
    }

    fn own_filter(&self) -> HashMap<String, Vec<String>> {
        let labels = self.config.host.labels();
        HashMap::from([(
            "label".to_owned(),
            labels.iter().map(|(label, text)| format!("{label}={text}")).collect(),
        )])
    }

    async fn inspection(&self, id: &str) -> Result<Option<ContainerInspectResponse>, RuntimeError> {
        let options = None::<bollard::query_parameters::InspectContainerOptions>;
        match self.client().await?.inspect_container(id, options).await {
            Ok(inspected) => Ok(Some(inspected)),
            // Removed since it was listed.
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(engine_error(error)),
        }
    }

    async fn look(&self) -> Result<Observation, RuntimeError> {
        let networks = self.one_network_each(self.networks().await?).await?;
        let options = ListContainersOptionsBuilder::default().all(true).filters(&self.own_filter()).build();
        let listed = self.client().await?.list_containers(Some(options)).await.map_err(engine_error)?;
        let network_ids: BTreeSet<_> = networks.iter().map(|(id, _)| id.as_str()).collect();
        let containers = futures::stream::iter(listed)
            .map(|listed| self.look_at(listed, &network_ids))
            .buffer_unordered(INSPECTS_MAX)
            .filter_map(std::future::ready)
            .collect()
            .await;
        Ok(Observation::new(containers, networks.into_iter().map(|(_, app_env)| app_env).collect()))
    }

    /// One container as inspection shows it, or as far as it is listed. While the engine works at a container it may
    /// not answer for it, for as long as a dead file server keeps it waiting; that must not hide all others.
    async fn look_at(
        &self,
        listed: ContainerSummary,
        networks: &BTreeSet<&str>,
    ) -> Option<ObservedContainer> {
        let limit = Duration::from_millis(LOOK_TIMEOUT_MS);
        let id = listed.id.as_deref()?;
        let why = match tokio::time::timeout(limit, self.inspection(id)).await {
            Ok(Ok(inspected)) => return self.seen(&inspected?, networks).await,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {LOOK_TIMEOUT_MS} ms"),
        };
        tracing::warn!(container = id, %why, "a container cannot be inspected; it is left alone");
        unknown::listed(&listed, why)
    }

    /// Only of what looks changed is it asked whether the host could do it at all.
    async fn seen(
        &self,
        inspected: &ContainerInspectResponse,
        networks: &BTreeSet<&str>,
    ) -> Option<ObservedContainer> {
        let seen = self.observed(inspected, networks, &BTreeSet::new())?;
        if seen.drift.is_none() {
            return Some(seen);
        }
        self.observed(inspected, networks, &self.lacking().await)
    }

    /// Nothing for a container whose instance label is unreadable: it is none of ours to touch.
    fn observed(
        &self,
        inspected: &ContainerInspectResponse,
        networks: &BTreeSet<&str>,
        lacking: &BTreeSet<&str>,
    ) -> Option<ObservedContainer> {
        let labels = inspected.config.as_ref()?.labels.as_ref()?;
        let own = self.config.host.labels().iter().all(|(label, text)| labels.get(label) == Some(text));
        let instance = labels.get(LABEL_INSTANCE).filter(|_| own)?.parse().ok()?;
        let state = inspected.state.as_ref()?;
        let endpoints = || {
            let settings =
                inspected.network_settings.iter().filter_map(|settings| settings.networks.as_ref());
            settings.flatten()
        };
        let name = inspected.name.as_deref().unwrap_or_default().trim_start_matches('/');
        let expected_name = self.config.host.container_name(&instance);
        let own_network = self.config.host.network_name(&instance.slot.app_env);
        // One that was removed and made anew has the old name and another id.
        let orphaned = endpoints().any(|(name, endpoint)| {
            let id = endpoint.network_id.as_deref().unwrap_or_default();
            *name == own_network && !id.is_empty() && !networks.contains(id)
        });
        let made = labels.get(LABEL_CONFIG).map_or("", String::as_str);
        let Drift { by_hand, left_out } = drift(made, &mutable_of_inspection(inspected), lacking);
        let drift = if name == expected_name {
            by_hand.or_else(|| orphaned.then(|| "its network was removed".to_owned()))
        } else {
            Some(format!("its name is {name}, was {expected_name}"))
        };
        let on_host = endpoints().any(|(name, _)| name == "host");
        let address = endpoints()
            .filter_map(|(name, endpoint)| Some((name, endpoint.ip_address.as_deref()?.parse().ok()?)))
            .min_by_key(|(name, _)| **name != own_network)
            .map(|(_, address)| address)
            .or_else(|| on_host.then(|| std::net::Ipv4Addr::LOCALHOST.into()));
        let grace = inspected.config.as_ref().and_then(|config| config.stop_timeout).unwrap_or_default();
        Some(ObservedContainer {
            id: inspected.id.clone()?,
            instance,
            spec_digest: labels.get(LABEL_SPEC).and_then(|text| text.parse().ok()),
            state: match state.status? {
                ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::STOPPING => {
                    ContainerState::Running
                }
                ContainerStateStatusEnum::PAUSED => ContainerState::Paused,
                ContainerStateStatusEnum::RESTARTING => ContainerState::Restarting,
                ContainerStateStatusEnum::REMOVING => ContainerState::Removing,
                ContainerStateStatusEnum::EXITED => ContainerState::Exited,
                ContainerStateStatusEnum::DEAD => ContainerState::Dead,
                ContainerStateStatusEnum::CREATED | ContainerStateStatusEnum::EMPTY => {
                    ContainerState::Created
                }
            },
            exit_code: state.exit_code,
            oom_killed: state.oom_killed.unwrap_or_default(),
            error: state.error.clone().filter(|error| !error.is_empty()),
            restart_count: inspected
                .restart_count
                .and_then(|count| count.try_into().ok())
                .unwrap_or_default(),
            created_ms: inspected.created.as_deref().and_then(millis).unwrap_or_default(),
            started_ms: state.started_at.as_deref().and_then(millis),
            stop_grace_seconds: grace.try_into().unwrap_or_default(),
            address,
            drift,
            left_out,
        })
    }

    async fn create_container(&self, instance: &AssignedInstance) -> Result<String, RuntimeError> {
        let host = &self.config.host;
        let mut request = create_request(host, instance)?;
        folders::check(&host.policy, &request.host_folders)?;
        if let Some((name, _)) = self.find(&instance.spec.container.image).await? {
            request.body.image = Some(name);
        }
        let client = self.client().await?;
        for name in &request.volumes {
            // Creating one that exists answers with it and changes nothing.
            let volume = VolumeCreateRequest {
                name: Some(name.clone()),
                labels: Some(host.app_labels(&instance.spec.app_env).into_iter().collect()),
                ..VolumeCreateRequest::default()
            };
            client.create_volume(volume).await.map_err(engine_error)?;
        }
        let options = CreateContainerOptionsBuilder::default().name(&request.name).build();
        let created = client.create_container(Some(options), request.body).await.map_err(engine_error)?;
        Ok(created.id)
    }

    async fn compare(
        &self,
        instance: &AssignedInstance,
        container: &str,
    ) -> Result<Vec<String>, RuntimeError> {
        let mut request = create_request(&self.config.host, instance)?;
        let Some(inspected) = self.inspection(container).await? else {
            return Ok(vec!["its container is gone".to_owned()]);
        };
        let Some((_, image)) = self.find(&instance.spec.container.image).await? else {
            return Ok(vec![format!("{} is not on the node any more to compare with", request.image)]);
        };
        let made_of = inspected.config.as_ref().and_then(|config| config.image.as_deref());
        if let Some(name) = same_content(&request.image, made_of) {
            request.body.image = Some(name);
        }
        let mut found = differences(&request.body, &image, &inspected)?;
        for (path, file) in &instance.spec.container.files {
            let content = plain(&file.content, &format!("the file {path}"))?;
            let archive = self.archive_of(container, path, content.len()).await?;
            found.extend(match archive {
                None => Some(format!("the file {path} is missing")),
                Some(archive) => file_difference(path, file, &archive)?,
            });
        }
        Ok(found)
    }

    /// The beginning of the archive of a file, as much as one with so much content has.
    async fn archive_of(
        &self,
        container: &str,
        path: &str,
        content_bytes: usize,
    ) -> Result<Option<Vec<u8>>, RuntimeError> {
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let mut chunks = self.client().await?.download_from_container(container, Some(options));
        let most = content_bytes.saturating_add(ARCHIVE_MARGIN_BYTES);
        let mut archive = Vec::new();
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(chunk) => archive.extend_from_slice(&chunk),
                Err(error) if status(&error) == Some(404) => return Ok(None),
                Err(error) => return Err(engine_error(error)),
            }
            if archive.len() > most {
                break;
            }
        }
        Ok(Some(archive))
    }

    async fn exec(&self, container: &str, command: &[String]) -> Result<(), String> {
        let client = self.client().await.map_err(|error| error.to_string())?;
        let told = |error: Failed| engine_error(error).to_string();
        let config = ExecConfig {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.to_vec()),
            ..ExecConfig::default()
        };
        let exec = client.create_exec(container, config).await.map_err(told)?.id;
        let mut printed = Vec::new();
        if let StartExecResults::Attached { mut output, .. } =
            client.start_exec(&exec, None).await.map_err(told)?
        {
            while let Some(chunk) = output.try_next().await.map_err(told)? {
                let room = EXEC_OUTPUT_BYTES_MAX.saturating_sub(printed.len());
                let chunk = chunk.into_bytes();
                printed.extend_from_slice(&chunk[..chunk.len().min(room)]);
            }
        }
        match client.inspect_exec(&exec).await.map_err(told)?.exit_code {
            Some(0) => Ok(()),
            code => {
                let code = code.map_or_else(|| "none".to_owned(), |code| code.to_string());
                let printed = String::from_utf8_lossy(&printed);
                Err(format!("the check's exit code is {code}: {}", printed.trim()))
            }
        }
    }

    /// Both clones reach the same engine through the same negotiated version.
    fn detached(&self) -> Self {
        Self { config: self.config.clone(), client: self.client.clone(), lacking: self.lacking.clone() }
    }
}

/// Nothing for the year 1, which stands for "never".
fn millis(text: &str) -> Option<u64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    time.as_millisecond().try_into().ok()
}

/// The instance's files as a tar archive. Folders are left out: those that are missing are made
/// by the engine, those that exist must not change their mode.
fn archive(instance: &AssignedInstance) -> Result<Vec<u8>, RuntimeError> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, file) in &instance.spec.container.files {
        let content = plain(&file.content, &format!("the file {path}"))?;
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(file.mode & 0o7777);
        header.set_uid(0);
        header.set_gid(0);
        // The same every time, so that two instances of one spec are equal in this too.
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        let unfit =
            |error: std::io::Error| RuntimeError::Spec(format!("the file {path} cannot be written: {error}"));
        let relative = path.trim_start_matches('/');
        builder.append_data(&mut header, relative, content.as_bytes()).map_err(unfit)?;
    }
    builder.into_inner().map_err(|error| RuntimeError::Spec(error.to_string()))
}

impl Runtime for Docker {
    fn now_ms(&self) -> u64 {
        jiff::Timestamp::now().as_millisecond().try_into().unwrap_or_default()
    }

    fn observe(&self) -> BoxFuture<'_, Result<Observation, RuntimeError>> {
        Box::pin(self.look())
    }

    fn admit(&self, instance: &AssignedInstance) -> Result<(), RuntimeError> {
        let request = create_request(&self.config.host, instance)?;
        archive(instance)?;
        folders::check(&self.config.host.policy, &request.host_folders)
    }

    fn pull<'a>(&'a self, image: &'a Image) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(self.pull_image(image))
    }

    fn has_image<'a>(&'a self, image: &'a Image) -> BoxFuture<'a, Result<bool, RuntimeError>> {
        Box::pin(async move { Ok(self.find(image).await?.is_some()) })
    }

    fn images(&self) -> BoxFuture<'_, Result<Vec<ImageHere>, RuntimeError>> {
        Box::pin(self.list())
    }

    fn remove_image<'a>(&'a self, image: &'a Image) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(async move {
            let options = RemoveImageOptionsBuilder::default().force(false).build();
            let removed = self.client().await?.remove_image(&image.to_string(), Some(options), None).await;
            unless_already(removed.map(drop), &[404])
        })
    }

    fn inspect<'a>(
        &'a self,
        instance: &'a AssignedInstance,
        container: &'a str,
    ) -> BoxFuture<'a, Result<Vec<String>, RuntimeError>> {
        Box::pin(self.compare(instance, container))
    }

    fn ensure_network<'a>(&'a self, app_env: &'a AppEnv) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(self.make_network(app_env))
    }

    fn remove_network<'a>(&'a self, app_env: &'a AppEnv) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(self.delete_networks(app_env))
    }

    fn create<'a>(&'a self, instance: &'a AssignedInstance) -> BoxFuture<'a, Result<String, RuntimeError>> {
        Box::pin(self.create_container(instance))
    }

    fn write_files<'a>(
        &'a self,
        instance: &'a AssignedInstance,
        container: &'a str,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(async move {
            if instance.spec.container.files.is_empty() {
                return Ok(());
            }
            let body = bollard::body_full(archive(instance)?.into());
            let options = UploadToContainerOptionsBuilder::default().path("/").build();
            self.client()
                .await?
                .upload_to_container(container, Some(options), body)
                .await
                .map_err(engine_error)
        })
    }

    fn ports_taken<'a>(
        &'a self,
        ports: &'a [HostPort],
    ) -> BoxFuture<'a, Result<Vec<TakenPort>, RuntimeError>> {
        Box::pin(self.taken(ports))
    }

    fn start<'a>(&'a self, container: &'a str) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(async move {
            let options = None::<bollard::query_parameters::StartContainerOptions>;
            unless_already(self.client().await?.start_container(container, options).await, &[304])
        })
    }

    fn stop<'a>(&'a self, container: &'a str, grace_seconds: u32) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(async move {
            let limit = Duration::from_secs(grace_seconds.into()) + Duration::from_millis(STOP_MARGIN_MS);
            let client = self.client().await?.clone().with_timeout(limit);
            let seconds = i32::try_from(grace_seconds).unwrap_or(i32::MAX);
            let options = StopContainerOptionsBuilder::default().t(seconds).build();
            unless_already(client.stop_container(container, Some(options)).await, &[304, 404])
        })
    }

    fn remove<'a>(&'a self, container: &'a str) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(async move {
            // Stopped before; forced, because one that Docker restarts may be up again.
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            let removed = self.client().await?.remove_container(container, Some(options)).await;
            match removed {
                // Somebody else is at it already.
                Err(error) if status(&error) == Some(409) && error.to_string().contains("in progress") => {
                    Ok(())
                }
                other => unless_already(other, &[404]),
            }
        })
    }

    fn unpause<'a>(&'a self, container: &'a str) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(async move { self.client().await?.unpause_container(container).await.map_err(engine_error) })
    }

    fn check<'a>(
        &'a self,
        container: &'a ObservedContainer,
        check: &'a Check,
        _timeout_ms: u64,
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let address =
                || container.address.ok_or_else(|| "the container has no address to check".to_owned());
            match check {
                Check::Http { port, path } => probe::http(address()?, *port, path).await,
                Check::Tcp { port } => probe::tcp(address()?, *port).await.map(drop),
                Check::Exec { command } => self.exec(&container.id, command).await,
            }
        })
    }

    fn logs(&self, container: &str, request: LogRequest) -> LogStream {
        let (docker, container) = (self.detached(), container.to_owned());
        let options = logs::options(&request);
        let lines = async move {
            let client = docker.client().await?.clone();
            let output = client.logs(&container, Some(options)).map_err(engine_error);
            Ok::<_, RuntimeError>(
                output.map_ok(move |output| futures::stream::iter(logs::lines(&output, request).map(Ok))),
            )
        };
        futures::stream::once(lines).try_flatten().try_flatten().boxed()
    }

    fn changes(&self) -> BoxStream<'static, Change> {
        let docker = self.detached();
        let subscription = move || {
            let docker = docker.detached();
            async move {
                let mut filters = docker.own_filter();
                // Not the execs, of which each health check makes three.
                let actions = [
                    "create",
                    "start",
                    "die",
                    "stop",
                    "kill",
                    "pause",
                    "unpause",
                    "destroy",
                    "oom",
                    "rename",
                    "update",
                    // `docker cp` into a container.
                    "extract-to-dir",
                ];
                filters.insert("event".to_owned(), actions.map(str::to_owned).to_vec());
                let options = EventsOptionsBuilder::default().filters(&filters).build();
                let client = docker.client().await.ok()?.clone();
                Some(client.events(Some(options)).take_while(|event| std::future::ready(event.is_ok())).map(
                    |event| {
                        let of = event.ok().and_then(|event| event.actor).and_then(|actor| actor.id);
                        of.map_or(Change::Unknown, Change::Container)
                    },
                ))
            }
        };
        let rounds = futures::stream::unfold(true, move |first| {
            let subscription = subscription();
            async move {
                if !first {
                    tokio::time::sleep(Duration::from_millis(EVENTS_RETRY_MS)).await;
                }
                let events = match subscription.await {
                    Some(events) => events.boxed(),
                    None => futures::stream::empty().boxed(),
                };
                // Between two subscriptions anything may have happened.
                let missed = futures::stream::iter((!first).then_some(Change::Unknown));
                Some((missed.chain(events), false))
            }
        });
        rounds.flatten().boxed()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_year_one_is_no_time() {
        assert_eq!(millis("0001-01-01T00:00:00Z"), None);
        assert_eq!(millis("1970-01-01T00:00:01.25Z"), Some(1250));
        assert_eq!(millis("yesterday"), None);
    }
}
