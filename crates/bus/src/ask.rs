//! Asking a node something over the wire, while it can be reached.

use serde::{Deserialize, Serialize};
use stele_model::ids::{FleetName, InstanceId, NodeName, Time};
use stele_model::release::Image;
use stele_model::signature::Certificate;
use stele_model::wire::{HostPort, TakenPort};

/// Asks a node. Signed by a controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The fleet.
    pub fleet: FleetName,
    /// The only node it is meant for.
    pub node: NodeName,
    /// What is asked.
    pub question: Question,
    /// When it was asked; a node ignores old requests, which could be somebody's replay.
    pub asked: Time,
    /// Whose signature it carries, and the root's word for that key.
    pub controller: Certificate,
}

/// What a node can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Question {
    /// The last log lines of an instance.
    Logs {
        /// Whose logs.
        instance: InstanceId,
        /// How many lines, counted from the end.
        lines: u32,
    },
    /// Which of these images the node has, so that it needs no registry for them.
    Images {
        /// At most [`crate::limits::ASKED_IMAGES_MAX`] of them.
        images: Vec<Image>,
    },
    /// Which of these ports of its host somebody else has.
    Ports {
        /// At most [`crate::limits::ASKED_PORTS_MAX`] of them.
        ports: Vec<HostPort>,
    },
}

/// What a node says. Signed by the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The node.
    pub node: NodeName,
    /// What it was asked, so that no answer can be passed off as one to another question.
    pub question: Question,
    /// When it was asked.
    pub asked: Time,
    /// What it says.
    pub outcome: Outcome,
}

/// The answer to a [`Question`] of the same kind, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// The last lines, oldest first; fewer than asked for when they would be too many bytes.
    Logs {
        /// Without their line ends.
        lines: Vec<String>,
    },
    /// Those of the images that are there.
    Images {
        /// In the question's order.
        here: Vec<Image>,
    },
    /// Those of the ports that are not free, though none of the node's own containers has them.
    Ports {
        /// In the question's order.
        taken: Vec<TakenPort>,
    },
    /// It could not be found out.
    Failed {
        /// Why.
        why: String,
    },
}
