//! States at milestones, on their way from the replica's thread to the archive, which then need not make them
//! of the records again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use stele_model::{Seq, State};

use crate::limits::REACHED_MAX;

/// Handed over in order, and taken in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reached(Arc<Mutex<BTreeMap<Seq, State>>>);

impl Reached {
    /// Hands States over. Of too many, the earliest go: whoever is that late makes them himself.
    pub(crate) fn put(&self, milestones: Vec<State>) {
        if milestones.is_empty() {
            return;
        }
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.extend(milestones.into_iter().map(|state| (state.seq, state)));
        while waiting.len() > REACHED_MAX {
            waiting.pop_first();
        }
    }

    /// The State at a milestone, if it is here. It and all before it are not needed again.
    pub(crate) fn take(&self, seq: Seq) -> Option<State> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let after = waiting.split_off(&(seq + 1));
        std::mem::replace(&mut *waiting, after).remove(&seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_go_first() {
        let reached = Reached::default();
        let at = |seq| {
            let mut state = State::default();
            state.seq = seq;
            state
        };
        let seqs = 1..=REACHED_MAX as u64 + 2;
        reached.put(seqs.map(at).collect());
        assert!(reached.take(2).is_none());
        assert_eq!(reached.take(5).map(|state| state.seq), Some(5));
        assert!(reached.take(4).is_none());
        assert_eq!(reached.take(6).map(|state| state.seq), Some(6));
    }
}
