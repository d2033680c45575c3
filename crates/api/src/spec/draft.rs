//! From a spec to a release: resolved images and sealed values are put in from outside.

use std::collections::BTreeMap;

use stele_model::event::Contacts;
use stele_model::release::{
    Check, Container, EnvValue, File, Health, Image, LogDriver, Order, Placement, Port, Resources, Restart,
    Service, Stop, Update, Volume, VolumeSource,
};
use stele_model::{AppEnv, EnvironmentName, Release, Sealed, ServiceName, Value, canonical_json};

use super::container::{HealthSpec, OrderSpec, RestartSpec};
use super::source::push_member;
use super::value::{EnvSpec, FileContent};
use super::{AppSpec, ServiceSpec, SpecError, SpecErrors};

/// A spec checked for one environment: a release but for images to resolve and values to seal.
#[derive(Clone, Debug)]
pub struct Draft {
    /// What it is for.
    pub app_env: AppEnv,
    /// Who answers for the app.
    pub contacts: Contacts,
    services: BTreeMap<ServiceName, ServiceSpec>,
}

/// A value that is sealed, or to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ValuePlace {
    /// An environment variable of a service.
    Env(ServiceName, String),
    /// A file of a service, by its path.
    File(ServiceName, String),
}

impl ValuePlace {
    /// Where it stands in a spec, such as `services.web.env.KEY`.
    pub fn path(&self) -> String {
        let (service, kind, name) = match self {
            Self::Env(service, key) => (service, "env", key),
            Self::File(service, path) => (service, "files", path),
        };
        let mut path = "services".to_owned();
        for member in [service.as_str(), kind, name] {
            push_member(&mut path, member);
        }
        path
    }

    /// The sealed value a release has there.
    pub fn sealed_in<'a>(&self, release: &'a Release) -> Option<&'a Sealed> {
        let value = match self {
            Self::Env(service, key) => release.services.get(service)?.container.env.get(key)?,
            Self::File(service, path) => &release.services.get(service)?.container.files.get(path)?.content,
        };
        match value {
            EnvValue::Value(value) => value.sealed(),
            EnvValue::Secret(_) => None,
        }
    }
}

impl AppSpec {
    /// Who answers for the app.
    pub fn contacts(&self) -> Contacts {
        Contacts { owner: self.owner.clone(), on_call: self.on_call.clone(), runbook: self.runbook.clone() }
    }

    /// The environment meant: the one asked for, or the only one there is.
    pub fn environment(&self, asked: Option<&EnvironmentName>) -> Result<EnvironmentName, SpecErrors> {
        let known = || self.environments.0.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let fail = |message| Err(SpecErrors::one(None, SpecError::new("environments".into(), message, None)));
        match (asked, self.environments.0.len()) {
            (Some(name), _) if self.environments.0.contains_key(name) => Ok(name.clone()),
            (Some(name), _) => {
                fail(format!("the spec does not name the environment {name}; it names: {}", known()))
            }
            (None, _) if let [only] = self.environments.0.keys().collect::<Vec<_>>()[..] => Ok(only.clone()),
            (None, _) => fail(format!("say which environment is meant: the spec names {}", known())),
        }
    }

    /// Checks the spec and prepares it for one environment.
    pub fn draft(&self, environment: &EnvironmentName) -> Result<Draft, SpecErrors> {
        let mut errors = self.check();
        errors.extend(self.unloaded_sources());
        if !errors.is_empty() {
            return Err(SpecErrors { file: None, errors });
        }
        Ok(Draft {
            app_env: AppEnv::new(self.app.clone(), self.environment(Some(environment))?),
            contacts: self.contacts(),
            services: self.services_in(environment),
        })
    }

    /// Reads files given by `source`; answers what could not be read.
    pub(super) fn load_sources(&mut self, read: impl Fn(&str) -> std::io::Result<Vec<u8>>) -> Vec<SpecError> {
        let mut errors = Vec::new();
        self.for_each_file(|path, content| {
            if let FileContent::Source(source, sealed) = content {
                let text = read(source).map_err(|error| format!("cannot read {source}: {error}")).and_then(
                    |bytes| {
                        String::from_utf8(bytes)
                            .map_err(|_| format!("{source} is not UTF-8 text; mount it as a volume instead"))
                    },
                );
                match text {
                    Ok(text) if *sealed => *content = FileContent::Inline(EnvSpec::ToSeal(text)),
                    Ok(text) => *content = FileContent::Inline(EnvSpec::Plain(text)),
                    Err(message) => errors.push(SpecError::new(path, message, None)),
                }
            }
        });
        errors
    }

    fn unloaded_sources(&self) -> Vec<SpecError> {
        let mut errors = Vec::new();
        self.clone().for_each_file(|path, content| {
            if let FileContent::Source(source, _) = content {
                let message = format!(
                    "{source} was not read: a client puts the content of `source` files into the spec"
                );
                errors.push(SpecError::new(path, message, None));
            }
        });
        errors
    }

    fn for_each_file(&mut self, mut visit: impl FnMut(String, &mut FileContent)) {
        let of_services = self.services.iter_mut().map(|(name, service)| {
            let mut path = "services".to_owned();
            push_member(&mut path, name.as_str());
            (path, &mut service.files)
        });
        let of_environments = self.environments.0.iter_mut().flat_map(|(environment, spec)| {
            spec.services.iter_mut().map(move |(name, service)| {
                let mut path = "environments".to_owned();
                for member in [environment.as_str(), "services", name.as_str()] {
                    push_member(&mut path, member);
                }
                (path, &mut service.files)
            })
        });
        for (mut path, files) in of_services.chain(of_environments) {
            path.push_str(".files");
            for (name, file) in files {
                let mut path = path.clone();
                push_member(&mut path, name);
                visit(path, &mut file.content);
            }
        }
    }
}

impl Draft {
    /// The image each service asks for, as written.
    pub fn images(&self) -> BTreeMap<ServiceName, String> {
        self.services.iter().map(|(name, service)| (name.clone(), service.image.clone())).collect()
    }

    /// Uses another image for a service; for every service when none is named and there is only one.
    pub fn set_image(&mut self, service: Option<&ServiceName>, image: String) -> Result<(), String> {
        let known = self.services.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let name = match service {
            Some(name) => name.clone(),
            None if self.services.len() > 1 => {
                return Err(format!("say which service the image is for: {known}"));
            }
            None => self.services.keys().next().cloned().ok_or("the app has no service")?,
        };
        match self.services.get_mut(&name) {
            Some(service) => {
                service.image = image;
                Ok(())
            }
            None => Err(format!("there is no service {name}; there are: {known}")),
        }
    }

    /// Values that must be sealed before the release can be made.
    pub fn to_seal(&self) -> BTreeMap<ValuePlace, &str> {
        let to_seal = self.values().filter_map(|(place, value)| match value {
            EnvSpec::ToSeal(text) => Some((place, text.as_str())),
            _ => None,
        });
        to_seal.collect()
    }

    /// Whether it has values that only the release in force knows: see [`Self::kept`].
    pub fn keeps_values(&self) -> bool {
        self.values().any(|(_, value)| *value == EnvSpec::Kept)
    }

    /// Values that stay sealed as the release in force has them at the same places.
    ///
    /// # Errors
    /// Every place where it has none.
    pub fn kept(&self, in_force: Option<&Release>) -> Result<BTreeMap<ValuePlace, Sealed>, SpecErrors> {
        let mut kept = BTreeMap::new();
        let mut errors = Vec::new();
        for (place, value) in self.values() {
            if *value != EnvSpec::Kept {
                continue;
            }
            if let Some(sealed) = in_force.and_then(|release| place.sealed_in(release)) {
                kept.insert(place, sealed.clone());
            } else {
                let message = format!(
                    "no sealed value is in force here in {}, which could be kept: write one beside `sealed: true`",
                    self.app_env
                );
                errors.push(SpecError::new(place.path(), message, None));
            }
        }
        if errors.is_empty() { Ok(kept) } else { Err(SpecErrors { file: None, errors }) }
    }

    /// All values of variables and files but for those that are read from elsewhere.
    fn values(&self) -> impl Iterator<Item = (ValuePlace, &EnvSpec)> {
        self.services.iter().flat_map(|(name, service)| {
            let variables = service.env.iter();
            let of_variables =
                variables.map(|(key, value)| (ValuePlace::Env(name.clone(), key.clone()), value));
            let of_files = service.files.iter().filter_map(|(path, file)| match &file.content {
                FileContent::Inline(value) => Some((ValuePlace::File(name.clone(), path.clone()), value)),
                FileContent::Source(..) => None,
            });
            of_variables.chain(of_files)
        })
    }

    /// The release.
    ///
    /// # Errors
    /// When an image was not resolved or a value not sealed: nothing in clear is ever let through instead.
    pub fn into_release(
        self,
        images: &BTreeMap<ServiceName, Image>,
        sealed: &BTreeMap<ValuePlace, Sealed>,
    ) -> Result<Release, SpecErrors> {
        let mut services = Vec::new();
        for (name, spec) in self.services {
            let service = convert(&name, spec, images, sealed)
                .map_err(|(path, message)| SpecErrors::one(None, SpecError::new(path, message, None)))?;
            services.push((name, service));
        }
        Ok(Release { app: self.app_env.app.clone(), services: services.into_iter().collect() })
    }
}

fn convert(
    name: &ServiceName,
    spec: ServiceSpec,
    images: &BTreeMap<ServiceName, Image>,
    sealed: &BTreeMap<ValuePlace, Sealed>,
) -> Result<Service, (String, String)> {
    let fail = |member: &str, message: &str| (format!("services.{name}.{member}"), message.to_owned());
    let value = |spec: EnvSpec, place: ValuePlace| match spec {
        EnvSpec::Plain(text) => Ok(EnvValue::Value(Value::Plain(text))),
        EnvSpec::Secret(name) => Ok(EnvValue::Secret(name)),
        EnvSpec::ToSeal(_) | EnvSpec::Kept => match sealed.get(&place) {
            Some(sealed) => Ok(EnvValue::Value(Value::Sealed(sealed.clone()))),
            None => Err("the value was not sealed"),
        },
    };
    let mut env = Vec::new();
    for (key, spec) in spec.env {
        let place = ValuePlace::Env(name.clone(), key.clone());
        env.push((key, value(spec, place).map_err(|message| fail("env", message))?));
    }
    let mut files = Vec::new();
    for (path, file) in spec.files {
        let place = ValuePlace::File(name.clone(), path.clone());
        let content = match file.content {
            FileContent::Inline(spec) => value(spec, place).map_err(|message| fail("files", message))?,
            FileContent::Source(..) => return Err(fail("files", "the source was not read")),
        };
        files.push((path, File { content, mode: file.mode.0 }));
    }
    let image = images.get(name).cloned().ok_or_else(|| fail("image", "the image was not resolved"))?;
    let container = Container {
        image,
        entrypoint: spec.entrypoint,
        command: spec.command,
        env: env.into_iter().collect(),
        files: files.into_iter().collect(),
        ports: spec
            .ports
            .into_iter()
            .map(|port| Port { container: port.container, host: port.host, protocol: port.protocol })
            .collect(),
        volumes: spec
            .volumes
            .into_iter()
            .map(|volume| Volume {
                source: match (volume.name, volume.host) {
                    (Some(name), _) => VolumeSource::Named(name),
                    (None, Some(host)) => VolumeSource::Host(host),
                    (None, None) => VolumeSource::Memory,
                },
                path: volume.path,
                read_only: volume.read_only,
            })
            .collect(),
        health: spec.health.and_then(convert_health),
        resources: Resources {
            cpu_millis: spec.resources.cpu.map(|cpu| cpu.0),
            memory_bytes: spec.resources.memory.map(|memory| memory.0),
            pids: spec.resources.pids,
        },
        restart: match spec.restart {
            RestartSpec::Always => Restart::Always,
            RestartSpec::OnFailure => Restart::OnFailure,
            RestartSpec::Never => Restart::Never,
        },
        stop: Stop {
            signal: spec.stop.signal,
            grace_seconds: u32::try_from(spec.stop.grace.0 / 1000).unwrap_or(u32::MAX),
        },
        labels: spec.labels.into_iter().collect(),
        log: spec.log.map(|log| LogDriver { driver: log.driver, options: log.options.into_iter().collect() }),
        user: spec.user,
        workdir: spec.workdir,
        docker: spec.docker.map(|object| String::from_utf8_lossy(&canonical_json(&object)).into_owned()),
    };
    let placement = if spec.every_node {
        Placement::Every { nodes: spec.nodes }
    } else {
        Placement::Replicas { count: spec.replicas.unwrap_or(1), nodes: spec.nodes }
    };
    let update = Update {
        max_unavailable: spec.update.max_unavailable,
        order: match spec.update.order {
            OrderSpec::StartFirst => Order::StartFirst,
            OrderSpec::StopFirst => Order::StopFirst,
        },
        deadline_ms: spec.update.deadline.0,
    };
    Ok(Service { container, placement, update })
}

fn convert_health(health: HealthSpec) -> Option<Health> {
    let check = match (health.http, health.tcp, health.exec) {
        (Some(http), ..) => Check::Http { port: http.port, path: http.path },
        (None, Some(tcp), _) => Check::Tcp { port: tcp.port },
        (None, None, exec) => Check::Exec { command: exec?.command },
    };
    Some(Health {
        check,
        interval_ms: health.interval.0,
        timeout_ms: health.timeout.0,
        retries: health.retries,
        start_period_ms: health.start_period.0,
    })
}
