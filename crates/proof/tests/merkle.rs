//! The tree against the definition in RFC 6962, written down as it stands there, and against its known roots.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use stele_model::Digest;
use stele_proof::merkle::{
    Frontier, Tree, consistency_proof, empty_root, inclusion_proof, leaf_hash, node_hash, range_proof, root,
    verify_consistency, verify_inclusion, verify_range,
};

/// The leaves of the certificate-transparency project's tests.
const LEAVES: [&str; 8] =
    ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];

/// The roots over the first 0, 1, … 8 of them.
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn known_leaves() -> Vec<Digest> {
    LEAVES.iter().map(|leaf| leaf_hash(&hex::decode(leaf).unwrap())).collect()
}

fn digest(text: &str) -> Digest {
    Digest(hex::decode(text).unwrap().try_into().unwrap())
}

fn largest_power_below(n: usize) -> usize {
    let mut k = 1;
    while k * 2 < n {
        k *= 2;
    }
    k
}

/// MTH of RFC 6962, 2.1.
fn naive_root(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => empty_root(),
        [only] => *only,
        _ => {
            let k = largest_power_below(leaves.len());
            node_hash(naive_root(&leaves[..k]), naive_root(&leaves[k..]))
        }
    }
}

/// PATH of RFC 6962, 2.1.1.
fn naive_path(m: usize, leaves: &[Digest]) -> Vec<Digest> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let k = largest_power_below(leaves.len());
    let (mut path, sibling) = if m < k {
        (naive_path(m, &leaves[..k]), naive_root(&leaves[k..]))
    } else {
        (naive_path(m - k, &leaves[k..]), naive_root(&leaves[..k]))
    };
    path.push(sibling);
    path
}

/// SUBPROOF of RFC 6962, 2.1.2.
fn naive_subproof(m: usize, leaves: &[Digest], known: bool) -> Vec<Digest> {
    if m == leaves.len() {
        return if known { Vec::new() } else { vec![naive_root(leaves)] };
    }
    let k = largest_power_below(leaves.len());
    let (mut proof, sibling) = if m <= k {
        (naive_subproof(m, &leaves[..k], known), naive_root(&leaves[k..]))
    } else {
        (naive_subproof(m - k, &leaves[k..], false), naive_root(&leaves[..k]))
    };
    proof.push(sibling);
    proof
}

fn leaves(count: usize) -> Vec<Digest> {
    (0..count).map(|at| leaf_hash(&at.to_be_bytes())).collect()
}

/// Every proof that differs from this one in one bit, in its length or in its order.
fn damaged(proof: &[Digest]) -> Vec<Vec<Digest>> {
    let mut found = Vec::new();
    for at in 0..proof.len() {
        for bit in [0, 77, 255] {
            let mut other = proof.to_vec();
            other[at].0[bit / 8] ^= 1 << (bit % 8);
            found.push(other);
        }
        let mut shorter = proof.to_vec();
        shorter.remove(at);
        found.push(shorter);
        let mut longer = proof.to_vec();
        longer.insert(at, proof[at]);
        found.push(longer);
    }
    if proof.len() > 1 {
        let mut swapped = proof.to_vec();
        swapped.swap(0, 1);
        if swapped != proof {
            found.push(swapped);
        }
    }
    found.push([proof, &[empty_root()]].concat());
    found
}

#[test]
fn the_known_roots_come_out() {
    let leaves = known_leaves();
    let tree: Tree = leaves.iter().copied().collect();
    let mut frontier = Frontier::new();
    for (size, known) in ROOTS.iter().enumerate() {
        assert_eq!(frontier.root(), digest(known), "frontier of {size}");
        assert_eq!(root(&tree, size as u64).unwrap(), digest(known), "tree of {size}");
        assert_eq!(naive_root(&leaves[..size]), digest(known), "definition for {size}");
        if let Some(leaf) = leaves.get(size) {
            frontier.append(*leaf, |_, _, _| ());
        }
    }
}

#[test]
fn a_known_proof_verifies() {
    // Leaf 5 of 8, from the certificate-transparency project's tests.
    let path = [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    .map(digest);
    let leaf = leaf_hash(&hex::decode(LEAVES[5]).unwrap());
    verify_inclusion(leaf, 5, 8, &path, digest(ROOTS[8])).unwrap();
}

#[test]
fn every_proof_of_every_small_tree_is_the_defined_one_and_verifies() {
    let all = leaves(40);
    let tree: Tree = all.iter().copied().collect();
    for size in 1..=all.len() {
        let now = naive_root(&all[..size]);
        for index in 0..size {
            let proof = inclusion_proof(&tree, index as u64, size as u64).unwrap();
            assert_eq!(proof, naive_path(index, &all[..size]), "leaf {index} of {size}");
            verify_inclusion(all[index], index as u64, size as u64, &proof, now).unwrap();
        }
        for from in 1..=size {
            let proof = consistency_proof(&tree, from as u64, size as u64).unwrap();
            assert_eq!(proof, naive_subproof(from, &all[..size], true), "{from} to {size}");
            let then = naive_root(&all[..from]);
            verify_consistency(from as u64, size as u64, &proof, then, now).unwrap();
        }
        for first in 0..size {
            for end in first + 1..=size {
                let proof = range_proof(&tree, first as u64, end as u64, size as u64).unwrap();
                verify_range(&all[first..end], first as u64, size as u64, &proof, now).unwrap();
            }
        }
    }
}

#[test]
fn the_empty_tree_is_the_beginning_of_every_tree() {
    let tree: Tree = leaves(5).into_iter().collect();
    assert_eq!(consistency_proof(&tree, 0, 5).unwrap(), []);
    verify_consistency(0, 5, &[], empty_root(), tree.root()).unwrap();
    verify_consistency(0, 0, &[], empty_root(), empty_root()).unwrap();
    verify_consistency(0, 5, &[], tree.root(), tree.root()).unwrap_err();
    verify_consistency(0, 0, &[], empty_root(), tree.root()).unwrap_err();
    verify_consistency(0, 5, &[tree.root()], empty_root(), tree.root()).unwrap_err();
}

#[test]
fn what_is_outside_the_tree_is_refused() {
    let tree: Tree = leaves(5).into_iter().collect();
    let root = tree.root();
    inclusion_proof(&tree, 5, 5).unwrap_err();
    inclusion_proof(&tree, 0, 0).unwrap_err();
    inclusion_proof(&tree, 0, 6).unwrap_err();
    inclusion_proof(&tree, 0, u64::MAX).unwrap_err();
    verify_inclusion(root, 0, 0, &[], root).unwrap_err();
    verify_inclusion(root, 1, 1, &[], root).unwrap_err();
    verify_inclusion(root, 0, u64::MAX, &[], root).unwrap_err();
    consistency_proof(&tree, 6, 5).unwrap_err();
    verify_consistency(6, 5, &[], root, root).unwrap_err();
    verify_consistency(1, u64::MAX, &[], root, root).unwrap_err();
    range_proof(&tree, 2, 2, 5).unwrap_err();
    range_proof(&tree, 2, 6, 5).unwrap_err();
    verify_range(&[], 0, 5, &[], root).unwrap_err();
    verify_range(&[root], u64::MAX, 5, &[], root).unwrap_err();
}

#[test]
fn the_largest_sizes_neither_overflow_nor_go_on_for_ever() {
    let size = i64::MAX as u64;
    let proof = vec![empty_root(); 128];
    for index in [0, 1, size / 2, size - 1] {
        verify_inclusion(empty_root(), index, size, &proof, empty_root()).unwrap_err();
    }
    verify_consistency(size - 1, size, &proof, empty_root(), empty_root()).unwrap_err();
    verify_range(&[empty_root()], size / 3, size, &proof, empty_root()).unwrap_err();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn trees_of_any_size_agree_with_the_definition(size in 1_usize..700, a in any::<usize>(), b in any::<usize>()) {
        let all = leaves(size);
        let tree: Tree = all.iter().copied().collect();
        let now = naive_root(&all);
        prop_assert_eq!(tree.root(), now);
        prop_assert_eq!(root(&tree, size as u64).unwrap(), now);
        let index = a % size;
        let proof = inclusion_proof(&tree, index as u64, size as u64).unwrap();
        prop_assert_eq!(&proof, &naive_path(index, &all));
        verify_inclusion(all[index], index as u64, size as u64, &proof, now).unwrap();
        let from = b % size + 1;
        let proof = consistency_proof(&tree, from as u64, size as u64).unwrap();
        prop_assert_eq!(&proof, &naive_subproof(from, &all, true));
        verify_consistency(from as u64, size as u64, &proof, naive_root(&all[..from]), now).unwrap();
    }

    #[test]
    fn a_tree_resumed_anywhere_grows_alike(size in 0_usize..300, at in any::<usize>()) {
        let all = leaves(size);
        let tree: Tree = all.iter().copied().collect();
        let at = at % (size + 1);
        let mut resumed = Frontier::resume(&tree, at as u64).unwrap();
        prop_assert_eq!(resumed.root(), naive_root(&all[..at]));
        for leaf in &all[at..] {
            resumed.append(*leaf, |_, _, _| ());
        }
        prop_assert_eq!(resumed.root(), tree.root());
        prop_assert_eq!(resumed.size(), size as u64);
    }

    #[test]
    fn a_damaged_proof_is_refused(size in 1_usize..200, a in any::<usize>(), b in any::<usize>()) {
        let all = leaves(size);
        let tree: Tree = all.iter().copied().collect();
        let (size64, now) = (size as u64, tree.root());
        let index = (a % size) as u64;
        let leaf = all[index as usize];
        let proof = inclusion_proof(&tree, index, size64).unwrap();
        for other in damaged(&proof) {
            prop_assert!(verify_inclusion(leaf, index, size64, &other, now).is_err());
        }
        for other in 0..size64 {
            let ok = verify_inclusion(leaf, other, size64, &proof, now).is_ok();
            prop_assert_eq!(ok, other == index, "it stands at {}, not at {}", index, other);
        }
        prop_assert!(verify_inclusion(leaf_hash(b"other"), index, size64, &proof, now).is_err());

        let from = (b % size) as u64 + 1;
        let then = naive_root(&all[..from as usize]);
        let proof = consistency_proof(&tree, from, size64).unwrap();
        for other in damaged(&proof) {
            prop_assert!(verify_consistency(from, size64, &other, then, now).is_err());
        }
        prop_assert!(verify_consistency(from, size64, &proof, leaf_hash(b"other"), now).is_err());
        prop_assert!(verify_consistency(from, size64, &proof, then, leaf_hash(b"other")).is_err());

        let (first, end) = (index.min(from - 1), index.max(from - 1) + 1);
        let mut within = all[first as usize..end as usize].to_vec();
        let proof = range_proof(&tree, first, end, size64).unwrap();
        for other in damaged(&proof) {
            prop_assert!(verify_range(&within, first, size64, &other, now).is_err());
        }
        if within.len() > 1 {
            prop_assert!(verify_range(&within[1..], first, size64, &proof, now).is_err());
            within.swap(0, 1);
            prop_assert!(verify_range(&within, first, size64, &proof, now).is_err());
        }
    }
}
