//! bincode 2 under one fixed configuration: little-endian, variable-length integers, bounded.
//! bincode writes it; [`BincodeReader`] reads it.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bincode_reader::BincodeReader;
use crate::bytes::Writer;
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

/// Reads at most `limit` bytes, with no more memory than what is in them needs.
pub(crate) fn decode<T: DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
    limit: usize,
) -> Result<T, DecodeError> {
    if bytes.len() > limit {
        return Err(DecodeError::TooLarge { what, found: bytes.len(), limit });
    }
    let mut reader = BincodeReader::new(bytes);
    let value = T::deserialize(&mut reader).map_err(|error| DecodeError::Malformed {
        what,
        why: format!("after {} bytes: {error}", bytes.len() - reader.left().len()),
    })?;
    match reader.left().len() {
        0 => Ok(value),
        left => Err(DecodeError::Trailing(left, what)),
    }
}

/// Bytes of a message between controllers. Never kept, never hashed.
pub fn encode_message<T: Serialize + ?Sized>(message: &T) -> Vec<u8> {
    encode(message)
}

/// Reads what [`encode_message`] wrote.
pub fn decode_message<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    decode("message", bytes, MESSAGE_BYTES_MAX)
}
