//! Rollback, what could be gone back to, and what people say of it afterwards.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stele_model::event::{Deviation, TargetDigest};
use stele_model::point::Verdict;
use stele_model::{AppEnv, Difference, Links, NodeName, PrincipalId, Scope, Seq, Slot, Time};

/// Sets a scope's target to what it was at an earlier point.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// What to roll back.
    pub scope: Scope,
    /// To when: `v3`, `prev`, `last-good`, `seq:120`, `2h ago`, a time, `deploy:ID`.
    pub to: String,
    /// Only answer what would change.
    #[serde(default)]
    pub plan: bool,
    /// Replace everything at once, without waiting for health.
    #[serde(default)]
    pub now: bool,
    /// Refuse when an instance cannot be where it was.
    #[serde(default)]
    pub strict: bool,
    /// Leave apps as they are that cannot be restored, instead of refusing everything.
    #[serde(default)]
    pub best_effort: bool,
    /// Go back past deployments that raised a barrier.
    #[serde(default)]
    pub pass_barriers: bool,
    /// Parts to leave as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<Scope>,
    /// Why, for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where else it is written about.
    #[serde(default)]
    pub links: Links,
}

/// What a rollback did, or would do.
// Of a large fleet nearly all of it is what becomes of each node, so `A` may be apps that are written already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RollbackAnswer")]
pub struct RollbackAnswer<A = Vec<RollbackApp>> {
    /// True when nothing was done because only a plan was asked for.
    pub planned: bool,
    /// What was asked to be rolled back.
    pub scope: Scope,
    /// The point as it was asked for.
    pub to: String,
    /// The seq it stands for.
    pub point: Seq,
    /// Everything it touches: its blast radius.
    pub apps: A,
    /// What differs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
    /// Digest of the scope's target before.
    pub before: TargetDigest,
    /// Digest of the scope's target at the point.
    pub wanted: TargetDigest,
    /// Digest after; its intent equals the wanted one. Absent in plans.
    pub after: Option<TargetDigest>,
    /// The last record of the change; absent in plans and when nothing had to change.
    pub seq: Option<Seq>,
    /// Deployments it began, by id.
    pub deployments: Vec<Seq>,
    /// What is not as it was then, or not at once: instances placed otherwise, nodes that are lost, and
    /// apps left as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deviations: Vec<Deviation>,
}

/// One app in a rollback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RollbackApp {
    /// Which.
    pub app_env: AppEnv,
    /// The release in force before; absent when the app was not there.
    pub from: Option<u32>,
    /// The release restored; absent when the app is removed.
    pub to: Option<u32>,
    /// Instances that move to another node.
    pub moves: usize,
    /// What would not be as it was, or not at once: instances placed otherwise, nodes that are lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deviations: Vec<Deviation>,
    /// Why it cannot be restored; empty when it can.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked: Vec<String>,
    /// Deployments it goes back past that raised a barrier.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub barriers: Vec<Barrier>,
    /// What happens on each node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<NodeName, NodeChange>,
    /// Volumes of the restored services: what is in them stays as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
}

/// A deployment whose effect outside of Stele a rollback would not bring back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Barrier {
    /// Its id.
    pub deployment: Seq,
    /// What it did, such as "migrates orders".
    pub what: String,
}

/// What happens on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeChange {
    /// Instances made where none was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<Slot>,
    /// Instances replaced by one of another revision.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced: Vec<Slot>,
    /// Instances removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<Slot>,
}

/// Points a scope could be rolled back to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CandidatesAnswer {
    /// The scope.
    pub scope: Scope,
    /// Newest first.
    pub candidates: Vec<Candidate>,
    /// Whether earlier points are not among them: a larger `limit` lists more, up to 20, and each can be named by its
    /// seq.
    #[serde(default)]
    pub more: bool,
}

/// One point to roll back to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Candidate {
    /// How to write it.
    pub to: String,
    /// Its seq.
    pub seq: Seq,
    /// Its time.
    pub time: Time,
    /// The release in force then; absent when the app was removed, and for more than one app.
    pub release: Option<u32>,
    /// How it looks from now.
    pub verdict: Verdict,
    /// Who brought it into force.
    pub principal: Option<PrincipalId>,
    /// What going back there would change.
    pub differences: Vec<Difference>,
    /// Whether all that it needs was looked for: only when readiness was asked for.
    pub checked: bool,
    /// Why it cannot be restored exactly right now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked: Vec<String>,
    /// What would not be as it was, or not at once: instances placed otherwise, nodes that are lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deviations: Vec<Deviation>,
    /// Deployments it goes back past that raised a barrier.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub barriers: Vec<Barrier>,
}

/// Marks a point so that it is never offered as `last-good`, or takes that back.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MarkRequest {
    /// Of which scope.
    pub scope: Scope,
    /// The point, such as `v3` or `2h ago`.
    pub point: String,
    /// True marks it bad; false takes that back.
    pub bad: bool,
    /// Why, for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where else it is written about.
    #[serde(default)]
    pub links: Links,
}

/// What marking a point came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MarkAnswer {
    /// The seq that the point stands for.
    pub point: Seq,
    /// The record that says so; absent when it was so before.
    pub seq: Option<Seq>,
}

/// Says that somebody looked at a rollback they did not do.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReviewRequest {
    /// Seq of its `rolled_back` record.
    pub rollback: Seq,
    /// What they found, for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where else it is written about.
    #[serde(default)]
    pub links: Links,
}

/// Rollbacks that nobody else has looked at yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReviewsAnswer {
    /// Oldest first.
    pub owed: Vec<ReviewOwed>,
}

/// A rollback somebody else should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReviewOwed {
    /// Seq of its `rolled_back` record.
    pub rollback: Seq,
    /// When.
    pub time: Time,
    /// Who did it.
    pub principal: PrincipalId,
    /// What was rolled back.
    pub scope: String,
    /// To which point, as it was written.
    pub to: String,
    /// Why, in their words; absent when none was given or it is sealed.
    pub reason: Option<String>,
}
