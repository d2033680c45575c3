//! Why a pack is not believed, and where.

use std::fmt;

use stele_model::Seq;

/// A part of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// What the pack is about.
    Head,
    /// The signed checkpoints.
    Checkpoints,
    /// Records outside the range, which say whose keys to trust and where nodes are.
    Keys,
    /// The leaves of the range.
    Leaves,
    /// The payloads of what touches the scope.
    Payloads,
    /// Hashes of the rest of the tree.
    Hashes,
    /// The report for people.
    Report,
    /// The hash over all before it.
    Checksum,
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Head => "head",
            Self::Checkpoints => "checkpoints",
            Self::Keys => "keys",
            Self::Leaves => "leaves",
            Self::Payloads => "payloads",
            Self::Hashes => "hashes",
            Self::Report => "report",
            Self::Checksum => "checksum",
        })
    }
}

/// A pack is not what it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct PackError {
    /// In which section.
    pub section: Section,
    /// At which record, where it is one's.
    pub seq: Option<Seq>,
    /// At which byte of the file.
    pub at: usize,
    /// What is wrong.
    pub why: String,
}

impl fmt::Display for PackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, ", self.section)?;
        if let Some(seq) = self.seq {
            write!(f, "record {seq}, ")?;
        }
        write!(f, "byte {}: {}", self.at, self.why)
    }
}

impl PackError {
    pub(super) fn new(section: Section, at: usize, why: impl Into<String>) -> Self {
        Self { section, seq: None, at, why: why.into() }
    }

    pub(super) fn of(section: Section, seq: Seq, at: usize, why: impl Into<String>) -> Self {
        Self { section, seq: Some(seq), at, why: why.into() }
    }
}
