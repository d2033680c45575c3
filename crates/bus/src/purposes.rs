//! Which [`Purpose`] each message is signed for, so that both ends agree.
//!
//! A purpose may serve two kinds of message where different keys sign them: nodes'
//! keys are never certified by the root, and controllers' keys always are.

use stele_model::signature::Purpose;

/// [`stele_model::wire::Assignment`], by a controller.
pub const ASSIGNMENT: Purpose = Purpose::Assignment;
/// [`stele_model::wire::Report`], by a node.
pub const REPORT: Purpose = Purpose::Report;
/// [`stele_model::wire::ReportAck`], by a controller.
pub const REPORT_ACK: Purpose = Purpose::Report;
/// [`stele_model::wire::Heartbeat`], by a node.
pub const HEARTBEAT: Purpose = Purpose::Heartbeat;
/// [`stele_model::wire::SyncRequest`], by a node.
pub const SYNC: Purpose = Purpose::NodeRequest;
/// [`stele_model::wire::RemovedControllers`], by a controller.
pub const REMOVED: Purpose = Purpose::Removed;
/// [`crate::ask::Request`], by a controller.
pub const QUESTION: Purpose = Purpose::NodeRequest;
/// [`crate::ask::Answer`], by a node.
pub const ANSWER: Purpose = Purpose::Report;
/// [`crate::join::JoinRequest`], by the key the node asks to be known by.
pub const JOIN_REQUEST: Purpose = Purpose::NodeRequest;
/// [`crate::join::JoinAnswer`], by a controller.
pub const JOIN_ANSWER: Purpose = Purpose::Join;
