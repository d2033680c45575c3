//! Sealing values, and handing data keys to the nodes that need them.

use std::collections::BTreeSet;

use stele_bus::sealing;
use stele_model::event::EnrolledNode;
use stele_model::release::{Container, EnvValue};
use stele_model::wire::WrappedKey;
use stele_model::{Digest, Sealed, Value};

use crate::forward::{PeerAnswer, PeerRequest};
use crate::handle::Handle;
use crate::keyring::{KeyringError, random};
use crate::limits::PEER_REQUEST_DEADLINE;

/// A nonce that is the same for the same text under the same key and different for
/// any other, the way RFC 5297 derives its own: applying an unchanged spec must not
/// make another release. What it gives away is that two values are equal, to whoever
/// sees both. Once the key is destroyed it says nothing.
fn nonce(key: &[u8; 32], plaintext: &str) -> [u8; 24] {
    // NMAC under a key of its own, so that the cipher's key is used for nothing else.
    let subkey = Digest::of(&[b"stele-nonce-v1", key]).0;
    let inner = Digest::of(&[&subkey, plaintext.as_bytes()]);
    let digest = Digest::of(&[&subkey, &inner.0]);
    let mut nonce = [0; 24];
    nonce.copy_from_slice(&digest.0[..24]);
    nonce
}

impl Handle {
    /// Seals a text under a subject's key, which is made if there is none yet.
    pub async fn seal(&self, subject: &str, plaintext: &str) -> Result<Sealed, KeyringError> {
        let version = self.published().state.key_version(subject);
        let key = self.ensured_key(subject, version).await?;
        Ok(sealing::seal(subject, version, &key, plaintext, nonce(&key, plaintext)))
    }

    /// Opens what was sealed; nothing when the key is destroyed.
    pub(crate) async fn open(&self, sealed: &Sealed) -> Result<Option<String>, KeyringError> {
        match self.key(&sealed.subject, sealed.key_version).await? {
            Some(key) => {
                let open = sealing::open(sealed, &key);
                open.map(Some).map_err(|error| KeyringError::Damaged(error.to_string()))
            }
            None => Ok(None),
        }
    }

    /// A data key, which is made if there is none yet.
    pub(crate) async fn ensured_key(&self, subject: &str, version: u32) -> Result<[u8; 32], KeyringError> {
        if let Some(key) = self.key(subject, version).await? {
            return Ok(key);
        }
        self.ensure_key(subject, version).await?;
        self.key(subject, version).await?.ok_or_else(|| KeyringError::Minority(subject.to_owned()))
    }

    /// A data key from here, or else from another controller.
    pub(crate) async fn key(&self, subject: &str, version: u32) -> Result<Option<[u8; 32]>, KeyringError> {
        if let Some(key) = self.keyring().key(subject, version)? {
            return Ok(Some(key));
        }
        if version < self.published().state.key_version(subject) {
            return Ok(None);
        }
        let others = self.other_controllers();
        let members = others.len() + 1;
        // This one has none; a majority that has none means that no majority ever kept one, also of the voters
        // before: see `key_copies`.
        let mut without = 1;
        for peer in others {
            let request = PeerRequest::Key { subject: subject.to_owned(), version };
            match self.ask_peer(peer, &request, PEER_REQUEST_DEADLINE).await {
                Ok(PeerAnswer::Key(Some(kept))) => {
                    self.keyring().keep(&kept)?;
                    return self.keyring().key(subject, version);
                }
                Ok(PeerAnswer::Key(None)) => without += 1,
                // Who does not answer may have it.
                _ => {}
            }
        }
        if without * 2 <= members { Err(KeyringError::Minority(subject.to_owned())) } else { Ok(None) }
    }

    pub(crate) fn other_controllers(&self) -> Vec<u64> {
        let control = self.published().state.control;
        control.voters.into_iter().filter(|id| *id != self.id()).collect()
    }

    async fn ensure_key(&self, subject: &str, version: u32) -> Result<(), KeyringError> {
        let published = self.published();
        if published.leads {
            return self.ensure_key_here(subject, version).await;
        }
        let minority = || KeyringError::Minority(subject.to_owned());
        let leader = published.leader.ok_or_else(minority)?;
        let request = PeerRequest::EnsureKey { subject: subject.to_owned(), version };
        match self.ask_peer(leader, &request, PEER_REQUEST_DEADLINE).await {
            Ok(PeerAnswer::Ok) => Ok(()),
            _ => Err(minority()),
        }
    }

    /// Makes a subject's key and has a majority keep it. Only the leader does.
    pub(crate) async fn ensure_key_here(&self, subject: &str, version: u32) -> Result<(), KeyringError> {
        // Values of one spec are sealed side by side: the first makes the key, the others find it.
        let _one = self.0.making_keys.lock().await;
        let kept = match self.key(subject, version).await? {
            Some(_) => self.keyring().kept(subject, version)?,
            None => None,
        };
        let kept = match kept {
            Some(kept) => kept,
            None if self.published().state.has_sealed(subject, version) => {
                return Err(KeyringError::Lost(subject.to_owned()));
            }
            None => self.keyring().make(subject, version)?,
        };
        let others = self.other_controllers();
        let members = others.len() + 1;
        let mut keepers = 1;
        for peer in others {
            let request = PeerRequest::KeepKey(kept.clone());
            if matches!(self.ask_peer(peer, &request, PEER_REQUEST_DEADLINE).await, Ok(PeerAnswer::Ok)) {
                keepers += 1;
            }
        }
        if keepers * 2 <= members {
            return Err(KeyringError::Minority(subject.to_owned()));
        }
        self.keyring().keep(&kept)
    }

    /// The keys of everything sealed in some containers, wrapped for one node.
    pub(crate) async fn wrapped_keys<'a>(
        &self,
        containers: impl Iterator<Item = &'a Container>,
        node: &EnrolledNode,
    ) -> Result<Vec<WrappedKey>, KeyringError> {
        let mut keys = Vec::new();
        for (subject, version) in sealed_with(containers) {
            let Some(key) = self.key(&subject, version).await? else {
                // Erased: the node will say that it cannot open the value.
                tracing::warn!(%subject, version, node = %node.name, "a data key is gone");
                continue;
            };
            let wrapped = sealing::wrap(&key, &subject, version, &node.sealing_key, random()?, random()?);
            match wrapped {
                Ok(wrapped) => keys.push(wrapped),
                Err(error) => tracing::warn!(node = %node.name, %error, "a data key could not be wrapped"),
            }
        }
        Ok(keys)
    }
}

/// A data key: whose it is, and which of its owner's.
pub(crate) type SealedWith = (String, u32);

/// The data keys of everything sealed in some containers.
pub(crate) fn sealed_with<'a>(containers: impl IntoIterator<Item = &'a Container>) -> BTreeSet<SealedWith> {
    let mut needed = BTreeSet::new();
    for container in containers {
        let files = container.files.values().map(|file| &file.content);
        for value in container.env.values().chain(files) {
            if let EnvValue::Value(Value::Sealed(sealed)) = value {
                needed.insert((sealed.subject.clone(), sealed.key_version));
            }
        }
    }
    needed
}
