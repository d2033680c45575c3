//! Serde over a [`Node`]: errors carry the path and place of the value they are about.

use std::fmt;

use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};

use super::errors::{SpecError, nearest};
use super::source::{Key, Node, Position, Step, Tree, write_path};
use super::text_or_map;

/// Reads a value of any type from a node.
pub(crate) fn decode<'de, T: Deserialize<'de>>(node: &'de Node) -> Result<T, SpecError> {
    T::deserialize(Decoder(node)).map_err(|error| {
        let mut steps = error.steps;
        steps.reverse();
        SpecError::new(write_path(&steps), error.message, error.at.or(node.at))
    })
}

/// An error on its way out of nested values; steps are innermost first.
#[derive(Debug)]
pub(crate) struct DecodeError {
    message: String,
    at: Option<Position>,
    steps: Vec<Step>,
}

impl DecodeError {
    /// Adds the step that led here; the innermost place stays.
    fn inside(mut self, step: Step, at: Option<Position>) -> Self {
        self.steps.push(step);
        self.at = self.at.or(at);
        self
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DecodeError {}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn unknown(kind: &str, written: &str, known: &'static [&'static str]) -> String {
    let meant = nearest(written, known.iter().copied());
    match meant {
        Some(meant) => format!("unknown {kind} `{written}`; did you mean `{meant}`?"),
        None if known.is_empty() => format!("unknown {kind} `{written}`; there is none here"),
        None => format!("unknown {kind} `{written}`; known here: {}", list(known)),
    }
}

impl Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), at: None, steps: Vec::new() }
    }
    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Str(text) => format!("the text {text:?}"),
            Unexpected::Map => "a map".to_owned(),
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
            Unexpected::Unsigned(value) => format!("the number {value}"),
            Unexpected::Signed(value) => format!("the number {value}"),
            Unexpected::Float(value) => format!("the number {value}"),
            other => other.to_string(),
        };
        Self::custom(format!("expected {}, found {found}", plain(&expected.to_string())))
    }
    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }
    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        Self::custom(unknown("field", field, known))
    }
    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        Self::custom(unknown("value", variant, known))
    }
    fn missing_field(field: &'static str) -> Self {
        Self::custom(format!("the field `{field}` is missing"))
    }
}

/// Rust's words for types, in everybody's words.
fn plain(expected: &str) -> String {
    match expected {
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" | "u64" | "usize" => "a whole number".to_owned(),
        "i64" | "i32" => "a whole number, which may be negative".to_owned(),
        "f64" | "f32" => "a number".to_owned(),
        "a string" => "a text".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        other if other.starts_with("struct ") => "a map".to_owned(),
        other => other.to_owned(),
    }
}

#[derive(Clone, Copy)]
struct Decoder<'de>(&'de Node);

impl<'de> Decoder<'de> {
    /// A scalar as it was written.
    fn text(self) -> Option<String> {
        match &self.0.tree {
            Tree::Text(text) | Tree::Number(text, _) => Some(text.clone()),
            Tree::Bool(value) => Some(value.to_string()),
            Tree::Null | Tree::List(_) | Tree::Map(_) => None,
        }
    }

    fn number<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.0.tree {
            Tree::Number(_, number) => {
                if let Some(value) = number.as_u64() {
                    visitor.visit_u64(value)
                } else if let Some(value) = number.as_i64() {
                    visitor.visit_i64(value)
                } else {
                    visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN))
                }
            }
            _ => self.deserialize_any(visitor),
        }
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            self.number(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for Decoder<'de> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.0.tree {
            Tree::Null => visitor.visit_unit(),
            Tree::Bool(value) => visitor.visit_bool(*value),
            Tree::Number(..) => self.number(visitor),
            Tree::Text(text) => visitor.visit_borrowed_str(text),
            Tree::List(items) => visitor.visit_seq(Items { items, next: 0 }),
            Tree::Map(members) => visitor.visit_map(Members { members, next: 0 }),
        }
    }

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_f32 deserialize_f64
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.text() {
            Some(text) => visitor.visit_string(text),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.0.tree {
            Tree::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        if name != text_or_map::MARKER {
            visitor.visit_newtype_struct(self)
        } else if let Some(text) = self.text() {
            visitor.visit_string(text)
        } else {
            self.deserialize_any(visitor)
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match &self.0.tree {
            Tree::Map(members) => match members.as_slice() {
                [(key, value)] => visitor.visit_enum(Variant { key, value }),
                _ => Err(DecodeError::custom(format!("expected a map with one of: {}", list(variants)))),
            },
            _ => match self.text() {
                Some(text) => visitor.visit_enum(text.as_str().into_deserializer()),
                None => Err(DecodeError::custom(format!(
                    "expected one of {}, found {}",
                    list(variants),
                    self.0.describe()
                ))),
            },
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i128 u128 char bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier
    }
}

struct Items<'de> {
    items: &'de [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        let Some(item) = self.items.get(self.next) else { return Ok(None) };
        let step = Step::Item(self.next);
        self.next += 1;
        seed.deserialize(Decoder(item)).map(Some).map_err(|error| error.inside(step, item.at))
    }
}

struct Members<'de> {
    members: &'de [(Key, Node)],
    next: usize,
}

impl<'de> MapAccess<'de> for Members<'de> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        let Some((key, _)) = self.members.get(self.next) else { return Ok(None) };
        let deserializer: StrDeserializer<'_, DecodeError> = key.name.as_str().into_deserializer();
        seed.deserialize(deserializer).map(Some).map_err(|mut error| {
            // The key itself is wrong: the place is the key's, the path its map's.
            error.at = error.at.or(key.at);
            error
        })
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, DecodeError> {
        let Some((key, value)) = self.members.get(self.next) else {
            return Err(DecodeError::custom("a value was asked for before its key"));
        };
        self.next += 1;
        seed.deserialize(Decoder(value))
            .map_err(|error| error.inside(Step::Member(key.name.clone()), value.at.or(key.at)))
    }
}

struct Variant<'de> {
    key: &'de Key,
    value: &'de Node,
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = DecodeError;
    type Variant = VariantContent<'de>;

    fn variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<(T::Value, VariantContent<'de>), DecodeError> {
        let deserializer: StrDeserializer<'_, DecodeError> = self.key.name.as_str().into_deserializer();
        let variant = seed.deserialize(deserializer).map_err(|mut error| {
            error.at = error.at.or(self.key.at);
            error
        })?;
        Ok((variant, VariantContent { key: self.key, value: self.value }))
    }
}

struct VariantContent<'de> {
    key: &'de Key,
    value: &'de Node,
}

impl VariantContent<'_> {
    fn locate(&self) -> impl Fn(DecodeError) -> DecodeError + use<> {
        let (name, at) = (self.key.name.clone(), self.value.at.or(self.key.at));
        move |error| error.inside(Step::Member(name.clone()), at)
    }
}

impl<'de> VariantAccess<'de> for VariantContent<'de> {
    type Error = DecodeError;

    fn unit_variant(self) -> Result<(), DecodeError> {
        let locate = self.locate();
        <()>::deserialize(Decoder(self.value)).map_err(locate)
    }
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, DecodeError> {
        let locate = self.locate();
        seed.deserialize(Decoder(self.value)).map_err(locate)
    }
    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, DecodeError> {
        let locate = self.locate();
        Decoder(self.value).deserialize_any(visitor).map_err(locate)
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let locate = self.locate();
        Decoder(self.value).deserialize_any(visitor).map_err(locate)
    }
}
