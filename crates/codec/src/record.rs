//! Records as they are kept: the leaf (header with payload hash), the payload, nothing re-encoded.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use stele_model::limits::{HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX};
use stele_model::{Digest, Event, Header, Headline, Record};

use crate::bytes::{Reader, Writer};
use crate::error::DecodeError;
use crate::{earlier, header, message};

/// bincode 2, as configured here.
pub(crate) const CODEC_BINCODE: u8 = 1;

/// Links every record to all before it: `chain(n) = SHA-256(0x02 ‖ chain(n-1) ‖ leaf(n))`.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain(pub Digest);

impl Chain {
    /// Before the first record.
    pub const GENESIS: Self = Self(Digest::EMPTY);

    /// The chain after one more leaf.
    #[must_use]
    pub fn link(self, leaf: &[u8]) -> Self {
        Self(Digest::of(&[&[2], &self.0.0, leaf]))
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chain {}", self.0)
    }
}

/// One record's exact bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Header and payload hash: what is chained and proved.
    pub leaf: Vec<u8>,
    /// The event.
    pub payload: Vec<u8>,
}

/// The same, as they were read.
#[derive(Clone, Copy, Debug)]
pub struct RecordBytes<'a> {
    leaf: &'a [u8],
    payload: &'a [u8],
}

/// Encodes an event under its header, filling in the fields that follow from the
/// event: kind, schema, codec, scopes and payload hash.
pub fn encode_record(mut header: Header, event: &Event) -> Result<(StoredRecord, Record), DecodeError> {
    let payload = message::encode(event);
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(DecodeError::TooLarge {
            what: "payload",
            found: payload.len(),
            limit: PAYLOAD_BYTES_MAX,
        });
    }
    event.kind().clone_into(&mut header.kind);
    header.schema = Event::schema_of(event.kind());
    header.codec = CODEC_BINCODE;
    header.scopes = event.scopes();
    header.payload = Digest::of(&[&payload]);
    let leaf = header::encode(&header);
    if leaf.len() > HEADER_BYTES_MAX {
        return Err(DecodeError::TooLarge {
            what: "record header",
            found: leaf.len(),
            limit: HEADER_BYTES_MAX,
        });
    }
    Ok((StoredRecord { leaf, payload }, Record { header, event: event.clone() }))
}

pub(crate) fn decode_payload<T: DeserializeOwned>(payload: &[u8]) -> Result<T, DecodeError> {
    message::decode("payload", payload, PAYLOAD_BYTES_MAX)
}

impl<'a> From<&'a StoredRecord> for RecordBytes<'a> {
    fn from(StoredRecord { leaf, payload }: &'a StoredRecord) -> Self {
        Self { leaf, payload }
    }
}

impl<'a> RecordBytes<'a> {
    /// Header and payload hash: what is chained and proved.
    pub fn leaf(self) -> &'a [u8] {
        self.leaf
    }

    /// The event.
    pub fn payload(self) -> &'a [u8] {
        self.payload
    }

    /// Reads what [`StoredRecord::to_bytes`] wrote.
    pub fn read(bytes: &'a [u8]) -> Result<(Self, Chain), DecodeError> {
        let mut from = Reader::new("stored record", bytes);
        let record = Self { leaf: from.blob()?, payload: from.blob()? };
        let chain = Chain(Digest(from.array()?));
        from.end()?;
        Ok((record, chain))
    }

    /// The header alone, without the event.
    pub fn header(self) -> Result<Header, DecodeError> {
        header::decode(self.leaf)
    }

    /// What the record is about, and nothing else of it.
    pub fn headline(self) -> Result<Headline<'a>, DecodeError> {
        header::headline(self.leaf)
    }

    /// Decodes and checks that header and event belong together.
    pub fn decode(self) -> Result<Record, DecodeError> {
        let header = header::decode(self.leaf)?;
        let unknown = || DecodeError::Schema {
            seq: header.seq,
            kind: header.kind.clone(),
            schema: header.schema,
            codec: header.codec,
        };
        if header.codec != CODEC_BINCODE {
            return Err(unknown());
        }
        if Digest::of(&[self.payload]) != header.payload {
            return Err(DecodeError::Checksum("payload"));
        }
        let event = match earlier::decode(&header, self.payload) {
            Some(event) => event?,
            None if header.schema == Event::schema_of(&header.kind) => decode_payload(self.payload)?,
            None => return Err(unknown()),
        };
        if event.kind() != header.kind {
            return Err(DecodeError::Malformed {
                what: "record",
                why: format!("its header says {}, its payload is a {}", header.kind, event.kind()),
            });
        }
        Ok(Record { header, event })
    }
}

impl StoredRecord {
    /// The header alone, without the event.
    pub fn header(&self) -> Result<Header, DecodeError> {
        RecordBytes::from(self).header()
    }

    /// Decodes and checks that header and event belong together.
    pub fn decode(&self) -> Result<Record, DecodeError> {
        RecordBytes::from(self).decode()
    }

    /// The bytes a store keeps: both parts with their lengths, and the chain up to here.
    pub fn to_bytes(&self, chain: Chain) -> Vec<u8> {
        let mut out = Writer::with_capacity(self.written_bytes() + chain.0.0.len());
        self.write(&mut out);
        out.raw(&chain.0.0);
        out.0
    }

    /// Reads what [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<(Self, Chain), DecodeError> {
        let (RecordBytes { leaf, payload }, chain) = RecordBytes::read(bytes)?;
        Ok((Self { leaf: leaf.to_vec(), payload: payload.to_vec() }, chain))
    }

    /// How many bytes [`Self::write`] writes.
    pub(crate) fn written_bytes(&self) -> usize {
        2 * size_of::<u32>() + self.leaf.len() + self.payload.len()
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        out.blob(&self.leaf);
        out.blob(&self.payload);
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { leaf: from.blob()?.to_vec(), payload: from.blob()?.to_vec() })
    }
}
