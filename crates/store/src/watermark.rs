//! The proof of the last sync.
//!
//! A write-ahead log whose end is damaged looks like one whose end was never
//! written: its reader stops there and reports nothing. So the number of synced
//! writes is kept beside it too, written after each sync and never synced
//! itself. It cannot run ahead of the disk, and unless the host lost power in
//! between it is exact. A log that recovers fewer synced writes has lost some.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use stele_consensus::StoreError;
use stele_consensus::seal::{seal, unseal};

use crate::database::{Database, Family};
use crate::meta;

const FILE: &str = "SYNCED";
const BYTES: usize = 12;

pub(crate) struct Watermark {
    file: File,
    path: PathBuf,
}

impl Watermark {
    /// Opens it; answers the number of synced writes it proves.
    pub(crate) fn open(folder: &Path) -> Result<(Self, u64), StoreError> {
        let path = folder.join(FILE);
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = opened.map_err(|error| failed("opening", &path, &error))?;
        let proven = read(&file, &path)?;
        Ok((Self { file, path }, proven))
    }

    /// Notes that `count` writes were synced.
    pub(crate) fn advance(&self, count: u64) -> Result<(), StoreError> {
        let bytes = seal(FILE.as_bytes(), &count.to_be_bytes());
        self.file.write_all_at(&bytes, 0).map_err(|error| failed("writing", &self.path, &error))
    }
}

/// The number of synced writes that the one in a folder proves; none when there is none.
pub(crate) fn proven(folder: &Path) -> Result<u64, StoreError> {
    let path = folder.join(FILE);
    match File::open(&path) {
        Ok(file) => read(&file, &path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(failed("opening", &path, &error)),
    }
}

fn read(file: &File, path: &Path) -> Result<u64, StoreError> {
    let mut bytes = [0; BYTES];
    let proven = match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => unseal(FILE.as_bytes(), &bytes).and_then(|count| <[u8; 8]>::try_from(count).ok()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Some([0; 8]),
        Err(error) => return Err(failed("reading", path, &error)),
    };
    if proven.is_none() {
        // It proves nothing then; the log still has its own checksums.
        tracing::warn!(path = %path.display(), "the proof of the last sync is damaged");
    }
    Ok(u64::from_be_bytes(proven.unwrap_or_default()))
}

/// Refuses a store that has fewer synced writes than are proven.
pub(crate) fn check(database: &Database, proven: u64, remedy: &'static str) -> Result<u64, StoreError> {
    let synced = meta::number(database, meta::SYNCED)?;
    if synced < proven {
        let detail = format!("{proven} writes were synced, and only {synced} of them are there");
        return Err(StoreError::Corrupt {
            place: database.place(Family::Meta, meta::SYNCED),
            detail,
            remedy,
        });
    }
    Ok(synced)
}

fn failed(operation: &'static str, path: &Path, error: &io::Error) -> StoreError {
    StoreError::Io { operation, place: path.display().to_string(), detail: error.to_string() }
}
