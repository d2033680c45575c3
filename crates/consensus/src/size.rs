//! Answers to raft's reads that every store gives alike.

use prost::Message as _;
use raft::eraftpb::Entry;
use raft::{Error as RaftError, GetEntriesContext, StorageError};

/// Takes entries while they fit into `max_bytes`, at least one.
pub fn within_size(entries: impl IntoIterator<Item = Entry>, max_bytes: Option<u64>) -> Vec<Entry> {
    let limit = max_bytes.unwrap_or(u64::MAX);
    let mut taken = Vec::new();
    let mut bytes = 0u64;
    for entry in entries {
        bytes = bytes.saturating_add(entry.encoded_len() as u64);
        if !taken.is_empty() && bytes > limit {
            break;
        }
        taken.push(entry);
    }
    taken
}

/// What to answer when entries cannot be read. Raft would turn `Unavailable`
/// into a panic and any other error into a snapshot; these two answers make it
/// do nothing, and the driver, which looks for a fault after every step, stops.
pub fn unreadable(context: &GetEntriesContext) -> raft::Result<Vec<Entry>> {
    if context.can_async() {
        Err(RaftError::Store(StorageError::LogTemporarilyUnavailable))
    } else {
        Ok(Vec::new())
    }
}
