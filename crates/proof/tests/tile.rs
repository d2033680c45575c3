//! Tiles: their paths, and that they hold the whole tree.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use stele_proof::ProofError;
use stele_proof::merkle::{Hashes, Tree, consistency_proof, inclusion_proof, leaf_hash, root};
use stele_proof::tile::{
    TileHashes, TilePath, TileSource, bundles_of, decode_tile, nodes_at, push_entry, read_entries, tiles_of,
};

struct Files(BTreeMap<TilePath, Vec<u8>>);

impl TileSource for &Files {
    type Error = ProofError;

    fn tile(&self, path: &TilePath) -> Result<Vec<u8>, ProofError> {
        let missing = || ProofError::Tile { what: path.to_string(), why: "it is not there".to_owned() };
        self.0.get(path).cloned().ok_or_else(missing)
    }
}

fn tree(size: u64) -> Tree {
    (0..size).map(|at| leaf_hash(&at.to_be_bytes())).collect()
}

fn tiles(tree: &Tree, size: u64) -> Files {
    let bytes = |path: &TilePath| {
        let stele_proof::tile::TileKind::Hashes(level) = path.kind else {
            unreachable!("no bundle is among them")
        };
        let first = path.index * 256;
        (first..first + u64::from(path.width))
            .flat_map(|at| tree.hash(u32::from(level) * 8, at).unwrap().0)
            .collect()
    };
    Files(tiles_of(size).map(|path| (path, bytes(&path))).collect())
}

#[test]
fn paths_are_those_of_the_specification() {
    for (text, path) in [
        ("tile/0/000", TilePath::tile(0, 0, 256)),
        ("tile/0/005", TilePath::tile(0, 5, 256)),
        ("tile/1/x001/x234/067", TilePath::tile(1, 1_234_067, 256)),
        ("tile/0/x001/000.p/1", TilePath::tile(0, 1000, 1)),
        ("tile/entries/x999/999.p/255", TilePath::entries(999_999, 255)),
        ("tile/entries/000", TilePath::entries(0, 256)),
    ] {
        assert_eq!(path.to_string(), text);
        assert_eq!(text.parse::<TilePath>().unwrap(), path);
    }
}

#[test]
fn there_is_one_path_to_each_tile() {
    for text in [
        "",
        "tile",
        "tile/0",
        "tile/0/",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/1",
        "tile/00/000",
        "tile/+0/000",
        "tile/8/000",
        "tile/256/000",
        "tile/-1/000",
        "tile/0/x000/001",
        "tile/0/001/000",
        "tile/0/x001",
        "tile/0/x001/x000",
        "tile/0/+01",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/0/000.p/1/2",
        "tile/0/000/",
        "/tile/0/000",
        "tile/0/000.p/+1",
        "tile/data/000",
        "tile/entries/",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
        "tile/0/..",
        "tile/0/٠٠٠",
    ] {
        assert!(text.parse::<TilePath>().is_err(), "{text:?} is no path");
    }
}

#[test]
fn the_tiles_of_a_tree_are_all_it_takes() {
    // Around the edges of tiles, and one with three levels.
    for size in [1, 2, 255, 256, 257, 511, 512, 700, 66_000] {
        let tree = tree(size);
        let files = tiles(&tree, size);
        let hashes = TileHashes::new(&files, size);
        assert_eq!(root(&hashes, size).unwrap(), tree.root(), "{size}");
        for at in [0, 1, size / 3, size / 2, size - 1] {
            let index = at.min(size - 1);
            let proof = inclusion_proof(&hashes, index, size).unwrap();
            assert_eq!(proof, inclusion_proof(&tree, index, size).unwrap(), "{index} of {size}");
            let proof = consistency_proof(&hashes, index + 1, size).unwrap();
            assert_eq!(proof, consistency_proof(&tree, index + 1, size).unwrap(), "{index} to {size}");
        }
        hashes.hash(0, size).unwrap_err();
        hashes.hash(63, 0).unwrap_err();
        hashes.hash(200, u64::MAX).unwrap_err();
    }
}

#[test]
fn a_tree_has_the_tiles_that_the_specification_says() {
    let names = |size| tiles_of(size).map(|path| path.to_string()).collect::<Vec<_>>();
    assert!(names(0).is_empty());
    assert_eq!(names(1), ["tile/0/000.p/1"]);
    assert_eq!(names(256), ["tile/0/000", "tile/1/000.p/1"]);
    assert_eq!(names(70_000).len(), 274 + 2 + 1);
    // The example of tlog-tiles: 70,000 leaves.
    let last: Vec<_> = names(70_000).into_iter().filter(|name| name.contains(".p/")).collect();
    assert_eq!(last, ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"]);
    assert_eq!(
        bundles_of(257).map(|path| path.to_string()).collect::<Vec<_>>(),
        ["tile/entries/000", "tile/entries/001.p/1"]
    );
    assert_eq!(nodes_at(u64::MAX, 255), 0);
}

#[test]
fn a_tile_of_another_length_is_refused() {
    let path = TilePath::tile(0, 0, 2);
    assert_eq!(decode_tile(&path, &[0; 64]).unwrap().len(), 2);
    for length in [0, 32, 63, 65, 96] {
        decode_tile(&path, &vec![0; length]).unwrap_err();
    }
}

#[test]
fn a_bundle_holds_exactly_its_entries() {
    let longest = vec![7; 65_535];
    let entries = [&b""[..], b"a", &longest];
    let mut bundle = Vec::new();
    for entry in entries {
        push_entry(&mut bundle, entry).unwrap();
    }
    assert_eq!(&bundle[..5], [0, 0, 0, 1, b'a']);
    assert_eq!(read_entries(&bundle, 3).unwrap(), entries);
    read_entries(&bundle, 2).unwrap_err();
    read_entries(&bundle, 4).unwrap_err();
    read_entries(&bundle[..bundle.len() - 1], 3).unwrap_err();
    push_entry(&mut bundle, &vec![0; 65_536]).unwrap_err();
}

proptest! {
    #[test]
    fn paths_read_back(level in 0_u8..8, index in 0..=(i64::MAX as u64 / 256), width in 1_u16..=256, entries in any::<bool>()) {
        let path = if entries { TilePath::entries(index, width) } else { TilePath::tile(level, index, width) };
        prop_assert_eq!(path.to_string().parse::<TilePath>().unwrap(), path);
    }

    #[test]
    fn any_text_is_a_path_or_refused(text in "(tile/)?[0-9a-z/x.]{0,20}") {
        if let Ok(path) = text.parse::<TilePath>() {
            prop_assert_eq!(path.to_string(), text);
        }
    }
}
