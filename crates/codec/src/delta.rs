//! What differs between two States, as bytes: derived data from which a past State is rebuilt.

use serde::Serialize;
use serde::de::DeserializeOwned;
use stele_model::{AnswersDelta, Digest, TargetDelta};

use crate::bytes::{Reader, Writer};
use crate::error::DecodeError;
use crate::limits::SNAPSHOT_BYTES_MAX;
use crate::message;

const TARGET_MAGIC: [u8; 4] = *b"STDT";
pub(crate) const PROGRESS_MAGIC: [u8; 4] = *b"STDP";
const ANSWERS_MAGIC: [u8; 4] = *b"STDA";
/// Raised whenever a kept delta could not be read any more, or would mean something else:
/// State's maps are encoded as they are, so also when State gets another part.
const FORMAT: u8 = 7;

/// The format of deltas that this program writes and reads. What was written in another
/// one is derived again.
pub const DELTA_FORMAT: u8 = FORMAT;

/// Magic, format, checksum of the rest, then what differs in targets and what governs.
pub fn encode_target(delta: &TargetDelta) -> Vec<u8> {
    encode(TARGET_MAGIC, delta)
}

/// Reads what [`encode_target`] wrote.
pub fn decode_target(bytes: &[u8]) -> Result<TargetDelta, DecodeError> {
    decode("delta of targets", TARGET_MAGIC, bytes)
}

/// The same for what was answered.
pub fn encode_answers(delta: &AnswersDelta) -> Vec<u8> {
    encode(ANSWERS_MAGIC, delta)
}

/// Reads what [`encode_answers`] wrote.
pub fn decode_answers(bytes: &[u8]) -> Result<AnswersDelta, DecodeError> {
    decode("delta of answers", ANSWERS_MAGIC, bytes)
}

fn encode<T: Serialize>(magic: [u8; 4], delta: &T) -> Vec<u8> {
    seal(magic, &message::encode(delta))
}

fn decode<T: DeserializeOwned>(what: &'static str, magic: [u8; 4], bytes: &[u8]) -> Result<T, DecodeError> {
    decode_part(what, unseal(what, magic, bytes)?)
}

pub(crate) fn decode_part<T: DeserializeOwned>(what: &'static str, body: &[u8]) -> Result<T, DecodeError> {
    message::decode::<T, SNAPSHOT_BYTES_MAX, { message::CLAIMS_PER_BYTE * SNAPSHOT_BYTES_MAX }>(what, body)
}

pub(crate) fn seal(magic: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut out = Writer::default();
    out.raw(&magic);
    out.u8(FORMAT);
    out.raw(&Digest::of(&[body]).0);
    out.raw(body);
    out.0
}

pub(crate) fn unseal<'a>(
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
    let checksum = Digest(from.array()?);
    let body = &bytes[from.at()..];
    if Digest::of(&[body]) != checksum {
        return Err(DecodeError::Checksum(what));
    }
    Ok(body)
}
