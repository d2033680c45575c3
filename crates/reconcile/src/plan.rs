//! From what is desired and what is observed to what to do next.
//!
//! A plan is only the next move of each subject, never a script to its end: the
//! plan after it is made from a new inspection. So there is no state between two
//! moves that only the process knows, and it may be killed at any point.

use std::collections::{BTreeMap, BTreeSet};

use stele_model::release::Restart;
use stele_model::wire::AssignedInstance;
use stele_model::{AppEnv, InstanceId, Slot};

use crate::memory::{InstanceMemory, Memory};
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
    /// Make the instance's container, without starting it. Of [`first_start`], its files are written
    /// next, and it is started after all else in its task.
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

impl Subject {
    /// Whether it is about an instance that is not desired any more. Its task ends then, before its next
    /// action: nothing is to be stopped or started for it.
    pub fn is_withdrawn(&self, is_desired: impl Fn(&InstanceId) -> bool) -> bool {
        matches!(self, Self::Instance(id) if !is_desired(id))
    }
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
    let wanted: BTreeMap<_, _> = desired.iter().map(|instance| (&instance.id, instance)).collect();
    let heirs = Heirs::of(desired);
    let mut replaced: BTreeMap<&InstanceId, Vec<&ObservedContainer>> = BTreeMap::new();
    for (id, group) in observed.by_instance().filter(|(id, _)| !wanted.contains_key(id)) {
        if let Some(heir) = heirs.of_instance(id) {
            replaced.entry(&heir.id).or_default().extend(group);
        }
    }
    let node = Node { wanted, observed, heirs, replaced, memory };

    let mut tasks = Vec::new();
    for instance in node.wanted.values() {
        let group = observed.containers_of(&instance.id);
        let keep = group.iter().position(|container| is_of_spec(container, instance)).unwrap_or(0);
        let reason = |container| replacement_reason(container, instance, memory.instance(&instance.id));
        for (at, container) in group.iter().enumerate() {
            if at != keep || reason(container).is_some() {
                tasks.extend(removal(container));
            }
        }
        let actions = match group.get(keep) {
            None => node.make(instance),
            Some(container) if reason(container).is_some() => Vec::new(),
            Some(container) => node.tend(instance, container, now_ms),
        };
        if !actions.is_empty() {
            tasks.push(Task { subject: Subject::Instance(instance.id.clone()), actions });
        }
    }
    for (id, group) in observed.by_instance() {
        // A task of an instance that is no longer wanted ends first, so that no
        // container appears behind the back of its removal.
        let working = memory.is_busy(&Subject::Instance(id.clone()));
        let held = node.heirs.of_instance(id).is_some_and(|instance| node.holds(instance));
        if !node.wanted.contains_key(id) && !held && !working {
            let free = group.iter().filter(|container| !memory.is_stopping(&container.id));
            tasks.extend(free.filter_map(removal));
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
    known: Option<&InstanceMemory>,
) -> Option<String> {
    if !is_of_spec(container, instance) {
        Some("its container was made of another spec".to_owned())
    } else if let Some(drift) = &container.drift
        && known.is_none_or(|known| !known.is_made_so(container))
    {
        Some(format!("its container was changed by hand ({drift})"))
    } else if container.state == ContainerState::Dead {
        Some("the engine left its container dead".to_owned())
    } else {
        None
    }
}

pub(crate) fn is_of_spec(container: &ObservedContainer, instance: &AssignedInstance) -> bool {
    container.spec_digest == Some(instance.spec_digest)
}

fn removal(container: &ObservedContainer) -> Option<Task> {
    if matches!(container.state, ContainerState::Removing | ContainerState::Unknown) {
        return None;
    }
    let mut actions = stop(container);
    actions.push(Action::Remove { container: container.id.clone() });
    Some(Task { subject: Subject::Container(container.id.clone()), actions })
}

fn stop(container: &ObservedContainer) -> Vec<Action> {
    let id = || container.id.clone();
    let stop = || Action::Stop { container: id(), grace_seconds: container.stop_grace_seconds };
    match container.state {
        // A frozen container cannot be asked to stop.
        ContainerState::Paused => vec![Action::Unpause { container: id() }, stop()],
        ContainerState::Running | ContainerState::Restarting => vec![stop()],
        ContainerState::Unknown
        | ContainerState::Created
        | ContainerState::Exited
        | ContainerState::Dead
        | ContainerState::Removing => Vec::new(),
    }
}

/// Which instance comes instead of which.
pub(crate) struct Heirs<'a> {
    direct: BTreeMap<&'a InstanceId, &'a AssignedInstance>,
    last: BTreeMap<&'a Slot, &'a AssignedInstance>,
}

impl<'a> Heirs<'a> {
    pub(crate) fn of(desired: &'a [AssignedInstance]) -> Self {
        let mut heirs = Self { direct: BTreeMap::new(), last: BTreeMap::new() };
        for instance in desired {
            let Some(old) = &instance.replaces else { continue };
            heirs.direct.insert(old, instance);
            let last = heirs.last.entry(&instance.id.slot).or_insert(instance);
            if last.id < instance.id {
                *last = instance;
            }
        }
        heirs
    }

    /// What comes instead of an instance. Where that came to nothing and was replaced itself, it is the
    /// last one that is to take its slot over.
    pub(crate) fn of_instance(&self, id: &InstanceId) -> Option<&'a AssignedInstance> {
        self.direct.get(id).or_else(|| self.last.get(&id.slot)).copied()
    }
}

/// What is wanted on a node, what is there, and what is known besides.
struct Node<'a> {
    wanted: BTreeMap<&'a InstanceId, &'a AssignedInstance>,
    observed: &'a Observation,
    heirs: Heirs<'a>,
    /// The containers that each instance comes instead of.
    replaced: BTreeMap<&'a InstanceId, Vec<&'a ObservedContainer>>,
    memory: &'a Memory,
}

impl Node<'_> {
    /// Whether the containers that an instance replaces stay for now: until the new one has started, or
    /// cannot be made before the old one is gone. So what can never be made costs no running container.
    fn holds(&self, instance: &AssignedInstance) -> bool {
        let mut group = self.observed.containers_of(&instance.id).iter();
        let known = self.memory.instance(&instance.id);
        match group.find(|container| replacement_reason(container, instance, known).is_none()) {
            _ if planted!(RemoveUnprepared) => false,
            Some(container) => matches!(container.state, ContainerState::Created | ContainerState::Unknown),
            None => !self.memory.is_prepared(&instance.id) || is_made_beside(instance),
        }
    }

    fn make(&self, instance: &AssignedInstance) -> Vec<Action> {
        if !self.memory.is_prepared(&instance.id) {
            return vec![Action::Prepare(instance.id.clone())];
        }
        if !self.observed.networks().contains(&instance.spec.app_env) {
            return Vec::new();
        }
        match self.stop_replaced(instance) {
            Some(stop) if stop.is_empty() || is_made_beside(instance) => {
                [vec![Action::Create(instance.id.clone())], stop].concat()
            }
            _ => Vec::new(),
        }
    }

    fn tend(&self, instance: &AssignedInstance, container: &ObservedContainer, now_ms: u64) -> Vec<Action> {
        let id = || container.id.clone();
        match container.state {
            // Whether its files are in it cannot be told, so they are written again.
            ContainerState::Created => {
                let [write, start] = first_start(&instance.id, &container.id).map(|action| vec![action]);
                match self.stop_replaced(instance) {
                    // What cannot be written costs no running container either.
                    Some(stop) if is_made_beside(instance) => [write, stop, start].concat(),
                    Some(stop) => [stop, write, start].concat(),
                    None => Vec::new(),
                }
            }
            ContainerState::Paused => vec![Action::Unpause { container: id() }],
            ContainerState::Exited
                if starts_again(instance, container) && self.memory.may_start_again(&instance.id, now_ms) =>
            {
                vec![Action::Start { container: id(), again: true }]
            }
            _ => Vec::new(),
        }
    }

    /// What stops the containers that an instance replaces, so that it can start; nothing while they may
    /// not be stopped, or one may still be made or started.
    fn stop_replaced(&self, instance: &AssignedInstance) -> Option<Vec<Action>> {
        let Some(old) = &instance.replaces else { return Some(Vec::new()) };
        if self.wanted.contains_key(old) || self.memory.makes_another(&instance.id) {
            return None;
        }
        let replaced = self.replaced.get(&instance.id).into_iter().flatten();
        if replaced.clone().any(|container| container.state == ContainerState::Unknown) {
            return None;
        }
        Some(replaced.flat_map(|container| stop(container)).collect())
    }
}

/// Whether its container can be made while the one it replaces runs. Making one may write to its
/// volumes, and what its raw Docker options do nobody here knows.
fn is_made_beside(instance: &AssignedInstance) -> bool {
    instance.spec.container.volumes.is_empty() && instance.spec.container.docker.is_none()
}

/// What a container that was created and never ran takes. Whoever has just created it need not look
/// first.
pub fn first_start(instance: &InstanceId, container: &str) -> [Action; 2] {
    [
        Action::WriteFiles { instance: instance.clone(), container: container.to_owned() },
        Action::Start { container: container.to_owned(), again: false },
    ]
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
        observed.containers().iter().map(|container| &container.instance.slot.app_env).collect();
    let missing = needed.clone().into_iter().filter(|app_env| !observed.networks().contains(*app_env));
    let unused = observed.networks().iter().filter(move |app_env| {
        !needed.contains(app_env) && !used.contains(app_env) && !memory.works_for(app_env)
    });
    let task =
        |app_env: &AppEnv, action| Task { subject: Subject::Network(app_env.clone()), actions: vec![action] };
    missing
        .map(move |app_env| task(app_env, Action::EnsureNetwork(app_env.clone())))
        .chain(unused.map(move |app_env| task(app_env, Action::RemoveNetwork(app_env.clone()))))
}
