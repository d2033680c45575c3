//! Looking for damage before it is needed.

use prost::Message as _;
use raft::eraftpb::Entry;
use stele_consensus::StoreError;

use crate::database::{Database, Family};
use crate::limits;
use crate::reader::Reader;

/// What a full verification read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verified {
    /// Raft entries.
    pub entries: u64,
    /// Records.
    pub records: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Small values.
    pub values: u64,
}

/// Decodes one raft entry and checks that it is the one expected.
pub(crate) fn entry(
    database: &Database,
    key: &[u8],
    value: &[u8],
    expected: u64,
) -> Result<Entry, StoreError> {
    if key != expected.to_be_bytes() {
        let detail = format!("entry {expected} is missing in front of it");
        return Err(database.corrupt(Family::Raft, key, detail));
    }
    let entry = Entry::decode(value)
        .map_err(|error| database.corrupt(Family::Raft, key, format!("it does not decode: {error}")))?;
    if entry.index != expected {
        let detail = format!("it holds entry {}", entry.index);
        return Err(database.corrupt(Family::Raft, key, detail));
    }
    Ok(entry)
}

/// Checks every raft entry after `truncated`, hands it on, and answers their terms.
pub(crate) fn entries(
    database: &Database,
    truncated: u64,
    mut each: impl FnMut(Entry),
) -> Result<Vec<u64>, StoreError> {
    let mut terms = Vec::new();
    let pairs = database.scan(Family::Raft, &[], None)?;
    for (expected, pair) in (truncated + 1..).zip(pairs) {
        let (key, value) = pair?;
        let entry = entry(database, &key, &value, expected)?;
        terms.push(entry.term);
        each(entry);
    }
    Ok(terms)
}

/// Checks the newest records.
pub(crate) fn tail(reader: &Reader) -> Result<(), StoreError> {
    let last = reader.last_seq();
    let first = last.saturating_sub(limits::VERIFY_TAIL_RECORDS) + 1;
    records(reader, first)?;
    Ok(())
}

fn records(reader: &Reader, first: u64) -> Result<u64, StoreError> {
    let last = reader.last_seq();
    let gaps = reader.gaps();
    let mut next = first;
    let mut seen = 0;
    while next <= last {
        if let Some(gap) = gaps.iter().find(|gap| gap.0 <= next && next <= gap.1) {
            next = gap.1 + 1;
            continue;
        }
        let read = reader.records(next..=last, limits::VERIFY_CHUNK_BYTES)?;
        seen += read.len() as u64;
        next += read.len() as u64;
    }
    Ok(seen)
}

impl Reader {
    /// Reads and checks everything that is stored, derived values included.
    /// It may take long and disturbs nobody but the disk.
    pub fn verify_all(&self) -> Result<Verified, StoreError> {
        let database = &self.shared.database;
        let mut verified = Verified { records: records(self, 1)?, ..Verified::default() };
        for pair in database.scan(Family::Raft, &[], None)? {
            let (key, value) = pair?;
            let index = <[u8; 8]>::try_from(key.as_slice()).map(u64::from_be_bytes);
            entry(database, &key, &value, index.unwrap_or_default())?;
            verified.entries += 1;
        }
        for info in self.snapshots()? {
            if self.snapshot(info.seq)?.is_none() {
                let detail = "the snapshot is not there".to_owned();
                let key = info.seq.to_be_bytes();
                return Err(database.corrupt(Family::Snapshots, &key, detail));
            }
            verified.snapshots += 1;
        }
        for family in [Family::Meta, Family::Derived] {
            for pair in database.scan(family, &[], None)? {
                pair?;
                verified.values += 1;
            }
        }
        Ok(verified)
    }
}
