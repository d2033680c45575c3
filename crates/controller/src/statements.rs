//! What each node last stated about itself, signed, for the proof of convergence.
//!
//! Kept in memory alone and by every controller: nodes state it anew with every heartbeat.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use stele_model::convergence::{ConvergenceProof, Statement, gather};
use stele_model::limits::STATEMENT_AGE_US_MAX;
use stele_model::signature::Purpose;
use stele_model::wire::Signed;
use stele_model::{NodeName, Scope, State, Time};

use crate::handle::Handle;
use crate::limits::CHECKPOINT_DEADLINE;

/// The newest verified statement of each node.
#[derive(Default)]
pub(crate) struct Statements(Mutex<BTreeMap<NodeName, Kept>>);

struct Kept {
    stated: Option<Time>,
    statement: Statement,
}

impl Statements {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeName, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a statement that its node signed, unless a newer one is kept: whoever repeats old
    /// messages does not turn the proof back.
    pub(crate) fn keep(
        &self,
        state: &State,
        node: &NodeName,
        stated: Option<Time>,
        signed: Signed,
        heard: Time,
    ) {
        let mut kept = self.lock();
        if let Some(last) = kept.get(node) {
            // Once it is too old to count, a clock that was set back may begin anew.
            let counts = heard.0.saturating_sub(last.statement.heard.0) <= STATEMENT_AGE_US_MAX;
            if counts && last.stated >= stated {
                return;
            }
        }
        kept.insert(node.clone(), Kept { stated, statement: Statement { heard, signed } });
        // One for each node of the fleet and no more.
        if kept.len() > state.control.nodes.len() {
            kept.retain(|name, _| state.control.nodes.contains_key(name));
        }
    }

    fn of(&self, node: &NodeName) -> Option<Statement> {
        self.lock().get(node).map(|kept| kept.statement.clone())
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
            |node| self.0.statements.of(node),
            checkpoint,
            identity.certificate.clone(),
        );
        identity.sign(Purpose::Convergence, &proof)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use stele_model::event::EnrolledNode;
    use stele_model::signature::{PublicKey, Signature};

    use super::*;

    fn signed(text: &str) -> Signed {
        Signed { body: text.to_owned(), signature: Signature(String::new()) }
    }

    fn state(nodes: &[&str]) -> State {
        let mut state = State::default();
        for name in nodes {
            let name: NodeName = name.parse().unwrap();
            let node = EnrolledNode {
                name: name.clone(),
                region: "eu".parse().unwrap(),
                labels: BTreeMap::new(),
                key: PublicKey(String::new()),
                sealing_key: String::new(),
                address: None,
            };
            state.control.nodes.insert(name, Arc::new(node));
        }
        state
    }

    #[test]
    fn the_newest_is_kept_and_an_old_one_repeated_is_not() {
        let statements = Statements::default();
        let (state, node) = (state(&["eu-1"]), "eu-1".parse().unwrap());
        let keep = |stated, text: &str, heard| {
            statements.keep(&state, &node, Some(Time(stated)), signed(text), Time(heard));
            statements.of(&node).unwrap().signed.body
        };
        assert_eq!(keep(100, "first", 100), "first");
        assert_eq!(keep(200, "second", 200), "second");
        assert_eq!(keep(100, "first", 300), "second");
        let later = 200 + STATEMENT_AGE_US_MAX + 1;
        assert_eq!(keep(150, "with its clock set back", later), "with its clock set back");
    }

    #[test]
    fn nodes_that_left_are_forgotten() {
        let statements = Statements::default();
        let both = state(&["eu-1", "eu-2"]);
        for name in ["eu-1", "eu-2"] {
            statements.keep(&both, &name.parse().unwrap(), None, signed("x"), Time(1));
        }
        let one = state(&["eu-1"]);
        statements.keep(&one, &"eu-1".parse().unwrap(), Some(Time(2)), signed("y"), Time(2));
        assert!(statements.of(&"eu-2".parse().unwrap()).is_none());
    }
}
