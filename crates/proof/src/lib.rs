//! The Merkle tree over the log's records, and what is signed and proved by it.
//!
//! Owns hashing as in RFC 6962, inclusion and consistency proofs as in RFC 9162, and
//! three formats of C2SP: tiles, signed notes and checkpoints. It must never fetch
//! anything: hashes come in through [`merkle::Hashes`], bytes go in and out.
//! `docs/log-format.md` specifies it all for a stranger.
//!
//! ```
//! use stele_proof::merkle::{Tree, inclusion_proof, leaf_hash, verify_inclusion};
//!
//! let tree: Tree = [&b"first"[..], b"second", b"third"].into_iter().map(leaf_hash).collect();
//! let proof = inclusion_proof(&tree, 1, 3)?;
//! verify_inclusion(leaf_hash(b"second"), 1, 3, &proof, tree.root())?;
//! # Ok::<(), stele_proof::ProofError>(())
//! ```

pub mod checkpoint;
mod error;
pub mod limits;
pub mod merkle;
pub mod note;
pub mod pack;
pub mod tile;

pub use checkpoint::{Checkpoint, SignedCheckpoint};
pub use error::{NoteError, ProofError};
pub use note::{Note, VerifierKey};
