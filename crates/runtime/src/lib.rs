//! The port to the container engine, and what stands behind it: Docker (or Podman's
//! Docker-compatible socket) through bollard, and a simulated engine in memory.
//!
//! It owns the [`Runtime`] port, [`docker::Docker`], [`simulated::Simulated`], and the
//! [`Reconciler`] that lets `stele-reconcile` decide and carries its decisions out.
//!
//! It must never decide what should run, keep anything on disk, or touch a container,
//! network or volume without this fleet's and node's labels: several agents share one engine.
//!
//! ```
//! use std::sync::Arc;
//! use stele_runtime::{Reconciler, ReconcilerConfig, simulated::Simulated};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let mut reconciler = Reconciler::new(Arc::new(Simulated::default()), ReconcilerConfig::default());
//! reconciler.set_desired(Vec::new());
//! assert!(reconciler.step().await.reports.is_empty());
//! # });
//! ```

pub mod docker;
pub mod host;
mod inspect;
pub mod limits;
mod probe;
mod reconciler;
pub mod registry;
mod request;
mod runtime;
pub mod simulated;

pub use host::Host;
pub use reconciler::{PullRecord, Reconciler, ReconcilerConfig, StepResult};
#[doc(hidden)]
pub use request::checked_body;
pub use runtime::{Change, LogLine, LogRequest, LogStream, Runtime, RuntimeError};
