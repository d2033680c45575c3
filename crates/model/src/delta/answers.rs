//! What requests were answered: it changes with almost every decision, and only whoever decides, or wants
//! State's digest, looks at it.

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::changes::{Changes, first};
use super::{DeltaError, Mismatch};
use crate::ids::{PrincipalId, Seq};
use crate::leaf::Leaves;
use crate::state::{Answered, State};

/// What a State remembers to have answered lately.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    seq: Seq,
    answered: OrdMap<(PrincipalId, String), Answered>,
}

impl Answers {
    /// Of a State.
    ///
    /// # Panics
    ///
    /// When it was made from an outline and knows none.
    pub fn of(state: &State) -> Self {
        assert!(!state.leaves.are_partial(), "a State without its answers is asked for them");
        Self { seq: state.seq, answered: state.history.answered.clone() }
    }

    /// The last record folded.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Makes a State that was filled from an outline a whole one.
    ///
    /// # Panics
    ///
    /// When they are not of the same seq.
    pub fn put_into(self, state: &mut State) {
        assert_eq!(self.seq, state.seq, "answers belong to the State of their seq");
        let by_age = |((principal, key), it): (&(PrincipalId, String), &Answered)| {
            ((it.time, principal.clone(), key.clone()), ())
        };
        state.history.answered_by_age = self.answered.iter().map(by_age).collect();
        state.history.answered = self.answered;
        state.leaves = Leaves::default();
    }

    /// The first answer in which these differ from others; none when they are equal.
    pub fn first_mismatch(&self, other: &Self) -> Option<Mismatch> {
        first("history.answered", &self.answered, &other.answered)
    }
}

/// What differs between what an earlier State remembers to have answered, and a later one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswersDelta {
    from: Seq,
    to: Seq,
    answered: Changes<(PrincipalId, String), Answered>,
}

impl AnswersDelta {
    /// What must change in `before` to get `after`.
    pub fn between(before: &Answers, after: &Answers) -> Self {
        let answered = Changes::between(&before.answered, &after.answered);
        Self { from: before.seq, to: after.seq, answered }
    }

    /// Turns earlier answers into later ones.
    pub fn put_on(self, answers: &mut Answers) -> Result<(), DeltaError> {
        if self.from != answers.seq {
            return Err(DeltaError { from: self.from, found: answers.seq });
        }
        answers.seq = self.to;
        self.answered.put_on(&mut answers.answered);
        Ok(())
    }
}
