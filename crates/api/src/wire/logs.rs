//! Lines that instances printed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stele_model::Time;

/// A line that an instance printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// When, by the container engine's clock; absent if it does not say, or the node's agent is of an earlier version.
    pub time: Option<Time>,
    /// On what; absent if the node's agent is of an earlier version.
    pub stream: Option<Printed>,
    /// The text, without its line end.
    pub line: String,
}

/// Where a line was printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Printed {
    /// On standard output.
    Stdout,
    /// On standard error.
    Stderr,
}
