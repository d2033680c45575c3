//! What differs between two States in what should be and what governs, as bytes of which a part can be read.

use std::collections::BTreeSet;

use stele_model::{AppEnv, TargetDelta};

use crate::bytes::{Reader, Writer};
use crate::delta::{decode_part, with_magic, without_magic};
use crate::error::DecodeError;
use crate::message;
use crate::parts::{Parts, write_parts};

const MAGIC: [u8; 4] = *b"STDT";
const WHAT: &str = "delta of targets";

/// Magic, format; then what governs, and the parts of each app in an environment.
pub fn encode_target(delta: &TargetDelta) -> Vec<u8> {
    let mut out = Writer::default();
    out.blob(&message::encode(&delta.head));
    write_parts(&mut out, &delta.apps);
    with_magic(MAGIC, &out.0)
}

/// Reads all of what [`encode_target`] wrote.
pub fn decode_target(bytes: &[u8]) -> Result<TargetDelta, DecodeError> {
    let bytes = TargetBytes::read(bytes)?;
    Ok(TargetDelta { head: decode_part(WHAT, bytes.head)?, apps: bytes.apps.all(WHAT)? })
}

/// What [`encode_target`] wrote, to be read in part.
pub struct TargetBytes<'a> {
    head: &'a [u8],
    apps: Parts<'a>,
}

impl<'a> TargetBytes<'a> {
    /// Finds the parts.
    pub fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(WHAT, without_magic(WHAT, MAGIC, bytes)?);
        let bytes = Self { head: from.blob()?, apps: Parts::read(&mut from)? };
        from.end()?;
        Ok(bytes)
    }

    /// What governs, and what is of the apps.
    pub fn about(&self, apps: &BTreeSet<AppEnv>) -> Result<TargetDelta, DecodeError> {
        Ok(TargetDelta { head: decode_part(WHAT, self.head)?, apps: self.apps.of(WHAT, apps)? })
    }
}
