//! Signed notes, as in C2SP signed-note: a text, a blank line, and a line for each signature.
//!
//! A signature says by name and id which key it is of. Those of unknown keys are
//! carried along and ignored; one of a known key that does not match condemns the note.

mod key;
mod parse;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use stele_model::signature::public_key;

use crate::error::NoteError;
use crate::limits::NOTE_SIGNATURES_MAX;

pub use key::{KeyId, SignatureKind, VerifierKey};

/// How a signature line begins: an em dash and a space.
const LINE_START: &str = "\u{2014} ";

/// One signature of a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    /// The key's name.
    pub name: String,
    /// The key's id.
    pub id: KeyId,
    /// What the key made of the text; its form depends on the key's kind.
    pub bytes: Vec<u8>,
}

impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&self.id.0[..], &self.bytes].concat();
        write!(f, "{LINE_START}{} {}", self.name, STANDARD.encode(bytes))
    }
}

/// A text with its signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// A known key that signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed<'a> {
    /// The key.
    pub by: &'a VerifierKey,
    /// When, in seconds since 1970, if it is a cosignature.
    pub time: Option<u64>,
}

impl Note {
    /// A text nobody signed yet. It ends in a newline and has no other control characters.
    pub fn new(text: &str) -> Result<Self, NoteError> {
        parse::check_text(text)?;
        Ok(Self { text: text.to_owned(), signatures: Vec::new() })
    }

    /// The signed text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// All signatures, believed or not.
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Signs the text under a name.
    pub fn sign(&mut self, name: &str, key: &SigningKey) -> Result<(), NoteError> {
        let verifier = VerifierKey::new(name, SignatureKind::Ed25519, &public_key(key))?;
        let bytes = key.sign(self.text.as_bytes()).to_bytes().to_vec();
        self.add(NoteSignature { name: name.to_owned(), id: verifier.id(), bytes })
    }

    /// Cosigns the text at a time, in seconds since 1970, as a witness does.
    pub fn cosign(&mut self, name: &str, key: &SigningKey, time: u64) -> Result<(), NoteError> {
        let verifier = VerifierKey::new(name, SignatureKind::Cosignature, &public_key(key))?;
        let signature = key.sign(&key::cosigned(time, &self.text));
        let bytes = [&time.to_be_bytes()[..], &signature.to_bytes()].concat();
        self.add(NoteSignature { name: name.to_owned(), id: verifier.id(), bytes })
    }

    /// Adds a signature, unless it is there already. It is not verified.
    pub fn add(&mut self, signature: NoteSignature) -> Result<(), NoteError> {
        if self.signatures.contains(&signature) {
            return Ok(());
        }
        if self.signatures.len() >= NOTE_SIGNATURES_MAX {
            return Err(NoteError::malformed("note", format!("more than {NOTE_SIGNATURES_MAX} signatures")));
        }
        self.signatures.push(signature);
        Ok(())
    }

    /// Which of the known keys signed. Fails if one of their signatures does not match, or
    /// if there is none.
    pub fn verify<'a>(&self, known: &'a [VerifierKey]) -> Result<Vec<Signed<'a>>, NoteError> {
        let signed = self.signed_by(known)?;
        if signed.is_empty() {
            let mut names: Vec<_> = self.signatures.iter().map(|it| it.name.as_str()).collect();
            names.dedup();
            let found = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
            return Err(NoteError::Unsigned { known: known.len(), found });
        }
        Ok(signed)
    }

    /// Like [`Self::verify`], but it may be that none of them signed.
    pub fn signed_by<'a>(&self, known: &'a [VerifierKey]) -> Result<Vec<Signed<'a>>, NoteError> {
        let mut signed: Vec<Signed<'a>> = Vec::new();
        for signature in &self.signatures {
            for key in known.iter().filter(|key| key.name() == signature.name && key.id() == signature.id) {
                let time = key.verify(&self.text, &signature.bytes)?;
                if !signed.iter().any(|it| it.by == key) {
                    signed.push(Signed { by: key, time });
                }
            }
        }
        Ok(signed)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        for signature in &self.signatures {
            writeln!(f, "{signature}")?;
        }
        Ok(())
    }
}
