//! A Merkle radix trie over hashed keys: a digest of a map that is cheap to keep
//! and depends on nothing but the map's content.
//!
//! Keys are SHA-256 hashes, consumed four bits at a time from the front.
//! - The digest of no entry is 32 zero bytes.
//! - The digest of exactly one entry is `SHA-256(0x00 ‖ key ‖ value)`, wherever it hangs.
//! - The digest of more is `SHA-256(0x01 ‖ d0 ‖ … ‖ d15)` over the sixteen children.
//!
//! Nodes are shared between versions, so a clone costs nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::digest::Digest;

/// A map from key digest to value digest that knows its own digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trie {
    root: Option<Arc<Node>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Node {
    Leaf { key: Digest, value: Digest, digest: Digest },
    Branch { children: [Option<Arc<Node>>; 16], digest: Digest },
}

/// Hex digits of a key: more than this many would mean two equal keys.
const DEPTH_MAX: usize = 64;

fn nibble(key: &Digest, depth: usize) -> usize {
    assert!(depth < DEPTH_MAX, "two distinct keys differ within their 64 digits");
    let byte = key.0[depth / 2];
    usize::from(if depth.is_multiple_of(2) { byte >> 4 } else { byte & 0x0f })
}

impl Node {
    fn leaf(key: Digest, value: Digest) -> Arc<Self> {
        let digest = Digest::of(&[&[0], &key.0, &value.0]);
        Arc::new(Self::Leaf { key, value, digest })
    }

    fn branch(children: [Option<Arc<Self>>; 16]) -> Arc<Self> {
        let mut bytes = Vec::with_capacity(1 + 16 * 32);
        bytes.push(1);
        for child in &children {
            bytes.extend_from_slice(&child.as_ref().map_or(Digest::EMPTY, |child| child.digest()).0);
        }
        Arc::new(Self::Branch { digest: Digest::of(&[&bytes]), children })
    }

    fn digest(&self) -> Digest {
        match self {
            Self::Leaf { digest, .. } | Self::Branch { digest, .. } => *digest,
        }
    }

    /// What a node becomes by changes that all belong below it, in the order of their keys. Each branch
    /// is hashed once, however many changes are below it.
    fn changed(
        node: Option<&Arc<Self>>,
        depth: usize,
        changes: &[(Digest, Option<Digest>)],
    ) -> Option<Arc<Self>> {
        let mut children = match (node.map(AsRef::as_ref), changes) {
            (_, []) => return node.cloned(),
            (None, [(key, value)]) => return value.map(|value| Self::leaf(*key, value)),
            (Some(Self::Leaf { key: present, .. }), [(key, value)]) if present == key => {
                return value.map(|value| Self::leaf(*key, value));
            }
            (None, _) => Default::default(),
            (Some(Self::Branch { children, .. }), _) => children.clone(),
            (Some(Self::Leaf { key, .. }), _) => {
                let mut children = <[Option<Arc<Self>>; 16]>::default();
                children[nibble(key, depth)] = node.cloned();
                children
            }
        };
        for below in changes.chunk_by(|(one, _), (other, _)| nibble(one, depth) == nibble(other, depth)) {
            let at = nibble(&below[0].0, depth);
            children[at] = Self::changed(children[at].as_ref(), depth + 1, below);
        }
        let mut left = children.iter().flatten();
        match (left.next(), left.next()) {
            // A branch of one leaf is that leaf: otherwise the digest would remember the past.
            (Some(only), None) if matches!(only.as_ref(), Self::Leaf { .. }) => Some(Arc::clone(only)),
            (None, _) => None,
            _ => Some(Self::branch(children)),
        }
    }
}

impl Trie {
    /// Sets or, with `None`, removes the values of keys. Of one key's values the last one counts.
    pub fn set(&mut self, changes: impl IntoIterator<Item = (Digest, Option<Digest>)>) {
        let changes: BTreeMap<_, _> = changes.into_iter().collect();
        let changes: Vec<_> = changes.into_iter().collect();
        self.root = Node::changed(self.root.as_ref(), 0, &changes);
    }

    /// The digest of the whole map.
    pub fn digest(&self) -> Digest {
        self.root.as_ref().map_or(Digest::EMPTY, |root| root.digest())
    }

    /// The digest of a map given at once. Keys are hashed first.
    pub fn digest_of<'a>(entries: impl IntoIterator<Item = (&'a str, Digest)>) -> Digest {
        let mut trie = Self::default();
        trie.set(entries.into_iter().map(|(key, value)| (Digest::of(&[key.as_bytes()]), Some(value))));
        trie.digest()
    }
}

#[cfg(test)]
mod tests {
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
        }
    }
}
