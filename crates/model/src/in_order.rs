//! Looking up many keys in the order in which a map has them.
//!
//! In a map of ten thousand names a lookup compares fourteen of them, each somewhere else in memory. Whoever goes
//! through one map and looks at another one of nearly the same keys finds the next key right behind the last.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::Iter;
use imbl::shared_ptr::DefaultSharedPtr;

use crate::event::EnrolledNode;
use crate::ids::{InstanceId, NodeName};
use crate::state::{Observed, State};
use crate::wire::InstanceReport;

/// How many entries are passed over on the way to a key before it is looked up.
const STEPS_MAX: usize = 4;
/// After so many keys in a row that lay further away, all others are looked up, too.
const FAR_MAX: usize = 16;

/// A map in which keys are looked up: any may be, but those in order are found with less.
pub(crate) struct InOrder<'a, K, V> {
    map: &'a OrdMap<K, V>,
    ahead: Peekable<Iter<'a, K, V, DefaultSharedPtr>>,
    far: usize,
}

impl<'a, K: Ord, V> InOrder<'a, K, V> {
    pub(crate) fn new(map: &'a OrdMap<K, V>) -> Self {
        Self { map, ahead: map.iter().peekable(), far: 0 }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<&'a V> {
        if self.far == FAR_MAX {
            return self.map.get(key);
        }
        for step in 0..=STEPS_MAX {
            match self.ahead.peek().map(|(at, value)| ((*at).cmp(key), *value)) {
                Some((Ordering::Less, _)) => {
                    self.ahead.next();
                }
                Some((Ordering::Equal, value)) => {
                    self.far = 0;
                    return Some(value);
                }
                // The one before it was less.
                Some((Ordering::Greater, _)) | None if step > 0 => {
                    self.far = 0;
                    return None;
                }
                Some((Ordering::Greater, _)) | None => break,
            }
        }
        self.far += 1;
        self.map.get(key)
    }
}

/// How the nodes of a State are, for whoever looks at many of them, best in order of their names.
pub struct Nodes<'a> {
    enrolled: InOrder<'a, NodeName, Arc<EnrolledNode>>,
    observed: InOrder<'a, NodeName, Observed>,
}

impl<'a> Nodes<'a> {
    /// As [`State::report_of`].
    pub fn report_of(&mut self, node: &NodeName, instance: &InstanceId) -> Option<&'a Arc<InstanceReport>> {
        self.observed.get(node)?.instances.get(instance)
    }

    /// As [`State::is_reachable`].
    pub fn is_reachable(&mut self, node: &NodeName) -> bool {
        self.enrolled.get(node).is_some() && !self.observed.get(node).is_some_and(|seen| seen.lost)
    }

    /// As [`State::is_healthy`].
    pub fn is_healthy(&mut self, node: &NodeName, instance: &InstanceId) -> bool {
        let report = self.report_of(node, instance);
        report.is_some_and(|report| report.is_well()) && self.is_reachable(node)
    }
}

impl State {
    /// How its nodes are, for whoever looks at many of them.
    pub fn nodes(&self) -> Nodes<'_> {
        Nodes { enrolled: InOrder::new(&self.control.nodes), observed: InOrder::new(&self.observed) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_is_looked_up_is_what_the_map_has(
            present in btree_set(0..300_u32, 0..200),
            asked in vec(0..300_u32, 0..400),
            sorted: bool,
        ) {
            let map: OrdMap<u32, u32> = present.into_iter().map(|key| (key, key + 1)).collect();
            let mut asked = asked;
            if sorted {
                asked.sort_unstable();
            }
            let mut in_order = InOrder::new(&map);
            for key in asked {
                prop_assert_eq!(in_order.get(&key), map.get(&key), "{}", key);
            }
        }
    }
}
