//! Values that may be secret.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::SUBJECT_BYTES_MAX;

/// A text that stands in the log in clear, or sealed under a key kept outside it.
///
/// Sealing happens before a command is decided. Nothing here can open a sealed
/// value, and nothing that is kept can be computed from its plaintext without the
/// key: destroying the key erases it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// In clear.
    Plain(String),
    /// Ciphertext.
    Sealed(Sealed),
}

/// XChaCha20-Poly1305 ciphertext of a UTF-8 text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sealed {
    /// Whose key seals it; also the additional authenticated data.
    pub subject: String,
    /// Which key of the subject, from 1.
    pub key_version: u32,
    /// 24 bytes, as hex.
    pub nonce: String,
    /// Ciphertext and tag, as hex.
    pub ciphertext: String,
}

impl Value {
    /// Length in bytes as stored.
    pub fn len(&self) -> usize {
        match self {
            Self::Plain(text) => text.len(),
            Self::Sealed(sealed) => sealed.ciphertext.len() / 2,
        }
    }

    /// Whether it is an empty plain text.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sealed form, when it is not in clear.
    pub fn sealed(&self) -> Option<&Sealed> {
        match self {
            Self::Plain(_) => None,
            Self::Sealed(sealed) => Some(sealed),
        }
    }

    /// For a person to read: the text, or for whom it is sealed.
    pub fn told(&self) -> String {
        match self {
            Self::Plain(text) => text.clone(),
            Self::Sealed(sealed) => format!("(sealed for {})", sealed.subject),
        }
    }

    /// The text, when it is in clear.
    pub fn plain(&self) -> Option<&str> {
        match self {
            Self::Plain(text) => Some(text),
            Self::Sealed(_) => None,
        }
    }
}

/// Whether something can be sealed for this subject: an app in an environment, such as
/// `shop/web@prod`, or any other short text, such as `customer:4711`.
pub fn is_subject(text: &str) -> bool {
    !text.is_empty() && text.len() <= SUBJECT_BYTES_MAX && !text.chars().any(char::is_control)
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) => fmt::Debug::fmt(text, f),
            Self::Sealed(sealed) => fmt::Debug::fmt(sealed, f),
        }
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<sealed for {}>", self.subject)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Plain(text.to_owned())
    }
}
