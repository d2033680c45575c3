//! What differs between two States, as bytes: derived data from which a past State is rebuilt.

use stele_model::{Delta, Digest};

use crate::bytes::{Reader, Writer};
use crate::error::DecodeError;
use crate::limits::SNAPSHOT_BYTES_MAX;
use crate::message;

const MAGIC: &[u8; 4] = b"STDL";
/// Raised whenever a kept delta could not be read any more, or would mean something else:
/// State's maps are encoded as they are, so also when State gets another part.
const FORMAT: u8 = 4;

/// The format of deltas that this program writes and reads. What was written in another
/// one is derived again.
pub const DELTA_FORMAT: u8 = FORMAT;

/// Magic, format, checksum of the rest, then the delta.
pub fn encode_delta(delta: &Delta) -> Vec<u8> {
    let body = message::encode(delta);
    let mut out = Writer::default();
    out.raw(MAGIC);
    out.u8(FORMAT);
    out.raw(&Digest::of(&[&body]).0);
    out.raw(&body);
    out.0
}

/// Reads what [`encode_delta`] wrote.
pub fn decode_delta(bytes: &[u8]) -> Result<Delta, DecodeError> {
    const WHAT: &str = "delta";
    let mut from = Reader::new(WHAT, bytes);
    if from.take(MAGIC.len())? != MAGIC {
        return Err(from.malformed("it does not begin with STDL"));
    }
    let format = from.u8()?;
    if format != FORMAT {
        return Err(DecodeError::Format { what: WHAT, found: format, known: FORMAT });
    }
    let checksum = Digest(from.array()?);
    let body = &bytes[from.at()..];
    if Digest::of(&[body]) != checksum {
        return Err(DecodeError::Checksum(WHAT));
    }
    message::decode::<Delta, SNAPSHOT_BYTES_MAX, { message::CLAIMS_PER_BYTE * SNAPSHOT_BYTES_MAX }>(
        WHAT, body,
    )
}
