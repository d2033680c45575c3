//! What a container engine calls a container.

use std::fmt;

use data_encoding::HEXLOWER;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const HASH_BYTES: usize = 32;
const HASH_DIGITS: usize = 2 * HASH_BYTES;

/// An engine's id of a container. Docker and Podman draw 32 bytes and write them as 64 hex digits; State has one for
/// each instance, and keeps the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct ContainerId(Kept);

#[derive(Clone, PartialEq, Eq)]
enum Kept {
    Drawn([u8; HASH_BYTES]),
    /// What is not 64 lowercase hex digits.
    Other(Box<str>),
}

impl From<&str> for ContainerId {
    fn from(text: &str) -> Self {
        let mut bytes = [0; HASH_BYTES];
        let is_drawn = text.len() == HASH_DIGITS && HEXLOWER.decode_mut(text.as_bytes(), &mut bytes).is_ok();
        Self(if is_drawn { Kept::Drawn(bytes) } else { Kept::Other(text.into()) })
    }
}

impl From<String> for ContainerId {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kept::Drawn(bytes) => fmt::Display::fmt(&HEXLOWER.encode_display(bytes), f),
            Kept::Other(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ContainerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Kept::Drawn(bytes) => serializer.serialize_str(&HEXLOWER.encode(bytes)),
            Kept::Other(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for ContainerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = ContainerId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E>(self, text: &str) -> Result<ContainerId, E> {
                Ok(text.into())
            }
        }

        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_written_as_it_was_read() {
        let drawn = "0123456789abcdef".repeat(4);
        let upper = drawn.to_uppercase();
        let longer = format!("{drawn}0");
        for text in [drawn.as_str(), &upper, &longer, &drawn[1..], "web-1", "", "ä"] {
            let id = ContainerId::from(text);
            assert_eq!(id.to_string(), text);
            assert_eq!(matches!(id.0, Kept::Drawn(_)), text == drawn, "{text}");
            let json = serde_json::to_string(&id).unwrap_or_default();
            assert_eq!(json, format!("{text:?}"));
            assert_eq!(serde_json::from_str::<ContainerId>(&json).ok(), Some(id));
        }
        assert_eq!(size_of::<Option<ContainerId>>(), 40);
    }
}
