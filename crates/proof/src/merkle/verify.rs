//! Checking proofs: the algorithms of RFC 9162, 2.1.3.2 and 2.1.4.2, step by step.

use stele_model::Digest;

use super::{check_index, check_size, empty_root, node_hash};
use crate::error::ProofError;

/// Checks that a leaf of this hash stands at `index` in the tree of `size` leaves and this root.
pub fn verify_inclusion(
    leaf: Digest,
    index: u64,
    size: u64,
    proof: &[Digest],
    root: Digest,
) -> Result<(), ProofError> {
    check_index(index, size)?;
    let wrong_length = || length("inclusion", proof);
    let (mut node, mut last) = (index, size - 1);
    let mut hash = leaf;
    for sibling in proof {
        if last == 0 {
            return Err(wrong_length());
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(*sibling, hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(hash, *sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(wrong_length());
    }
    if hash == root { Ok(()) } else { Err(ProofError::Root { what: "inclusion", size }) }
}

/// Checks that the tree of `to` leaves and root `new` begins with the one of `from` leaves and root `old`.
pub fn verify_consistency(
    from: u64,
    to: u64,
    proof: &[Digest],
    old: Digest,
    new: Digest,
) -> Result<(), ProofError> {
    check_size(to)?;
    if from > to {
        return Err(ProofError::Order { from, to });
    }
    let wrong = |size| ProofError::Root { what: "consistency", size };
    if from == 0 || from == to {
        if !proof.is_empty() {
            return Err(length("consistency", proof));
        }
        if from == 0 && old != empty_root() {
            return Err(wrong(0));
        }
        return if from == to && old != new { Err(wrong(to)) } else { Ok(()) };
    }
    // A whole perfect tree is left out of the proof, for its root is known.
    let (start, rest) = match proof.split_first() {
        Some(_) if from.is_power_of_two() => (old, proof),
        Some((first, rest)) => (*first, rest),
        None => return Err(length("consistency", proof)),
    };
    let (mut node, mut last) = (from - 1, to - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut before, mut after) = (start, start);
    for sibling in rest {
        if last == 0 {
            return Err(length("consistency", proof));
        }
        if node & 1 == 1 || node == last {
            before = node_hash(*sibling, before);
            after = node_hash(*sibling, after);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            after = node_hash(after, *sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(length("consistency", proof));
    }
    match (before == old, after == new) {
        (true, true) => Ok(()),
        (false, _) => Err(wrong(from)),
        (true, false) => Err(wrong(to)),
    }
}

fn length(what: &'static str, proof: &[Digest]) -> ProofError {
    ProofError::Length { what, found: proof.len() }
}
