//! Every bound of this crate, each with its unit.

use std::time::Duration;

/// Largest frame on the wire, in bytes: a snapshot of State of the largest size, with room for framing. Memory for one
/// is taken as it arrives.
pub const MAX_FRAME_BYTES: usize = (1024 + 1) * 1024 * 1024;

/// Largest frame before a peer has said who it is, in bytes.
pub const MAX_HELLO_BYTES: usize = 4096;

/// Raft messages larger than this travel on a connection of their own, so that
/// no snapshot delays a heartbeat; in bytes.
pub const MAX_RAFT_LANE_BYTES: usize = 2 * 1024 * 1024;

/// Frames waiting in one lane to one peer.
pub const MAX_QUEUED_FRAMES: usize = 1024;

/// Bytes waiting in one lane to one peer. One frame may exceed it when nothing
/// else waits.
pub const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;

/// Requests of one peer worked on at once.
pub const MAX_INFLIGHT_REQUESTS: usize = 512;

/// Connections accepted at once whose other side has not said yet who it is. A further one takes the place of another.
pub const MAX_UNKNOWN_CONNECTIONS: usize = 128;

/// Between two lines in the program's log that say that a connection did not identify itself.
pub const STRANGERS_TOLD_INTERVAL: Duration = Duration::from_secs(10);

/// Longest time a request may ask for.
pub const MAX_REQUEST_DEADLINE: Duration = Duration::from_mins(5);

/// Time for a connection to be made, and for its handshake.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Silence after which a connection is asked whether it lives.
pub const PING_INTERVAL: Duration = Duration::from_secs(1);

/// Silence, or a write without progress, after which a connection is given up.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(6);

/// Bytes read or written between two looks at the clock.
pub const IO_CHUNK_BYTES: usize = 256 * 1024;

/// First pause before connecting again.
pub const MIN_BACKOFF: Duration = Duration::from_millis(50);

/// Longest pause before connecting again.
pub const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// Answers waiting to be written to one peer.
pub const MAX_QUEUED_ANSWERS: usize = 64;

/// Longest fleet id, in bytes.
pub const MAX_FLEET_ID_BYTES: usize = 128;

/// Longest error message sent to a peer, in bytes.
pub const MAX_ERROR_BYTES: usize = 1024;
