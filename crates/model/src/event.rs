//! What happened. Events are facts: folding one needs no clock, no choice and
//! nothing but the State before it.
//!
//! Every variant's structure is frozen once released: a change is a new variant
//! or a new schema, never an edit (`docs/log-format.md`).

mod scopes;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::flat_map::FlatMap;
use crate::ids::{
    AppEnv, AppId, ControllerId, EnvironmentName, FleetName, InstanceId, NodeName, Place, PrincipalId,
    ProjectName, RegionName, SecretName, Seq, ServiceName, Slot, Time,
};
use crate::release::{Release, Revision};
use crate::scope::Scope;
use crate::signature::{Certificate, PublicKey};
use crate::value::{Sealed, Value};
use crate::wire::{AssignmentVersion, InstanceReport};

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A controller began to decide.
    TermStarted {
        /// Raft's term.
        term: u64,
        /// The leader of that term.
        controller: ControllerId,
    },
    /// The first fact of a fleet.
    FleetCreated {
        /// Its name.
        fleet: FleetName,
        /// The offline root's public key, which every agent pins.
        root: PublicKey,
        /// The incarnation, raised only by disaster recovery.
        epoch: u64,
    },
    /// The root vouches for a controller's key.
    ControllerCertified {
        /// The root's word.
        certificate: Certificate,
        /// Where its API answers.
        api: String,
        /// Where its peers reach it.
        peer: String,
    },
    /// Raft's configuration as applied.
    MembershipChanged {
        /// Who votes.
        voters: Vec<ControllerId>,
        /// Who only follows.
        learners: Vec<ControllerId>,
    },
    /// A controller's addresses and key are forgotten.
    ControllerRemoved {
        /// Which; its id is never used again.
        controller: ControllerId,
    },
    /// The digest of State just before this record, for replicas and replays to check.
    StateDigestRecorded {
        /// Over all five trees.
        digest: Digest,
    },
    /// A token was made for a principal.
    TokenCreated {
        /// The token and what it may do.
        token: Token,
    },
    /// A token is no longer believed.
    TokenRevoked {
        /// The principal it was for.
        principal: PrincipalId,
    },
    /// A node may join with this token, once.
    JoinTokenCreated {
        /// The token and what it enrols.
        token: JoinToken,
    },
    /// A node joined.
    NodeEnrolled {
        /// The node.
        node: EnrolledNode,
        /// SHA-256 of the join token it used.
        join_token: Digest,
    },
    /// A node's labels are these now.
    NodeLabelled {
        /// Which.
        node: NodeName,
        /// All of its labels.
        labels: BTreeMap<String, String>,
    },
    /// A node is no longer of the fleet.
    NodeRemoved {
        /// Which.
        node: NodeName,
    },
    /// Nodes were not heard of for longer than their grace period.
    NodesLost {
        /// Which.
        nodes: Vec<NodeName>,
    },
    /// Lost nodes were heard of again.
    NodesReturned {
        /// Which.
        nodes: Vec<NodeName>,
    },
    /// A project exists.
    ProjectCreated {
        /// Its name.
        project: ProjectName,
    },
    /// An environment exists.
    EnvironmentCreated {
        /// Its name.
        environment: EnvironmentName,
    },
    /// An app exists, or who answers for it changed.
    AppDeclared {
        /// The app.
        app: AppId,
        /// Who answers for it.
        contacts: Contacts,
    },
    /// A new version of an app.
    ReleaseCreated {
        /// Its number: `v12` is 12.
        number: u32,
        /// Its content address.
        digest: Digest,
        /// Its content.
        release: Release,
        /// What each image was asked for as, before it was resolved to a digest.
        images: FlatMap<ServiceName, String>,
    },
    /// A config bundle has a new version.
    ConfigChanged {
        /// Whose.
        app_env: AppEnv,
        /// From 1.
        version: u32,
        /// Its content address.
        digest: Digest,
        /// All of its variables.
        variables: FlatMap<String, Value>,
    },
    /// A secret has a new version.
    SecretChanged {
        /// Whose.
        app_env: AppEnv,
        /// Its name.
        name: SecretName,
        /// From 1.
        version: u32,
        /// Its value, sealed.
        value: Sealed,
    },
    /// An app in an environment is on its way to a revision. Its id is this record's seq.
    DeploymentStarted {
        /// Which app and environment.
        app_env: AppEnv,
        /// Why it came to be.
        kind: DeploymentKind,
        /// What was in force before.
        from: Option<Revision>,
        /// What should be; absent when the app is removed.
        to: Option<Revision>,
        /// Replace everything at once, without waiting for health.
        now: bool,
        /// What a rollback past this deployment would not bring back, such as "migrates orders".
        /// Since schema 2.
        barrier: Option<String>,
    },
    /// A deployment ended.
    DeploymentFinished {
        /// Seq of its start.
        deployment: Seq,
        /// Its app and environment.
        app_env: AppEnv,
        /// How it ended.
        outcome: Outcome,
    },
    /// What an app should be in an environment (its intent) is this now.
    TargetChanged {
        /// Which.
        app_env: AppEnv,
        /// The revision; absent when the app is removed.
        revision: Option<Revision>,
    },
    /// Where instances should be.
    PlacementChanged {
        /// Which app and environment.
        app_env: AppEnv,
        /// Slots and their nodes; a slot without a node is gone.
        slots: Vec<(Slot, Option<NodeName>)>,
    },
    /// What nodes are told.
    AssignmentsChanged {
        /// Which app and environment.
        app_env: AppEnv,
        /// Changes, in order.
        changes: Vec<AssignmentChange>,
    },
    /// What nodes told, as far as it was new.
    NodesReported {
        /// One per node.
        reports: Vec<ReportedChange>,
    },
    /// A scope's target was set to what it was at an earlier point.
    RolledBack {
        /// Which scope, in its written form.
        scope: String,
        /// Parts of it that were left as they are. Since schema 2.
        except: Vec<Scope>,
        /// The point asked for, in its written form.
        point: String,
        /// The seq it stands for.
        seq: Seq,
        /// Digest of the scope's target before.
        before: TargetDigest,
        /// Digest after; its intent equals the one at `seq`.
        after: TargetDigest,
        /// What is not as it was then. Schema 1 knows only instances placed anew.
        deviations: Vec<Deviation>,
    },
    /// Rejected releases of an app cannot be deployed until somebody unlatches it.
    Latched {
        /// Which.
        app_env: AppEnv,
        /// What was rejected.
        release: Digest,
    },
    /// The latch is off.
    Unlatched {
        /// Which.
        app_env: AppEnv,
    },
    /// Somebody was refused.
    Refused {
        /// What they asked for, as a word.
        action: String,
        /// On what.
        scope: String,
        /// Why not.
        why: String,
    },
    /// Places whose instances follow another revision than the rest of their app.
    PinsChanged {
        /// Which app and environment.
        app_env: AppEnv,
        /// Places and what they are pinned to; a place without a pin follows the app again.
        pins: Vec<(Place, Option<Pin>)>,
    },
    /// Whether a point may be offered as `last-good`.
    PointMarked {
        /// Of which scope.
        scope: Scope,
        /// The point.
        seq: Seq,
        /// True when it must not be offered; false takes that back.
        bad: bool,
    },
    /// Somebody else looked at a rollback that nobody had to approve beforehand.
    Reviewed {
        /// Seq of its `rolled_back` record.
        rollback: Seq,
    },
    /// The data keys of a subject are destroyed: what they sealed is unreadable for ever.
    SubjectErased {
        /// Whose, as written in sealed values.
        subject: String,
        /// Key versions up to this one are gone.
        through: u32,
    },
    /// The effect of earlier decisions on the target was taken back.
    Undone {
        /// What was asked for, in its written form.
        what: String,
        /// First seqs of the decisions, newest first.
        decisions: Vec<Seq>,
        /// The apps whose target changed, with digests before and after.
        apps: Vec<(AppEnv, TargetDigest, TargetDigest)>,
    },
    /// The fleet lost its quorum for good, and goes on with the log of one controller.
    FleetRecovered {
        /// The incarnation from here on.
        epoch: u64,
        /// The controller whose log it is. It votes alone.
        controller: ControllerId,
        /// Controllers that are members no more; their ids are never used again.
        given_up: Vec<ControllerId>,
    },
    /// A node gets nothing new, and what runs on it goes elsewhere.
    NodeDrained {
        /// Which.
        node: NodeName,
    },
    /// A drained node may get something again.
    NodeResumed {
        /// Which.
        node: NodeName,
    },
}

/// What a place is pinned to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pin {
    /// Its instances are of this revision.
    Revision(Revision),
    /// The app is not there.
    Absent,
}

impl Pin {
    /// What the app is there, if it is.
    pub fn revision(&self) -> Option<&Revision> {
        match self {
            Self::Revision(revision) => Some(revision),
            Self::Absent => None,
        }
    }
}

/// Something a rollback could not bring back as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Deviation {
    /// What: an instance's slot, or an app in an environment.
    pub what: String,
    /// Why, and what is there instead.
    pub why: String,
}

/// A token and what its bearer may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Token {
    /// Whose: one token per principal.
    pub principal: PrincipalId,
    /// SHA-256 of the token's text; the text itself is shown once and kept nowhere.
    pub hash: Digest,
    /// What it may do.
    pub role: Role,
    /// Whether a person or a program holds it.
    pub holder: Holder,
    /// When it stops being believed.
    pub expires: Time,
}

/// Built-in roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything.
    Admin,
    /// Deploys, rolls back, configures; reads.
    Deployer,
    /// Reads everything, changes nothing.
    Auditor,
}

/// Who holds a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// A human being.
    Person,
    /// Automation, such as CI: it never lifts a latch.
    Service,
}

/// Lets one node join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JoinToken {
    /// SHA-256 of its text.
    pub hash: Digest,
    /// The only name that may join with it; any when absent.
    pub node: Option<NodeName>,
    /// The region the node will be in.
    pub region: RegionName,
    /// The labels the node will have.
    pub labels: BTreeMap<String, String>,
    /// When it stops being believed.
    pub expires: Time,
}

/// A node of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EnrolledNode {
    /// Its name.
    pub name: NodeName,
    /// Its region.
    pub region: RegionName,
    /// Its labels, without `node` and `region`, which it always has.
    pub labels: BTreeMap<String, String>,
    /// Verifies its reports.
    pub key: PublicKey,
    /// X25519 public key, as hex: wraps data keys for it.
    pub sealing_key: String,
    /// Where its published ports are reached, if it said so.
    pub address: Option<String>,
}

/// Who answers for an app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Contacts {
    /// The owning team.
    pub owner: Option<String>,
    /// Whom to call.
    pub on_call: Option<String>,
    /// What to read first.
    pub runbook: Option<String>,
}

/// Why a deployment came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentKind {
    /// A release was deployed.
    Deploy,
    /// Config or a secret changed.
    Configure,
    /// An earlier state was reinstated.
    Rollback,
    /// The app was removed from the environment.
    Remove,
    /// The effect of earlier changes was taken back. Since schema 2.
    Undo,
}

/// How a deployment ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every instance runs the revision and is healthy.
    Succeeded,
    /// It stopped; what still runs keeps running.
    Failed {
        /// The instance that failed.
        instance: InstanceId,
        /// Its node.
        node: NodeName,
        /// Why.
        reason: String,
        /// How it exited, if it did.
        exit_code: Option<i64>,
        /// Its last words.
        log_tail: Vec<String>,
    },
    /// Not every instance has a node it may run on.
    Unplaced {
        /// The first slot without a node.
        slot: Slot,
        /// Why none fits.
        reason: String,
    },
    /// Another deployment took its place.
    Superseded {
        /// Seq of that deployment's start.
        by: Seq,
    },
}

/// One change of what a node is told.
#[allow(clippy::large_enum_variant)] // Assigning is the common case; boxing it would cost more than it saves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AssignmentChange {
    /// Run this.
    Assign {
        /// Where.
        node: NodeName,
        /// What.
        instance: InstanceId,
        /// Made of what.
        revision: Revision,
        /// Digest of the resulting spec.
        spec: Digest,
        /// Only once that one is gone.
        replaces: Option<InstanceId>,
    },
    /// Stop running this.
    Withdraw {
        /// Where.
        node: NodeName,
        /// What.
        instance: InstanceId,
    },
}

/// What was new in a node's report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReportedChange {
    /// The node.
    pub node: NodeName,
    /// The agent's boot.
    pub boot: u64,
    /// The report's number.
    pub number: u64,
    /// The assignment the agent works on.
    pub applied: AssignmentVersion,
    /// Instances whose last value differs from the one known.
    pub changed: Vec<InstanceReport>,
    /// Instances no longer on the node.
    pub gone: Vec<InstanceId>,
}

/// Digest of a scope's target, in its two halves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TargetDigest {
    /// What should run: releases, config, secret versions, app existence.
    pub intent: Digest,
    /// Where.
    pub placement: Digest,
}

impl Event {
    /// Every kind there is, in the order of the variants.
    pub const KINDS: [&str; 38] = [
        "term_started",
        "fleet_created",
        "controller_certified",
        "membership_changed",
        "controller_removed",
        "state_digest_recorded",
        "token_created",
        "token_revoked",
        "join_token_created",
        "node_enrolled",
        "node_labelled",
        "node_removed",
        "nodes_lost",
        "nodes_returned",
        "project_created",
        "environment_created",
        "app_declared",
        "release_created",
        "config_changed",
        "secret_changed",
        "deployment_started",
        "deployment_finished",
        "target_changed",
        "placement_changed",
        "assignments_changed",
        "nodes_reported",
        "rolled_back",
        "latched",
        "unlatched",
        "refused",
        "pins_changed",
        "point_marked",
        "reviewed",
        "subject_erased",
        "undone",
        "fleet_recovered",
        "node_drained",
        "node_resumed",
    ];

    /// The schema that events of a kind are written in. Earlier ones are read for ever.
    pub fn schema_of(kind: &str) -> u16 {
        match kind {
            "deployment_started" | "rolled_back" => 2,
            _ => 1,
        }
    }

    /// The stable word for this kind of event, as used in filters and SQL.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::TermStarted { .. } => "term_started",
            Self::FleetCreated { .. } => "fleet_created",
            Self::ControllerCertified { .. } => "controller_certified",
            Self::MembershipChanged { .. } => "membership_changed",
            Self::ControllerRemoved { .. } => "controller_removed",
            Self::StateDigestRecorded { .. } => "state_digest_recorded",
            Self::TokenCreated { .. } => "token_created",
            Self::TokenRevoked { .. } => "token_revoked",
            Self::JoinTokenCreated { .. } => "join_token_created",
            Self::NodeEnrolled { .. } => "node_enrolled",
            Self::NodeLabelled { .. } => "node_labelled",
            Self::NodeRemoved { .. } => "node_removed",
            Self::NodesLost { .. } => "nodes_lost",
            Self::NodesReturned { .. } => "nodes_returned",
            Self::ProjectCreated { .. } => "project_created",
            Self::EnvironmentCreated { .. } => "environment_created",
            Self::AppDeclared { .. } => "app_declared",
            Self::ReleaseCreated { .. } => "release_created",
            Self::ConfigChanged { .. } => "config_changed",
            Self::SecretChanged { .. } => "secret_changed",
            Self::DeploymentStarted { .. } => "deployment_started",
            Self::DeploymentFinished { .. } => "deployment_finished",
            Self::TargetChanged { .. } => "target_changed",
            Self::PlacementChanged { .. } => "placement_changed",
            Self::AssignmentsChanged { .. } => "assignments_changed",
            Self::NodesReported { .. } => "nodes_reported",
            Self::RolledBack { .. } => "rolled_back",
            Self::Latched { .. } => "latched",
            Self::Unlatched { .. } => "unlatched",
            Self::Refused { .. } => "refused",
            Self::PinsChanged { .. } => "pins_changed",
            Self::PointMarked { .. } => "point_marked",
            Self::Reviewed { .. } => "reviewed",
            Self::SubjectErased { .. } => "subject_erased",
            Self::Undone { .. } => "undone",
            Self::FleetRecovered { .. } => "fleet_recovered",
            Self::NodeDrained { .. } => "node_drained",
            Self::NodeResumed { .. } => "node_resumed",
        }
    }
}

/// A record as the rest of the program sees it: header and decoded payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    /// What it says about itself.
    pub header: crate::header::Header,
    /// What happened.
    pub event: Event,
}
