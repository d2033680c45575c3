//! How the fleet is.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stele_model::event::{Contacts, DeploymentKind, Outcome};
use stele_model::wire::Phase;
use stele_model::{
    AppEnv, Digest, InstanceId, NodeName, Place, PrincipalId, RegionName, Scope, Seq, ServiceName, Time,
};

/// How a scope is, or was at a point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatusAnswer {
    /// The scope.
    pub scope: Scope,
    /// The record this is as of.
    pub seq: Seq,
    /// Its time.
    pub time: Time,
    /// Apps in the scope.
    pub apps: Vec<AppStatus>,
    /// Nodes in the scope.
    pub nodes: Vec<NodeStatus>,
    /// What is wrong, the newest first.
    pub problems: Vec<ProblemStatus>,
}

/// How an app in an environment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Every instance runs what it should and is healthy.
    Converged,
    /// A deployment is on its way.
    Deploying,
    /// The last deployment failed; what ran before still runs.
    Failed,
    /// No deployment is on its way, and not everything is healthy.
    Degraded,
}

/// An app in an environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AppStatus {
    /// Which.
    pub app_env: AppEnv,
    /// How it is.
    pub condition: Condition,
    /// The release that should run; absent once removed and still winding down.
    pub release: Option<u32>,
    /// Its content address.
    pub release_digest: Option<Digest>,
    /// The newest deployment.
    pub deployment: Option<Seq>,
    /// The seq that last changed its target: what `If-Match` compares.
    pub last_changed: Seq,
    /// Releases (by number) that are not deployed again until somebody unlatches the app.
    pub latched: Vec<u32>,
    /// Who answers for it.
    pub contacts: Contacts,
    /// Places that follow another release than the rest of it, because they alone were rolled back.
    pub pins: Vec<PinnedPlace>,
    /// Whether nothing changes wherever no place is pinned, because its last deployment did not succeed and only places
    /// were rolled back since: until somebody deploys again, or rolls back all of it.
    #[serde(default)]
    pub held: bool,
    /// Its services.
    pub services: Vec<ServiceStatus>,
    /// Its instances.
    pub instances: Vec<InstanceStatus>,
}

/// A place whose instances follow another release than the rest of their app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PinnedPlace {
    /// Which.
    pub place: Place,
    /// The release there; absent where the app should not be.
    pub release: Option<u32>,
    /// Its content address.
    pub release_digest: Option<Digest>,
}

/// A service of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceStatus {
    /// Its name.
    pub service: ServiceName,
    /// Its image.
    pub image: String,
    /// What the image was asked for as.
    pub image_asked: Option<String>,
    /// Instances that should be.
    pub wanted: u32,
    /// Instances that are healthy and up to date.
    pub healthy: u32,
}

/// An instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InstanceStatus {
    /// Which.
    pub id: InstanceId,
    /// Where it runs.
    pub node: NodeName,
    /// That node's region.
    pub region: Option<RegionName>,
    /// The release it is of.
    pub release: Option<u32>,
    /// Whether it is what the target says.
    pub current: bool,
    /// Its phase as last reported; absent before its node told.
    pub phase: Option<Phase>,
    /// Whether its node was heard of lately.
    pub reachable: bool,
    /// Times it was started again.
    pub restarts: u32,
    /// Why it is pending, unhealthy or failed.
    pub reason: Option<String>,
    /// Exit code of its last run, if it ended.
    pub exit_code: Option<i64>,
    /// Docker's id of its container.
    pub container: Option<String>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeStatus {
    /// Its name.
    pub name: NodeName,
    /// Its region.
    pub region: RegionName,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Where its published ports are reached, if it said so.
    pub address: Option<String>,
    /// Whether it was heard of lately.
    pub reachable: bool,
    /// Whether it works on its newest assignment.
    pub current: bool,
    /// Instances it was told to run.
    pub assigned: usize,
    /// Instances on it that are healthy.
    pub healthy: usize,
    /// When it last reported something new.
    pub reported: Option<Time>,
    /// The record since which it gets nothing new, and what runs on it goes elsewhere; absent where that is not so.
    #[serde(default)]
    pub drained: Option<Seq>,
    /// What is still on it though it is drained. Only told of one node, as it is now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub staying: Vec<StayingStatus>,
}

/// An instance that is still on a drained node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StayingStatus {
    /// Which.
    pub instance: InstanceId,
    /// What it waits for.
    pub why: String,
}

/// Something that is wrong, with all an expert needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProblemStatus {
    /// Where.
    pub scope: Scope,
    /// The instance, when it is one.
    pub instance: Option<InstanceId>,
    /// The node, when it is on one.
    pub node: Option<NodeName>,
    /// What is wrong.
    pub message: String,
    /// The record since which it is so, as far as known.
    pub since: Option<Seq>,
    /// Who answers for it.
    pub contacts: Contacts,
    /// Last log lines of what failed.
    pub log_tail: Vec<String>,
    /// A command to copy that gets further.
    pub next: Option<String>,
}

/// A deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeploymentStatus {
    /// Its id.
    pub id: Seq,
    /// Which app and environment.
    pub app_env: AppEnv,
    /// Why it came to be.
    pub kind: DeploymentKind,
    /// The release in force before.
    pub from: Option<u32>,
    /// The release it goes to; absent when the app is removed.
    pub to: Option<u32>,
    /// For the newest one, when it is about places alone: the app's pinned places.
    #[serde(default)]
    pub places: Vec<PinnedPlace>,
    /// Whether the rest of the app is held meanwhile.
    #[serde(default)]
    pub held: bool,
    /// Whether everything is replaced at once.
    pub now: bool,
    /// Who started it.
    pub principal: PrincipalId,
    /// When it started.
    pub started: Time,
    /// When and how it ended; absent while it is on its way.
    pub finished: Option<FinishedStatus>,
    /// Instances that should be; while the rest of the app is held, in pinned places.
    pub wanted: u32,
    /// Those of them that are healthy and up to date.
    pub healthy: u32,
    /// How many up-to-date instances are in which phase; one that was not reported yet is pending.
    pub phases: BTreeMap<Phase, u32>,
    /// Every instance of the app; none when they were not asked for.
    pub instances: Vec<InstanceStatus>,
}

/// How a deployment ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FinishedStatus {
    /// When.
    pub time: Time,
    /// The record that says so.
    pub seq: Seq,
    /// How.
    pub outcome: Outcome,
}
