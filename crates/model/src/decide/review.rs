//! What people say about points of the past and about rollbacks.

use crate::event::{Event, Holder};
use crate::ids::{PrincipalId, Seq};
use crate::limits::MARKED_BAD_MAX;
use crate::rejection::{Rejection, RejectionKind};
use crate::scope::Scope;
use crate::state::State;

pub(super) fn mark_point(state: &State, scope: &Scope, seq: Seq, bad: bool) -> Result<Vec<Event>, Rejection> {
    if seq == 0 || seq > state.seq {
        return Err(Rejection::new(
            RejectionKind::NotFound,
            format!("there is no seq:{seq} to mark: the log ends at seq:{}", state.seq),
        ));
    }
    let is_marked = state.control.marked_bad.contains(&(scope.clone(), seq));
    if !is_marked && !bad {
        return Err(not_marked(state, scope, seq));
    }
    if is_marked && bad {
        return Ok(Vec::new());
    }
    if bad && state.control.marked_bad.len() >= MARKED_BAD_MAX {
        return Err(Rejection::new(
            RejectionKind::TooLarge,
            format!("{MARKED_BAD_MAX} points are marked bad already"),
        )
        .with_next("stele mark-bad SCOPE POINT --clear"));
    }
    Ok(vec![Event::PointMarked { scope: scope.clone(), seq, bad }])
}

/// A name of a point, such as `v3`, may lead to another seq by now than when it was marked.
fn not_marked(state: &State, scope: &Scope, seq: Seq) -> Rejection {
    let marks = state.control.marked_bad.iter().filter(|(marked, _)| marked == scope);
    let marks: Vec<_> = marks.map(|(_, seq)| format!("marked bad is seq:{seq}")).collect();
    let message = format!("{scope} is not marked bad at seq:{seq}");
    let rejection = Rejection::new(RejectionKind::NotFound, message);
    if marks.is_empty() {
        return rejection;
    }
    rejection.with_details(marks).with_next(format!("stele mark-bad {scope} seq:N --clear"))
}

pub(super) fn review(state: &State, principal: &PrincipalId, rollback: Seq) -> Result<Vec<Event>, Rejection> {
    let Some(actor) = state.control.reviews.get(&rollback) else {
        return Err(Rejection::new(
            RejectionKind::NotFound,
            format!("no rollback with seq {rollback} waits for a review"),
        )
        .with_next("stele review"));
    };
    let is_person =
        state.control.tokens.get(principal).is_some_and(|token| matches!(token.holder, Holder::Person));
    if actor == principal || !is_person {
        return Err(Rejection::new(
            RejectionKind::Forbidden,
            format!("the rollback {rollback} was done by {actor}: a person other than that reviews it"),
        ));
    }
    Ok(vec![Event::Reviewed { rollback }])
}
