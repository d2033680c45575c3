//! Tokens of people and programs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stele_model::event::{Holder, Role};
use stele_model::{Links, PrincipalId, Time};

/// Makes a token. A principal has one: a new one replaces the old.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Whose it is.
    pub principal: PrincipalId,
    /// What it may do.
    pub role: Role,
    /// Whether a person or a program holds it.
    pub holder: Holder,
    /// How long it is believed, in seconds; 90 days unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life_seconds: Option<u64>,
    /// Why, for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where else it is written about.
    #[serde(default)]
    pub links: Links,
}

/// A new token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenAnswer {
    /// Whose it is.
    pub principal: PrincipalId,
    /// Its text. Shown this once and kept nowhere.
    pub token: String,
    /// When it stops being believed.
    pub expires: Time,
    /// Whether they had one, which is no longer believed.
    pub replaced: bool,
}

impl std::fmt::Debug for TokenAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenAnswer {{ {}, token: <secret> }}", self.principal)
    }
}

/// All tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokensAnswer {
    /// By principal.
    pub tokens: Vec<TokenStatus>,
}

/// A token, without its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenStatus {
    /// Whose it is.
    pub principal: PrincipalId,
    /// What it may do.
    pub role: Role,
    /// Whether a person or a program holds it.
    pub holder: Holder,
    /// When it stops being believed.
    pub expires: Time,
    /// Whether it already stopped.
    pub expired: bool,
}
