//! Reads bincode 2's standard configuration, as `docs/log-format.md` has it, from bytes that nobody vouches for.
//!
//! bincode's own reader makes room for a text as long as its length says before it looks whether so many bytes
//! are left, tells collections a length that nothing need follow, and takes a digest as thirty-two values of a byte.
//! Here nothing makes room for much more than the bytes that are there could fill, and a digest is copied as it is.
//! What is read, and what is refused, is the same: tests compare the two. What no structure has is refused: the kinds
//! of values that `unknown!` lists, and lists of what takes no bytes. Tests read every kind of event and State.

use std::fmt;

use serde::de::value::U32Deserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};
use stele_model::digest::RAW_DIGEST;

/// Markers before integers that one byte does not hold; smaller ones are the integer itself.
const TWO_BYTES: u8 = 251;
const FOUR_BYTES: u8 = 252;
const EIGHT_BYTES: u8 = 253;

/// Most items that room is made for before they are there: some collections believe what they are told, whatever an
/// item takes.
const ITEMS_EXPECTED_MAX: usize = 256;

/// Why a value cannot be read.
#[derive(Debug)]
pub(crate) struct Malformed(Box<str>);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

impl Error for Malformed {
    fn custom<T: fmt::Display>(why: T) -> Self {
        Self(why.to_string().into())
    }
}

/// Bytes, and how far they have been read.
pub(crate) struct BincodeReader<'de> {
    left: &'de [u8],
}

impl<'de> BincodeReader<'de> {
    pub(crate) fn new(bytes: &'de [u8]) -> Self {
        Self { left: bytes }
    }

    /// What has not been read yet.
    pub(crate) fn left(&self) -> &'de [u8] {
        self.left
    }

    #[inline]
    fn take(&mut self, count: usize) -> Result<&'de [u8], Malformed> {
        let Some((taken, left)) = self.left.split_at_checked(count) else {
            return Err(self.ends_early(count));
        };
        self.left = left;
        Ok(taken)
    }

    #[cold]
    fn ends_early(&self, count: impl fmt::Display) -> Malformed {
        Malformed(format!("{count} bytes should follow where {} do", self.left.len()).into())
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let Some((taken, left)) = self.left.split_first_chunk() else {
            return Err(self.ends_early(N));
        };
        self.left = left;
        Ok(*taken)
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    #[inline]
    fn integer(&mut self) -> Result<u64, Malformed> {
        match self.byte()? {
            small @ ..TWO_BYTES => Ok(small.into()),
            marker => self.wide(marker),
        }
    }

    fn wide(&mut self, marker: u8) -> Result<u64, Malformed> {
        match marker {
            TWO_BYTES => Ok(u16::from_le_bytes(self.array()?).into()),
            FOUR_BYTES => Ok(u32::from_le_bytes(self.array()?).into()),
            EIGHT_BYTES => Ok(u64::from_le_bytes(self.array()?)),
            other => Err(Malformed(format!("{other} is before no integer").into())),
        }
    }

    /// An integer that is not written wider than its type is, so that nothing of it is cut off.
    fn narrow(&mut self, widest: u8) -> Result<u64, Malformed> {
        match self.byte()? {
            small @ ..TWO_BYTES => Ok(small.into()),
            marker if marker <= widest || marker > EIGHT_BYTES => self.wide(marker),
            marker => Err(Malformed(format!("the integer after {marker} is too wide").into())),
        }
    }

    fn signed(&mut self, widest: u8) -> Result<i64, Malformed> {
        let folded = self.narrow(widest)?;
        Ok((folded >> 1).cast_signed() ^ -(folded & 1).cast_signed())
    }

    /// How many items follow, of which each takes a byte at least.
    #[inline]
    fn count(&mut self) -> Result<usize, Malformed> {
        let said = self.integer()?;
        match usize::try_from(said) {
            Ok(count) if count <= self.left.len() => Ok(count),
            _ => Err(Malformed(format!("{said} items should follow in {} bytes", self.left.len()).into())),
        }
    }

    #[inline]
    fn bytes(&mut self) -> Result<&'de [u8], Malformed> {
        let said = self.integer()?;
        match usize::try_from(said) {
            Ok(length) => self.take(length),
            Err(_) => Err(self.ends_early(said)),
        }
    }

    #[inline]
    fn text(&mut self) -> Result<&'de str, Malformed> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|error| Malformed(format!("a text is not UTF-8: {error}").into()))
    }

    fn choice(&mut self, of: &'static str) -> Result<bool, Malformed> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Malformed::invalid_value(Unexpected::Unsigned(other.into()), &of)),
        }
    }
}

/// Kinds of values that no structure of Stele has.
macro_rules! unknown {
    ($($method:ident($($name:ident: $type:ty),*))*) => {
        $(fn $method<V: Visitor<'de>>(self, $($name: $type,)* _: V) -> Result<V::Value, Malformed> {
            Err(Malformed(concat!("there is nothing that `", stringify!($method), "` could read").into()))
        })*
    };
}

impl<'de> Deserializer<'de> for &mut BincodeReader<'de> {
    type Error = Malformed;

    unknown! {
        deserialize_any()
        deserialize_i128()
        deserialize_u128()
        deserialize_f32()
        deserialize_f64()
        deserialize_char()
        deserialize_identifier()
        deserialize_ignored_any()
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        visitor.visit_bool(self.choice("0 for false or 1 for true")?)
    }

    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        visitor.visit_i8(self.byte()?.cast_signed())
    }

    fn deserialize_i16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        visitor.visit_i16(self.signed(TWO_BYTES)? as i16)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        visitor.visit_i32(self.signed(FOUR_BYTES)? as i32)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        visitor.visit_i64(self.signed(EIGHT_BYTES)?)
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        visitor.visit_u8(self.byte()?)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        visitor.visit_u16(self.narrow(TWO_BYTES)? as u16)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        visitor.visit_u32(self.narrow(FOUR_BYTES)? as u32)
    }

    #[inline]
    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        visitor.visit_u64(self.integer()?)
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        visitor.visit_borrowed_str(self.text()?)
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        visitor.visit_borrowed_bytes(self.bytes()?)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        self.deserialize_bytes(visitor)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        if self.choice("0 for absent or 1 for present")? {
            visitor.visit_some(self)
        } else {
            visitor.visit_none()
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Malformed> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Malformed> {
        visitor.visit_newtype_struct(self)
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        let left = self.count()?;
        visitor.visit_seq(Items { from: self, left })
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Malformed> {
        visitor.visit_seq(Items { from: self, left: len })
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Malformed> {
        if name == RAW_DIGEST {
            return visitor.visit_borrowed_bytes(self.take(len)?);
        }
        self.deserialize_tuple(len, visitor)
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Malformed> {
        let left = self.count()?;
        visitor.visit_map(Items { from: self, left })
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Malformed> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Malformed> {
        visitor.visit_enum(self)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// Items that follow each other: fields, elements, or keys with their values.
struct Items<'a, 'de> {
    from: &'a mut BincodeReader<'de>,
    left: usize,
}

impl Items<'_, '_> {
    #[inline]
    fn next(&mut self) -> bool {
        let is_more = self.left > 0;
        self.left -= usize::from(is_more);
        is_more
    }
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = Malformed;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Malformed> {
        if self.next() { seed.deserialize(&mut *self.from).map(Some) } else { Ok(None) }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left.min(ITEMS_EXPECTED_MAX))
    }
}

impl<'de> MapAccess<'de> for Items<'_, 'de> {
    type Error = Malformed;

    #[inline]
    fn next_key_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Malformed> {
        if self.next() { seed.deserialize(&mut *self.from).map(Some) } else { Ok(None) }
    }

    #[inline]
    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Malformed> {
        seed.deserialize(&mut *self.from)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left.min(ITEMS_EXPECTED_MAX))
    }
}

impl<'de> EnumAccess<'de> for &mut BincodeReader<'de> {
    type Error = Malformed;
    type Variant = Self;

    #[inline]
    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Malformed> {
        let number = self.narrow(FOUR_BYTES)? as u32;
        let number: U32Deserializer<Malformed> = number.into_deserializer();
        Ok((seed.deserialize(number)?, self))
    }
}

impl<'de> VariantAccess<'de> for &mut BincodeReader<'de> {
    type Error = Malformed;

    fn unit_variant(self) -> Result<(), Malformed> {
        Ok(())
    }

    #[inline]
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Malformed> {
        seed.deserialize(self)
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Malformed> {
        self.deserialize_tuple(len, visitor)
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Malformed> {
        self.deserialize_tuple(fields.len(), visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::de::DeserializeOwned;
    use serde::{Deserialize, Serialize};
    use stele_model::{Digest, Event, State};

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Newtype(u64);

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Choice {
        Nothing,
        One(Newtype),
        Two(i32, String),
        Named { digest: Digest, of: Option<u16> },
    }

    /// Every kind of value that bincode and serde have in common here.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Everything {
        truth: bool,
        small: (i8, u8),
        wide: (i16, u16, i32, u32),
        long: (i64, u64),
        text: String,
        absent: Option<Box<Everything>>,
        list: Vec<Choice>,
        map: BTreeMap<String, u32>,
        digest: Digest,
        unit: (),
    }

    fn choice() -> impl Strategy<Value = Choice> {
        let of = proptest::option::of(any::<u16>());
        prop_oneof![
            Just(Choice::Nothing),
            any::<u64>().prop_map(|number| Choice::One(Newtype(number))),
            (any::<i32>(), any::<String>()).prop_map(|(number, text)| Choice::Two(number, text)),
            (any::<[u8; 32]>(), of).prop_map(|(digest, of)| Choice::Named { digest: Digest(digest), of }),
        ]
    }

    /// Numbers on both sides of where a wider form begins.
    fn long() -> impl Strategy<Value = u64> {
        prop_oneof![0_u64..300, 65_000_u64..66_000, (u64::from(u32::MAX) - 9)..(1 << 33), any::<u64>()]
    }

    fn everything() -> impl Strategy<Value = Everything> {
        let leaf = (
            (any::<bool>(), any::<(i8, u8)>(), any::<(i16, u16, i32, u32)>(), (any::<i64>(), long())),
            (any::<String>(), proptest::collection::vec(choice(), 0..4)),
            proptest::collection::btree_map(any::<String>(), any::<u32>(), 0..4),
            any::<[u8; 32]>(),
        )
            .prop_map(|((truth, small, wide, long), (text, list), map, digest)| {
                let digest = Digest(digest);
                Everything { truth, small, wide, long, text, absent: None, list, map, digest, unit: () }
            });
        leaf.prop_recursive(3, 8, 1, |inner| {
            (inner.clone(), inner)
                .prop_map(|(outer, inner)| Everything { absent: Some(Box::new(inner)), ..outer })
        })
    }

    /// What a reader makes of bytes: a value, and how many bytes it left.
    fn read<T: DeserializeOwned>(bytes: &[u8]) -> Option<(T, usize)> {
        let mut reader = BincodeReader::new(bytes);
        T::deserialize(&mut reader).ok().map(|value| (value, reader.left().len()))
    }

    /// Far more than so few bytes may claim.
    const CLAIMED_MAX: usize = 1 << 20;

    fn read_by_bincode<T: DeserializeOwned>(bytes: &[u8]) -> Option<(T, usize)> {
        let config = bincode::config::standard().with_limit::<CLAIMED_MAX>();
        let read = bincode::serde::decode_from_slice(bytes, config).ok()?;
        Some((read.0, bytes.len() - read.1))
    }

    /// A payload of every kind of event.
    fn payloads() -> Vec<Vec<u8>> {
        let records = include_str!("../tests/golden/records.hex").lines();
        let payload = |line| crate::StoredRecord::from_bytes(&hex::decode(line).unwrap()).unwrap().0.payload;
        records.map(payload).collect()
    }

    #[test]
    fn events_and_state_are_the_same_to_both() {
        for payload in payloads() {
            assert_same::<Event>(&payload);
            for at in 0..payload.len() {
                for by in [0, 1, 250, 251, 252, 253, 254, 255, payload[at] ^ 1, payload[at] ^ 128] {
                    let mut changed = payload.clone();
                    changed[at] = by;
                    assert_same::<Event>(&changed);
                }
                assert_same::<Event>(&payload[..at]);
            }
        }
        let snapshot = hex::decode(include_str!("../tests/golden/snapshot.hex").trim()).unwrap();
        let state = written(&crate::Snapshot::decode(&snapshot).unwrap().state);
        assert_same::<State>(&state);
        assert_same::<State>(&state[..state.len() - 1]);
    }

    fn assert_same<T: DeserializeOwned + fmt::Debug + PartialEq>(bytes: &[u8]) {
        let (ours, bincodes) = (read::<T>(bytes), read_by_bincode::<T>(bytes));
        assert_eq!(ours, bincodes, "{}", hex::encode(bytes));
    }

    fn written<T: Serialize>(value: &T) -> Vec<u8> {
        crate::message::encode(value)
    }

    proptest! {
        #[test]
        fn what_bincode_writes_is_read(value in everything()) {
            prop_assert_eq!(read(&written(&value)), Some((value, 0)));
        }

        #[test]
        fn it_reads_and_refuses_what_bincode_does(
            value in everything(),
            at in any::<prop::sample::Index>(),
            by in prop_oneof![Just(0_u8), Just(1), 249_u8..=255, any::<u8>()],
            cut in proptest::option::of(any::<prop::sample::Index>()),
        ) {
            let mut bytes = written(&value);
            let at = at.index(bytes.len());
            bytes[at] = by;
            bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len())));
            prop_assert_eq!(read::<Everything>(&bytes), read_by_bincode(&bytes));
        }

        #[test]
        fn arbitrary_bytes_are_the_same_to_both(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(read::<Everything>(&bytes), read_by_bincode(&bytes));
            prop_assert_eq!(read::<Event>(&bytes), read_by_bincode(&bytes));
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_what_was_there() {
        let why =
            |bytes: &[u8]| Everything::deserialize(&mut BincodeReader::new(bytes)).unwrap_err().to_string();
        assert_eq!(why(&[2]), "invalid value: integer `2`, expected 0 for false or 1 for true");
        assert_eq!(why(&[1, 0]), "1 bytes should follow where 0 do");
        assert_eq!(why(&[1, 0, 0, 0, 252, 1, 1, 1, 1]), "the integer after 252 is too wide");
        assert_eq!(why(&[1, 0, 0, 0, 255]), "255 is before no integer");
        let text = String::deserialize(&mut BincodeReader::new(&[3, b'a'])).unwrap_err();
        assert_eq!(text.to_string(), "3 bytes should follow where 1 do");
        let list = Vec::<u8>::deserialize(&mut BincodeReader::new(&[3, b'a'])).unwrap_err();
        assert_eq!(list.to_string(), "3 items should follow in 1 bytes");
    }
}
