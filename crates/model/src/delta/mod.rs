//! What differs between two States, as something that can be kept and put on again.
//!
//! Two States of one log share most of their maps, and a comparison skips what they
//! share. So a difference costs what changed and no more, however large State is. Annals
//! are left out: what they held earlier is read off what they hold later. What requests were
//! answered is kept apart: it changes with almost every decision, and only whoever decides, or wants
//! State's digest, looks at it.

use std::fmt::Debug;
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use crate::annals::Annals;
use crate::canonical::canonical_json;
use crate::digest::Digest;
use crate::event::{Contacts, EnrolledNode, JoinToken, Pin, Token};
use crate::ids::{
    AppEnv, AppId, ControllerId, EnvironmentName, InstanceId, NodeName, Place, PrincipalId, ProjectName, Seq,
    Slot, Time,
};
use crate::index::Index;
use crate::leaf::Leaves;
use crate::release::Revision;
use crate::scope::Scope;
use crate::state::{
    Answered, Assigned, AssignedTo, Change, Control, Controller, Deployment, Fleet, History, Observed,
    Refusals, State, Target,
};
use crate::wire::{AssignmentVersion, InstanceReport};

/// Everything that differs between an earlier State and a later one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    from: (Seq, Time),
    to: (Seq, Time),
    /// Present when it differs: the fleet itself.
    // The outer one says whether it differs, the inner one is State's own.
    #[allow(clippy::option_option)]
    fleet: Option<Option<Fleet>>,
    /// Present when they differ: term and leader.
    term: Option<(u64, ControllerId)>,
    assigned: Changes<NodeName, AssignedChange>,
    observed: Changes<NodeName, ObservedChange>,
    maps: Maps,
    sets: Sets,
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

/// What differs between two maps, in order of the keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Changes<K, V> {
    set: Vec<(K, V)>,
    gone: Vec<K>,
}

impl<K: Ord + Clone, V: Clone + PartialEq> Changes<K, V> {
    fn between(before: &OrdMap<K, V>, after: &OrdMap<K, V>) -> Self {
        Self::with(before, after, |_, new| new.clone())
    }

    fn put_on(self, map: &mut OrdMap<K, V>) {
        for key in &self.gone {
            map.remove(key);
        }
        for (key, value) in self.set {
            map.insert(key, value);
        }
    }
}

impl<K: Ord + Clone, C> Changes<K, C> {
    /// The same where a change is something else than the new value.
    fn with<V: PartialEq>(
        before: &OrdMap<K, V>,
        after: &OrdMap<K, V>,
        change: impl Fn(Option<&V>, &V) -> C,
    ) -> Self {
        let mut changes = Self { set: Vec::new(), gone: Vec::new() };
        for item in before.diff(after) {
            match item {
                DiffItem::Add(key, new) => changes.set.push((key.clone(), change(None, new))),
                DiffItem::Update { old: (_, old), new: (key, new) } => {
                    changes.set.push((key.clone(), change(Some(old), new)));
                }
                DiffItem::Remove(key, _) => changes.gone.push(key.clone()),
            }
        }
        changes
    }

    fn count(&self) -> usize {
        self.set.len() + self.gone.len()
    }
}

/// What differs in what one node has been told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct AssignedChange {
    changed: Seq,
    instances: Changes<InstanceId, Arc<AssignedTo>>,
}

/// What differs in what one node told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ObservedChange {
    boot: u64,
    number: u64,
    applied: AssignmentVersion,
    lost: bool,
    time: Time,
    instances: Changes<InstanceId, Arc<InstanceReport>>,
}

impl AssignedChange {
    fn new(before: Option<&Assigned>, after: &Assigned) -> Self {
        let Assigned { changed, instances } = after;
        let none = OrdMap::new();
        let before = before.map_or(&none, |before| &before.instances);
        Self { changed: *changed, instances: Changes::between(before, instances) }
    }
}

impl ObservedChange {
    fn new(before: Option<&Observed>, after: &Observed) -> Self {
        let Observed { boot, number, applied, lost, time, instances } = after;
        let none = OrdMap::new();
        let before = before.map_or(&none, |before| &before.instances);
        Self {
            boot: *boot,
            number: *number,
            applied: *applied,
            lost: *lost,
            time: *time,
            instances: Changes::between(before, instances),
        }
    }
}

/// Lists State's maps once.
macro_rules! maps {
    ($($tree:ident $map:ident: $key:ty => $value:ty;)*) => {
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        struct Maps {
            $($map: Changes<$key, $value>,)*
        }

        impl Maps {
            fn between(before: &State, after: &State) -> Self {
                Self { $($map: Changes::between(&before.$tree.$map, &after.$tree.$map),)* }
            }

            fn put_on(self, state: &mut State) {
                $(self.$map.put_on(&mut state.$tree.$map);)*
            }

            fn count(&self) -> usize {
                0 $(+ self.$map.count())*
            }

            fn mismatch(one: &State, other: &State) -> Option<Mismatch> {
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
    history deployments: Seq => Arc<Deployment>;
    history latest: AppEnv => Seq;
    history changes: (AppEnv, Seq) => Change;
    history last_changed: AppEnv => Seq;
    history barriers: (AppEnv, Seq) => String;
}

/// What follows from other maps is not kept but put right with them.
fn put_indexes(maps: &Maps, history: &mut History) {
    let History { deployments, deployments_of, .. } = history;
    for seq in &maps.deployments.gone {
        if let Some(gone) = deployments.get(seq) {
            deployments_of.remove(&(gone.app_env.clone(), *seq));
        }
    }
    for (seq, deployment) in &maps.deployments.set {
        deployments_of.insert((deployment.app_env.clone(), *seq), ());
    }
}

/// The same for State's sets.
macro_rules! sets {
    ($($set:ident: $item:ty;)*) => {
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        struct Sets {
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

            fn mismatch(one: &State, other: &State) -> Option<Mismatch> {
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

/// The same for State's annals, of which deltas say nothing.
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

fn set_changes<T: Ord + Clone>(before: &OrdSet<T>, after: &OrdSet<T>) -> Changes<T, ()> {
    let mut changes = Changes { set: Vec::new(), gone: Vec::new() };
    for item in before.diff(after) {
        match item {
            imbl::ordset::DiffItem::Add(item) => changes.set.push((item.clone(), ())),
            imbl::ordset::DiffItem::Remove(item) => changes.gone.push(item.clone()),
        }
    }
    changes
}

fn text<T: Serialize>(value: &T) -> String {
    String::from_utf8_lossy(&canonical_json(value)).into_owned()
}

/// The first difference of two maps.
fn first<K: Ord + Clone + Debug, V: PartialEq + Serialize>(
    name: &str,
    one: &OrdMap<K, V>,
    other: &OrdMap<K, V>,
) -> Option<Mismatch> {
    let mismatch = |key: &K, one: Option<&V>, other: Option<&V>| Mismatch {
        field: format!("{name}[{key:?}]"),
        one: one.map(text),
        other: other.map(text),
    };
    one.diff(other).next().map(|item| match item {
        DiffItem::Add(key, new) => mismatch(key, None, Some(new)),
        DiffItem::Update { old: (_, old), new: (key, new) } => mismatch(key, Some(old), Some(new)),
        DiffItem::Remove(key, old) => mismatch(key, Some(old), None),
    })
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

    /// The first fact in which this outline differs from another; none when they are equal.
    pub fn first_mismatch(&self, other: &Self) -> Option<Mismatch> {
        self.0.first_mismatch(&other.0)
    }
}

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

impl Delta {
    /// What must change in `before` to get `after`. It is the same for the same two
    /// outlines, however they came about.
    pub fn between(before: &Outline, after: &Outline) -> Self {
        let (Outline(before), Outline(after)) = (before, after);
        nothing_is_left_out(after);
        let term = |state: &State| (state.history.term, state.history.leader);
        Self {
            from: (before.seq, before.time),
            to: (after.seq, after.time),
            fleet: (before.control.fleet != after.control.fleet).then(|| after.control.fleet.clone()),
            term: (term(before) != term(after)).then(|| term(after)),
            assigned: Changes::with(&before.assigned, &after.assigned, AssignedChange::new),
            observed: Changes::with(&before.observed, &after.observed, ObservedChange::new),
            maps: Maps::between(before, after),
            sets: Sets::between(before, after),
        }
    }

    /// The seq it begins at.
    pub fn from(&self) -> Seq {
        self.from.0
    }

    /// The seq it leads to.
    pub fn to(&self) -> Seq {
        self.to.0
    }

    /// How many facts it sets or removes.
    pub fn count(&self) -> usize {
        let assigned: usize = self.assigned.set.iter().map(|(_, change)| change.instances.count()).sum();
        let observed: usize = self.observed.set.iter().map(|(_, change)| change.instances.count()).sum();
        self.assigned.count()
            + assigned
            + self.observed.count()
            + observed
            + self.maps.count()
            + self.sets.count()
    }

    /// Turns the earlier outline into the later one.
    pub fn put_on(self, outline: &mut Outline) -> Result<(), DeltaError> {
        let Outline(state) = outline;
        if self.from != (state.seq, state.time) {
            return Err(DeltaError { from: self.from.0, found: state.seq });
        }
        (state.seq, state.time) = self.to;
        if let Some(fleet) = self.fleet {
            state.control.fleet = fleet;
        }
        if let Some((term, leader)) = self.term {
            (state.history.term, state.history.leader) = (term, leader);
        }
        for node in &self.assigned.gone {
            state.assigned.remove(node);
        }
        for (node, AssignedChange { changed, instances }) in self.assigned.set {
            let assigned = state.assigned.entry(node).or_default();
            assigned.changed = changed;
            instances.put_on(&mut assigned.instances);
        }
        for node in &self.observed.gone {
            state.observed.remove(node);
        }
        for (node, change) in self.observed.set {
            let ObservedChange { boot, number, applied, lost, time, instances } = change;
            let observed = state.observed.entry(node).or_default();
            (observed.boot, observed.number, observed.applied) = (boot, number, applied);
            (observed.lost, observed.time) = (lost, time);
            instances.put_on(&mut observed.instances);
        }
        put_indexes(&self.maps, &mut state.history);
        self.maps.put_on(state);
        self.sets.put_on(state);
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
            .or_else(|| Maps::mismatch(self, other))
            .or_else(|| first("history.deployments_of", &ours.deployments_of, &theirs.deployments_of))
            .or_else(|| first("history.answered", &ours.answered, &theirs.answered))
            .or_else(|| first("history.answered_by_age", &ours.answered_by_age, &theirs.answered_by_age))
            .or_else(|| ours.annals_mismatch(theirs))
            .or_else(|| Sets::mismatch(self, other))
    }
}

fn first_nested(one: &State, other: &State) -> Option<Mismatch> {
    let assigned = first("assigned", &one.assigned, &other.assigned).map(|mismatch| {
        let pair = one.assigned.iter().zip(other.assigned.iter()).find(|(one, other)| one != other);
        let inner =
            pair.filter(|((node, _), (same, _))| node == same).and_then(|((node, one), (_, other))| {
                first(&format!("assigned[{node}].instances"), &one.instances, &other.instances)
            });
        inner.unwrap_or(mismatch)
    });
    assigned.or_else(|| {
        first("observed", &one.observed, &other.observed).map(|mismatch| {
            let pair = one.observed.iter().zip(other.observed.iter()).find(|(one, other)| one != other);
            let inner =
                pair.filter(|((node, _), (same, _))| node == same).and_then(|((node, one), (_, other))| {
                    first(&format!("observed[{node}].instances"), &one.instances, &other.instances)
                });
            inner.unwrap_or(mismatch)
        })
    })
}
