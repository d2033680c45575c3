//! Folding a log from its first record in a process that knows nothing else, and comparing
//! everything that was ever worked out from it.
//!
//! One thread reads, hashes and decodes, another folds. The first divergence ends it.

mod checks;
mod divergence;
mod engine;
mod replicas;
mod source;

pub(crate) use checks::Checks;
pub(crate) use divergence::Divergence;
pub(crate) use engine::{Replayed, replay};
pub(crate) use replicas::{Replica, ask_all, compare_at, members};
pub(crate) use source::{FromApi, FromStore, Source};
