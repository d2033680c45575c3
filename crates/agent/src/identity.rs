//! Who this node is: its own keys, made here and never sent, and what it was told when it joined.

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use stele_bus::join::NatsAccess;
use stele_bus::sealing;
use stele_model::ids::{FleetName, NodeName, RegionName};
use stele_model::signature::{PublicKey, public_key};
use stele_reconcile::Pinned;

use crate::data_dir::DataDir;
use crate::error::Error;

const SIGNING_KEY: &str = "signing.key";
const SEALING_KEY: &str = "sealing.key";
const NODE: &str = "node.json";

/// The node's secret keys.
#[derive(Clone)]
pub struct Keys {
    /// Signs everything the node says.
    pub signing: SigningKey,
    /// X25519 secret: opens what is sealed for the node.
    pub sealing: [u8; 32],
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("public", &self.public()).finish_non_exhaustive()
    }
}

impl Keys {
    /// The public half of the signing key.
    pub fn public(&self) -> PublicKey {
        public_key(&self.signing)
    }

    /// The public half of the sealing key, as hex.
    pub fn sealing_public(&self) -> String {
        sealing::public_key(&self.sealing)
    }

    /// Reads them, or makes them where there are none: a join that is tried again uses the same.
    pub fn load_or_make(data: &DataDir) -> Result<Self, Error> {
        Ok(Self {
            signing: SigningKey::from_bytes(&load_or_make(data, SIGNING_KEY)?),
            sealing: load_or_make(data, SEALING_KEY)?,
        })
    }

    /// Reads them; `None` where there are none.
    pub fn load(data: &DataDir) -> Result<Option<Self>, Error> {
        let (Some(signing), Some(sealing)) = (load(data, SIGNING_KEY)?, load(data, SEALING_KEY)?) else {
            return Ok(None);
        };
        Ok(Some(Self { signing: SigningKey::from_bytes(&signing), sealing }))
    }
}

fn load(data: &DataDir, name: &str) -> Result<Option<[u8; 32]>, Error> {
    let Some(text) = data.read(name)? else { return Ok(None) };
    let mut key = [0; 32];
    hex::decode_to_slice(text.trim_ascii(), &mut key)
        .map_err(|_| data.damaged(name, "it is not 64 hex digits".to_owned()))?;
    Ok(Some(key))
}

fn load_or_make(data: &DataDir, name: &str) -> Result<[u8; 32], Error> {
    if let Some(key) = load(data, name)? {
        return Ok(key);
    }
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|error| Error::Random(error.to_string()))?;
    data.write(name, hex::encode(key).as_bytes())?;
    Ok(key)
}

/// The container engine behind the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// Docker, or what speaks its protocol.
    Docker {
        /// Such as `unix:///var/run/docker.sock`; the usual place when absent.
        host: Option<String>,
        /// The host's address that ports are published on.
        publish_address: String,
    },
    /// Nothing but memory, for trying out many nodes on one machine.
    Simulated,
}

/// What the node was told when it joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrollment {
    /// The fleet.
    pub fleet: FleetName,
    /// The node's name.
    pub node: NodeName,
    /// Its region.
    pub region: RegionName,
    /// The fleet's incarnation when it joined.
    pub epoch: u64,
    /// The fleet's root key: the one thing that is never learned from the wire.
    pub root: PublicKey,
    /// How it reaches NATS.
    pub nats: NatsAccess,
    /// What runs its containers.
    pub engine: Engine,
}

impl Enrollment {
    /// Reads what `join` wrote; `None` before that.
    pub fn load(data: &DataDir) -> Result<Option<Self>, Error> {
        data.read_json(NODE)
    }

    /// Keeps it. From then on the data directory belongs to this node.
    pub fn save(&self, data: &DataDir) -> Result<(), Error> {
        data.write_json(NODE, self)
    }

    /// What assignments are checked against.
    pub fn pinned(&self) -> Pinned {
        Pinned { root: self.root.clone(), fleet: self.fleet.clone(), node: self.node.clone() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_are_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::new(folder.path());
        assert!(Keys::load(&data).unwrap().is_none());
        let made = Keys::load_or_make(&data).unwrap();
        let again = Keys::load_or_make(&data).unwrap();
        assert_eq!((made.public(), made.sealing), (again.public(), again.sealing));
        assert_ne!(made.signing.to_bytes(), made.sealing);
        data.write(SIGNING_KEY, b"not a key").unwrap();
        assert!(Keys::load(&data).unwrap_err().to_string().contains("signing.key"));
    }
}
