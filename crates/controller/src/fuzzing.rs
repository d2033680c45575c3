//! The private decoders of this crate, for tests of what arbitrary bytes do.

use serde::Serialize;
use serde::de::DeserializeOwned;
use stele_codec::{decode_message, encode_message};
use stele_model::{Request, Sealed};

use crate::forward::{MemberRequest, PeerAnswer, PeerRequest};
use crate::keyring::KeptKey;
use crate::proof::Mark;
use crate::registry::Credentials;

fn again<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<Vec<u8>> {
    decode_message::<T>(bytes).ok().map(|message| encode_message(&message))
}

/// A request of another controller, encoded again; none when it is refused.
pub fn peer_request(bytes: &[u8]) -> Option<Vec<u8>> {
    again::<PeerRequest>(bytes)
}

/// An answer of another controller, encoded again; none when it is refused.
pub fn peer_answer(bytes: &[u8]) -> Option<Vec<u8>> {
    again::<PeerAnswer>(bytes)
}

/// A data key as it is kept on disk, written again; none when it is refused.
pub fn kept_key(bytes: &[u8]) -> Option<Vec<u8>> {
    serde_json::to_vec(&serde_json::from_slice::<KeptKey>(bytes).ok()?).ok()
}

/// Whether a file of credentials for registries can be read.
pub fn credentials(text: &str) -> bool {
    Credentials::parse(text).is_ok()
}

/// How far the tree of proofs goes, as it is kept, written again; none when it is refused.
pub fn tree_mark(bytes: &[u8]) -> Option<Vec<u8>> {
    Mark::from_bytes(bytes).map(Mark::to_bytes)
}

/// Messages between controllers as they should be, each with its name.
pub fn messages(request: &Request, sealed: &Sealed) -> Vec<(String, Vec<u8>)> {
    let key = KeptKey { subject: sealed.subject.clone(), version: 1, sealed: sealed.clone() };
    let subject = || sealed.subject.clone();
    let requests = [
        ("submit", PeerRequest::Submit(Box::new(request.clone()))),
        ("records", PeerRequest::Records { from: 3, to: 300 }),
        ("key", PeerRequest::Key { subject: subject(), version: 1 }),
        ("keep-key", PeerRequest::KeepKey(key.clone())),
        ("ensure-key", PeerRequest::EnsureKey { subject: subject(), version: 2 }),
        ("member", PeerRequest::Member(MemberRequest::Add(4))),
        ("checkpoint", PeerRequest::Checkpoint),
    ];
    let answers = [
        ("a-records", PeerAnswer::Records(vec![(3, vec![1; 40]), (4, vec![2; 4])])),
        ("a-key", PeerAnswer::Key(Some(key))),
        ("a-failed", PeerAnswer::Failed("no".to_owned())),
        ("a-checkpoint", PeerAnswer::Checkpoint(Some("stele/acme\n".to_owned()))),
    ];
    let requests = requests.into_iter().map(|(name, message)| (name, encode_message(&message)));
    let answers = answers.into_iter().map(|(name, message)| (name, encode_message(&message)));
    requests.chain(answers).map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}
