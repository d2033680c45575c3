//! How much room is left.

use std::path::Path;

use stele_consensus::StoreError;

/// Bytes this process may still write on the file system of `path`.
pub(crate) fn free_bytes(path: &Path) -> Result<u64, StoreError> {
    let stat = nix::sys::statvfs::statvfs(path).map_err(|error| StoreError::Io {
        operation: "asking for free space",
        place: path.display().to_string(),
        detail: error.to_string(),
    })?;
    Ok(stat.blocks_available() * stat.fragment_size())
}

/// Refuses while refusing is still clean: before anything is written.
pub(crate) fn check_room(path: &Path, bytes: u64, reserve: u64) -> Result<(), StoreError> {
    let free_bytes = free_bytes(path)?;
    // Twice: once for the write-ahead log, once for the table it becomes.
    let needed_bytes = bytes.saturating_mul(2).saturating_add(reserve);
    if free_bytes < needed_bytes {
        return Err(StoreError::DiskFull { path: path.display().to_string(), free_bytes, needed_bytes });
    }
    Ok(())
}
