//! The transport between controllers: raft messages, and requests with answers,
//! over mutual TLS under the fleet's own certificate authority.
//!
//! Owns the connections, their queues and their certificates. Raft messages may
//! be lost; requests end with an answer or an error that says whether they may
//! have been carried out. Bytes are opaque here.
//!
//! It must never let an unauthenticated controller in, wait for a slow peer
//! while sending, or keep more in memory than its limits say.
//!
//! # Example
//!
//! ```
//! use stele_peer::{Tls, ca::Authority};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let authority = Authority::create("demo")?;
//! let issued = authority.issue(1, &[])?;
//! let tls = Tls::from_pem(authority.certificate_pem(), &issued.certificate_pem, &issued.key_pem)?;
//! # let _ = tls;
//! # Ok(())
//! # }
//! ```

pub mod ca;
mod error;
mod frame;
mod handler;
mod inbound;
pub mod limits;
mod link;
mod peers;
mod places;
mod task;
mod tls;

pub use error::{RequestError, RequestFailure, SendError, StartError};
#[doc(hidden)]
pub use frame::reread_frames;
pub use handler::{Answering, Handler};
pub use inbound::Members;
pub use peers::{PeerConfig, PeerStatus, Peers};
pub use places::Places;
pub use tls::{Tls, TlsError, controller_name};
