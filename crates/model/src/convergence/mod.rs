//! The proof that the fleet is what State says: what every node should run, beside what
//! each node says, under its own signature, that it found when it looked.
//!
//! Controllers gather it ([`gather`]); anybody can judge it without trusting them for what
//! runs ([`open`]), and with the log also for what should run ([`against`]).

mod judge;
mod verify;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::ids::{AppEnv, FleetName, NodeName, RegionName, Seq, Slot, Time};
use crate::scope::Scope;
use crate::signature::{Certificate, PublicKey};
use crate::specs::Specs;
use crate::state::{AssignedTo, State};
use crate::wire::{AssignmentVersion, Signed, observed_digest};

pub use judge::{NodeSummary, RegionSummary, Summary, summarise};
pub use verify::{ProofRefused, against, open};

/// What the fleet should be at a record, and what each node says it is. Signed by a controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConvergenceProof {
    /// The fleet.
    pub fleet: FleetName,
    /// Which of its nodes are in it.
    pub scope: Scope,
    /// The record State is as of.
    pub seq: Seq,
    /// Its time.
    pub time: Time,
    /// Digest of all of State there; the log records such digests.
    pub state_digest: Digest,
    /// The controller's signed checkpoint of the log at exactly that record, when there was one in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// When it was made, by the controller's clock.
    pub made: Time,
    /// Apps whose nodes have not been told everything yet: they are on their way.
    pub moving: Vec<AppEnv>,
    /// The nodes, in order of their names.
    pub nodes: Vec<NodeEvidence>,
    /// Over what every node should be: see [`Summary::expected`].
    pub expected: Digest,
    /// Over what every node says it is: see [`Summary::observed`].
    pub observed: Digest,
    /// Whose signature it carries, and the root's word for that key.
    pub controller: Certificate,
}

/// One node in a [`ConvergenceProof`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEvidence {
    /// Its name.
    pub name: NodeName,
    /// Its region.
    pub region: RegionName,
    /// Its key, as enrolled.
    pub key: PublicKey,
    /// The version of what it was told.
    pub assigned: AssignmentVersion,
    /// What [`crate::wire::Observed::digest`] is when everything is as told.
    pub expected: Digest,
    /// How many instances it was told to run.
    pub instances: u32,
    /// Whether the log says that it was not heard of for longer than its grace period.
    pub lost: bool,
    /// When its statement arrived, by the controller's clock.
    pub heard: Option<Time>,
    /// Its newest signed [`crate::wire::Heartbeat`], byte for byte.
    pub statement: Option<Signed>,
}

/// A node's newest statement, as a controller keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// When it arrived, by the controller's clock.
    pub heard: Time,
    /// A signed [`crate::wire::Heartbeat`].
    pub signed: Signed,
}

/// Puts together what State expects and what nodes stated.
pub fn gather(
    state: &State,
    scope: &Scope,
    made: Time,
    statements: impl Fn(&NodeName) -> Option<Statement>,
    checkpoint: Option<String>,
    controller: Certificate,
) -> ConvergenceProof {
    let mut nodes = expected_of(state, scope);
    for node in &mut nodes {
        if let Some(statement) = statements(&node.name) {
            node.heard = Some(statement.heard);
            node.statement = Some(statement.signed);
        }
    }
    let mut proof = ConvergenceProof {
        fleet: controller.body.fleet.clone(),
        scope: scope.clone(),
        seq: state.seq,
        time: state.time,
        state_digest: state.clone().digest(),
        checkpoint,
        made,
        moving: moving(state, scope),
        nodes,
        expected: Digest::EMPTY,
        observed: Digest::EMPTY,
        controller,
    };
    let summary = summarise(&proof);
    proof.expected = summary.expected;
    proof.observed = summary.observed;
    proof
}

/// What State says of the nodes of a scope, without anything they stated.
fn expected_of(state: &State, scope: &Scope) -> Vec<NodeEvidence> {
    let any_app = scope.app.is_none() && scope.project.is_none() && scope.environment.is_none();
    let mut nodes = Vec::new();
    for (name, enrolled) in &state.control.nodes {
        let assigned = state.assigned.get(name);
        let has_app = || {
            assigned.is_some_and(|it| it.instances.keys().any(|id| scope.covers_app_env(&id.slot.app_env)))
        };
        if !scope.covers_node(name, Some(&enrolled.region)) || !(any_app || has_app()) {
            continue;
        }
        let instances = assigned.into_iter().flat_map(|assigned| &assigned.instances);
        nodes.push(NodeEvidence {
            name: name.clone(),
            region: enrolled.region.clone(),
            key: enrolled.key.clone(),
            assigned: state.assignment_version(name),
            expected: observed_digest(instances.map(|(id, to)| (id, *to.spec))),
            instances: assigned.map_or(0, |it| u32::try_from(it.instances.len()).unwrap_or(u32::MAX)),
            lost: state.observed.get(name).is_some_and(|seen| seen.lost),
            heard: None,
            statement: None,
        });
    }
    nodes
}

/// What tells whether an instance of a slot on a node is what should be there.
type IsAsTold<'a> = dyn FnMut(&'a Slot, &'a NodeName, &'a AssignedTo) -> bool + 'a;

/// The apps of a scope of which nodes were not told yet all that the target says: a container whose spec another
/// revision left as it was is not made anew, and stays assigned under the revision it was made of.
fn moving(state: &State, scope: &Scope) -> Vec<AppEnv> {
    let mut specs: Option<(&AppEnv, Specs<'_>)> = None;
    moving_by(state, scope, &mut |slot, node, to| {
        // Those of one app are together.
        if specs.as_ref().is_none_or(|(app_env, _)| **app_env != slot.app_env) {
            specs = Some((&slot.app_env, Specs::new(state, &slot.app_env)));
        }
        specs.as_mut().and_then(|(_, specs)| specs.at(slot, node)).is_some_and(|spec| to.spec == spec)
    })
}

/// The same as proofs say that were made when revisions were compared, not specs.
fn moving_by_revision(state: &State, scope: &Scope) -> Vec<AppEnv> {
    moving_by(state, scope, &mut |slot, node, to| {
        state.revision_at(&slot.app_env, node) == Some(to.revision.as_ref())
    })
}

fn moving_by<'a>(state: &'a State, scope: &Scope, is_as_told: &mut IsAsTold<'a>) -> Vec<AppEnv> {
    let mut moving = std::collections::BTreeSet::new();
    for (slot, node) in state.target.placement.iter().filter(|(slot, _)| scope.covers_app_env(&slot.app_env))
    {
        if !state.assigned_in(slot, node).any(|(_, to)| is_as_told(slot, node, to)) {
            moving.insert(&slot.app_env);
        }
    }
    for (node, assigned) in &state.assigned {
        for id in assigned.instances.keys().filter(|id| scope.covers_app_env(&id.slot.app_env)) {
            if state.target.placement.get(&id.slot) != Some(node) {
                moving.insert(&id.slot.app_env);
            }
        }
    }
    moving.into_iter().cloned().collect()
}

#[cfg(test)]
mod tests;
