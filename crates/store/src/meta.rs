//! Keys and encodings of the small values.

use prost::Message as _;
use raft::eraftpb::{ConfState, HardState};
use stele_consensus::{LogIndex, Recovered, SnapshotMark, Span, StoreError};

use crate::database::{Batch, Database, Family};

pub(crate) const FORMAT: &[u8] = b"format";
pub(crate) const IDENTITY: &[u8] = b"identity";
pub(crate) const TRUNCATED: &[u8] = b"truncated";
pub(crate) const HARD_STATE: &[u8] = b"hard_state";
pub(crate) const CONF_STATE: &[u8] = b"conf_state";
pub(crate) const APPLIED: &[u8] = b"applied";
pub(crate) const RETIRED: &[u8] = b"retired";
pub(crate) const LAST_SEQ: &[u8] = b"last_seq";
pub(crate) const GAPS: &[u8] = b"gaps";
pub(crate) const SYNCED: &[u8] = b"synced";
const SNAPSHOT_PREFIX: &[u8] = b"snapshot/";

/// A stored snapshot, without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Last record folded into it.
    pub seq: u64,
    /// Raft index it was applied up to; 0 when it cannot be sent to a follower.
    pub index: u64,
    /// Term of that index.
    pub term: u64,
    /// Size of its data in bytes.
    pub bytes: u64,
    /// Where its data is; absent when it is with its head, as before there were parts.
    pub(crate) stage: Option<u64>,
}

pub(crate) fn snapshot_key(seq: u64) -> Vec<u8> {
    [SNAPSHOT_PREFIX, &seq.to_be_bytes()].concat()
}

pub(crate) fn encode_numbers(numbers: impl IntoIterator<Item = u64>) -> Vec<u8> {
    numbers.into_iter().flat_map(u64::to_be_bytes).collect()
}

pub(crate) fn decode_numbers(bytes: &[u8]) -> Option<Vec<u64>> {
    let (chunks, rest) = bytes.as_chunks::<8>();
    rest.is_empty().then(|| chunks.iter().map(|c| u64::from_be_bytes(*c)).collect())
}

fn numbers(database: &Database, key: &[u8]) -> Result<Vec<u64>, StoreError> {
    let Some(bytes) = database.get(Family::Meta, key)? else {
        return Ok(Vec::new());
    };
    decode_numbers(&bytes)
        .ok_or_else(|| database.corrupt(Family::Meta, key, "it is no list of numbers".to_owned()))
}

pub(crate) fn number(database: &Database, key: &[u8]) -> Result<u64, StoreError> {
    Ok(numbers(database, key)?.first().copied().unwrap_or_default())
}

fn message<M: prost::Message + Default>(database: &Database, key: &[u8]) -> Result<M, StoreError> {
    let Some(bytes) = database.get(Family::Meta, key)? else {
        return Ok(M::default());
    };
    M::decode(bytes.as_slice())
        .map_err(|error| database.corrupt(Family::Meta, key, format!("it does not decode: {error}")))
}

pub(crate) fn put_gaps(batch: &mut Batch<'_>, gaps: &[Span]) -> Result<(), StoreError> {
    let flat = gaps.iter().flat_map(|gap| [gap.0, gap.1]);
    batch.put(Family::Meta, GAPS, &encode_numbers(flat))
}

pub(crate) fn put_snapshot_info(batch: &mut Batch<'_>, info: SnapshotInfo) -> Result<(), StoreError> {
    let numbers = [info.index, info.term, info.bytes];
    let value = encode_numbers(numbers.into_iter().chain(info.stage));
    batch.put(Family::Meta, &snapshot_key(info.seq), &value)
}

pub(crate) fn snapshot_infos(database: &Database) -> Result<Vec<SnapshotInfo>, StoreError> {
    let mut end = SNAPSHOT_PREFIX.to_vec();
    end.extend_from_slice(&[0xff; 9]);
    let mut infos = Vec::new();
    for pair in database.scan(Family::Meta, SNAPSHOT_PREFIX, Some(end))? {
        let (key, value) = pair?;
        infos.push(decode_snapshot_info(database, &key, &value)?);
    }
    Ok(infos)
}

pub(crate) fn snapshot_info(database: &Database, seq: u64) -> Result<Option<SnapshotInfo>, StoreError> {
    let key = snapshot_key(seq);
    let value = database.get(Family::Meta, &key)?;
    value.map(|value| decode_snapshot_info(database, &key, &value)).transpose()
}

fn decode_snapshot_info(database: &Database, key: &[u8], value: &[u8]) -> Result<SnapshotInfo, StoreError> {
    let seq = key.get(SNAPSHOT_PREFIX.len()..).and_then(|seq| <[u8; 8]>::try_from(seq).ok());
    let numbers = decode_numbers(value).unwrap_or_default();
    let (Some(seq), [index, term, bytes, stage @ ..]) = (seq, numbers.as_slice()) else {
        let detail = "it does not describe a snapshot".to_owned();
        return Err(database.corrupt(Family::Meta, key, detail));
    };
    let (index, term, bytes, stage) = (*index, *term, *bytes, stage.first().copied());
    Ok(SnapshotInfo { seq: u64::from_be_bytes(seq), index, term, bytes, stage })
}

pub(crate) fn put_hard_state(batch: &mut Batch<'_>, hard_state: &HardState) -> Result<(), StoreError> {
    batch.put(Family::Meta, HARD_STATE, &hard_state.encode_to_vec())
}

pub(crate) fn put_conf_state(batch: &mut Batch<'_>, conf_state: &ConfState) -> Result<(), StoreError> {
    batch.put(Family::Meta, CONF_STATE, &conf_state.encode_to_vec())
}

/// Reads everything but the terms of the entries.
pub(crate) fn recover(database: &Database) -> Result<Recovered, StoreError> {
    let truncated = match *numbers(database, TRUNCATED)?.as_slice() {
        [index, term] => (index, term),
        _ => LogIndex::new().truncated(),
    };
    let gaps: Vec<Span> =
        numbers(database, GAPS)?.as_chunks::<2>().0.iter().map(|[from, to]| (*from, *to)).collect();
    let newest =
        snapshot_infos(database)?.into_iter().filter(|info| info.index > 0).max_by_key(|info| info.index);
    Ok(Recovered {
        truncated,
        terms: Vec::new(),
        hard_state: message(database, HARD_STATE)?,
        conf_state: message(database, CONF_STATE)?,
        applied: number(database, APPLIED)?,
        retired: numbers(database, RETIRED)?,
        last_seq: number(database, LAST_SEQ)?,
        gaps,
        snapshot: newest.map(|info| SnapshotMark { seq: info.seq, index: info.index, term: info.term }),
    })
}
