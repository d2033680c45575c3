//! Rules a spec must keep beyond its form: limits, ranges, and parts that must fit together.

use std::collections::{BTreeMap, BTreeSet};

use stele_model::limits::{
    ENV_COUNT_MAX, ENV_VALUE_BYTES_MAX, FILE_BYTES_MAX, FILES_COUNT_MAX, KEY_BYTES_MAX, LABELS_COUNT_MAX,
    PORTS_COUNT_MAX, REPLICAS_MAX, SERVICES_COUNT_MAX, VOLUMES_COUNT_MAX,
};
use stele_model::release::Protocol;

use super::container::{HealthSpec, VolumeSpec};
use super::source::push_member;
use super::value::{EnvSpec, FileContent, FileSpec};
use super::{AppSpec, ServiceSpec, SpecError, nearest};
use crate::limits::{ENVIRONMENTS_COUNT_MAX, HEALTH_RETRIES_MAX, MEMORY_BYTES_MIN, STOP_GRACE_SECONDS_MAX};

/// Collects what is wrong under a path.
struct Checker {
    errors: Vec<SpecError>,
}

impl Checker {
    fn fail(&mut self, path: &str, message: impl Into<String>) {
        self.errors.push(SpecError::new(path.to_owned(), message, None));
    }

    fn require(&mut self, holds: bool, path: &str, message: impl FnOnce() -> String) {
        if !holds {
            self.fail(path, message());
        }
    }

    fn at_most(&mut self, count: usize, most: usize, limit: &str, path: &str) {
        self.require(count <= most, path, || format!("there are {count}; {limit} is {most}"));
    }
}

fn member(path: &str, name: &str) -> String {
    let mut path = path.to_owned();
    push_member(&mut path, name);
    path
}

impl AppSpec {
    /// Everything that is wrong with a spec that could be read.
    pub(super) fn check(&self) -> Vec<SpecError> {
        let mut checker = Checker { errors: Vec::new() };
        checker.require(!self.services.is_empty(), "services", || {
            "an app needs at least one service".to_owned()
        });
        checker.at_most(self.services.len(), SERVICES_COUNT_MAX, "SERVICES_COUNT_MAX", "services");
        let environments = &self.environments.0;
        checker.require(!environments.is_empty(), "environments", || {
            "an app needs at least one environment, such as [prod]".to_owned()
        });
        checker.at_most(environments.len(), ENVIRONMENTS_COUNT_MAX, "ENVIRONMENTS_COUNT_MAX", "environments");
        for (name, service) in &self.services {
            checker.service(&member("services", name.as_str()), service);
        }
        checker.host_ports(&self.services);
        for (environment, spec) in environments {
            let path = member("environments", environment.as_str());
            for name in spec.services.keys().filter(|name| !self.services.contains_key(*name)) {
                let known = self.services.keys().map(stele_model::ServiceName::as_str);
                let hint = nearest(name.as_str(), known)
                    .map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
                let path = member(&member(&path, "services"), name.as_str());
                checker.fail(&path, format!("the app has no service {name}{hint}"));
            }
            self.check_differences(environment, &path, &mut checker);
        }
        checker.errors
    }

    /// Errors that only show in one environment are told there, not at the service's own place.
    fn check_differences(
        &self,
        environment: &stele_model::EnvironmentName,
        path: &str,
        checker: &mut Checker,
    ) {
        let spec = &self.environments.0[environment];
        if spec.env.is_empty() && spec.services.is_empty() {
            return;
        }
        let mut here = Checker { errors: Vec::new() };
        let services = self.services_in(environment);
        for (name, service) in &services {
            here.service(&member("services", name.as_str()), service);
        }
        here.host_ports(&services);
        for error in here.errors {
            let known = |other: &SpecError| other.path == error.path && other.message == error.message;
            if !checker.errors.iter().any(known) {
                let path = match error.path.split_once(".env[").or_else(|| error.path.split_once(".env.")) {
                    // A variable of the whole environment is written once, not in each service.
                    Some((_, key)) if spec.env.contains_key(key) => format!("{path}.env.{key}"),
                    _ => format!("{path}.{}", error.path),
                };
                if !checker.errors.iter().any(|other| other.path == path) {
                    checker.errors.push(SpecError::new(path, error.message, None));
                }
            }
        }
    }
}

impl Checker {
    fn service(&mut self, path: &str, service: &ServiceSpec) {
        let at = |name: &str| member(path, name);
        if let Err(message) = check_image(&service.image) {
            self.fail(&at("image"), message);
        }
        self.env(&at("env"), &service.env);
        self.files(&at("files"), &service.files);
        self.ports(&at("ports"), service);
        self.at_most(service.volumes.len(), VOLUMES_COUNT_MAX, "VOLUMES_COUNT_MAX", &at("volumes"));
        let mut mounted = BTreeSet::new();
        for (index, volume) in service.volumes.iter().enumerate() {
            let path = format!("{}[{index}]", at("volumes"));
            self.volume(&path, volume);
            self.require(mounted.insert(&volume.path), &path, || format!("{} is mounted twice", volume.path));
        }
        if let Some(health) = &service.health {
            self.health(&at("health"), health);
        }
        self.resources(&at("resources"), service);
        self.require(!(service.every_node && service.replicas.is_some()), &at("replicas"), || {
            "write either `replicas` or `every_node: true`, not both".to_owned()
        });
        let replicas = service.replicas.unwrap_or(1);
        self.require(replicas <= REPLICAS_MAX, &at("replicas"), || {
            format!("{replicas} is more than REPLICAS_MAX, {REPLICAS_MAX}")
        });
        self.require(service.update.max_unavailable >= 1, &member(&at("update"), "max_unavailable"), || {
            "at least 1: with 0 nothing could ever be replaced".to_owned()
        });
        self.require(service.update.deadline.0 >= 1000, &member(&at("update"), "deadline"), || {
            "at least 1s".to_owned()
        });
        let signal = &service.stop.signal;
        let is_signal = signal.strip_prefix("SIG").is_some_and(|name| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"+-".contains(&byte))
        });
        self.require(is_signal, &member(&at("stop"), "signal"), || {
            format!("{signal:?} is not a signal: write its name, such as SIGTERM")
        });
        let grace = service.stop.grace;
        self.require(
            grace.0.is_multiple_of(1000) && grace.0 / 1000 <= u64::from(STOP_GRACE_SECONDS_MAX),
            &member(&at("stop"), "grace"),
            || format!("{grace}: whole seconds, at most STOP_GRACE_SECONDS_MAX, {STOP_GRACE_SECONDS_MAX}"),
        );
        self.at_most(service.labels.len(), LABELS_COUNT_MAX, "LABELS_COUNT_MAX", &at("labels"));
        for key in service.labels.keys() {
            self.require((1..=KEY_BYTES_MAX).contains(&key.len()), &member(&at("labels"), key), || {
                format!("a label's key has 1 to KEY_BYTES_MAX, {KEY_BYTES_MAX}, bytes")
            });
            self.require(!key.starts_with("stele."), &member(&at("labels"), key), || {
                "labels that begin with stele. belong to the agent".to_owned()
            });
        }
        if let Some(workdir) = &service.workdir {
            self.absolute(&at("workdir"), workdir);
        }
    }

    fn env(&mut self, path: &str, env: &BTreeMap<String, EnvSpec>) {
        self.at_most(env.len(), ENV_COUNT_MAX, "ENV_COUNT_MAX", path);
        for (key, value) in env {
            let path = member(path, key);
            let is_name = (1..=KEY_BYTES_MAX).contains(&key.len()) && !key.contains(['=', '\0']);
            self.require(is_name, &path, || {
                format!(
                    "{key:?} is not a variable's name: 1 to KEY_BYTES_MAX, {KEY_BYTES_MAX}, bytes without ="
                )
            });
            if let EnvSpec::Plain(text) | EnvSpec::ToSeal(text) = value {
                self.at_most(text.len(), ENV_VALUE_BYTES_MAX, "bytes; ENV_VALUE_BYTES_MAX", &path);
                self.require(!text.contains('\0'), &path, || "a value cannot contain a zero byte".to_owned());
            }
        }
    }

    fn files(&mut self, path: &str, files: &BTreeMap<String, FileSpec>) {
        self.at_most(files.len(), FILES_COUNT_MAX, "FILES_COUNT_MAX", path);
        for (name, file) in files {
            let path = member(path, name);
            self.absolute(&path, name);
            self.require(!name.ends_with('/'), &path, || "this names a folder, not a file".to_owned());
            if let FileContent::Inline(EnvSpec::Plain(text) | EnvSpec::ToSeal(text)) = &file.content {
                self.require(text.len() <= FILE_BYTES_MAX, &path, || {
                    format!("it has {} bytes; FILE_BYTES_MAX is {FILE_BYTES_MAX}", text.len())
                });
            }
        }
    }

    fn ports(&mut self, path: &str, service: &ServiceSpec) {
        self.at_most(service.ports.len(), PORTS_COUNT_MAX, "PORTS_COUNT_MAX", path);
        let mut seen = BTreeSet::new();
        for (index, port) in service.ports.iter().enumerate() {
            let path = format!("{path}[{index}]");
            self.require(seen.insert((port.container, port.host, port.protocol)), &path, || {
                "this port is written twice".to_owned()
            });
        }
    }

    /// Two services of one app may meet on one node.
    fn host_ports(&mut self, services: &BTreeMap<stele_model::ServiceName, ServiceSpec>) {
        let mut taken: BTreeMap<(u16, Protocol), &str> = BTreeMap::new();
        for (name, service) in services {
            for (index, port) in service.ports.iter().enumerate() {
                let Some(host) = port.host else { continue };
                let path = format!("{}[{index}]", member(&member("services", name.as_str()), "ports"));
                match taken.get(&(host, port.protocol)) {
                    Some(owner) => {
                        self.fail(
                            &path,
                            format!("host port {host} is also published by the service {owner}"),
                        );
                    }
                    None => {
                        taken.insert((host, port.protocol), name.as_str());
                    }
                }
            }
        }
    }

    fn volume(&mut self, path: &str, volume: &VolumeSpec) {
        let sources = usize::from(volume.name.is_some())
            + usize::from(volume.host.is_some())
            + usize::from(volume.memory);
        self.require(sources == 1, path, || {
            "write exactly one of `name`, `host` and `memory: true`".to_owned()
        });
        self.absolute(&member(path, "path"), &volume.path);
        if let Some(host) = &volume.host {
            self.absolute(&member(path, "host"), host);
        }
        if let Some(name) = &volume.name {
            // The same form as every other name, so that the node can build a volume's name from it.
            self.require(name.parse::<stele_model::ServiceName>().is_ok(), &member(path, "name"), || {
                format!("{name:?} is not a valid volume name: use lowercase letters, digits and hyphens")
            });
        }
    }

    fn health(&mut self, path: &str, health: &HealthSpec) {
        let at = |name: &str| member(path, name);
        let checks = usize::from(health.http.is_some())
            + usize::from(health.tcp.is_some())
            + usize::from(health.exec.is_some());
        self.require(checks == 1, path, || "write exactly one of `http`, `tcp` and `exec`".to_owned());
        if let Some(http) = &health.http {
            self.require(http.path.starts_with('/'), &member(&at("http"), "path"), || {
                "the path begins with /".to_owned()
            });
            self.require(http.port > 0, &member(&at("http"), "port"), || {
                "ports are from 1 to 65535".to_owned()
            });
        }
        if let Some(tcp) = &health.tcp {
            self.require(tcp.port > 0, &member(&at("tcp"), "port"), || {
                "ports are from 1 to 65535".to_owned()
            });
        }
        if let Some(exec) = &health.exec {
            self.require(!exec.command.is_empty(), &member(&at("exec"), "command"), || {
                "a command has at least its program".to_owned()
            });
        }
        self.require(health.interval.0 >= 100, &at("interval"), || "at least 100ms".to_owned());
        self.require(health.timeout.0 >= 10, &at("timeout"), || "at least 10ms".to_owned());
        self.require((1..=HEALTH_RETRIES_MAX).contains(&health.retries), &at("retries"), || {
            format!("from 1 to HEALTH_RETRIES_MAX, {HEALTH_RETRIES_MAX}")
        });
    }

    fn resources(&mut self, path: &str, service: &ServiceSpec) {
        let resources = &service.resources;
        if let Some(memory) = resources.memory {
            self.require(memory.0 >= MEMORY_BYTES_MIN, &member(path, "memory"), || {
                format!(
                    "{memory} is too little to start in: MEMORY_BYTES_MIN is {}",
                    super::Bytes(MEMORY_BYTES_MIN)
                )
            });
        }
        self.require(resources.pids != Some(0), &member(path, "pids"), || "at least 1".to_owned());
    }

    fn absolute(&mut self, path: &str, written: &str) {
        let has_parent = written.split('/').any(|part| part == "..");
        self.require(written.starts_with('/') && !has_parent && !written.contains('\0'), path, || {
            format!("{written:?} is not an absolute path without `..`")
        });
    }
}

/// The form of an image reference; whether it exists is the registry's to say.
fn check_image(image: &str) -> Result<(), String> {
    let error = || {
        Err(format!(
            "{image:?} is not an image: write REGISTRY/REPOSITORY:TAG or REGISTRY/REPOSITORY@sha256:DIGEST"
        ))
    };
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    if digest.is_some_and(|digest| digest.parse::<stele_model::Digest>().is_err()) {
        return error();
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:[]".contains(&byte);
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'[');
    if name.bytes().all(allowed) && edge(name.as_bytes().first()) && edge(name.as_bytes().last()) {
        Ok(())
    } else {
        error()
    }
}
