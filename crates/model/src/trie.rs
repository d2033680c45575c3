//! A Merkle radix trie over hashed keys: a digest of a map that is cheap to keep
//! and depends on nothing but the map's content.
//!
//! Keys are SHA-256 hashes, consumed four bits at a time from the front.
//! - The digest of no entry is 32 zero bytes.
//! - The digest of exactly one entry is `SHA-256(0x00 ‖ key ‖ value)`, wherever it hangs.
//! - The digest of more is `SHA-256(0x01 ‖ d0 ‖ … ‖ d15)` over the sixteen children.
//!
//! Nodes are shared between versions, so a clone costs nothing.

use triomphe::{Arc, ThinArc};

use crate::digest::Digest;

/// A map from key digest to value digest that knows its own digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trie {
    root: Option<Node>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Leaf(Leaf),
    Below(Below),
}

/// One entry. Its value is in the digest, and needed for nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Leaf {
    key: Digest,
    digest: Digest,
}

/// A branch and its digest, which stands here so that who hashes all children of a branch need not visit each.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Below {
    digest: Digest,
    branch: Branch,
}

/// Up to sixteen children. There are millions of leaves, and half of a branch's children are absent: only
/// those that are there take memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Branch {
    leaves: Children<Leaf>,
    branches: Children<Below>,
}

/// Children of one kind in the order of their places, of which bit `n` says that place `n` is taken. Copies share
/// their memory, and a pointer to it takes one word.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Children<T>(Option<ThinArc<u16, T>>);

/// A key, and its value or that there is none any more.
type Change = (Digest, Option<Digest>);

/// Hex digits of a key: more than this many would mean two equal keys.
const DEPTH_MAX: usize = 64;

fn nibble(key: &Digest, depth: usize) -> usize {
    assert!(depth < DEPTH_MAX, "two distinct keys differ within their 64 digits");
    let byte = key.0[depth / 2];
    usize::from(if depth.is_multiple_of(2) { byte >> 4 } else { byte & 0x0f })
}

/// What is in the order of its keys, by the child that it belongs below.
fn by_child<V>(keyed: &[(Digest, V)], depth: usize) -> impl Iterator<Item = (usize, &[(Digest, V)])> {
    let groups = keyed.chunk_by(move |(one, _), (other, _)| nibble(one, depth) == nibble(other, depth));
    groups.map(move |group| (nibble(&group[0].0, depth), group))
}

impl<T> Default for Children<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Clone> Children<T> {
    fn of(places: u16, children: Vec<T>) -> Self {
        assert_eq!(places.count_ones() as usize, children.len(), "every child has a place");
        Self((places != 0).then(|| ThinArc::from_header_and_iter(places, children.into_iter())))
    }

    fn places(&self) -> u16 {
        self.0.as_ref().map_or(0, |children| children.header.header)
    }

    fn as_slice(&self) -> &[T] {
        self.0.as_ref().map_or(&[], |children| &children.slice)
    }

    fn has(&self, place: usize) -> bool {
        self.places() & 1 << place != 0
    }

    /// Which of the slice has a place, or would have it.
    fn index(&self, place: usize) -> usize {
        (self.places() & ((1 << place) - 1)).count_ones() as usize
    }

    /// Changes a child where it is, or in a copy of all where somebody else has them, too.
    fn change<R>(&mut self, place: usize, change: impl FnOnce(&mut T) -> R) -> R {
        assert!(self.has(place), "only a child that is there is changed");
        if self.0.as_ref().is_some_and(|children| ThinArc::strong_count(children) > 1) {
            *self = Self::of(self.places(), self.as_slice().to_vec());
        }
        let index = self.index(place);
        let changed = self.0.as_mut().and_then(|children| {
            children.with_arc_mut(|own| Arc::get_mut(own).map(|own| change(&mut own.slice_mut()[index])))
        });
        #[allow(clippy::expect_used)]
        changed.expect("nobody else has them")
    }

    /// Puts a child where none is.
    fn insert(&mut self, place: usize, child: T) {
        let mut children = self.as_slice().to_vec();
        children.insert(self.index(place), child);
        *self = Self::of(self.places() | 1 << place, children);
    }

    fn remove(&mut self, place: usize) {
        let mut children = self.as_slice().to_vec();
        children.remove(self.index(place));
        *self = Self::of(self.places() & !(1 << place), children);
    }
}

impl Branch {
    /// Of what is the only child so far.
    fn of_leaf(leaf: Leaf, depth: usize) -> Self {
        let place = 1 << nibble(&leaf.key, depth);
        Self { leaves: Children::of(place, vec![leaf]), ..Self::default() }
    }

    /// What changes make where nothing is.
    fn made(depth: usize, changes: &[Change]) -> Self {
        let (mut leaves_at, mut branches_at) = (0, 0);
        let (mut leaves, mut branches) = (Vec::new(), Vec::new());
        for (place, group) in by_child(changes, depth) {
            match Node::made(depth + 1, group) {
                None => {}
                Some(Node::Leaf(leaf)) => {
                    leaves_at |= 1 << place;
                    leaves.push(leaf);
                }
                Some(Node::Below(below)) => {
                    branches_at |= 1 << place;
                    branches.push(below);
                }
            }
        }
        Self { leaves: Children::of(leaves_at, leaves), branches: Children::of(branches_at, branches) }
    }

    /// Makes changes that all belong below it, in the order of their keys. Each branch is hashed once, however
    /// many changes are below it, and changed where it is unless somebody else has it, too.
    fn change(&mut self, depth: usize, changes: &[Change]) {
        for (place, group) in by_child(changes, depth) {
            if self.branches.has(place) {
                // One leaf is no branch: otherwise the digest would remember the past.
                let left = self.branches.change(place, |below| {
                    below.branch.change(depth + 1, group);
                    if below.branch.is_branch() {
                        below.digest = below.branch.digest();
                        return None;
                    }
                    Some(below.branch.leaves.as_slice().first().cloned())
                });
                if let Some(left) = left {
                    self.branches.remove(place);
                    self.put(place, left.map(Node::Leaf));
                }
            } else if self.leaves.has(place) {
                let leaf = self.leaves.as_slice()[self.leaves.index(place)].clone();
                match group {
                    [(key, Some(value))] if leaf.key == *key => {
                        self.leaves.change(place, |leaf| *leaf = Leaf::new(key, value));
                    }
                    _ => {
                        self.leaves.remove(place);
                        self.put(place, Node::Leaf(leaf).changed(depth + 1, group));
                    }
                }
            } else {
                self.put(place, Node::made(depth + 1, group));
            }
        }
    }

    /// Puts a child where none is.
    fn put(&mut self, place: usize, child: Option<Node>) {
        match child {
            None => {}
            Some(Node::Leaf(leaf)) => self.leaves.insert(place, leaf),
            Some(Node::Below(below)) => self.branches.insert(place, below),
        }
    }

    /// Whether it is one: a branch of one leaf is that leaf, otherwise the digest would remember the past.
    fn is_branch(&self) -> bool {
        !self.branches.as_slice().is_empty() || self.leaves.as_slice().len() > 1
    }

    fn digest(&self) -> Digest {
        let mut bytes = branch_bytes();
        let (mut leaves, mut branches) = (self.leaves.as_slice().iter(), self.branches.as_slice().iter());
        let (leaves_at, branches_at) = (self.leaves.places(), self.branches.places());
        for place in 0..16 {
            let digest = if leaves_at & 1 << place != 0 {
                leaves.next().map(|leaf| leaf.digest)
            } else if branches_at & 1 << place != 0 {
                branches.next().map(|below| below.digest)
            } else {
                None
            };
            if let Some(digest) = digest {
                put_child(&mut bytes, place, &digest);
            }
        }
        Digest::of(&[&bytes])
    }
}

impl Leaf {
    fn new(key: &Digest, value: &Digest) -> Self {
        Self { key: *key, digest: leaf_digest(key, value) }
    }
}

impl Node {
    fn digest(&self) -> Digest {
        match self {
            Self::Leaf(leaf) => leaf.digest,
            Self::Below(below) => below.digest,
        }
    }

    /// What changes make where nothing is.
    fn made(depth: usize, changes: &[Change]) -> Option<Self> {
        match changes {
            [] => None,
            [(key, value)] => value.map(|value| Self::Leaf(Leaf::new(key, &value))),
            _ => Self::of_branch(Branch::made(depth, changes)),
        }
    }

    /// What it becomes by changes that all belong here, in the order of their keys.
    fn changed(self, depth: usize, changes: &[Change]) -> Option<Self> {
        match (self, changes) {
            (node, []) => Some(node),
            (Self::Leaf(present), [(key, value)]) if present.key == *key => {
                value.map(|value| Self::Leaf(Leaf::new(key, &value)))
            }
            (Self::Leaf(present), _) => {
                let mut branch = Branch::of_leaf(present, depth);
                branch.change(depth, changes);
                Self::of_branch(branch)
            }
            (Self::Below(Below { mut branch, .. }), _) => {
                branch.change(depth, changes);
                Self::of_branch(branch)
            }
        }
    }

    fn of_branch(branch: Branch) -> Option<Self> {
        if branch.is_branch() {
            return Some(Self::Below(Below { digest: branch.digest(), branch }));
        }
        branch.leaves.as_slice().first().cloned().map(Self::Leaf)
    }
}

impl Trie {
    /// Sets or, with `None`, removes the values of keys. Of one key's values the last one counts.
    pub fn set(&mut self, changes: impl IntoIterator<Item = Change>) {
        let mut changes: Vec<_> = changes.into_iter().collect();
        in_order(&mut changes);
        self.root = match self.root.take() {
            None => Node::made(0, &changes),
            Some(root) => root.changed(0, &changes),
        };
    }

    /// An entry under a name: its key is the name's hash.
    pub fn named(name: &str, value: Digest) -> (Digest, Digest) {
        (Digest::of(&[name.as_bytes()]), value)
    }

    /// The digest of the whole map.
    pub fn digest(&self) -> Digest {
        self.root.as_ref().map_or(Digest::EMPTY, Node::digest)
    }

    /// The digest of a map given at once, without making it. Of one key's values the last one counts.
    pub fn digest_of(entries: impl IntoIterator<Item = (Digest, Digest)>) -> Digest {
        let mut entries: Vec<_> = entries.into_iter().collect();
        in_order(&mut entries);
        digest_below(0, &entries)
    }
}

/// Sorts entries by their keys, and keeps the last one of each.
fn in_order<V: Copy>(entries: &mut Vec<(Digest, V)>) {
    // A sort that keeps those of equal keys in the order in which they came.
    entries.sort_by_key(|(key, _)| *key);
    entries.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        if same {
            *kept = *later;
        }
        same
    });
}

/// The digest of entries in order, whose keys are equal up to a depth.
fn digest_below(depth: usize, entries: &[(Digest, Digest)]) -> Digest {
    match entries {
        [] => Digest::EMPTY,
        [(key, value)] => leaf_digest(key, value),
        _ => {
            let mut bytes = branch_bytes();
            for (at, group) in by_child(entries, depth) {
                put_child(&mut bytes, at, &digest_below(depth + 1, group));
            }
            Digest::of(&[&bytes])
        }
    }
}

fn leaf_digest(key: &Digest, value: &Digest) -> Digest {
    Digest::of(&[&[0], &key.0, &value.0])
}

/// What the digest of a branch is of, while it has no child.
fn branch_bytes() -> [u8; 1 + 16 * 32] {
    let mut bytes = [0; 1 + 16 * 32];
    bytes[0] = 1;
    bytes
}

fn put_child(bytes: &mut [u8; 1 + 16 * 32], at: usize, digest: &Digest) {
    bytes[1 + at * 32..][..32].copy_from_slice(&digest.0);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Some differ at once, and some in their last digits alone.
    fn key(name: u8) -> Digest {
        if name < 20 {
            return Digest::of(&[&[name]]);
        }
        let mut key = Digest::EMPTY;
        (key.0[1], key.0[30], key.0[31]) = (name % 2, name / 2 % 2 * 16, name / 4);
        key
    }

    proptest! {
        #[test]
        fn the_digest_depends_on_the_content_alone(
            steps in proptest::collection::vec(
                proptest::collection::vec((0_u8..40, proptest::option::of(any::<u8>())), 0..20), 0..30)
        ) {
            let mut trie = Trie::default();
            let mut oracle = BTreeMap::new();
            for step in steps {
                let digest = |byte: u8| Digest::of(&[&[byte]]);
                let (before, was) = (trie.clone(), trie.digest());
                trie.set(step.iter().map(|(name, value)| (key(*name), value.map(digest))));
                for (name, value) in step {
                    match value.map(digest) {
                        Some(value) => oracle.insert(key(name), value),
                        None => oracle.remove(&key(name)),
                    };
                }
                let entries = oracle.iter().map(|(key, value)| (*key, *value));
                prop_assert_eq!(Trie::digest_of(entries), trie.digest());
                // What somebody else has does not change.
                let mut again = before;
                again.set([(Digest::EMPTY, Some(Digest::EMPTY)), (Digest::EMPTY, None)]);
                prop_assert_eq!(again.digest(), was);
            }
            let mut fresh = Trie::default();
            for (key, value) in oracle.iter().rev() {
                fresh.set([(*key, Some(*value))]);
            }
            prop_assert_eq!(&trie, &fresh);
            prop_assert_eq!(oracle.is_empty(), trie.digest() == Digest::EMPTY);
            let stale = oracle.keys().map(|key| (*key, Digest::EMPTY));
            let entries = stale.chain(oracle.iter().rev().map(|(key, value)| (*key, *value)));
            prop_assert_eq!(Trie::digest_of(entries), trie.digest());
        }
    }
}
