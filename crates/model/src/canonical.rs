//! Canonical JSON: the bytes that are hashed and signed.
//!
//! It is RFC 8785 style (object members sorted by key, no insignificant space), with integers as they are, so
//! that an auditor can recompute a digest in any language. `docs/log-format.md` specifies it.

use std::cell::Cell;
use std::cmp::Ordering;
use std::io::{self, Write};
use std::ops::Range;

use serde::Serialize;
use serde_json::ser::Formatter;

/// Most of what is hashed takes fewer bytes.
const BYTES_EXPECTED: usize = 512;

/// The bytes that are hashed for `value`.
///
/// # Panics
/// If a value cannot be JSON (a map with a compound key): the vocabulary of this crate has none, so this would
/// be a bug.
pub fn canonical_json<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let written = Cell::new(0);
    let mut out = Counted { bytes: Vec::with_capacity(BYTES_EXPECTED), written: &written };
    let mut members = Members { written: &written, open: Vec::new(), closed: Vec::new() };
    #[allow(clippy::expect_used)]
    value
        .serialize(&mut serde_json::Serializer::with_formatter(&mut out, &mut members))
        .expect("the vocabulary is representable as JSON");
    let mut bytes = out.bytes;
    // What is inside an object was closed before it. Sorting moves bytes inside of an object alone.
    for object in members.closed {
        sort(&mut bytes, object);
    }
    bytes
}

/// Where one member of an object is, in bytes.
struct Member {
    key: Range<usize>,
    /// Whether its key is ASCII without escapes, so that its bytes are in the order of its UTF-16 units.
    is_plain: bool,
    end: usize,
}

impl Member {
    /// Compares two keys by their UTF-16 units.
    fn compare(&self, other: &Self, bytes: &[u8]) -> Ordering {
        let (one, two) = (&bytes[self.key.clone()], &bytes[other.key.clone()]);
        if self.is_plain && other.is_plain {
            // Without the quotes, of which the last one would be compared with what follows in the longer key.
            return one[1..one.len() - 1].cmp(&two[1..two.len() - 1]);
        }
        let units = |key: &[u8]| -> Vec<u16> {
            let text: String = serde_json::from_slice(key).unwrap_or_default();
            text.encode_utf16().collect()
        };
        units(one).cmp(&units(two))
    }
}

/// Puts an object's members in order of their keys.
fn sort(bytes: &mut [u8], mut members: Vec<Member>) {
    for member in &mut members {
        let key = &bytes[member.key.clone()];
        member.is_plain = key.is_ascii() && !key.contains(&b'\\');
    }
    if members.is_sorted_by(|one, other| one.compare(other, bytes).is_le()) {
        return;
    }
    let (Some(first), Some(last)) = (members.first(), members.last()) else { return };
    let (begin, end) = (first.key.start, last.end);
    members.sort_by(|one, other| one.compare(other, bytes));
    let mut sorted = Vec::with_capacity(end - begin);
    for member in members {
        if !sorted.is_empty() {
            sorted.push(b',');
        }
        sorted.extend_from_slice(&bytes[member.key.start..member.end]);
    }
    bytes[begin..end].copy_from_slice(&sorted);
}

/// Bytes, and how many they are for whoever formats.
struct Counted<'a> {
    bytes: Vec<u8>,
    written: &'a Cell<usize>,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        self.written.set(self.bytes.len());
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Notes where the members of objects are.
struct Members<'a> {
    written: &'a Cell<usize>,
    open: Vec<Vec<Member>>,
    closed: Vec<Vec<Member>>,
}

impl Formatter for &mut Members<'_> {
    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open.push(Vec::new());
        out.write_all(b"{")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(b",")?;
        }
        let at = self.written.get();
        if let Some(members) = self.open.last_mut() {
            members.push(Member { key: at..at, is_plain: false, end: at });
        }
        Ok(())
    }

    fn end_object_key<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        if let Some(member) = self.open.last_mut().and_then(|members| members.last_mut()) {
            member.key.end = self.written.get();
        }
        Ok(())
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        if let Some(member) = self.open.last_mut().and_then(|members| members.last_mut()) {
            member.end = self.written.get();
        }
        Ok(())
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.closed.extend(self.open.pop().filter(|members| members.len() > 1));
        out.write_all(b"}")
    }

    /// JSON that somebody else has written is not canonical yet.
    fn write_raw_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let tree: serde_json::Value = serde_json::from_str(fragment)?;
        out.write_all(&canonical_json(&tree))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// The same, slowly: as a tree first.
    fn of_tree(value: &Value, out: &mut Vec<u8>) {
        match value {
            Value::Object(members) => {
                let mut sorted: Vec<_> = members.iter().collect();
                sorted.sort_by_key(|(key, _)| key.encode_utf16().collect::<Vec<_>>());
                out.push(b'{');
                for (at, (key, member)) in sorted.into_iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    of_tree(&Value::String(key.clone()), out);
                    out.push(b':');
                    of_tree(member, out);
                }
                out.push(b'}');
            }
            Value::Array(items) => {
                out.push(b'[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    of_tree(item, out);
                }
                out.push(b']');
            }
            scalar => out.extend_from_slice(scalar.to_string().as_bytes()),
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        scalar.prop_recursive(4, 64, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                // Keys whose order as UTF-8 is another than as UTF-16, and such that must be escaped.
                proptest::collection::btree_map("[ab!\"\\\\\u{1}\u{e9}\u{ff61}\u{1f600}]{0,3}", inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// Whose members are written in the order of the fields.
    #[derive(Serialize)]
    struct Unsorted {
        z: Value,
        b: BTreeMap<u32, Option<Box<Unsorted>>>,
        a: Vec<Value>,
        #[serde(skip_serializing_if = "Option::is_none")]
        y: Option<u64>,
    }

    proptest! {
        #[test]
        fn it_is_what_a_sorted_tree_gives(values in proptest::collection::vec(any_value(), 3)) {
            let [one, two, three] = <[Value; 3]>::try_from(values).unwrap();
            let inner = Unsorted { z: one.clone(), b: BTreeMap::new(), a: vec![two], y: Some(u64::MAX) };
            let outer = Unsorted {
                z: three,
                b: BTreeMap::from([(10, Some(Box::new(inner))), (9, None)]),
                a: vec![one],
                y: None,
            };
            let mut expected = Vec::new();
            of_tree(&serde_json::to_value(&outer).unwrap(), &mut expected);
            prop_assert_eq!(String::from_utf8(canonical_json(&outer)), String::from_utf8(expected));
        }
    }

    #[test]
    fn canonical_json_sorts_members_and_drops_space() {
        let text = r#"{"b": [1, {"z": null, "a": "\u00e9\n"}], "a": true}"#;
        let expected = "{\"a\":true,\"b\":[1,{\"a\":\"é\\n\",\"z\":null}]}";
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(String::from_utf8(canonical_json(&value)).unwrap(), expected);
        let raw: Box<serde_json::value::RawValue> = serde_json::from_str(text).unwrap();
        assert_eq!(String::from_utf8(canonical_json(&raw)).unwrap(), expected);
    }
}
