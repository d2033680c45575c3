//! Where a log first contradicts itself, or what was derived from it.

use std::fmt;

use serde::Serialize;
use stele_codec::VerifyError;
use stele_model::Seq;

/// The first thing that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Divergence {
    /// At which record.
    pub(crate) seq: Seq,
    /// What: a field of the record, or a fact of State and where it was found.
    pub(crate) field: String,
    /// What is recorded, stored or told.
    pub(crate) recorded: String,
    /// What this replay computed.
    pub(crate) computed: String,
}

impl Divergence {
    pub(crate) fn new(
        seq: Seq,
        field: impl Into<String>,
        recorded: impl fmt::Display,
        computed: impl fmt::Display,
    ) -> Self {
        Self { seq, field: field.into(), recorded: recorded.to_string(), computed: computed.to_string() }
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seq, field, recorded, computed } = self;
        write!(
            f,
            "the log diverges at seq {seq}: {field}\n  recorded: {recorded}\n  computed: {computed}\n  next: keep \
             the log as it is, and compare with another controller's: stele replay --from URL --to seq:{seq}"
        )
    }
}

impl From<VerifyError> for Divergence {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Decode { after, error } => {
                Self::new(after + 1, "record", error, "a record that can be read")
            }
            VerifyError::Payload { seq, recorded, computed } => {
                Self::new(seq, "payload hash", recorded, computed)
            }
            VerifyError::Gap { expected, found, .. } => Self::new(expected, "seq", found, expected),
            VerifyError::Time { seq, before, found } => Self::new(
                seq,
                "time",
                found,
                format!("later than {before}, the time of the record before it"),
            ),
            VerifyError::Decision { seq, expected, found } => Self::new(
                seq,
                "decision",
                format!("{} records from {} on", found.count, found.first),
                expected,
            ),
            VerifyError::StateDigest { seq, recorded, folded } => {
                Self::new(seq, "state digest", recorded, folded)
            }
            VerifyError::Chain { seq, stored, computed } => Self::new(seq, "chain", stored.0, computed.0),
        }
    }
}
