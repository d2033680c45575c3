//! What differs between two maps or sets.

use std::fmt::Debug;

use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use super::Mismatch;
use crate::canonical::canonical_json;

/// What differs between two maps, in order of the keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Changes<K, V> {
    pub(super) set: Vec<(K, V)>,
    pub(super) gone: Vec<K>,
}

impl<K: Ord + Clone, V: Clone + PartialEq> Changes<K, V> {
    pub(super) fn between(before: &OrdMap<K, V>, after: &OrdMap<K, V>) -> Self {
        Self::with(before, after, |_, new| new.clone())
    }

    pub(super) fn put_on(self, map: &mut OrdMap<K, V>) {
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
    pub(super) fn with<V: PartialEq>(
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

    pub(super) fn count(&self) -> usize {
        self.set.len() + self.gone.len()
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
