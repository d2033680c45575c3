//! What arrives from other controllers.

use std::pin::Pin;

use crate::error::RequestFailure;

/// The answer to a request, once it is there.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, RequestFailure>> + Send + 'a>>;

/// What arrives from other controllers, each of them authenticated.
pub trait Handler: Send + Sync + 'static {
    /// A raft message. Must not block: drop it when there is no room.
    fn raft(&self, from: u64, message: Vec<u8>);

    /// A request. Dropped half-way when its time runs out or its sender goes.
    fn request(&self, from: u64, request: Vec<u8>) -> Answering<'_>;

    /// Raft messages to a peer were lost: its connection broke or failed to be
    /// made. Raft should probe it rather than send ahead.
    fn unreachable(&self, peer: u64);
}
