//! Who waits for the replica's thread, and for what.

use stele_ledger::Outcome;
use stele_model::State;
use tokio::sync::oneshot;

/// A caller that waits for a decision.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// The conductor: it looks again anyway.
    Nobody,
    /// Somebody on the other end of a channel.
    Caller(oneshot::Sender<Outcome>),
}

impl Waiter {
    pub(crate) fn tell(self, outcome: Outcome) {
        if let Self::Caller(caller) = self {
            // A caller that went away needs no answer.
            let _ = caller.send(outcome);
        }
    }
}

/// A caller that waits for leadership to be confirmed.
#[derive(Debug)]
pub(crate) enum Reading {
    /// Wants State.
    State(oneshot::Sender<State>),
    /// Has an answer that rests on a State nothing was in flight for.
    Outcome(Waiter, Outcome),
}
