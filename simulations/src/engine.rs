//! A container engine: it answers, refuses, and forgets nothing but what it is made to.

use std::collections::{BTreeMap, BTreeSet};

use stele_model::release::{Container, Image};
use stele_model::wire::AssignedInstance;
use stele_model::{AppEnv, Digest, InstanceId};
use stele_reconcile::{Action, ContainerState, Observation, ObservedContainer};

use crate::limits::CRASH_CODE;
use crate::rng::Rng;

/// How a container of an image behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// It runs.
    Good,
    /// It ends at once.
    Crashes,
    /// It runs and never passes a check.
    Unwell,
}

impl Behaviour {
    /// An image says how it behaves by its repository's last word.
    pub(crate) fn of(container: &Container) -> Self {
        match container.image.repository.rsplit('/').next() {
            Some("crashes") => Self::Crashes,
            Some("unwell") => Self::Unwell,
            _ => Self::Good,
        }
    }
}

/// One container with what inspection does not show.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    /// What inspection shows.
    pub(crate) seen: ObservedContainer,
    /// Its image's behaviour.
    pub(crate) behaviour: Behaviour,
}

/// How long it may take until nobody acts on a lie any more, in milliseconds.
const LIES_LAST_MS: u64 = 60_000;

/// What is said of a container that is not so, and sometimes is; none when it is kept secret.
fn lie(made: &Made, rng: &mut Rng) -> Option<ObservedContainer> {
    let mut told = made.seen.clone();
    match rng.below(4) {
        0 => return None,
        1 => {
            told.state = ContainerState::Exited;
            told.exit_code = Some(1);
        }
        2 => {
            told.state = ContainerState::Running;
            told.exit_code = None;
        }
        _ => {}
    }
    Some(told)
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Engine {
    made: u64,
    /// By the engine's id.
    pub(crate) containers: BTreeMap<String, Made>,
    /// Apps with a network.
    pub(crate) networks: BTreeSet<AppEnv>,
    /// Images that are here.
    pub(crate) images: BTreeSet<Image>,
    /// Images that were ever here, also those that somebody removed since.
    pub(crate) had: BTreeSet<Image>,
    /// Requests that fail, of a thousand.
    pub(crate) failing: u32,
    /// Whether it answers nothing until it does.
    pub(crate) hangs: bool,
    /// Whether it says of containers what is not so.
    pub(crate) lies: bool,
    /// When it last said so.
    pub(crate) lied_ms: Option<u64>,
    /// Whether the host is off.
    pub(crate) off: bool,
}

impl Engine {
    /// What inspection shows, or why it cannot.
    pub(crate) fn look(&mut self, now_ms: u64, rng: &mut Rng) -> Result<Observation, String> {
        if self.off || self.hangs || rng.chance(self.failing) {
            return Err("the engine does not answer".to_owned());
        }
        if self.lies {
            self.lied_ms = Some(now_ms);
            let told = self.containers.values().filter_map(|made| lie(made, rng));
            return Ok(Observation::new(told.collect(), self.networks.clone()));
        }
        let containers = self.containers.values().map(|made| made.seen.clone()).collect();
        Ok(Observation::new(containers, self.networks.clone()))
    }

    /// Performs an action for a node that wants `desired`.
    pub(crate) fn perform(
        &mut self,
        action: &Action,
        desired: &[AssignedInstance],
        now_ms: u64,
        rng: &mut Rng,
    ) -> Result<(), String> {
        if self.off || rng.chance(self.failing) {
            return Err("the engine is out of sorts".to_owned());
        }
        let wanted = |id: &InstanceId| {
            desired.iter().find(|instance| instance.id == *id).ok_or("nobody wants it any more")
        };
        let missing = || "no such container".to_owned();
        match action {
            Action::Prepare(id) => {
                let image = &wanted(id)?.spec.container.image;
                self.images.insert(image.clone());
                self.had.insert(image.clone());
            }
            Action::EnsureNetwork(app_env) => {
                self.networks.insert(app_env.clone());
            }
            Action::RemoveNetwork(app_env) => {
                if self.containers.values().any(|made| made.seen.instance.slot.app_env == *app_env) {
                    return Err("the network is in use".to_owned());
                }
                self.networks.remove(app_env);
            }
            Action::Create(id) => self.create(wanted(id)?, now_ms)?,
            Action::WriteFiles { container, .. } => {
                self.containers.get(container).ok_or_else(missing)?;
            }
            Action::Start { container, .. } => {
                let made = self.containers.get_mut(container).ok_or_else(missing)?;
                made.seen.started_ms = Some(now_ms);
                if made.behaviour == Behaviour::Crashes {
                    made.seen.state = ContainerState::Exited;
                    made.seen.exit_code = Some(CRASH_CODE);
                } else {
                    made.seen.state = ContainerState::Running;
                    made.seen.exit_code = None;
                }
            }
            Action::Stop { container, .. } => {
                if let Some(made) = self.containers.get_mut(container) {
                    made.seen.state = ContainerState::Exited;
                    made.seen.exit_code = Some(143);
                }
            }
            Action::Remove { container } => {
                self.containers.remove(container);
            }
            Action::Unpause { container } => {
                self.containers.get_mut(container).ok_or_else(missing)?.seen.state = ContainerState::Running;
            }
        }
        Ok(())
    }

    fn create(&mut self, instance: &AssignedInstance, now_ms: u64) -> Result<(), String> {
        let container = &instance.spec.container;
        if !self.images.contains(&container.image) {
            return Err("no such image".to_owned());
        }
        if !self.networks.contains(&instance.spec.app_env) {
            return Err("no such network".to_owned());
        }
        if self.containers.values().any(|made| made.seen.instance == instance.id) {
            return Err("the name is in use".to_owned());
        }
        self.made += 1;
        let id = format!("c{}", self.made);
        let seen = ObservedContainer {
            id: id.clone(),
            instance: instance.id.clone(),
            spec_digest: Some(instance.spec_digest),
            state: ContainerState::Created,
            exit_code: Some(0),
            oom_killed: false,
            error: None,
            restart_count: 0,
            created_ms: now_ms,
            started_ms: None,
            stop_grace_seconds: container.stop.grace_seconds,
            address: None,
            drift: None,
            left_out: None,
        };
        let made = Made { seen, behaviour: Behaviour::of(container) };
        self.containers.insert(id, made);
        Ok(())
    }

    /// Whether it said of late what is not so, so that nothing is to be held against whoever believed it.
    pub(crate) fn has_lied(&self, now_ms: u64) -> bool {
        self.lied_ms.is_some_and(|lied| now_ms < lied + LIES_LAST_MS)
    }

    /// The outcome of a health check of a container.
    pub(crate) fn check(&self, container: &str) -> Result<(), String> {
        match self.containers.get(container) {
            Some(made) if made.seen.state == ContainerState::Running && made.behaviour == Behaviour::Good => {
                Ok(())
            }
            _ => Err("connection refused".to_owned()),
        }
    }

    /// The host goes down: what ran has ended.
    pub(crate) fn power_off(&mut self) {
        self.off = true;
        for made in self.containers.values_mut() {
            if made.seen.state == ContainerState::Running {
                made.seen.state = ContainerState::Exited;
                made.seen.exit_code = Some(255);
            }
        }
    }

    /// A running container dies.
    pub(crate) fn kill(&mut self, pick: u64) {
        let running: Vec<_> =
            self.containers.values_mut().filter(|made| made.seen.state == ContainerState::Running).collect();
        let count = running.len() as u64;
        if let Some(made) = running.into_iter().nth(pick.checked_rem(count).unwrap_or(0) as usize) {
            made.seen.state = ContainerState::Exited;
            made.seen.exit_code = Some(137);
        }
    }

    /// Spec digests of what runs, by instance.
    pub(crate) fn running(&self) -> BTreeMap<&InstanceId, Digest> {
        self.containers
            .values()
            .filter(|made| made.seen.state == ContainerState::Running)
            .filter_map(|made| Some((&made.seen.instance, made.seen.spec_digest?)))
            .collect()
    }
}
