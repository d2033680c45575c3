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

    fn insert(node: Option<&Arc<Self>>, depth: usize, key: Digest, value: Digest) -> Arc<Self> {
        match node.map(AsRef::as_ref) {
            None => Self::leaf(key, value),
            Some(Self::Leaf { key: present, .. }) if *present == key => Self::leaf(key, value),
            Some(Self::Leaf { key: present, value: kept, .. }) => {
                let mut children = <[Option<Arc<Self>>; 16]>::default();
                children[nibble(present, depth)] = Some(Self::leaf(*present, *kept));
                let at = nibble(&key, depth);
                children[at] = Some(Self::insert(children[at].as_ref(), depth + 1, key, value));
                Self::branch(children)
            }
            Some(Self::Branch { children, .. }) => {
                let mut children = children.clone();
                let at = nibble(&key, depth);
                children[at] = Some(Self::insert(children[at].as_ref(), depth + 1, key, value));
                Self::branch(children)
            }
        }
    }

    fn remove(node: &Arc<Self>, depth: usize, key: &Digest) -> Option<Arc<Self>> {
        match node.as_ref() {
            Self::Leaf { key: present, .. } => (present != key).then(|| Arc::clone(node)),
            Self::Branch { children, .. } => {
                let at = nibble(key, depth);
                let Some(child) = &children[at] else { return Some(Arc::clone(node)) };
                let mut children = children.clone();
                children[at] = Self::remove(child, depth + 1, key);
                let mut left = children.iter().flatten();
                match (left.next(), left.next()) {
                    // A branch of one leaf is that leaf: otherwise the digest would remember the past.
                    (Some(only), None) if matches!(only.as_ref(), Self::Leaf { .. }) => {
                        Some(Arc::clone(only))
                    }
                    (None, _) => None,
                    _ => Some(Self::branch(children)),
                }
            }
        }
    }
}

impl Trie {
    /// Sets or, with `None`, removes the value of a key.
    pub fn set(&mut self, key: Digest, value: Option<Digest>) {
        self.root = match value {
            Some(value) => Some(Node::insert(self.root.as_ref(), 0, key, value)),
            None => self.root.as_ref().and_then(|root| Node::remove(root, 0, &key)),
        };
    }

    /// The digest of the whole map.
    pub fn digest(&self) -> Digest {
        self.root.as_ref().map_or(Digest::EMPTY, |root| root.digest())
    }

    /// The digest of a map given at once. Keys are hashed first.
    pub fn digest_of<'a>(entries: impl IntoIterator<Item = (&'a str, Digest)>) -> Digest {
        let mut trie = Self::default();
        for (key, value) in entries {
            trie.set(Digest::of(&[key.as_bytes()]), Some(value));
        }
        trie.digest()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_digest_depends_on_the_content_alone(
            steps in proptest::collection::vec((0_u8..40, proptest::option::of(any::<u8>())), 0..200)
        ) {
            let mut trie = Trie::default();
            let mut oracle = BTreeMap::new();
            for (key, value) in steps {
                let key = Digest::of(&[&[key]]);
                let value = value.map(|value| Digest::of(&[&[value]]));
                trie.set(key, value);
                match value {
                    Some(value) => oracle.insert(key, value),
                    None => oracle.remove(&key),
                };
            }
            let mut fresh = Trie::default();
            for (key, value) in oracle.iter().rev() {
                fresh.set(*key, Some(*value));
            }
            prop_assert_eq!(trie.digest(), fresh.digest());
            prop_assert_eq!(oracle.is_empty(), trie.digest() == Digest::EMPTY);
        }
    }
}
