//! What inspection cannot tell: attempts, pauses between them, health.

use std::collections::{BTreeMap, BTreeSet};

use stele_model::wire::{AssignedInstance, Phase};
use stele_model::{AppEnv, InstanceId};

use crate::health::{HealthState, Verdict};
use crate::limits::{
    BACKOFF_BASE_MS, BACKOFF_MAX_MS, FAILED_ATTEMPTS, MADE_OTHERWISE_TIMES, REASON_BYTES_MAX, SETTLE_MS,
    STABLE_MS,
};
use crate::observation::{ContainerState, Observation, ObservedContainer};
use crate::plan::{Action, Subject, is_of_spec, replacement_reason, starts_again};

/// Everything an agent process has learned and inspection does not show. Starts empty;
/// nothing is lost but patience when it is.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    busy: BTreeMap<Subject, Vec<Action>>,
    failures: BTreeMap<Subject, Failure>,
    instances: BTreeMap<InstanceId, InstanceMemory>,
    checking: BTreeSet<InstanceId>,
    /// Whether anything was observed before: what runs at the first look was not started by this process.
    looked: bool,
}

/// What a failed attempt says about the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It ends alike until somebody changes what is asked for, or what the host allows.
    Permanent,
    /// It may succeed.
    Passing,
    /// Nothing: the engine did not answer.
    OutOfReach,
}

/// An action of a task that failed, which ends the task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setback {
    /// What failed.
    pub action: Action,
    /// Why, in the engine's own words.
    pub reason: String,
    /// What that says about the next attempt.
    pub cause: Cause,
}

/// The last attempt at something failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What failed.
    pub action: Action,
    /// Why, in the engine's own words.
    pub reason: String,
    /// Failed attempts in a row.
    pub attempts: u32,
    /// Those of them that the engine answered.
    pub answered: u32,
    /// Whether it counts as failed, and not only as delayed; so it does until it succeeds.
    pub is_final: bool,
    /// Before this, no further attempt is made. Milliseconds since 1970.
    pub retry_ms: u64,
}

/// How a run of a container ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunEnd {
    /// Its exit code.
    pub exit_code: Option<i64>,
    /// Whether it had used more memory than it may.
    pub oom_killed: bool,
    /// What the engine had to say about it.
    pub error: Option<String>,
}

/// What is remembered of one instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceMemory {
    /// The host's policy allows it and its image is here.
    pub prepared: bool,
    /// Times its container was started again, by the engine or the agent.
    pub restarts: u32,
    /// Its runs that ended since it last ran stably.
    pub unstable_ends: u32,
    /// Health of the current run.
    pub health: HealthState,
    /// Whether it has ever been healthy, as far as is known.
    pub ever_healthy: bool,
    /// The last phase reported while it was desired.
    pub phase: Option<Phase>,
    /// Last log lines of its last run that failed.
    pub log_tail: Vec<String>,
    /// How its last run ended, since it last ran stably. The engine forgets it when it starts
    /// the container again.
    pub last_end: Option<RunEnd>,
    container: Option<String>,
    engine_restarts: u32,
    restart_due_ms: u64,
    ended_run: Option<u64>,
    /// What differed in its container when that was first seen.
    made_as: Option<String>,
    /// How many of its containers in a row were first seen to differ so.
    made_so: u32,
}

impl Memory {
    /// Takes in an inspection. Call it before [`crate::plan()`] and [`crate::report()`].
    pub fn observe(&mut self, desired: &[AssignedInstance], observed: &Observation, now_ms: u64) {
        let wanted: BTreeMap<_, _> = desired.iter().map(|instance| (&instance.id, instance)).collect();
        let has_container = |id: &InstanceId| observed.of(id).is_some();
        self.instances.retain(|id, _| wanted.contains_key(id) || has_container(id));
        for (id, group) in observed.by_instance() {
            let Some(container) = group.first() else { continue };
            if container.state == ContainerState::Unknown {
                continue;
            }
            let wanted = wanted.get(id).copied();
            // What the agent itself stops, to replace or remove it, does not end by itself.
            let stopped = self.busy.contains_key(&Subject::Container(container.id.clone()))
                || wanted.is_none_or(|instance| {
                    replacement_reason(container, instance, self.instances.get(id)).is_some()
                });
            let restarts = !stopped && wanted.is_some_and(|instance| starts_again(instance, container));
            let memory = self.instances.entry(id.clone()).or_default();
            memory.observe(restarts, container, self.looked, now_ms);
        }
        for id in wanted.keys() {
            let memory = self.instances.entry((*id).clone()).or_default();
            if !has_container(id) {
                // Its container is gone: a new one has its own health and its own count.
                memory.container = None;
                memory.engine_restarts = 0;
                memory.ended_run = None;
            }
        }
        let containers: BTreeSet<_> = observed.containers().iter().map(|container| &container.id).collect();
        let apps: BTreeSet<_> = wanted.values().map(|instance| &instance.spec.app_env).collect();
        let runs = |instance: &AssignedInstance| {
            let mut group = observed.containers_of(&instance.id).iter();
            group.any(|one| is_of_spec(one, instance) && one.state == ContainerState::Running)
        };
        // What was said to have failed may have been done all the same, or not be wanted any more. No task follows
        // then that could succeed.
        self.failures.retain(|subject, failure| match (subject, &failure.action) {
            (Subject::Instance(id), _) => wanted.get(id).is_some_and(|instance| !runs(instance)),
            (Subject::Container(id), _) => containers.contains(id),
            (Subject::Network(app_env), Action::RemoveNetwork(_)) => {
                observed.networks().contains(app_env) && !apps.contains(app_env)
            }
            (Subject::Network(app_env), _) => {
                !observed.networks().contains(app_env) && apps.contains(app_env)
            }
        });
        self.looked = true;
    }

    /// A task was begun.
    pub fn begun(&mut self, subject: Subject, actions: Vec<Action>) {
        self.busy.insert(subject, actions);
    }

    /// A task ended: all of it done, or the action that failed and why.
    pub fn ended(&mut self, subject: &Subject, outcome: Result<(), Setback>, now_ms: u64) {
        let actions = self.busy.remove(subject).unwrap_or_default();
        match outcome {
            Ok(()) => {
                // Preparing again succeeds while what follows it keeps failing: that is no progress.
                let only_prepared = matches!(actions.as_slice(), [Action::Prepare(_)]);
                self.failures.retain(|failed, failure| {
                    failed != subject || (only_prepared && !matches!(failure.action, Action::Prepare(_)))
                });
                for action in actions {
                    self.done(subject, &action, now_ms);
                }
            }
            Err(Setback { action, reason, cause }) => {
                if let (Subject::Instance(id), Action::Create(_) | Action::Prepare(_)) = (subject, &action) {
                    // Its image may have been removed meanwhile, or the policy have changed.
                    self.instances.entry(id.clone()).or_default().prepared = false;
                }
                let before = self.failures.get(subject);
                let attempts = before.map_or(0, |failure| failure.attempts) + 1;
                let is_answered = cause != Cause::OutOfReach;
                let answered = before.map_or(0, |failure| failure.answered) + u32::from(is_answered);
                let is_final = cause == Cause::Permanent
                    || answered >= FAILED_ATTEMPTS
                    || before.is_some_and(|failure| failure.is_final);
                let retry_ms = now_ms.saturating_add(backoff_ms(attempts));
                let reason = bounded(&reason, REASON_BYTES_MAX);
                let failure = Failure { action, reason, attempts, answered, is_final, retry_ms };
                self.failures.insert(subject.clone(), failure);
            }
        }
    }

    /// A task was given up, because its subject is withdrawn: see [`Subject::is_withdrawn`].
    pub fn abandoned(&mut self, subject: &Subject) {
        self.busy.remove(subject);
    }

    fn done(&mut self, subject: &Subject, action: &Action, now_ms: u64) {
        let Subject::Instance(id) = subject else { return };
        let memory = self.instances.entry(id.clone()).or_default();
        match action {
            Action::Prepare(_) => memory.prepared = true,
            Action::Start { again: true, .. } => {
                memory.restarts = memory.restarts.saturating_add(1);
                // On a start by request the engine counts anew.
                memory.engine_restarts = 0;
                memory.restart_due_ms = now_ms.saturating_add(backoff_ms(memory.unstable_ends));
            }
            _ => {}
        }
    }

    /// The health checks to begin now, each with the run it is of, which [`Self::checked`] wants
    /// back. They count as running until then.
    pub fn begin_checks<'a>(
        &mut self,
        desired: &'a [AssignedInstance],
        observed: &'a Observation,
        now_ms: u64,
    ) -> Vec<(&'a AssignedInstance, &'a ObservedContainer, u64)> {
        let mut due = Vec::new();
        for instance in desired {
            let Some(health) = &instance.spec.container.health else { continue };
            let Some(container) = observed.of(&instance.id) else { continue };
            let Some(memory) = self.instances.get(&instance.id) else { continue };
            let runs = container.state == ContainerState::Running;
            let now = runs && memory.health.due_ms(health, now_ms) <= now_ms;
            if now && self.checking.insert(instance.id.clone()) {
                due.push((instance, container, memory.health.started_ms));
            }
        }
        due
    }

    /// A health check of an instance's run ended.
    pub fn checked(
        &mut self,
        instance: &AssignedInstance,
        run_ms: u64,
        outcome: Result<(), String>,
        now_ms: u64,
    ) {
        self.checking.remove(&instance.id);
        let (Some(health), Some(memory)) =
            (&instance.spec.container.health, self.instances.get_mut(&instance.id))
        else {
            return;
        };
        // One that began before the container started anew says nothing about this run.
        if memory.health.started_ms == run_ms {
            let outcome = outcome.map_err(|error| bounded(&error, REASON_BYTES_MAX));
            memory.health.checked(health, outcome, now_ms);
            memory.ever_healthy |= memory.health.verdict == Verdict::Passing;
        }
    }

    /// Keeps the last log lines of an instance that failed.
    pub fn keep_log_tail(&mut self, instance: &InstanceId, lines: Vec<String>) {
        if let Some(memory) = self.instances.get_mut(instance) {
            memory.log_tail = lines;
        }
    }

    /// Keeps the phase reported last.
    pub fn keep_phase(&mut self, instance: &InstanceId, phase: Phase) {
        if let Some(memory) = self.instances.get_mut(instance) {
            memory.phase = Some(phase);
        }
    }

    /// What is remembered of an instance.
    pub fn instance(&self, id: &InstanceId) -> Option<&InstanceMemory> {
        self.instances.get(id)
    }

    /// Why the last attempt at something failed, if it did.
    pub fn failure(&self, subject: &Subject) -> Option<&Failure> {
        self.failures.get(subject)
    }

    /// Whether a task of the subject is running.
    pub fn is_busy(&self, subject: &Subject) -> bool {
        self.busy.contains_key(subject)
    }

    /// The first action of the task running for the subject.
    pub fn working_on(&self, subject: &Subject) -> Option<&Action> {
        self.busy.get(subject).and_then(|actions| actions.first())
    }

    /// Whether another instance of the slot may be given a container, or have it started, right now. One
    /// whose image is being pulled is not: what is wanted is asked again before it is made.
    pub(crate) fn makes_another(&self, id: &InstanceId) -> bool {
        self.busy.iter().any(|(subject, actions)| match subject {
            Subject::Instance(other) => {
                other != id && other.slot == id.slot && !matches!(actions.as_slice(), [Action::Prepare(_)])
            }
            _ => false,
        })
    }

    /// Whether a task that hands its turn over is at a container.
    pub(crate) fn is_stopping(&self, container: &str) -> bool {
        let is_of = |action: &Action| matches!(action, Action::Stop { container: of, .. } if of == container);
        self.busy
            .iter()
            .any(|(subject, actions)| matches!(subject, Subject::Instance(_)) && actions.iter().any(is_of))
    }

    /// Whether nothing is being done.
    pub fn is_idle(&self) -> bool {
        self.busy.is_empty()
    }

    pub(crate) fn is_prepared(&self, id: &InstanceId) -> bool {
        self.instances.get(id).is_some_and(|memory| memory.prepared)
    }

    pub(crate) fn may_try(&self, subject: &Subject, now_ms: u64) -> bool {
        self.failures.get(subject).is_none_or(|failure| is_due(failure.retry_ms, now_ms))
    }

    pub(crate) fn may_start_again(&self, id: &InstanceId, now_ms: u64) -> bool {
        self.instances.get(id).is_none_or(|memory| is_due(memory.restart_due_ms, now_ms))
    }

    /// Whether a task may be making something for the app right now.
    pub(crate) fn works_for(&self, app_env: &AppEnv) -> bool {
        self.busy
            .keys()
            .any(|subject| matches!(subject, Subject::Instance(id) if id.slot.app_env == *app_env))
    }

    /// The next moment at which something is due by itself, in milliseconds since 1970. What is due already was begun,
    /// or waits for something else.
    pub fn next_due_ms(
        &self,
        desired: &[AssignedInstance],
        observed: &Observation,
        now_ms: u64,
    ) -> Option<u64> {
        let retries = self
            .failures
            .iter()
            .filter(|(subject, _)| !self.is_busy(subject))
            .map(|(_, failure)| failure.retry_ms);
        let instances = desired.iter().filter_map(|instance| {
            let memory = self.instances.get(&instance.id)?;
            let container = observed.of(&instance.id)?;
            match container.state {
                ContainerState::Running => {
                    let started = container.started_ms?;
                    let health = instance.spec.container.health.as_ref();
                    let health = health.filter(|_| !self.checking.contains(&instance.id));
                    let check = health.map(|health| memory.health.due_ms(health, now_ms));
                    let settled = [SETTLE_MS, STABLE_MS].map(|after| started.saturating_add(after));
                    settled.into_iter().chain(check).filter(|due| *due > now_ms).min()
                }
                ContainerState::Exited if starts_again(instance, container) => Some(memory.restart_due_ms),
                _ => None,
            }
        });
        retries.chain(instances).filter(|due| *due > now_ms).min()
    }
}

impl RunEnd {
    pub(crate) fn of(container: &ObservedContainer) -> Self {
        Self {
            exit_code: container.exit_code,
            oom_killed: container.oom_killed,
            error: container.error.clone().filter(|error| !error.is_empty()),
        }
    }

    /// It in words.
    pub(crate) fn words(&self) -> String {
        let how = match (self.oom_killed, self.exit_code) {
            (true, _) => "was killed for using too much memory".to_owned(),
            (false, Some(code)) => format!("ended with exit code {code}"),
            (false, None) => "ended".to_owned(),
        };
        self.error.as_ref().map_or(how.clone(), |error| format!("{how}: {error}"))
    }
}

impl InstanceMemory {
    fn first_seen(&mut self, differs: Option<&String>) {
        self.made_so = match differs {
            Some(_) if self.made_as.as_ref() == differs => self.made_so.saturating_add(1),
            Some(_) => 1,
            None => 0,
        };
        self.made_as = differs.cloned();
    }

    /// Whether the engine makes its containers otherwise than they are asked for, such as one that has no limits of
    /// memory, and so nobody changed this one by hand. Another would be no better.
    pub(crate) fn is_made_so(&self, container: &ObservedContainer) -> bool {
        self.made_so >= MADE_OTHERWISE_TIMES
            && self.container.as_ref() == Some(&container.id)
            && self.made_as == container.drift
    }

    fn observe(&mut self, restarts: bool, container: &ObservedContainer, looked: bool, now_ms: u64) {
        if self.container.as_ref() != Some(&container.id) {
            let adopted = self.container.is_none() && !looked;
            self.container = Some(container.id.clone());
            self.ended_run = None;
            self.first_seen(container.drift.as_ref());
            if adopted {
                self.restarts = container.restart_count;
                self.engine_restarts = container.restart_count;
                // It ran before this process did, so it is not known never to have been
                // healthy; and how it came by its restarts is not known either.
                self.ever_healthy = container.state == ContainerState::Running;
                if container.uptime_ms(now_ms) < STABLE_MS {
                    self.unstable_ends = container.restart_count;
                }
            } else {
                self.engine_restarts = 0;
                self.unstable_ends = 0;
                self.restart_due_ms = 0;
                self.ever_healthy = false;
                self.log_tail.clear();
                self.last_end = None;
            }
        }
        let began_again = container.restart_count.saturating_sub(self.engine_restarts);
        self.engine_restarts = container.restart_count;
        self.restarts = self.restarts.saturating_add(began_again);
        self.unstable_ends = self.unstable_ends.saturating_add(began_again);

        if let ContainerState::Exited | ContainerState::Restarting | ContainerState::Dead = container.state {
            self.last_end = Some(RunEnd::of(container));
        }
        let run = container.started_ms.unwrap_or_default();
        match container.state {
            ContainerState::Running => {
                if self.health.started_ms != run {
                    self.health = HealthState::new(run);
                }
                if container.uptime_ms(now_ms) >= STABLE_MS {
                    self.unstable_ends = 0;
                    self.restart_due_ms = 0;
                    self.log_tail.clear();
                    self.last_end = None;
                }
            }
            // Each run that ended counts once, however often it is looked at.
            ContainerState::Exited if self.ended_run != Some(run) => {
                self.ended_run = Some(run);
                if restarts {
                    self.unstable_ends = self.unstable_ends.saturating_add(1);
                }
            }
            _ => {}
        }
    }
}

/// Whether a pause is over. One that would last longer than any was begun before the host's clock was set back.
fn is_due(due_ms: u64, now_ms: u64) -> bool {
    due_ms.saturating_sub(now_ms) == 0 || due_ms - now_ms > BACKOFF_MAX_MS
}

/// The pause after so many failed attempts in a row.
fn backoff_ms(attempts: u32) -> u64 {
    match attempts {
        0 => 0,
        _ => BACKOFF_BASE_MS.saturating_mul(1 << (attempts - 1).min(16)).min(BACKOFF_MAX_MS),
    }
}

pub(crate) fn bounded(text: &str, bytes_max: usize) -> String {
    let text = text.trim();
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let end = (0..=bytes_max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", &text[..end])
}
