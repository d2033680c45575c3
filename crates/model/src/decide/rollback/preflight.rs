//! What would keep a plan from being carried out, as far as State knows.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::RollbackPlan;
use crate::decide::erase::sealed_in;
use crate::event::{Deviation, Pin};
use crate::ids::{AppEnv, NodeName, Slot};
use crate::release::{Protocol, Revision, Service};
use crate::state::State;

/// Writes into each plan why it cannot be carried out.
pub(super) fn check(state: &State, plans: &mut [RollbackPlan]) {
    let mut after = state.clone();
    for plan in plans.iter() {
        plan.apply(&mut after);
    }
    let conflicts = port_conflicts(&after, plans);
    for plan in plans.iter_mut().filter(|plan| plan.is_change(state)) {
        let pinned = plan.pins.iter().filter_map(|(_, pin)| match pin {
            Some(Pin::Revision(revision)) => Some(revision),
            _ => None,
        });
        let revisions: Vec<_> = plan.to.iter().chain(pinned).collect();
        let mut blocked = Vec::new();
        for revision in revisions {
            unreadable(state, &plan.app_env, revision, &mut blocked);
        }
        blocked.sort();
        blocked.dedup();
        plan.blocked.append(&mut blocked);
        plan.blocked.extend(conflicts.get(&plan.app_env).into_iter().flatten().cloned());
    }
}

/// Takes plans away that cannot be carried out, and says so of each.
///
/// An app that stays as it is may be in another one's way: what is left is looked at again.
pub(super) fn leave_blocked(state: &State, plans: &mut Vec<RollbackPlan>) -> Vec<Deviation> {
    let mut deviations = Vec::new();
    while let Some(at) = plans.iter().position(|plan| !plan.blocked.is_empty()) {
        let left = plans.remove(at);
        deviations.push(Deviation {
            what: left.app_env.to_string(),
            why: format!("left as it is: {}", left.blocked.join("; ")),
        });
        let mut rest = std::mem::take(plans);
        let told: Vec<_> = rest.iter_mut().map(|plan| std::mem::take(&mut plan.blocked)).collect();
        check(state, &mut rest);
        for (plan, told) in rest.iter_mut().zip(told) {
            // What others found out stays true.
            plan.blocked.extend(told);
            plan.blocked.sort();
            plan.blocked.dedup();
        }
        *plans = rest;
    }
    deviations
}

/// Why the containers of a revision cannot be made again.
fn unreadable(state: &State, app_env: &AppEnv, revision: &Revision, blocked: &mut Vec<String>) {
    let Some(release) = state.release_of(revision) else {
        blocked.push(format!("release {} is not known", revision.release.short()));
        return;
    };
    for service in release.services.keys() {
        let Some(spec) = state.instance_spec(app_env, revision, service) else {
            blocked.push(format!("service {service} refers to a config or secret version that is not known"));
            continue;
        };
        for (name, sealed) in sealed_in(&spec) {
            if state.is_erased(sealed) {
                blocked.push(format!(
                    "{name} of service {service} was sealed for {}, whose keys are destroyed",
                    sealed.subject
                ));
            }
        }
    }
}

/// Published ports that two instances on one node would both want, by the restored app.
fn port_conflicts(after: &State, plans: &[RollbackPlan]) -> BTreeMap<AppEnv, Vec<String>> {
    let restored: BTreeSet<_> = plans.iter().map(|plan| &plan.app_env).collect();
    let mut held: BTreeMap<(&NodeName, u16, Protocol), Vec<&Slot>> = BTreeMap::new();
    for (slot, node, service) in after.filled_slots() {
        for (port, protocol) in service.into_iter().flat_map(host_ports) {
            held.entry((node, port, protocol)).or_default().push(slot);
        }
    }
    let mut conflicts: BTreeMap<AppEnv, Vec<String>> = BTreeMap::new();
    for ((node, port, _), slots) in held.into_iter().filter(|(_, slots)| slots.len() > 1) {
        for slot in slots.iter().filter(|slot| restored.contains(&slot.app_env)) {
            let Some(other) = slots.iter().find(|other| *other != slot) else { continue };
            let told = conflicts.entry(slot.app_env.clone()).or_default();
            told.push(format!("port {port} on node {node} is {other}'s"));
        }
    }
    conflicts
}

/// The host's ports that an instance of a service wants.
pub(super) fn host_ports(service: &Service) -> impl Iterator<Item = (u16, Protocol)> {
    service.container.ports.iter().filter_map(|port| Some((port.host?, port.protocol)))
}
