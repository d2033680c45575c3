//! What the node tells the fleet about its instances.

use std::collections::BTreeSet;

use stele_model::InstanceId;
use stele_model::wire::{AssignedInstance, InstanceReport, Phase, Remarks};

use crate::health::Verdict;
use crate::limits::{CRASH_LOOP_ENDS, REASON_BYTES_MAX, SETTLE_MS};
use crate::memory::{Failure, InstanceMemory, Memory, RunEnd, bounded};
use crate::observation::{ContainerState, Observation, ObservedContainer};
use crate::plan::{Action, Heirs, Subject, replacement_reason, starts_again};

/// One report for every instance that is desired or present, in id order.
pub fn report(
    desired: &[AssignedInstance],
    observed: &Observation,
    memory: &Memory,
    now_ms: u64,
) -> Vec<InstanceReport> {
    let heirs = Heirs::of(desired);
    let mut reports: Vec<_> = desired
        .iter()
        .map(|instance| {
            let group = observed.containers_of(&instance.id);
            let same = group.iter().find(|one| one.spec_digest == Some(instance.spec_digest));
            let container = same.or(group.first());
            let (phase, reason) = phase(instance, container, memory, now_ms);
            compose(&instance.id, container, memory, phase, reason)
        })
        .collect();
    let wanted: BTreeSet<_> = desired.iter().map(|instance| &instance.id).collect();
    let leaving = observed.by_instance().filter(|(id, _)| !wanted.contains(id));
    reports.extend(leaving.map(|(id, group)| {
        let phase = match memory.instance(id).and_then(|known| known.phase).unwrap_or(Phase::Starting) {
            // It is there still, and was stopped as it should be.
            Phase::Starting | Phase::Healthy | Phase::Unhealthy if group.iter().all(has_ended) => {
                Phase::Completed
            }
            phase => phase,
        };
        let successor = heirs.of_instance(id);
        let made = |new: &AssignedInstance| observed.of(&new.id);
        let failure = memory.failure(&Subject::Container(group[0].id.clone()));
        let unknown = group.iter().find(|one| one.state == ContainerState::Unknown);
        let reason = match (failure, successor) {
            _ if let Some(unknown) = unknown => not_known(unknown),
            (Some(failure), _) => format!("cannot be removed: {}", failure.reason),
            (None, Some(new)) => match made(new) {
                None if !memory.is_prepared(&new.id) => format!("stays until {} can be made", new.id),
                None => format!("stays until {} is made", new.id),
                Some(made) if made.state == ContainerState::Created => {
                    format!("stays until {} has started", new.id)
                }
                Some(_) => "is being removed".to_owned(),
            },
            (None, None) => "is being removed".to_owned(),
        };
        compose(id, group.first(), memory, phase, Some(reason))
    }));
    reports.sort_by(|left, right| left.id.cmp(&right.id));
    reports
}

/// What is told while the engine cannot be looked at, and has not been for longer than [`UNSEEN_GRACE_MS`]: what was
/// seen last, but nothing counts as healthy, because nobody knows. Of what came since, only that nothing is known.
///
/// [`UNSEEN_GRACE_MS`]: crate::limits::UNSEEN_GRACE_MS
pub fn unseen(desired: &[AssignedInstance], last: &[InstanceReport], why: &str) -> Vec<InstanceReport> {
    let why = bounded(why, REASON_BYTES_MAX);
    let told: BTreeSet<_> = last.iter().map(|report| &report.id).collect();
    let untold = desired.iter().filter(|instance| !told.contains(&instance.id));
    let untold = untold.map(|instance| InstanceReport {
        id: instance.id.clone(),
        phase: Phase::Pending,
        spec_digest: None,
        container: None,
        restarts: 0,
        remarks: Remarks::of(Some(why.clone()), None, Vec::new()),
    });
    let seen = last.iter().map(|report| {
        let phase = match report.phase {
            Phase::Healthy => Phase::Unhealthy,
            Phase::Failed | Phase::Completed => return report.clone(),
            phase => phase,
        };
        let remarks = Remarks::of(Some(why.clone()), report.exit_code(), report.log_tail().to_vec());
        InstanceReport { phase, remarks, ..report.clone() }
    });
    let mut reports: Vec<_> = seen.chain(untold).collect();
    reports.sort_by(|left, right| left.id.cmp(&right.id));
    reports
}

fn compose(
    id: &InstanceId,
    container: Option<&ObservedContainer>,
    memory: &Memory,
    phase: Phase,
    reason: Option<String>,
) -> InstanceReport {
    let known = memory.instance(id);
    let log_tail = match (phase, known) {
        (Phase::Failed, Some(known)) => known.log_tail.clone(),
        _ => Vec::new(),
    };
    InstanceReport {
        id: id.clone(),
        phase,
        spec_digest: container.and_then(|container| container.spec_digest).map(Into::into),
        container: container.map(|container| container.id.as_str().into()),
        restarts: known.map_or(0, |known| known.restarts),
        remarks: Remarks::of(reason, container.and_then(|container| exit_code(container, known)), log_tail),
    }
}

/// That something failed which is tried again, in words.
fn delayed(failure: &Failure) -> String {
    let times = match failure.attempts {
        1 => "1 time".to_owned(),
        attempts => format!("{attempts} times"),
    };
    format!("failed {times}, trying again: {}", failure.reason)
}

fn not_known(container: &ObservedContainer) -> String {
    let why = container.error.as_deref().unwrap_or("the engine does not answer for it");
    format!("its container is left alone, since its state is not known: {why}")
}

fn has_ended(container: &ObservedContainer) -> bool {
    matches!(container.state, ContainerState::Exited | ContainerState::Dead)
}

fn is_looping(known: &InstanceMemory) -> bool {
    known.unstable_ends >= CRASH_LOOP_ENDS + u32::from(planted!(RestartBudgetOffByOne))
}

fn exit_code(container: &ObservedContainer, known: Option<&InstanceMemory>) -> Option<i64> {
    match container.state {
        ContainerState::Exited | ContainerState::Restarting | ContainerState::Dead => container.exit_code,
        ContainerState::Running => known.filter(|known| is_looping(known))?.last_end.as_ref()?.exit_code,
        _ => None,
    }
}

type Told = (Phase, Option<String>);

fn phase(
    instance: &AssignedInstance,
    container: Option<&ObservedContainer>,
    memory: &Memory,
    now_ms: u64,
) -> Told {
    let subject = Subject::Instance(instance.id.clone());
    let network = Subject::Network(instance.spec.app_env.clone());
    let failed = memory.failure(&subject).or_else(|| memory.failure(&network));
    // That the one before it cannot be stopped is no failure of its own.
    let (held_up, failed) = match failed {
        Some(one) if matches!(one.action, Action::Stop { .. } | Action::Unpause { .. }) => (Some(one), None),
        failed => (None, failed),
    };
    let failure = || failed.filter(|one| one.is_final).map(|one| one.reason.clone());
    let delay = || failed.filter(|one| !one.is_final).map(delayed);
    let waits = || {
        let old = instance.replaces.as_ref()?;
        let why = held_up.map(|one| format!(": {}", one.reason)).unwrap_or_default();
        Some(format!("waits for {old} to stop{why}"))
    };
    let Some(container) = container else {
        if let Some(reason) = failure() {
            return (Phase::Failed, Some(reason));
        }
        let action = failed.map(|one| &one.action).or_else(|| memory.working_on(&subject));
        return match action {
            Some(Action::Prepare(_)) => (Phase::Pulling, delay()),
            _ => (Phase::Pending, delay().or_else(waits)),
        };
    };
    if let Some(reason) = replacement_reason(container, instance, memory.instance(&instance.id)) {
        return (Phase::Pending, Some(format!("{reason} and is being replaced")));
    }
    let blank = InstanceMemory::default();
    let known = memory.instance(&instance.id).unwrap_or(&blank);
    let looping = is_looping(known);
    let ended = || RunEnd::of(container).words();
    match container.state {
        ContainerState::Created => match failure() {
            Some(reason) => (Phase::Failed, Some(reason)),
            None if held_up.is_some() => (Phase::Pending, waits()),
            None => (Phase::Starting, delay()),
        },
        ContainerState::Unknown => (known.phase.unwrap_or(Phase::Starting), Some(not_known(container))),
        ContainerState::Running if looping => match &known.last_end {
            Some(end) => {
                let times = known.unstable_ends;
                (Phase::Failed, Some(format!("keeps ending, {times} times in a row: {}", end.words())))
            }
            // The engine was quicker than our looks. A failure is told with its reason, and the
            // next end brings that.
            None => (Phase::Starting, Some(format!("ended {} times in a row", known.unstable_ends))),
        },
        ContainerState::Running => {
            let (phase, reason) = running(instance, container, known, now_ms);
            let made = container.drift.as_ref().or(container.left_out.as_ref());
            (phase, reason.or_else(|| made.map(|made| format!("the engine makes it otherwise ({made})"))))
        }
        ContainerState::Paused => (Phase::Unhealthy, Some("was paused by hand".to_owned())),
        ContainerState::Removing => {
            (Phase::Pending, Some("its container is being removed by hand".to_owned()))
        }
        ContainerState::Restarting if looping => (
            Phase::Failed,
            Some(format!("keeps ending, {} times in a row: {}", known.unstable_ends, ended())),
        ),
        ContainerState::Restarting => (Phase::Starting, Some(ended())),
        ContainerState::Exited | ContainerState::Dead if starts_again(instance, container) => {
            match (failure(), looping) {
                (Some(reason), _) => (Phase::Failed, Some(reason)),
                (None, true) => {
                    let times = known.unstable_ends;
                    (Phase::Failed, Some(format!("keeps ending, {times} times in a row: {}", ended())))
                }
                (None, false) => (Phase::Starting, delay().or_else(|| Some(ended()))),
            }
        }
        ContainerState::Exited | ContainerState::Dead if container.exit_code == Some(0) => {
            (Phase::Completed, None)
        }
        ContainerState::Exited | ContainerState::Dead => (Phase::Failed, Some(ended())),
    }
}

fn running(
    instance: &AssignedInstance,
    container: &ObservedContainer,
    known: &InstanceMemory,
    now_ms: u64,
) -> Told {
    if instance.spec.container.health.is_none() {
        let settled = container.uptime_ms(now_ms) >= SETTLE_MS;
        return (if settled { Phase::Healthy } else { Phase::Starting }, None);
    }
    let error = || known.health.error.clone().unwrap_or_default();
    match known.health.verdict {
        Verdict::Unknown => (Phase::Starting, known.health.error.clone()),
        Verdict::Passing => (Phase::Healthy, None),
        Verdict::Failing if known.ever_healthy => (Phase::Unhealthy, Some(error())),
        Verdict::Failing => (Phase::Failed, Some(format!("never became healthy: {}", error()))),
    }
}
