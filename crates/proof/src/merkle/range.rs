//! Proofs for many leaves in a row at once: the nodes to the left and right of them.

use stele_model::Digest;

use super::{Hashes, check_index, node_hash, root_over, split};
use crate::error::ProofError;

/// That the leaves `first..end` stand there in the tree of `size` leaves: the roots of the
/// largest subtrees beside them, from the left. With one leaf these are the hashes of its
/// inclusion proof, in another order.
pub fn range_proof<H: Hashes>(hashes: &H, first: u64, end: u64, size: u64) -> Result<Vec<Digest>, H::Error> {
    check_range(first, end, size)?;
    let mut proof = Vec::new();
    collect(hashes, (first, end), (0, size), &mut proof)?;
    Ok(proof)
}

/// Checks that exactly these leaves, by their hashes, stand from `first` on in the tree of
/// `size` leaves and this root. None of them can be left out, added, changed or moved.
pub fn verify_range(
    leaves: &[Digest],
    first: u64,
    size: u64,
    proof: &[Digest],
    root: Digest,
) -> Result<(), ProofError> {
    let end = first.saturating_add(leaves.len() as u64);
    check_range(first, end, size)?;
    let mut rest = proof.iter();
    let computed = rebuild(leaves, (first, end), (0, size), &mut rest);
    let wrong_length = || ProofError::Length { what: "range", found: proof.len() };
    let computed = computed.ok_or_else(wrong_length)?;
    if rest.next().is_some() {
        return Err(wrong_length());
    }
    if computed == root { Ok(()) } else { Err(ProofError::Root { what: "range", size }) }
}

fn check_range(first: u64, end: u64, size: u64) -> Result<(), ProofError> {
    check_index(first, size)?;
    if end <= first || end > size {
        return Err(ProofError::Outside { what: format!("the range of leaves {first} to {end}"), size });
    }
    Ok(())
}

fn collect<H: Hashes>(
    hashes: &H,
    (first, end): (u64, u64),
    (low, high): (u64, u64),
    proof: &mut Vec<Digest>,
) -> Result<(), H::Error> {
    if high <= first || end <= low {
        proof.push(root_over(hashes, low, high)?);
        return Ok(());
    }
    if first <= low && high <= end {
        return Ok(());
    }
    let middle = low + split(high - low);
    collect(hashes, (first, end), (low, middle), proof)?;
    collect(hashes, (first, end), (middle, high), proof)
}

/// The root over `low..high` of the leaves given and the proof; absent when the proof is too short.
fn rebuild<'a>(
    leaves: &[Digest],
    (first, end): (u64, u64),
    (low, high): (u64, u64),
    proof: &mut impl Iterator<Item = &'a Digest>,
) -> Option<Digest> {
    if high <= first || end <= low {
        return proof.next().copied();
    }
    if high - low == 1 {
        return leaves.get((low - first) as usize).copied();
    }
    let middle = low + split(high - low);
    let left = rebuild(leaves, (first, end), (low, middle), proof)?;
    let right = rebuild(leaves, (first, end), (middle, high), proof)?;
    Some(node_hash(left, right))
}
