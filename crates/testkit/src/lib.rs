//! A fleet of real processes for tests and the demo: controllers, agents and a NATS server,
//! killed, paused, wiped and started again at will.
//!
//! Owns starting them, talking to them, and leaving nothing behind: no process, container,
//! network, volume or folder, however the program that used it ended. It must never be linked
//! into anything that is shipped, and never reach into a process: it uses what a person could
//! use, the programs, the API and signals.
//!
//! ```no_run
//! use stele_testkit::{Cluster, ClusterConfig};
//!
//! # fn main() -> anyhow::Result<()> {
//! let mut cluster = Cluster::start(ClusterConfig::simulated("example"))?;
//! let leader = cluster.leader()?;
//! cluster.kill(leader)?;
//! println!("controller {} took over", cluster.leader()?);
//! # Ok(())
//! # }
//! ```

mod client;
mod clock;
mod cluster;
pub mod docker;
pub mod facts;
pub mod history;
pub mod limits;
pub mod load;
mod log;
mod member;
pub mod ports;
mod process;
mod programs;
mod waiting;

pub use client::{Answer, Client, Unanswered};
pub use clock::with_clock_off;
pub use cluster::{Cluster, ClusterConfig, Leftovers, NodeConfig, Runtime};
pub use log::{VerifiedLog, fetch_log};
pub use process::{Process, end_of, on_lasting_thread};
pub use programs::{Programs, registry};
pub use waiting::{Interrupted, eventually, interrupt, interrupted, pause};
