//! The tree: RFC 6962 hashing over leaves. The record of seq n is leaf n - 1.
//!
//! A *node* of level `l` and index `i` is the root of the perfect subtree over the
//! leaves `i * 2^l .. (i + 1) * 2^l`. Once it is complete it never changes, so nodes
//! are what is kept; everything else is made of them.

mod frontier;
mod prove;
mod range;
mod tree;
mod verify;

use stele_model::Digest;

use crate::error::ProofError;
use crate::limits::TREE_LEAVES_MAX;

pub use frontier::Frontier;
pub use prove::{consistency_proof, inclusion_proof, root};
pub use range::{range_proof, verify_range};
pub use tree::Tree;
pub use verify::{verify_consistency, verify_inclusion};

/// The hash of a leaf: `SHA-256(0x00 ‖ leaf)`.
pub fn leaf_hash(leaf: &[u8]) -> Digest {
    Digest::of(&[&[0], leaf])
}

/// The hash over two subtrees: `SHA-256(0x01 ‖ left ‖ right)`.
pub fn node_hash(left: Digest, right: Digest) -> Digest {
    Digest::of(&[&[1], &left.0, &right.0])
}

/// The root of the tree without leaves: SHA-256 of nothing.
pub fn empty_root() -> Digest {
    Digest::of(&[])
}

/// Where complete nodes are read from.
pub trait Hashes {
    /// Why reading may fail.
    type Error: From<ProofError>;

    /// The node of a level above the leaves, and index from the left.
    fn hash(&self, level: u32, index: u64) -> Result<Digest, Self::Error>;
}

impl<H: Hashes + ?Sized> Hashes for &H {
    type Error = H::Error;

    fn hash(&self, level: u32, index: u64) -> Result<Digest, Self::Error> {
        (**self).hash(level, index)
    }
}

/// The largest power of two below `size`: where RFC 6962 splits a tree of at least two leaves.
const fn split(size: u64) -> u64 {
    assert!(size >= 2, "a tree of one leaf is not split");
    1 << (size - 1).ilog2()
}

/// The root over the leaves `low..high`, where `low` is a multiple of the first power of
/// two that is not below their count.
fn root_over<H: Hashes>(hashes: &H, low: u64, high: u64) -> Result<Digest, H::Error> {
    let size = high - low;
    if size.is_power_of_two() {
        let level = size.trailing_zeros();
        return hashes.hash(level, low >> level);
    }
    let middle = low + split(size);
    Ok(node_hash(root_over(hashes, low, middle)?, root_over(hashes, middle, high)?))
}

fn check_size(size: u64) -> Result<(), ProofError> {
    if size > TREE_LEAVES_MAX {
        return Err(ProofError::Outside { what: format!("a size of {size}"), size: TREE_LEAVES_MAX });
    }
    Ok(())
}

fn check_index(index: u64, size: u64) -> Result<(), ProofError> {
    check_size(size)?;
    if index >= size {
        return Err(ProofError::Outside { what: format!("leaf {index}"), size });
    }
    Ok(())
}
