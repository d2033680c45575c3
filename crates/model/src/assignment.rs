//! What a node is told, in full.

use imbl::ordmap::DiffItem;

use crate::digest::Digest;
use crate::ids::{InstanceId, NodeName};
use crate::release::{InstanceSpec, Revision};
use crate::state::State;
use crate::wire::AssignedInstance;

impl State {
    /// Everything a node has been told to run, with the specs filled in, one by one: all of it may be large. An error
    /// says that State contradicts itself, which nobody must be told to act upon.
    pub fn assigned_instances(
        &self,
        node: &NodeName,
    ) -> impl Iterator<Item = Result<AssignedInstance, String>> {
        let assigned = self.assigned.get(node).into_iter().flat_map(|assigned| &assigned.instances);
        // Instances of one service are together, and mostly made of the same: that is hashed once.
        let mut last: Option<(&InstanceId, &Revision, InstanceSpec, Digest)> = None;
        assigned.map(move |(id, to)| {
            let same = last.take().filter(|(other, revision, ..)| {
                (&other.slot.app_env, &other.slot.service) == (&id.slot.app_env, &id.slot.service)
                    && **revision == *to.revision
            });
            let (spec, digest) = if let Some((_, _, spec, digest)) = same {
                (spec, digest)
            } else {
                let spec = self
                    .instance_spec(&id.slot.app_env, &to.revision, &id.slot.service)
                    .ok_or_else(|| format!("{id} is made of something that is not in State"))?;
                let digest = spec.digest();
                (spec, digest)
            };
            // What was decided and what is sent must be one thing.
            if to.spec != digest {
                return Err(format!("the spec of {id} is not the one that was decided"));
            }
            last = Some((id, &to.revision, spec.clone(), digest));
            Ok(AssignedInstance {
                id: id.clone(),
                spec,
                spec_digest: *to.spec,
                replaces: to.replaces.clone(),
            })
        })
    }

    /// The nodes that are told something else than at an earlier State of the same log, in order of name.
    pub fn assigned_since<'a>(&'a self, earlier: &'a Self) -> impl Iterator<Item = &'a NodeName> {
        earlier.assigned.diff(&self.assigned).filter_map(|item| match item {
            DiffItem::Add(name, _) | DiffItem::Update { new: (name, _), .. } => Some(name),
            DiffItem::Remove(..) => None,
        })
    }
}
