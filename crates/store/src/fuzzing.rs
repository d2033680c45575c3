//! The private decoders of this crate, for tests of what arbitrary bytes do.

use stele_consensus::seal::{seal, unseal};

use crate::meta::{decode_numbers, encode_numbers};

use crate::store::{decode_identity, encode_identity};

/// The key under which values are sealed here.
const KEY: &[u8] = b"key";

/// A value as it is kept: sealed.
pub fn sealed(value: &[u8]) -> Vec<u8> {
    seal(KEY, value)
}

/// The value inside, if its seal is right, and how else it reads: as a list of numbers and as a
/// controller's identity, each written again.
pub fn reread(sealed: &[u8]) -> Option<[Option<Vec<u8>>; 3]> {
    let value = unseal(KEY, sealed)?;
    let numbers = decode_numbers(value).map(encode_numbers);
    let identity = decode_identity(value).map(|identity| encode_identity(&identity));
    Some([Some(value.to_vec()), numbers, identity])
}
