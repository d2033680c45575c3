//! Paths of tiles: `tile/<L>/<N>[.p/<W>]` and `tile/entries/<N>[.p/<W>]`.

use std::fmt;
use std::str::FromStr;

use crate::error::ProofError;
use crate::limits::{TILE_LEVELS_MAX, TILE_PATH_BYTES_MAX, TILE_WIDTH, TREE_LEAVES_MAX};

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TileKind {
    /// Hashes of this level of tiles.
    Hashes(u8),
    /// Entries.
    Entries,
}

/// The path of one tile or bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TilePath {
    /// What it holds.
    pub kind: TileKind,
    /// From the left.
    pub index: u64,
    /// How many hashes or entries it holds: 256 when it is full.
    pub width: u16,
}

impl TilePath {
    /// A tile of hashes.
    pub const fn tile(level: u8, index: u64, width: u16) -> Self {
        Self { kind: TileKind::Hashes(level), index, width }
    }

    /// A bundle of entries.
    pub const fn entries(index: u64, width: u16) -> Self {
        Self { kind: TileKind::Entries, index, width }
    }

    /// Whether nothing can be added to it any more.
    pub const fn is_full(&self) -> bool {
        self.width == TILE_WIDTH
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hashes(level) => write!(f, "tile/{level}/")?,
            TileKind::Entries => f.write_str("tile/entries/")?,
        }
        let mut groups = Vec::new();
        let mut left = self.index;
        loop {
            groups.push(left % 1000);
            left /= 1000;
            if left == 0 {
                break;
            }
        }
        while let Some(group) = groups.pop() {
            if groups.is_empty() {
                write!(f, "{group:03}")?;
            } else {
                write!(f, "x{group:03}/")?;
            }
        }
        if !self.is_full() {
            write!(f, ".p/{}", self.width)?;
        }
        Ok(())
    }
}

impl FromStr for TilePath {
    type Err = ProofError;

    fn from_str(text: &str) -> Result<Self, ProofError> {
        parse(text).filter(|path| path.to_string() == text).ok_or_else(|| ProofError::Tile {
            what: format!("the path {:?}", text.chars().take(TILE_PATH_BYTES_MAX).collect::<String>()),
            why: "a tile is tile/<level>/<index>[.p/<width>] or tile/entries/<index>[.p/<width>], with the index \
                  in groups of three digits such as x001/234"
                .to_owned(),
        })
    }
}

/// Reads leniently; that it is written so and not otherwise is checked by writing it again.
fn parse(text: &str) -> Option<TilePath> {
    if text.len() > TILE_PATH_BYTES_MAX {
        return None;
    }
    let (kind, rest) = text.strip_prefix("tile/")?.split_once('/')?;
    let kind = match kind {
        "entries" => TileKind::Entries,
        level => TileKind::Hashes(level.parse().ok().filter(|level| *level < TILE_LEVELS_MAX)?),
    };
    let (index, width) = match rest.split_once(".p/") {
        Some((index, width)) => (index, width.parse().ok().filter(|width| (1..TILE_WIDTH).contains(width))?),
        None => (rest, TILE_WIDTH),
    };
    let mut number = 0_u64;
    for group in index.split('/') {
        let digits = group.strip_prefix('x').unwrap_or(group);
        number = number.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
    }
    (number <= TREE_LEAVES_MAX / u64::from(TILE_WIDTH)).then_some(TilePath { kind, index: number, width })
}
