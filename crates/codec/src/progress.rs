//! What became of targets between two States, as bytes of which a part can be read.

use std::collections::{BTreeMap, BTreeSet};

use stele_model::{AppChange, AppEnv, Interest, ProgressDelta};

use crate::bytes::{Reader, Writer};
use crate::delta::{decode_part, with_magic, without_magic};
use crate::error::DecodeError;
use crate::message;
use crate::parts::{Parts, write_parts};

const MAGIC: [u8; 4] = *b"STDP";
const WHAT: &str = "delta of progress";

/// Magic, format; then what is of neither nodes nor apps, and the parts of each node and of
/// each app in an environment.
pub fn encode_progress(delta: &ProgressDelta) -> Vec<u8> {
    let mut out = Writer::default();
    out.blob(&message::encode(&delta.head));
    write_parts(&mut out, &delta.nodes);
    write_parts(&mut out, &delta.apps);
    with_magic(MAGIC, &out.0)
}

/// Reads all of what [`encode_progress`] wrote.
pub fn decode_progress(bytes: &[u8]) -> Result<ProgressDelta, DecodeError> {
    let bytes = ProgressBytes::read(bytes)?;
    Ok(ProgressDelta {
        head: decode_part(WHAT, bytes.head)?,
        nodes: bytes.nodes.all(WHAT)?,
        apps: bytes.apps.all(WHAT)?,
    })
}

/// What [`encode_progress`] wrote, to be read in part.
pub struct ProgressBytes<'a> {
    head: &'a [u8],
    nodes: Parts<'a>,
    apps: Parts<'a>,
}

impl<'a> ProgressBytes<'a> {
    /// Finds the parts.
    pub fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(WHAT, without_magic(WHAT, MAGIC, bytes)?);
        let bytes =
            Self { head: from.blob()?, nodes: Parts::read(&mut from)?, apps: Parts::read(&mut from)? };
        from.end()?;
        Ok(bytes)
    }

    /// What is of the apps.
    pub fn of_apps(&self, apps: &BTreeSet<AppEnv>) -> Result<BTreeMap<AppEnv, AppChange>, DecodeError> {
        self.apps.of(WHAT, apps)
    }

    /// What is of the apps and nodes.
    pub fn about(&self, interest: &Interest) -> Result<ProgressDelta, DecodeError> {
        Ok(ProgressDelta {
            head: decode_part(WHAT, self.head)?,
            nodes: self.nodes.of(WHAT, interest.nodes())?,
            apps: self.of_apps(interest.apps())?,
        })
    }
}
