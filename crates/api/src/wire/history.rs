//! What was: history, events, raw records, State at a point, differences.

use std::collections::BTreeMap;

use super::status::PinnedPlace;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stele_model::event::{Contacts, DeploymentKind, Outcome, TargetDigest};
use stele_model::{
    AppEnv, Difference, Digest, FlatMap, Links, NodeName, PrincipalId, Record, Release, Scope, SecretName,
    Seq, ServiceName, Slot, Time, Value,
};

/// Deployments of a scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryAnswer {
    /// The scope.
    pub scope: Scope,
    /// Newest first.
    pub entries: Vec<HistoryEntry>,
    /// Whether there are earlier ones, or may be, that are not listed.
    #[serde(default)]
    pub more: bool,
}

/// One deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryEntry {
    /// The deployment's id.
    pub deployment: Seq,
    /// When it started.
    pub time: Time,
    /// Which app and environment.
    pub app_env: AppEnv,
    /// Why it came to be.
    pub kind: DeploymentKind,
    /// The release in force before.
    pub from: Option<u32>,
    /// The release it went to; absent when the app was removed.
    pub to: Option<u32>,
    /// Who started it.
    pub principal: PrincipalId,
    /// Why, in their words; absent when none was given or it is sealed.
    pub reason: Option<String>,
    /// Where else it is written about.
    pub links: Links,
    /// How it ended; absent while it is on its way.
    pub outcome: Option<Outcome>,
}

/// A page of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventsPage {
    /// In order.
    pub events: Vec<Record>,
    /// Ask with `after` set to this for the next page.
    pub after: Seq,
    /// The last record committed when this was answered.
    pub last: Seq,
}

/// A page of records as they are stored, for auditors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecordsPage {
    /// In order, without gaps.
    pub records: Vec<RawRecord>,
    /// The last record committed when this was answered.
    pub last: Seq,
}

/// A record's stored bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RawRecord {
    /// Its position.
    pub seq: Seq,
    /// Header and payload hash: the bytes that are chained and proved, as base64.
    pub leaf: String,
    /// The payload's bytes, as base64.
    pub payload: String,
}

/// A scope's target at a point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShowAnswer {
    /// The scope.
    pub scope: Scope,
    /// The record this is as of.
    pub seq: Seq,
    /// Its time.
    pub time: Time,
    /// Digest of the scope's target.
    pub digest: TargetDigest,
    /// Digest of all of State, as recorded in the log for replicas to check. Of a State of the past it
    /// is told only to who asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_digest: Option<Digest>,
    /// Apps in the scope.
    pub apps: Vec<ShownApp>,
    /// Where the scope is one app in an environment in which it is not deployed: variables that were set, which are not
    /// in force before its next deployment there.
    #[serde(default, skip_serializing_if = "FlatMap::is_empty")]
    pub waiting_config: FlatMap<String, Value>,
}

/// What an app is in an environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShownApp {
    /// Which.
    pub app_env: AppEnv,
    /// Who answers for it.
    pub contacts: Contacts,
    /// The release in force: `v12` is 12.
    pub release: u32,
    /// Its content address.
    pub release_digest: Digest,
    /// Its content.
    pub content: Release,
    /// What each service's image was asked for as, before a tag was resolved to the digest in force.
    #[serde(default)]
    pub images: FlatMap<ServiceName, String>,
    /// The config bundle in force.
    pub config: FlatMap<String, Value>,
    /// The version of each secret in force.
    pub secrets: FlatMap<SecretName, u32>,
    /// Places that follow another release than the rest of it, because they alone were rolled back.
    pub pins: Vec<PinnedPlace>,
    /// Where instances should be.
    pub placement: BTreeMap<Slot, NodeName>,
}

/// What differs between two points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiffAnswer {
    /// The scope.
    pub scope: Scope,
    /// The earlier point.
    pub from: Seq,
    /// The later point.
    pub to: Seq,
    /// What differs in the target.
    pub differences: Vec<Difference>,
}
