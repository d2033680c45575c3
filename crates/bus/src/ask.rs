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
        /// None from before this, in milliseconds since 1970. An agent of an earlier version knows nothing of it:
        /// it answers the question without it, and says nothing of when its lines are from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since_ms: Option<u64>,
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

impl Question {
    /// Whether an answer to `other` is one to this: to the same, or to what an agent of an earlier version read of it.
    pub fn is_answered_as(&self, other: &Self) -> bool {
        let read_before = match self {
            Self::Logs { instance, lines, since_ms: Some(_) } => {
                Some(Self::Logs { instance: instance.clone(), lines: *lines, since_ms: None })
            }
            _ => None,
        };
        self == other || read_before.as_ref() == Some(other)
    }
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
        /// What else is known of each of the lines, in their order. Empty from an agent of an earlier version, and
        /// nothing that a controller of one looks at: they stand beside the lines, not in them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        stamps: Vec<Stamp>,
        /// Whether there are older ones that would be too many bytes.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_cut: bool,
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

/// What is known of a log line beside its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(Option<u64>, bool)", into = "(Option<u64>, bool)")]
pub struct Stamp {
    /// When it was printed, in milliseconds since 1970; absent if the engine does not say.
    pub time_ms: Option<u64>,
    /// Whether on standard error.
    pub stderr: bool,
}

// Ten thousand of them go with one answer: their names would take more room than most lines.
impl From<(Option<u64>, bool)> for Stamp {
    fn from((time_ms, stderr): (Option<u64>, bool)) -> Self {
        Self { time_ms, stderr }
    }
}

impl From<Stamp> for (Option<u64>, bool) {
    fn from(stamp: Stamp) -> Self {
        (stamp.time_ms, stamp.stderr)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    /// As agents and controllers had them before lines had times.
    #[derive(PartialEq, Debug, Serialize, Deserialize)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    enum EarlierQuestion {
        Logs { instance: InstanceId, lines: u32 },
    }

    #[derive(PartialEq, Debug, Serialize, Deserialize)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    enum EarlierOutcome {
        Logs { lines: Vec<String> },
    }

    fn as_read<T: for<'a> Deserialize<'a>>(written: &impl Serialize) -> T {
        serde_json::from_value(serde_json::to_value(written).unwrap()).unwrap()
    }

    #[test]
    fn an_earlier_version_asks_and_is_answered() {
        let instance: InstanceId = "shop/web@prod/web.0-7".parse().unwrap();
        let earlier = EarlierQuestion::Logs { instance: instance.clone(), lines: 9 };
        let question = Question::Logs { instance, lines: 9, since_ms: None };
        assert_eq!(as_read::<Question>(&earlier), question);
        assert_eq!(as_read::<EarlierQuestion>(&question), earlier, "it compares what comes back");
        let stamps = vec![Stamp { time_ms: Some(1_714_557_600_500), stderr: true }];
        let outcome = Outcome::Logs { lines: vec!["up".to_owned()], stamps, is_cut: true };
        assert_eq!(
            as_read::<EarlierOutcome>(&outcome),
            EarlierOutcome::Logs { lines: vec!["up".to_owned()] }
        );
        let written: Value = serde_json::to_value(&outcome).unwrap();
        assert_eq!(written["stamps"], json!([[1_714_557_600_500_u64, true]]));
        assert_eq!(as_read::<Outcome>(&outcome), outcome);
    }

    #[test]
    fn an_earlier_version_is_asked_and_answers() {
        let instance: InstanceId = "shop/web@prod/web.0-7".parse().unwrap();
        let asked = |lines, since_ms| Question::Logs { instance: instance.clone(), lines, since_ms };
        for since_ms in [None, Some(1_714_557_600_500)] {
            let heard: EarlierQuestion = as_read(&asked(9, since_ms));
            assert_eq!(heard, EarlierQuestion::Logs { instance: instance.clone(), lines: 9 });
            assert!(asked(9, since_ms).is_answered_as(&as_read(&heard)));
            assert!(!asked(8, since_ms).is_answered_as(&as_read(&heard)));
        }
        assert!(!asked(9, None).is_answered_as(&asked(9, Some(1))), "nobody asked for less");
        assert!(!asked(9, Some(2)).is_answered_as(&asked(9, Some(1))));
        let outcome = EarlierOutcome::Logs { lines: vec!["up".to_owned()] };
        let whole = Outcome::Logs { lines: vec!["up".to_owned()], stamps: Vec::new(), is_cut: false };
        assert_eq!(as_read::<Outcome>(&outcome), whole);
    }
}
