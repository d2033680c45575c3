//! Parameters of reads. Each struct's fields are the route's query parameters, in the `OpenAPI` document too.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stele_model::{InstanceId, PrincipalId, Scope, Seq};

use super::ReadConsistency;

/// Any read.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadQuery {
    /// How fresh the answer must be.
    #[serde(default)]
    pub consistency: ReadConsistency,
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

/// `GET /v1/history`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HistoryQuery {
    /// Of what; the fleet unless said otherwise.
    #[serde(default)]
    pub scope: Scope,
    /// Most entries; 50 unless said otherwise.
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
    /// Only events that touch something in this scope.
    pub scope: Option<Scope>,
    /// Only events of this kind, such as `deployment_finished`; several, joined by commas.
    pub kind: Option<String>,
    /// Only events caused by this principal.
    pub principal: Option<PrincipalId>,
    /// Most events on a page.
    pub limit: Option<usize>,
}

/// `GET /v1/records`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordsQuery {
    /// First record wanted; the first of all unless said otherwise.
    pub from: Option<Seq>,
    /// Most records on a page.
    pub limit: Option<usize>,
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
    /// One app in one environment.
    pub scope: Scope,
    /// Most candidates; 5 unless said otherwise.
    pub limit: Option<usize>,
}

/// `GET /v1/logs`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogsQuery {
    /// Whose.
    pub instance: InstanceId,
    /// Lines of the past; 100 unless said otherwise.
    pub tail: Option<u32>,
    /// Go on with new lines until the client leaves.
    #[serde(default)]
    pub follow: bool,
}
