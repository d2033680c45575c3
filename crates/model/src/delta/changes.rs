//! What differs between two maps or sets.

use std::collections::BTreeMap;
use std::fmt::Debug;

use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use super::Mismatch;
use crate::canonical::canonical_json;
use crate::ids::AppEnv;

/// What differs between two maps, in order of the keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Changes<K, V> {
    pub(super) set: Vec<(K, V)>,
    pub(super) gone: Vec<K>,
}

impl<K, V> Default for Changes<K, V> {
    fn default() -> Self {
        Self { set: Vec::new(), gone: Vec::new() }
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> Changes<K, V> {
    pub(super) fn between(before: &OrdMap<K, V>, after: &OrdMap<K, V>) -> Self {
        let mut changes = Self::default();
        for item in before.diff(after) {
            match item {
                DiffItem::Add(key, new) | DiffItem::Update { new: (key, new), .. } => {
                    changes.set.push((key.clone(), new.clone()));
                }
                DiffItem::Remove(key, _) => changes.gone.push(key.clone()),
            }
        }
        changes
    }

    pub(super) fn put_on(self, map: &mut OrdMap<K, V>) {
        self.put_on_as(map, |key| key);
    }
}

impl<K, V> Changes<K, V> {
    /// Puts them on a map with longer keys.
    pub(super) fn put_on_as<L: Ord + Clone>(self, map: &mut OrdMap<L, V>, longer: impl Fn(K) -> L)
    where
        V: Clone,
    {
        for key in self.gone {
            map.remove(&longer(key));
        }
        for (key, value) in self.set {
            map.insert(longer(key), value);
        }
    }

    pub(super) fn count(&self) -> usize {
        self.set.len() + self.gone.len()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.set.iter().map(|(key, _)| key).chain(&self.gone)
    }
}

/// What differs in one fact.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Changed<C> {
    /// Nothing.
    #[default]
    Not,
    /// It is not there any more.
    Gone,
    /// What changed, or what it is now.
    To(C),
}

impl<C> Changed<C> {
    /// Of one item of what differs between two maps, and its key.
    pub(super) fn of<'a, K, V>(
        item: DiffItem<'a, 'a, K, V>,
        change: impl Fn(Option<&V>, &V) -> C,
    ) -> (&'a K, Self) {
        match item {
            DiffItem::Add(key, new) => (key, Self::To(change(None, new))),
            DiffItem::Update { old: (_, old), new: (key, new) } => (key, Self::To(change(Some(old), new))),
            DiffItem::Remove(key, _) => (key, Self::Gone),
        }
    }

    pub(super) fn to(&self) -> Option<&C> {
        match self {
            Self::To(change) => Some(change),
            Self::Not | Self::Gone => None,
        }
    }

    pub(super) fn count(&self, of: impl Fn(&C) -> usize) -> usize {
        match self {
            Self::Not => 0,
            Self::Gone => 1,
            Self::To(change) => of(change),
        }
    }

    /// Of a fact that is kept as a whole.
    pub(super) fn put_into<K: Ord + Clone>(self, map: &mut OrdMap<K, C>, key: &K)
    where
        C: Clone,
    {
        match self {
            Self::Not => {}
            Self::Gone => {
                map.remove(key);
            }
            Self::To(value) => {
                map.insert(key.clone(), value);
            }
        }
    }

    pub(super) fn put_on<K: Ord + Clone, V: Clone + Default>(
        self,
        map: &mut OrdMap<K, V>,
        key: &K,
        put: impl Fn(C, &mut V),
    ) {
        match self {
            Self::Not => {}
            Self::Gone => {
                map.remove(key);
            }
            Self::To(change) => put(change, map.entry(key.clone()).or_default()),
        }
    }
}

/// What differs, in order of the keys, beside the app and environment that each is of.
pub(super) fn by_app<K: Ord + Clone, V: Clone + PartialEq, S, A: Default>(
    before: &OrdMap<K, V>,
    after: &OrdMap<K, V>,
    apps: &mut BTreeMap<AppEnv, A>,
    of: impl Fn(&K, &V) -> (AppEnv, S),
    changes: impl Fn(&mut A) -> &mut Changes<S, V>,
) {
    for item in before.diff(after) {
        match item {
            DiffItem::Add(key, new) | DiffItem::Update { new: (key, new), .. } => {
                let (app_env, key) = of(key, new);
                changes(apps.entry(app_env).or_default()).set.push((key, new.clone()));
            }
            DiffItem::Remove(key, old) => {
                let (app_env, key) = of(key, old);
                changes(apps.entry(app_env).or_default()).gone.push(key);
            }
        }
    }
}

/// The same of a map that has one fact for each app in an environment.
pub(super) fn changed_by_app<V: Clone + PartialEq, A: Default>(
    before: &OrdMap<AppEnv, V>,
    after: &OrdMap<AppEnv, V>,
    apps: &mut BTreeMap<AppEnv, A>,
    changed: impl Fn(&mut A) -> &mut Changed<V>,
) {
    for item in before.diff(after) {
        let (app_env, change) = Changed::of(item, |_, new: &V| new.clone());
        *changed(apps.entry(app_env.clone()).or_default()) = change;
    }
}

pub(super) fn set_changes<T: Ord + Clone>(before: &OrdSet<T>, after: &OrdSet<T>) -> Changes<T, ()> {
    let mut changes = Changes { set: Vec::new(), gone: Vec::new() };
    for item in before.diff(after) {
        match item {
            imbl::ordset::DiffItem::Add(item) => changes.set.push((item.clone(), ())),
            imbl::ordset::DiffItem::Remove(item) => changes.gone.push(item.clone()),
        }
    }
    changes
}

pub(super) fn text<T: Serialize>(value: &T) -> String {
    String::from_utf8_lossy(&canonical_json(value)).into_owned()
}

/// The first difference of two maps.
pub(super) fn first<K: Ord + Clone + Debug, V: PartialEq + Serialize>(
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
