//! A map of few entries that is written once and kept for long.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Index;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A sorted map as its pairs alone, in one piece of memory. The standard library's makes room for eleven entries at
/// once, and most releases have one service and some variables: State keeps every release there ever was.
///
/// What is written of it is what is written of a [`BTreeMap`].
///
/// ```
/// use stele_model::FlatMap;
///
/// let map = FlatMap::from([("b", 2), ("a", 1), ("b", 3)]);
/// assert_eq!(map.iter().collect::<Vec<_>>(), [(&"a", &1), (&"b", &3)]);
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlatMap<K, V>(Box<[(K, V)]>);

impl<K, V> FlatMap<K, V> {
    /// Without entries.
    pub fn new() -> Self {
        Self(Box::default())
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Entries in the order of their keys.
    pub fn iter(&self) -> Iter<'_, K, V> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// Keys in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> + ExactSizeIterator {
        self.0.iter().map(|(key, _)| key)
    }

    /// Values in the order of their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> + ExactSizeIterator {
        self.0.iter().map(|(_, value)| value)
    }

    /// The same, to be changed.
    pub fn values_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }
}

impl<K: Ord, V> FlatMap<K, V> {
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        self.0.binary_search_by(|(known, _)| known.borrow().cmp(key))
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.find(key).ok().map(|at| &self.0[at].1)
    }

    /// The same, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.find(key).ok().map(|at| &mut self.0[at].1)
    }

    /// Whether there is a key.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).is_ok()
    }

    /// Puts an entry in, and answers the value that was there. It moves all others.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.find(&key) {
            Ok(at) => Some(std::mem::replace(&mut self.0[at].1, value)),
            Err(at) => {
                let mut pairs = std::mem::take(&mut self.0).into_vec();
                pairs.insert(at, (key, value));
                self.0 = pairs.into_boxed_slice();
                None
            }
        }
    }

    /// Takes an entry out. It moves all others.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let at = self.find(key).ok()?;
        let mut pairs = std::mem::take(&mut self.0).into_vec();
        let (_, value) = pairs.remove(at);
        self.0 = pairs.into_boxed_slice();
        Some(value)
    }

    /// Of several values of a key the last one counts.
    fn of(mut pairs: Vec<(K, V)>) -> Self {
        if !pairs.is_sorted_by(|(one, _), (next, _)| one < next) {
            // Stable, so that what came last is last among its equals.
            pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
            pairs.dedup_by(|next, one| {
                let is_same = one.0 == next.0;
                if is_same {
                    std::mem::swap(&mut one.1, &mut next.1);
                }
                is_same
            });
        }
        Self(pairs.into_boxed_slice())
    }
}

/// # Panics
///
/// When there is no such key.
impl<K: Ord + Borrow<Q>, V, Q: Ord + ?Sized> Index<&Q> for FlatMap<K, V> {
    type Output = V;

    #[allow(clippy::expect_used)]
    fn index(&self, key: &Q) -> &V {
        self.get(key).expect("there is no such key")
    }
}

impl<K, V> Default for FlatMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for FlatMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for FlatMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self::of(pairs.into_iter().collect())
    }
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for FlatMap<K, V> {
    fn from(pairs: [(K, V); N]) -> Self {
        Self::of(pairs.into())
    }
}

impl<K: Ord, V> Extend<(K, V)> for FlatMap<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, pairs: I) {
        let mut all = std::mem::take(&mut self.0).into_vec();
        all.extend(pairs);
        *self = Self::of(all);
    }
}

/// Entries in the order of their keys.
type Iter<'a, K, V> = std::iter::Map<std::slice::Iter<'a, (K, V)>, fn(&'a (K, V)) -> (&'a K, &'a V)>;

impl<'a, K, V> IntoIterator for &'a FlatMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K, V> IntoIterator for FlatMap<K, V> {
    type Item = (K, V);
    type IntoIter = std::vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_vec().into_iter()
    }
}

impl<K: Serialize, V: Serialize> Serialize for FlatMap<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Deserialize<'de> for FlatMap<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs<K, V>(PhantomData<(K, V)>);

        impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Visitor<'de> for Pairs<K, V> {
            type Value = FlatMap<K, V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                // A length that was only said makes no room.
                let mut pairs = Vec::new();
                while let Some(pair) = entries.next_entry()? {
                    pairs.push(pair);
                }
                Ok(FlatMap::of(pairs))
            }
        }

        deserializer.deserialize_map(Pairs(PhantomData))
    }
}

impl<K: JsonSchema, V: JsonSchema> JsonSchema for FlatMap<K, V> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        BTreeMap::<K, V>::schema_name()
    }

    fn schema_id() -> std::borrow::Cow<'static, str> {
        BTreeMap::<K, V>::schema_id()
    }

    fn inline_schema() -> bool {
        BTreeMap::<K, V>::inline_schema()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        BTreeMap::<K, V>::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Change {
        Insert(u8, u16),
        Remove(u8),
        Extend(Vec<(u8, u16)>),
        Rebuild(Vec<(u8, u16)>),
    }

    fn change() -> impl Strategy<Value = Change> {
        let pairs = || prop::collection::vec((0u8..20, any::<u16>()), 0..12);
        prop_oneof![
            (0u8..20, any::<u16>()).prop_map(|(key, value)| Change::Insert(key, value)),
            (0u8..20).prop_map(Change::Remove),
            pairs().prop_map(Change::Extend),
            pairs().prop_map(Change::Rebuild),
        ]
    }

    proptest! {
        #[test]
        fn it_is_what_the_standard_map_is(changes in prop::collection::vec(change(), 0..20)) {
            let (mut flat, mut standard) = (FlatMap::new(), BTreeMap::new());
            for change in changes {
                match change {
                    Change::Insert(key, value) => prop_assert_eq!(flat.insert(key, value), standard.insert(key, value)),
                    Change::Remove(key) => prop_assert_eq!(flat.remove(&key), standard.remove(&key)),
                    Change::Extend(pairs) => {
                        flat.extend(pairs.clone());
                        standard.extend(pairs);
                    }
                    Change::Rebuild(pairs) => {
                        flat = pairs.iter().copied().collect();
                        standard = pairs.into_iter().collect();
                    }
                }
                prop_assert!(flat.iter().eq(standard.iter()));
                for key in 0..20 {
                    prop_assert_eq!(flat.get(&key), standard.get(&key));
                }
            }
            let json = serde_json::to_string(&flat).unwrap();
            prop_assert_eq!(&json, &serde_json::to_string(&standard).unwrap());
            prop_assert_eq!(&serde_json::from_str::<FlatMap<u8, u16>>(&json).unwrap(), &flat);
        }
    }

    #[test]
    fn of_several_values_of_a_key_the_last_one_is_read() {
        let read: FlatMap<String, u8> = serde_json::from_str(r#"{"b":1,"a":2,"b":3}"#).unwrap();
        assert_eq!(read, FlatMap::from([("a".to_owned(), 2), ("b".to_owned(), 3)]));
        assert_eq!(format!("{read:?}"), r#"{"a": 2, "b": 3}"#);
    }
}
