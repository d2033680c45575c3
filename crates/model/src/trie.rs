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
    Branch(Arc<Branch>),
}

/// One entry. Its value is in the digest, and needed for nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Leaf {
    key: Digest,
    digest: Digest,
}

/// Up to sixteen children. There are millions of leaves, and half of a branch's children are absent: only
/// those that are there take memory.
#[derive(Debug, PartialEq, Eq)]
struct Branch {
    digest: Digest,
    /// Bit `n`: child `n` is the next of `leaves`.
    leaves_at: u16,
    /// Bit `n`: child `n` is the next of `branches`.
    branches_at: u16,
    leaves: Box<[Leaf]>,
    branches: Box<[Arc<Branch>]>,
}

/// The children of a branch while it changes.
type Children = [Option<Node>; 16];

/// Hex digits of a key: more than this many would mean two equal keys.
const DEPTH_MAX: usize = 64;

fn nibble(key: &Digest, depth: usize) -> usize {
    assert!(depth < DEPTH_MAX, "two distinct keys differ within their 64 digits");
    let byte = key.0[depth / 2];
    usize::from(if depth.is_multiple_of(2) { byte >> 4 } else { byte & 0x0f })
}

impl Branch {
    fn new(children: Children) -> Arc<Self> {
        let mut bytes = branch_bytes();
        let (mut leaves_at, mut branches_at) = (0_u16, 0_u16);
        for (at, child) in children.iter().enumerate() {
            let Some(child) = child else { continue };
            put_child(&mut bytes, at, &child.digest());
            match child {
                Node::Leaf(_) => leaves_at |= 1 << at,
                Node::Branch(_) => branches_at |= 1 << at,
            }
        }
        let mut leaves = Vec::with_capacity(leaves_at.count_ones() as usize);
        let mut branches = Vec::with_capacity(branches_at.count_ones() as usize);
        for child in children.into_iter().flatten() {
            match child {
                Node::Leaf(leaf) => leaves.push(leaf),
                Node::Branch(branch) => branches.push(branch),
            }
        }
        Arc::new(Self {
            digest: Digest::of(&[&bytes]),
            leaves_at,
            branches_at,
            leaves: leaves.into(),
            branches: branches.into(),
        })
    }

    fn children(&self) -> Children {
        let (mut leaves, mut branches) = (self.leaves.iter(), self.branches.iter());
        std::array::from_fn(|at| {
            if self.leaves_at & 1 << at != 0 {
                leaves.next().cloned().map(Node::Leaf)
            } else if self.branches_at & 1 << at != 0 {
                branches.next().cloned().map(Node::Branch)
            } else {
                None
            }
        })
    }
}

impl Node {
    fn leaf(key: Digest, value: Digest) -> Self {
        Self::Leaf(Leaf { key, digest: leaf_digest(&key, &value) })
    }

    fn digest(&self) -> Digest {
        match self {
            Self::Leaf(leaf) => leaf.digest,
            Self::Branch(branch) => branch.digest,
        }
    }

    /// What a node becomes by changes that all belong below it, in the order of their keys. Each branch
    /// is hashed once, however many changes are below it.
    fn changed(node: Option<Self>, depth: usize, changes: &[(Digest, Option<Digest>)]) -> Option<Self> {
        let mut children = match (node, changes) {
            (node, []) => return node,
            (None, [(key, value)]) => return value.map(|value| Self::leaf(*key, value)),
            (Some(Self::Leaf(present)), [(key, value)]) if present.key == *key => {
                return value.map(|value| Self::leaf(*key, value));
            }
            (None, _) => Children::default(),
            (Some(Self::Branch(branch)), _) => branch.children(),
            (Some(Self::Leaf(present)), _) => {
                let mut children = Children::default();
                let at = nibble(&present.key, depth);
                children[at] = Some(Self::Leaf(present));
                children
            }
        };
        for below in changes.chunk_by(|(one, _), (other, _)| nibble(one, depth) == nibble(other, depth)) {
            let at = nibble(&below[0].0, depth);
            children[at] = Self::changed(children[at].take(), depth + 1, below);
        }
        let mut left = children.iter().flatten();
        match (left.next(), left.next()) {
            // A branch of one leaf is that leaf: otherwise the digest would remember the past.
            (Some(Self::Leaf(only)), None) => Some(Self::Leaf(only.clone())),
            (None, _) => None,
            _ => Some(Self::Branch(Branch::new(children))),
        }
    }
}

impl Trie {
    /// Sets or, with `None`, removes the values of keys. Of one key's values the last one counts.
    pub fn set(&mut self, changes: impl IntoIterator<Item = (Digest, Option<Digest>)>) {
        let mut changes: Vec<_> = changes.into_iter().collect();
        in_order(&mut changes);
        self.root = Node::changed(self.root.take(), 0, &changes);
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
            for below in entries.chunk_by(|(one, _), (other, _)| nibble(one, depth) == nibble(other, depth)) {
                put_child(&mut bytes, nibble(&below[0].0, depth), &digest_below(depth + 1, below));
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
                trie.set(step.iter().map(|(key, value)| (digest(*key), value.map(digest))));
                for (key, value) in step {
                    match value.map(digest) {
                        Some(value) => oracle.insert(digest(key), value),
                        None => oracle.remove(&digest(key)),
                    };
                }
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
