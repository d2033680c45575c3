//! What differs between two States, as something that can be kept and put on again.
//!
//! Two States of one log share most of their maps, and a comparison skips what they
//! share. So a difference costs what changed and no more, however large State is.

use std::fmt::Debug;
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, canonical_json};
use crate::event::{Contacts, EnrolledNode, JoinToken, Pin, Token};
use crate::ids::{
    AppEnv, AppId, ControllerId, EnvironmentName, InstanceId, NodeName, Place, PrincipalId, ProjectName,
    SecretName, Seq, Slot, Time,
};
use crate::leaf::Leaf;
use crate::release::Revision;
use crate::scope::Scope;
use crate::state::{
    Answered, Assigned, AssignedTo, Change, Control, Controller, Deployment, Fleet, History, Observed,
    Refusals, ReleaseRecord, State, Target,
};
use crate::value::{Sealed, Value};
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

    fn put_on(self, map: &mut OrdMap<K, V>, mut touched: impl FnMut(K)) {
        for key in self.gone {
            map.remove(&key);
            touched(key);
        }
        for (key, value) in self.set {
            map.insert(key.clone(), value);
            touched(key);
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

/// Lists State's maps once, with the leaf of State's digest that each key stands for.
macro_rules! maps {
    ($($tree:ident $map:ident: $key:ty => $value:ty, $leaf:expr;)*) => {
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        struct Maps {
            $($map: Changes<$key, $value>,)*
        }

        impl Maps {
            fn between(before: &State, after: &State) -> Self {
                Self { $($map: Changes::between(&before.$tree.$map, &after.$tree.$map),)* }
            }

            fn put_on(self, state: &mut State) {
                let mut touched: Vec<Leaf> = Vec::with_capacity(self.count());
                $({
                    let leaf: fn($key) -> Option<Leaf> = $leaf;
                    self.$map.put_on(&mut state.$tree.$map, |key| touched.extend(leaf(key)));
                })*
                for leaf in touched {
                    state.touch(leaf);
                }
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
    target intent: AppEnv => Arc<Revision>, |it| Some(Leaf::Intent(it));
    target placement: Slot => NodeName, |it| Some(Leaf::Placement(it));
    target pins: (AppEnv, Place) => Arc<Pin>, |it| Some(Leaf::Pin(it.0, it.1));
    control controllers: ControllerId => Controller, |it| Some(Leaf::Controller(it));
    control tokens: PrincipalId => Token, |it| Some(Leaf::Token(it));
    control bearers: Digest => PrincipalId, |_| None;
    control join_tokens: Digest => JoinToken, |it| Some(Leaf::JoinToken(it));
    control nodes: NodeName => Arc<EnrolledNode>, |it| Some(Leaf::Node(it));
    control apps: AppId => Contacts, |it| Some(Leaf::App(it));
    control latches: AppEnv => OrdSet<Digest>, |it| Some(Leaf::Latch(it));
    control refusals: PrincipalId => Refusals, |it| Some(Leaf::Refusals(it));
    control reviews: Seq => PrincipalId, |it| Some(Leaf::Review(it));
    control erased: String => u32, |it| Some(Leaf::Erased(it));
    history releases: Digest => Arc<ReleaseRecord>, |it| Some(Leaf::Release(it));
    history numbers: (AppId, u32) => Digest, |_| None;
    history configs: Digest => Arc<std::collections::BTreeMap<String, Value>>, |_| None;
    history config_versions: (AppEnv, u32) => Digest, |it| Some(Leaf::Config(it.0, it.1));
    history secrets: (AppEnv, SecretName, u32) => Sealed, |it| Some(Leaf::Secret(it.0, it.1, it.2));
    history deployments: Seq => Arc<Deployment>, |it| Some(Leaf::Deployment(it));
    history deployments_of: (AppEnv, Seq) => (), |_| None;
    history latest: AppEnv => Seq, |it| Some(Leaf::AppHistory(it));
    history changes: (AppEnv, Seq) => Change, |it| Some(Leaf::Change(it.0, it.1));
    history last_changed: AppEnv => Seq, |it| Some(Leaf::AppHistory(it));
    history barriers: (AppEnv, Seq) => String, |it| Some(Leaf::Barrier(it.0, it.1));
    history answered: (PrincipalId, String) => Answered, |it| Some(Leaf::Answered(it.0, it.1));
    history answered_by_age: (Time, PrincipalId, String) => (), |_| None;
}

/// The same for State's sets.
macro_rules! sets {
    ($($set:ident: $item:ty, $leaf:expr;)*) => {
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
                    let leaf: fn($item) -> Leaf = $leaf;
                    for item in self.$set.gone {
                        state.control.$set.remove(&item);
                        state.touch(leaf(item));
                    }
                    for (item, ()) in self.$set.set {
                        state.control.$set.insert(item.clone());
                        state.touch(leaf(item));
                    }
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
    voters: ControllerId, |_| Leaf::Members;
    learners: ControllerId, |_| Leaf::Members;
    retired: ControllerId, |_| Leaf::Members;
    projects: ProjectName, |_| Leaf::Registry;
    environments: EnvironmentName, |_| Leaf::Registry;
    marked_bad: (Scope, Seq), |it| Leaf::MarkedBad(it.0, it.1);
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
    let State { seq: _, time: _, target, assigned: _, observed: _, control, history, leaves: _ } = state;
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

impl Delta {
    /// What must change in `before` to get `after`. It is the same for the same two
    /// States, however they came about.
    pub fn between(before: &State, after: &State) -> Self {
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

    /// Turns the earlier State into the later one.
    pub fn put_on(self, state: &mut State) -> Result<(), DeltaError> {
        if self.from != (state.seq, state.time) {
            return Err(DeltaError { from: self.from.0, found: state.seq });
        }
        (state.seq, state.time) = self.to;
        if let Some(fleet) = self.fleet {
            state.control.fleet = fleet;
            state.touch(Leaf::Fleet);
        }
        if let Some((term, leader)) = self.term {
            (state.history.term, state.history.leader) = (term, leader);
            state.touch(Leaf::Term);
        }
        put_assigned(state, self.assigned);
        put_observed(state, self.observed);
        self.maps.put_on(state);
        self.sets.put_on(state);
        Ok(())
    }
}

fn put_assigned(state: &mut State, changes: Changes<NodeName, AssignedChange>) {
    for node in changes.gone {
        let gone = state.assigned.remove(&node).unwrap_or_default();
        for id in gone.instances.keys() {
            state.touch(Leaf::AssignedTo(node.clone(), id.clone()));
        }
        state.touch(Leaf::Assigned(node));
    }
    for (node, AssignedChange { changed, instances }) in changes.set {
        let mut touched = Vec::with_capacity(instances.count());
        let assigned = state.assigned.entry(node.clone()).or_default();
        assigned.changed = changed;
        instances.put_on(&mut assigned.instances, |id| touched.push(Leaf::AssignedTo(node.clone(), id)));
        touched.push(Leaf::Assigned(node));
        for leaf in touched {
            state.touch(leaf);
        }
    }
}

fn put_observed(state: &mut State, changes: Changes<NodeName, ObservedChange>) {
    for node in changes.gone {
        let gone = state.observed.remove(&node).unwrap_or_default();
        for id in gone.instances.keys() {
            state.touch(Leaf::ObservedInstance(node.clone(), id.clone()));
        }
        state.touch(Leaf::Observed(node));
    }
    for (node, change) in changes.set {
        let ObservedChange { boot, number, applied, lost, time, instances } = change;
        let mut touched = Vec::with_capacity(instances.count());
        let observed = state.observed.entry(node.clone()).or_default();
        (observed.boot, observed.number, observed.applied) = (boot, number, applied);
        (observed.lost, observed.time) = (lost, time);
        instances
            .put_on(&mut observed.instances, |id| touched.push(Leaf::ObservedInstance(node.clone(), id)));
        touched.push(Leaf::Observed(node));
        for leaf in touched {
            state.touch(leaf);
        }
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
