//! Why a command is not decided into events.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A refusal, with what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rejection {
    /// What kind of refusal.
    pub kind: RejectionKind,
    /// What was wrong, as a sentence.
    pub message: String,
    /// Everything that stood in the way, when it is more than one thing.
    pub details: Vec<String>,
    /// A command to copy that gets further.
    pub next: Option<String>,
}

/// Kinds of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RejectionKind {
    /// The request makes no sense, whatever the State.
    Invalid,
    /// Something it names does not exist.
    NotFound,
    /// The State does not allow it.
    Conflict,
    /// The principal may not.
    Forbidden,
    /// `If-Match` does not match.
    Precondition,
    /// The idempotency key was used for another request.
    KeyReused,
    /// A limit would be passed.
    TooLarge,
}

impl Rejection {
    /// A refusal of a kind.
    pub fn new(kind: RejectionKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), details: Vec::new(), next: None }
    }

    /// Adds the command that gets further.
    #[must_use]
    pub fn with_next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// Adds everything that stood in the way.
    #[must_use]
    pub fn with_details(mut self, details: Vec<String>) -> Self {
        self.details = details;
        self
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for detail in &self.details {
            write!(f, "\n  - {detail}")?;
        }
        if let Some(next) = &self.next {
            write!(f, "\n  next: {next}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Rejection {}
