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
        let mut bytes = [0; BYTES];
        let proven = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => unseal(FILE.as_bytes(), &bytes).and_then(|count| <[u8; 8]>::try_from(count).ok()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Some([0; 8]),
            Err(error) => return Err(failed("reading", &path, &error)),
        };
        if proven.is_none() {
            // It proves nothing then; the log still has its own checksums.
            tracing::warn!(path = %path.display(), "the proof of the last sync is damaged");
        }
        Ok((Self { file, path }, u64::from_be_bytes(proven.unwrap_or_default())))
    }

    /// Notes that `count` writes were synced.
    pub(crate) fn advance(&self, count: u64) -> Result<(), StoreError> {
        let bytes = seal(FILE.as_bytes(), &count.to_be_bytes());
        self.file.write_all_at(&bytes, 0).map_err(|error| failed("writing", &self.path, &error))
    }
}

fn failed(operation: &'static str, path: &Path, error: &io::Error) -> StoreError {
    StoreError::Io { operation, place: path.display().to_string(), detail: error.to_string() }
}
