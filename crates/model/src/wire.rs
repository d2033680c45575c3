//! What controllers and agents tell each other. Everything is signed, because
//! the wire is trusted with nothing: not order, not delivery, not origin.

use std::borrow::Cow;
use std::collections::BTreeSet;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::container_id::ContainerId;
use crate::digest::Digest;
use crate::ids::{ControllerId, FleetName, InstanceId, NodeName, RegionName, Seq, Time};
use crate::limits::UNORDERED_BOOT_MIN;
use crate::release::{Image, InstanceSpec, Protocol};
use crate::shared_digest::SharedDigest;
use crate::signature::{Certificate, PublicKey, Purpose, Signature, SignatureError, sign, verify};

/// A node's whole desired state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The fleet it belongs to.
    pub fleet: FleetName,
    /// The only node it is meant for.
    pub node: NodeName,
    /// Which version of the node's desired state this is.
    pub version: AssignmentVersion,
    /// Everything that should run on the node.
    pub instances: Vec<AssignedInstance>,
    /// Keys that open the sealed values above, each wrapped for this node alone. Not part of the digest.
    pub keys: Vec<WrappedKey>,
    /// What to do with images beside running them. Not part of the digest; absent from controllers
    /// that know nothing of it, and then nothing is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<ImagePolicy>,
    /// Whose signature it carries, and the root's word for that key.
    pub controller: Certificate,
}

/// Which images a node must not lose, and where else they can be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImagePolicy {
    /// The seq of the State it was made of: of two, the one of the later State counts.
    pub seq: Seq,
    /// Images that a point in the retention window could need on this node, in order. Absent when
    /// the controller cannot say; nothing is removed then.
    pub keep: Option<Vec<Image>>,
    /// Where the images that this node needs can be had too, such as `registry.example.com/mirror`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
}

impl ImagePolicy {
    /// What it says, whenever it was said: two with the same digest ask the same of a node.
    pub fn digest(&self) -> Digest {
        Digest::of_json(&(&self.keep, &self.mirror))
    }
}

/// Orders the assignments of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct AssignmentVersion {
    /// The fleet's incarnation, raised only by disaster recovery.
    pub epoch: u64,
    /// The seq that last changed this node's assignment; zero when the log never gave it one.
    pub seq: Seq,
    /// Over the instances: see [`assignment_digest`].
    pub digest: Digest,
}

impl AssignmentVersion {
    /// Whether a node that works on this version is to be told its assignment, of which the epoch and seq are given.
    ///
    /// So is a node that the log never gave anything: only who was told to run nothing looks for what runs there all
    /// the same. It may be of an earlier node of that name, or of an epoch whose end was lost with a quorum.
    pub fn is_behind(&self, current: (u64, Seq)) -> bool {
        (self.epoch, self.seq) != current
    }

    /// Whether a node that says so has nothing in force: it was never told anything, or lost what it was told.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a node that works on this version runs what the log gave it, by this change of it or another.
    pub fn is_current(&self, current: &Self) -> bool {
        (self.epoch, self.digest) == (current.epoch, current.digest)
    }
}

/// One container a node should run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AssignedInstance {
    /// Its identity.
    pub id: InstanceId,
    /// The container.
    pub spec: InstanceSpec,
    /// [`InstanceSpec::digest`] of the spec.
    pub spec_digest: Digest,
    /// An instance that must be gone before this one starts (stop-first replacement).
    pub replaces: Option<InstanceId>,
}

/// Over `(id, spec digest, replaces)` of every instance in id order; [`Digest::EMPTY`] for none.
pub fn assignment_digest<'a>(
    instances: impl IntoIterator<Item = (&'a InstanceId, &'a Digest, Option<&'a InstanceId>)>,
) -> Digest {
    let rows: Vec<_> = instances.into_iter().collect();
    if rows.is_empty() { Digest::EMPTY } else { Digest::of_json(&rows) }
}

/// A subject's data key, readable by one node.
///
/// X25519 with an ephemeral key, HKDF-free by design: the shared secret is hashed with
/// both public keys (SHA-256), and the result is an XChaCha20-Poly1305 key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WrappedKey {
    /// Whose key it is.
    pub subject: String,
    /// Which of the subject's keys, from 1.
    pub key_version: u32,
    /// The ephemeral X25519 public key, as hex.
    pub ephemeral: String,
    /// 24 bytes, as hex.
    pub nonce: String,
    /// Ciphertext and tag, as hex.
    pub ciphertext: String,
}

/// A message with the signature over its exact bytes.
///
/// The body travels as text so that what is verified is what was signed, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Signed {
    /// JSON text.
    pub body: String,
    /// Over the body.
    pub signature: Signature,
}

/// A signed message cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The signature is wrong.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The body is not the message expected.
    #[error("the message is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
}

impl Signed {
    /// Serialises and signs.
    ///
    /// # Panics
    /// Never for this crate's message types, which are all representable as JSON.
    pub fn new<T: Serialize>(key: &ed25519_dalek::SigningKey, purpose: Purpose, message: &T) -> Self {
        #[allow(clippy::expect_used)]
        let body = serde_json::to_string(message).expect("wire types are representable as JSON");
        let signature = sign(key, purpose, body.as_bytes());
        Self { body, signature }
    }

    /// Verifies, then reads.
    pub fn open<T: for<'de> Deserialize<'de>>(
        &self,
        key: &PublicKey,
        purpose: Purpose,
    ) -> Result<T, OpenError> {
        self.verify(key, purpose)?;
        Ok(serde_json::from_str(&self.body)?)
    }

    /// Verifies alone, for what was read to find the key.
    pub fn verify(&self, key: &PublicKey, purpose: Purpose) -> Result<(), SignatureError> {
        verify(key, purpose, self.body.as_bytes(), &self.signature)
    }

    /// Reads without verifying: only to find the key that must then verify it.
    pub fn peek<T: for<'de> Deserialize<'de>>(&self) -> Result<T, OpenError> {
        Ok(serde_json::from_str(&self.body)?)
    }
}

/// What a node tells: the last value of everything on it. Signed by the node's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// The fleet.
    pub fleet: FleetName,
    /// The node that signs it.
    pub node: NodeName,
    /// Which start of the agent: higher at each one, on the same node.
    pub boot: u64,
    /// Counts the reports of one boot, from 1. A resent report keeps its number.
    pub number: u64,
    /// The assignment the agent last verified.
    pub applied: AssignmentVersion,
    /// Every instance on the node, and those that failed to be.
    pub instances: Vec<InstanceReport>,
}

/// What is known of one instance on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceReport {
    /// Which.
    pub id: InstanceId,
    /// How it is.
    pub phase: Phase,
    /// Digest of the spec its container was made of, read back by inspection.
    pub spec_digest: Option<SharedDigest>,
    /// Docker's id of its container.
    pub container: Option<ContainerId>,
    /// Times the agent started it again.
    pub restarts: u32,
    /// What else there is to say of it: see [`Remarks::of`].
    pub remarks: Option<Box<Remarks>>,
}

/// What there is to say of few instances: State holds millions of which there is nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remarks {
    reason: Option<String>,
    exit_code: Option<i64>,
    log_tail: Vec<String>,
}

impl Remarks {
    /// Why an instance is pending, unhealthy or failed; the exit code of its last run, if it ended; its last log
    /// lines, if it failed. Nothing when there is none of these.
    pub fn of(reason: Option<String>, exit_code: Option<i64>, log_tail: Vec<String>) -> Option<Box<Self>> {
        let has_any = reason.is_some() || exit_code.is_some() || !log_tail.is_empty();
        has_any.then(|| Box::new(Self { reason, exit_code, log_tail }))
    }
}

impl InstanceReport {
    /// Whether it serves, or ended as it should.
    pub fn is_well(&self) -> bool {
        matches!(self.phase, Phase::Healthy | Phase::Completed)
    }

    /// Why it is pending, unhealthy or failed.
    pub fn reason(&self) -> Option<&str> {
        self.remarks.as_ref()?.reason.as_deref()
    }

    /// Exit code of its last run, if it ended.
    pub fn exit_code(&self) -> Option<i64> {
        self.remarks.as_ref()?.exit_code
    }

    /// Its last log lines, for one that failed.
    pub fn log_tail(&self) -> &[String] {
        self.remarks.as_ref().map_or(&[], |remarks| &remarks.log_tail)
    }

    /// Keeps so much of the beginning of its reason at most, in bytes.
    pub fn cut_reason(&mut self, bytes_max: usize) {
        if let Some(remarks) = self.remarks.take() {
            let Remarks { mut reason, exit_code, log_tail } = *remarks;
            if let Some(reason) = &mut reason {
                reason.truncate(reason.floor_char_boundary(bytes_max));
            }
            self.remarks = Remarks::of(reason, exit_code, log_tail);
        }
    }

    /// Keeps so many of its last log lines at most.
    pub fn cut_log_tail(&mut self, lines_max: usize) {
        if let Some(remarks) = self.remarks.take() {
            let Remarks { reason, exit_code, mut log_tail } = *remarks;
            log_tail.drain(..log_tail.len().saturating_sub(lines_max));
            self.remarks = Remarks::of(reason, exit_code, log_tail);
        }
    }
}

/// An [`InstanceReport`] as it is written.
#[derive(Serialize)]
#[serde(rename = "InstanceReport")]
struct ReportOut<'a> {
    id: &'a InstanceId,
    phase: Phase,
    spec_digest: Option<Digest>,
    container: &'a Option<ContainerId>,
    restarts: u32,
    reason: Option<&'a str>,
    exit_code: Option<i64>,
    log_tail: &'a [String],
}

/// What is known of one instance on a node.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "InstanceReport", expecting = "struct InstanceReport")]
struct ReportIn {
    /// Which.
    id: InstanceId,
    /// How it is.
    phase: Phase,
    /// Digest of the spec its container was made of, read back by inspection.
    spec_digest: Option<Digest>,
    /// Docker's id of its container.
    #[schemars(with = "Option<String>")]
    container: Option<ContainerId>,
    /// Times the agent started it again.
    restarts: u32,
    /// Why it is pending, unhealthy or failed.
    reason: Option<String>,
    /// Exit code of its last run, if it ended.
    exit_code: Option<i64>,
    /// Its last log lines, for one that failed.
    log_tail: Vec<String>,
}

impl Serialize for InstanceReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { id, phase, spec_digest, container, restarts, remarks: _ } = self;
        ReportOut {
            id,
            phase: *phase,
            spec_digest: spec_digest.as_deref().copied(),
            container,
            restarts: *restarts,
            reason: self.reason(),
            exit_code: self.exit_code(),
            log_tail: self.log_tail(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for InstanceReport {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ReportIn { id, phase, spec_digest, container, restarts, reason, exit_code, log_tail } =
            ReportIn::deserialize(deserializer)?;
        let remarks = Remarks::of(reason, exit_code, log_tail);
        let spec_digest = spec_digest.map(Into::into);
        Ok(Self { id, phase, spec_digest, container, restarts, remarks })
    }
}

impl JsonSchema for InstanceReport {
    fn schema_name() -> Cow<'static, str> {
        "InstanceReport".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        ReportIn::json_schema(generator)
    }
}

impl Report {
    /// Where it stands among what its node said.
    pub fn position(&self) -> Position {
        Position { boot: self.boot, number: self.number }
    }
}

/// Where a message stands among those that a node sent: whoever sends an earlier one again is not believed that it
/// is news. No clock decides this: a node may have a wrong one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Which start of the agent; zero before the first.
    pub boot: u64,
    /// Which of its messages of one kind, from 1.
    pub number: u64,
}

impl Position {
    /// Whether a message was sent after another of the same kind. Boots from [`UNORDERED_BOOT_MIN`] on were drawn by
    /// chance: nobody knows which of them was earlier, only that all others came after them.
    pub fn is_after(self, earlier: Self) -> bool {
        if self.boot == earlier.boot {
            return self.number > earlier.number;
        }
        let is_ordered = |boot| boot < UNORDERED_BOOT_MIN;
        match (is_ordered(earlier.boot), is_ordered(self.boot)) {
            (true, _) if earlier.boot == 0 => true,
            (true, true) => self.boot > earlier.boot,
            (true, false) => false,
            (false, _) => true,
        }
    }
}

/// Where an instance is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Assigned, nothing done yet (waits for an older one, or for the agent).
    Pending,
    /// Its image is being pulled.
    Pulling,
    /// Its container runs, health not known yet.
    Starting,
    /// It runs and is healthy.
    Healthy,
    /// It runs and its health check fails.
    Unhealthy,
    /// It cannot be made or keeps ending; the reason says why.
    Failed,
    /// It ended as it should (`restart: never` or `on_failure` with exit code 0).
    Completed,
}

/// An agent's sign of life, sent often and never logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Heartbeat {
    /// The fleet.
    pub fleet: FleetName,
    /// The node.
    pub node: NodeName,
    /// Its region.
    pub region: RegionName,
    /// Which start of the agent: higher at each one, on the same node.
    pub boot: u64,
    /// Counts the heartbeats of one boot, from 1; zero from agents that did not count them.
    #[serde(default)]
    pub number: u64,
    /// The assignment it last verified.
    pub applied: AssignmentVersion,
    /// The highest report number a controller acknowledged.
    pub acked: u64,
    /// When it was signed, by the node's clock; absent where that was never set.
    #[serde(default)]
    pub time: Option<Time>,
    /// What inspection showed; absent while the container engine cannot be looked at.
    #[serde(default)]
    pub observed: Option<Observed>,
}

impl Heartbeat {
    /// Where it stands among the heartbeats of its node; nothing from agents that did not count them.
    pub fn position(&self) -> Option<Position> {
        (self.number > 0).then_some(Position { boot: self.boot, number: self.number })
    }
}

/// What a node finds when it inspects its containers, folded into one digest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Observed {
    /// Over every instance on the node: see [`observed_digest`].
    pub digest: Digest,
    /// How many instances that are.
    pub instances: u32,
    /// When the container inspected longest ago was inspected, by the node's clock; absent
    /// when there is none.
    pub inspected: Option<Time>,
    /// Instances that are not as they should be; the first few.
    pub differs: Vec<InstanceDifference>,
    /// How many more there are.
    pub more: u32,
}

/// How an instance is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InstanceDifference {
    /// Which.
    pub instance: InstanceId,
    /// How, for people.
    pub why: String,
}

/// Over `(id, spec digest)` of every instance in id order; [`Digest::EMPTY`] for none.
///
/// A node puts an instance's spec digest here only when its container runs well and inspection
/// shows what that spec asks for; for any other instance it puts a digest of what is wrong.
/// So it is what State expects exactly when everything is as it should be.
pub fn observed_digest<'a>(instances: impl IntoIterator<Item = (&'a InstanceId, Digest)>) -> Digest {
    let rows: Vec<_> = instances.into_iter().collect();
    if rows.is_empty() { Digest::EMPTY } else { Digest::of_json(&rows) }
}

/// Asks any controller for the node's current assignment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SyncRequest {
    /// The fleet.
    pub fleet: FleetName,
    /// The node that asks.
    pub node: NodeName,
    /// What it has.
    pub applied: AssignmentVersion,
    /// [`ImagePolicy::digest`] of what it was told about images last; absent when it was told nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<Digest>,
}

/// A controller's word that a report's content is committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReportAck {
    /// The node.
    pub node: NodeName,
    /// The boot it was of.
    pub boot: u64,
    /// Its number.
    pub number: u64,
    /// Whose signature it carries, and the root's word for that key.
    pub controller: Certificate,
}

/// Which controllers were removed from the fleet: what they sign counts no more, though the root's word for their
/// keys still holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RemovedControllers {
    /// The fleet.
    pub fleet: FleetName,
    /// Their ids, [`crate::limits::REMOVED_CONTROLLERS_MAX`] at most.
    pub controllers: BTreeSet<ControllerId>,
    /// When this was said. What the root signs later than that is a new controller, whatever its id.
    pub at: Time,
    /// Whose signature it carries, and the root's word for that key.
    pub controller: Certificate,
}

/// A port of a host, which one process or container can have at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostPort {
    /// Its number.
    pub port: u16,
    /// Of which protocol.
    pub protocol: Protocol,
}

/// A port that somebody has who is none of the node's own containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenPort {
    /// Which.
    pub port: HostPort,
    /// Who has it, in words for people.
    pub holder: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_said_earlier_is_never_news() {
        let at = |boot, number| Position { boot, number };
        let chance = |boot| at(UNORDERED_BOOT_MIN + boot, 1);
        for (later, earlier) in [
            (at(7, 2), at(7, 1)),
            (at(8, 1), at(7, 9)),
            (at(1, 1), Position::default()),
            // Agents that count their starts came after those that did not.
            (at(1, 1), chance(5)),
        ] {
            assert!(later.is_after(earlier), "{later:?} {earlier:?}");
            assert!(!earlier.is_after(later), "{earlier:?} {later:?}");
        }
        assert!(!at(7, 1).is_after(at(7, 1)));
        assert!(chance(1).is_after(Position::default()), "the first of all");
        assert!(chance(1).is_after(chance(2)) && chance(2).is_after(chance(1)), "nobody knows");
    }

    #[test]
    fn a_node_is_current_in_the_epoch_of_its_log_alone() {
        let of =
            |epoch, seq, what: &str| AssignmentVersion { epoch, seq, digest: Digest::of(&[what.as_bytes()]) };
        let nothing = AssignmentVersion::default();
        let of_nothing = |epoch| AssignmentVersion { epoch, ..nothing };
        for (applied, current, is_current) in [
            (of(1, 7, "web"), of(1, 7, "web"), true),
            (of(1, 7, "web"), of(1, 9, "web"), true),
            (of(1, 7, "web"), of(1, 9, "api"), false),
            (of(1, 7, "web"), of(2, 7, "web"), false),
            (nothing, of_nothing(1), false),
            (of_nothing(1), of_nothing(1), true),
            (of_nothing(1), of_nothing(2), false),
            (nothing, of(1, 7, "web"), false),
        ] {
            assert_eq!(applied.is_current(&current), is_current, "{applied:?} {current:?}");
        }
    }

    #[test]
    fn a_node_is_behind_what_its_log_gave_it_and_what_a_lost_one_did() {
        let of = |epoch, seq| AssignmentVersion { epoch, seq, digest: Digest::EMPTY };
        let nothing = AssignmentVersion::default();
        for (applied, current, is_behind) in [
            (nothing, (1, 0), true),
            (of(1, 0), (1, 0), false),
            (nothing, (1, 7), true),
            (of(1, 6), (1, 7), true),
            (of(1, 7), (1, 7), false),
            (of(1, 9), (2, 7), true),
            (of(1, 7), (2, 7), true),
            // What told it so is lost, and it is in force there.
            (of(1, 9), (2, 0), true),
            (of(2, 0), (3, 0), true),
            (of(2, 0), (2, 0), false),
            (of(2, 0), (2, 7), true),
        ] {
            assert_eq!(applied.is_behind(current), is_behind, "{applied:?} {current:?}");
        }
    }
}
