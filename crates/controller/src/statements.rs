//! What each node last stated about itself, signed, for the proof of convergence.
//!
//! Kept in memory alone and by every controller: nodes state it anew with every heartbeat.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use stele_bus::purposes;
use stele_model::convergence::{ConvergenceProof, Statement, gather};
use stele_model::limits::STATEMENT_AGE_US_MAX;
use stele_model::signature::Purpose;
use stele_model::wire::{Heartbeat, Signed};
use stele_model::{NodeName, Scope, State, Time};

use crate::handle::Handle;
use crate::limits::CHECKPOINT_DEADLINE;

/// The newest statement of each node.
#[derive(Default)]
pub(crate) struct Statements(Mutex<BTreeMap<NodeName, Kept>>);

#[derive(Default)]
struct Kept {
    /// Its node signed it.
    verified: Option<Stated>,
    /// A newer one whose signature nobody has looked at; it never replaces one that is good.
    claimed: Option<Stated>,
}

#[derive(Clone)]
struct Stated {
    stated: Option<Time>,
    statement: Statement,
}

impl Stated {
    /// Whether it is to be kept instead of an earlier one: whoever repeats old messages does not turn the
    /// proof back. Once that is too old to count, a clock that was set back may begin anew.
    fn replaces(&self, last: Option<&Self>) -> bool {
        last.is_none_or(|last| {
            let since = self.statement.heard.0.saturating_sub(last.statement.heard.0);
            since > STATEMENT_AGE_US_MAX || last.stated < self.stated
        })
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
        node: &NodeName,
        stated: Option<Time>,
        signed: Signed,
        heard: Time,
        is_verified: bool,
    ) {
        let mut kept = self.lock();
        let new = Stated { stated, statement: Statement { heard, signed } };
        let of_node = kept.entry(node.clone()).or_default();
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

    fn of(&self, node: &NodeName, is_signed: impl Fn(&Signed) -> bool) -> Option<Statement> {
        let mut kept = self.lock();
        let Kept { verified, claimed } = kept.get_mut(node)?;
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
            statements.keep(&state, &node, Some(Time(stated)), signed(text), Time(heard), true);
            statements.of(&node, |_| false).unwrap().signed.body
        };
        assert_eq!(keep(100, "first", 100), "first");
        assert_eq!(keep(200, "second", 200), "second");
        assert_eq!(keep(100, "first", 300), "second");
        let later = 200 + STATEMENT_AGE_US_MAX + 1;
        assert_eq!(keep(150, "with its clock set back", later), "with its clock set back");
    }

    #[test]
    fn what_nobody_looked_at_counts_once_its_signature_is_good() {
        let statements = Statements::default();
        let (state, node) = (state(&["eu-1"]), "eu-1".parse().unwrap());
        let keep = |stated, text: &str, is_verified| {
            statements.keep(&state, &node, Some(Time(stated)), signed(text), Time(stated), is_verified);
        };
        let of = |is_signed: bool| statements.of(&node, |_| is_signed).map(|it| it.signed.body);
        keep(100, "good", true);
        keep(200, "forged", false);
        assert_eq!(of(false).as_deref(), Some("good"));
        keep(300, "newer", false);
        assert_eq!(of(true).as_deref(), Some("newer"));
        keep(250, "old and repeated", false);
        assert_eq!(of(true).as_deref(), Some("newer"));
    }

    #[test]
    fn nodes_that_left_are_forgotten() {
        let statements = Statements::default();
        let both = state(&["eu-1", "eu-2"]);
        for name in ["eu-1", "eu-2"] {
            statements.keep(&both, &name.parse().unwrap(), None, signed("x"), Time(1), true);
        }
        let one = state(&["eu-1"]);
        statements.keep(&one, &"eu-1".parse().unwrap(), Some(Time(2)), signed("y"), Time(2), true);
        assert!(statements.of(&"eu-2".parse().unwrap(), |_| false).is_none());
    }
}
