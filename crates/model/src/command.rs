//! What may be asked. A command is decided once, by the leader, into events or a rejection.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::event::{AssignmentChange, Contacts, EnrolledNode, JoinToken, Outcome, Token};
use crate::flat_map::FlatMap;
use crate::header::{Decision, Idempotency, Links};
use crate::ids::{
    AppEnv, ControllerId, FleetName, NodeName, PrincipalId, SecretName, Seq, ServiceName, Slot,
};
use crate::release::Release;
use crate::scope::Scope;
use crate::signature::{Certificate, PublicKey};
use crate::value::{Sealed, Value};
use crate::wire::Report;

/// A command with everything that is logged about its asking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Who asks, as authenticated.
    pub principal: PrincipalId,
    /// What is asked.
    pub command: Command,
    /// Under which key it may be repeated.
    pub idempotency: Option<Idempotency>,
    /// The caller's trace, 32 hex digits.
    pub trace: Option<String>,
    /// The seq that led to it.
    pub cause: Option<Seq>,
    /// Why, in the caller's words.
    pub reason: Option<Value>,
    /// Where else it is written about.
    pub links: Links,
    /// Refuse unless the scope's target last changed at this seq (`If-Match`).
    pub if_match: Option<(Scope, Seq)>,
}

/// What may be asked. Controllers name a command to each other by its place here, those of earlier versions, too: a new
/// one is the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Begin the fleet. The log must be empty of it.
    CreateFleet {
        /// Its name.
        fleet: FleetName,
        /// The root's public key.
        root: PublicKey,
        /// The first administrator.
        admin: Token,
    },
    /// Make a controller's key and addresses known.
    CertifyController {
        /// The root's word.
        certificate: Certificate,
        /// Where its API answers.
        api: String,
        /// Where its peers reach it.
        peer: String,
    },
    /// Forget a removed controller.
    ForgetController {
        /// Which.
        controller: ControllerId,
    },
    /// Deploy an app to an environment.
    Deploy {
        /// Which.
        app_env: AppEnv,
        /// Who answers for the app; unchanged when absent.
        contacts: Option<Contacts>,
        /// What.
        release: ReleaseChoice,
        /// Start a deployment even when nothing differs (after a failure).
        again: bool,
        /// What a rollback past this deployment would not bring back.
        barrier: Option<String>,
    },
    /// Remove an app from an environment.
    Remove {
        /// Which.
        app_env: AppEnv,
    },
    /// Change variables of an app's config bundle and deploy.
    SetConfig {
        /// Which.
        app_env: AppEnv,
        /// New values; a variable without one is removed.
        variables: BTreeMap<String, Option<Value>>,
    },
    /// Set a secret's next version, and deploy where it is used.
    SetSecret {
        /// Which app and environment.
        app_env: AppEnv,
        /// Which secret.
        name: SecretName,
        /// Sealed before this command was made.
        value: Sealed,
    },
    /// Set a scope's target to what it was at an earlier point. The decision's context carries State at that point.
    ///
    /// Without `strict` and `best_effort`, intent is restored exactly, and instances whose node is gone are
    /// placed anew.
    Rollback {
        /// Which scope.
        scope: Scope,
        /// Parts of it to leave as they are.
        except: Vec<Scope>,
        /// The point as it was written.
        point: String,
        /// The seq it stands for.
        seq: Seq,
        /// Replace everything at once.
        now: bool,
        /// Refuse when an instance cannot be where it was.
        strict: bool,
        /// Leave apps as they are that cannot be restored, instead of refusing everything.
        best_effort: bool,
        /// Go back past deployments that raised a barrier.
        pass_barriers: bool,
        /// What was found out before, with apps and why they cannot be restored: an image that is not to be
        /// had any more.
        unobtainable: Vec<(AppEnv, String)>,
    },
    /// Take back the effect of earlier decisions, and keep what came later. The decision's context carries State
    /// just before and just after each of them.
    Undo {
        /// The decisions.
        decisions: Vec<Decision>,
        /// What was asked for, in its written form.
        what: String,
        /// Replace everything at once.
        now: bool,
        /// Undo deployments that raised a barrier.
        pass_barriers: bool,
    },
    /// Mark a point so that it is never offered as `last-good`, or take that back.
    MarkPoint {
        /// Of which scope.
        scope: Scope,
        /// The point.
        seq: Seq,
        /// Whether it is bad.
        bad: bool,
    },
    /// Somebody who did not do it looked at a rollback.
    Review {
        /// Seq of its `rolled_back` record.
        rollback: Seq,
    },
    /// Destroy the data keys of a subject, so that what they sealed is unreadable for ever.
    EraseSubject {
        /// Whose, as written in sealed values.
        subject: String,
        /// Even when containers use what is sealed.
        even_in_use: bool,
    },
    /// Lift an app's latch.
    Unlatch {
        /// Which.
        app_env: AppEnv,
    },
    /// Make a token known.
    CreateToken {
        /// The token.
        token: Token,
    },
    /// Stop believing a principal's token.
    RevokeToken {
        /// Whose.
        principal: PrincipalId,
    },
    /// Let a node join.
    CreateJoinToken {
        /// The token.
        token: JoinToken,
    },
    /// A node joins. Region and labels come from the token.
    EnrollNode {
        /// SHA-256 of the join token.
        join_token: Digest,
        /// The node; its region and labels are ignored.
        node: EnrolledNode,
    },
    /// Set a node's labels.
    LabelNode {
        /// Which.
        node: NodeName,
        /// All of its labels.
        labels: BTreeMap<String, String>,
    },
    /// Take a node out of the fleet.
    RemoveNode {
        /// Which.
        node: NodeName,
    },
    /// Nodes' verified reports.
    Report {
        /// At most one per node.
        reports: Vec<Report>,
    },
    /// Nodes not heard of, or heard of again.
    MarkNodes {
        /// Newly lost.
        lost: Vec<NodeName>,
        /// Newly returned.
        returned: Vec<NodeName>,
    },
    /// By the conductor: where instances should be.
    Place {
        /// Which.
        app_env: AppEnv,
        /// Changes only.
        slots: Vec<(Slot, Option<NodeName>)>,
    },
    /// By the conductor: what nodes are told.
    Assign {
        /// Which.
        app_env: AppEnv,
        /// Changes only. The serial of a new instance is set when decided.
        changes: Vec<AssignmentChange>,
    },
    /// By the conductor: a deployment ended.
    FinishDeployment {
        /// Which app and environment.
        app_env: AppEnv,
        /// Seq of its start.
        deployment: Seq,
        /// How.
        outcome: Outcome,
    },
    /// By the leader: its term's first record.
    StartTerm {
        /// Raft's term.
        term: u64,
        /// The leader.
        controller: ControllerId,
    },
    /// By the leader: Raft's configuration changed.
    RecordMembership {
        /// Who votes.
        voters: Vec<ControllerId>,
        /// Who only follows.
        learners: Vec<ControllerId>,
    },
    /// By the leader: record the digest of State.
    RecordStateDigest,
    /// By a controller: somebody was refused.
    RecordRefusal {
        /// What they asked for.
        action: String,
        /// On what.
        scope: String,
        /// Why not.
        why: String,
    },
    /// By a controller that does not run, after the others were lost for good: go on without them.
    RecoverFleet {
        /// The one that is left.
        controller: ControllerId,
        /// All others that it knows of.
        given_up: Vec<ControllerId>,
    },
    /// Make an administrator's token known, if none is valid any more: a controller asks for it on the word of whoever
    /// governs its host.
    RestoreAdmin {
        /// The token.
        token: Token,
    },
    /// Give a node nothing new, and have what runs on it go elsewhere.
    DrainNode {
        /// Which.
        node: NodeName,
    },
    /// Let a drained node get something again.
    ResumeNode {
        /// Which.
        node: NodeName,
    },
}

impl Command {
    /// The earlier States that deciding it needs, by seq.
    pub fn past_seqs(&self) -> Vec<Seq> {
        match self {
            Self::Rollback { seq, .. } => vec![*seq],
            Self::Undo { decisions, .. } => {
                decisions.iter().flat_map(|it| [it.first.saturating_sub(1), it.last()]).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Which release to deploy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseChoice {
    /// This content: an existing release when it is one, else a new one.
    Content {
        /// The release.
        release: Release,
        /// What each image was asked for as, before it was resolved.
        images: FlatMap<ServiceName, String>,
    },
    /// An existing release by number.
    Number(u32),
}
