//! The spec: what people write in YAML to say what an app should be.
//!
//! [`parse_yaml`] reads it, [`AppSpec::draft`] checks it for one environment and
//! yields a [`Draft`], which becomes a [`stele_model::Release`] once images are
//! resolved and values to be sealed are sealed.

mod check;
mod container;
mod decode;
mod draft;
mod environment;
mod errors;
mod json;
mod source;
mod starter;
mod text_or_map;
mod units;
mod value;
mod write_back;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stele_model::{AppId, EnvironmentName, Selector, ServiceName};

pub use container::{
    ExecCheck, HealthSpec, HttpCheck, LogSpec, OrderSpec, PortSpec, ResourcesSpec, RestartSpec, StopSpec,
    TcpCheck, UpdateSpec, VolumeSpec,
};
pub use draft::{Draft, ValuePlace};
pub use environment::{EnvironmentSpec, Environments, ServiceOverride};
pub use errors::{SpecError, SpecErrors, nearest};
pub use source::Position;
pub use starter::starter;
pub use units::{Bytes, Cpu, Duration, Mode};
pub use value::{EnvSpec, FileContent, FileSpec};
pub use write_back::{WrittenBack, write_back};

use source::Node;

/// An app: its services, where it may run, and who answers for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AppSpec {
    /// The app with its project, such as `shop/web`.
    pub app: AppId,
    /// The owning team.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Whom to call when it is broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_call: Option<String>,
    /// What to read first when it is broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runbook: Option<String>,
    /// Where it may be deployed: a list of names, or a map from names to what differs there.
    pub environments: Environments,
    /// Its services by name. On a node they share a network and reach each other by these names.
    pub services: BTreeMap<ServiceName, ServiceSpec>,
}

/// One service: a container, how many of it, where, and how it is replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// The image, such as `registry.example.com/shop/web:1.2`. A tag is resolved to a digest once, when deployed.
    pub image: String,
    /// Replaces the image's entrypoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Environment variables: a text, `{secret: NAME}`, `{value: TEXT, sealed: true}`, or `{sealed: true}` to keep
    /// the sealed value in force there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, EnvSpec>,
    /// Files put into the container, read-only, by absolute path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, FileSpec>,
    /// Ports it listens on: `"8080"`, `"18080:8080"` (host:container), `"53/udp"`, or a map.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortSpec>,
    /// Volumes, host folders and memory mounted into it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeSpec>,
    /// How it is known to be healthy. Without it, running is healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthSpec>,
    /// Bounds on what it may use. Absent ones are unbounded.
    #[serde(default, skip_serializing_if = "ResourcesSpec::is_unbounded")]
    pub resources: ResourcesSpec,
    /// How many instances run, spread over regions and nodes. One unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// Run one instance on every matching node, instead of `replicas`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub every_node: bool,
    /// Which nodes it may run on, such as `region in (eu, us), disk=ssd`. All unless said otherwise.
    #[serde(default, skip_serializing_if = "Selector::is_any")]
    pub nodes: Selector,
    /// How running instances are replaced.
    #[serde(default)]
    pub update: UpdateSpec,
    /// What happens when it exits by itself. `always` unless said otherwise.
    #[serde(default)]
    pub restart: RestartSpec,
    /// How it is asked to stop.
    #[serde(default)]
    pub stop: StopSpec,
    /// Labels put on the container.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Docker's log driver. The host's default unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogSpec>,
    /// `user[:group]` it runs as. The image's unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Its working directory. The image's unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// Exit door: merged over the request that creates the container in Docker's engine,
    /// within what each host allows, such as `{HostConfig: {CapAdd: [NET_ADMIN]}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker: Option<serde_json::Map<String, serde_json::Value>>,
}

/// A spec read from a file, with the places of everything in it.
#[derive(Clone, Debug)]
pub struct SpecFile {
    /// What was written.
    pub spec: AppSpec,
    /// The file's name, for errors.
    pub file: String,
    positions: BTreeMap<String, Position>,
}

impl SpecFile {
    /// Gives errors that only have a path (such as a server's) their place in this file.
    pub fn locate(&self, errors: SpecErrors) -> SpecErrors {
        errors.located(&self.file, &self.positions)
    }

    /// Puts the content of files given by `source` into the spec. `read` is given each path as written.
    pub fn load_sources(
        &mut self,
        read: impl Fn(&str) -> std::io::Result<Vec<u8>>,
    ) -> Result<(), SpecErrors> {
        let errors = self.spec.load_sources(read);
        if errors.is_empty() { Ok(()) } else { Err(self.locate(SpecErrors { file: None, errors })) }
    }

    /// [`AppSpec::draft`], with places in errors.
    pub fn draft(&self, environment: &EnvironmentName) -> Result<Draft, SpecErrors> {
        self.spec.draft(environment).map_err(|errors| self.locate(errors))
    }
}

/// Reads a spec and checks it for every environment it names.
///
/// # Errors
/// Everything that is wrong with it, with file, line and column; for an unknown
/// name, the nearest known one. A file that cannot be read as a spec at all has one error.
pub fn parse_yaml(text: &str, file_name: &str) -> Result<SpecFile, SpecErrors> {
    let node = Node::from_yaml(text, file_name)?;
    let positions = node.positions();
    source::check_depth(&node).map_err(|errors| errors.located(file_name, &positions))?;
    let spec = decode::decode(&node).map_err(|error| SpecErrors::one(Some(file_name), error))?;
    let file = SpecFile { spec, file: file_name.to_owned(), positions };
    let errors = file.spec.check();
    if errors.is_empty() { Ok(file) } else { Err(file.locate(SpecErrors { file: None, errors })) }
}

/// Reads a JSON body of any request, with the path of what is wrong and the nearest known name.
pub fn parse_json<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, SpecErrors> {
    let node: Node = serde_json::from_slice(body).map_err(|error| {
        let position = Position { line: error.line() as u64, column: error.column() as u64 };
        let message = if error.is_data() {
            // The place is told beside it.
            let place = format!(" at line {} column {}", error.line(), error.column());
            error.to_string().replace(&place, "")
        } else {
            format!("this is not JSON: {error}")
        };
        SpecErrors::one(None, SpecError::new(String::new(), message, Some(position)))
    })?;
    source::check_depth(&node)?;
    decode::decode(&node).map_err(|error| SpecErrors::one(None, error))
}

/// The JSON Schema (2020-12) of a spec.
pub fn json_schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(AppSpec).to_value();
    if let Some(object) = schema.as_object_mut() {
        object.insert("title".to_owned(), "Stele app spec".into());
    }
    schema
}

#[cfg(test)]
mod tests;
