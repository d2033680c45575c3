//! Destroying the data keys that the log says are destroyed.

use crate::forward::{PeerAnswer, PeerRequest};
use crate::handle::Handle;
use crate::limits::{ERASURE_RETRY_INTERVAL, PEER_REQUEST_DEADLINE};

/// Destroys this controller's copies, also those that were there when it began.
pub(crate) async fn run(handle: Handle) {
    let mut published = handle.follow();
    let mut done = None;
    loop {
        let erased = published.borrow_and_update().state.control.erased.clone();
        let is_new = !done.as_ref().is_some_and(|done| erased.ptr_eq(done));
        if is_new && erased.iter().all(|(subject, through)| destroy(&handle, subject, *through)) {
            done = Some(erased);
        } else if is_new {
            tokio::time::sleep(ERASURE_RETRY_INTERVAL).await;
            continue;
        }
        if published.changed().await.is_err() {
            return;
        }
    }
}

fn destroy(handle: &Handle, subject: &str, through: u32) -> bool {
    let destroyed = handle.keyring().destroy(subject, through);
    if let Err(error) = &destroyed {
        tracing::error!(%error, "a data key could not be destroyed, which is tried again");
    }
    destroyed.is_ok()
}

impl Handle {
    /// Controllers that may still have a key: they say so, or do not answer.
    pub(crate) async fn keepers_of(&self, subject: &str, version: u32) -> Vec<u64> {
        let mut keepers = Vec::new();
        // Values are sealed under it: somebody had it who is away, and a backup may bring it back.
        let is_owed = || {
            let state = self.published().state;
            version >= state.key_version(subject) && state.has_sealed(subject, version)
        };
        if !matches!(self.keyring().kept(subject, version), Ok(None)) || is_owed() {
            keepers.push(self.id());
        }
        for peer in self.other_controllers() {
            let request = PeerRequest::Key { subject: subject.to_owned(), version };
            let answer = self.ask_peer(peer, &request, PEER_REQUEST_DEADLINE).await;
            if !matches!(answer, Ok(PeerAnswer::Key(None))) {
                keepers.push(peer);
            }
        }
        keepers.sort_unstable();
        keepers
    }
}
