//! The keys that notes are verified with: `<name>+<id>+<base64 of kind and key>`.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use stele_model::Digest;
use stele_model::signature::PublicKey;

use crate::error::NoteError;
use crate::limits::KEY_NAME_BYTES_MAX;

/// Which key made a signature: the first four bytes of SHA-256 over its name, kind and bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 4]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a key's signatures cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SignatureKind {
    /// The text.
    Ed25519,
    /// `cosignature/v1`: a time, and the text.
    Cosignature,
}

impl SignatureKind {
    const fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 0x01,
            Self::Cosignature => 0x04,
        }
    }
}

/// A key that is known, to verify with.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    kind: SignatureKind,
    key: VerifyingKey,
}

impl VerifierKey {
    /// A key under a name.
    pub fn new(name: &str, kind: SignatureKind, key: &PublicKey) -> Result<Self, NoteError> {
        let malformed = || NoteError::malformed("verifier key", format!("{key} is no Ed25519 public key"));
        let mut bytes = [0; 32];
        hex::decode_to_slice(&key.0, &mut bytes).map_err(|_| malformed())?;
        Self::from_bytes(name, kind, &bytes)
    }

    fn from_bytes(name: &str, kind: SignatureKind, bytes: &[u8; 32]) -> Result<Self, NoteError> {
        if !is_key_name(name) {
            return Err(NoteError::malformed("verifier key", format!("{name:?} is no name of a key")));
        }
        let key = VerifyingKey::from_bytes(bytes)
            .map_err(|_| NoteError::malformed("verifier key", "it is no point of Ed25519"))?;
        Ok(Self { name: name.to_owned(), kind, key })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its signatures cover.
    pub fn kind(&self) -> SignatureKind {
        self.kind
    }

    /// Its id.
    pub fn id(&self) -> KeyId {
        let hash = Digest::of(&[self.name.as_bytes(), b"\n", &[self.kind.byte()], self.key.as_bytes()]);
        let [a, b, c, d, ..] = hash.0;
        KeyId([a, b, c, d])
    }

    /// Checks a signature over a text; the time of a cosignature, in seconds since 1970.
    pub(super) fn verify(&self, text: &str, signature: &[u8]) -> Result<Option<u64>, NoteError> {
        let mismatch = || NoteError::Mismatch(self.name.clone());
        let check = |message: &[u8], signature: &[u8]| {
            let signature = Signature::from_slice(signature).map_err(|_| mismatch())?;
            self.key.verify_strict(message, &signature).map_err(|_| mismatch())
        };
        match self.kind {
            SignatureKind::Ed25519 => {
                check(text.as_bytes(), signature)?;
                Ok(None)
            }
            SignatureKind::Cosignature => {
                let (time, signature) = signature.split_first_chunk().ok_or_else(mismatch)?;
                let time = u64::from_be_bytes(*time);
                check(&cosigned(time, text), signature)?;
                Ok(Some(time))
            }
        }
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&[self.kind.byte()], &self.key.as_bytes()[..]].concat();
        write!(f, "{}+{}+{}", self.name, self.id(), STANDARD.encode(bytes))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let malformed = |why: &str| {
            NoteError::malformed(
                "verifier key",
                format!("{why}; it is written <name>+<id>+<base64 of the key>"),
            )
        };
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed("it has not three parts"));
        };
        let bytes = STANDARD.decode(key).map_err(|_| malformed("its key is no base64"))?;
        let kind = match bytes.first() {
            Some(0x01) => SignatureKind::Ed25519,
            Some(0x04) => SignatureKind::Cosignature,
            _ => return Err(malformed("it is neither an Ed25519 key (1) nor a cosigner's (4)")),
        };
        let bytes = bytes.get(1..).and_then(|key| key.try_into().ok());
        let key = Self::from_bytes(name, kind, bytes.ok_or_else(|| malformed("its key has not 32 bytes"))?)?;
        if key.to_string() != text {
            return Err(malformed(&format!("its id is {id:?}, but its name and key give {}", key.id())));
        }
        Ok(key)
    }
}

/// What a cosigner signs.
pub(super) fn cosigned(time: u64, text: &str) -> Vec<u8> {
    format!("cosignature/v1\ntime {time}\n{text}").into_bytes()
}

/// Names are words without plus signs.
pub(super) fn is_key_name(name: &str) -> bool {
    let fits = !name.is_empty() && name.len() <= KEY_NAME_BYTES_MAX;
    fits && !name.chars().any(|it| it.is_whitespace() || it.is_control() || it == '+')
}
