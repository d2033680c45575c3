//! Many changes in one request.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use stele_model::Seq;

/// Changes to be decided, each on its own: one that is refused stops none of the others. They are
/// decided close together, in no promised order, and become durable together.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchRequest {
    /// At most 1000.
    pub commands: Vec<BatchedCommand>,
}

/// A change as it would be asked for alone.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchedCommand {
    /// `POST`, `PUT` or `DELETE`.
    pub method: String,
    /// Such as `/v1/config`.
    pub path: String,
    /// What its body would be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub body: Option<Box<RawValue>>,
    /// Its own `Idempotency-Key`. Without one, that of the whole request counts, followed by a slash
    /// and the command's place among the others, counted from zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Its `If-Match`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_match: Option<Seq>,
}

/// What became of each command, in the order they were given.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct BatchAnswer {
    /// As many as there were commands.
    pub answers: Vec<BatchedAnswer>,
}

/// What the command would have been answered alone.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct BatchedAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The body: of a failure, a problem (RFC 9457).
    #[schemars(with = "serde_json::Value")]
    pub body: Box<RawValue>,
}
