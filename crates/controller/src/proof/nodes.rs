//! The tree's nodes among the store's derived values: one value for each tile of hashes, and
//! a mark that says how far they go. They are written together or not at all.

use std::collections::BTreeMap;

use stele_codec::{Chain, StoredRecord};
use stele_model::{Digest, Seq};
use stele_proof::ProofError;
use stele_proof::limits::{TILE_HEIGHT, TILE_WIDTH};
use stele_proof::merkle::{Frontier, leaf_hash};
use stele_proof::tile::{TileHashes, TileKind, TilePath, TileSource};
use stele_store::Reader;

use super::TreeError;

/// What all keys of the tree begin with.
const PREFIX: &[u8] = b"proof/";
const MARK: &[u8] = b"proof/mark";
/// Bytes of one hash.
const HASH: usize = 32;

/// How far the tree goes, and over which log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    size: u64,
    root: Digest,
    chain: Digest,
}

impl Mark {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        [&self.size.to_be_bytes()[..], &self.root.0, &self.chain.0].concat()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (size, rest) = bytes.split_first_chunk()?;
        let (root, chain) = rest.split_first_chunk()?;
        let chain = chain.try_into().ok()?;
        Some(Self { size: u64::from_be_bytes(*size), root: Digest(*root), chain: Digest(chain) })
    }
}

fn key(level: u8, index: u64) -> Vec<u8> {
    [PREFIX, b"tile/", &[level], &index.to_be_bytes()].concat()
}

#[derive(Clone)]
pub(super) struct Nodes {
    reader: Reader,
}

impl Nodes {
    pub(super) const fn new(reader: Reader) -> Self {
        Self { reader }
    }

    pub(super) const fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The tree as it was left, or the empty one, when what is kept is not of this log.
    pub(super) fn open(&self) -> Result<Frontier, TreeError> {
        if let Some(frontier) = self.resume()? {
            return Ok(frontier);
        }
        tracing::info!("the tree of the log is built anew");
        self.delete()?;
        Ok(Frontier::new())
    }

    /// Forgets the tree: it is rebuilt from the records at the next start.
    pub(super) fn delete(&self) -> Result<(), TreeError> {
        Ok(self.reader.delete_all_derived(PREFIX)?)
    }

    fn resume(&self) -> Result<Option<Frontier>, TreeError> {
        let Some(mark) = self.reader.get_derived(MARK)? else { return Ok(None) };
        let Some(mark) = Mark::from_bytes(&mark) else { return Ok(None) };
        let Some(bytes) = self.reader.record(mark.size)? else { return Ok(None) };
        if StoredRecord::from_bytes(&bytes)?.1.0 != mark.chain {
            return Ok(None);
        }
        match Frontier::resume(&TileHashes::new(self, mark.size), mark.size) {
            Ok(frontier) => Ok(Some(frontier).filter(|frontier| frontier.root() == mark.root)),
            Err(TreeError::Proof(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Appends records, which follow those that are in the tree.
    pub(super) fn append(
        &self,
        frontier: &mut Frontier,
        records: &[(Seq, StoredRecord, Chain)],
    ) -> Result<(), TreeError> {
        let Some((_, _, chain)) = records.last() else { return Ok(()) };
        let mut added: BTreeMap<(u8, u64), (usize, Vec<u8>)> = BTreeMap::new();
        for (seq, record, _) in records {
            if *seq != frontier.size() + 1 {
                return Err(TreeError::Missing(frontier.size() + 1));
            }
            frontier.append(leaf_hash(&record.leaf), |level, index, hash| {
                // Nodes in between are made of these when they are wanted.
                if level.is_multiple_of(TILE_HEIGHT) {
                    let (tile, offset) = (index / u64::from(TILE_WIDTH), index % u64::from(TILE_WIDTH));
                    let tile = added.entry(((level / TILE_HEIGHT) as u8, tile));
                    tile.or_insert((offset as usize, Vec::new())).1.extend_from_slice(&hash.0);
                }
            });
        }
        let mut changes = Vec::with_capacity(added.len() + 1);
        for ((level, index), (offset, hashes)) in added {
            let key = key(level, index);
            let mut tile = if offset == 0 { Vec::new() } else { self.before(&key, level, index, offset)? };
            tile.extend_from_slice(&hashes);
            changes.push((key, Some(tile)));
        }
        let mark = Mark { size: frontier.size(), root: frontier.root(), chain: chain.0 };
        changes.push((MARK.to_vec(), Some(mark.to_bytes())));
        Ok(self.reader.put_derived(&changes)?)
    }

    /// The first hashes of a tile that is not full yet.
    fn before(&self, key: &[u8], level: u8, index: u64, count: usize) -> Result<Vec<u8>, TreeError> {
        let mut tile = self.reader.get_derived(key)?.unwrap_or_default();
        if tile.len() < count * HASH {
            return Err(ProofError::Missing { level: u32::from(level) * TILE_HEIGHT, index }.into());
        }
        tile.truncate(count * HASH);
        Ok(tile)
    }

    /// A tile's hashes, as many as its path says: the tile may have grown since.
    pub(super) fn read(&self, path: &TilePath) -> Result<Vec<u8>, TreeError> {
        let TileKind::Hashes(level) = path.kind else {
            return Err(
                ProofError::Tile { what: path.to_string(), why: "it holds no hashes".to_owned() }.into()
            );
        };
        self.before(&key(level, path.index), level, path.index, usize::from(path.width))
    }
}

impl TileSource for &Nodes {
    type Error = TreeError;

    fn tile(&self, path: &TilePath) -> Result<Vec<u8>, TreeError> {
        self.read(path)
    }
}
