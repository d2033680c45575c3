//! The wire between controllers and agents: NATS subjects, assignments, reports,
//! heartbeats, sync, questions to nodes, and the public event feed on JetStream.
//!
//! It owns how bytes travel: subjects, sizes, timeouts, reconnects, resending the
//! feed. It must never decide whether a message is true: every message is a
//! [`stele_model::wire::Signed`] that the receiver verifies, because anything on
//! NATS may be lost, repeated, reordered or forged. Nothing is kept on NATS that
//! cannot be made again from the log.
//!
//! ```no_run
//! # async fn example() -> Result<(), stele_bus::Error> {
//! use stele_bus::{Auth, BusConfig, ControllerBus, Audience};
//!
//! let bus = ControllerBus::connect(BusConfig {
//!     urls: vec!["nats://127.0.0.1:4222".to_owned()],
//!     auth: Auth::None,
//!     root_ca: None,
//!     fleet: "acme".parse().expect("a label"),
//!     name: "controller 1".to_owned(),
//! })
//! .await?;
//! let mut reports = bus.reports(Audience::One).await?;
//! while let Some(report) = reports.next().await {
//!     match report {
//!         Ok((report, _ack)) => println!("{} said {}", report.node, report.signed.body),
//!         Err(error) => eprintln!("ignored: {error}"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod agent;
pub mod ask;
mod connection;
mod controller;
mod error;
pub mod feed;
pub mod join;
pub mod limits;
mod message;
pub mod purposes;
pub mod sealing;
pub mod server;
pub mod subjects;

pub use agent::{AgentBus, AgentEvent, AgentInbox};
pub use connection::{Auth, BusConfig, Connection};
pub use controller::{Ack, Audience, ControllerBus, FromNode, Heartbeats, Reports, SyncReply, SyncRequests};
pub use error::Error;
pub use feed::{Feed, FeedRecord, FeedSource, SourceError};
pub use message::AnswerTo;
