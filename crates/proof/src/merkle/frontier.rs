//! The tree's right edge: all that appending needs.

use stele_model::Digest;

use super::{Hashes, check_size, empty_root, node_hash};

/// A tree of which only the roots of its largest perfect subtrees are held: a few hashes,
/// however many leaves there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// Roots of the perfect subtrees, from the left: the largest first.
    peaks: Vec<Digest>,
}

impl Frontier {
    /// The tree without leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// The tree of the first `size` leaves, of which the nodes are kept.
    pub fn resume<H: Hashes>(hashes: &H, size: u64) -> Result<Self, H::Error> {
        check_size(size)?;
        let levels = (0..u64::BITS).rev().filter(|level| size >> level & 1 == 1);
        // A peak's index is even: it is the left child of what the tree grows into.
        let peaks = levels.map(|level| hashes.hash(level, (size >> level) - 1)).collect::<Result<_, _>>()?;
        Ok(Self { size, peaks })
    }

    /// How many leaves there are.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root.
    pub fn root(&self) -> Digest {
        let mut peaks = self.peaks.iter().rev().copied();
        let Some(last) = peaks.next() else { return empty_root() };
        peaks.fold(last, |right, left| node_hash(left, right))
    }

    /// Appends a leaf by its hash, and tells every node that this completes: its level, index and hash.
    pub fn append(&mut self, leaf: Digest, mut complete: impl FnMut(u32, u64, Digest)) {
        let (mut level, mut index, mut hash) = (0, self.size, leaf);
        complete(level, index, hash);
        while index & 1 == 1 {
            // As many peaks stand as the size has ones, so a right child finds its sibling.
            let Some(left) = self.peaks.pop() else { break };
            hash = node_hash(left, hash);
            level += 1;
            index >>= 1;
            complete(level, index, hash);
        }
        self.peaks.push(hash);
        self.size += 1;
    }
}
