//! From a release back to a spec: what runs can be changed by whoever has no file of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use stele_model::event::Contacts;
use stele_model::release::{
    Check, Container, EnvValue, Health, LogDriver, Order, Placement, Restart, Service, Volume, VolumeSource,
};
use stele_model::{AppEnv, Release, SecretName, ServiceName, State, Value};

use super::container::{
    ExecCheck, HealthSpec, HttpCheck, LogSpec, OrderSpec, PortSpec, ResourcesSpec, RestartSpec, StopSpec,
    TcpCheck, UpdateSpec, VolumeSpec,
};
use super::draft::ValuePlace;
use super::environment::{EnvironmentSpec, Environments};
use super::errors::{SpecError, SpecErrors};
use super::source::Node;
use super::units::{Bytes, Cpu, Duration, Mode};
use super::value::{EnvSpec, FileContent, FileSpec};
use super::{AppSpec, ServiceSpec, decode};

/// A spec that comes to a release, and what it cannot hold of it.
#[derive(Clone, Debug)]
pub struct WrittenBack {
    /// Applied where the release is in force, it is that release again. It names that one environment, and every
    /// image by its digest.
    pub spec: AppSpec,
    /// Sealed values. The spec says that they stay as they are, which nobody can apply elsewhere.
    pub kept: Vec<ValuePlace>,
    /// Secrets the release refers to. Their values are no part of a spec.
    pub secrets: Vec<SecretName>,
    /// Why the spec, as it stands, is not that release. Nothing, unless a limit was tightened since it was made.
    pub deviations: Vec<SpecError>,
}

/// Writes a release back as a spec for one environment.
pub fn write_back(app_env: &AppEnv, contacts: &Contacts, release: &Release) -> WrittenBack {
    let mut deviations = Vec::new();
    let mut kept = Vec::new();
    let services = release.services.iter().map(|(name, service)| {
        let container = &service.container;
        kept.extend(container.env.keys().map(|key| ValuePlace::Env(name.clone(), key.clone())));
        kept.extend(container.files.keys().map(|path| ValuePlace::File(name.clone(), path.clone())));
        (name.clone(), service_spec(name, service, &mut deviations))
    });
    let spec = AppSpec {
        app: app_env.app.clone(),
        owner: contacts.owner.clone(),
        on_call: contacts.on_call.clone(),
        runbook: contacts.runbook.clone(),
        services: services.collect(),
        environments: Environments(BTreeMap::from([(
            app_env.environment.clone(),
            EnvironmentSpec::default(),
        )])),
    };
    kept.retain(|place| place.sealed_in(release).is_some());
    deviations.extend(deviations_of(&spec, app_env, release));
    WrittenBack { spec, kept, secrets: State::secrets_of(release).into_iter().collect(), deviations }
}

/// Goes the way forward again, as an apply will.
fn deviations_of(spec: &AppSpec, app_env: &AppEnv, release: &Release) -> Vec<SpecError> {
    let again = || {
        let draft = spec.draft(&app_env.environment)?;
        let kept = draft.kept(Some(release))?;
        let images = release.services.iter();
        let images = images.map(|(name, service)| (name.clone(), service.container.image.clone()));
        draft.into_release(&images.collect(), &kept)
    };
    match again() {
        Ok(again) if again.digest() == release.digest() => Vec::new(),
        Ok(again) => {
            let services = release.services.iter();
            let differing = services.filter(|(name, service)| again.services.get(*name) != Some(service));
            let paths = differing.map(|(name, service)| {
                // Docker's options are somebody's JSON: a number with more digits than are read exactly is the one
                // thing known to come back as another.
                let docker = |it: &Service| it.container.docker.clone();
                let is_docker = again.services.get(name).map(docker) != Some(docker(service));
                format!("services.{name}{}", if is_docker { ".docker" } else { "" })
            });
            paths
                .map(|path| SpecError::new(path, "it comes to something else than what is in force", None))
                .collect()
        }
        Err(errors) => errors.errors,
    }
}

fn service_spec(name: &ServiceName, service: &Service, deviations: &mut Vec<SpecError>) -> ServiceSpec {
    let Service { container, placement, update } = service;
    // Every field is named, so that a new one is written back or does not compile.
    let Container {
        image,
        entrypoint,
        command,
        env,
        files,
        ports,
        volumes,
        health,
        resources,
        restart,
        stop,
        labels,
        log,
        user,
        workdir,
        docker,
    } = container;
    let docker = docker.as_ref().and_then(|text| {
        let read = serde_json::from_str(text);
        read.map_err(|error| {
            let message = format!("the options in force are no JSON object and are left out: {error}");
            deviations.push(SpecError::new(format!("services.{name}.docker"), message, None));
        })
        .ok()
    });
    let (replicas, every_node) = match placement {
        Placement::Replicas { count, .. } => (Some(*count), false),
        Placement::Every { .. } => (None, true),
    };
    let files = files.iter().map(|(path, file)| {
        let content = FileContent::Inline(env_spec(&file.content));
        (path.clone(), FileSpec { content, mode: Mode(file.mode) })
    });
    let ports = ports.iter().map(|port| PortSpec {
        container: port.container,
        host: port.host,
        protocol: port.protocol,
    });
    ServiceSpec {
        image: image.to_string(),
        entrypoint: entrypoint.clone(),
        command: command.clone(),
        env: env.iter().map(|(key, value)| (key.clone(), env_spec(value))).collect(),
        files: files.collect(),
        ports: ports.collect(),
        volumes: volumes.iter().map(volume_spec).collect(),
        health: health.as_ref().map(health_spec),
        resources: ResourcesSpec {
            cpu: resources.cpu_millis.map(Cpu),
            memory: resources.memory_bytes.map(Bytes),
            pids: resources.pids,
        },
        replicas,
        every_node,
        nodes: placement.nodes().clone(),
        update: UpdateSpec {
            max_unavailable: update.max_unavailable,
            order: match update.order {
                Order::StartFirst => OrderSpec::StartFirst,
                Order::StopFirst => OrderSpec::StopFirst,
            },
            deadline: Duration(update.deadline_ms),
        },
        restart: match restart {
            Restart::Always => RestartSpec::Always,
            Restart::OnFailure => RestartSpec::OnFailure,
            Restart::Never => RestartSpec::Never,
        },
        stop: StopSpec { signal: stop.signal.clone(), grace: Duration(u64::from(stop.grace_seconds) * 1000) },
        labels: labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        log: log.as_ref().map(log_spec),
        user: user.clone(),
        workdir: workdir.clone(),
        docker,
    }
}

fn env_spec(value: &EnvValue) -> EnvSpec {
    match value {
        EnvValue::Value(Value::Plain(text)) => EnvSpec::Plain(text.clone()),
        EnvValue::Value(Value::Sealed(_)) => EnvSpec::Kept,
        EnvValue::Secret(name) => EnvSpec::Secret(name.clone()),
    }
}

fn volume_spec(volume: &Volume) -> VolumeSpec {
    let (name, host, memory) = match &volume.source {
        VolumeSource::Named(name) => (Some(name.clone()), None, false),
        VolumeSource::Host(host) => (None, Some(host.clone()), false),
        VolumeSource::Memory => (None, None, true),
    };
    VolumeSpec { name, host, memory, path: volume.path.clone(), read_only: volume.read_only }
}

fn health_spec(health: &Health) -> HealthSpec {
    let (mut http, mut tcp, mut exec) = (None, None, None);
    match &health.check {
        Check::Http { port, path } => http = Some(HttpCheck { port: *port, path: path.clone() }),
        Check::Tcp { port } => tcp = Some(TcpCheck { port: *port }),
        Check::Exec { command } => exec = Some(ExecCheck { command: command.clone() }),
    }
    HealthSpec {
        http,
        tcp,
        exec,
        interval: Duration(health.interval_ms),
        timeout: Duration(health.timeout_ms),
        retries: health.retries,
        start_period: Duration(health.start_period_ms),
    }
}

fn log_spec(log: &LogDriver) -> LogSpec {
    let options = log.options.iter().map(|(key, value)| (key.clone(), value.clone()));
    LogSpec { driver: log.driver.clone(), options: options.collect() }
}

impl AppSpec {
    /// The spec as YAML that is read back as this spec: whatever a writer makes of somebody's text is checked here.
    ///
    /// # Errors
    /// When nothing that was tried is read back so, with what is wrong with it: such as that it is larger than a
    /// spec may be, which one with the content of all its files can become.
    pub fn to_yaml(&self) -> Result<String, SpecErrors> {
        let fail = |message: String| SpecErrors::one(None, SpecError::new(String::new(), message, None));
        // An image by its digest is longer than what is folded otherwise, and is what people change.
        let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
        let yaml = serde_saphyr::to_string_with_options(self, options);
        if let Ok(yaml) = yaml
            && self.is_read_back(&yaml) == Ok(true)
        {
            return Ok(yaml);
        }
        // JSON is YAML in which every text is quoted.
        let json = self.to_json().map_err(|error| fail(error.to_string()))?;
        if self.is_read_back(&json)? {
            Ok(json)
        } else {
            Err(fail("it is read back as another spec".to_owned()))
        }
    }

    /// The spec as JSON that is YAML too: characters that YAML takes only when they are written out are.
    ///
    /// # Errors
    /// Never, for a spec that was read from anything.
    pub fn to_json(&self) -> serde_json::Result<String> {
        let json = serde_json::to_string_pretty(self)?;
        let mut written = String::with_capacity(json.len() + 1);
        for character in json.chars() {
            // None of them stands anywhere but inside a text.
            if matches!(
                character,
                '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
            ) {
                // Writing to a string does not fail.
                let _ = write!(written, "\\u{:04x}", u32::from(character));
            } else {
                written.push(character);
            }
        }
        written.push('\n');
        Ok(written)
    }

    fn is_read_back(&self, text: &str) -> Result<bool, SpecErrors> {
        let node = Node::from_yaml(text, "spec")?;
        let spec: Self = decode::decode(&node).map_err(|error| SpecErrors::one(Some("spec"), error))?;
        Ok(spec == *self)
    }
}

#[cfg(test)]
#[path = "write_back_tests.rs"]
mod tests;
