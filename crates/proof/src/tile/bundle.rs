//! Bundles of entries: each a big-endian length of two bytes, then so many bytes.

use crate::error::ProofError;
use crate::limits::ENTRY_BYTES_MAX;

/// Appends an entry to a bundle.
pub fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> Result<(), ProofError> {
    let length = u16::try_from(entry.len()).map_err(|_| ProofError::Tile {
        what: "an entry".to_owned(),
        why: format!("it has {} bytes; the limit is {ENTRY_BYTES_MAX}", entry.len()),
    })?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
    Ok(())
}

/// The entries of a bundle that holds exactly `width` of them.
pub fn read_entries(mut bundle: &[u8], width: u16) -> Result<Vec<&[u8]>, ProofError> {
    let malformed = |why: String| ProofError::Tile { what: "the bundle".to_owned(), why };
    let mut entries = Vec::with_capacity(usize::from(width));
    for at in 0..width {
        let ends = || malformed(format!("it ends inside entry {at} of {width}"));
        let (length, rest) = bundle.split_first_chunk().ok_or_else(ends)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (entry, rest) = rest.split_at_checked(length).ok_or_else(ends)?;
        entries.push(entry);
        bundle = rest;
    }
    match bundle.len() {
        0 => Ok(entries),
        left => Err(malformed(format!("{left} bytes follow its {width} entries"))),
    }
}
