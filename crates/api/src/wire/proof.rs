//! What is signed and proved about the log.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stele_model::signature::Certificate;
use stele_model::{ControllerId, Digest, Seq};

/// `GET /v1/proofs/inclusion`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InclusionQuery {
    /// The record.
    pub seq: Seq,
    /// Records in the tree it is proved to be in; those of the newest checkpoint unless said otherwise.
    pub size: Option<u64>,
}

/// `GET /v1/proofs/consistency`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsistencyQuery {
    /// Records in the older tree.
    pub from: u64,
    /// Records in the newer one; those of the newest checkpoint unless said otherwise.
    pub to: Option<u64>,
}

/// The newest checkpoint that the controller that answered signed, and what is needed to believe it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointAnswer {
    /// Who signed it.
    pub controller: ControllerId,
    /// How many records there were.
    pub size: u64,
    /// The root of the Merkle tree over them.
    pub root: Digest,
    /// The digest of State after them.
    pub state: Digest,
    /// The chain after them.
    pub chain: Digest,
    /// All of this as a signed note (C2SP tlog-checkpoint), to be verified instead of the fields above.
    pub note: String,
    /// The newest checkpoint that a witness known to the controller cosigned, as a signed note.
    pub cosigned: Option<String>,
    /// Keys of the witnesses known to the controller. Which of them to believe is for the reader to decide.
    pub witnesses: Vec<String>,
    /// The fleet root's certificates for the controllers' keys.
    pub certificates: Vec<Certificate>,
    /// How the other controllers' checkpoints compare with this controller's.
    pub compared: Vec<ComparedCheckpoint>,
}

/// Another controller's newest checkpoint, as far as it was compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ComparedCheckpoint {
    /// The other controller.
    pub controller: ControllerId,
    /// How many records there were.
    pub size: u64,
    /// What differs from this controller's log or State at that size; nothing when they agree.
    pub differs: Option<String>,
}

/// That a record is in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InclusionAnswer {
    /// The record. It is the leaf of index `seq - 1`.
    pub seq: Seq,
    /// Records in the tree.
    pub size: u64,
    /// The record's leaf, as base64: header with the payload's hash.
    pub leaf: String,
    /// The tree's root.
    pub root: Digest,
    /// Siblings on the way to the root, from the leaf on (RFC 9162, 2.1.3).
    pub hashes: Vec<Digest>,
}

/// That the log only grew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConsistencyAnswer {
    /// Records in the older tree.
    pub from: u64,
    /// Records in the newer one.
    pub to: u64,
    /// The older tree's root.
    pub from_root: Digest,
    /// The newer one's.
    pub to_root: Digest,
    /// Nodes from which both roots follow (RFC 9162, 2.1.4).
    pub hashes: Vec<Digest>,
}
