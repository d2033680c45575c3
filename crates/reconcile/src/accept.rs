//! Which assignments an agent believes.

use stele_model::limits::{INSTANCES_PER_NODE_MAX, KEPT_IMAGES_MAX};
use stele_model::signature::{Purpose, SignatureError};
use stele_model::wire::{Assignment, AssignmentVersion, OpenError, Signed, assignment_digest};
use stele_model::{Digest, FleetName, InstanceId, InstanceSpec, NodeName, Time};

use crate::limits::{ASSIGNMENT_BYTES_MAX, WRAPPED_KEYS_MAX};
use crate::trust::Trust;

/// An assignment that is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It replaces what the agent has: persist it, then act.
    New(Assignment),
    /// The very version the agent has; nothing to do. Its keys may have been wrapped anew.
    Known(Assignment),
}

/// Why an assignment is not believed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Larger than any assignment can be.
    #[error("the assignment has {bytes} bytes, more than the {ASSIGNMENT_BYTES_MAX} allowed")]
    TooLarge {
        /// How large it is.
        bytes: usize,
    },
    /// More of something than allowed.
    #[error("the assignment has {count} {what}, more than the {max} allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// The root did not vouch for the controller's key, or the controller was removed.
    #[error("its controller's certificate is not believed: {0}")]
    Certificate(#[source] SignatureError),
    /// Not signed by that key, or not an assignment.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// For another fleet.
    #[error("the assignment is for fleet {found}, this is fleet {expected}")]
    Fleet {
        /// The fleet it names.
        found: FleetName,
        /// Ours.
        expected: FleetName,
    },
    /// For another node.
    #[error("the assignment is for node {found}, this is node {expected}")]
    Node {
        /// The node it names.
        found: NodeName,
        /// Ours.
        expected: NodeName,
    },
    /// Older than what the agent has.
    #[error(
        "the assignment (epoch {}, seq {}) is older than the one in force (epoch {}, seq {})",
        .found.epoch, .found.seq, .current.epoch, .current.seq
    )]
    Stale {
        /// Its version.
        found: AssignmentVersion,
        /// Ours.
        current: AssignmentVersion,
    },
    /// Two signed assignments of one version differ: a controller is broken, or forged its history.
    #[error(
        "two signed assignments of epoch {}, seq {} differ: {} is in force, {} was received; \
         the controllers disagree about history",
        .current.epoch, .current.seq, .current.digest, .found.digest
    )]
    Conflict {
        /// Its version.
        found: AssignmentVersion,
        /// Ours.
        current: AssignmentVersion,
    },
    /// Its content is not what its digest says.
    #[error("the assignment's content hashes to {found}, it claims {claimed}")]
    Digest {
        /// Recomputed.
        found: Digest,
        /// In its version.
        claimed: Digest,
    },
    /// A spec is not what its digest says.
    #[error("the spec of {instance} hashes to {found}, the assignment claims {claimed}")]
    SpecDigest {
        /// Which instance.
        instance: Box<InstanceId>,
        /// Recomputed.
        found: Digest,
        /// Next to the spec.
        claimed: Digest,
    },
    /// It contradicts itself.
    #[error("the assignment contradicts itself: {instance} {problem}")]
    Inconsistent {
        /// Which instance.
        instance: Box<InstanceId>,
        /// How.
        problem: &'static str,
    },
}

/// Believes an assignment, or says why not.
///
/// `current` is the version in force. `now` is the wall clock if it can be trusted; without it
/// the validity period of the controller's certificate is not checked.
pub fn accept(
    current: Option<&AssignmentVersion>,
    signed: &Signed,
    trust: &Trust,
    now: Option<Time>,
) -> Result<Accepted, Refusal> {
    if signed.body.len() > ASSIGNMENT_BYTES_MAX {
        return Err(Refusal::TooLarge { bytes: signed.body.len() });
    }
    // The certificate inside is believed for the root's signature on it, whoever wrote the
    // rest; only then is its key asked about the whole.
    let assignment: Assignment = signed.peek()?;
    if !planted!(AcceptUnsigned) {
        let certificate = &assignment.controller;
        trust.check(certificate, now).map_err(Refusal::Certificate)?;
        signed.verify(&certificate.body.key, Purpose::Assignment).map_err(OpenError::from)?;
    }

    let pinned = trust.pinned();
    if assignment.fleet != pinned.fleet {
        return Err(Refusal::Fleet { found: assignment.fleet, expected: pinned.fleet.clone() });
    }
    if assignment.node != pinned.node && !planted!(AcceptForeign) {
        return Err(Refusal::Node { found: assignment.node, expected: pinned.node.clone() });
    }
    check_content(&assignment)?;

    let found = assignment.version;
    let Some(&current) = current else { return Ok(Accepted::New(assignment)) };
    match (found.epoch, found.seq).cmp(&(current.epoch, current.seq)) {
        std::cmp::Ordering::Greater => Ok(Accepted::New(assignment)),
        std::cmp::Ordering::Less if planted!(AcceptOlder) => Ok(Accepted::New(assignment)),
        std::cmp::Ordering::Less => Err(Refusal::Stale { found, current }),
        std::cmp::Ordering::Equal if found.digest == current.digest => Ok(Accepted::Known(assignment)),
        std::cmp::Ordering::Equal => Err(Refusal::Conflict { found, current }),
    }
}

fn check_content(assignment: &Assignment) -> Result<(), Refusal> {
    let too_many = |what, count: usize, max: usize| {
        if count > max { Err(Refusal::TooMany { what, count, max }) } else { Ok(()) }
    };
    too_many("instances", assignment.instances.len(), INSTANCES_PER_NODE_MAX)?;
    too_many("keys", assignment.keys.len(), WRAPPED_KEYS_MAX)?;
    let kept = assignment.images.as_ref().and_then(|images| images.keep.as_ref());
    too_many("images to keep", kept.map_or(0, Vec::len), KEPT_IMAGES_MAX)?;

    let mut sorted: Vec<_> = assignment.instances.iter().collect();
    sorted.sort_by(|left, right| left.id.cmp(&right.id));
    for pair in sorted.windows(2) {
        if pair[0].id == pair[1].id {
            let instance = Box::new(pair[0].id.clone());
            return Err(Refusal::Inconsistent { instance, problem: "appears twice" });
        }
    }
    // Most instances of a service are made of the same, which is hashed once.
    let mut last: Option<(&InstanceSpec, Digest)> = None;
    for instance in &sorted {
        let inconsistent =
            |problem| Err(Refusal::Inconsistent { instance: Box::new(instance.id.clone()), problem });
        if instance.spec.app_env != instance.id.slot.app_env {
            return inconsistent("has the spec of another app");
        }
        if instance.spec.service != instance.id.slot.service {
            return inconsistent("has the spec of another service");
        }
        if instance.replaces.as_ref() == Some(&instance.id) {
            return inconsistent("replaces itself");
        }
        let same = last.filter(|(spec, _)| **spec == instance.spec);
        let found = same.map_or_else(|| instance.spec.digest(), |(_, digest)| digest);
        last = Some((&instance.spec, found));
        if found != instance.spec_digest {
            let claimed = instance.spec_digest;
            return Err(Refusal::SpecDigest { instance: Box::new(instance.id.clone()), found, claimed });
        }
    }
    let found =
        assignment_digest(sorted.iter().map(|row| (&row.id, &row.spec_digest, row.replaces.as_ref())));
    if found == assignment.version.digest {
        Ok(())
    } else {
        Err(Refusal::Digest { found, claimed: assignment.version.digest })
    }
}

#[cfg(test)]
#[path = "accept_tests.rs"]
mod tests;
