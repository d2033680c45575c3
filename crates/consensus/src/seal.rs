//! A checksum around every value that a store keeps. A database checks its own
//! blocks; this one also catches what goes wrong between us and the database,
//! and a value that sits under the wrong key.

const SEAL_BYTES: usize = 4;

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}

/// The stored form of a value.
pub fn seal(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(SEAL_BYTES + value.len());
    seal_into(&mut sealed, key, value);
    sealed
}

/// The same, in place of what was there: for whoever seals many.
pub fn seal_into(sealed: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    sealed.clear();
    sealed.extend_from_slice(&checksum(key, value).to_be_bytes());
    sealed.extend_from_slice(value);
}

/// The value inside, or `None` when the checksum does not match.
pub fn unseal<'a>(key: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (stored, value) = sealed.split_first_chunk::<SEAL_BYTES>()?;
    (u32::from_be_bytes(*stored) == checksum(key, value) || planted!(ReadsNotChecked)).then_some(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn any_flipped_bit_breaks_the_seal() {
        let sealed = seal(b"key", b"value");
        assert_eq!(unseal(b"key", &sealed).unwrap(), b"value");
        assert_eq!(unseal(b"kez", &sealed), None);
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal(b"key", &flipped), None, "bit {bit}");
        }
        assert_eq!(unseal(b"key", &sealed[..3]), None);
    }
}
