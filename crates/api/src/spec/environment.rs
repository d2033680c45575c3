//! Environments of a spec, and what differs in each.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use stele_model::{EnvironmentName, Selector, ServiceName};

use super::container::{PortSpec, ResourcesSpec};
use super::value::{EnvSpec, FileSpec};
use super::{AppSpec, ServiceSpec};

/// Environments by name, with what differs there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Environments(pub BTreeMap<EnvironmentName, EnvironmentSpec>);

/// What differs in one environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentSpec {
    /// Environment variables added to every service, over the services' own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, EnvSpec>,
    /// What differs in single services.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<ServiceName, ServiceOverride>,
}

/// What differs in one service in one environment. `env` and `files` are merged, anything else replaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceOverride {
    /// Another image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Another command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Variables added or replaced.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, EnvSpec>,
    /// Files added or replaced.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, FileSpec>,
    /// Other ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<PortSpec>>,
    /// Other bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesSpec>,
    /// Another number of instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// One instance on every matching node, or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_node: Option<bool>,
    /// Other nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Selector>,
}

impl ServiceOverride {
    fn apply(&self, service: &mut ServiceSpec) {
        fn replace<T: Clone>(value: &mut T, other: Option<&T>) {
            if let Some(other) = other {
                value.clone_from(other);
            }
        }
        replace(&mut service.image, self.image.as_ref());
        replace(&mut service.command, self.command.as_ref());
        replace(&mut service.ports, self.ports.as_ref());
        replace(&mut service.resources, self.resources.as_ref());
        replace(&mut service.nodes, self.nodes.as_ref());
        if let Some(every_node) = self.every_node {
            service.every_node = every_node;
            service.replicas = service.replicas.filter(|_| !every_node);
        }
        if self.replicas.is_some() {
            service.replicas = self.replicas;
            service.every_node = self.every_node.unwrap_or(false);
        }
        service.env.extend(self.env.clone());
        service.files.extend(self.files.clone());
    }
}

impl AppSpec {
    /// The services as they are in one environment, which may be one the spec does not name.
    pub(super) fn services_in(&self, environment: &EnvironmentName) -> BTreeMap<ServiceName, ServiceSpec> {
        let mut services = self.services.clone();
        if let Some(differences) = self.environments.0.get(environment) {
            for (name, service) in &mut services {
                service.env.extend(differences.env.clone());
                if let Some(difference) = differences.services.get(name) {
                    difference.apply(service);
                }
            }
        }
        services
    }
}

impl<'de> Deserialize<'de> for Environments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NamesOrMap;

        impl<'de> Visitor<'de> for NamesOrMap {
            type Value = Environments;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of environments, such as [prod], or a map from environments to what differs there")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Environments, A::Error> {
                let mut environments = BTreeMap::new();
                while let Some(name) = list.next_element::<EnvironmentName>()? {
                    if environments.insert(name.clone(), EnvironmentSpec::default()).is_some() {
                        return Err(A::Error::custom(format!("the environment {name} is named twice")));
                    }
                }
                Ok(Environments(environments))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Environments, A::Error> {
                let mut environments = BTreeMap::new();
                while let Some((name, spec)) = map.next_entry::<EnvironmentName, Option<EnvironmentSpec>>()? {
                    environments.insert(name, spec.unwrap_or_default());
                }
                Ok(Environments(environments))
            }
        }

        deserializer.deserialize_any(NamesOrMap)
    }
}

impl JsonSchema for Environments {
    fn schema_name() -> Cow<'static, str> {
        "Environments".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let name = generator.subschema_for::<EnvironmentName>();
        let spec = generator.subschema_for::<EnvironmentSpec>();
        json_schema!({
            "description": "Names of environments, or a map from names to what differs there.",
            "anyOf": [
                {"type": "array", "items": name, "minItems": 1, "uniqueItems": true},
                {"type": "object", "additionalProperties": {"anyOf": [spec, {"type": "null"}]}, "minProperties": 1}
            ]
        })
    }
}
