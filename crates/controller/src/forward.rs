//! What controllers ask each other, and the answers.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stele_codec::{decode_message, encode_message};
use stele_model::{Answer, ControllerId, Rejection, Request, Seq};
use stele_peer::{Answering, Handler, RequestFailure};
use tokio::sync::OnceCell;

use crate::handle::Handle;
use crate::history::History;
use crate::keyring::KeptKey;
use crate::limits::RECORDS_PER_READ_BYTES;
use crate::replica::Input;

/// Asked by one controller of another.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum PeerRequest {
    /// Decide this, if you lead.
    Submit(Box<Request>),
    /// Records of this range, as many as fit.
    Records { from: Seq, to: Seq },
    /// A data key, if you have it.
    Key { subject: String, version: u32 },
    /// Keep this data key.
    KeepKey(KeptKey),
    /// Make sure this subject has a data key of this version, if you lead.
    EnsureKey { subject: String, version: u32 },
    /// Change the members, if you lead.
    Member(MemberRequest),
    /// The newest checkpoint you signed, as a note.
    Checkpoint,
    /// Which records you have.
    History,
    /// Your data keys after this one, as many as fit.
    Keys { after: Option<String> },
    /// Keep every data key that I have.
    FetchKeys,
}

/// A change of members.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum MemberRequest {
    Add(ControllerId),
    Remove(ControllerId),
    Transfer(ControllerId),
    /// Also one that may be the last which has records.
    RemoveAnyway(ControllerId),
}

/// The answer to a [`PeerRequest`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum PeerAnswer {
    Done(Answer),
    Rejected(Rejection),
    Unknown,
    NotLeader,
    Busy,
    Records(Vec<(Seq, Vec<u8>)>),
    Key(Option<KeptKey>),
    Failed(String),
    Ok,
    Checkpoint(Option<String>),
    History(History),
    Keys { kept: Vec<KeptKey>, next: Option<String> },
}

/// Takes what other controllers send.
pub(crate) struct Inbox {
    pub(crate) inputs: SyncSender<Input>,
    /// Filled once everything is wired; until then there is nothing to answer with.
    pub(crate) handle: Arc<OnceCell<Handle>>,
}

impl Handler for Inbox {
    fn raft(&self, from: u64, message: Vec<u8>) {
        // Raft repeats what is dropped when there is no room.
        if let Err(TrySendError::Disconnected(_)) = self.inputs.try_send(Input::Raft(from, message)) {
            tracing::debug!(from, "a raft message came while stopping");
        }
    }

    fn request(&self, from: u64, request: Vec<u8>) -> Answering<'_> {
        Box::pin(async move {
            let Some(handle) = self.handle.get() else { return Err(RequestFailure::Busy) };
            let request = decode_message::<PeerRequest>(&request)
                .map_err(|error| RequestFailure::Failed(error.to_string()))?;
            let answer = handle.answer_peer(from, request).await;
            Ok(encode_message(&answer))
        })
    }

    fn unreachable(&self, peer: u64) {
        // Only a hint: it may be dropped.
        let _ = self.inputs.try_send(Input::Unreachable(peer));
    }
}

impl Handle {
    pub(crate) async fn ask_peer(
        &self,
        to: ControllerId,
        request: &PeerRequest,
        within: Duration,
    ) -> Result<PeerAnswer, stele_peer::RequestError> {
        let answer = self.peers().request(to, encode_message(request), within).await?;
        // A peer that speaks otherwise is of another version; its words are no answer.
        Ok(decode_message(&answer).unwrap_or_else(|error| PeerAnswer::Failed(error.to_string())))
    }

    async fn answer_peer(&self, from: u64, request: PeerRequest) -> PeerAnswer {
        match request {
            PeerRequest::Submit(request) => self.submit_here(Arc::from(request)).await.into(),
            PeerRequest::Records { from, to } => {
                match self.reader().records(from..=to, RECORDS_PER_READ_BYTES) {
                    Ok(records) => PeerAnswer::Records(records),
                    Err(error) => PeerAnswer::Failed(error.to_string()),
                }
            }
            PeerRequest::Key { subject, version } => match self.keyring().kept(&subject, version) {
                Ok(key) => PeerAnswer::Key(key),
                Err(error) => PeerAnswer::Failed(error.to_string()),
            },
            PeerRequest::KeepKey(key) => match self.keyring().keep(&key) {
                Ok(()) => PeerAnswer::Ok,
                Err(error) => PeerAnswer::Failed(error.to_string()),
            },
            PeerRequest::EnsureKey { subject, version } => {
                if !self.published().leads {
                    return PeerAnswer::NotLeader;
                }
                match self.ensure_key_here(&subject, version).await {
                    Ok(()) => PeerAnswer::Ok,
                    Err(error) => PeerAnswer::Failed(error.to_string()),
                }
            }
            PeerRequest::Checkpoint => {
                PeerAnswer::Checkpoint(self.proofs().checkpoint().map(|signed| signed.to_string()))
            }
            PeerRequest::Keys { after } => self.keys_page(after).await,
            PeerRequest::FetchKeys => match self.fetch_keys(from).await {
                Ok(()) => PeerAnswer::Ok,
                Err(error) => PeerAnswer::Failed(format!("{error:#}")),
            },
            PeerRequest::History => PeerAnswer::History(self.history()),
            PeerRequest::Member(request) => {
                tracing::info!(from, ?request, "asked to change the members");
                self.change_members_here(request).await
            }
        }
    }
}
