//! Fields with a short written form (a text or number) and a long one (a map).
//!
//! Serde's untagged enums would lose the place of an error and turn `1.20` into
//! `1.2`. Here the spec's own decoder is told by a marker that a text is welcome,
//! and hands over the scalar exactly as written; other formats answer with what
//! they have.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

/// Marks a field that accepts a scalar's text, or a map.
pub(super) const MARKER: &str = "$stele::text_or_map";

struct TextOrMap<T, M> {
    expecting: &'static str,
    from_text: fn(&str) -> Result<T, String>,
    from_map: fn(M) -> Result<T, String>,
    marker: PhantomData<M>,
}

impl<'de, T, M: Deserialize<'de>> Visitor<'de> for TextOrMap<T, M> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(self)
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.from_text)(text).map_err(E::custom)
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<T, E> {
        self.visit_str(&value.to_string())
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<T, E> {
        self.visit_str(&value.to_string())
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<T, E> {
        self.visit_str(&value.to_string())
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<T, E> {
        self.visit_str(&value.to_string())
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        let long = M::deserialize(MapAccessDeserializer::new(map))?;
        (self.from_map)(long).map_err(A::Error::custom)
    }
}

/// Reads either form.
pub(super) fn either<'de, D: Deserializer<'de>, T, M: Deserialize<'de>>(
    deserializer: D,
    expecting: &'static str,
    from_text: fn(&str) -> Result<T, String>,
    from_map: fn(M) -> Result<T, String>,
) -> Result<T, D::Error> {
    let visitor = TextOrMap { expecting, from_text, from_map, marker: PhantomData };
    deserializer.deserialize_newtype_struct(MARKER, visitor)
}

/// Reads a text, number or truth value as its text.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    either(
        deserializer,
        "a text or number",
        |text| Ok(text.to_owned()),
        |_: IgnoredAny| Err("expected a text or number, found a map".to_owned()),
    )
}
