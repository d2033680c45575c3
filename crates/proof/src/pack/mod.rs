//! Evidence packs: one file that proves a part of the log to whoever has only the fleet's root key.
//!
//! A pack holds every leaf of a range, the payloads of what touches a scope, and the
//! few hashes of the tree that are needed to rebuild the roots of signed checkpoints
//! from exactly those leaves. So nothing of the range can be left out, added, changed
//! or moved, and no payload of the scope can be kept back. Building and verifying
//! take bytes and give bytes: nothing is fetched, and no clock is read.

mod build;
mod error;
mod keys;
mod layout;
mod report;
mod scope;
mod verify;
mod walk;

pub use build::{Contents, build};
pub use error::{PackError, Section};
pub use scope::{Regions, touches};
pub use verify::{CheckpointSeen, NotDecoded, Trust, Verified, Witnessed, verify};
pub use walk::{Walk, piece};
