//! Reading from other threads, and the derived data beside the log.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use stele_consensus::{LogIndex, Span, StoreError};

use crate::database::{Database, Family};
use crate::disk::Space;
use crate::limits;
use crate::snapshots::Stages;

/// Records in order, as (seq, bytes).
pub type Records = Vec<(u64, Vec<u8>)>;

/// Key-value pairs in order of the keys.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

#[derive(Debug, Clone, Default)]
pub(crate) struct Positions {
    last_seq: u64,
    gaps: Vec<Span>,
}

pub(crate) struct Shared {
    pub(crate) database: Database,
    pub(crate) stages: Stages,
    positions: RwLock<Positions>,
    /// Bytes of derived values that were put since they were last written out.
    unflushed: AtomicU64,
}

impl Shared {
    pub(crate) fn new(database: Database, stages: Stages) -> Self {
        Self { database, stages, positions: RwLock::default(), unflushed: AtomicU64::default() }
    }

    /// Lets readers see what was written. Called after the write.
    pub(crate) fn publish(&self, index: &LogIndex) {
        let mut positions = self.positions.write().unwrap_or_else(PoisonError::into_inner);
        positions.last_seq = index.last_seq();
        if positions.gaps != index.gaps() {
            positions.gaps = index.gaps().to_vec();
        }
    }

    fn positions(&self) -> Positions {
        self.positions.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A handle to an open store for any thread; cloning it is cheap. It reads
/// records and snapshots, and keeps what is derived from them. It cannot touch
/// the log.
///
/// The database stays open until the store and all its readers are dropped.
#[derive(Clone)]
pub struct Reader {
    pub(crate) shared: Arc<Shared>,
}

impl Reader {
    pub(crate) fn database(&self) -> &Database {
        &self.shared.database
    }

    /// The folder of the store.
    pub fn path(&self) -> &Path {
        self.database().path()
    }

    /// How much room the file system of the store has.
    pub fn space(&self) -> Result<Space, StoreError> {
        self.database().space()
    }

    /// Last record, 0 without one.
    pub fn last_seq(&self) -> u64 {
        self.shared.positions().last_seq
    }

    /// First record held, 0 without one.
    pub fn first_seq(&self) -> u64 {
        let positions = self.shared.positions();
        let first = match positions.gaps.first() {
            Some((1, to)) => to + 1,
            _ => 1,
        };
        if first > positions.last_seq { 0 } else { first }
    }

    /// Records missing here, as inclusive spans in order.
    pub fn gaps(&self) -> Vec<Span> {
        self.shared.positions().gaps
    }

    /// One record, `None` when it does not exist or is missing here.
    pub fn record(&self, seq: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.database().get(Family::Records, &seq.to_be_bytes())
    }

    /// Records of a range, in order and without a hole, from its first one on.
    /// Ends early after `max_bytes` (but gives at least one record), at the end
    /// of the log, and in front of a gap.
    pub fn records(&self, range: RangeInclusive<u64>, max_bytes: usize) -> Result<Records, StoreError> {
        let (mut records, mut bytes) = (Records::new(), 0);
        self.each_record(range, |seq, record| {
            bytes += record.len();
            let is_room = bytes <= max_bytes || records.is_empty();
            if is_room {
                records.push((seq, record.to_vec()));
            }
            is_room
        })?;
        Ok(records)
    }

    /// Shows records of a range where they lie, in order and without a hole, from its first one on, for as long as
    /// `each` answers true. Ends early at the end of the log, and in front of a gap. What cannot be read is an error
    /// at its own record, after all before it were shown; only while `RocksDB` has three files of records or fewer,
    /// which it looks into without asking what is in them, may the error be at an earlier one.
    ///
    /// What the database writes or deletes meanwhile, its memory and its files, is kept until this ends.
    pub fn each_record(
        &self,
        range: RangeInclusive<u64>,
        mut each: impl FnMut(u64, &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let positions = self.shared.positions();
        let first = (*range.start()).max(1);
        let mut last = (*range.end()).min(positions.last_seq);
        for (from, to) in &positions.gaps {
            if first <= *to && *from <= last {
                // From here on there is nothing contiguous to give.
                last = last.min(from - 1);
            }
        }
        if first > last {
            return Ok(());
        }
        let mut next = first;
        match self.each_in_a_row(&mut next, last, &mut each) {
            // Looking for the next row goes through several files, of which a later one may be the damaged one.
            Err(error @ (StoreError::Corrupt { .. } | StoreError::Io { .. })) => {
                tracing::warn!(%error, from = next, "records are read one by one, because they cannot be in a row");
                self.each_by_itself(next, last, each)
            }
            read => read,
        }
    }

    fn each_in_a_row(
        &self,
        next: &mut u64,
        last: u64,
        each: &mut impl FnMut(u64, &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let before = (last < u64::MAX).then(|| (last + 1).to_be_bytes().to_vec());
        let mut rows = self.database().rows(Family::Records, &next.to_be_bytes(), before)?;
        for seq in *next..=last {
            let key = seq.to_be_bytes();
            let row = rows.next()?.filter(|(found, _)| *found == key);
            let (_, record) = row.ok_or_else(|| self.missing(seq))?;
            // Whoever was shown it is not shown it again.
            *next = seq.saturating_add(1);
            if !each(seq, record) {
                break;
            }
        }
        Ok(())
    }

    fn each_by_itself(
        &self,
        first: u64,
        last: u64,
        mut each: impl FnMut(u64, &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        for seq in first..=last {
            let record = self.record(seq)?.ok_or_else(|| self.missing(seq))?;
            if !each(seq, &record) {
                break;
            }
        }
        Ok(())
    }

    fn missing(&self, seq: u64) -> StoreError {
        let detail = "the record is not there".to_owned();
        self.database().corrupt(Family::Records, &seq.to_be_bytes(), detail)
    }

    /// Stores (`Some`) and deletes (`None`) derived values at once, without a log:
    /// whoever derives them keeps a watermark among them and derives again what
    /// a crash lost, which is little: [`limits::DERIVED_UNFLUSHED_BYTES`].
    pub fn put_derived(&self, changes: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<(), StoreError> {
        let mut batch = self.database().batch();
        let mut bytes = 0;
        for (key, value) in changes {
            if key.is_empty() || key.len() > limits::MAX_DERIVED_KEY_BYTES {
                return Err(StoreError::Refused(format!(
                    "a key of {} bytes; 1 to {} are allowed",
                    key.len(),
                    limits::MAX_DERIVED_KEY_BYTES
                )));
            }
            match value {
                Some(value) => {
                    bytes += (key.len() + value.len()) as u64;
                    batch.put(Family::Derived, key, value)?;
                }
                None => batch.delete(Family::Derived, key)?,
            }
        }
        self.database().check_room(bytes)?;
        batch.commit_unlogged()?;
        if self.shared.unflushed.fetch_add(bytes, Ordering::Relaxed) + bytes > limits::DERIVED_UNFLUSHED_BYTES
        {
            self.shared.unflushed.store(0, Ordering::Relaxed);
            self.database().flush(Family::Derived, false)?;
        }
        Ok(())
    }

    /// Has all derived values on the disk on return: before an end in order.
    pub fn flush_derived(&self) -> Result<(), StoreError> {
        self.database().flush(Family::Derived, true)
    }

    /// A derived value.
    pub fn get_derived(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.database().get(Family::Derived, key)
    }

    /// Derived values under a prefix, in order, after the key `after` if given,
    /// at most `limit`.
    pub fn scan_derived(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Pairs, StoreError> {
        let from = match after {
            Some(after) if after >= prefix => [after, &[0]].concat(),
            _ => prefix.to_vec(),
        };
        self.database().scan(Family::Derived, &from, successor(prefix))?.take(limit).collect()
    }

    /// Deletes every derived value under a prefix; under an empty one, all. They are gone on return, whatever happens
    /// next: what is wrong must not come back.
    pub fn delete_all_derived(&self, prefix: &[u8]) -> Result<(), StoreError> {
        // No key is longer than the limit, so this is after every key that has
        // no successor of its prefix.
        let end = successor(prefix).unwrap_or(vec![0xff; limits::MAX_DERIVED_KEY_BYTES + 1]);
        let mut batch = self.database().batch();
        batch.delete_range(Family::Derived, prefix, &end)?;
        batch.commit(true)
    }
}

/// The first key after all keys with this prefix.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let keep = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=keep].to_vec();
    end[keep] += 1;
    Some(end)
}
