//! What differs between two States, as bytes: derived data from which a past State is rebuilt.
//!
//! They carry no checksum of their own: the store seals whatever it keeps, and an auditor derives them again.

use serde::de::DeserializeOwned;
use stele_model::AnswersDelta;

use crate::bytes::{Reader, Writer};
use crate::error::DecodeError;
use crate::limits::SNAPSHOT_BYTES_MAX;
use crate::message;

const ANSWERS_MAGIC: [u8; 4] = *b"STDA";
/// Raised whenever a kept delta could not be read any more, or would mean something else:
/// State's maps are encoded as they are, so also when State gets another part.
const FORMAT: u8 = 9;

/// The format of deltas that this program writes and reads. What was written in another
/// one is derived again.
pub const DELTA_FORMAT: u8 = FORMAT;

/// Magic, format, then what differs in what was answered.
pub fn encode_answers(delta: &AnswersDelta) -> Vec<u8> {
    with_magic(ANSWERS_MAGIC, &message::encode(delta))
}

/// Reads what [`encode_answers`] wrote.
pub fn decode_answers(bytes: &[u8]) -> Result<AnswersDelta, DecodeError> {
    const WHAT: &str = "delta of answers";
    decode_part(WHAT, without_magic(WHAT, ANSWERS_MAGIC, bytes)?)
}

pub(crate) fn decode_part<T: DeserializeOwned>(what: &'static str, body: &[u8]) -> Result<T, DecodeError> {
    message::decode(what, body, SNAPSHOT_BYTES_MAX)
}

pub(crate) fn with_magic(magic: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut out = Writer::default();
    out.raw(&magic);
    out.u8(FORMAT);
    out.raw(body);
    out.0
}

pub(crate) fn without_magic<'a>(
    what: &'static str,
    magic: [u8; 4],
    bytes: &'a [u8],
) -> Result<&'a [u8], DecodeError> {
    let mut from = Reader::new(what, bytes);
    if from.take(magic.len())? != magic {
        return Err(from.malformed(format!("it does not begin with {}", magic.escape_ascii())));
    }
    let format = from.u8()?;
    if format != FORMAT {
        return Err(DecodeError::Format { what, found: format, known: FORMAT });
    }
    Ok(&bytes[from.at()..])
}
