//! What is deployed: releases, and the container each instance becomes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::flat_map::FlatMap;
use crate::ids::{AppEnv, AppId, SecretName, ServiceName};
use crate::limits::REPOSITORY_BYTES_MAX;
use crate::selector::Selector;
use crate::value::Value;

/// An immutable version of an app. Its identity is [`Release::digest`]; people call it `v12`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Release {
    /// The app it is a version of.
    pub app: AppId,
    /// The app's services. On a node they share a network and reach each other by these names.
    pub services: FlatMap<ServiceName, Service>,
}

impl Release {
    /// The content address.
    pub fn digest(&self) -> Digest {
        Digest::of_json(self)
    }
}

/// One service: a container, how many of it, where, and how it is replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Service {
    /// The container.
    pub container: Container,
    /// How many and where.
    pub placement: Placement,
    /// How running instances are replaced.
    pub update: Update,
}

/// Everything that makes a container, apart from where it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Container {
    /// The image, by digest.
    pub image: Image,
    /// Replaces the image's entrypoint when present.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command when not empty.
    pub command: Vec<String>,
    /// Environment variables.
    pub env: FlatMap<String, EnvValue>,
    /// Files put into the container, by absolute path.
    pub files: FlatMap<String, File>,
    /// Ports it listens on.
    pub ports: Vec<Port>,
    /// Volumes and host folders mounted into it.
    pub volumes: Vec<Volume>,
    /// How it is known to be healthy. Without it, running is healthy.
    pub health: Option<Health>,
    /// Bounds on what it may use.
    pub resources: Resources,
    /// What the agent does when it exits by itself.
    pub restart: Restart,
    /// How it is asked to stop.
    pub stop: Stop,
    /// Labels put on the container.
    pub labels: FlatMap<String, String>,
    /// Docker log driver; the host's default when absent.
    pub log: Option<LogDriver>,
    /// `user[:group]`; the image's when absent.
    pub user: Option<String>,
    /// Working directory; the image's when absent.
    pub workdir: Option<String>,
    /// Exit door: a JSON object merged over the create request the agent sends to
    /// Docker's engine, within what the host allows. Kept as text so that the
    /// release's digest covers exactly what was written.
    pub docker: Option<String>,
}

/// An image by digest: what runs can never change under its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Image {
    /// Registry host and repository, such as `registry.example.com/shop/web`.
    pub repository: String,
    /// The manifest's digest.
    pub digest: Digest,
}

impl Service {
    /// Whether one that went to another node would be without what it wrote. What runs on every node comes back to it.
    pub fn leaves_data_behind(&self) -> bool {
        matches!(self.placement, Placement::Replicas { .. }) && self.container.writes_what_stays()
    }
}

impl Image {
    /// The same image in a mirror, such as `registry.example.com/mirror`: below it, its registry's
    /// host is a folder, so that two registries' repositories of one name stay apart.
    #[must_use]
    pub fn mirrored(&self, mirror: &str) -> Self {
        let (host, path) = match self.repository.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path),
            _ => ("docker.io", self.repository.as_str()),
        };
        // Docker's own names for images of Docker Hub leave this out.
        let path = if host == "docker.io" && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        let host = host.to_ascii_lowercase().replace(':', "_");
        let named = format!("{mirror}/{host}/{path}");
        let is_folder = |host: &str| {
            host.starts_with(|first: char| first.is_ascii_alphanumeric())
                && host.chars().all(|one| one.is_ascii_alphanumeric() || ".-_".contains(one))
        };
        let repository = if named.len() <= REPOSITORY_BYTES_MAX && is_folder(&host) {
            named
        } else {
            let hash = Digest::of(&[self.repository.as_bytes()]).to_string();
            format!("{mirror}/by-hash/{}", hash.trim_start_matches("sha256:"))
        };
        Self { repository, digest: self.digest }
    }
}

impl std::fmt::Display for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.repository, self.digest)
    }
}

/// The value of an environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EnvValue {
    /// Given in the spec.
    Value(Value),
    /// The secret of that name, in the version that was current when deployed.
    Secret(SecretName),
}

/// A file put into the container, read-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct File {
    /// Its content.
    pub content: EnvValue,
    /// Permission bits, such as `0o644`.
    pub mode: u32,
}

/// A port the container listens on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Port {
    /// Inside the container.
    pub container: u16,
    /// On the node; not published when absent.
    pub host: Option<u16>,
    /// Transport.
    pub protocol: Protocol,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Storage mounted into the container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Volume {
    /// What is mounted.
    pub source: VolumeSource,
    /// Absolute path inside the container.
    pub path: String,
    /// Whether the container may not write to it.
    pub read_only: bool,
}

/// What a volume is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VolumeSource {
    /// A volume kept on the node under this name, one per app and environment. Its data outlives instances.
    Named(String),
    /// A folder of the host; only where the host's own configuration allows it.
    Host(String),
    /// Memory, gone with the container.
    Memory,
}

/// How an instance is known to be healthy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// What is tried.
    pub check: Check,
    /// Between checks, in milliseconds.
    pub interval_ms: u64,
    /// After which a check has failed, in milliseconds.
    pub timeout_ms: u64,
    /// Failures in a row that make it unhealthy.
    pub retries: u32,
    /// After start, failures do not count for this long, in milliseconds.
    pub start_period_ms: u64,
}

/// One health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// `GET` must answer 200 to 399.
    Http {
        /// Port inside the container.
        port: u16,
        /// Absolute path.
        path: String,
    },
    /// A connection must open.
    Tcp {
        /// Port inside the container.
        port: u16,
    },
    /// The command must exit with 0 inside the container.
    Exec {
        /// Program and arguments.
        command: Vec<String>,
    },
}

/// Bounds on what a container may use; absent means unbounded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub cpu_millis: Option<u64>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

/// What the agent does when a container exits by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// Start it again, always.
    Always,
    /// Start it again unless it exited with 0.
    OnFailure,
    /// Leave it.
    Never,
}

/// How a container is asked to stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stop {
    /// Signal sent first, such as `SIGTERM`.
    pub signal: String,
    /// Until it is killed, in seconds.
    pub grace_seconds: u32,
}

/// A Docker log driver with its options.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogDriver {
    /// Such as `json-file`.
    pub driver: String,
    /// The driver's own options.
    pub options: FlatMap<String, String>,
}

/// How many instances of a service run, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// So many, spread over regions and then nodes.
    Replicas {
        /// How many.
        count: u32,
        /// Among these nodes.
        nodes: Selector,
    },
    /// One on every matching node.
    Every {
        /// These nodes.
        nodes: Selector,
    },
}

impl Placement {
    /// The nodes it may choose from.
    pub fn nodes(&self) -> &Selector {
        let (Self::Replicas { nodes, .. } | Self::Every { nodes }) = self;
        nodes
    }
}

/// How running instances are replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Update {
    /// Most slots being replaced at once; at least 1.
    pub max_unavailable: u32,
    /// Which comes first.
    pub order: Order,
    /// After which a new instance that is not healthy has failed, in milliseconds.
    pub deadline_ms: u64,
}

/// Whether the new instance starts before the old one stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Start first, unless both need one host port or writable named volume.
    StartFirst,
    /// Stop the old one first.
    StopFirst,
}

/// What an app is in an environment: everything that decides its containers.
///
/// Two equal revisions are the same containers; a rollback restores one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Revision {
    /// The release in force.
    pub release: Digest,
    /// The config bundle in force, if any.
    pub config: Option<Digest>,
    /// The version of each secret in force.
    pub secrets: FlatMap<SecretName, u32>,
}

/// The container an agent makes: a [`Container`] with config and secrets filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InstanceSpec {
    /// The app and environment, which name its network and volumes.
    pub app_env: AppEnv,
    /// The service, which is its name on that network.
    pub service: ServiceName,
    /// The container; `env` and `files` hold no reference to a secret any more.
    pub container: Container,
}

impl InstanceSpec {
    /// Tells whether two instances are the same container.
    pub fn digest(&self) -> Digest {
        Digest::of_json(self)
    }
}

impl Container {
    /// An image as it is: nothing set, nothing bounded, always restarted.
    pub fn new(image: Image) -> Self {
        Self {
            image,
            entrypoint: None,
            command: Vec::new(),
            env: FlatMap::new(),
            files: FlatMap::new(),
            ports: Vec::new(),
            volumes: Vec::new(),
            health: None,
            resources: Resources::default(),
            restart: Restart::Always,
            stop: Stop { signal: "SIGTERM".to_owned(), grace_seconds: 10 },
            labels: FlatMap::new(),
            log: None,
            user: None,
            workdir: None,
            docker: None,
        }
    }

    /// Whether two of it cannot run on one node at the same time.
    pub fn is_exclusive(&self) -> bool {
        self.ports.iter().any(|port| port.host.is_some()) || self.writes_what_stays()
    }

    /// Whether it writes to what others of its node may mount, too, and what outlives it.
    pub fn writes_what_stays(&self) -> bool {
        self.volumes.iter().any(|volume| {
            !volume.read_only && matches!(volume.source, VolumeSource::Named(_) | VolumeSource::Host(_))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_keeps_registries_apart_and_its_names_valid() {
        let mirrored = |repository: &str| {
            let image = Image { repository: repository.to_owned(), digest: Digest::EMPTY };
            image.mirrored("mirror.example.com/copies").repository
        };
        let in_mirror = |text: &str| format!("mirror.example.com/copies/{text}");
        assert_eq!(mirrored("registry.example.com/shop/web"), in_mirror("registry.example.com/shop/web"));
        assert_eq!(mirrored("127.0.0.1:5055/web"), in_mirror("127.0.0.1_5055/web"));
        assert_eq!(mirrored("nginx"), in_mirror("docker.io/library/nginx"));
        assert_eq!(mirrored("docker.io/library/nginx"), in_mirror("docker.io/library/nginx"));
        assert_eq!(mirrored("shop/web"), in_mirror("docker.io/shop/web"));
        for odd in ["[::1]:5000/web".to_owned(), format!("registry.example.com/{}", "a".repeat(250))] {
            let name = mirrored(&odd);
            assert!(name.starts_with(&in_mirror("by-hash/")) && name.len() < 120, "{name}");
        }
    }
}
