//! What became of targets between two States, as bytes of which a part can be read.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;
use stele_model::{AppChange, AppEnv, Interest, ProgressDelta};

use crate::bytes::{Reader, Writer};
use crate::delta::{PROGRESS_MAGIC, decode_part, seal, unseal};
use crate::error::DecodeError;
use crate::message;

const WHAT: &str = "delta of progress";

/// Magic, format, checksum of the rest; then what is of neither nodes nor apps, what is of each node, and what is
/// of each app in an environment, in order of their names: each part's name, and its length.
pub fn encode_progress(delta: &ProgressDelta) -> Vec<u8> {
    let mut out = Writer::default();
    out.blob(&message::encode(&delta.head));
    write_parts(&mut out, &delta.nodes);
    write_parts(&mut out, &delta.apps);
    seal(PROGRESS_MAGIC, &out.0)
}

fn write_parts<K: ToString, V: Serialize>(out: &mut Writer, parts: &BTreeMap<K, V>) {
    out.u32(u32::try_from(parts.len()).unwrap_or(u32::MAX));
    for (name, part) in parts {
        out.text(&name.to_string());
        out.blob(&message::encode(part));
    }
}

/// Reads all of what [`encode_progress`] wrote.
pub fn decode_progress(bytes: &[u8]) -> Result<ProgressDelta, DecodeError> {
    let bytes = ProgressBytes::read(bytes)?;
    Ok(ProgressDelta {
        head: decode_part(WHAT, bytes.head)?,
        nodes: bytes.nodes.all()?,
        apps: bytes.apps.all()?,
    })
}

/// What [`encode_progress`] wrote, to be read in part.
pub struct ProgressBytes<'a> {
    head: &'a [u8],
    nodes: Parts<'a>,
    apps: Parts<'a>,
}

/// By name, in order of what the names stand for.
struct Parts<'a>(Vec<(&'a str, &'a [u8])>);

impl<'a> Parts<'a> {
    fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut parts = Vec::new();
        for _ in 0..from.u32()? {
            let name =
                std::str::from_utf8(from.blob()?).map_err(|_| from.malformed("a name is not UTF-8"))?;
            parts.push((name, from.blob()?));
        }
        Ok(Self(parts))
    }

    /// All of them.
    fn all<K, V>(&self) -> Result<BTreeMap<K, V>, DecodeError>
    where
        K: FromStr<Err: std::fmt::Display> + ToString + Ord,
        V: DeserializeOwned,
    {
        let malformed = |why: String| DecodeError::Malformed { what: WHAT, why };
        let mut all = BTreeMap::new();
        for (name, part) in &self.0 {
            let key: K = name.parse().map_err(|error: K::Err| malformed(error.to_string()))?;
            // There is one way to write it.
            if key.to_string() != *name || all.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(malformed(format!("{name} is not where it belongs")));
            }
            all.insert(key, decode_part(WHAT, part)?);
        }
        Ok(all)
    }

    /// Those of some.
    fn of<K, V>(&self, wanted: &BTreeSet<K>) -> Result<BTreeMap<K, V>, DecodeError>
    where
        K: Clone + ToString + Ord,
        V: DeserializeOwned,
    {
        let by_name: BTreeMap<_, _> = wanted.iter().map(|key| (key.to_string(), key)).collect();
        let found = self.0.iter().filter_map(|(name, part)| Some(((*by_name.get(*name)?).clone(), part)));
        found.map(|(key, part)| Ok((key, decode_part(WHAT, part)?))).collect()
    }
}

impl<'a> ProgressBytes<'a> {
    /// Checks them as a whole, and finds the parts.
    pub fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(WHAT, unseal(WHAT, PROGRESS_MAGIC, bytes)?);
        let bytes =
            Self { head: from.blob()?, nodes: Parts::read(&mut from)?, apps: Parts::read(&mut from)? };
        from.end()?;
        Ok(bytes)
    }

    /// What is of the apps.
    pub fn of_apps(&self, apps: &BTreeSet<AppEnv>) -> Result<BTreeMap<AppEnv, AppChange>, DecodeError> {
        self.apps.of(apps)
    }

    /// What is of the apps and nodes.
    pub fn about(&self, interest: &Interest) -> Result<ProgressDelta, DecodeError> {
        Ok(ProgressDelta {
            head: decode_part(WHAT, self.head)?,
            nodes: self.nodes.of(interest.nodes())?,
            apps: self.of_apps(interest.apps())?,
        })
    }
}
