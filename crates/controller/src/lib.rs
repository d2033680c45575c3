//! A controller: composition of consensus, store, peers, bus and API.
//!
//! Owns the wiring, the replica's thread and the tasks around it. It must never
//! decide anything itself: decisions are made in `model`, ordered in `consensus`,
//! and planned in `planner`.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use stele_controller::{Config, start};
//!
//! let config = Config::read("controller-1/controller.json".as_ref())?;
//! let running = start(config).await?;
//! println!("API at {}", running.api);
//! running.run_until(std::future::pending()).await?;
//! # Ok(())
//! # }
//! ```

mod app;
mod archive;
mod asking;
mod backfill;
mod cluster;
mod config;
mod digested;
mod disk_space;
mod erasure;
mod feed;
mod forgotten;
mod forward;
pub mod found;
#[doc(hidden)]
pub mod fuzzing;
mod handle;
mod history;
pub mod http;
mod identity;
mod inbox;
mod join;
mod keepalive;
mod key_copies;
mod keyring;
pub mod limits;
mod memory;
pub mod milestones;
mod mirror;
pub mod new_admin;
mod node_threads;
mod opening;
mod outbox;
mod own_files;
mod pace;
mod past;
mod proof;
mod reached;
pub mod recover;
mod registry;
mod removed;
pub mod renew;
mod replica;
mod request_keys;
mod retention;
mod scrub;
mod secrets;
mod serving;
mod sizes;
#[cfg(test)]
mod small_fleet;
mod snapshots;
mod start;
mod statements;
mod tls;
mod waiter;
mod when;

pub use app::Published;
pub use cluster::{ClusterStatus, Member};
pub use config::Config;
pub use handle::{Consistency, Handle, ReadError, SubmitError};
pub use identity::Identity;
pub use join::EnrollError;
pub use keyring::KeyringError;
pub use past::PastError;
pub use proof::TreeError;
pub use registry::ResolveError;
pub use start::{Running, start};
pub use when::wall_time;
