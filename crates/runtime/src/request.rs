//! The request that creates an instance's container, and the part of a container's
//! configuration that can be changed by hand later.

use std::collections::{BTreeMap, BTreeSet};

use bollard::models::{ContainerCreateBody, ContainerInspectResponse};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};
use stele_model::release::{EnvValue, Protocol, Restart, VolumeSource};
use stele_model::wire::AssignedInstance;
use stele_reconcile::{CreateContext, merge};

use crate::host::{Host, LABEL_CONFIG};
use crate::runtime::RuntimeError;

/// The keys of `HostConfig` that `docker update` changes.
const LIMITS: [&str; 12] = [
    "BlkioWeight",
    "CpuPeriod",
    "CpuQuota",
    "CpuRealtimePeriod",
    "CpuRealtimeRuntime",
    "CpuShares",
    "CpusetCpus",
    "CpusetMems",
    "Memory",
    "MemoryReservation",
    "NanoCpus",
    "PidsLimit",
];

/// Digits of the short id of a container, which the engine gives it as an alias on each of its networks.
const SHORT_ID_DIGITS: usize = 12;

/// Everything needed to create an instance's container.
#[derive(Clone, Debug)]
pub(crate) struct CreateRequest {
    /// The container's name.
    pub(crate) name: String,
    /// The image, by digest.
    pub(crate) image: String,
    /// Its app's volumes it needs, by the engine's name.
    pub(crate) volumes: BTreeSet<String>,
    /// The host's folders it mounts, and whether read-only.
    pub(crate) host_folders: Vec<(String, bool)>,
    /// What is sent.
    pub(crate) body: ContainerCreateBody,
}

/// The engine's name of a restart policy. It restarts containers itself, so that they
/// survive an agent that is away; `unless-stopped` rather than `always`, so that one stopped
/// to be removed stays stopped even if the host reboots in between.
const fn restart_name(restart: Restart) -> &'static str {
    match restart {
        Restart::Always => "unless-stopped",
        Restart::OnFailure => "on-failure",
        Restart::Never => "no",
    }
}

/// The text of a value that must have been opened before it came here.
pub(crate) fn plain<'a>(value: &'a EnvValue, what: &str) -> Result<&'a str, RuntimeError> {
    match value {
        EnvValue::Value(value) => value
            .plain()
            .ok_or_else(|| RuntimeError::Spec(format!("{what} is still sealed; its key is missing"))),
        EnvValue::Secret(name) => Err(RuntimeError::Spec(format!("{what} still refers to secret {name}"))),
    }
}

/// The body of the request that would be sent. For tests of what arbitrary bytes in `docker` do.
pub fn checked_body(host: &Host, instance: &AssignedInstance) -> Result<Value, RuntimeError> {
    let request = create_request(host, instance)?;
    serde_json::to_value(&request.body).map_err(|error| RuntimeError::Spec(error.to_string()))
}

/// Makes the request and checks it against the host's policy.
pub(crate) fn create_request(
    host: &Host,
    instance: &AssignedInstance,
) -> Result<CreateRequest, RuntimeError> {
    let container = &instance.spec.container;
    let image = container.image.to_string();
    let network = host.network_name(&instance.spec.app_env);
    let mut volumes = BTreeSet::new();
    let own_labels = host.instance_labels(instance);
    let mut body = base_body(host, instance, &network, &mut volumes)?;
    if let Some(text) = &container.docker {
        pass_through(&mut body, text, &network)?;
    }
    let context = CreateContext {
        image: &image,
        network: &network,
        volumes: &volumes,
        publish_address: &host.publish_address,
        labels: &own_labels,
        restart: restart_name(container.restart),
    };
    host.policy.check(&body, &context)?;

    let malformed =
        |error| RuntimeError::Spec(format!("`docker` makes the create request malformed: {error}"));
    let mut typed = ContainerCreateBody::deserialize(&body).map_err(malformed)?;
    if container.docker.is_some() {
        // What would be dropped on the way would be missed silently.
        let sent = serde_json::to_value(&typed).map_err(|error| RuntimeError::Spec(error.to_string()))?;
        if let Some(path) = lost("", &body, &sent) {
            return Err(RuntimeError::Spec(format!(
                "`docker` sets {path}, which a create request does not have"
            )));
        }
    }
    let expected = mutable_of_request(&typed)?.to_string();
    typed.labels.get_or_insert_default().insert(LABEL_CONFIG.to_owned(), expected);
    let host_folders = host_folders(&body);
    Ok(CreateRequest { name: host.container_name(&instance.id), image, volumes, host_folders, body: typed })
}

fn base_body(
    host: &Host,
    instance: &AssignedInstance,
    network: &str,
    volumes: &mut BTreeSet<String>,
) -> Result<Value, RuntimeError> {
    let container = &instance.spec.container;
    let mut env = Vec::with_capacity(container.env.len());
    for (name, value) in &container.env {
        env.push(format!("{name}={}", plain(value, &format!("the environment variable {name}"))?));
    }
    let mut labels = container.labels.clone();
    labels.extend(host.instance_labels(instance));

    let mut host_config = Map::new();
    let mut exposed = Map::new();
    let mut bindings: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for port in &container.ports {
        let protocol = match port.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let key = format!("{}/{protocol}", port.container);
        exposed.insert(key.clone(), json!({}));
        if let Some(published) = port.host {
            let binding = json!({"HostIp": host.publish_address, "HostPort": published.to_string()});
            bindings.entry(key).or_default().push(binding);
        }
    }
    if !bindings.is_empty() {
        host_config.insert("PortBindings".to_owned(), json!(bindings));
    }
    let mounts: Vec<_> = container
        .volumes
        .iter()
        .map(|volume| {
            let mut mount = match &volume.source {
                VolumeSource::Named(name) => {
                    let name = host.volume_name(&instance.spec.app_env, name);
                    volumes.insert(name.clone());
                    json!({"Type": "volume", "Source": name, "Target": volume.path})
                }
                VolumeSource::Host(path) => json!({"Type": "bind", "Source": path, "Target": volume.path}),
                VolumeSource::Memory => json!({"Type": "tmpfs", "Target": volume.path}),
            };
            if volume.read_only {
                mount["ReadOnly"] = Value::from(true);
            }
            mount
        })
        .collect();
    if !mounts.is_empty() {
        host_config.insert("Mounts".to_owned(), json!(mounts));
    }
    let resources = &container.resources;
    if let Some(millis) = resources.cpu_millis {
        host_config.insert("NanoCpus".to_owned(), json!(millis.saturating_mul(1_000_000)));
    }
    if let Some(bytes) = resources.memory_bytes {
        host_config.insert("Memory".to_owned(), json!(bytes));
    }
    if let Some(pids) = resources.pids {
        host_config.insert("PidsLimit".to_owned(), json!(pids));
    }
    if let Some(log) = &container.log {
        host_config.insert("LogConfig".to_owned(), json!({"Type": log.driver, "Config": log.options}));
    }
    host_config.insert("RestartPolicy".to_owned(), json!({"Name": restart_name(container.restart)}));
    host_config.insert("NetworkMode".to_owned(), json!(network));

    let mut body = json!({
        "Image": container.image.to_string(),
        "Env": env,
        "Labels": labels,
        "StopSignal": container.stop.signal,
        "StopTimeout": container.stop.grace_seconds,
        "HostConfig": host_config,
        "NetworkingConfig": {"EndpointsConfig": {network: {"Aliases": [instance.spec.service]}}},
    });
    if !exposed.is_empty() {
        body["ExposedPorts"] = Value::Object(exposed);
    }
    if let Some(entrypoint) = &container.entrypoint {
        body["Entrypoint"] = json!(entrypoint);
    }
    if !container.command.is_empty() {
        body["Cmd"] = json!(container.command);
    }
    if let Some(user) = &container.user {
        body["User"] = json!(user);
    }
    if let Some(workdir) = &container.workdir {
        body["WorkingDir"] = json!(workdir);
    }
    Ok(body)
}

fn pass_through(body: &mut Value, text: &str, network: &str) -> Result<(), RuntimeError> {
    let patch: Value = serde_json::from_str(text)
        .map_err(|error| RuntimeError::Spec(format!("`docker` is not a JSON object: {error}")))?;
    if !patch.is_object() {
        return Err(RuntimeError::Spec("`docker` is not a JSON object".to_owned()));
    }
    merge(body, &patch);
    // On another network than its app's, an endpoint in its app's would contradict.
    let elsewhere = body.pointer("/HostConfig/NetworkMode").and_then(Value::as_str) != Some(network);
    if elsewhere
        && let Some(endpoints) =
            body.pointer_mut("/NetworkingConfig/EndpointsConfig").and_then(Value::as_object_mut)
    {
        endpoints.remove(network);
    }
    Ok(())
}

fn host_folders(body: &Value) -> Vec<(String, bool)> {
    let text =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let list = |key: &str| body.pointer(key).and_then(Value::as_array).into_iter().flatten();
    let mounts = list("/HostConfig/Mounts").filter(|mount| text(mount, "Type") == "bind").map(|mount| {
        (text(mount, "Source"), mount.get("ReadOnly").and_then(Value::as_bool).unwrap_or(false))
    });
    let binds = list("/HostConfig/Binds").filter_map(Value::as_str).filter(|bind| bind.starts_with('/')).map(
        |bind| {
            let options = bind.splitn(3, ':').nth(2).unwrap_or_default();
            let source = bind.split(':').next().unwrap_or_default();
            (source.to_owned(), options.split(',').any(|option| option == "ro"))
        },
    );
    mounts.chain(binds).collect()
}

/// The first member of `given` that is not in `kept`.
fn lost(path: &str, given: &Value, kept: &Value) -> Option<String> {
    match (given, kept) {
        (Value::Object(given), _) => {
            given.iter().filter(|(_, member)| !member.is_null()).find_map(|(key, member)| {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match kept.get(key) {
                    Some(kept) => lost(&path, member, kept),
                    None => Some(path),
                }
            })
        }
        (Value::Array(given), Value::Array(kept)) if given.len() == kept.len() => given
            .iter()
            .zip(kept)
            .enumerate()
            .find_map(|(at, (given, kept))| lost(&format!("{path}[{at}]"), given, kept)),
        (given, kept) => (given != kept).then(|| path.to_owned()),
    }
}

/// What can be changed by hand after creation, as the request asks for it.
pub(crate) fn mutable_of_request(body: &ContainerCreateBody) -> Result<Value, RuntimeError> {
    let config = serde_json::to_value(body.host_config.clone().unwrap_or_default())
        .map_err(|error| RuntimeError::Spec(error.to_string()))?;
    let mut networks: BTreeMap<String, BTreeSet<String>> = body
        .networking_config
        .iter()
        .filter_map(|networking| networking.endpoints_config.as_ref())
        .flatten()
        .map(|(name, endpoint)| (name.clone(), endpoint.aliases.iter().flatten().cloned().collect()))
        .collect();
    if let Some(mode) = config.get("NetworkMode").and_then(Value::as_str) {
        networks.entry(mode.to_owned()).or_default();
    }
    Ok(mutable(&config, &networks))
}

/// What can be changed by hand after creation, as inspection finds it.
pub(crate) fn mutable_of_inspection(inspected: &ContainerInspectResponse) -> Value {
    let config = serde_json::to_value(inspected.host_config.clone().unwrap_or_default()).unwrap_or_default();
    let id = inspected.id.as_deref().unwrap_or_default();
    let networks = inspected
        .network_settings
        .iter()
        .filter_map(|settings| settings.networks.as_ref())
        .flatten()
        .map(|(name, endpoint)| {
            // A service may be called `db` or `cafe`, and the id of its container begin just so: only an alias as
            // long as the short id is the engine's own.
            let is_short_id = |alias: &str| alias.len() == SHORT_ID_DIGITS && id.starts_with(alias);
            let aliases = endpoint.aliases.iter().flatten().filter(|alias| !is_short_id(alias));
            (name.clone(), aliases.cloned().collect())
        })
        .collect();
    mutable(&config, &networks)
}

fn mutable(host_config: &Value, networks: &BTreeMap<String, BTreeSet<String>>) -> Value {
    let mut all = Map::new();
    for key in LIMITS {
        // Absent, zero, empty and (for processes) -1 all mean unbounded.
        let value = host_config.get(key).filter(|value| match value {
            Value::Number(number) => number.as_i64().is_none_or(|number| number > 0),
            Value::String(text) => !text.is_empty(),
            _ => false,
        });
        all.extend(value.map(|value| (key.to_owned(), value.clone())));
    }
    let restart = host_config.get("RestartPolicy");
    let name = restart.and_then(|policy| policy.get("Name")).and_then(Value::as_str).unwrap_or_default();
    let name = if name.is_empty() { "no" } else { name };
    all.insert("RestartPolicy".to_owned(), Value::from(name));
    all.insert("Networks".to_owned(), json!(networks));
    Value::Object(all)
}

/// How a container differs from what it was made as, for people.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Drift {
    /// What somebody changed.
    pub(crate) by_hand: Option<String>,
    /// What the engine left out when it made the container, because the host cannot do it.
    pub(crate) left_out: Option<String>,
}

/// How a container differs from what it was made as, on a host on which some keys have no effect.
pub(crate) fn drift(made: &str, now: &Value, lacking: &BTreeSet<&str>) -> Drift {
    let Ok(made) = serde_json::from_str::<Value>(made) else {
        return Drift { by_hand: Some(format!("its label {LABEL_CONFIG} is unreadable")), left_out: None };
    };
    let mut taken = made.clone();
    if let Some(taken) = taken.as_object_mut() {
        taken.retain(|key, _| now.get(key).is_some() || !lacking.contains(key.as_str()));
    }
    Drift { by_hand: drift_of(&taken, now), left_out: drift_of(&made, &taken) }
}

/// How what can be changed by hand differs from what it was made as or should be, for people.
pub(crate) fn drift_of(made: &Value, now: &Value) -> Option<String> {
    if made == now {
        return None;
    }
    let keys: BTreeSet<_> =
        [made, now].into_iter().filter_map(Value::as_object).flat_map(Map::keys).collect();
    let show = |value: Option<&Value>| value.map_or_else(|| "unset".to_owned(), Value::to_string);
    let differences = keys
        .into_iter()
        .filter(|key| made.get(key) != now.get(key))
        .map(|key| format!("{key} is {}, was {}", show(now.get(key)), show(made.get(key))))
        .collect::<Vec<_>>();
    Some(differences.join("; "))
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
