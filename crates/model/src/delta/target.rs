//! What should be and what governs: all that is asked of the past to show, compare or restore a target.
//!
//! What should be is told apart by app, so that whoever asks for some of them reads theirs alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdSet;
use serde::{Deserialize, Serialize};

use super::changes::{Changed, Changes, by_app, changed_by_app, first, set_changes, text};
use super::{DeltaError, Mismatch};
use crate::digest::Digest;
use crate::event::{Contacts, EnrolledNode, JoinToken, Pin, Token};
use crate::ids::{
    AppEnv, AppId, ControllerId, EnvironmentName, NodeName, Place, PrincipalId, ProjectName, Seq,
    ServiceName, Slot, Time,
};
use crate::index::Index;
use crate::leaf::Leaves;
use crate::release::Revision;
use crate::scope::Scope;
use crate::state::{Controller, Fleet, History, Refusals, State, Target};

/// Lists the maps of what governs once.
macro_rules! maps {
    ($($map:ident: $key:ty => $value:ty;)*) => {
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub(super) struct Maps {
            $($map: Changes<$key, $value>,)*
        }

        impl Maps {
            fn between(before: &State, after: &State) -> Self {
                Self { $($map: Changes::between(&before.control.$map, &after.control.$map),)* }
            }

            fn put_on(self, state: &mut State) {
                $(self.$map.put_on(&mut state.control.$map);)*
            }

            fn count(&self) -> usize {
                0 $(+ self.$map.count())*
            }

            pub(super) fn mismatch(one: &State, other: &State) -> Option<Mismatch> {
                None$(.or_else(|| first(
                    concat!("control.", stringify!($map)),
                    &one.control.$map,
                    &other.control.$map,
                )))*
            }
        }
    };
}

maps! {
    controllers: ControllerId => Controller;
    tokens: PrincipalId => Token;
    bearers: Digest => PrincipalId;
    join_tokens: Digest => JoinToken;
    nodes: NodeName => Arc<EnrolledNode>;
    drained: NodeName => Seq;
    apps: AppId => Contacts;
    latches: AppEnv => OrdSet<Digest>;
    refusals: PrincipalId => Refusals;
    reviews: Seq => PrincipalId;
    erased: String => u32;
}

/// Lists the sets of what governs once.
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
#[derive(Clone, Debug, PartialEq)]
pub struct TargetDelta {
    /// What governs.
    pub head: TargetHead,
    /// What should be of each app in an environment.
    pub apps: BTreeMap<AppEnv, TargetChange>,
}

/// Between what a delta is, and what is of no app.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetHead {
    pub(super) from: (Seq, Time),
    pub(super) to: (Seq, Time),
    /// Present when it differs: the fleet itself.
    // The outer one says whether it differs, the inner one is State's own.
    #[allow(clippy::option_option)]
    fleet: Option<Option<Fleet>>,
    maps: Maps,
    sets: Sets,
}

/// What differs in what should be of one app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetChange {
    intent: Changed<Arc<Revision>>,
    placement: Changes<(ServiceName, u32), NodeName>,
    pins: Changes<Place, Arc<Pin>>,
    last_changed: Changed<Seq>,
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

    /// What governs, and what should be of some apps: without the target of all others.
    #[must_use]
    pub fn about(&self, apps: &BTreeSet<AppEnv>) -> Self {
        let Self(state) = self;
        let (mut target, mut history) = (Target::default(), History::default());
        for app_env in apps {
            let here = || app_env.clone();
            target.intent.extend(state.target.intent.get(app_env).map(|revision| (here(), revision.clone())));
            let slots = state.slots(app_env).map(|(slot, node)| (slot.clone(), node.clone()));
            target.placement.extend(slots);
            let pins = state.pins(app_env).map(|(place, pin)| ((here(), place.clone()), pin.clone()));
            target.pins.extend(pins);
            let last = state.history.last_changed.get(app_env);
            history.last_changed.extend(last.map(|seq| (here(), *seq)));
        }
        Self(State { target, history, ..state.clone() })
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

impl TargetChange {
    fn count(&self) -> usize {
        let facts = self.intent.count(|_| 1) + self.last_changed.count(|_| 1);
        facts + self.placement.count() + self.pins.count()
    }

    fn put_on(self, app_env: &AppEnv, state: &mut State) {
        let Target { intent, placement, pins } = &mut state.target;
        self.intent.put_into(intent, app_env);
        let slot = |(service, index)| Slot::new(app_env.clone(), service, index);
        self.placement.put_on_as(placement, slot);
        self.pins.put_on_as(pins, |place| (app_env.clone(), place));
        self.last_changed.put_into(&mut state.history.last_changed, app_env);
    }
}

/// The first difference in what should be.
pub(super) fn first_of_target(one: &State, other: &State) -> Option<Mismatch> {
    let (ours, theirs) = (&one.target, &other.target);
    first("target.intent", &ours.intent, &theirs.intent)
        .or_else(|| first("target.placement", &ours.placement, &theirs.placement))
        .or_else(|| first("target.pins", &ours.pins, &theirs.pins))
        .or_else(|| first("history.last_changed", &one.history.last_changed, &other.history.last_changed))
}

fn apps_between(before: &State, after: &State) -> BTreeMap<AppEnv, TargetChange> {
    let mut apps: BTreeMap<AppEnv, TargetChange> = BTreeMap::new();
    let (ours, theirs) = (&before.target, &after.target);
    changed_by_app(&ours.intent, &theirs.intent, &mut apps, |app| &mut app.intent);
    by_app(
        &ours.placement,
        &theirs.placement,
        &mut apps,
        |slot, _| (slot.app_env.clone(), (slot.service.clone(), slot.index)),
        |app| &mut app.placement,
    );
    by_app(
        &ours.pins,
        &theirs.pins,
        &mut apps,
        |(app_env, place), _| (app_env.clone(), place.clone()),
        |app| &mut app.pins,
    );
    let (ours, theirs) = (&before.history.last_changed, &after.history.last_changed);
    changed_by_app(ours, theirs, &mut apps, |app| &mut app.last_changed);
    apps
}

impl TargetDelta {
    pub(super) fn between(before: &State, after: &State) -> Self {
        let head = TargetHead {
            from: (before.seq, before.time),
            to: (after.seq, after.time),
            fleet: (before.control.fleet != after.control.fleet).then(|| after.control.fleet.clone()),
            maps: Maps::between(before, after),
            sets: Sets::between(before, after),
        };
        Self { head, apps: apps_between(before, after) }
    }

    pub(super) fn count(&self) -> usize {
        let apps: usize = self.apps.values().map(TargetChange::count).sum();
        self.head.maps.count() + self.head.sets.count() + apps
    }

    /// Turns the earlier outline into the later one, as far as it says how they differ: of some apps, if it was
    /// read of those alone.
    pub fn put_on(self, outline: &mut TargetOutline) -> Result<(), DeltaError> {
        let TargetOutline(state) = outline;
        if self.head.from != (state.seq, state.time) {
            return Err(DeltaError { from: self.head.from.0, found: state.seq });
        }
        (state.seq, state.time) = self.head.to;
        self.put(state);
        Ok(())
    }

    pub(super) fn put(self, state: &mut State) {
        if let Some(fleet) = self.head.fleet {
            state.control.fleet = fleet;
        }
        self.head.maps.put_on(state);
        self.head.sets.put_on(state);
        for (app_env, change) in self.apps {
            change.put_on(&app_env, state);
        }
    }
}
