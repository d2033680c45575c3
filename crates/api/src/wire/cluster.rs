//! Controllers and nodes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stele_model::signature::{Certificate, PublicKey};
use stele_model::{ControllerId, FleetName, Links, NodeName, RegionName, Seq, Time};

use super::NodeStatus;

/// Whether a controller is alive. Answered without a quorum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HealthAnswer {
    /// The controller that answers.
    pub controller: ControllerId,
    /// The leader it knows of; without one, nothing can be changed.
    pub leader: Option<ControllerId>,
    /// The last record it has committed.
    pub seq: Seq,
    /// Its version.
    pub version: String,
}

/// The controllers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterAnswer {
    /// The fleet.
    pub fleet: Option<FleetName>,
    /// The root's public key.
    pub root: Option<PublicKey>,
    /// The incarnation.
    pub epoch: u64,
    /// Raft's term, as the answering controller knows it.
    pub term: u64,
    /// The leader it knows of.
    pub leader: Option<ControllerId>,
    /// The controller that answers.
    pub answered_by: ControllerId,
    /// The last record it has committed.
    pub seq: Seq,
    /// Ranges of records the answering controller lacks, both ends included. It fetches what others have of them.
    pub missing: Vec<(Seq, Seq)>,
    /// All controllers.
    pub controllers: Vec<ControllerStatus>,
}

/// What a controller does in Raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemberRole {
    /// Votes.
    Voter,
    /// Follows until it has caught up.
    Learner,
    /// Known, and no member.
    Outside,
}

/// One controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ControllerStatus {
    /// Its id, never used again once removed.
    pub id: ControllerId,
    /// What it does in Raft.
    pub role: MemberRole,
    /// Whether it leads.
    pub leader: bool,
    /// Where its API answers.
    pub api: Option<String>,
    /// Where its peers reach it.
    pub peer: Option<String>,
    /// When the certificate for its signatures ends.
    pub certified_until: Option<Time>,
    /// When the certificate for its connections ends, as far as the controller that answers has seen it.
    #[serde(default)]
    pub connections_until: Option<Time>,
    /// Whether the controller that answers is connected to it; absent for itself.
    pub connected: Option<bool>,
    /// Why it is not connected.
    pub error: Option<String>,
    /// Log entries it lacks; only the leader knows.
    pub lag: Option<u64>,
}

/// Adds a controller: as a learner, promoted when it has caught up.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddMemberRequest {
    /// Its id.
    pub controller: ControllerId,
    /// Who it is; may be left out when the log knows it already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certified: Option<Certified>,
    /// Why, for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where else it is written about.
    #[serde(default)]
    pub links: Links,
}

/// Who a controller is, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Certified {
    /// The root's word for its key.
    pub certificate: Certificate,
    /// Where its API answers.
    pub api: String,
    /// Where its peers reach it.
    pub peer: String,
}

/// Takes a controller out. All of it may be left out.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveMemberRequest {
    /// Why, for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where else it is written about.
    #[serde(default)]
    pub links: Links,
    /// Also when it may be the last that has records which the leader lacks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lose_records: bool,
}

/// Takes away what the path names: a token or a node. All of it may be left out.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WithdrawRequest {
    /// Why, for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where else it is written about.
    #[serde(default)]
    pub links: Links,
}

/// Hands leadership over.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LeaderRequest {
    /// To whom.
    pub controller: ControllerId,
}

/// Lets one node join.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeTokenRequest {
    /// The only name that may join with it; any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// The region the node will be in.
    pub region: RegionName,
    /// The labels it will have.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How long it can be used, in seconds; an hour unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life_seconds: Option<u64>,
    /// Why, for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where else it is written about.
    #[serde(default)]
    pub links: Links,
}

/// A new join token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeTokenAnswer {
    /// What to paste on the node, after `stele-agent join`. Works once.
    pub line: String,
    /// When it stops being believed.
    pub expires: Time,
}

impl std::fmt::Debug for NodeTokenAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeTokenAnswer { line: <secret> }")
    }
}

/// Nodes of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodesAnswer {
    /// By name.
    pub nodes: Vec<NodeStatus>,
}

/// Sets a node's labels.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelsRequest {
    /// All of its labels.
    pub labels: BTreeMap<String, String>,
    /// Why, for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where else it is written about.
    #[serde(default)]
    pub links: Links,
}
