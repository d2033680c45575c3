//! Maps of what is written once and stays: releases, config bundles, versions of secrets.
//!
//! Each entry knows the seq that wrote it. So what such a map held at an earlier seq can be read off
//! the map of today, and a State of the past shares the annals of the present instead of having its own.

use std::ops::RangeBounds;

use imbl::OrdMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::Seq;

/// A map whose entries say which seq wrote them; seen as of some seq.
#[derive(Clone, Debug)]
pub struct Annals<K: Ord, V> {
    entries: OrdMap<K, Entry<V>>,
    /// The last seq whose entries are seen. What was written later is there, but not yet so.
    through: Seq,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry<V> {
    seq: Seq,
    value: V,
}

/// Everything there is, is seen.
const ALL: Seq = Seq::MAX;

impl<K: Ord, V> Default for Annals<K, V> {
    fn default() -> Self {
        Self { entries: OrdMap::default(), through: ALL }
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> Annals<K, V> {
    /// The same as it was right after a record. Costs nothing: the entries are shared.
    pub(crate) fn as_of(&self, through: Seq) -> Self {
        Self { entries: self.entries.clone(), through: through.min(self.through) }
    }

    /// Writes an entry. One that is there with the same value stays as it is.
    pub fn insert(&mut self, key: K, seq: Seq, value: V) {
        if self.get(&key) == Some(&value) {
            return;
        }
        // From here on another history is written than that of the entries not seen.
        self.forget_unseen();
        self.entries.insert(key, Entry { seq, value });
    }

    fn forget_unseen(&mut self) {
        if self.through < ALL {
            let seen = self.entries.iter().filter(|(_, entry)| entry.seq <= self.through);
            self.entries = seen.map(|(key, entry)| (key.clone(), entry.clone())).collect();
            self.through = ALL;
        }
    }

    /// An entry's value.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).filter(|entry| entry.seq <= self.through).map(|entry| &entry.value)
    }

    /// Whether there is such an entry.
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Entries in a range of keys, in order.
    pub fn range(&self, keys: impl RangeBounds<K>) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        let through = self.through;
        let seen = self.entries.range(keys).filter(move |(_, entry)| entry.seq <= through);
        seen.map(|(key, entry)| (key, &entry.value))
    }

    /// All entries in the order of their keys.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.written().map(|(key, _, value)| (key, value))
    }

    /// All keys in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values in the order of their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// All entries with the seqs that wrote them.
    pub fn written(&self) -> impl DoubleEndedIterator<Item = (&K, Seq, &V)> {
        let through = self.through;
        let seen = self.entries.iter().filter(move |(_, entry)| entry.seq <= through);
        seen.map(|(key, entry)| (key, entry.seq, &entry.value))
    }

    /// The first key at which two maps differ, with what each has there.
    pub(crate) fn first_difference<'a>(
        &'a self,
        other: &'a Self,
    ) -> Option<(&'a K, Option<&'a V>, Option<&'a V>)> {
        let (mut ours, mut theirs) = (self.iter().peekable(), other.iter().peekable());
        loop {
            match (ours.peek(), theirs.peek()) {
                (None, None) => return None,
                (Some((key, value)), None) => return Some((key, Some(value), None)),
                (None, Some((key, value))) => return Some((key, None, Some(value))),
                (Some((one, value)), Some((two, _))) if one < two => return Some((one, Some(value), None)),
                (Some((one, _)), Some((two, value))) if one > two => return Some((two, None, Some(value))),
                (Some((key, one)), Some((_, two))) if one != two => return Some((key, Some(one), Some(two))),
                _ => {
                    ours.next();
                    theirs.next();
                }
            }
        }
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> PartialEq for Annals<K, V> {
    fn eq(&self, other: &Self) -> bool {
        if self.through == other.through && self.entries.ptr_eq(&other.entries) {
            return true;
        }
        self.written().eq(other.written())
    }
}

impl<K: Ord + Clone, V: Clone + Eq> Eq for Annals<K, V> {}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, Seq, V)> for Annals<K, V> {
    fn from_iter<T: IntoIterator<Item = (K, Seq, V)>>(entries: T) -> Self {
        let entries = entries.into_iter().map(|(key, seq, value)| (key, Entry { seq, value }));
        Self { entries: entries.collect(), through: ALL }
    }
}

impl<K: Ord + Clone + Serialize, V: Clone + PartialEq + Serialize> Serialize for Annals<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.through == ALL {
            return self.entries.serialize(serializer);
        }
        let mut seen = self.clone();
        seen.forget_unseen();
        seen.entries.serialize(serializer)
    }
}

impl<'de, K: Ord + Clone + Deserialize<'de>, V: Clone + Deserialize<'de>> Deserialize<'de> for Annals<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { entries: OrdMap::deserialize(deserializer)?, through: ALL })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn map(annals: &Annals<u8, u8>) -> BTreeMap<u8, u8> {
        annals.iter().map(|(key, value)| (*key, *value)).collect()
    }

    proptest! {
        #[test]
        fn the_past_is_read_off_the_present(keys in proptest::collection::vec(any::<u8>(), 1..80), at in 0_u64..80) {
            let mut annals = Annals::default();
            let mut written = BTreeMap::new();
            let mut then = (annals.clone(), BTreeMap::new());
            for (seq, key) in (1..).zip(keys) {
                // Each key has one value for ever.
                annals.insert(key, seq, key.wrapping_mul(7));
                written.insert(key, key.wrapping_mul(7));
                if seq <= at {
                    then = (annals.clone(), written.clone());
                }
            }
            let past = annals.as_of(at);
            prop_assert_eq!(map(&past), then.1.clone());
            prop_assert_eq!(&past, &then.0);
            prop_assert_eq!(past.first_difference(&then.0), None);
            for key in 0..=u8::MAX {
                prop_assert_eq!(past.get(&key), then.1.get(&key));
                prop_assert_eq!(past.range(..=key).next_back(), then.1.range(..=key).next_back());
            }
            // Another history goes on from there, without what came later in this one.
            let (mut other, mut oracle) = (past, then.1);
            other.insert(200, at + 1, 1);
            oracle.insert(200, 1);
            prop_assert_eq!(map(&other), oracle);
            prop_assert_eq!(map(&annals), written);
        }
    }

    #[test]
    fn a_value_written_again_keeps_its_seq() {
        let mut annals = Annals::default();
        annals.insert(1, 10, 'a');
        annals.insert(1, 20, 'a');
        assert_eq!(annals.written().collect::<Vec<_>>(), [(&1, 10, &'a')]);
        annals.insert(1, 30, 'b');
        assert_eq!(annals.written().collect::<Vec<_>>(), [(&1, 30, &'b')]);
    }

    #[test]
    fn only_what_is_seen_is_written_down() {
        let annals: Annals<u8, char> = [(1, 10, 'a'), (2, 20, 'b')].into_iter().collect();
        let text = serde_json::to_string(&annals.as_of(15)).unwrap();
        assert_eq!(text, r#"{"1":{"seq":10,"value":"a"}}"#);
        let read: Annals<u8, char> = serde_json::from_str(&text).unwrap();
        assert_eq!(read, annals.as_of(15));
    }
}
