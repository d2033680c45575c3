//! The parts of a service's container with their defaults.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use stele_model::release::Protocol;

use super::text_or_map;
use super::units::{Bytes, Cpu, Duration};

/// A port the container listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortSpec {
    /// Inside the container.
    pub container: u16,
    /// On the node; not published when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<u16>,
    /// Transport; TCP unless said otherwise.
    pub protocol: Protocol,
}

/// The long written form of [`PortSpec`].
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LongPort {
    /// Inside the container.
    container: u16,
    /// On the node; not published when absent.
    host: Option<u16>,
    /// Transport.
    #[serde(default = "tcp")]
    protocol: Protocol,
}

const fn tcp() -> Protocol {
    Protocol::Tcp
}

fn port_from_text(text: &str) -> Result<PortSpec, String> {
    let error = || {
        format!(
            "{text:?} is not a port: write CONTAINER or HOST:CONTAINER, such as \"18080:8080\", and /udp for UDP"
        )
    };
    let (ports, protocol) = match text.split_once('/') {
        None | Some((_, "tcp")) => (text.split('/').next().unwrap_or(text), Protocol::Tcp),
        Some((ports, "udp")) => (ports, Protocol::Udp),
        Some(_) => return Err(error()),
    };
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(error);
    let (host, container) = match ports.split_once(':') {
        Some((host, container)) => (Some(number(host)?), number(container)?),
        None => (None, number(ports)?),
    };
    Ok(PortSpec { container, host, protocol })
}

impl<'de> Deserialize<'de> for PortSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_map::either(
            deserializer,
            "a port such as 8080, \"18080:8080\" or {container: 8080, host: 18080}",
            port_from_text,
            |LongPort { container, host, protocol }| {
                if container == 0 || host == Some(0) {
                    return Err("ports are from 1 to 65535".to_owned());
                }
                Ok(Self { container, host, protocol })
            },
        )
    }
}

impl JsonSchema for PortSpec {
    fn schema_name() -> Cow<'static, str> {
        "PortSpec".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let long = generator.subschema_for::<LongPort>();
        json_schema!({
            "description": "A port: 8080, \"18080:8080\" (host:container), \"53/udp\", or a map.",
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": 65535},
                {"type": "string", "pattern": "^([0-9]+:)?[0-9]+(/(tcp|udp))?$"},
                long
            ]
        })
    }
}

/// Storage mounted into the container: exactly one of `name`, `host` and `memory`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeSpec {
    /// A volume kept on the node under this name. Its data outlives instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A folder of the host, where the host's own configuration allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Memory, gone with the container.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub memory: bool,
    /// Absolute path inside the container.
    pub path: String,
    /// Whether the container may not write to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

/// How an instance is known to be healthy: exactly one of `http`, `tcp` and `exec`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthSpec {
    /// A GET that must answer 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// A connection that must open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    /// A command that must exit with 0 inside the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecCheck>,
    /// Between checks; 5s unless said otherwise.
    #[serde(default = "five_seconds")]
    pub interval: Duration,
    /// After which a check has failed; 2s unless said otherwise.
    #[serde(default = "two_seconds")]
    pub timeout: Duration,
    /// Failures in a row that make it unhealthy; 3 unless said otherwise.
    #[serde(default = "three")]
    pub retries: u32,
    /// After start, failures do not count for this long; 5s unless said otherwise.
    #[serde(default = "five_seconds")]
    pub start_period: Duration,
}

const fn five_seconds() -> Duration {
    Duration(5000)
}
const fn two_seconds() -> Duration {
    Duration(2000)
}
const fn three() -> u32 {
    3
}

/// An HTTP health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpCheck {
    /// Port inside the container.
    pub port: u16,
    /// Absolute path; `/` unless said otherwise.
    #[serde(default = "root")]
    pub path: String,
}

fn root() -> String {
    "/".to_owned()
}

/// A TCP health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpCheck {
    /// Port inside the container.
    pub port: u16,
}

/// A health check by a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecCheck {
    /// Program and arguments.
    pub command: Vec<String>,
}

/// Bounds on what a container may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResourcesSpec {
    /// CPUs, such as `0.5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Memory, such as `64MiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
}

impl ResourcesSpec {
    pub(super) fn is_unbounded(&self) -> bool {
        *self == Self::default()
    }
}

/// How running instances are replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateSpec {
    /// Most instances being replaced at once; 1 unless said otherwise.
    pub max_unavailable: u32,
    /// Which comes first; `start_first` unless said otherwise. Two that need one host port
    /// or one writable volume are always replaced stop first.
    pub order: OrderSpec,
    /// After which a new instance that is not healthy has failed; 2m unless said otherwise.
    pub deadline: Duration,
}

impl Default for UpdateSpec {
    fn default() -> Self {
        Self { max_unavailable: 1, order: OrderSpec::StartFirst, deadline: Duration(120_000) }
    }
}

/// Whether the new instance starts before the old one stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderSpec {
    /// Start the new one, wait until it is healthy, stop the old one.
    StartFirst,
    /// Stop the old one, then start the new one.
    StopFirst,
}

/// What the agent does when a container exits by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RestartSpec {
    /// Start it again, always.
    #[default]
    Always,
    /// Start it again unless it exited with 0.
    OnFailure,
    /// Leave it.
    Never,
}

/// How a container is asked to stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StopSpec {
    /// Signal sent first; `SIGTERM` unless said otherwise.
    pub signal: String,
    /// Until it is killed, in whole seconds; 10s unless said otherwise.
    pub grace: Duration,
}

impl Default for StopSpec {
    fn default() -> Self {
        Self { signal: "SIGTERM".to_owned(), grace: Duration(10_000) }
    }
}

/// A Docker log driver with its options.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogSpec {
    /// Such as `json-file`.
    pub driver: String,
    /// The driver's own options.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}
