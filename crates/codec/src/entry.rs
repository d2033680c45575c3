//! One Raft entry: many decided records under one header.

use stele_model::{Digest, Seq};

use crate::bytes::{Reader, Writer};
use crate::error::DecodeError;
use crate::limits::{ENTRY_BYTES_MAX, RECORDS_PER_ENTRY_MAX};
use crate::record::{Chain, StoredRecord};

const MAGIC: &[u8; 4] = b"STLE";
const FORMAT: u8 = 1;
const CHECKSUM_BYTES: usize = 8;
/// What comes before the records takes fewer bytes, mostly.
const HEAD_BYTES_EXPECTED: usize = 256;

/// What Raft replicates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The fleet whose log it belongs to.
    pub fleet: String,
    /// The term in which it was decided. Where Raft's term differs, the entry is void.
    pub term: u64,
    /// Seq of its first record.
    pub first: Seq,
    /// The chain before its first record.
    pub previous: Chain,
    /// Its records, whole decisions only.
    pub records: Vec<StoredRecord>,
}

impl Entry {
    /// The entry's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let bytes: usize = self.records.iter().map(StoredRecord::written_bytes).sum();
        let mut out = Writer::with_capacity(HEAD_BYTES_EXPECTED + bytes + CHECKSUM_BYTES);
        out.raw(MAGIC);
        out.u8(FORMAT);
        out.text(&self.fleet);
        out.u64(self.term);
        out.u64(self.first);
        out.u32(u32::try_from(self.records.len()).unwrap_or(u32::MAX));
        out.raw(&self.previous.0.0);
        for record in &self.records {
            record.write(&mut out);
        }
        let checksum = Digest::of(&[&out.0]);
        out.raw(&checksum.0[..CHECKSUM_BYTES]);
        out.0
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        const WHAT: &str = "entry";
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(DecodeError::TooLarge { what: WHAT, found: bytes.len(), limit: ENTRY_BYTES_MAX });
        }
        let body = bytes.len().saturating_sub(CHECKSUM_BYTES);
        let mut from = Reader::new(WHAT, bytes);
        if from.take(MAGIC.len())? != MAGIC {
            return Err(from.malformed("it does not begin with STLE"));
        }
        let format = from.u8()?;
        if format != FORMAT {
            return Err(DecodeError::Format { what: WHAT, found: format, known: FORMAT });
        }
        if Digest::of(&[&bytes[..body]]).0[..CHECKSUM_BYTES] != bytes[body..] {
            return Err(DecodeError::Checksum(WHAT));
        }
        let fleet = from.text()?;
        let (term, first, count) = (from.u64()?, from.u64()?, from.u32()?);
        if count > RECORDS_PER_ENTRY_MAX {
            return Err(from.malformed(format!("{count} records in one entry")));
        }
        let previous = Chain(Digest(from.array()?));
        let records = (0..count).map(|_| StoredRecord::read(&mut from)).collect::<Result<_, _>>()?;
        if from.at() != body {
            return Err(from.malformed("its records do not fill it"));
        }
        Ok(Self { fleet, term, first, previous, records })
    }
}
