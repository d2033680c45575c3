//! Reading a container's logs over the wire, while the node can be reached.

use serde::{Deserialize, Serialize};
use stele_model::ids::{FleetName, InstanceId, NodeName, Time};
use stele_model::signature::Certificate;

/// Asks a node for the last log lines of an instance. Signed by a controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsRequest {
    /// The fleet.
    pub fleet: FleetName,
    /// The only node it is meant for.
    pub node: NodeName,
    /// Whose logs.
    pub instance: InstanceId,
    /// How many lines, counted from the end.
    pub lines: u32,
    /// When it was asked; a node ignores old requests, which could be somebody's replay.
    pub asked: Time,
    /// Whose signature it carries, and the root's word for that key.
    pub controller: Certificate,
}

/// The lines, or why there are none. Signed by the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsAnswer {
    /// The node.
    pub node: NodeName,
    /// Whose logs.
    pub instance: InstanceId,
    /// The last lines, oldest first; fewer than asked for when they would be too many bytes.
    pub lines: Vec<String>,
    /// Why they could not be read.
    pub error: Option<String>,
}
