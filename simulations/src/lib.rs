//! A whole fleet in one thread: controllers, agents, clients, the network between them and
//! everything that goes wrong with it, under virtual time, from one seed.
//!
//! It owns the world, the faults it draws, and what must hold in it. The parts that decide
//! (consensus, ledger, planner, reconcile, codec, proof) are the product's own; the shells around
//! them are the thinnest equivalents, and `docs/simulation.md` says which. It must never read a
//! clock, start a thread, iterate what has no order, or draw a number from anywhere but its seed:
//! one seed is one run, bit for bit.
//!
//! ```
//! use stele_simulations::{Setup, run};
//!
//! let setup = Setup { minutes: 1, ..Setup::of(7) };
//! let first = run(&setup, &[]);
//! assert_eq!(first.violation, None);
//! assert_eq!(first.hash, run(&setup, &[]).hash);
//! ```

mod agent;
mod app;
mod client;
mod clock;
mod controller;
mod engine;
pub mod fault;
mod feed;
mod jetstream;
pub mod limits;
pub mod log_file;
mod oracle;
mod outbox;
mod past;
pub mod planted;
mod recovery;
pub mod rng;
mod rules;
mod run;
mod setup;
mod shrink;
mod trace;
mod wire;
mod world;

pub use oracle::Violation;
pub use run::{Finished, run, run_seed};
pub use setup::{Setup, is_huge};
pub use shrink::shrink;
pub use stele_planted::Bug;
