//! The bytes of records, entries and snapshots, and their verification.
//!
//! Owns every byte that is hashed or kept: headers are laid out by hand, payloads
//! are bincode 2 under one fixed configuration, written by bincode and read here. It must never re-encode stored
//! bytes in order to hash them, and never let another crate name bincode.
//! `docs/log-format.md` specifies it all for a stranger.
//!
//! ```
//! # use stele_codec::{Entry, Chain};
//! let entry = Entry { fleet: "demo".into(), term: 1, first: 1, previous: Chain::GENESIS, records: vec![] };
//! assert_eq!(Entry::decode(&entry.encode()).unwrap(), entry);
//! ```

mod bincode_reader;
mod bytes;
mod delta;
mod earlier;
mod entry;
mod error;
mod header;
pub mod limits;
mod message;
mod parts;
mod progress;
mod record;
mod snapshot;
mod target;
mod verify;

pub use delta::{DELTA_FORMAT, decode_answers, encode_answers};
pub use entry::Entry;
pub use error::DecodeError;
pub use message::{decode_message, encode_message};
pub use progress::{ProgressBytes, decode_progress, encode_progress};
pub use record::{Chain, RecordBytes, StoredRecord, encode_record};
pub use snapshot::Snapshot;
pub use target::{TargetBytes, decode_target, encode_target};
pub use verify::{Folder, Linker, Verifier, VerifyError};
