//! Changes: apply, deploy, remove, configure.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stele_model::{AppEnv, Difference, EnvironmentName, Links, SecretName, Seq, ServiceName};

use crate::spec::AppSpec;

/// Makes an app in an environment what a spec says.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// The spec, with the content of `source` files put in.
    pub spec: AppSpec,
    /// Which of the spec's environments; may be left out when it names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentName>,
    /// Only answer what would change.
    #[serde(default)]
    pub plan: bool,
    /// Images to use instead of the spec's, by service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<ServiceName, String>,
    /// Deploy even when nothing differs.
    #[serde(default)]
    pub again: bool,
    /// What a rollback past this deployment would not bring back, such as "migrates orders".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub barrier: Option<String>,
    /// Why, for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where else it is written about.
    #[serde(default)]
    pub links: Links,
}

/// Deploys a release of an app that exists.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// Which app and environment.
    pub app_env: AppEnv,
    /// A new image for the app's only service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// New images by service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<ServiceName, String>,
    /// An existing release by number (`v12` is 12), instead of images. Without either: with `again` the one in force
    /// in this environment, and else the app's newest, whichever environment it was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<u32>,
    /// Deploy even when nothing differs; without a release and images, what is in force.
    #[serde(default)]
    pub again: bool,
    /// What a rollback past this deployment would not bring back, such as "migrates orders".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub barrier: Option<String>,
    /// Only answer what would change.
    #[serde(default)]
    pub plan: bool,
    /// Why, for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where else it is written about.
    #[serde(default)]
    pub links: Links,
}

/// Removes an app from an environment.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveRequest {
    /// Only answer what would change.
    #[serde(default)]
    pub plan: bool,
    /// Why, for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where else it is written about.
    #[serde(default)]
    pub links: Links,
}

/// What a change came to, or would come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChangeAnswer {
    /// True when nothing was done because only a plan was asked for.
    pub planned: bool,
    /// The last record of the change; absent when nothing had to change.
    pub seq: Option<Seq>,
    /// The release it is about: `v12` is 12. In a plan, the number it would get.
    pub release: Option<u32>,
    /// Deployments it began, by id.
    pub deployments: Vec<Seq>,
    /// What differs in the target; only in plans.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
}

/// Lifts an app's latch.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnlatchRequest {
    /// Which.
    pub app_env: AppEnv,
    /// Why, for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where else it is written about.
    #[serde(default)]
    pub links: Links,
}

/// Changes variables of an app's config bundle.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigRequest {
    /// Which app and environment.
    pub app_env: AppEnv,
    /// New values; `null` removes a variable.
    pub variables: BTreeMap<String, Option<ConfigValue>>,
    /// Only answer what would change.
    #[serde(default)]
    pub plan: bool,
    /// Why, for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where else it is written about.
    #[serde(default)]
    pub links: Links,
}

/// A variable's value.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigValue {
    /// The value.
    pub value: String,
    /// Seal it before it is logged.
    #[serde(default)]
    pub sealed: bool,
}

impl std::fmt::Debug for ConfigValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.sealed { f.write_str("<to be sealed>") } else { write!(f, "{:?}", self.value) }
    }
}

/// Sets a secret's next version.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretRequest {
    /// Which app and environment.
    pub app_env: AppEnv,
    /// Which secret.
    pub name: SecretName,
    /// Its value; sealed before anything is decided or logged.
    pub value: String,
    /// Why, for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where else it is written about.
    #[serde(default)]
    pub links: Links,
}

impl std::fmt::Debug for SecretRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretRequest {{ {} {}, value: <secret> }}", self.app_env, self.name)
    }
}
