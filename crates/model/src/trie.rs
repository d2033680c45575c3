//! A Merkle radix trie over hashed keys: a digest of a map that is cheap to keep
//! and depends on nothing but the map's content.
//!
//! Keys are SHA-256 hashes, consumed four bits at a time from the front.
//! - The digest of no entry is 32 zero bytes.
//! - The digest of exactly one entry is `SHA-256(0x00 ‖ key ‖ value)`, wherever it hangs.
//! - The digest of more is `SHA-256(0x01 ‖ d0 ‖ … ‖ d15)` over the sixteen children.
//!
//! Nodes are shared between versions, so a clone costs nothing.

use std::sync::Arc;

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
    branch: Arc<Branch>,
}

/// Up to sixteen children. There are millions of leaves, and half of a branch's children are absent: only
/// those that are there take memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Branch {
    /// Bit `n`: child `n` is the next of `leaves`.
    leaves_at: u16,
    /// Bit `n`: child `n` is the next of `branches`.
    branches_at: u16,
    leaves: Box<[Leaf]>,
    branches: Box<[Below]>,
}

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

/// Where a child stands among those of its kind.
fn index(present: u16, at: usize) -> usize {
    (present & ((1 << at) - 1)).count_ones() as usize
}

fn insert<T>(into: &mut Box<[T]>, index: usize, one: T) {
    let mut all = std::mem::take(into).into_vec();
    all.reserve_exact(1);
    all.insert(index, one);
    *into = all.into();
}

fn remove<T>(from: &mut Box<[T]>, index: usize) -> T {
    let mut all = std::mem::take(from).into_vec();
    let one = all.remove(index);
    *from = all.into();
    one
}

impl Branch {
    /// Of what is the only child so far.
    fn of_leaf(leaf: Leaf, depth: usize) -> Self {
        Self { leaves_at: 1 << nibble(&leaf.key, depth), leaves: [leaf].into(), ..Self::default() }
    }

    /// What changes make where nothing is.
    fn made(depth: usize, changes: &[Change]) -> Self {
        let (mut leaves_at, mut branches_at) = (0, 0);
        let (mut leaves, mut branches) = (Vec::new(), Vec::new());
        for (at, group) in by_child(changes, depth) {
            match Node::made(depth + 1, group) {
                None => {}
                Some(Node::Leaf(leaf)) => {
                    leaves_at |= 1 << at;
                    leaves.push(leaf);
                }
                Some(Node::Below(below)) => {
                    branches_at |= 1 << at;
                    branches.push(below);
                }
            }
        }
        Self { leaves_at, branches_at, leaves: leaves.into(), branches: branches.into() }
    }

    /// Makes changes that all belong below it, in the order of their keys. Each branch is hashed once, however
    /// many changes are below it, and changed where it is unless somebody else has it, too.
    fn change(&mut self, depth: usize, changes: &[Change]) {
        for (at, group) in by_child(changes, depth) {
            let bit = 1 << at;
            if self.branches_at & bit != 0 {
                let child = &mut self.branches[index(self.branches_at, at)];
                let branch = Arc::make_mut(&mut child.branch);
                branch.change(depth + 1, group);
                if branch.is_branch() {
                    child.digest = branch.digest();
                } else {
                    let last = branch.leaves.first().cloned();
                    remove(&mut self.branches, index(self.branches_at, at));
                    self.branches_at &= !bit;
                    self.put(at, last.map(Node::Leaf));
                }
            } else if self.leaves_at & bit != 0 {
                let place = index(self.leaves_at, at);
                match group {
                    [(key, Some(value))] if self.leaves[place].key == *key => {
                        self.leaves[place] = Leaf::new(key, value);
                    }
                    _ => {
                        let leaf = remove(&mut self.leaves, place);
                        self.leaves_at &= !bit;
                        self.put(at, Node::Leaf(leaf).changed(depth + 1, group));
                    }
                }
            } else {
                self.put(at, Node::made(depth + 1, group));
            }
        }
    }

    /// Puts a child where none is.
    fn put(&mut self, at: usize, child: Option<Node>) {
        match child {
            None => {}
            Some(Node::Leaf(leaf)) => {
                insert(&mut self.leaves, index(self.leaves_at, at), leaf);
                self.leaves_at |= 1 << at;
            }
            Some(Node::Below(below)) => {
                insert(&mut self.branches, index(self.branches_at, at), below);
                self.branches_at |= 1 << at;
            }
        }
    }

    /// Whether it is one: a branch of one leaf is that leaf, otherwise the digest would remember the past.
    fn is_branch(&self) -> bool {
        !self.branches.is_empty() || self.leaves.len() > 1
    }

    fn digest(&self) -> Digest {
        let mut bytes = branch_bytes();
        let (mut leaves, mut branches) = (self.leaves.iter(), self.branches.iter());
        for at in 0..16 {
            let digest = if self.leaves_at & 1 << at != 0 {
                leaves.next().map(|leaf| leaf.digest)
            } else if self.branches_at & 1 << at != 0 {
                branches.next().map(|below| below.digest)
            } else {
                None
            };
            if let Some(digest) = digest {
                put_child(&mut bytes, at, &digest);
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
            _ => Self::of_branch(Arc::new(Branch::made(depth, changes))),
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
                Self::of_branch(Arc::new(branch))
            }
            (Self::Below(Below { mut branch, .. }), _) => {
                Arc::make_mut(&mut branch).change(depth, changes);
                Self::of_branch(branch)
            }
        }
    }

    fn of_branch(branch: Arc<Branch>) -> Option<Self> {
        if branch.is_branch() {
            return Some(Self::Below(Below { digest: branch.digest(), branch }));
        }
        branch.leaves.first().cloned().map(Self::Leaf)
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
