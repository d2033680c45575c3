//! Digests that are met again and again: kept once.

use std::cell::RefCell;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::limits::RECENT_TEXTS_MAX;

/// A digest that shares its memory with equal ones made lately by the same thread.
///
/// State has the digest of what its container is made of for each instance, twice, and all instances of a service are
/// made of the same: so it takes one word, where the digest takes four and whether there is one another.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedDigest(Arc<Digest>);

thread_local! {
    // Bounded and forgetful, as what short texts share.
    static RECENT: RefCell<Vec<Option<Arc<Digest>>>> = const { RefCell::new(Vec::new()) };
}

/// Where a digest is remembered, if it is: it is a hash already.
fn cell_of(digest: &Digest) -> usize {
    let [first, second, ..] = digest.0;
    usize::from(u16::from_le_bytes([first, second])) % RECENT_TEXTS_MAX
}

impl From<Digest> for SharedDigest {
    fn from(digest: Digest) -> Self {
        let shared = RECENT.try_with(|recent| {
            let mut recent = recent.borrow_mut();
            recent.resize(RECENT_TEXTS_MAX, None);
            let present = &mut recent[cell_of(&digest)];
            match present {
                Some(present) if **present == digest => Arc::clone(present),
                _ => Arc::clone(present.insert(Arc::new(digest))),
            }
        });
        // A thread that is about to end has forgotten all.
        Self(shared.unwrap_or_else(|_| Arc::new(digest)))
    }
}

impl Deref for SharedDigest {
    type Target = Digest;
    fn deref(&self) -> &Digest {
        &self.0
    }
}

impl PartialEq<Digest> for SharedDigest {
    fn eq(&self, other: &Digest) -> bool {
        *self.0 == *other
    }
}

impl Serialize for SharedDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SharedDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Digest::deserialize(deserializer).map(Into::into)
    }
}

impl fmt::Debug for SharedDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_ones_share_their_memory_and_all_are_themselves() {
        let digests: Vec<Digest> =
            (0..3 * RECENT_TEXTS_MAX).map(|at| Digest::of(&[&at.to_le_bytes()])).collect();
        let shared: Vec<SharedDigest> = digests.iter().map(|digest| (*digest).into()).collect();
        assert!(digests.iter().zip(&shared).all(|(digest, shared)| shared == digest));
        let (one, other) = (SharedDigest::from(digests[0]), SharedDigest::from(digests[0]));
        assert!(Arc::ptr_eq(&one.0, &other.0));
        assert_ne!(one, SharedDigest::from(digests[1]));
    }
}
