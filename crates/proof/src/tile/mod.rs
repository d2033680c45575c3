//! Tiles: the tree cut into static files, as in C2SP tlog-tiles.
//!
//! A tile of level `L` and index `N` holds the nodes of tree level `8 * L` and the
//! indexes `256 * N .. 256 * N + 256`, one after the other. Every node between is made of them. A bundle
//! holds the entries themselves, which here are leaves. The rightmost tile of a level
//! may be partial; its width is part of its path.

mod bundle;
mod path;
mod read;

use crate::limits::{TILE_HEIGHT, TILE_WIDTH};

pub use bundle::{push_entry, read_entries};
pub use path::{TileKind, TilePath};
pub use read::{TileHashes, TileSource, decode_tile};

/// The tiles of a tree, in order of level and index: what a mirror fetches. Bundles are not among them.
pub fn tiles_of(size: u64) -> impl Iterator<Item = TilePath> {
    let levels = (0_u8..).map_while(move |level| {
        let nodes = nodes_at(size, level);
        (nodes > 0).then_some((level, nodes))
    });
    levels.flat_map(|(level, nodes)| {
        widths(nodes).map(move |(index, width)| TilePath::tile(level, index, width))
    })
}

/// The bundles of a tree, in order.
pub fn bundles_of(size: u64) -> impl Iterator<Item = TilePath> {
    widths(size).map(|(index, width)| TilePath::entries(index, width))
}

/// How many nodes a tree of `size` leaves has at a level of tiles.
pub fn nodes_at(size: u64, level: u8) -> u64 {
    size.checked_shr(u32::from(level) * TILE_HEIGHT).unwrap_or(0)
}

fn widths(nodes: u64) -> impl Iterator<Item = (u64, u16)> {
    let width = u64::from(TILE_WIDTH);
    (0..nodes.div_ceil(width)).map(move |index| (index, (nodes - index * width).min(width) as u16))
}
