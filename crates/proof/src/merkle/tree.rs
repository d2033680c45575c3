//! A whole tree in memory.

use stele_model::Digest;

use super::{Frontier, Hashes};
use crate::error::ProofError;

/// All nodes of a tree, for whoever holds all its leaves: tests, packs, verifiers.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    frontier: Frontier,
    /// By level above the leaves, then by index.
    nodes: Vec<Vec<Digest>>,
}

impl Tree {
    /// Appends a leaf by its hash.
    pub fn append(&mut self, leaf: Digest) {
        let nodes = &mut self.nodes;
        self.frontier.append(leaf, |level, _, hash| {
            // Levels come from below, and indexes in order.
            if nodes.len() <= level as usize {
                nodes.push(Vec::new());
            }
            nodes[level as usize].push(hash);
        });
    }

    /// How many leaves there are.
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The root over all of them.
    pub fn root(&self) -> Digest {
        self.frontier.root()
    }
}

impl FromIterator<Digest> for Tree {
    fn from_iter<I: IntoIterator<Item = Digest>>(leaves: I) -> Self {
        let mut tree = Self::default();
        leaves.into_iter().for_each(|leaf| tree.append(leaf));
        tree
    }
}

impl Hashes for Tree {
    type Error = ProofError;

    fn hash(&self, level: u32, index: u64) -> Result<Digest, ProofError> {
        let node = self.nodes.get(level as usize).and_then(|nodes| nodes.get(index as usize));
        node.copied().ok_or(ProofError::Missing { level, index })
    }
}
