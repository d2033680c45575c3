//! How much room is left.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::fstatvfs;
use stele_consensus::StoreError;

/// Room on the file system of a store, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What this process may still write.
    pub free_bytes: u64,
    /// All of it.
    pub total_bytes: u64,
}

/// Where a store is. Its folder is held open: whoever is about to write asks how much room there is, and to look for
/// the folder by its path takes twice as long as to ask.
pub(crate) struct Disk {
    path: PathBuf,
    open: File,
    reserve_bytes: u64,
}

impl Disk {
    pub(crate) fn open(path: &Path, reserve_bytes: u64) -> Result<Self, StoreError> {
        let open = File::open(path).map_err(|error| StoreError::Io {
            operation: "opening the folder",
            place: path.display().to_string(),
            detail: error.to_string(),
        })?;
        Ok(Self { path: path.to_owned(), open, reserve_bytes })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How much room its file system has.
    pub(crate) fn space(&self) -> Result<Space, StoreError> {
        let stat = fstatvfs(&self.open).map_err(|error| StoreError::Io {
            operation: "asking for free space",
            place: self.path.display().to_string(),
            detail: error.to_string(),
        })?;
        let unit = stat.fragment_size();
        Ok(Space { free_bytes: stat.blocks_available() * unit, total_bytes: stat.blocks() * unit })
    }

    /// Bytes this process may still write on its file system.
    pub(crate) fn free_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.space()?.free_bytes)
    }

    /// Refuses while refusing is still clean: before anything is written.
    pub(crate) fn check_room(&self, bytes: u64) -> Result<(), StoreError> {
        let free_bytes = self.free_bytes()?;
        // Twice: once for the write-ahead log, once for the table it becomes.
        let needed_bytes = bytes.saturating_mul(2).saturating_add(self.reserve_bytes);
        if free_bytes < needed_bytes {
            let path = self.path.display().to_string();
            return Err(StoreError::DiskFull { path, free_bytes, needed_bytes });
        }
        Ok(())
    }
}
