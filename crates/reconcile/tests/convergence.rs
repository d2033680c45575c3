//! Whatever is desired, done by hand, or killed half-way: what runs becomes what is desired.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use stele_model::release::{Container, Image, InstanceSpec, Volume, VolumeSource};
use stele_model::wire::{AssignedInstance, Phase};
use stele_model::{AppEnv, Digest, InstanceId};
use stele_reconcile::limits::FAILED_ATTEMPTS;
use stele_reconcile::{
    Action, Cause, ContainerState, Memory, Observation, ObservedContainer, Setback, Subject, Task,
    first_start, plan, report,
};

/// A step of an agent is at most this many rounds away from having nothing to do.
const ROUNDS_MAX: usize = 40;
/// The version whose container cannot be made beside another.
const WITH_VOLUME: u8 = 2;
/// Longer than any pause between attempts, in milliseconds.
const PAUSE_MS: u64 = 120_000;

/// A container engine, as far as plans care: it answers, refuses, and forgets nothing.
#[derive(Clone, Debug, Default)]
struct Engine {
    made: u64,
    now: u64,
    /// By id: what inspection shows, and the name, which is unique.
    containers: BTreeMap<String, (ObservedContainer, String)>,
    networks: BTreeSet<AppEnv>,
    images: BTreeSet<Image>,
    /// Starts so far, by container.
    starts: BTreeMap<String, u32>,
    /// Attempts to fail before the next succeed.
    failing: u32,
    /// Attempts that succeed, though the answer is lost.
    unheard: u32,
}

impl Engine {
    fn look(&self) -> Observation {
        let containers = self.containers.values().map(|(container, _)| container.clone()).collect();
        Observation::new(containers, self.networks.clone())
    }

    fn add(&mut self, instance: &AssignedInstance, name: String) {
        self.made += 1;
        let id = format!("c{}", self.made);
        let container = ObservedContainer {
            id: id.clone(),
            instance: instance.id.clone(),
            spec_digest: Some(instance.spec_digest),
            state: ContainerState::Created,
            exit_code: Some(0),
            oom_killed: false,
            error: None,
            restart_count: 0,
            created_ms: self.now,
            started_ms: None,
            stop_grace_seconds: 1,
            address: None,
            drift: None,
            left_out: None,
        };
        self.containers.insert(id, (container, name));
    }

    fn perform(&mut self, action: &Action, desired: &[AssignedInstance]) -> Result<(), String> {
        let done = self.carry_out(action, desired);
        if done.is_ok() && self.unheard > 0 {
            self.unheard -= 1;
            return Err("no answer".to_owned());
        }
        done
    }

    fn carry_out(&mut self, action: &Action, desired: &[AssignedInstance]) -> Result<(), String> {
        if self.failing > 0 {
            self.failing -= 1;
            return Err("the engine is out of sorts".to_owned());
        }
        let wanted = |id: &InstanceId| desired.iter().find(|instance| instance.id == *id).unwrap();
        match action {
            Action::Prepare(id) => drop(self.images.insert(wanted(id).spec.container.image.clone())),
            Action::EnsureNetwork(app_env) => drop(self.networks.insert(app_env.clone())),
            Action::RemoveNetwork(app_env) => {
                let used = self.containers.values().any(|(one, _)| one.instance.slot.app_env == *app_env);
                assert!(!used, "a network is removed while a container is in it");
                self.networks.remove(app_env);
            }
            Action::Create(id) => {
                let instance = wanted(id);
                if !self.images.contains(&instance.spec.container.image) {
                    return Err("no such image".to_owned());
                }
                assert!(
                    self.networks.contains(&instance.spec.app_env),
                    "a container is made without its network"
                );
                if !instance.spec.container.volumes.is_empty() {
                    self.assert_alone(instance, desired);
                }
                let name = id.to_string();
                if self.containers.values().any(|(_, taken)| *taken == name) {
                    return Err("the name is in use".to_owned());
                }
                self.add(instance, name);
            }
            Action::WriteFiles { container, .. } => {
                self.containers.get(container).ok_or("no such container")?;
            }
            Action::Start { container, .. } => {
                let now = self.now;
                let instance = self.containers.get(container).map(|(one, _)| one.instance.clone());
                if let Some(instance) = desired.iter().find(|one| Some(&one.id) == instance.as_ref()) {
                    self.assert_alone(instance, desired);
                }
                let (one, _) = self.containers.get_mut(container).ok_or("no such container")?;
                if one.state != ContainerState::Running {
                    one.state = ContainerState::Running;
                    one.started_ms = Some(now);
                    *self.starts.entry(container.clone()).or_default() += 1;
                }
            }
            Action::Stop { container, .. } => {
                self.assert_may_go(container, desired);
                if let Some((one, _)) = self.containers.get_mut(container) {
                    if one.state == ContainerState::Paused {
                        return Err("it is paused".to_owned());
                    }
                    one.state = ContainerState::Exited;
                    one.exit_code = Some(143);
                }
            }
            Action::Remove { container } => {
                self.assert_may_go(container, desired);
                self.containers.remove(container);
            }
            Action::Unpause { container } => {
                let (one, _) = self.containers.get_mut(container).ok_or("no such container")?;
                one.state = ContainerState::Running;
            }
        }
        Ok(())
    }

    /// What an instance replaces does not run, nor what that was to replace.
    fn assert_alone(&self, instance: &AssignedInstance, desired: &[AssignedInstance]) {
        let up = [ContainerState::Running, ContainerState::Restarting, ContainerState::Paused];
        let rival = self.containers.values().map(|(one, _)| one).find(|one| {
            instance.replaces.is_some()
                && one.instance.slot == instance.id.slot
                && up.contains(&one.state)
                && desired.iter().all(|wanted| wanted.id != one.instance)
        });
        assert!(rival.is_none(), "{} has its turn while {rival:?} still runs", instance.id);
    }

    /// A container that is as it should be is never touched.
    fn assert_may_go(&self, id: &str, desired: &[AssignedInstance]) {
        let Some((one, _)) = self.containers.get(id) else { return };
        let Some(instance) = desired.iter().find(|instance| instance.id == one.instance) else { return };
        let alone = self.containers.values().filter(|(other, _)| other.instance == one.instance).count() == 1;
        let right = one.spec_digest == Some(instance.spec_digest)
            && one.drift.is_none()
            && one.state != ContainerState::Dead;
        assert!(!(alone && right), "{id} of {} is right and is stopped", one.instance);
    }
}

fn assigned(id: &str, version: u8, replaces: Option<&str>) -> AssignedInstance {
    let id: InstanceId = id.parse().unwrap();
    let mut container =
        Container::new(Image { repository: "registry/app".to_owned(), digest: Digest::of(&[&[version]]) });
    if version == WITH_VOLUME {
        let source = VolumeSource::Named("data".to_owned());
        container.volumes.push(Volume { source, path: "/data".to_owned(), read_only: false });
    }
    let spec = InstanceSpec { app_env: id.slot.app_env.clone(), service: id.slot.service.clone(), container };
    AssignedInstance {
        spec_digest: spec.digest(),
        id,
        spec,
        replaces: replaces.map(|old| old.parse().unwrap()),
    }
}

/// What happens next.
#[derive(Clone, Debug)]
enum Happening {
    /// A slot gets another version, or none; its old instance is to be gone first, or not.
    Assign { slot: usize, version: Option<u8>, stop_first: bool },
    /// The agent looks and works. It is killed after so many actions, if any.
    Step { killed_after: Option<usize>, reversed: bool },
    /// Somebody does something to the n-th container.
    Hand { nth: usize, deed: u8 },
    /// The next so many requests fail.
    Fail(u32),
    /// The next so many requests are carried out, and their answers lost.
    Unheard(u32),
    /// Time passes, in milliseconds.
    Wait(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    let assign = (0..SLOTS.len(), proptest::option::of(0..3_u8), any::<bool>());
    let step = (proptest::option::of(0..6_usize), any::<bool>());
    prop_oneof![
        3 => assign.prop_map(|(slot, version, stop_first)| Happening::Assign { slot, version, stop_first }),
        6 => step.prop_map(|(killed_after, reversed)| Happening::Step { killed_after, reversed }),
        2 => (0..8_usize, 0..7_u8).prop_map(|(nth, deed)| Happening::Hand { nth, deed }),
        1 => (1..4_u32).prop_map(Happening::Fail),
        1 => (1..4_u32).prop_map(Happening::Unheard),
        2 => (0..30_000_u64).prop_map(Happening::Wait),
    ]
}

const SLOTS: [&str; 4] =
    ["shop/web@prod/web.0", "shop/web@prod/web.1", "shop/web@prod/db.0", "shop/pay@prod/pay.0"];

#[derive(Debug, Default)]
struct Node {
    engine: Engine,
    memory: Memory,
    desired: BTreeMap<usize, AssignedInstance>,
    serial: u64,
}

impl Node {
    fn desired(&self) -> Vec<AssignedInstance> {
        self.desired.values().cloned().collect()
    }

    fn happens(&mut self, happening: &Happening) {
        match happening {
            Happening::Assign { slot, version: None, .. } => drop(self.desired.remove(slot)),
            Happening::Assign { slot, version: Some(version), stop_first } => {
                self.serial += 1;
                let old = self.desired.get(slot).filter(|_| *stop_first).map(|old| old.id.to_string());
                let id = format!("{}-{}", SLOTS[*slot], self.serial);
                self.desired.insert(*slot, assigned(&id, *version, old.as_deref()));
            }
            Happening::Step { killed_after, reversed } => self.step(*killed_after, *reversed),
            Happening::Hand { nth, deed } => self.by_hand(*nth, *deed),
            Happening::Fail(times) => self.engine.failing = *times,
            Happening::Unheard(times) => self.engine.unheard = *times,
            Happening::Wait(ms) => self.engine.now += ms,
        }
    }

    fn by_hand(&mut self, nth: usize, deed: u8) {
        let Some(id) = self.engine.containers.keys().nth(nth).cloned() else { return };
        let engine = &mut self.engine;
        let Some((one, _)) = engine.containers.get_mut(&id) else { return };
        match deed {
            0 if one.state == ContainerState::Running => {
                one.state = ContainerState::Exited;
                one.exit_code = Some(137);
            }
            1 if one.state == ContainerState::Running => one.state = ContainerState::Paused,
            2 => drop(engine.containers.remove(&id)),
            3 => one.drift = Some("changed".to_owned()),
            4 => {
                let mut copy = one.clone();
                engine.made += 1;
                copy.id = format!("c{}", engine.made);
                copy.created_ms = engine.now;
                engine.containers.insert(copy.id.clone(), (copy, format!("copy-{}", engine.made)));
            }
            5 => one.state = ContainerState::Dead,
            6 => engine.images.clear(),
            _ => {}
        }
    }

    fn tasks(&mut self) -> Vec<Task> {
        let (desired, observed) = (self.desired(), self.engine.look());
        self.memory.observe(&desired, &observed, self.engine.now);
        let tasks = plan(&desired, &observed, &self.memory, self.engine.now);
        // Whatever the state, every instance there is or should be is told once.
        let reports = report(&desired, &observed, &self.memory, self.engine.now);
        let told: BTreeSet<_> = reports.iter().map(|told| &told.id).collect();
        let known: BTreeSet<_> = desired
            .iter()
            .map(|one| &one.id)
            .chain(observed.containers().iter().map(|one| &one.instance))
            .collect();
        assert_eq!(told, known);
        assert_eq!(told.len(), reports.len());
        tasks
    }

    fn step(&mut self, killed_after: Option<usize>, reversed: bool) {
        let desired = self.desired();
        let mut tasks = self.tasks();
        // Tasks run side by side, in no order of their own.
        if reversed {
            tasks.reverse();
        }
        let mut left = killed_after.unwrap_or(usize::MAX);
        for task in tasks {
            self.memory.begun(task.subject.clone(), task.actions.clone());
            let mut outcome = Ok(());
            let mut actions = VecDeque::from(task.actions);
            while let Some(action) = actions.pop_front() {
                if left == 0 {
                    self.memory = Memory::default();
                    return;
                }
                left -= 1;
                if let Err(reason) = self.engine.perform(&action, &desired) {
                    outcome = Err(Setback { action, reason, cause: Cause::Passing });
                    break;
                }
                if let Action::Create(id) = &action {
                    let [write, start] = first_start(id, &format!("c{}", self.engine.made));
                    actions.push_front(write);
                    actions.push_back(start);
                }
            }
            self.memory.ended(&task.subject, outcome, self.engine.now);
        }
    }

    /// Nothing disturbs it any more: it must come to rest, and at the right place.
    fn settle(&mut self) {
        (self.engine.failing, self.engine.unheard) = (0, 0);
        for _ in 0..ROUNDS_MAX {
            self.engine.now += PAUSE_MS;
            if self.tasks().is_empty() {
                return;
            }
            self.step(None, false);
        }
        panic!("it never comes to rest: {:#?}", self.tasks());
    }

    fn assert_exact(&mut self) {
        let desired = self.desired();
        let wanted: BTreeMap<_, _> =
            desired.iter().map(|one| (one.id.clone(), Some(one.spec_digest))).collect();
        let running: BTreeMap<_, _> = self
            .engine
            .containers
            .values()
            .map(|(one, _)| {
                assert_eq!(one.state, ContainerState::Running);
                assert_eq!(one.drift, None);
                (one.instance.clone(), one.spec_digest)
            })
            .collect();
        assert_eq!(running, wanted);
        assert_eq!(self.engine.containers.len(), desired.len(), "a duplicate is left");
        let networks: BTreeSet<_> = desired.iter().map(|one| one.spec.app_env.clone()).collect();
        assert_eq!(self.engine.networks, networks);
        let reports = report(&desired, &self.engine.look(), &self.memory, self.engine.now);
        assert!(reports.iter().all(|told| told.phase == Phase::Healthy), "{reports:#?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_runs_becomes_what_is_desired(happenings in proptest::collection::vec(happening(), 0..60)) {
        let mut node = Node::default();
        for happening in &happenings {
            node.happens(happening);
        }
        node.settle();
        node.assert_exact();

        // The next agent finds everything as it should be, and touches nothing.
        let before = node.engine.starts.clone();
        node.memory = Memory::default();
        prop_assert_eq!(node.tasks(), Vec::new());
        node.assert_exact();
        prop_assert_eq!(&node.engine.starts, &before);
    }
}

#[test]
fn what_is_replaced_runs_until_the_new_one_is_made_and_goes_when_that_runs() {
    let mut node = Node::default();
    node.happens(&Happening::Assign { slot: 0, version: Some(0), stop_first: false });
    node.settle();
    node.happens(&Happening::Assign { slot: 0, version: Some(1), stop_first: true });
    let state_of = |node: &Node, id: &str| Some(node.engine.containers.get(id)?.0.state);
    let told = |node: &mut Node, at: usize| {
        let seen = report(&node.desired(), &node.engine.look(), &node.memory, node.engine.now);
        (seen[at].phase, seen[at].reason().unwrap_or_default().to_owned())
    };
    node.step(None, false);
    assert_eq!(told(&mut node, 0).1, "stays until shop/web@prod/web.0-2 is made");

    // Its image goes before it is made: nothing is lost by that.
    node.engine.images.clear();
    node.step(None, false);
    assert_eq!(told(&mut node, 1), (Phase::Pending, "failed 1 time, trying again: no such image".to_owned()));
    assert_eq!(state_of(&node, "c1"), Some(ContainerState::Running));

    // Killed between stopping the one and starting the other: the next agent goes on there.
    node.engine.now += PAUSE_MS;
    node.step(None, false);
    node.step(Some(3), false);
    assert_eq!(state_of(&node, "c1"), Some(ContainerState::Exited));
    assert_eq!(state_of(&node, "c2"), Some(ContainerState::Created));
    let files = |container: &str| Action::WriteFiles {
        instance: "shop/web@prod/web.0-2".parse().unwrap(),
        container: container.to_owned(),
    };
    let tasks = node.tasks();
    assert_eq!(tasks.len(), 1, "the old one stays until the new one runs: {tasks:?}");
    assert_eq!(tasks[0].actions[0], files("c2"));
    node.step(None, false);
    let tasks = node.tasks();
    assert_eq!(tasks.len(), 1);
    assert_eq!(
        (&tasks[0].subject, tasks[0].actions.as_slice()),
        (&Subject::Container("c1".to_owned()), &[Action::Remove { container: "c1".to_owned() }][..])
    );
    assert_eq!(told(&mut node, 0).0, Phase::Completed);
    node.settle();
    node.assert_exact();
}

#[test]
fn what_runs_stays_though_what_was_to_replace_it_is_replaced_itself() {
    let mut node = Node::default();
    node.happens(&Happening::Assign { slot: 0, version: Some(0), stop_first: false });
    node.settle();
    // The second can never be made; the third comes instead of it.
    node.happens(&Happening::Assign { slot: 0, version: Some(1), stop_first: true });
    node.step(None, false);
    node.happens(&Happening::Assign { slot: 0, version: Some(2), stop_first: true });
    let tasks = node.tasks();
    assert_eq!(tasks.len(), 1, "the first one waits for the third: {tasks:?}");
    assert!(matches!(tasks[0].actions[..], [Action::Prepare(_)]));

    // While the image of the second is still being pulled, the third is not kept waiting.
    let second: InstanceId = "shop/web@prod/web.0-2".parse().unwrap();
    node.memory.begun(Subject::Instance(second.clone()), vec![Action::Prepare(second)]);
    node.step(None, false);
    let tasks = node.tasks();
    assert_eq!(tasks.len(), 1);
    assert_eq!(
        tasks[0].subject,
        Subject::Container("c1".to_owned()),
        "it has a volume, so the old one goes first"
    );
}

#[test]
fn a_container_is_not_removed_by_one_task_while_another_stops_it() {
    let mut node = Node::default();
    node.happens(&Happening::Assign { slot: 0, version: Some(0), stop_first: false });
    node.settle();
    node.happens(&Happening::Assign { slot: 0, version: Some(1), stop_first: true });
    node.step(None, false);
    let task = node.tasks().remove(0);
    assert!(matches!(task.actions[..], [Action::Create(_), Action::Stop { .. }]), "{task:?}");
    node.memory.begun(task.subject.clone(), task.actions);
    node.happens(&Happening::Assign { slot: 0, version: None, stop_first: false });
    assert_eq!(node.tasks(), Vec::new(), "the hand-over ends first");
    node.memory.ended(&task.subject, Ok(()), node.engine.now);
    assert_eq!(node.tasks().len(), 1);
}

#[test]
fn what_may_write_to_a_volume_is_made_once_the_old_one_is_stopped() {
    let mut node = Node::default();
    node.happens(&Happening::Assign { slot: 0, version: Some(0), stop_first: false });
    node.settle();
    node.happens(&Happening::Assign { slot: 0, version: Some(WITH_VOLUME), stop_first: true });
    node.step(None, false);
    let tasks = node.tasks();
    assert_eq!(tasks.len(), 1);
    assert_eq!(tasks[0].subject, Subject::Container("c1".to_owned()), "the old one goes first");
    node.settle();
    node.assert_exact();
}

#[test]
fn a_container_that_ended_is_started_again_ever_more_slowly() {
    let mut node = Node::default();
    node.happens(&Happening::Assign { slot: 0, version: Some(1), stop_first: false });
    node.settle();
    let mut pauses = Vec::new();
    for _ in 0..4 {
        node.by_hand(0, 0);
        let ended = node.engine.now;
        while node.tasks().is_empty() {
            node.engine.now += 100;
        }
        node.step(None, false);
        pauses.push(node.engine.now - ended);
    }
    assert_eq!(pauses, [0, 1_000, 2_000, 4_000]);
    let told = report(&node.desired(), &node.engine.look(), &node.memory, node.engine.now);
    assert_eq!((told[0].phase, told[0].restarts), (Phase::Failed, 4));
}

#[test]
fn what_fails_is_tried_again_ever_more_slowly_and_stays_failed_until_it_works() {
    let mut node = Node::default();
    node.happens(&Happening::Assign { slot: 0, version: Some(1), stop_first: false });
    node.happens(&Happening::Fail(u32::MAX));
    let mut attempts = Vec::new();
    for _ in 0..400 {
        if !node.tasks().is_empty() {
            attempts.push(node.engine.now);
            node.step(None, false);
        }
        let told = report(&node.desired(), &node.engine.look(), &node.memory, node.engine.now);
        let is_delayed = attempts.len() < FAILED_ATTEMPTS as usize;
        assert_eq!(told[0].phase, if is_delayed { Phase::Pulling } else { Phase::Failed });
        assert!(told[0].reason().unwrap().ends_with("the engine is out of sorts"), "{told:?}");
        node.engine.now += 500;
    }
    let pauses: Vec<_> = attempts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses[..7], [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000]);
    node.settle();
    node.assert_exact();
}
