//! The tree, walked once from left to right over leaves at hand and hashes of the rest.
//!
//! What stands left of a position are perfect subtrees, the largest first. A hash
//! covers so many leaves that it is one of those subtrees, so what comes next never
//! depends on anything but the position and how far the unknown part reaches.

use stele_model::Digest;

use crate::merkle::{empty_root, leaf_hash, node_hash};

/// How far the tree is rebuilt.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    position: u64,
    /// Perfect subtrees by their level above the leaves, the largest first.
    subtrees: Vec<(u32, Digest)>,
}

/// The level of the largest perfect subtree that begins at `position` and does not reach beyond `end`,
/// which lies behind it.
pub const fn piece(position: u64, end: u64) -> u32 {
    let aligned = position.trailing_zeros();
    let fits = match end.saturating_sub(position) {
        0 => 0,
        count => count.ilog2(),
    };
    if aligned < fits { aligned } else { fits }
}

impl Walk {
    /// How many leaves are behind.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Goes over one leaf.
    pub fn leaf(&mut self, leaf: &[u8]) {
        self.subtree(0, leaf_hash(leaf));
    }

    /// Goes over a perfect subtree: of a level that [`piece`] gave for this position, or below.
    pub fn subtree(&mut self, mut level: u32, mut hash: Digest) {
        self.position = self.position.saturating_add(1 << level.min(63));
        while let Some((_, left)) = self.subtrees.pop_if(|(of, _)| *of == level) {
            hash = node_hash(left, hash);
            level += 1;
        }
        self.subtrees.push((level, hash));
    }

    /// The root of the tree that ends here.
    pub fn root(&self) -> Digest {
        let mut subtrees = self.subtrees.iter().rev().map(|(_, hash)| *hash);
        let Some(last) = subtrees.next() else { return empty_root() };
        subtrees.fold(last, |right, left| node_hash(left, right))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::merkle::{Hashes as _, Tree};

    /// Whatever is at hand and whatever is not, every root on the way is the tree's.
    #[test]
    fn roots_are_rebuilt_whatever_is_known() {
        let leaves: Vec<Vec<u8>> = (0..37_u8).map(|at| vec![at; usize::from(at)]).collect();
        let mut tree = Tree::default();
        let mut roots = vec![tree.root()];
        for leaf in &leaves {
            tree.append(leaf_hash(leaf));
            roots.push(tree.root());
        }
        for pattern in 0..512_u64 {
            let known = |at: u64| pattern >> (at * 7 % 9) & 1 == 1;
            let mut walk = Walk::default();
            while walk.position() < 37 {
                let at = walk.position();
                assert_eq!(walk.root(), roots[at as usize]);
                if known(at) {
                    walk.leaf(&leaves[at as usize]);
                } else {
                    let end = (at..37).find(|at| known(*at)).unwrap_or(37);
                    let level = piece(at, end);
                    walk.subtree(level, tree.hash(level, at >> level).unwrap());
                }
            }
            assert_eq!(walk.root(), tree.root());
        }
    }
}
