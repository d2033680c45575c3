//! What the node states under its signature: that inspection shows what was assigned, or what else.

use std::collections::{BTreeMap, BTreeSet};

use stele_model::limits::{STATEMENT_DIFFERENCES_MAX, STATEMENT_REASON_BYTES_MAX};
use stele_model::wire::{
    AssignedInstance, InstanceDifference, InstanceReport, Observed, Phase, observed_digest,
};
use stele_model::{Digest, InstanceId, Time};

use crate::limits::{INSPECTION_MS_MAX, INSPECTION_MS_MIN, INSPECTION_SPACING_MS};
use crate::memory::bounded;
use crate::observation::{ContainerState, Observation, ObservedContainer};

/// A container was compared with its spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The engine's id of the container.
    pub container: String,
    /// Which run of it.
    pub started_ms: Option<u64>,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// How it differs from what its spec asks for, or why that cannot be told.
    pub outcome: Result<Vec<String>, String>,
}

/// The last inspection of each instance. Starts empty: what was not inspected is not vouched for.
#[derive(Clone, Debug, Default)]
pub struct Inspections {
    done: BTreeMap<InstanceId, Inspection>,
    /// Containers that the engine said something about since their last inspection began, by its ids.
    changed: BTreeSet<String>,
    /// Any container may be among those.
    anything: bool,
}

impl Inspections {
    /// The engine said that something happened to a container, by its id.
    pub fn container_changed(&mut self, container: String) {
        self.changed.insert(container);
    }

    /// Something may have happened to any container.
    pub fn anything_changed(&mut self) {
        self.anything = true;
    }

    /// The instances whose inspection begins now, at most so many, the one inspected longest ago first:
    /// each container that is another or another run than the one inspected, and each inspected more
    /// than `interval_ms` ago; sooner when something happened to it, later when there are very many.
    pub fn next_round<'a>(
        &mut self,
        desired: &'a [AssignedInstance],
        observed: &'a Observation,
        now_ms: u64,
        interval_ms: u64,
        most: usize,
    ) -> Vec<(&'a AssignedInstance, &'a ObservedContainer)> {
        let wanted: BTreeMap<_, _> = desired.iter().map(|instance| (&instance.id, instance)).collect();
        self.done.retain(|id, _| wanted.contains_key(id));
        let ids = observed.containers().iter().map(|container| &container.id);
        if std::mem::take(&mut self.anything) {
            self.changed = ids.cloned().collect();
        } else if !self.changed.is_empty() {
            let present: BTreeSet<_> = ids.collect();
            self.changed.retain(|container| present.contains(container));
        }
        let spaced_ms = INSPECTION_SPACING_MS.saturating_mul(desired.len() as u64).min(INSPECTION_MS_MAX);
        let pause = |container: &ObservedContainer| {
            let is_changed = self.changed.contains(&container.id);
            if is_changed { interval_ms.min(INSPECTION_MS_MIN) } else { interval_ms.max(spaced_ms) }
        };
        let mut due: Vec<_> = desired
            .iter()
            .filter_map(|instance| {
                let container = observed.of(&instance.id)?;
                // One that never ran may not have its files yet; one that goes is not worth it.
                let settled = matches!(
                    container.state,
                    ContainerState::Running | ContainerState::Paused | ContainerState::Exited
                );
                let last = self.done.get(&instance.id);
                let is_due = last.is_none_or(|last| {
                    last.container != container.id
                        || last.started_ms != container.started_ms
                        || last.at_ms.saturating_add(pause(container)) <= now_ms
                        // The host's clock was set back.
                        || last.at_ms > now_ms
                });
                (settled && is_due).then_some((last.map(|last| last.at_ms), instance, container))
            })
            .collect();
        due.sort_by_key(|(at_ms, ..)| *at_ms);
        due.truncate(most);
        for (.., container) in &due {
            self.changed.remove(&container.id);
        }
        due.into_iter().map(|(_, instance, container)| (instance, container)).collect()
    }

    /// An inspection ended.
    pub fn ended(&mut self, instance: InstanceId, inspection: Inspection) {
        self.done.insert(instance, inspection);
    }

    /// Why the node does not vouch for an instance; otherwise when it was inspected.
    fn judge(
        &self,
        report: &InstanceReport,
        wanted: Option<&AssignedInstance>,
        containers: &[ObservedContainer],
    ) -> Result<u64, String> {
        if wanted.is_none() {
            return Err("is on the node and not assigned to it".to_owned());
        }
        if !matches!(report.phase, Phase::Healthy | Phase::Completed) {
            let phase = format!("{:?}", report.phase).to_lowercase();
            let reason = report.reason().map(|reason| format!(": {reason}")).unwrap_or_default();
            return Err(format!("is {phase}{reason}"));
        }
        let [container] = containers else {
            return Err(format!("has {} containers", containers.len()));
        };
        let Some(inspection) = self.done.get(&report.id).filter(|last| last.container == container.id) else {
            return Err("was not inspected yet".to_owned());
        };
        match &inspection.outcome {
            Ok(differences) if differences.is_empty() => Ok(inspection.at_ms),
            Ok(differences) => Err(differences.join("; ")),
            Err(why) => Err(format!("cannot be inspected: {why}")),
        }
    }
}

/// What the node vouches for, from a look at everything and the inspection of each.
pub fn statement(
    desired: &[AssignedInstance],
    observed: &Observation,
    reports: &[InstanceReport],
    inspections: &Inspections,
) -> Observed {
    let wanted: BTreeMap<_, _> = desired.iter().map(|instance| (&instance.id, instance)).collect();
    let mut rows = Vec::with_capacity(reports.len());
    let mut differs = Vec::new();
    let mut oldest_ms: Option<u64> = None;
    for report in reports {
        let instance = wanted.get(&report.id).copied();
        let containers = observed.containers_of(&report.id);
        let digest = match (inspections.judge(report, instance, containers), instance) {
            (Ok(at_ms), Some(instance)) => {
                oldest_ms = Some(oldest_ms.map_or(at_ms, |oldest| oldest.min(at_ms)));
                instance.spec_digest
            }
            (Ok(_), None) => Digest::EMPTY,
            (Err(why), _) => {
                let digest = Digest::of_json(&("differs", &why));
                let why = bounded(&why, STATEMENT_REASON_BYTES_MAX);
                differs.push(InstanceDifference { instance: report.id.clone(), why });
                digest
            }
        };
        rows.push((&report.id, digest));
    }
    let more = differs.len().saturating_sub(STATEMENT_DIFFERENCES_MAX);
    differs.truncate(STATEMENT_DIFFERENCES_MAX);
    Observed {
        instances: u32::try_from(rows.len()).unwrap_or(u32::MAX),
        digest: observed_digest(rows),
        inspected: oldest_ms.map(|at_ms| Time(at_ms.saturating_mul(1000))),
        differs,
        more: u32::try_from(more).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
#[path = "statement_tests.rs"]
mod tests;
