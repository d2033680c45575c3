//! Nodes out of tiles.

use stele_model::Digest;

use super::{TilePath, nodes_at};
use crate::error::ProofError;
use crate::limits::{TILE_HEIGHT, TILE_LEVELS_MAX, TILE_WIDTH};
use crate::merkle::{Hashes, node_hash};

/// Where tiles are read from.
pub trait TileSource {
    /// Why reading may fail.
    type Error: From<ProofError>;

    /// The bytes of a tile of hashes.
    fn tile(&self, path: &TilePath) -> Result<Vec<u8>, Self::Error>;
}

/// The nodes of a tree of `size` leaves, read from its tiles alone.
#[derive(Clone, Copy, Debug)]
pub struct TileHashes<S> {
    source: S,
    size: u64,
}

impl<S: TileSource> TileHashes<S> {
    /// Over the tiles that a tree of `size` leaves has.
    pub const fn new(source: S, size: u64) -> Self {
        Self { source, size }
    }
}

impl<S: TileSource> Hashes for TileHashes<S> {
    type Error = S::Error;

    fn hash(&self, level: u32, index: u64) -> Result<Digest, S::Error> {
        let missing = || ProofError::Missing { level, index };
        let (tile_level, height) = (level / TILE_HEIGHT, level % TILE_HEIGHT);
        let tile_level =
            u8::try_from(tile_level).ok().filter(|it| *it < TILE_LEVELS_MAX).ok_or_else(missing)?;
        let nodes = nodes_at(self.size, tile_level);
        // A node spans a power of two of its tile's hashes, so it never lies in two tiles.
        let count = 1_u64 << height;
        let first = index.checked_mul(count).ok_or_else(missing)?;
        if first.checked_add(count).is_none_or(|end| end > nodes) {
            return Err(missing().into());
        }
        let width = u64::from(TILE_WIDTH);
        let at = first / width;
        let path = TilePath::tile(tile_level, at, (nodes - at * width).min(width) as u16);
        let hashes = decode_tile(&path, &self.source.tile(&path)?)?;
        let offset = (first - at * width) as usize;
        let mut row = hashes.get(offset..offset + count as usize).ok_or_else(missing)?.to_vec();
        while row.len() > 1 {
            row = row.chunks_exact(2).map(|pair| node_hash(pair[0], pair[1])).collect();
        }
        Ok(row.first().copied().ok_or_else(missing)?)
    }
}

/// The hashes of a tile, as many as its path says.
pub fn decode_tile(path: &TilePath, bytes: &[u8]) -> Result<Vec<Digest>, ProofError> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    if hashes.len() != usize::from(path.width) || !rest.is_empty() {
        return Err(ProofError::Tile {
            what: path.to_string(),
            why: format!("it has {} bytes instead of {} hashes of 32", bytes.len(), path.width),
        });
    }
    Ok(hashes.iter().map(|hash| Digest(*hash)).collect())
}
