//! Why bytes cannot be read.

/// Bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("the {what} ends after {at} bytes, where {needed} more are needed")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Offset of the field.
        at: usize,
        /// Bytes missing.
        needed: usize,
    },
    /// Bytes follow the end.
    #[error("{0} bytes follow the end of the {1}")]
    Trailing(usize, &'static str),
    /// A field has a value it cannot have.
    #[error("the {what} is malformed: {why}")]
    Malformed {
        /// What was being read.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The format is of a later version, or these are other bytes.
    #[error("the {what} has format {found}, this program reads format {known}: upgrade it")]
    Format {
        /// What was being read.
        what: &'static str,
        /// The version found.
        found: u8,
        /// The version known.
        known: u8,
    },
    /// A payload of a schema this program does not know.
    #[error(
        "record {seq} is a {kind} of schema {schema}, codec {codec}, which this program does not know: upgrade it"
    )]
    Schema {
        /// The record.
        seq: u64,
        /// Kind of event.
        kind: String,
        /// Its schema.
        schema: u16,
        /// Its codec.
        codec: u8,
    },
    /// The checksum does not match.
    #[error("the {0}'s checksum does not match: its bytes changed after they were written")]
    Checksum(&'static str),
    /// Larger than allowed.
    #[error("the {what} has {found} bytes; the limit is {limit}")]
    TooLarge {
        /// What was being read.
        what: &'static str,
        /// Its size.
        found: usize,
        /// The bound.
        limit: usize,
    },
}
