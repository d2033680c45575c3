//! Tiles, bundles of entries, and proofs of the tree.

use std::sync::LazyLock;

use stele_model::Digest;
use stele_proof::merkle::{
    Tree, consistency_proof, inclusion_proof, leaf_hash, range_proof, verify_consistency, verify_inclusion,
    verify_range,
};
use stele_proof::tile::{TileHashes, TilePath, TileSource, decode_tile, push_entry, read_entries};
use stele_proof::{ProofError, merkle::Hashes as _};

use super::shapes;
use crate::mutate::Form;
use crate::nasty;
use crate::target::{Budget, Named, Target, Verdict, holds};

/// Leaves of the tree that proofs are of.
const LEAVES: u64 = 300;

pub(super) fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "tile-path",
            decoder: "`TilePath`",
            holds: "written again it is the same bytes",
            form: Form::Text,
            budget: Budget { fixed: 1 << 20, per_byte: 20 },
            run: tile_path,
            mend: None,
            made: made_paths,
            nasty: nasty::texts,
        },
        Target {
            name: "tile",
            decoder: "`decode_tile`, `read_entries`, `TileHashes`",
            holds: "what is read makes up all the bytes there are; nodes are had or missing, wherever they are",
            form: Form::Bytes,
            budget: Budget { fixed: 1 << 20, per_byte: 40 },
            run: tile,
            mend: None,
            made: made_tiles,
            nasty: nasty::bytes,
        },
        Target {
            name: "merkle-proof",
            decoder: "`verify_inclusion`, `verify_consistency`, `verify_range`",
            holds: "of one tree, only what is in it is proved, at its place",
            form: Form::Bytes,
            budget: Budget { fixed: 1 << 20, per_byte: 40 },
            run: proof,
            mend: None,
            made: made_proofs,
            nasty: nasty::bytes,
        },
    ]
}

fn tile_path(input: &[u8]) -> Result<Verdict, String> {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(Verdict::Refused) };
    let Some(path) = shapes::text::<TilePath>(text)? else { return Ok(Verdict::Refused) };
    holds(path.to_string() == text, || "written again, the path is another".to_owned())?;
    Ok(Verdict::Read)
}

fn made_paths() -> anyhow::Result<Vec<Named>> {
    let texts = ["tile/0/000", "tile/entries/x001/x234/067.p/12", "tile/7/003.p/255", "tile/1/x123/456"];
    Ok(texts.iter().enumerate().map(|(at, text)| (at.to_string(), text.as_bytes().to_vec())).collect())
}

/// One tile for whatever is asked.
struct Same<'a>(&'a [u8]);

impl TileSource for Same<'_> {
    type Error = ProofError;
    fn tile(&self, _: &TilePath) -> Result<Vec<u8>, ProofError> {
        Ok(self.0.to_vec())
    }
}

/// Width, tree size, level and index, then the tile.
fn tile(input: &[u8]) -> Result<Verdict, String> {
    let Some((head, bytes)) = input.split_first_chunk::<19>() else { return Ok(Verdict::Refused) };
    let width = u16::from_be_bytes([head[0], head[1]]);
    let size = u64::from_be_bytes([head[2], head[3], head[4], head[5], head[6], head[7], head[8], head[9]]);
    let index =
        u64::from_be_bytes([head[10], head[11], head[12], head[13], head[14], head[15], head[16], head[17]]);
    let mut verdict = Verdict::Refused;
    if let Ok(hashes) = decode_tile(&TilePath::tile(0, 0, width), bytes) {
        let again: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
        holds(again == bytes, || "the hashes are not all of the tile".to_owned())?;
        verdict = Verdict::Read;
    }
    if let Ok(entries) = read_entries(bytes, width) {
        let mut again = Vec::new();
        for entry in entries {
            push_entry(&mut again, entry).map_err(|error| format!("an entry that was read: {error}"))?;
        }
        holds(again == bytes, || "the entries are not all of the bundle".to_owned())?;
        verdict = Verdict::Read;
    }
    let _ = TileHashes::new(Same(bytes), size).hash(u32::from(head[18]), index);
    Ok(verdict)
}

fn made_tiles() -> anyhow::Result<Vec<Named>> {
    let head = |width: u16, size: u64, index: u64, level: u8| {
        [&width.to_be_bytes()[..], &size.to_be_bytes(), &index.to_be_bytes(), &[level]].concat()
    };
    let hashes: Vec<u8> = (0..40_u8).flat_map(|leaf| leaf_hash(&[leaf]).0).collect();
    let mut bundle = Vec::new();
    for entry in [&b"first"[..], b"", &[7; 300]] {
        push_entry(&mut bundle, entry)?;
    }
    Ok(vec![
        ("hashes".to_owned(), [head(40, 40, 3, 2), hashes].concat()),
        ("entries".to_owned(), [head(3, 3, 0, 0), bundle].concat()),
        ("nothing".to_owned(), head(0, 0, 0, 0)),
    ])
}

fn tree() -> &'static Tree {
    static TREE: LazyLock<Tree> = LazyLock::new(|| (0..LEAVES).map(leaf).collect());
    &TREE
}

fn leaf(index: u64) -> Digest {
    leaf_hash(&index.to_be_bytes())
}

/// Kind, two numbers, how many leaves, then hashes: first of the leaves, then of the proof.
fn proof(input: &[u8]) -> Result<Verdict, String> {
    let Some((head, bytes)) = input.split_first_chunk::<18>() else { return Ok(Verdict::Refused) };
    let one = u64::from_be_bytes([head[1], head[2], head[3], head[4], head[5], head[6], head[7], head[8]]);
    let two =
        u64::from_be_bytes([head[9], head[10], head[11], head[12], head[13], head[14], head[15], head[16]]);
    let (hashes, _) = bytes.as_chunks::<32>();
    let hashes: Vec<Digest> = hashes.iter().map(|hash| Digest(*hash)).collect();
    let (leaves, proof) = hashes.split_at(usize::from(head[17]).min(hashes.len()));
    let root = tree().root();
    let claimed = leaves.first().copied().unwrap_or(root);
    let is_proved = match head[0] % 3 {
        0 => {
            let is_proved = verify_inclusion(claimed, one, two, proof, root).is_ok();
            // Of another size no such root is known: a smaller claim with an inner node as leaf may lead there.
            let is_there = two != LEAVES || (one < LEAVES && claimed == leaf(one));
            holds(!is_proved || is_there, || format!("a leaf is proved at {one} that is not there"))?;
            is_proved
        }
        1 => {
            let is_proved = verify_consistency(one, two, proof, claimed, root).is_ok();
            let is_so = || (0..one).map(leaf).collect::<Tree>().root() == claimed;
            if is_proved && two == LEAVES && one <= LEAVES {
                holds(is_so(), || format!("another tree of {one} leaves is proved to be the beginning"))?;
            }
            is_proved
        }
        _ => {
            let is_proved = verify_range(leaves, one, two, proof, root).is_ok();
            if is_proved && two == LEAVES {
                let right = leaves.iter().zip(one..).all(|(hash, index)| *hash == leaf(index));
                holds(right, || format!("leaves are proved from {one} on that are not there"))?;
            }
            is_proved
        }
    };
    Ok(if is_proved { Verdict::Read } else { Verdict::Refused })
}

fn made_proofs() -> anyhow::Result<Vec<Named>> {
    let tree = tree();
    let input = |kind: u8, one: u64, two: u64, leaves: &[Digest], proof: &[Digest]| {
        let hashes = leaves.iter().chain(proof).flat_map(|hash| hash.0);
        let head = [&[kind][..], &one.to_be_bytes(), &two.to_be_bytes(), &[leaves.len() as u8]].concat();
        head.into_iter().chain(hashes).collect::<Vec<u8>>()
    };
    let before = (0..100).map(leaf).collect::<Tree>().root();
    let leaves: Vec<_> = (17..30).map(leaf).collect();
    Ok(vec![
        ("inclusion".to_owned(), input(0, 17, LEAVES, &[leaf(17)], &inclusion_proof(tree, 17, LEAVES)?)),
        (
            "inclusion-last".to_owned(),
            input(0, 299, LEAVES, &[leaf(299)], &inclusion_proof(tree, 299, LEAVES)?),
        ),
        ("consistency".to_owned(), input(1, 100, LEAVES, &[before], &consistency_proof(tree, 100, LEAVES)?)),
        ("range".to_owned(), input(2, 17, LEAVES, &leaves, &range_proof(tree, 17, 30, LEAVES)?)),
    ])
}
