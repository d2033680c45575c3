//! The newest State whose digest was made beside the replica's thread, which then need not make it again.

use std::sync::{Arc, Mutex, PoisonError};

use stele_model::State;

/// Handed over, and taken once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Digested(Arc<Mutex<Option<State>>>);

impl Digested {
    /// Hands one over; it replaces one that was not taken.
    pub(crate) fn put(&self, state: State) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
    }

    /// Takes it.
    pub(crate) fn take(&self) -> Option<State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
