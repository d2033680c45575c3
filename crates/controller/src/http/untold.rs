//! Nodes that cannot be told what to run, because that does not fit one message.

use stele_api::wire::{NodeStatus, ProblemStatus};
use stele_bus::limits::ASSIGNMENT_BYTES_MAX;
use stele_model::wire::{Assignment, AssignmentVersion};
use stele_model::{Digest, NodeName, Scope, State};

use crate::handle::Handle;
use crate::limits::{KEPT_IMAGES_BYTES_MAX, SIZED_IMAGES_MAX};
use crate::outbox::empty_assignment;
use crate::sizes::Sizes;

/// Says so of those that were not told yet. Who was told has what it is to run, whatever it takes.
pub(super) async fn untold(handle: &Handle, state: &State, nodes: &[NodeStatus]) -> Vec<ProblemStatus> {
    let max = handle.bus().assignment_bytes_max();
    let empty = |node: &NodeName| {
        let (epoch, seq) = state.assignment_seq(node);
        // The digest is dear, and no longer than another.
        let version = AssignmentVersion { epoch, seq, digest: Digest::EMPTY };
        empty_assignment(handle.identity(), node, version, None)
    };
    let mut sizes = Sizes::default();
    let (mut problems, near) = sort(state, nodes, &mut sizes, max, empty);
    for node in near {
        let images = handle.image_policy(state, node).await;
        let rest = Assignment { images: Some(images), ..empty(node) };
        problems.extend(too_large(node, sizes.of(state, &rest), max));
    }
    problems
}

/// Those that cannot be told, and those of which the images that they keep make the difference.
fn sort<'a>(
    state: &State,
    nodes: &'a [NodeStatus],
    sizes: &mut Sizes,
    max: usize,
    empty: impl Fn(&NodeName) -> Assignment,
) -> (Vec<ProblemStatus>, Vec<&'a NodeName>) {
    let (mut problems, mut near) = (Vec::new(), Vec::new());
    for node in nodes.iter().filter(|node| node.reachable && !node.current) {
        let bytes = sizes.of(state, &empty(&node.name));
        match too_large(&node.name, bytes, max) {
            Some(problem) => problems.push(problem),
            None if bytes + KEPT_IMAGES_BYTES_MAX > max && near.len() < SIZED_IMAGES_MAX => {
                near.push(&node.name);
            }
            None => {}
        }
    }
    (problems, near)
}

fn too_large(node: &NodeName, bytes: usize, max: usize) -> Option<ProblemStatus> {
    if bytes <= max {
        return None;
    }
    let (most, further) = if bytes <= ASSIGNMENT_BYTES_MAX {
        (max, format!("that NATS carries in one message; raise its max_payload to {ASSIGNMENT_BYTES_MAX}"))
    } else {
        // With a larger max_payload it would still not do.
        let further = "that one message may take; move large files into the image or a volume, or run fewer \
                       instances on it";
        (ASSIGNMENT_BYTES_MAX, further.to_owned())
    };
    // Rounded so that the one never looks like the other.
    let unit = if most < MIB { KIB } else { MIB };
    let takes = amount(bytes.saturating_mul(10).div_ceil(unit), unit);
    let most = amount(most.saturating_mul(10) / unit, unit);
    Some(ProblemStatus {
        scope: Scope::of_node(node),
        instance: None,
        message: format!(
            "the node cannot be told what to run: its assignment takes {takes}, more than the {most} {further}. \
             Until then it runs what it was told before"
        ),
        since: None,
        contacts: stele_model::event::Contacts::default(),
        log_tail: Vec::new(),
        next: Some(format!("stele status node:{node}")),
        node: Some(node.clone()),
    })
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Tenths of a unit, as written.
fn amount(tenths: usize, unit: usize) -> String {
    let name = if unit == KIB { "KiB" } else { "MiB" };
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

#[cfg(test)]
#[path = "untold_tests.rs"]
mod tests;
