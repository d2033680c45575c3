//! Making proofs: RFC 9162, 2.1.3.1 and 2.1.4.1.

use stele_model::Digest;

use super::{Hashes, check_index, check_size, empty_root, root_over, split};
use crate::error::ProofError;

/// The root of the first `size` leaves.
pub fn root<H: Hashes>(hashes: &H, size: u64) -> Result<Digest, H::Error> {
    check_size(size)?;
    if size == 0 {
        return Ok(empty_root());
    }
    root_over(hashes, 0, size)
}

/// That the leaf at `index` is in the tree of `size` leaves: the siblings on the way up.
pub fn inclusion_proof<H: Hashes>(hashes: &H, index: u64, size: u64) -> Result<Vec<Digest>, H::Error> {
    check_index(index, size)?;
    let (mut low, mut high) = (0, size);
    let mut path = Vec::new();
    while high - low > 1 {
        let middle = low + split(high - low);
        if index < middle {
            path.push(root_over(hashes, middle, high)?);
            high = middle;
        } else {
            path.push(root_over(hashes, low, middle)?);
            low = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// That the tree of `to` leaves begins with the tree of `from` leaves. Empty when either is
/// all there is to say: `from` is zero or equals `to`.
pub fn consistency_proof<H: Hashes>(hashes: &H, from: u64, to: u64) -> Result<Vec<Digest>, H::Error> {
    check_size(to)?;
    if from > to {
        return Err(ProofError::Order { from, to }.into());
    }
    let mut path = Vec::new();
    if from == 0 {
        return Ok(path);
    }
    let (mut low, mut high) = (0, to);
    while high != from {
        let middle = low + split(high - low);
        if from <= middle {
            path.push(root_over(hashes, middle, high)?);
            high = middle;
        } else {
            path.push(root_over(hashes, low, middle)?);
            low = middle;
        }
    }
    // Whoever holds the old root knows this node already when it is that whole tree.
    if low > 0 {
        path.push(root_over(hashes, low, high)?);
    }
    path.reverse();
    Ok(path)
}
