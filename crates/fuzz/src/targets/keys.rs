//! Keys that every run has alike. With them a target can tell what a signature should have been.

use ed25519_dalek::SigningKey;
use stele_model::Time;
use stele_model::ids::{FleetName, NameError, NodeName, RegionName};
use stele_model::signature::{Certificate, CertificateBody, PublicKey, Purpose, public_key, sign};
use stele_model::wire::Signed;

/// Within the validity of every certificate made here.
pub(super) const NOW: Time = Time(1_700_000_000_000_000);

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

pub(super) fn root() -> SigningKey {
    key(1)
}

pub(super) fn root_public() -> PublicKey {
    public_key(&root())
}

pub(super) fn controller() -> SigningKey {
    key(2)
}

pub(super) fn node() -> SigningKey {
    key(3)
}

pub(super) fn witness() -> SigningKey {
    key(4)
}

/// The node's X25519 secret.
pub(super) const SEALING_SECRET: [u8; 32] = [5; 32];
/// A data key.
pub(super) const DATA_KEY: [u8; 32] = [6; 32];

pub(super) fn fleet() -> Result<FleetName, NameError> {
    "acme".parse()
}

pub(super) fn region() -> Result<RegionName, NameError> {
    "eu".parse()
}

pub(super) fn node_name() -> Result<NodeName, NameError> {
    "eu-1".parse()
}

pub(super) fn certificate() -> Result<Certificate, NameError> {
    let body = CertificateBody {
        fleet: fleet()?,
        controller: 1,
        key: public_key(&controller()),
        not_before: Time(1),
        not_after: Time(2 * NOW.0),
    };
    Ok(Certificate::issue(&root(), body))
}

/// Whether a message carries the signature that this key makes of its body: what must be so of every
/// message that is believed.
pub(super) fn is_signed(signed: &Signed, key: &SigningKey, purpose: Purpose) -> bool {
    let right = sign(key, purpose, signed.body.as_bytes());
    signed.signature.0.eq_ignore_ascii_case(&right.0)
}

/// Signs whatever the body is by now.
pub(super) fn sign_again(input: &mut Vec<u8>, key: &SigningKey, purpose: Purpose) {
    let Ok(mut signed) = serde_json::from_slice::<Signed>(input) else { return };
    signed.signature = sign(key, purpose, signed.body.as_bytes());
    if let Ok(bytes) = serde_json::to_vec(&signed) {
        *input = bytes;
    }
}
