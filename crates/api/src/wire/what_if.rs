//! What would be: a change tried out at any point, and thrown away.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stele_model::event::Outcome;
use stele_model::{
    AppEnv, Difference, EnvironmentName, InstanceId, NodeName, Scope, Seq, ServiceName, Slot, Time,
};

use super::status::StayingStatus;
use crate::spec::AppSpec;

/// Asks what a change would come to. Nothing is written.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhatIfRequest {
    /// At which point, such as `2h ago`; now unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// The change.
    pub change: WhatIfChange,
}

/// A change to be tried out.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[allow(clippy::large_enum_variant)] // One of it is made per request.
pub enum WhatIfChange {
    /// Apply a spec.
    Apply {
        /// The spec, with the content of `source` files put in.
        spec: AppSpec,
        /// Which of the spec's environments; may be left out when it names one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        environment: Option<EnvironmentName>,
        /// Images to use instead of the spec's, by service.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        images: BTreeMap<ServiceName, String>,
    },
    /// Roll a scope back.
    Rollback {
        /// What to roll back.
        scope: Scope,
        /// To when, as seen from the point asked about.
        to: String,
        /// Parts to leave as they are.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        except: Vec<Scope>,
        /// Replace everything at once, without waiting for health.
        #[serde(default)]
        now: bool,
    },
    /// Drain a node.
    Drain {
        /// Which.
        node: NodeName,
    },
}

/// What a change would come to, if every container became healthy at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhatIfAnswer {
    /// The record this is as of.
    pub at: Seq,
    /// Its time.
    pub time: Time,
    /// The release it is about: `v12` is 12, the number it would get.
    pub release: Option<u32>,
    /// What would differ in the target by the change itself.
    pub differences: Vec<Difference>,
    /// What the planner would do, in order.
    pub steps: Vec<PlannedStep>,
    /// Where instances of the changed apps would be at the end.
    pub placement: BTreeMap<NodeName, Vec<Slot>>,
    /// Whether the end was reached; false when there would be more steps than are looked at.
    pub ended: bool,
    /// What would not leave a node that is drained, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub staying: Vec<StayingStatus>,
}

/// One thing the planner would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedStep {
    /// What is in one round happens together; the next round waits until it is healthy.
    pub round: u32,
    /// The app and environment.
    pub app_env: AppEnv,
    /// What.
    pub action: PlannedAction,
}

/// What the planner would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlannedAction {
    /// Choose a node for an instance, or none any more.
    Place {
        /// Of which slot.
        slot: Slot,
        /// The node; absent when the slot goes.
        node: Option<NodeName>,
    },
    /// Tell a node to run a new instance.
    Start {
        /// The node.
        node: NodeName,
        /// The slot it fills.
        slot: Slot,
        /// Its release.
        release: Option<u32>,
        /// The instance that has to be gone first.
        replaces: Option<InstanceId>,
    },
    /// Tell a node to stop an instance.
    Stop {
        /// The node.
        node: NodeName,
        /// The instance; of one that would be started before, the slot alone means something.
        instance: InstanceId,
    },
    /// End a deployment.
    Finish {
        /// How.
        outcome: Outcome,
    },
}
