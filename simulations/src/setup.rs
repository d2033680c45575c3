//! What a seed makes of a world: how large, how eager, how long.

use ed25519_dalek::SigningKey;
use stele_model::event::{Holder, Role, Token};
use stele_model::signature::{Certificate, CertificateBody, PublicKey, public_key};
use stele_model::{ControllerId, Digest, FleetName, NodeName, Time};

use crate::limits::{
    CONVERGENCE_US, CONVERGENCE_US_PER_NODE, EPOCH_US, FOUNDING_US, FOUNDING_US_PER_NODE, HUGE_FLEET_EVERY,
    LARGE_FLEET_EVERY,
};
use crate::rng::{Rng, mix};

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The seed.
    pub seed: u64,
    /// Controllers that found the fleet.
    pub controllers: u64,
    /// Nodes.
    pub agents: u64,
    /// Apps that clients deploy.
    pub apps: u64,
    /// Clients that write and read.
    pub clients: u64,
    /// How long faults and clients go on, in minutes.
    pub minutes: u64,
    /// Records between two snapshots.
    pub snapshot_every: u64,
    /// Raft entries kept behind a snapshot.
    pub entries_kept: u64,
    /// Longest pause of a client between two requests, in milliseconds.
    pub think_ms: u64,
    /// Whether controllers and agents are of several versions.
    pub skewed: bool,
    /// How long JetStream remembers the ids of messages, in milliseconds.
    pub feed_window_ms: u64,
    /// Whether NATS still has the public feed after it was gone.
    pub feed_outlasts: bool,
    /// Prints every line of the trace.
    pub loud: bool,
}

impl Setup {
    /// What a seed makes of it.
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::fork(seed, 2);
        Self {
            seed,
            controllers: *rng.pick(&[3, 3, 3, 5, 5, 7]).unwrap_or(&3),
            agents: agents(seed, rng.range(2, 9)),
            apps: rng.range(1, 3),
            clients: rng.range(2, 4),
            minutes: rng.range(2, 5),
            snapshot_every: rng.range(15, 250),
            entries_kept: rng.range(0, 30),
            think_ms: rng.range(1_000, 15_000),
            skewed: Rng::fork(seed, 7).chance(250),
            feed_window_ms: *Rng::fork(seed, 8).pick(&[120_000, 2_000, 50, 0]).unwrap_or(&120_000),
            feed_outlasts: Rng::fork(seed, 9).chance(500),
            loud: false,
        }
    }
}

/// Whether a seed is of a fleet of a thousand nodes and more, which takes minutes.
pub fn is_huge(seed: u64) -> bool {
    seed.is_multiple_of(HUGE_FLEET_EVERY)
}

/// How many nodes a fleet has that most seeds would give a few: most faults need no more, and a seed
/// then takes a second instead of a minute.
fn agents(seed: u64, few: u64) -> u64 {
    let mut rng = Rng::fork(seed, 12);
    if is_huge(seed) {
        rng.range(1_000, 2_000)
    } else if seed.is_multiple_of(LARGE_FLEET_EVERY) {
        rng.range(30, 300)
    } else {
        few
    }
}

impl Setup {
    /// How long the fleet may take to be founded before faults begin, in microseconds of virtual time.
    pub(crate) fn founding_us(&self) -> u64 {
        FOUNDING_US.max(self.agents * FOUNDING_US_PER_NODE)
    }

    /// How long everything may take to converge after the last fault, in microseconds of virtual time.
    pub(crate) fn convergence_us(&self) -> u64 {
        CONVERGENCE_US + self.agents * CONVERGENCE_US_PER_NODE
    }
}

/// Keys and names, the same for every run of a seed.
#[derive(Debug)]
pub(crate) struct Keys {
    /// The fleet.
    pub(crate) fleet: FleetName,
    /// Its root.
    pub(crate) root: SigningKey,
    /// The root's public key.
    pub(crate) root_public: PublicKey,
    seed: u64,
}

impl Keys {
    /// Makes them.
    #[allow(clippy::expect_used)]
    pub(crate) fn new(seed: u64) -> Self {
        let root = key(seed, 0);
        let fleet = FleetName::new("demo").expect("a constant that is a name");
        Self { fleet, root_public: public_key(&root), root, seed }
    }

    /// A controller's key.
    pub(crate) fn controller(&self, id: ControllerId) -> SigningKey {
        key(self.seed, 1_000 + id)
    }

    /// A node's key.
    pub(crate) fn node(&self, index: usize) -> SigningKey {
        key(self.seed, 1_000_000 + index as u64)
    }

    /// The root's word for a controller's key, or for a stranger's.
    pub(crate) fn certificate(&self, id: ControllerId, key: &SigningKey, root: &SigningKey) -> Certificate {
        let body = CertificateBody {
            fleet: self.fleet.clone(),
            controller: id,
            key: public_key(key),
            not_before: Time(0),
            not_after: Time(u64::MAX),
        };
        Certificate::issue(root, body)
    }

    /// The first administrator's token.
    #[allow(clippy::expect_used)]
    pub(crate) fn admin() -> Token {
        Token {
            principal: "admin".parse().expect("a constant that is a name"),
            hash: Digest::of(&[b"admin"]),
            role: Role::Admin,
            holder: Holder::Person,
            expires: Time(EPOCH_US + 30 * 86_400 * 1_000_000),
        }
    }
}

/// A key that follows from a seed and a number.
pub(crate) fn key(seed: u64, number: u64) -> SigningKey {
    let mut bytes = [0; 32];
    for (at, chunk) in bytes.chunks_mut(8).enumerate() {
        chunk.copy_from_slice(&mix(seed ^ mix(number * 4 + at as u64 + 1)).to_le_bytes());
    }
    SigningKey::from_bytes(&bytes)
}

/// The name of the node of an index.
#[allow(clippy::expect_used)]
pub(crate) fn node_name(index: usize) -> NodeName {
    NodeName::new(&format!("n{index}")).expect("a letter and a number are a name")
}

/// The index of a node's name.
pub(crate) fn node_index(name: &NodeName) -> Option<usize> {
    name.as_str().strip_prefix('n')?.parse().ok()
}
