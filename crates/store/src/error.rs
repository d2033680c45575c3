//! Why a store could not be opened or created.

use std::path::PathBuf;

use stele_consensus::StoreError;

/// Why a store could not be opened or created. Nothing was changed on disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing is there. An existing controller that finds nothing has lost its
    /// disk and must not go on under its id.
    #[error(
        "there is no store in {path}; if this controller ran before, its data is gone: remove it \
         from the cluster and add it again under a new id"
    )]
    Missing {
        /// The folder.
        path: PathBuf,
    },
    /// Something is there already.
    #[error("there is a store in {path} already; open it, or choose another folder")]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// The folder belongs to somebody else.
    #[error(
        "the store in {path} belongs to controller {found_node} of fleet {found_fleet}, \
         not to controller {node} of fleet {fleet}"
    )]
    Identity {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        found_fleet: String,
        /// Whose it is.
        found_node: u64,
        /// Who asked.
        fleet: String,
        /// Who asked.
        node: u64,
    },
    /// Written by another version.
    #[error("the store in {path} has format {found}, this version reads format {supported}")]
    Format {
        /// The folder.
        path: PathBuf,
        /// Format on disk.
        found: u32,
        /// Format of this version.
        supported: u32,
    },
    /// Another process has it open.
    #[error("the store in {path} is in use by another process: {detail}")]
    Locked {
        /// The folder.
        path: PathBuf,
        /// `RocksDB`'s words.
        detail: String,
    },
    /// A fleet id that cannot be stored.
    #[error("a fleet id has 1 to {limit} bytes and a controller id is at least 1")]
    InvalidIdentity {
        /// See [`MAX_FLEET_ID_BYTES`](crate::limits::MAX_FLEET_ID_BYTES).
        limit: usize,
    },
    /// The machine cannot run what `RocksDB` was compiled to.
    #[error(
        "this processor lacks {lacks}, which x86-64 servers have since 2011: use another machine, or let the \
         virtual one have it (such as `-cpu host`)"
    )]
    Processor {
        /// The instructions' name, as in `/proc/cpuinfo`.
        lacks: &'static str,
    },
    /// The disk, or damaged data.
    #[error(transparent)]
    Store(#[from] StoreError),
}
