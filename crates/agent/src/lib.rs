//! The agent: one per host. It makes the host's containers what its last verified
//! assignment says, and tells the controllers what it sees.
//!
//! It owns the node's secret keys, the last verified assignment on disk, and the loop that
//! moves messages between NATS, the rules in `stele-reconcile` and the container engine. It
//! must never believe an unverified message, act on an assignment that is not on disk yet,
//! or stop a container because a controller or NATS is away. Sealed values are opened in
//! memory alone, just before the container engine gets them.
//!
//! ```no_run
//! use stele_agent::{AgentConfig, DataDir};
//!
//! # async fn example() -> Result<(), stele_agent::Error> {
//! // After `stele-agent join` has enrolled the node:
//! let config = AgentConfig::new(DataDir::new("/var/lib/stele-agent"));
//! stele_agent::run(config, std::future::pending()).await
//! # }
//! ```

mod agent;
mod asked;
mod boot;
pub mod cli;
mod clock;
mod data_dir;
mod desired;
mod engine;
mod error;
pub mod identity;
mod images;
mod join;
pub mod limits;
mod schedule;
mod status;

pub use agent::{Home, run, run_with};
pub use data_dir::{DataDir, Lock};
pub use desired::{Desired, Received, open_values};
pub use engine::AgentConfig;
pub use error::Error;
pub use images::Pruning;
pub use join::{JoinOptions, join};
pub use status::status;
