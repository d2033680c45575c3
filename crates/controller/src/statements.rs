//! What each node last stated about itself, signed, for the proof of convergence.
//!
//! Kept in memory alone and by every controller: nodes state it anew with every heartbeat.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use stele_bus::purposes;
use stele_model::convergence::{ConvergenceProof, Statement, gather};
use stele_model::event::EnrolledNode;
use stele_model::signature::{PublicKey, Purpose};
use stele_model::wire::{Heartbeat, Position, Signed};
use stele_model::{NodeName, Scope, State, Time};

use crate::handle::Handle;
use crate::limits::CHECKPOINT_DEADLINE;

/// The newest statement of each node.
#[derive(Default)]
pub(crate) struct Statements(Mutex<BTreeMap<NodeName, Kept>>);

struct Kept {
    /// Whose they are: a node that joins again under its name begins anew.
    key: PublicKey,
    /// Its node signed it.
    verified: Option<Stated>,
    /// A newer one whose signature nobody has looked at; it never replaces one that is good.
    claimed: Option<Stated>,
}

#[derive(Clone)]
struct Stated {
    /// Absent from agents that do not count their heartbeats.
    position: Option<Position>,
    statement: Statement,
}

impl Stated {
    /// Whether it is to be kept instead of an earlier one: whoever repeats old messages does not turn the proof back.
    fn replaces(&self, last: Option<&Self>) -> bool {
        match (self.position, last.and_then(|last| last.position)) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(this), Some(last)) => this.is_after(last),
        }
    }
}

impl Statements {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeName, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a statement, unless a newer one is kept. Only one whose signature `is_verified` counts for
    /// sure; another is looked at when it is asked for.
    pub(crate) fn keep(
        &self,
        state: &State,
        node: &EnrolledNode,
        position: Option<Position>,
        signed: Signed,
        heard: Time,
        is_verified: bool,
    ) {
        let mut kept = self.lock();
        let new = Stated { position, statement: Statement { heard, signed } };
        let nothing = || Kept { key: node.key.clone(), verified: None, claimed: None };
        let of_node = kept.entry(node.name.clone()).or_insert_with(nothing);
        if of_node.key != node.key {
            *of_node = nothing();
        }
        let last = if is_verified { &mut of_node.verified } else { &mut of_node.claimed };
        if !new.replaces(last.as_ref()) {
            return;
        }
        *last = Some(new);
        // One for each node of the fleet and no more.
        if kept.len() > state.control.nodes.len() {
            kept.retain(|name, _| state.control.nodes.contains_key(name));
        }
    }

    /// Where the last heartbeat that its node signed stands among all of them, as far as it is known here.
    pub(crate) fn position(&self, state: &State, node: &EnrolledNode) -> Option<Position> {
        let statement = self.of(&node.name, |signed| is_of(state, &node.name, signed))?;
        statement.signed.peek::<Heartbeat>().ok()?.position()
    }

    fn of(&self, node: &NodeName, is_signed: impl Fn(&Signed) -> bool) -> Option<Statement> {
        let mut kept = self.lock();
        let Kept { verified, claimed, .. } = kept.get_mut(node)?;
        if let Some(claimed) = claimed.take()
            && claimed.replaces(verified.as_ref())
            && is_signed(&claimed.statement.signed)
        {
            *verified = Some(claimed);
        }
        verified.as_ref().map(|it| it.statement.clone())
    }
}

impl Handle {
    /// The signed proof of how far the nodes of a scope are what State says: the first State from the
    /// one asked about on that a checkpoint signs too, if there is one in time.
    pub(crate) async fn prove_convergence(&self, state: &State, scope: &Scope) -> Signed {
        let identity = self.identity();
        let signed = self.proofs().signed_since(state.seq, CHECKPOINT_DEADLINE).await;
        let (state, checkpoint) = match &signed {
            Some((later, signed)) => (later, Some(signed.to_string())),
            None => (state, None),
        };
        let proof: ConvergenceProof = gather(
            state,
            scope,
            self.now(),
            |node| self.0.statements.of(node, |signed| is_of(state, node, signed)),
            checkpoint,
            identity.certificate.clone(),
        );
        identity.sign(Purpose::Convergence, &proof)
    }
}

/// Whether a node signed a statement, and of itself.
fn is_of(state: &State, node: &NodeName, signed: &Signed) -> bool {
    let enrolled = state.control.nodes.get(node);
    let opened = enrolled.and_then(|it| signed.open::<Heartbeat>(&it.key, purposes::HEARTBEAT).ok());
    opened.is_some_and(|heartbeat| heartbeat.node == *node)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use stele_model::signature::Signature;

    use super::*;

    fn signed(text: &str) -> Signed {
        Signed { body: text.to_owned(), signature: Signature(String::new()) }
    }

    fn node(name: &str, key: &str) -> EnrolledNode {
        EnrolledNode {
            name: name.parse().unwrap(),
            region: "eu".parse().unwrap(),
            labels: BTreeMap::new(),
            key: PublicKey(key.to_owned()),
            sealing_key: String::new(),
            address: None,
        }
    }

    fn state(nodes: &[&str]) -> State {
        let mut state = State::default();
        for name in nodes {
            state.control.nodes.insert(name.parse().unwrap(), Arc::new(node(name, "")));
        }
        state
    }

    fn at(boot: u64, number: u64) -> Position {
        Position { boot, number }
    }

    #[test]
    fn the_newest_is_kept_and_an_old_one_repeated_is_not() {
        let statements = Statements::default();
        let state = state(&["eu-1"]);
        let keep = |key: &str, position, text: &str| {
            statements.keep(&state, &node("eu-1", key), position, signed(text), Time(1), true);
            statements.of(&"eu-1".parse().unwrap(), |_| false).unwrap().signed.body
        };
        assert_eq!(keep("a", Some(at(7, 1)), "first"), "first");
        assert_eq!(keep("a", Some(at(7, 2)), "second"), "second");
        assert_eq!(keep("a", Some(at(7, 1)), "first"), "second");
        assert_eq!(keep("a", Some(at(6, 9)), "of the boot before"), "second");
        assert_eq!(keep("a", None, "from before heartbeats were counted"), "second");
        assert_eq!(keep("a", Some(at(8, 1)), "of the next boot"), "of the next boot");
        assert_eq!(keep("b", Some(at(3, 1)), "of who has its name now"), "of who has its name now");
    }

    #[test]
    fn what_nobody_looked_at_counts_once_its_signature_is_good() {
        let statements = Statements::default();
        let (state, node) = (state(&["eu-1"]), node("eu-1", ""));
        let keep = |number, text: &str, is_verified| {
            statements.keep(&state, &node, Some(at(1, number)), signed(text), Time(1), is_verified);
        };
        let of = |is_signed: bool| statements.of(&node.name, |_| is_signed).map(|it| it.signed.body);
        keep(1, "good", true);
        keep(2, "forged", false);
        assert_eq!(of(false).as_deref(), Some("good"));
        keep(4, "newer", false);
        assert_eq!(of(true).as_deref(), Some("newer"));
        keep(3, "old and repeated", false);
        assert_eq!(of(true).as_deref(), Some("newer"));
    }

    #[test]
    fn nodes_that_left_are_forgotten() {
        let statements = Statements::default();
        let both = state(&["eu-1", "eu-2"]);
        for name in ["eu-1", "eu-2"] {
            statements.keep(&both, &node(name, ""), None, signed("x"), Time(1), true);
        }
        let one = state(&["eu-1"]);
        statements.keep(&one, &node("eu-1", ""), Some(at(1, 2)), signed("y"), Time(2), true);
        assert!(statements.of(&"eu-2".parse().unwrap(), |_| false).is_none());
    }
}
