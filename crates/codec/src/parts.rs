//! What is kept by name, of which some can be read without the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bytes::{Reader, Writer};
use crate::delta::decode_part;
use crate::error::DecodeError;
use crate::message;

/// How many they are; then each one's name, and the part itself after its length, in order of what the names
/// stand for.
pub(crate) fn write_parts<K: ToString, V: Serialize>(out: &mut Writer, parts: &BTreeMap<K, V>) {
    out.u32(u32::try_from(parts.len()).unwrap_or(u32::MAX));
    for (name, part) in parts {
        out.text(&name.to_string());
        out.blob(&message::encode(part));
    }
}

/// By name, in order of what the names stand for.
pub(crate) struct Parts<'a>(Vec<(&'a str, &'a [u8])>);

impl<'a> Parts<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut parts = Vec::new();
        for _ in 0..from.u32()? {
            parts.push((from.str()?, from.blob()?));
        }
        Ok(Self(parts))
    }

    /// All of them.
    pub(crate) fn all<K, V>(&self, what: &'static str) -> Result<BTreeMap<K, V>, DecodeError>
    where
        K: FromStr<Err: std::fmt::Display> + ToString + Ord,
        V: DeserializeOwned,
    {
        let malformed = |why: String| DecodeError::Malformed { what, why };
        let mut all = BTreeMap::new();
        for (name, part) in &self.0 {
            let key: K = name.parse().map_err(|error: K::Err| malformed(error.to_string()))?;
            // There is one way to write it.
            if key.to_string() != *name || all.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(malformed(format!("{name} is not where it belongs")));
            }
            all.insert(key, decode_part(what, part)?);
        }
        Ok(all)
    }

    /// Those of some.
    pub(crate) fn of<K, V>(
        &self,
        what: &'static str,
        wanted: &BTreeSet<K>,
    ) -> Result<BTreeMap<K, V>, DecodeError>
    where
        K: Clone + ToString + Ord,
        V: DeserializeOwned,
    {
        let by_name: BTreeMap<_, _> = wanted.iter().map(|key| (key.to_string(), key)).collect();
        let found = self.0.iter().filter_map(|(name, part)| Some(((*by_name.get(*name)?).clone(), part)));
        found.map(|(key, part)| Ok((key, decode_part(what, part)?))).collect()
    }
}
