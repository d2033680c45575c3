//! bincode 2 under one fixed configuration: little-endian, variable-length integers, bounded.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bytes::Writer;
use crate::cautious::Cautiously;
use crate::error::DecodeError;
use crate::limits::MESSAGE_BYTES_MAX;

/// Most events take fewer bytes.
const BYTES_EXPECTED: usize = 512;

pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Writer::with_capacity(BYTES_EXPECTED);
    // The vocabulary has no type that bincode cannot represent, so this cannot fail.
    #[allow(clippy::expect_used)]
    bincode::serde::encode_into_writer(value, &mut out, bincode::config::standard())
        .expect("the vocabulary is representable in bincode");
    out.0
}

/// Reads at most `LIMIT` bytes, with no more memory than what is in them needs. bincode's own
/// limit counts what is claimed, up to `CLAIMS`: eight for an integer or a length that may be one
/// byte on the wire.
pub(crate) fn decode<T: DeserializeOwned, const LIMIT: usize, const CLAIMS: usize>(
    what: &'static str,
    bytes: &[u8],
) -> Result<T, DecodeError> {
    if bytes.len() > LIMIT {
        return Err(DecodeError::TooLarge { what, found: bytes.len(), limit: LIMIT });
    }
    let config = bincode::config::standard().with_limit::<CLAIMS>();
    let (Cautiously(value), read) = bincode::serde::borrow_decode_from_slice(bytes, config)
        .map_err(|error| DecodeError::Malformed { what, why: error.to_string() })?;
    match bytes.len() - read {
        0 => Ok(value),
        left => Err(DecodeError::Trailing(left, what)),
    }
}

/// Most that one encoded byte can make bincode claim, in bytes.
pub(crate) const CLAIMS_PER_BYTE: usize = 8;

/// Bytes of a message between controllers. Never kept, never hashed.
pub fn encode_message<T: Serialize + ?Sized>(message: &T) -> Vec<u8> {
    encode(message)
}

/// Reads what [`encode_message`] wrote.
pub fn decode_message<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    decode::<T, MESSAGE_BYTES_MAX, { CLAIMS_PER_BYTE * MESSAGE_BYTES_MAX }>("message", bytes)
}
