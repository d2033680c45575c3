//! Taking changes back and keeping later ones.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stele_model::decide::Conflict;
use stele_model::event::Deviation;
use stele_model::{AppEnv, Difference, Links, PrincipalId, Seq, Time};

/// Takes back the effect of chosen changes. Exactly one of `deployment`, `seq` and `actor` is given.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UndoRequest {
    /// The change that started this deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<Seq>,
    /// The change that this record is part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
    /// All changes of this principal after `from` and up to `to`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<PrincipalId>,
    /// With `actor`: the point just before the first change, such as `2h ago`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// With `actor`: the point of the last change; now unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Only answer what would change, and what is in the way.
    #[serde(default)]
    pub plan: bool,
    /// Replace everything at once, without waiting for health.
    #[serde(default)]
    pub now: bool,
    /// Undo deployments that raised a barrier.
    #[serde(default)]
    pub pass_barriers: bool,
    /// Why, for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where else it is written about.
    #[serde(default)]
    pub links: Links,
}

/// What an undo did, or would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UndoAnswer {
    /// True when nothing was done because only a plan was asked for.
    pub planned: bool,
    /// What was asked for, in its written form.
    pub what: String,
    /// With `actor`: the points between which changes were looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub between: Option<(Seq, Seq)>,
    /// The changes it takes back, newest first.
    pub decisions: Vec<UndoneDecision>,
    /// The apps it touches.
    pub apps: Vec<UndoApp>,
    /// Fields that were changed again since; only in plans, because with one of them nothing is done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<Conflict>,
    /// What else is in the way: a barrier, an erased secret. Only in plans.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked: Vec<String>,
    /// What differs; only in plans.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
    /// The last record of the undo; absent in plans and when nothing had to change.
    pub seq: Option<Seq>,
    /// Deployments it began, by id.
    pub deployments: Vec<Seq>,
}

/// A change that is taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UndoneDecision {
    /// Its first record.
    pub seq: Seq,
    /// When.
    pub time: Time,
    /// Who asked for it.
    pub principal: PrincipalId,
    /// Why, in their words; absent when none was given or it is sealed.
    pub reason: Option<String>,
}

/// One app in an undo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UndoApp {
    /// Which.
    pub app_env: AppEnv,
    /// The release in force before; absent when the app was not there.
    pub from: Option<u32>,
    /// The release after; absent when the app is removed. In a plan, the number it would get.
    pub to: Option<u32>,
    /// When it becomes exactly what it was at an earlier point, with its instances where they were: that point.
    pub restores: Option<Seq>,
    /// What is not as it was: instances that are placed anew, and places that go on without the rest of the app.
    pub deviations: Vec<Deviation>,
}
