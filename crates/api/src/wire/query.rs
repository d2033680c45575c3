//! Parameters of reads. Each struct's fields are the route's query parameters, in the `OpenAPI` document too.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stele_model::{InstanceId, PrincipalId, Scope, Seq};

use super::ReadConsistency;

/// Any read.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadQuery {
    /// As of when, such as `seq:1200` or `2h ago`; now unless said otherwise.
    pub at: Option<String>,
    /// How fresh the answer must be.
    #[serde(default)]
    pub consistency: ReadConsistency,
}

/// `GET /v1/reasons/{seq}`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReasonQuery {
    /// How fresh the answer must be.
    #[serde(default)]
    pub consistency: ReadConsistency,
}

/// `GET /v1/deployments/{id}`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeploymentQuery {
    /// As of when, such as `seq:1200` or `2h ago`; now unless said otherwise.
    pub at: Option<String>,
    /// How fresh the answer must be.
    #[serde(default)]
    pub consistency: ReadConsistency,
    /// Whether every instance is told, beside how many there are; `true` unless said otherwise.
    #[serde(default = "told")]
    pub instances: bool,
}

fn told() -> bool {
    true
}

/// `GET /v1/status`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatusQuery {
    /// Of what; the fleet unless said otherwise.
    #[serde(default)]
    pub scope: Scope,
    /// As of when, such as `2h ago`; now unless said otherwise.
    pub at: Option<String>,
    /// Leave out what is well.
    #[serde(default)]
    pub problems: bool,
    /// How fresh the answer must be.
    #[serde(default)]
    pub consistency: ReadConsistency,
}

/// `GET /v1/convergence`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConvergenceQuery {
    /// Of which nodes; the whole fleet unless said otherwise. An app's are those it is on.
    #[serde(default)]
    pub scope: Scope,
    /// How fresh the answer must be.
    #[serde(default)]
    pub consistency: ReadConsistency,
}

/// `GET /v1/history`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HistoryQuery {
    /// Of what; the fleet unless said otherwise.
    #[serde(default)]
    pub scope: Scope,
    /// Most entries, 500 at most; 50 unless said otherwise.
    pub limit: Option<usize>,
    /// As of when; now unless said otherwise.
    pub at: Option<String>,
    /// How fresh the answer must be.
    #[serde(default)]
    pub consistency: ReadConsistency,
}

/// `GET /v1/events`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Only events after this record. A `Last-Event-ID` header counts before it.
    pub after: Option<Seq>,
    /// Only events after this point, such as `2h ago` or `v3` of the scope; all of them where the log begins later. In
    /// place of `after`.
    pub since: Option<String>,
    /// Only events that touch something in this scope.
    pub scope: Option<Scope>,
    /// Only events of this kind, such as `deployment_finished`; several, joined by commas.
    pub kind: Option<String>,
    /// Only events caused by this principal.
    pub principal: Option<PrincipalId>,
    /// Most events on a page.
    pub limit: Option<usize>,
    /// The log as it was at a point, such as `v3` of the scope or `2h ago`; now unless said otherwise. Not
    /// for streams.
    pub at: Option<String>,
    /// How fresh the answer must be.
    #[serde(default)]
    pub consistency: ReadConsistency,
}

/// `GET /v1/records`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordsQuery {
    /// First record wanted; the first of all unless said otherwise.
    pub from: Option<Seq>,
    /// Most records on a page.
    pub limit: Option<usize>,
    /// How fresh the answer must be.
    #[serde(default)]
    pub consistency: ReadConsistency,
}

/// `GET /v1/show`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShowQuery {
    /// Of what; the fleet unless said otherwise.
    #[serde(default)]
    pub scope: Scope,
    /// As of when, such as `v3`; now unless said otherwise.
    pub at: Option<String>,
    /// Whether State's digest at that point is wanted. It is over all that the log said by then, which
    /// may take seconds to hash; the present one is always there.
    #[serde(default)]
    pub digest: bool,
    /// How fresh the answer must be.
    #[serde(default)]
    pub consistency: ReadConsistency,
}

/// `GET /v1/diff`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiffQuery {
    /// Of what; the fleet unless said otherwise.
    #[serde(default)]
    pub scope: Scope,
    /// The earlier point.
    pub from: String,
    /// The later point; now unless said otherwise.
    pub to: Option<String>,
    /// How fresh the answer must be.
    #[serde(default)]
    pub consistency: ReadConsistency,
}

/// `GET /v1/rollbacks/candidates`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CandidatesQuery {
    /// What to roll back.
    pub scope: Scope,
    /// Also look whether each point could be restored exactly right now: whether images are still to be had,
    /// nodes still there, and ports free.
    #[serde(default)]
    pub check: bool,
    /// Most candidates; 5 unless said otherwise, and 20 at most.
    pub limit: Option<usize>,
    /// How fresh the answer must be.
    #[serde(default)]
    pub consistency: ReadConsistency,
}

/// `GET /v1/logs`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogsQuery {
    /// Whose.
    pub instance: InstanceId,
    /// Lines of the past, 10000 at most; 100 unless said otherwise, and 10000 with `since`.
    pub tail: Option<u32>,
    /// None from before this: how long ago, such as `10m` or `2h ago`, or a time, such as `2026-01-31T12:00:00Z`.
    pub since: Option<String>,
    /// Go on with new lines until the client leaves.
    #[serde(default)]
    pub follow: bool,
    /// How fresh the answer must be.
    #[serde(default)]
    pub consistency: ReadConsistency,
}

/// `GET /v1/why`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhyQuery {
    /// An instance, a slot, an app in an environment (in a region or on a node, too), or a node.
    pub subject: String,
    /// As of when, such as `2h ago`; now unless said otherwise.
    pub at: Option<String>,
    /// How fresh the answer must be.
    #[serde(default)]
    pub consistency: ReadConsistency,
}
