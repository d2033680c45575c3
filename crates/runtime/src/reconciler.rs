//! Carries out what `stele-reconcile` decides.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use stele_model::InstanceId;
use stele_model::limits::{LOG_LINE_BYTES_MAX, LOG_TAIL_LINES_MAX};
use stele_model::release::Image;
use stele_model::wire::{AssignedInstance, InstanceReport, Observed, Phase};
use stele_reconcile::limits::UNSEEN_GRACE_MS;
use stele_reconcile::{
    Action, Inspection, Inspections, Memory, Observation, Setback, Subject, Task, first_start, plan, report,
    statement, unseen,
};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::limits::{
    CHANGES_PER_STEP_MAX, INSPECTION_INTERVAL_MS, INSPECTION_TIMEOUT_MS, INSPECTIONS_PER_ROUND_MAX,
    INSPECTS_MAX, LOG_TAIL_TIMEOUT_MS, POLL_INTERVAL_MS, PULLS_MAX, REST_MS_MAX, REST_PER_LOOK,
    STOP_WORK_MAX, WAKE_MS_MIN, WORK_MIN, WORK_PER_PROCESSOR,
};
use crate::runtime::{Change, LogRequest, Runtime, RuntimeError};

/// How a [`Reconciler`] works.
#[derive(Clone, Debug)]
pub struct ReconcilerConfig {
    /// Between looks at the engine when nothing is known to have changed, in milliseconds.
    pub poll_interval_ms: u64,
    /// Images pulled at the same time.
    pub pulls_max: usize,
    /// Between two inspections of a container, in milliseconds.
    pub inspection_interval_ms: u64,
}

impl Default for ReconcilerConfig {
    fn default() -> Self {
        Self {
            poll_interval_ms: POLL_INTERVAL_MS,
            pulls_max: PULLS_MAX,
            inspection_interval_ms: INSPECTION_INTERVAL_MS,
        }
    }
}

/// Told of every image just before it is pulled, so that whoever removes images knows its own.
pub type PullRecord = Arc<dyn Fn(&Image) + Send + Sync>;

/// What one step found.
#[derive(Clone, Debug)]
pub struct StepResult {
    /// How every instance is. When the engine is out of reach, how they were last seen; after [`UNSEEN_GRACE_MS`],
    /// nothing counts as healthy any more.
    pub reports: Vec<InstanceReport>,
    /// What inspection shows, for the node to vouch for; nothing when the engine is out of reach.
    pub observed: Option<Observed>,
    /// When to step again if [`Reconciler::changed`] does not say so earlier.
    pub next_wake: Duration,
    /// Nothing is left to do: what runs is what is desired, as far as it can be for now.
    pub settled: bool,
    /// Why the engine could not be looked at.
    pub runtime_error: Option<String>,
}

/// One run of a container: its id, when it was started, and how often the engine had restarted it.
type Run = (String, Option<u64>, u32);

enum Ended {
    Task { subject: Subject, outcome: Result<(), Setback> },
    Abandoned(Subject),
    Check { instance: Arc<AssignedInstance>, run_ms: u64, outcome: Result<(), String> },
    Inspections(Vec<(InstanceId, Inspection)>),
}

/// Brings a node's containers to what is desired and keeps them there.
///
/// Nothing in it blocks for long: tasks run in the background while steps go on, and end
/// when it is dropped. A new one goes on where a dropped one was, from inspection alone.
pub struct Reconciler<R: Runtime + ?Sized> {
    runtime: Arc<R>,
    config: ReconcilerConfig,
    desired: Vec<AssignedInstance>,
    instances: BTreeMap<InstanceId, Arc<AssignedInstance>>,
    /// What is desired, for tasks that are under way when that changes.
    wanted: watch::Sender<BTreeSet<InstanceId>>,
    memory: Memory,
    observed: Observation,
    reports: Vec<InstanceReport>,
    running: JoinSet<Ended>,
    tails: BTreeMap<InstanceId, Run>,
    pulls: Arc<Semaphore>,
    work: Arc<Semaphore>,
    pull_record: Option<PullRecord>,
    mirror: Option<String>,
    inspections: Inspections,
    inspecting: bool,
    /// What was stated last, until what it rests on changes: what is desired, what is observed, the reports or
    /// the inspections.
    stated: Option<Observed>,
    changes: BoxStream<'static, Change>,
    /// When the first of the looks failed since the last that did not. Milliseconds since 1970.
    unseen_since_ms: Option<u64>,
    /// Something happened since the last look.
    stale: bool,
    /// Before this, another look would be too soon.
    rested: Instant,
}

impl<R: Runtime + ?Sized> Reconciler<R> {
    /// One that wants nothing yet. It touches nothing until the first [`Self::step`]: call
    /// [`Self::set_desired`] before that, or everything on the node is an orphan.
    pub fn new(runtime: Arc<R>, config: ReconcilerConfig) -> Self {
        let changes = runtime.changes();
        let pulls = Arc::new(Semaphore::new(config.pulls_max.max(1)));
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let work = Arc::new(Semaphore::new((processors * WORK_PER_PROCESSOR).max(WORK_MIN)));
        Self {
            runtime,
            config,
            desired: Vec::new(),
            instances: BTreeMap::new(),
            wanted: watch::Sender::default(),
            memory: Memory::default(),
            observed: Observation::default(),
            reports: Vec::new(),
            running: JoinSet::new(),
            tails: BTreeMap::new(),
            pulls,
            work,
            pull_record: None,
            mirror: None,
            inspections: Inspections::default(),
            inspecting: false,
            stated: None,
            changes,
            unseen_since_ms: None,
            stale: false,
            rested: Instant::now(),
        }
    }

    /// The whole of what should run here. Values must be plain; `spec_digest` stays that of
    /// the spec as it was assigned.
    pub fn set_desired(&mut self, desired: Vec<AssignedInstance>) {
        self.instances =
            desired.iter().map(|instance| (instance.id.clone(), Arc::new(instance.clone()))).collect();
        self.wanted.send_replace(desired.iter().map(|instance| instance.id.clone()).collect());
        self.desired = desired;
        self.stated = None;
    }

    /// Has every image told to `record` before it is pulled.
    pub fn set_pull_record(&mut self, record: PullRecord) {
        self.pull_record = Some(record);
    }

    /// Where images are pulled from when their own registry does not give them.
    pub fn set_mirror(&mut self, mirror: Option<String>) {
        self.mirror = mirror;
    }

    /// The engine behind it.
    pub fn runtime(&self) -> &Arc<R> {
        &self.runtime
    }

    /// The engine's id of an instance's container, as last seen.
    pub fn container_of(&self, instance: &InstanceId) -> Option<&str> {
        self.observed.of(instance).map(|container| container.id.as_str())
    }

    /// Waits until a step is worth taking: a task ended, or the engine says that something
    /// changed. What comes in quick succession is waited for together, the longer the more
    /// there is to look at. Nothing is lost if it is dropped while it waits.
    pub async fn changed(&mut self) {
        while !self.stale {
            let idle = self.running.is_empty();
            tokio::select! {
                ended = self.running.join_next(), if !idle => {
                    if let Some(ended) = ended {
                        self.take_in(ended);
                        self.stale = true;
                    }
                }
                Some(change) = self.changes.next() => {
                    self.stale = true;
                    self.note(change);
                }
                else => std::future::pending().await,
            }
        }
        tokio::time::sleep_until(self.rested).await;
        for _ in 0..CHANGES_PER_STEP_MAX {
            let Some(Some(change)) = self.changes.next().now_or_never() else { break };
            self.note(change);
        }
    }

    fn note(&mut self, change: Change) {
        match change {
            Change::Container(container) => self.inspections.container_changed(container),
            Change::Unknown => self.inspections.anything_changed(),
        }
    }

    /// Looks, decides, and sets to work. Returns without waiting for the work to end.
    pub async fn step(&mut self) -> StepResult {
        while let Some(ended) = self.running.try_join_next() {
            self.take_in(ended);
        }
        self.stale = false;
        let begun = Instant::now();
        let observed = match self.runtime.observe().await {
            Ok(observed) => observed,
            Err(error) => {
                self.rest(begun);
                return StepResult {
                    reports: self.unseen(&error),
                    observed: None,
                    next_wake: self.rest_max(),
                    settled: false,
                    runtime_error: Some(error.to_string()),
                };
            }
        };
        self.unseen_since_ms = None;
        if self.observed != observed {
            self.observed = observed;
            self.stated = None;
        }
        let now_ms = self.runtime.now_ms();
        self.memory.observe(&self.desired, &self.observed, now_ms);
        let tasks = plan(&self.desired, &self.observed, &self.memory, now_ms);
        let settled = tasks.is_empty() && self.memory.is_idle();
        for task in tasks {
            self.begin(task);
        }
        self.begin_checks(now_ms);
        self.begin_inspections(now_ms);

        let before = std::mem::take(&mut self.reports);
        self.reports = report(&self.desired, &self.observed, &self.memory, now_ms);
        if self.reports != before {
            self.stated = None;
        }
        self.rest(begun);
        if self.keep_log_tails().await {
            // Log lines are nothing that is stated.
            self.reports = report(&self.desired, &self.observed, &self.memory, now_ms);
        }
        for told in &self.reports {
            if self.instances.contains_key(&told.id) {
                self.memory.keep_phase(&told.id, told.phase);
            }
        }
        let poll = now_ms.saturating_add(self.config.poll_interval_ms);
        let due = self.memory.next_due_ms(&self.desired, &self.observed, now_ms).unwrap_or(poll).min(poll);
        let next_wake = Duration::from_millis(due.saturating_sub(now_ms).max(WAKE_MS_MIN));
        let make = || statement(&self.desired, &self.observed, &self.reports, &self.inspections);
        let stated = self.stated.get_or_insert_with(make).clone();
        // Hashing everything at each step is what is spared, so it is only checked where tests run.
        debug_assert_eq!(stated, make(), "what is stated rests on something that changed unnoticed");
        StepResult {
            reports: self.reports.clone(),
            observed: Some(stated),
            next_wake,
            settled,
            runtime_error: None,
        }
    }

    /// What is told after a look that failed. How all was when it was last seen stays as it is: nothing is done about
    /// what nobody sees.
    fn unseen(&mut self, error: &RuntimeError) -> Vec<InstanceReport> {
        let now_ms = self.runtime.now_ms();
        let since_ms = *self.unseen_since_ms.get_or_insert(now_ms);
        if now_ms.saturating_sub(since_ms) < UNSEEN_GRACE_MS {
            return self.reports.clone();
        }
        let since = i64::try_from(since_ms / 1_000).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
        let since = since.map(|since| format!(" since {since}")).unwrap_or_default();
        unseen(&self.desired, &self.reports, &format!("not seen{since}: {error}"))
    }

    /// A node with many containers, or a busy engine, is not looked at all the time.
    fn rest(&mut self, begun: Instant) {
        self.rested = Instant::now() + (begun.elapsed() * REST_PER_LOOK).min(self.rest_max());
    }

    fn rest_max(&self) -> Duration {
        Duration::from_millis(self.config.poll_interval_ms.min(REST_MS_MAX))
    }

    fn take_in(&mut self, ended: Result<Ended, JoinError>) {
        let ended = match ended {
            Ok(ended) => ended,
            // A broken invariant: going on without the task would leave its subject busy for ever.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => return,
        };
        let now_ms = self.runtime.now_ms();
        match ended {
            Ended::Task { subject, outcome } => {
                if let Err(Setback { action, reason, cause }) = &outcome {
                    tracing::warn!(?subject, ?action, ?cause, %reason, "a task failed");
                }
                self.memory.ended(&subject, outcome, now_ms);
            }
            Ended::Abandoned(subject) => self.memory.abandoned(&subject),
            Ended::Check { instance, run_ms, outcome } => {
                self.memory.checked(&instance, run_ms, outcome, now_ms);
            }
            Ended::Inspections(done) => {
                self.inspecting = false;
                self.stated = None;
                for (instance, inspection) in done {
                    self.inspections.ended(instance, inspection);
                }
            }
        }
    }

    fn begin(&mut self, task: Task) {
        tracing::debug!(subject = ?task.subject, actions = ?task.actions, "a task begins");
        self.memory.begun(task.subject.clone(), task.actions.clone());
        let worker = Worker {
            runtime: Arc::clone(&self.runtime),
            pulls: Arc::clone(&self.pulls),
            pull_record: self.pull_record.clone(),
            mirror: self.mirror.clone(),
            instance: match &task.subject {
                Subject::Instance(id) => self.instances.get(id).cloned(),
                _ => None,
            },
        };
        let mut wanted = self.wanted.subscribe();
        let work = Arc::clone(&self.work);
        self.running.spawn(async move {
            let mut left = VecDeque::from(task.actions);
            let mut permit = None;
            let mut outcome = Ok(());
            while let Some(action) = left.pop_front() {
                // One after the other is stopped and its successor started, rather than all stopped first.
                let hands_over =
                    matches!((&task.subject, &action), (Subject::Instance(_), Action::Stop { .. }));
                if !is_work(&action) && !hands_over {
                    permit = None;
                } else if permit.is_none() {
                    // Never closed while a task holds it, so failing to acquire cannot happen.
                    permit = work.acquire().await.ok();
                }
                if task.subject.is_withdrawn(|id| wanted.borrow().contains(id)) {
                    return Ended::Abandoned(task.subject);
                }
                let done = if hands_over {
                    worker.perform_briefly(&action, &mut permit).await
                } else if matches!(action, Action::Prepare(_)) {
                    // A pull takes the place of another, which may be that of what comes instead.
                    tokio::select! {
                        done = worker.perform(&action) => done,
                        () = withdrawn(&task.subject, &mut wanted) => return Ended::Abandoned(task.subject),
                    }
                } else {
                    worker.perform(&action).await
                };
                match done {
                    Ok(None) => {}
                    Ok(Some(created)) => {
                        if let Some(instance) = &worker.instance {
                            let [write, start] = first_start(&instance.id, &created);
                            left.push_front(write);
                            left.push_back(start);
                        }
                    }
                    Err(error) => {
                        outcome = Err(Setback { action, reason: error.to_string(), cause: error.cause() });
                        break;
                    }
                }
            }
            Ended::Task { subject: task.subject, outcome }
        });
    }

    fn begin_checks(&mut self, now_ms: u64) {
        let due = self.memory.begin_checks(&self.desired, &self.observed, now_ms);
        for (instance, container, run_ms) in due {
            let Some(health) = &instance.spec.container.health else { continue };
            let (check, timeout_ms) = (health.check.clone(), health.timeout_ms);
            let (runtime, instance, container) =
                (Arc::clone(&self.runtime), Arc::new(instance.clone()), container.clone());
            self.running.spawn(async move {
                let limit = Duration::from_millis(timeout_ms.max(1));
                let outcome = tokio::time::timeout(limit, runtime.check(&container, &check, timeout_ms))
                    .await
                    .unwrap_or_else(|_| Err(format!("no answer within {timeout_ms} ms")));
                Ended::Check { instance, run_ms, outcome }
            });
        }
    }

    /// One round at a time, one container after the other: it is no hurry, and the engine has
    /// other work.
    fn begin_inspections(&mut self, now_ms: u64) {
        if self.inspecting {
            return;
        }
        let interval_ms = self.config.inspection_interval_ms;
        let most = INSPECTIONS_PER_ROUND_MAX;
        let due = self.inspections.next_round(&self.desired, &self.observed, now_ms, interval_ms, most);
        if due.is_empty() {
            return;
        }
        let due: Vec<_> = due
            .into_iter()
            .filter_map(|(instance, container)| {
                Some((
                    Arc::clone(self.instances.get(&instance.id)?),
                    container.id.clone(),
                    container.started_ms,
                ))
            })
            .collect();
        self.inspecting = true;
        let runtime = Arc::clone(&self.runtime);
        self.running.spawn(async move {
            let mut done = Vec::with_capacity(due.len());
            for (instance, container, started_ms) in due {
                let at_ms = runtime.now_ms();
                let limit = Duration::from_millis(INSPECTION_TIMEOUT_MS);
                let outcome = match tokio::time::timeout(limit, runtime.inspect(&instance, &container)).await
                {
                    Ok(outcome) => outcome.map_err(|error| error.to_string()),
                    Err(_) => Err(format!("no answer within {INSPECTION_TIMEOUT_MS} ms")),
                };
                done.push((instance.id.clone(), Inspection { container, started_ms, at_ms, outcome }));
            }
            Ended::Inspections(done)
        });
    }

    /// Reads the last log lines of what failed since last asked. Whether there was anything to read.
    async fn keep_log_tails(&mut self) -> bool {
        let failed: BTreeSet<_> =
            self.reports.iter().filter(|told| told.phase == Phase::Failed).map(|told| &told.id).collect();
        self.tails.retain(|id, _| failed.contains(id));
        let mut due: Vec<(InstanceId, Run)> = Vec::new();
        for container in failed.iter().filter_map(|id| self.observed.of(id)) {
            // Once per run: a crash loop's next run has other last words.
            let run = (container.id.clone(), container.started_ms, container.restart_count);
            if self.tails.get(&container.instance) != Some(&run) {
                due.push((container.instance.clone(), run));
            }
        }
        let runtime = &self.runtime;
        let read = futures::stream::iter(due)
            .map(|(instance, run)| async move {
                let request = LogRequest { tail: Some(LOG_TAIL_LINES_MAX), since_ms: None, follow: false };
                let lines = runtime.logs(&run.0, request).filter_map(|line| std::future::ready(line.ok()));
                let lines = lines.map(|line| bounded_line(line.text)).collect::<Vec<_>>();
                let lines = tokio::time::timeout(Duration::from_millis(LOG_TAIL_TIMEOUT_MS), lines).await;
                (instance, run, lines.unwrap_or_default())
            })
            .buffer_unordered(INSPECTS_MAX)
            .collect::<Vec<_>>()
            .await;
        let any = !read.is_empty();
        for (instance, run, mut lines) in read {
            let surplus = lines.len().saturating_sub(LOG_TAIL_LINES_MAX);
            lines.drain(..surplus);
            self.memory.keep_log_tail(&instance, lines);
            self.tails.insert(instance, run);
        }
        any
    }
}

/// Waits until a task's subject is not wanted any more.
async fn withdrawn(subject: &Subject, wanted: &mut watch::Receiver<BTreeSet<InstanceId>>) {
    let is_withdrawn = |wanted: &BTreeSet<_>| subject.is_withdrawn(|id| wanted.contains(id));
    // Nobody is left to want anything else: the task is about to end, too.
    if wanted.wait_for(is_withdrawn).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn bounded_line(mut text: String) -> String {
    if text.len() > LOG_LINE_BYTES_MAX {
        let end = (0..=LOG_LINE_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// Whether the engine has work with it, rather than time to pass.
fn is_work(action: &Action) -> bool {
    match action {
        Action::Create(_) | Action::WriteFiles { .. } | Action::Start { .. } | Action::Remove { .. } => true,
        Action::Prepare(_)
        | Action::EnsureNetwork(_)
        | Action::RemoveNetwork(_)
        | Action::Stop { .. }
        | Action::Unpause { .. } => false,
    }
}

struct Worker<R: Runtime + ?Sized> {
    runtime: Arc<R>,
    pulls: Arc<Semaphore>,
    pull_record: Option<PullRecord>,
    mirror: Option<String>,
    instance: Option<Arc<AssignedInstance>>,
}

impl<R: Runtime + ?Sized> Worker<R> {
    fn instance(&self) -> Result<&AssignedInstance, RuntimeError> {
        self.instance
            .as_deref()
            .ok_or_else(|| RuntimeError::Spec("the instance is not assigned any more".to_owned()))
    }

    /// Has an image here: from its own registry, or else from the mirror. It is named by its digest
    /// in both, which the engine verifies, so a mirror can give nothing else.
    async fn pull(&self, image: &Image) -> Result<(), RuntimeError> {
        if self.runtime.has_image(image).await? {
            return Ok(());
        }
        // Never closed while a worker holds it, so failing to acquire cannot happen.
        let _permit = self.pulls.acquire().await;
        let pull = async |image: &Image| {
            if let Some(record) = &self.pull_record {
                record(image);
            }
            self.runtime.pull(image).await
        };
        let Err(error) = pull(image).await else { return Ok(()) };
        let (RuntimeError::Engine(words) | RuntimeError::NoSuchImage(words)) = &error else {
            return Err(error);
        };
        let Some(mirror) = &self.mirror else { return Err(error) };
        let copy = image.mirrored(mirror);
        let Err(of_mirror) = pull(&copy).await else {
            tracing::warn!(%image, %words, "the image came from the mirror, because its registry does not give it");
            return Ok(());
        };
        let both = format!("{words}; nor does the mirror give it: {of_mirror}");
        // The one may be lacking it for good while the other is only busy.
        Err(match (&error, &of_mirror) {
            (RuntimeError::NoSuchImage(_), RuntimeError::NoSuchImage(_)) => RuntimeError::NoSuchImage(both),
            _ => RuntimeError::Engine(both),
        })
    }

    /// Like [`Self::perform`], but gives the permit to work back once it has taken its time.
    async fn perform_briefly<P>(
        &self,
        action: &Action,
        permit: &mut Option<P>,
    ) -> Result<Option<String>, RuntimeError> {
        let mut performed = std::pin::pin!(self.perform(action));
        if let Ok(done) = tokio::time::timeout(STOP_WORK_MAX, performed.as_mut()).await {
            return done;
        }
        *permit = None;
        performed.await
    }

    /// Carries an action out; answers the engine's id of a container that it created.
    async fn perform(&self, action: &Action) -> Result<Option<String>, RuntimeError> {
        match action {
            Action::Create(_) => return self.runtime.create(self.instance()?).await.map(Some),
            Action::Prepare(_) => {
                let instance = self.instance()?;
                self.runtime.admit(instance)?;
                self.pull(&instance.spec.container.image).await?;
            }
            Action::EnsureNetwork(app_env) => self.runtime.ensure_network(app_env).await?,
            Action::RemoveNetwork(app_env) => self.runtime.remove_network(app_env).await?,
            Action::WriteFiles { container, .. } => {
                self.runtime.write_files(self.instance()?, container).await?;
            }
            Action::Start { container, .. } => self.runtime.start(container).await?,
            Action::Stop { container, grace_seconds } => self.runtime.stop(container, *grace_seconds).await?,
            Action::Remove { container } => self.runtime.remove(container).await?,
            Action::Unpause { container } => self.runtime.unpause(container).await?,
        }
        Ok(None)
    }
}
