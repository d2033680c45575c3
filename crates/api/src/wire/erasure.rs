//! Destroying the keys of a subject.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stele_model::{ControllerId, Links, Seq};

/// Destroys the data keys of a subject: what they sealed can never be read again.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ErasureRequest {
    /// Whose keys, such as `shop/web@prod`: what sealed values name as their subject.
    pub subject: String,
    /// Even when containers that run, or should run, use what is sealed.
    #[serde(default)]
    pub even_in_use: bool,
    /// Why, for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where else it is written about.
    #[serde(default)]
    pub links: Links,
}

/// What an erasure came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErasureAnswer {
    /// Whose keys.
    pub subject: String,
    /// Versions up to this one are destroyed.
    pub through: u32,
    /// The record that says so.
    pub seq: Option<Seq>,
    /// Controllers that have not confirmed yet that their copy is gone. One that is away destroys it
    /// when it returns.
    pub keepers: Vec<ControllerId>,
}

/// Why a record was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReasonAnswer {
    /// The record.
    pub seq: Seq,
    /// The reason in clear; absent when none was given, or when it was sealed and its key is destroyed.
    pub reason: Option<String>,
    /// For whom the log keeps it sealed.
    pub sealed_for: Option<String>,
}

/// Subjects whose keys are destroyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErasuresAnswer {
    /// In order of their names.
    pub erased: Vec<ErasedSubject>,
}

/// A subject whose keys are destroyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErasedSubject {
    /// Whose keys.
    pub subject: String,
    /// Versions up to this one are destroyed; newer ones seal what is set since.
    pub through: u32,
}
