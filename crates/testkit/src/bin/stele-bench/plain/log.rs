//! What a member keeps.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use rocksdb::{DB, Options, WriteBatch, WriteOptions};
use serde::Deserialize;
use serde_json::value::RawValue;
use stele_model::Digest;

use super::{Keeps, LENGTH_BYTES};

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

/// One member's.
pub(super) struct Log {
    file: File,
    records: Option<DB>,
    /// Records so far.
    pub(super) length: u64,
}

impl Log {
    pub(super) fn create(folder: &Path, keeps: Keeps) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let records = (keeps == Keeps::Records).then(|| {
            let mut options = Options::default();
            options.create_if_missing(true);
            DB::open(&options, folder.join("records"))
        });
        Ok(Self { file: File::create(folder.join("bytes"))?, records: records.transpose()?, length: 0 })
    }

    /// The records of a request, each with its length before it: what a follower gets.
    pub(super) fn framed(&self, request: &[u8], framed: &mut Vec<u8>) -> anyhow::Result<u64> {
        let mut frame = |record: &[u8]| {
            framed.extend_from_slice(&u32::try_from(record.len())?.to_be_bytes());
            framed.extend_from_slice(record);
            anyhow::Ok(())
        };
        if self.records.is_none() {
            frame(request)?;
            return Ok(1);
        }
        let batch: Batch<'_> = serde_json::from_slice(request).context("a request has commands")?;
        for command in &batch.commands {
            frame(command.body.get().as_bytes())?;
        }
        Ok(batch.commands.len() as u64)
    }

    /// Appends framed records and syncs them.
    pub(super) fn append(&mut self, framed: &[u8]) -> anyhow::Result<()> {
        let Some(records) = &self.records else {
            self.file.write_all(framed)?;
            self.file.sync_data()?;
            self.length += frames(framed).count() as u64;
            return Ok(());
        };
        let mut batch = WriteBatch::default();
        for record in frames(framed) {
            let digest = Digest::of(&[record]);
            self.length += 1;
            batch.put(self.length.to_be_bytes(), [digest.0.as_slice(), record].concat());
        }
        let mut options = WriteOptions::default();
        options.set_sync(true);
        Ok(records.write_opt(batch, &options)?)
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
