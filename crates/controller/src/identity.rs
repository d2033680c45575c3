//! Who a controller is, and what it signs with.

use ed25519_dalek::SigningKey;
use serde::Serialize;
use stele_bus::join::NatsAccess;
use stele_model::signature::{Certificate, PublicKey, Purpose};
use stele_model::wire::Signed;
use stele_model::{ControllerId, FleetName};

/// Who a controller is.
pub struct Identity {
    /// The fleet.
    pub fleet: FleetName,
    /// Its Raft id.
    pub id: ControllerId,
    /// The fleet's root key.
    pub root: PublicKey,
    /// The root's word for this controller's key.
    pub certificate: Certificate,
    /// PEM of the authority behind the API's certificate, where it speaks TLS.
    pub api_authority: Option<String>,
    /// How agents reach NATS.
    pub nats: NatsAccess,
    pub(crate) key: SigningKey,
}

impl Identity {
    pub(crate) fn sign<T: Serialize>(&self, purpose: Purpose, message: &T) -> Signed {
        Signed::new(&self.key, purpose, message)
    }
}
