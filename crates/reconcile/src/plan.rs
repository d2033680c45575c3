//! From what is desired and what is observed to what to do next.
//!
//! A plan is only the next move of each subject, never a script to its end: the
//! plan after it is made from a new inspection. So there is no state between two
//! moves that only the process knows, and it may be killed at any point.

use std::collections::{BTreeMap, BTreeSet};

use stele_model::release::Restart;
use stele_model::wire::AssignedInstance;
use stele_model::{AppEnv, InstanceId};

use crate::memory::Memory;
use crate::observation::{ContainerState, Observation, ObservedContainer};

/// One thing to do with the container engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Check the instance against the host's policy and have its image here. Comes before
    /// anything else, so that what can never run costs no running container.
    Prepare(InstanceId),
    /// Have the app's network.
    EnsureNetwork(AppEnv),
    /// Remove the app's network.
    RemoveNetwork(AppEnv),
    /// Make the instance's container, without starting it.
    Create(InstanceId),
    /// Put the instance's files into a container that never ran.
    WriteFiles {
        /// Whose files.
        instance: InstanceId,
        /// The engine's id of the container.
        container: String,
    },
    /// Start a container.
    Start {
        /// The engine's id of the container.
        container: String,
        /// Whether it ran before.
        again: bool,
    },
    /// Ask a container to stop; kill it when the grace has passed.
    Stop {
        /// The engine's id of the container.
        container: String,
        /// Between asking and killing, in seconds.
        grace_seconds: u32,
    },
    /// Remove a container with its writable layer. Named volumes stay.
    Remove {
        /// The engine's id of the container.
        container: String,
    },
    /// Let a frozen container go on.
    Unpause {
        /// The engine's id of the container.
        container: String,
    },
}

/// What a task is about. One task per subject runs at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Getting an instance to run.
    Instance(InstanceId),
    /// Getting rid of a container, by the engine's id.
    Container(String),
    /// An app's network.
    Network(AppEnv),
}

/// Actions that follow one another; the first that fails ends the task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// What it is about.
    pub subject: Subject,
    /// In order.
    pub actions: Vec<Action>,
}

/// The next move of every subject that has one.
///
/// Subjects whose task is still running, or whose last attempt failed too recently, are
/// left alone. Applied until it is empty, it makes what runs equal to what is desired.
pub fn plan(desired: &[AssignedInstance], observed: &Observation, memory: &Memory, now_ms: u64) -> Vec<Task> {
    let groups = observed.by_instance();
    let wanted: BTreeMap<_, _> = desired.iter().map(|instance| (&instance.id, instance)).collect();
    // Containers that stay until the one that replaces them can be made.
    let held: BTreeSet<_> = wanted
        .values()
        .filter(|_| !planted!(RemoveUnprepared))
        .filter(|instance| !memory.is_prepared(&instance.id) && !groups.contains_key(&instance.id))
        .filter_map(|instance| instance.replaces.as_ref())
        .collect();

    let mut tasks = Vec::new();
    for instance in wanted.values() {
        let group = groups.get(&instance.id).map_or(&[][..], Vec::as_slice);
        let keep = group.iter().position(|container| is_of_spec(container, instance)).unwrap_or(0);
        for (at, container) in group.iter().enumerate() {
            if at != keep || replacement_reason(container, instance).is_some() {
                tasks.extend(removal(container));
            }
        }
        let actions = match group.get(keep) {
            None => make(instance, observed, &groups, memory),
            Some(container) if replacement_reason(container, instance).is_some() => Vec::new(),
            Some(container) => tend(instance, container, memory, now_ms),
        };
        if !actions.is_empty() {
            tasks.push(Task { subject: Subject::Instance(instance.id.clone()), actions });
        }
    }
    for (id, group) in &groups {
        // A task of an instance that is no longer wanted ends first, so that no
        // container appears behind the back of its removal.
        let working = memory.is_busy(&Subject::Instance((*id).clone()));
        if !wanted.contains_key(id) && !held.contains(id) && !working {
            tasks.extend(group.iter().filter_map(|container| removal(container)));
        }
    }
    tasks.extend(networks(desired, observed, memory));
    tasks.retain(|task| !memory.is_busy(&task.subject) && memory.may_try(&task.subject, now_ms));
    tasks
}

/// Why a desired instance's container cannot stay, if it cannot.
pub(crate) fn replacement_reason(
    container: &ObservedContainer,
    instance: &AssignedInstance,
) -> Option<String> {
    if !is_of_spec(container, instance) {
        Some("its container was made of another spec".to_owned())
    } else if let Some(drift) = &container.drift {
        Some(format!("its container was changed by hand ({drift})"))
    } else if container.state == ContainerState::Dead {
        Some("the engine left its container dead".to_owned())
    } else {
        None
    }
}

fn is_of_spec(container: &ObservedContainer, instance: &AssignedInstance) -> bool {
    container.spec_digest == Some(instance.spec_digest)
}

fn removal(container: &ObservedContainer) -> Option<Task> {
    let id = || container.id.clone();
    let stop = || Action::Stop { container: id(), grace_seconds: container.stop_grace_seconds };
    let remove = || Action::Remove { container: id() };
    let actions = match container.state {
        // A frozen container cannot be asked to stop.
        ContainerState::Paused => vec![Action::Unpause { container: id() }, stop(), remove()],
        ContainerState::Running | ContainerState::Restarting => vec![stop(), remove()],
        ContainerState::Created | ContainerState::Exited | ContainerState::Dead => vec![remove()],
        ContainerState::Removing => return None,
    };
    Some(Task { subject: Subject::Container(id()), actions })
}

fn make(
    instance: &AssignedInstance,
    observed: &Observation,
    groups: &BTreeMap<&InstanceId, Vec<&ObservedContainer>>,
    memory: &Memory,
) -> Vec<Action> {
    if !memory.is_prepared(&instance.id) {
        return vec![Action::Prepare(instance.id.clone())];
    }
    let waits = instance
        .replaces
        .as_ref()
        .is_some_and(|old| groups.contains_key(old) || memory.is_busy(&Subject::Instance(old.clone())));
    if waits || !observed.networks.contains(&instance.spec.app_env) {
        return Vec::new();
    }
    vec![Action::Create(instance.id.clone())]
}

/// What a container that was created and never ran takes. Whoever has just created it need not look
/// first.
pub fn first_start(instance: &InstanceId, container: &str) -> [Action; 2] {
    [
        Action::WriteFiles { instance: instance.clone(), container: container.to_owned() },
        Action::Start { container: container.to_owned(), again: false },
    ]
}

fn tend(
    instance: &AssignedInstance,
    container: &ObservedContainer,
    memory: &Memory,
    now_ms: u64,
) -> Vec<Action> {
    let id = || container.id.clone();
    match container.state {
        // Whether its files are in it cannot be told, so they are written again.
        ContainerState::Created => first_start(&instance.id, &container.id).to_vec(),
        ContainerState::Paused => vec![Action::Unpause { container: id() }],
        ContainerState::Exited
            if starts_again(instance, container) && memory.restart_due_ms(&instance.id) <= now_ms =>
        {
            vec![Action::Start { container: id(), again: true }]
        }
        _ => Vec::new(),
    }
}

/// Whether the restart policy wants an ended container started again.
pub(crate) fn starts_again(instance: &AssignedInstance, container: &ObservedContainer) -> bool {
    match instance.spec.container.restart {
        Restart::Always => true,
        Restart::OnFailure => container.exit_code != Some(0),
        Restart::Never => false,
    }
}

fn networks<'a>(
    desired: &'a [AssignedInstance],
    observed: &'a Observation,
    memory: &'a Memory,
) -> impl Iterator<Item = Task> + 'a {
    let needed: BTreeSet<_> = desired.iter().map(|instance| &instance.spec.app_env).collect();
    let used: BTreeSet<_> =
        observed.containers.iter().map(|container| &container.instance.slot.app_env).collect();
    let missing = needed.clone().into_iter().filter(|app_env| !observed.networks.contains(*app_env));
    let unused = observed.networks.iter().filter(move |app_env| {
        !needed.contains(app_env) && !used.contains(app_env) && !memory.works_for(app_env)
    });
    let task =
        |app_env: &AppEnv, action| Task { subject: Subject::Network(app_env.clone()), actions: vec![action] };
    missing
        .map(move |app_env| task(app_env, Action::EnsureNetwork(app_env.clone())))
        .chain(unused.map(move |app_env| task(app_env, Action::RemoveNetwork(app_env.clone()))))
}
