//! Why a proof or a note is not believed.

/// A proof does not prove what it should, or cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The leaf or tree asked for does not exist.
    #[error("{what} is outside the tree of {size} leaves")]
    Outside {
        /// What was asked for.
        what: String,
        /// The tree's size.
        size: u64,
    },
    /// Sizes in the wrong order.
    #[error("a tree of {from} leaves cannot grow into one of {to}")]
    Order {
        /// The older size.
        from: u64,
        /// The newer size.
        to: u64,
    },
    /// A proof of the wrong length.
    #[error("the {what} proof has {found} hashes, which is not how many the sizes want")]
    Length {
        /// Which kind of proof.
        what: &'static str,
        /// Hashes in it.
        found: usize,
    },
    /// The hashes lead to another root.
    #[error(
        "the {what} proof does not lead to the root of {size} leaves: what it is about is not in that tree"
    )]
    Root {
        /// Which kind of proof.
        what: &'static str,
        /// The size of the tree whose root it misses.
        size: u64,
    },
    /// A hash of the tree is missing.
    #[error("the hash of level {level}, index {index} is missing")]
    Missing {
        /// Levels above the leaves.
        level: u32,
        /// From the left.
        index: u64,
    },
    /// A tile, bundle or path of one is malformed.
    #[error("{what} is malformed: {why}")]
    Tile {
        /// Which one.
        what: String,
        /// What is wrong.
        why: String,
    },
}

/// A note, key or checkpoint is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not a note, key or checkpoint.
    #[error("the {what} is malformed: {why}")]
    Malformed {
        /// What was being read.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A known key's signature does not match the text.
    #[error("the signature of {0} does not match: the text is not what it signed")]
    Mismatch(String),
    /// No known key signed.
    #[error("none of the {known} known keys signed this; signatures are by {found}")]
    Unsigned {
        /// How many keys are known.
        known: usize,
        /// Whose signatures there are.
        found: String,
    },
}

impl NoteError {
    pub(crate) fn malformed(what: &'static str, why: impl Into<String>) -> Self {
        Self::Malformed { what, why: why.into() }
    }
}
