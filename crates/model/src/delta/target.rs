//! What should be and what governs: all that is asked of the past to show, compare or restore a target.

use std::sync::Arc;

use imbl::OrdSet;
use serde::{Deserialize, Serialize};

use super::changes::{Changes, first, set_changes, text};
use super::{DeltaError, Mismatch};
use crate::digest::Digest;
use crate::event::{Contacts, EnrolledNode, JoinToken, Pin, Token};
use crate::ids::{
    AppEnv, AppId, ControllerId, EnvironmentName, NodeName, Place, PrincipalId, ProjectName, Seq, Slot, Time,
};
use crate::index::Index;
use crate::leaf::Leaves;
use crate::release::Revision;
use crate::scope::Scope;
use crate::state::{Controller, Fleet, History, Refusals, State};

/// Lists State's maps once.
macro_rules! maps {
    ($($tree:ident $map:ident: $key:ty => $value:ty;)*) => {
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub(super) struct TargetMaps {
            $($map: Changes<$key, $value>,)*
        }

        impl TargetMaps {
            fn between(before: &State, after: &State) -> Self {
                Self { $($map: Changes::between(&before.$tree.$map, &after.$tree.$map),)* }
            }

            fn put_on(self, state: &mut State) {
                $(self.$map.put_on(&mut state.$tree.$map);)*
            }

            fn count(&self) -> usize {
                0 $(+ self.$map.count())*
            }

            pub(super) fn mismatch(one: &State, other: &State) -> Option<Mismatch> {
                None$(.or_else(|| first(
                    concat!(stringify!($tree), ".", stringify!($map)),
                    &one.$tree.$map,
                    &other.$tree.$map,
                )))*
            }
        }
    };
}

maps! {
    target intent: AppEnv => Arc<Revision>;
    target placement: Slot => NodeName;
    target pins: (AppEnv, Place) => Arc<Pin>;
    control controllers: ControllerId => Controller;
    control tokens: PrincipalId => Token;
    control bearers: Digest => PrincipalId;
    control join_tokens: Digest => JoinToken;
    control nodes: NodeName => Arc<EnrolledNode>;
    control apps: AppId => Contacts;
    control latches: AppEnv => OrdSet<Digest>;
    control refusals: PrincipalId => Refusals;
    control reviews: Seq => PrincipalId;
    control erased: String => u32;
    history last_changed: AppEnv => Seq;
}

/// Lists State's sets once.
macro_rules! sets {
    ($($set:ident: $item:ty;)*) => {
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub(super) struct Sets {
            $($set: Changes<$item, ()>,)*
        }

        impl Sets {
            fn between(before: &State, after: &State) -> Self {
                Self { $($set: set_changes(&before.control.$set, &after.control.$set),)* }
            }

            fn put_on(self, state: &mut State) {
                $({
                    for item in &self.$set.gone {
                        state.control.$set.remove(item);
                    }
                    state.control.$set.extend(self.$set.set.into_iter().map(|(item, ())| item));
                })*
            }

            fn count(&self) -> usize {
                0 $(+ self.$set.count())*
            }

            pub(super) fn mismatch(one: &State, other: &State) -> Option<Mismatch> {
                let differs = |name: &str, one: String, other: String| {
                    (one != other).then(|| Mismatch {
                        field: format!("control.{name}"),
                        one: Some(one),
                        other: Some(other),
                    })
                };
                None$(.or_else(|| {
                    differs(stringify!($set), text(&one.control.$set), text(&other.control.$set))
                }))*
            }
        }
    };
}

sets! {
    voters: ControllerId;
    learners: ControllerId;
    retired: ControllerId;
    projects: ProjectName;
    environments: EnvironmentName;
    marked_bad: (Scope, Seq);
}

/// A State of which only the target, what governs, and when targets last changed are there.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetOutline(pub(super) State);

/// What differs between two outlines in their targets and what governs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetDelta {
    pub(super) from: (Seq, Time),
    pub(super) to: (Seq, Time),
    /// Present when it differs: the fleet itself.
    // The outer one says whether it differs, the inner one is State's own.
    #[allow(clippy::option_option)]
    fleet: Option<Option<Fleet>>,
    maps: TargetMaps,
    sets: Sets,
}

impl Default for TargetOutline {
    /// That of the State before the first record.
    fn default() -> Self {
        Self::of(&State::default())
    }
}

impl TargetOutline {
    /// Of a State.
    pub fn of(state: &State) -> Self {
        let history = History { last_changed: state.history.last_changed.clone(), ..History::default() };
        Self(State {
            seq: state.seq,
            time: state.time,
            target: state.target.clone(),
            assigned: imbl::OrdMap::new(),
            observed: imbl::OrdMap::new(),
            control: state.control.clone(),
            history,
            // Digests are of what is left out, too.
            leaves: Leaves::partial(),
            index: Index::default(),
        })
    }

    /// The last record folded.
    pub fn seq(&self) -> Seq {
        self.0.seq
    }

    /// With annals as a later State of the same log knows them: a State that says what should be, and
    /// neither what nodes were told or told, nor what was deployed. It has no digest.
    /// Records of that log up to `through` may be folded onto it by [`crate::fold_target`].
    ///
    /// # Panics
    ///
    /// When the other State is not as late.
    pub fn filled(&self, later: &State, through: Seq) -> State {
        assert!(self.seq() <= through && through <= later.seq, "annals are read off a later State");
        State { history: self.0.history.with_annals(&later.history, through), ..self.0.clone() }
    }

    /// The first fact in which this outline differs from another; none when they are equal.
    pub fn first_mismatch(&self, other: &Self) -> Option<Mismatch> {
        self.0.first_mismatch(&other.0)
    }
}

impl TargetDelta {
    pub(super) fn between(before: &State, after: &State) -> Self {
        Self {
            from: (before.seq, before.time),
            to: (after.seq, after.time),
            fleet: (before.control.fleet != after.control.fleet).then(|| after.control.fleet.clone()),
            maps: TargetMaps::between(before, after),
            sets: Sets::between(before, after),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.maps.count() + self.sets.count()
    }

    /// Turns the earlier outline into the later one.
    pub fn put_on(self, outline: &mut TargetOutline) -> Result<(), DeltaError> {
        let TargetOutline(state) = outline;
        if self.from != (state.seq, state.time) {
            return Err(DeltaError { from: self.from.0, found: state.seq });
        }
        (state.seq, state.time) = self.to;
        self.put(state);
        Ok(())
    }

    pub(super) fn put(self, state: &mut State) {
        if let Some(fleet) = self.fleet {
            state.control.fleet = fleet;
        }
        self.maps.put_on(state);
        self.sets.put_on(state);
    }
}
