//! What a node is told, in full.

use crate::ids::NodeName;
use crate::state::State;
use crate::wire::AssignedInstance;

impl State {
    /// Everything a node has been told to run, with the specs filled in. An error says that State
    /// contradicts itself, which nobody must be told to act upon.
    pub fn assigned_instances(&self, node: &NodeName) -> Result<Vec<AssignedInstance>, String> {
        let Some(assigned) = self.assigned.get(node) else { return Ok(Vec::new()) };
        let filled = assigned.instances.iter().map(|(id, to)| {
            let spec = self
                .instance_spec(&id.slot.app_env, &to.revision, &id.slot.service)
                .ok_or_else(|| format!("{id} is made of something that is not in State"))?;
            // What was decided and what is sent must be one thing.
            if spec.digest() != to.spec {
                return Err(format!("the spec of {id} is not the one that was decided"));
            }
            Ok(AssignedInstance { id: id.clone(), spec, spec_digest: to.spec, replaces: to.replaces.clone() })
        });
        filled.collect()
    }
}
