//! What can go wrong between controllers.

use std::net::SocketAddr;

use crate::tls::TlsError;

/// Why the transport could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken, or not one of this host.
    #[error("cannot listen for other controllers on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// See [`TlsError`].
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Ids start at 1, fleet ids have bounds.
    #[error("a controller id is at least 1 and a fleet id has 1 to {0} bytes (MAX_FLEET_ID_BYTES)")]
    Identity(usize),
}

/// Why a raft message was dropped. Raft repeats what matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No such member.
    #[error("controller {0} is not a member")]
    Unknown(u64),
    /// Too much is waiting already.
    #[error("too much waits to be sent to controller {0}")]
    Full(u64),
    /// More than [`MAX_FRAME_BYTES`](crate::limits::MAX_FRAME_BYTES).
    #[error("a message of {bytes} bytes exceeds the limit of {limit} (MAX_FRAME_BYTES)")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It was not sent.
    #[error(transparent)]
    NotSent(#[from] SendError),
    /// It was not sent: there is no connection.
    #[error("controller {0} cannot be reached")]
    Unreachable(u64),
    /// It was not begun: the other side is at its limit.
    #[error("controller {0} is busy; try again")]
    Busy(u64),
    /// The other side refused or failed to do it.
    #[error("controller {peer} answered: {message}")]
    Failed {
        /// The peer.
        peer: u64,
        /// Its words.
        message: String,
    },
    /// The connection broke. Whether it was done is unknown.
    #[error("the connection to controller {0} broke; whether the request was carried out is unknown")]
    Lost(u64),
    /// Time ran out. Whether it was done is unknown.
    #[error("controller {0} did not answer in time; whether the request was carried out is unknown")]
    TimedOut(u64),
}

impl RequestError {
    /// Whether the request certainly had no effect, so that it may be sent
    /// elsewhere without an idempotency key.
    pub fn had_no_effect(&self) -> bool {
        matches!(self, Self::NotSent(_) | Self::Unreachable(_) | Self::Busy(_))
    }
}

/// Why this side does not answer a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestFailure {
    /// Not begun; try again.
    Busy,
    /// Refused or failed, with the reason.
    Failed(String),
}
