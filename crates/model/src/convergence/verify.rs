//! Believing a proof, or saying where it is wrong.

use std::collections::BTreeMap;

use super::{ConvergenceProof, Summary, expected_of, moving, moving_by_revision, summarise};
use crate::digest::Digest;
use crate::ids::NodeName;
use crate::signature::{PublicKey, Purpose, SignatureError};
use crate::state::State;
use crate::wire::{Heartbeat, OpenError, Signed};

/// Why a convergence proof is not believed.
#[derive(Debug, thiserror::Error)]
pub enum ProofRefused {
    /// The root did not vouch for the controller's key.
    #[error("its controller's certificate is not believed: {0}")]
    Certificate(#[source] SignatureError),
    /// Not signed by that key, or no such proof.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Nodes are listed twice or out of order.
    #[error("node {0} is not in its place: nodes are listed once each, in order of their names")]
    Order(NodeName),
    /// A node's statement is not its own.
    #[error("the statement of node {node} is not believed: {why}")]
    Statement {
        /// Which node.
        node: NodeName,
        /// What is wrong.
        why: String,
    },
    /// The folded digests are not those of the nodes listed.
    #[error("the nodes listed fold into {what} {found}, the proof claims {claimed}")]
    Fold {
        /// Which of the two digests.
        what: &'static str,
        /// Recomputed.
        found: Digest,
        /// As written.
        claimed: Digest,
    },
    /// It is not about the State it says.
    #[error("State at seq {seq} says otherwise: {what}")]
    State {
        /// The record.
        seq: u64,
        /// What differs.
        what: String,
    },
}

/// Verifies every signature in a proof and everything it computes, offline.
///
/// What then stands: each node listed said of itself what the summary says, and a controller
/// that the root certified vouches for the list: the nodes' keys, and what each was told.
/// [`against`] takes that off the controller's word, too. Without a root, whoever made the proof
/// may have made up the nodes.
pub fn open(signed: &Signed, root: Option<&PublicKey>) -> Result<(ConvergenceProof, Summary), ProofRefused> {
    let certificate = signed.peek::<ConvergenceProof>()?.controller;
    if let Some(root) = root {
        // Before the rest is read: what nobody vouches for is not worth the work.
        let fleet = &certificate.body.fleet;
        certificate.check(root, fleet, None).map_err(ProofRefused::Certificate)?;
    }
    let proof: ConvergenceProof = signed.open(&certificate.body.key, Purpose::Convergence)?;
    if let Some(root) = root {
        certificate.check(root, &proof.fleet, Some(proof.made)).map_err(ProofRefused::Certificate)?;
    }
    for pair in proof.nodes.windows(2) {
        if let [left, right] = pair
            && left.name >= right.name
        {
            return Err(ProofRefused::Order(right.name.clone()));
        }
    }
    for node in &proof.nodes {
        let Some(statement) = &node.statement else { continue };
        let refused = |why: String| ProofRefused::Statement { node: node.name.clone(), why };
        let said: Heartbeat =
            statement.open(&node.key, Purpose::Heartbeat).map_err(|error| refused(error.to_string()))?;
        if said.node != node.name || said.fleet != proof.fleet || said.region != node.region {
            return Err(refused(format!("it is of {} in {}, fleet {}", said.node, said.region, said.fleet)));
        }
    }
    let summary = summarise(&proof);
    for (what, found, claimed) in
        [("expected", summary.expected, proof.expected), ("observed", summary.observed, proof.observed)]
    {
        if found != claimed {
            return Err(ProofRefused::Fold { what, found, claimed });
        }
    }
    Ok((proof, summary))
}

/// Compares what a proof says of State with State itself, folded from a verified log up to the
/// proof's record: every node is listed, with the key it enrolled with and what it was told.
pub fn against(proof: &ConvergenceProof, state: &State) -> Result<(), ProofRefused> {
    let refused = |what: String| ProofRefused::State { seq: proof.seq, what };
    if state.seq != proof.seq {
        return Err(refused(format!("State is at seq {}", state.seq)));
    }
    let digest = state.clone().digest();
    if digest != proof.state_digest {
        return Err(refused(format!("its digest is {digest}, not {}", proof.state_digest)));
    }
    let expected = expected_of(state, &proof.scope);
    let listed: BTreeMap<_, _> = proof.nodes.iter().map(|node| (&node.name, node)).collect();
    for node in &expected {
        let Some(listed) = listed.get(&node.name) else {
            return Err(refused(format!("node {} is left out", node.name)));
        };
        let bare = super::NodeEvidence { heard: None, statement: None, ..(*listed).clone() };
        if bare != *node {
            return Err(refused(format!("node {} is another, or was told something else", node.name)));
        }
    }
    if listed.len() != expected.len() {
        return Err(refused(format!("it has {} nodes, not {}", expected.len(), listed.len())));
    }
    let is_moving = [moving, moving_by_revision].iter().any(|rule| rule(state, &proof.scope) == proof.moving);
    if !is_moving {
        return Err(refused("other apps are on their way".to_owned()));
    }
    Ok(())
}
