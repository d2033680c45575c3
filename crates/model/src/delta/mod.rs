//! What differs between two States, as something that can be kept and put on again.
//!
//! Two States of one log share most of their maps, and a comparison skips what they
//! share. So a difference costs what changed and no more, however large State is. Annals
//! are left out: what they held earlier is read off what they hold later. The rest is in three parts
//! that are kept apart, for most of what is asked of the past needs but one: what should be and what
//! governs ([`TargetDelta`]), what became of it ([`ProgressDelta`]), and what requests were answered
//! ([`AnswersDelta`]).

use imbl::OrdMap;

use crate::annals::Annals;
use crate::ids::Seq;
use crate::index::Index;
use crate::leaf::Leaves;
use crate::state::{Control, History, State, Target};

mod answers;
mod changes;
mod excerpt;
mod progress;
mod target;

pub use answers::{Answers, AnswersDelta};
use changes::{first, text};
pub use excerpt::{Excerpt, Interest};
pub use progress::{AppChange, NodeChange, ProgressDelta, ProgressHead};
use progress::{first_nested, first_of_apps};
use target::{Maps, Sets, first_of_target};
pub use target::{TargetChange, TargetDelta, TargetHead, TargetOutline};

/// Everything that differs between an earlier outline and a later one.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// What should be, and what governs.
    pub target: TargetDelta,
    /// What became of it.
    pub progress: ProgressDelta,
}

/// A delta is put on another State than the one it was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a difference from seq {from} cannot be put on State at seq {found}")]
pub struct DeltaError {
    /// Where it begins.
    pub from: Seq,
    /// Where the State is.
    pub found: Seq,
}

/// The first fact in which two States differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Which, such as `observed[eu-1].instances[shop/web@prod/web.0-12]`.
    pub field: String,
    /// What one State has, as JSON; absent when it has none.
    pub one: Option<String>,
    /// What the other has.
    pub other: Option<String>,
}

/// Lists State's annals, of which deltas say nothing.
macro_rules! annals {
    ($($map:ident;)*) => {
        impl History {
            /// Without its annals, and without what was answered.
            fn outline(&self) -> Self {
                Self {
                    $($map: Annals::default(),)*
                    answered: OrdMap::new(),
                    answered_by_age: OrdMap::new(),
                    ..self.clone()
                }
            }

            /// With the annals as a later history of the same log knows them.
            fn with_annals(&self, later: &Self, through: Seq) -> Self {
                Self { $($map: later.$map.as_of(through),)* ..self.clone() }
            }

            fn annals_mismatch(&self, other: &Self) -> Option<Mismatch> {
                None$(.or_else(|| {
                    let (key, one, other) = self.$map.first_difference(&other.$map)?;
                    let field = format!("history.{}[{key:?}]", stringify!($map));
                    Some(Mismatch { field, one: one.map(text), other: other.map(text) })
                }))*
            }
        }
    };
}

annals! {
    releases;
    numbers;
    configs;
    config_versions;
    secrets;
}

/// A part of State that is not named here does not compile: it would be missing from every delta.
fn nothing_is_left_out(state: &State) {
    let State { seq: _, time: _, target, assigned: _, observed: _, control, history, leaves: _, index: _ } =
        state;
    let Target { intent: _, placement: _, pins: _ } = target;
    let Control {
        fleet: _,
        controllers: _,
        voters: _,
        learners: _,
        retired: _,
        tokens: _,
        bearers: _,
        join_tokens: _,
        nodes: _,
        drained: _,
        projects: _,
        environments: _,
        apps: _,
        latches: _,
        refusals: _,
        marked_bad: _,
        reviews: _,
        erased: _,
    } = control;
    let History {
        term: _,
        leader: _,
        releases: _,
        numbers: _,
        configs: _,
        config_versions: _,
        secrets: _,
        deployments: _,
        deployments_of: _,
        latest: _,
        changes: _,
        last_changed: _,
        barriers: _,
        answered: _,
        answered_by_age: _,
    } = history;
}

/// A State without its annals, and without what was answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Outline(State);

impl Default for Outline {
    /// That of the State before the first record.
    fn default() -> Self {
        Self::of(&State::default())
    }
}

impl Outline {
    /// Of a State.
    pub fn of(state: &State) -> Self {
        let history = state.history.outline();
        // Digests are of what is left out, too.
        Self(State { history, leaves: Leaves::partial(), index: Index::default(), ..state.clone() })
    }

    /// The last record folded.
    pub fn seq(&self) -> Seq {
        self.0.seq
    }

    /// The State that this is the outline of, with annals as a later State of the same log knows them,
    /// and without what was answered: it has no digest until [`Answers::put_into`] it.
    /// Records of that log up to `through` may be folded onto it; other ones may only be when that is
    /// its own seq.
    ///
    /// # Panics
    ///
    /// When the other State is not as late.
    pub fn filled(&self, later: &State, through: Seq) -> State {
        assert!(self.seq() <= through && through <= later.seq, "annals are read off a later State");
        State { history: self.0.history.with_annals(&later.history, through), ..self.0.clone() }
    }

    /// Its target, and what governs.
    pub fn target(&self) -> TargetOutline {
        TargetOutline::of(&self.0)
    }

    /// The first fact in which this outline differs from another; none when they are equal.
    pub fn first_mismatch(&self, other: &Self) -> Option<Mismatch> {
        self.0.first_mismatch(&other.0)
    }
}

impl Delta {
    /// What must change in `before` to get `after`. It is the same for the same two
    /// outlines, however they came about.
    pub fn between(before: &Outline, after: &Outline) -> Self {
        let (Outline(before), Outline(after)) = (before, after);
        nothing_is_left_out(after);
        Self { target: TargetDelta::between(before, after), progress: ProgressDelta::between(before, after) }
    }

    /// The seq it begins at.
    pub fn from(&self) -> Seq {
        self.progress.head.from.0
    }

    /// The seq it leads to.
    pub fn to(&self) -> Seq {
        self.progress.head.to.0
    }

    /// How many facts it sets or removes.
    pub fn count(&self) -> usize {
        self.target.count() + self.progress.count()
    }

    /// Turns the earlier outline into the later one.
    pub fn put_on(self, outline: &mut Outline) -> Result<(), DeltaError> {
        let Outline(state) = outline;
        let Self { target, progress } = self;
        for from in [target.head.from, progress.head.from] {
            if from != (state.seq, state.time) {
                return Err(DeltaError { from: from.0, found: state.seq });
            }
        }
        if target.head.to != progress.head.to {
            return Err(DeltaError { from: target.head.to.0, found: progress.head.to.0 });
        }
        progress.head.put(state);
        target.put(state);
        progress.put(state);
        Ok(())
    }
}

impl State {
    /// The first fact in which this State differs from another; none when they are equal.
    pub fn first_mismatch(&self, other: &Self) -> Option<Mismatch> {
        let scalar = |field: &str, one: String, other: String| {
            (one != other).then(|| Mismatch { field: field.to_owned(), one: Some(one), other: Some(other) })
        };
        let (ours, theirs) = (&self.history, &other.history);
        scalar("seq", self.seq.to_string(), other.seq.to_string())
            .or_else(|| scalar("time", self.time.0.to_string(), other.time.0.to_string()))
            .or_else(|| scalar("control.fleet", text(&self.control.fleet), text(&other.control.fleet)))
            .or_else(|| scalar("history.term", ours.term.to_string(), theirs.term.to_string()))
            .or_else(|| scalar("history.leader", ours.leader.to_string(), theirs.leader.to_string()))
            .or_else(|| first_nested(self, other))
            .or_else(|| first_of_target(self, other))
            .or_else(|| Maps::mismatch(self, other))
            .or_else(|| first_of_apps(ours, theirs))
            .or_else(|| first("history.deployments_of", &ours.deployments_of, &theirs.deployments_of))
            .or_else(|| first("history.answered", &ours.answered, &theirs.answered))
            .or_else(|| first("history.answered_by_age", &ours.answered_by_age, &theirs.answered_by_age))
            .or_else(|| ours.annals_mismatch(theirs))
            .or_else(|| Sets::mismatch(self, other))
    }
}
