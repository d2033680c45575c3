//! Sealing values under data keys, and wrapping data keys for one node.
//!
//! Values: XChaCha20-Poly1305 with the subject as additional authenticated data.
//! Keys: X25519 with an ephemeral key; SHA-256(shared secret ‖ ephemeral public key ‖
//! node public key) is an XChaCha20-Poly1305 key that encrypts the data key, again with
//! the subject as additional authenticated data. Randomness is the caller's: nothing here
//! draws any, so that a test can repeat it. A nonce must never be used for two different
//! texts under one key: 24 random bytes rule that out, and so does a nonce derived from the text.
//!
//! ```
//! use stele_bus::sealing;
//!
//! let (key, node_secret) = ([7; 32], [9; 32]);
//! let sealed = sealing::seal("shop/web@prod", 1, &key, "hunter2", [1; 24]);
//! let wrapped =
//!     sealing::wrap(&key, "shop/web@prod", 1, &sealing::public_key(&node_secret), [3; 32], [2; 24])?;
//! let opened = sealing::open(&sealed, &sealing::unwrap(&wrapped, &node_secret)?)?;
//! assert_eq!(opened, "hunter2");
//! # Ok::<(), sealing::SealingError>(())
//! ```

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use stele_model::Digest;
use stele_model::value::Sealed;
use stele_model::wire::WrappedKey;
use x25519_dalek::{PublicKey, StaticSecret};

/// Why something sealed cannot be opened, or a key not be wrapped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealingError {
    /// A field is not hex of the right length.
    #[error("the {field} of what is sealed for {subject} is not {bytes} bytes of hex")]
    Hex {
        /// Which field.
        field: &'static str,
        /// Whose.
        subject: String,
        /// How many bytes it should be.
        bytes: &'static str,
    },
    /// Another key, another subject, or changed bytes.
    #[error("what is sealed for {0} does not open: wrong key, or it was changed")]
    Refused(String),
    /// What was sealed is not text.
    #[error("what was sealed for {0} is not UTF-8 text")]
    NotText(String),
    /// The public key makes the shared secret the same for everybody.
    #[error("the X25519 public key used for {0} is a weak one")]
    WeakKey(String),
}

/// Seals a text of a subject under version `key_version` of its data key.
///
/// # Panics
/// Never: this cipher fails only above 256 GiB.
pub fn seal(subject: &str, key_version: u32, key: &[u8; 32], plaintext: &str, nonce: [u8; 24]) -> Sealed {
    Sealed {
        subject: subject.to_owned(),
        key_version,
        nonce: hex::encode(nonce),
        ciphertext: hex::encode(encrypt(key, &nonce, subject, plaintext.as_bytes())),
    }
}

/// Opens a sealed text with its data key.
pub fn open(sealed: &Sealed, key: &[u8; 32]) -> Result<String, SealingError> {
    let subject = &sealed.subject;
    let plaintext = decrypt(key, &sealed.nonce, subject, &sealed.ciphertext)?;
    String::from_utf8(plaintext).map_err(|_| SealingError::NotText(subject.clone()))
}

/// The public half of an X25519 secret, as hex: a node's sealing key.
pub fn public_key(secret: &[u8; 32]) -> String {
    hex::encode(PublicKey::from(&StaticSecret::from(*secret)).as_bytes())
}

/// Wraps version `key_version` of a subject's data key for the node with that public key (hex).
pub fn wrap(
    key: &[u8; 32],
    subject: &str,
    key_version: u32,
    node_public: &str,
    ephemeral_secret: [u8; 32],
    nonce: [u8; 24],
) -> Result<WrappedKey, SealingError> {
    let node_public = PublicKey::from(bytes_32("node's public key", subject, node_public)?);
    let secret = StaticSecret::from(ephemeral_secret);
    let ephemeral = PublicKey::from(&secret);
    let wrapping = wrapping_key(&secret, &node_public, &ephemeral, &node_public, subject)?;
    Ok(WrappedKey {
        subject: subject.to_owned(),
        key_version,
        ephemeral: hex::encode(ephemeral.as_bytes()),
        nonce: hex::encode(nonce),
        ciphertext: hex::encode(encrypt(&wrapping, &nonce, subject, key)),
    })
}

/// Unwraps a data key with the node's X25519 secret.
pub fn unwrap(wrapped: &WrappedKey, node_secret: &[u8; 32]) -> Result<[u8; 32], SealingError> {
    let subject = &wrapped.subject;
    let secret = StaticSecret::from(*node_secret);
    let ephemeral = PublicKey::from(bytes_32("ephemeral key", subject, &wrapped.ephemeral)?);
    let wrapping = wrapping_key(&secret, &ephemeral, &ephemeral, &PublicKey::from(&secret), subject)?;
    let key = decrypt(&wrapping, &wrapped.nonce, subject, &wrapped.ciphertext)?;
    key.try_into().map_err(|_| SealingError::Hex { field: "data key", subject: subject.clone(), bytes: "32" })
}

fn wrapping_key(
    secret: &StaticSecret,
    their_public: &PublicKey,
    ephemeral: &PublicKey,
    node_public: &PublicKey,
    subject: &str,
) -> Result<[u8; 32], SealingError> {
    let shared = secret.diffie_hellman(their_public);
    if !shared.was_contributory() {
        return Err(SealingError::WeakKey(subject.to_owned()));
    }
    Ok(Digest::of(&[shared.as_bytes(), ephemeral.as_bytes(), node_public.as_bytes()]).0)
}

fn encrypt(key: &[u8; 32], nonce: &[u8; 24], subject: &str, plaintext: &[u8]) -> Vec<u8> {
    #[allow(clippy::expect_used)]
    XChaCha20Poly1305::new(key.into())
        .encrypt(&XNonce::from(*nonce), Payload { msg: plaintext, aad: subject.as_bytes() })
        .expect("a plaintext in memory is below the cipher's limit")
}

fn decrypt(key: &[u8; 32], nonce: &str, subject: &str, ciphertext: &str) -> Result<Vec<u8>, SealingError> {
    let mut bytes = [0; 24];
    hex::decode_to_slice(nonce, &mut bytes).map_err(|_| SealingError::Hex {
        field: "nonce",
        subject: subject.to_owned(),
        bytes: "24",
    })?;
    let ciphertext = hex::decode(ciphertext).map_err(|_| SealingError::Hex {
        field: "ciphertext",
        subject: subject.to_owned(),
        bytes: "a whole number of",
    })?;
    XChaCha20Poly1305::new(key.into())
        .decrypt(&XNonce::from(bytes), Payload { msg: &ciphertext, aad: subject.as_bytes() })
        .map_err(|_| SealingError::Refused(subject.to_owned()))
}

fn bytes_32(field: &'static str, subject: &str, text: &str) -> Result<[u8; 32], SealingError> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| SealingError::Hex {
        field,
        subject: subject.to_owned(),
        bytes: "32",
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    #[test]
    fn only_the_key_and_subject_it_was_sealed_for_open_it() {
        let sealed = seal("shop/web@prod", 3, &KEY, "hunter2", [1; 24]);
        assert_eq!(sealed.key_version, 3);
        assert!(!sealed.ciphertext.contains(&hex::encode("hunter2")));
        assert_eq!(open(&sealed, &KEY).unwrap(), "hunter2");
        assert_eq!(open(&sealed, &[8; 32]), Err(SealingError::Refused("shop/web@prod".to_owned())));
        let moved = Sealed { subject: "shop/api@prod".to_owned(), ..sealed.clone() };
        assert!(open(&moved, &KEY).is_err());
        let mut flipped = sealed.clone();
        let last = if flipped.ciphertext.ends_with('0') { "1" } else { "0" };
        flipped.ciphertext.replace_range(flipped.ciphertext.len() - 1.., last);
        assert!(matches!(open(&flipped, &KEY), Err(SealingError::Refused(_))));
        for bad in [
            Sealed { nonce: "00".to_owned(), ..sealed.clone() },
            Sealed { ciphertext: "xyz".to_owned(), ..sealed },
        ] {
            assert!(matches!(open(&bad, &KEY), Err(SealingError::Hex { .. })));
        }
    }

    #[test]
    fn a_wrapped_key_is_for_one_node_alone() {
        let (mine, other) = ([9; 32], [10; 32]);
        let wrapped = wrap(&KEY, "shop/web@prod", 1, &public_key(&mine), [3; 32], [2; 24]).unwrap();
        assert_eq!(unwrap(&wrapped, &mine).unwrap(), KEY);
        assert!(matches!(unwrap(&wrapped, &other), Err(SealingError::Refused(_))));
        let moved = WrappedKey { subject: "shop/api@prod".to_owned(), ..wrapped };
        assert!(unwrap(&moved, &mine).is_err());
    }

    #[test]
    fn weak_and_malformed_public_keys_are_refused() {
        let zero = "00".repeat(32);
        assert_eq!(wrap(&KEY, "s", 1, &zero, [3; 32], [2; 24]), Err(SealingError::WeakKey("s".to_owned())));
        assert!(matches!(wrap(&KEY, "s", 1, "abc", [3; 32], [2; 24]), Err(SealingError::Hex { .. })));
    }

    /// The published form: whoever reads the specification must get these bytes.
    #[test]
    fn the_bytes_never_change() {
        let sealed = seal("s", 1, &KEY, "text", [1; 24]);
        let wrapped = wrap(&KEY, "s", 1, &public_key(&[9; 32]), [3; 32], [2; 24]).unwrap();
        let frozen = Digest::of_json(&(sealed, wrapped)).short();
        assert_eq!(frozen, "5afc285f35f9");
    }
}
