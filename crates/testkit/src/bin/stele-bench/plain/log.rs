//! What a member keeps.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use anyhow::Context as _;
use rocksdb::{DB, DBCompactionStyle, FifoCompactOptions, Options, WriteBatch, WriteOptions};
use serde::Deserialize;
use serde_json::value::RawValue;
use stele_model::Digest;

use super::{Keeps, LENGTH_BYTES};

/// Bytes of the file, which is written before and from its beginning again when it is full: a file that grows
/// takes longer to sync.
const FILE_BYTES: usize = 64 * 1024 * 1024;
/// Bytes that RocksDB keeps, about: what is older goes.
const RECORDS_BYTES: u64 = 512 * 1024 * 1024;

/// A request of many commands, as far as it is read here.
#[derive(Deserialize)]
struct Batch<'a> {
    #[serde(borrow)]
    commands: Vec<Command<'a>>,
}

#[derive(Deserialize)]
struct Command<'a> {
    #[serde(borrow)]
    body: &'a RawValue,
}

impl Keeps {
    /// The records of a request, each with its length before it: what is appended, here and on followers.
    pub(super) fn framed(self, request: &[u8], framed: &mut Vec<u8>) -> anyhow::Result<u64> {
        let mut frame = |record: &[u8]| {
            framed.extend_from_slice(&u32::try_from(record.len())?.to_be_bytes());
            framed.extend_from_slice(record);
            anyhow::Ok(())
        };
        if self == Self::Bytes {
            frame(request)?;
            return Ok(1);
        }
        let batch: Batch<'_> = serde_json::from_slice(request).context("a request has commands")?;
        for command in &batch.commands {
            frame(command.body.get().as_bytes())?;
        }
        Ok(batch.commands.len() as u64)
    }
}

/// Where it is kept.
enum Place {
    File { file: File, at: usize },
    Records(DB),
}

/// One member's.
pub(super) struct Log {
    place: Place,
    /// Records so far.
    pub(super) length: u64,
}

impl Log {
    pub(super) fn create(folder: &Path, keeps: Keeps) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let place = match keeps {
            Keeps::Bytes => {
                let path = folder.join("bytes");
                // Written, not only promised: blocks never written cost another sync of the file system.
                std::fs::write(&path, vec![0; FILE_BYTES])?;
                let file = File::options().write(true).open(&path)?;
                file.sync_all()?;
                Place::File { file, at: 0 }
            }
            Keeps::Records => {
                let mut options = Options::default();
                options.create_if_missing(true);
                let mut fifo = FifoCompactOptions::default();
                fifo.set_max_table_files_size(RECORDS_BYTES);
                options.set_compaction_style(DBCompactionStyle::Fifo);
                options.set_fifo_compaction_options(&fifo);
                Place::Records(DB::open(&options, folder.join("records"))?)
            }
        };
        Ok(Self { place, length: 0 })
    }

    pub(super) fn keeps(&self) -> Keeps {
        match self.place {
            Place::File { .. } => Keeps::Bytes,
            Place::Records(_) => Keeps::Records,
        }
    }

    /// Appends framed records and syncs them.
    pub(super) fn append(&mut self, framed: &[u8]) -> anyhow::Result<()> {
        let length = &mut self.length;
        match &mut self.place {
            Place::File { file, at } => {
                if *at + framed.len() > FILE_BYTES {
                    file.seek(SeekFrom::Start(0))?;
                    *at = 0;
                }
                *at += framed.len();
                file.write_all(framed)?;
                file.sync_data()?;
                *length += frames(framed).count() as u64;
            }
            Place::Records(records) => {
                let mut batch = WriteBatch::default();
                for record in frames(framed) {
                    let digest = Digest::of(&[record]);
                    *length += 1;
                    batch.put(length.to_be_bytes(), [digest.0.as_slice(), record].concat());
                }
                let mut options = WriteOptions::default();
                options.set_sync(true);
                records.write_opt(batch, &options)?;
            }
        }
        Ok(())
    }
}

/// The bytes that are complete records, from the beginning.
pub(super) fn complete(bytes: &[u8]) -> usize {
    frames(bytes).map(|record| LENGTH_BYTES + record.len()).sum()
}

fn frames(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
        let (record, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        bytes = rest;
        Some(record)
    })
}
