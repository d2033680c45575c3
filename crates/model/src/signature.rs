//! Ed25519 signatures (RFC 8032) and the certificates that chain a controller to the fleet's root.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;

use data_encoding::HEXLOWER;
use ed25519_dalek::{Signature as DalekSignature, Signer as _, SigningKey, VerifyingKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::canonical::canonical_json;
use crate::digest::{Digest, bytes_of_hex};
use crate::ids::{ControllerId, FleetName, Time};
use crate::limits::VOUCHED_MAX;

/// An Ed25519 public key, as 64 hex digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct PublicKey(pub String);

/// An Ed25519 signature, as 128 hex digits.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Signature(pub String);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why something signed is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not an Ed25519 public key.
    #[error("{0} is not an Ed25519 public key")]
    Key(PublicKey),
    /// The signature does not match.
    #[error("the {0} signature does not match")]
    Mismatch(&'static str),
    /// Outside the certificate's validity.
    #[error("controller {0}'s certificate is not valid at this time")]
    Expired(ControllerId),
    /// The controller was removed from the fleet after the certificate was issued.
    #[error("controller {0} was removed from the fleet")]
    Removed(ControllerId),
    /// From another fleet.
    #[error("signed for fleet {found}, this is fleet {expected}")]
    Fleet {
        /// The fleet in the certificate.
        found: FleetName,
        /// Ours.
        expected: FleetName,
    },
}

/// What a signature is about. Part of the signed bytes, so that no signature can be used for another purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A controller's assignment for a node.
    Assignment,
    /// A node's report.
    Report,
    /// A root's certificate for a controller.
    Certificate,
    /// A controller's answer to a joining node.
    Join,
    /// A node's request to a controller.
    NodeRequest,
    /// A node's sign of life, with what it observes.
    Heartbeat,
    /// A controller's proof of how far the fleet is what it should be.
    Convergence,
    /// A controller's word on which others were removed.
    Removed,
}

impl Purpose {
    const fn domain(self) -> &'static str {
        match self {
            Self::Assignment => "stele-assignment-v1",
            Self::Report => "stele-report-v1",
            Self::Certificate => "stele-certificate-v1",
            Self::Join => "stele-join-v1",
            Self::NodeRequest => "stele-node-request-v1",
            Self::Heartbeat => "stele-heartbeat-v1",
            Self::Convergence => "stele-convergence-v1",
            Self::Removed => "stele-removed-v1",
        }
    }

    fn bytes(self, message: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.domain().len() + 1 + message.len());
        bytes.extend_from_slice(self.domain().as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(message);
        bytes
    }
}

/// The public half of a signing key.
pub fn public_key(key: &SigningKey) -> PublicKey {
    PublicKey(HEXLOWER.encode(&key.verifying_key().to_bytes()))
}

/// Signs `message` for one purpose.
pub fn sign(key: &SigningKey, purpose: Purpose, message: &[u8]) -> Signature {
    Signature(HEXLOWER.encode(&key.sign(&purpose.bytes(message)).to_bytes()))
}

/// Checks a signature made by [`sign`].
pub fn verify(
    key: &PublicKey,
    purpose: Purpose,
    message: &[u8],
    signature: &Signature,
) -> Result<(), SignatureError> {
    let bad_key = || SignatureError::Key(key.clone());
    let bytes = bytes_of_hex(&key.0).ok_or_else(bad_key)?;
    let verifying = VerifyingKey::from_bytes(&bytes).map_err(|_| bad_key())?;
    let mismatch = SignatureError::Mismatch(purpose.domain());
    let bytes = bytes_of_hex(&signature.0).ok_or_else(|| mismatch.clone())?;
    verifying
        .verify_strict(&purpose.bytes(message), &DalekSignature::from_bytes(&bytes))
        .map_err(|_| mismatch)
}

/// The fleet root's word that a key is a controller's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Certificate {
    /// What the root vouches for.
    pub body: CertificateBody,
    /// By the fleet's root key, over the body's canonical JSON.
    pub signature: Signature,
}

/// The signed part of a [`Certificate`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CertificateBody {
    /// The fleet.
    pub fleet: FleetName,
    /// The controller.
    pub controller: ControllerId,
    /// Its key.
    pub key: PublicKey,
    /// First moment of validity.
    pub not_before: Time,
    /// Last moment of validity.
    pub not_after: Time,
}

thread_local! {
    /// Certificates, each with a root, whose signatures were verified lately.
    static VOUCHED: RefCell<VecDeque<Digest>> = const { RefCell::new(VecDeque::new()) };
}

impl Certificate {
    /// Signs a body with the fleet's root key.
    pub fn issue(root: &SigningKey, body: CertificateBody) -> Self {
        let signature = sign(root, Purpose::Certificate, &canonical_json(&body));
        Self { body, signature }
    }

    /// Every message of a controller carries its certificate, and there are few controllers: what was verified a
    /// moment ago is not verified again.
    fn check_signature(&self, root: &PublicKey) -> Result<(), SignatureError> {
        let this = Digest::of_json(&(root, self));
        let is_known = VOUCHED.with_borrow(|vouched| vouched.contains(&this));
        if !is_known {
            verify(root, Purpose::Certificate, &canonical_json(&self.body), &self.signature)?;
            VOUCHED.with_borrow_mut(|vouched| {
                vouched.truncate(VOUCHED_MAX - 1);
                vouched.push_front(this);
            });
        }
        Ok(())
    }

    /// Checks it against the pinned root, the expected fleet, and a time (when a clock can be trusted).
    pub fn check(
        &self,
        root: &PublicKey,
        fleet: &FleetName,
        now: Option<Time>,
    ) -> Result<(), SignatureError> {
        self.check_signature(root)?;
        if &self.body.fleet != fleet {
            return Err(SignatureError::Fleet { found: self.body.fleet.clone(), expected: fleet.clone() });
        }
        match now {
            Some(now) if now < self.body.not_before || now > self.body.not_after => {
                Err(SignatureError::Expired(self.body.controller))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_certificate_is_not_believed_because_another_was() {
        let (root, other) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let fleet: FleetName = "acme".parse().unwrap();
        let body = CertificateBody {
            fleet: fleet.clone(),
            controller: 1,
            key: public_key(&other),
            not_before: Time(10),
            not_after: Time(20),
        };
        let good = Certificate::issue(&root, body.clone());
        let public = public_key(&root);
        // Twice, so that the second time it is remembered.
        for _ in 0..2 {
            assert!(good.check(&public, &fleet, Some(Time(15))).is_ok());
            assert!(good.check(&public, &fleet, Some(Time(21))).is_err());
            assert!(good.check(&public, &"other".parse().unwrap(), None).is_err());
            assert!(good.check(&public_key(&other), &fleet, None).is_err());
            let longer =
                Certificate { body: CertificateBody { not_after: Time(30), ..body.clone() }, ..good.clone() };
            assert!(longer.check(&public, &fleet, None).is_err());
            let forged =
                Certificate { signature: Certificate::issue(&other, body.clone()).signature, ..good.clone() };
            assert!(forged.check(&public, &fleet, None).is_err());
        }
        for controller in 0..2 * VOUCHED_MAX as u64 {
            let next = Certificate::issue(&root, CertificateBody { controller, ..body.clone() });
            assert!(next.check(&public, &fleet, None).is_ok());
        }
        VOUCHED.with_borrow(|vouched| assert_eq!(vouched.len(), VOUCHED_MAX));
    }
}
