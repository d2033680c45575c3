//! The durable side of a controller: raft's log, the records, and what is
//! derived from them, in one `RocksDB`.
//!
//! Owns the layout on disk, the checksums around every value, the rule that
//! records are written once and never trimmed, and the refusal to go on with a
//! disk that is full, broken or damaged. What it stores is opaque to it.
//!
//! It must never swallow an error of the disk, answer a failed read as if
//! nothing were there, or let raft's compaction touch a record.
//!
//! # Example
//!
//! ```
//! use stele_consensus::{LogStore, WriteBatch, bootstrap};
//! use stele_store::{Identity, Settings, Store};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let identity = Identity { fleet: "demo".to_owned(), node: 1 };
//! let mut store = Store::create(folder.path(), &identity, &Settings::default())?;
//! bootstrap(&mut store, &[1], b"genesis".to_vec())?;
//! store.write(WriteBatch {
//!     records: vec![(1, b"first".to_vec())],
//!     sync: true,
//!     ..WriteBatch::default()
//! })?;
//! drop(store);
//!
//! let store = Store::open(folder.path(), &identity, &Settings::default())?;
//! assert_eq!(store.reader().record(1)?, Some(b"first".to_vec()));
//! # Ok(())
//! # }
//! ```

mod database;
mod disk;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod inspect;
pub mod limits;
mod meta;
mod processor;
mod reader;
mod recent;
mod snapshots;
mod store;
mod verify;
mod watermark;

pub use disk::Space;
pub use error::OpenError;
pub use inspect::open_read_only;
pub use meta::SnapshotInfo;
pub use reader::{Pairs, Reader, Records};
pub use stele_consensus::StoreError;
pub use store::{Identity, Settings, Store};
pub use verify::Verified;
