//! An agent: the real rules of acceptance, planning, reporting and asking, in the thinnest shell
//! around them. It stands for the agent's `agent.rs` and `desired.rs` and the runtime's
//! `reconciler.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ed25519_dalek::SigningKey;
use stele_model::signature::Purpose;
use stele_model::wire::{
    AssignedInstance, Assignment, AssignmentVersion, Heartbeat, InstanceReport, Phase, Report, ReportAck,
    Signed, SyncRequest,
};
use stele_model::{ControllerId, FleetName, InstanceId, NodeName, RegionName, Time};
use stele_planted::{Bug, is_planted};
use stele_reconcile::{
    Accepted, Action, Cause, ContainerState, Due, HeartbeatSchedule, Memory, ObservedContainer, Pinned,
    Reporter, Setback, Subject, SyncSchedule, Task, Trust, accept, plan, report,
};

use crate::engine::Engine;
use crate::limits::{
    CRASH_CODE, EPOCH_US, HANG_LOOK_MS, LOOP_STARTS, POLL_MS, REPORT_ACK_MS, SYNC_ANSWER_MS,
};
use crate::oracle::Oracle;
use crate::rng::{Rng, mix};
use crate::setup::{Keys, Setup, node_name};
use crate::wire::{FromNode, Letter, ToNode};

/// What survives the process.
#[derive(Default)]
struct Disk {
    assignment: Option<Rc<Signed>>,
    floor: AssignmentVersion,
}

/// A task under way.
struct Running {
    task: Task,
    at: usize,
    due_ms: u64,
}

/// A health check under way.
struct Checking {
    instance: AssignedInstance,
    container: String,
    run_ms: u64,
    due_ms: u64,
}

/// An agent's process.
struct Process {
    began_ms: u64,
    reporter: Reporter,
    sync: SyncSchedule,
    memory: Memory,
    desired: Option<Vec<AssignedInstance>>,
    version: AssignmentVersion,
    running: BTreeMap<Subject, Running>,
    checking: BTreeMap<InstanceId, Checking>,
    heartbeat: HeartbeatSchedule,
    reporting: Option<u64>,
    /// The last report that was sent.
    told: Option<Report>,
    syncing: Option<(u64, u64)>,
    look_ms: u64,
    /// It has looked since it was told what is desired.
    looked: bool,
    reports: Option<Vec<InstanceReport>>,
    heard_ms: u64,
    /// How often each container was started.
    starts: BTreeMap<String, u32>,
}

/// See the module.
pub(crate) struct Agent {
    /// Its index.
    pub(crate) index: usize,
    /// Its node's name.
    pub(crate) name: NodeName,
    region: RegionName,
    fleet: FleetName,
    key: SigningKey,
    trust: Trust,
    /// The container engine of its host.
    pub(crate) engine: Engine,
    disk: Disk,
    process: Option<Process>,
    boots: u64,
    asks: u64,
    /// Whether NATS can be reached.
    pub(crate) connected: bool,
    rng: Rng,
    seed: u64,
    /// Whether it is of an older version, which says less.
    older: bool,
    /// The highest version it ever put in force, whatever its disk says.
    in_force: AssignmentVersion,
    /// What it sends.
    pub(crate) out: Vec<FromNode>,
    /// When it does something by itself.
    pub(crate) due_us: u64,
}

impl Agent {
    /// A node that has joined, whose agent does not run yet.
    #[allow(clippy::unwrap_used)]
    pub(crate) fn new(index: usize, keys: &Keys, setup: &Setup) -> Self {
        let seed = setup.seed;
        let name = node_name(index);
        let pinned = Pinned { root: keys.root_public.clone(), fleet: keys.fleet.clone(), node: name.clone() };
        Self {
            index,
            region: ["eu", "us", "ap"][index % 3].parse().ok().unwrap(),
            name,
            fleet: keys.fleet.clone(),
            key: keys.node(index),
            trust: Trust::new(pinned, BTreeMap::new()),
            engine: Engine::default(),
            disk: Disk { assignment: None, floor: AssignmentVersion { epoch: 1, ..Default::default() } },
            process: None,
            boots: 0,
            asks: 0,
            connected: false,
            rng: Rng::fork(seed, 0x0a00_0000 + index as u64),
            seed,
            older: setup.skewed && index % 2 == 1,
            in_force: AssignmentVersion::default(),
            out: Vec::new(),
            due_us: 0,
        }
    }

    /// Whether its process runs.
    pub(crate) fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// What is in force.
    pub(crate) fn version(&self) -> AssignmentVersion {
        self.process.as_ref().map(|process| process.version).unwrap_or_default()
    }

    /// Whether its last report is acknowledged and it has nothing left to tell or to do.
    pub(crate) fn is_settled(&self) -> bool {
        let Some(process) = &self.process else { return false };
        process.running.is_empty()
            && process.looked
            && process.reporter.is_acknowledged()
            && process.reporting.is_none()
    }

    /// What its last look found.
    pub(crate) fn last_reports(&self) -> Option<&[InstanceReport]> {
        self.process.as_ref()?.reports.as_deref()
    }

    /// Starts the process.
    pub(crate) fn start(&mut self, now_us: u64) {
        if self.process.is_some() || self.engine.off {
            return;
        }
        self.boots += 1;
        let number = if is_planted(Bug::SameBoot) { 1 } else { self.boots };
        let boot = 1 + (number << 20) + mix(self.seed ^ self.index as u64) % (1 << 20);
        let now_ms = now_us / 1000;
        let kept =
            self.disk.assignment.as_ref().and_then(|signed| match accept(None, signed, &self.trust, None) {
                Ok(Accepted::New(assignment) | Accepted::Known(assignment)) => Some(assignment),
                Err(_) => None,
            });
        let kept = kept.filter(|_| !is_planted(Bug::StartFromNothing));
        let nothing = is_planted(Bug::StartFromNothing).then(Vec::new);
        let mut process = Process {
            began_ms: now_ms,
            reporter: Reporter::new(self.fleet.clone(), self.name.clone(), boot),
            sync: SyncSchedule::default(),
            memory: Memory::default(),
            version: kept.as_ref().map(|kept| kept.version).unwrap_or_default(),
            desired: kept.map(|kept| kept.instances).or(nothing),
            running: BTreeMap::new(),
            checking: BTreeMap::new(),
            heartbeat: HeartbeatSchedule::default(),
            reporting: None,
            told: None,
            syncing: None,
            look_ms: now_ms,
            looked: false,
            reports: None,
            heard_ms: now_ms,
            starts: BTreeMap::new(),
        };
        if self.connected {
            process.heartbeat.connected(0);
            process.sync.connected(0);
        }
        self.process = Some(process);
        self.due_us = now_us;
    }

    /// Ends the process. Containers are left as they are.
    pub(crate) fn crash(&mut self) {
        self.process = None;
    }

    /// NATS can be reached from now on, or not.
    pub(crate) fn connect(&mut self, now_us: u64, connected: bool) {
        if self.connected == connected {
            return;
        }
        self.connected = connected;
        let Some(process) = &mut self.process else { return };
        let now_ms = now_us / 1000 - process.began_ms;
        if connected {
            process.heartbeat.connected(now_ms);
            process.sync.connected(now_ms);
            process.reporter.connected();
            process.heard_ms = now_us / 1000;
        } else {
            process.heartbeat.disconnected();
            process.sync.disconnected();
        }
        self.due_us = now_us;
    }

    /// Something arrived from NATS.
    pub(crate) fn hear(&mut self, now_us: u64, said: &ToNode, oracle: &mut Oracle) {
        let Some(process) = &mut self.process else { return };
        let now_ms = now_us / 1000 - process.began_ms;
        process.heard_ms = now_us / 1000;
        match said {
            ToNode::Assignment(signed) => {
                if !self.receive(signed, now_us, oracle)
                    && let Some(process) = &mut self.process
                {
                    process.sync.doubted(now_ms);
                }
            }
            ToNode::Synced(number, answer) => {
                if process.syncing.is_none_or(|(asked, _)| asked != *number) {
                    return;
                }
                process.syncing = None;
                let helped = match answer {
                    Some(signed) => self.receive(signed, now_us, oracle),
                    None => self.disk.assignment.is_some(),
                };
                self.end_sync(now_ms, helped);
            }
            ToNode::Acked(signed) => {
                let ack = self.open_ack(signed);
                let Some(process) = &mut self.process else { return };
                if process.reporting.is_some()
                    && let Some(ack) = ack
                {
                    process.reporting = None;
                    if process.reporter.acked_by(ack.boot, ack.number, now_ms) {
                        judge_ack(process.told.as_ref(), ack.controller.body.controller, oracle);
                        process.heartbeat.reported(now_ms, spread(self.rng.next()));
                    } else {
                        process.reporter.failed(now_ms);
                    }
                }
            }
        }
        self.due_us = now_us;
    }

    fn end_sync(&mut self, now_ms: u64, helped: bool) {
        let jitter = self.rng.next();
        if let Some(process) = &mut self.process {
            process.sync.ended(now_ms, helped, spread(jitter));
        }
    }

    fn open_ack(&self, signed: &Signed) -> Option<ReportAck> {
        let claimed: ReportAck = signed.peek().ok()?;
        self.trust.check(&claimed.controller, None).ok()?;
        let ack: ReportAck = signed.open(&claimed.controller.body.key, Purpose::Report).ok()?;
        (ack.node == self.name).then_some(ack)
    }

    /// Whether an assignment is in force now. It is kept before it is.
    fn receive(&mut self, signed: &Rc<Signed>, now_us: u64, oracle: &mut Oracle) -> bool {
        let now = Some(Time(EPOCH_US + now_us));
        let assignment = match accept(Some(&self.disk.floor), signed, &self.trust, now) {
            Err(_) => return false,
            Ok(Accepted::New(assignment)) => assignment,
            Ok(Accepted::Known(assignment)) => {
                let known = self.process.as_ref().is_some_and(|it| it.version == assignment.version);
                if known && self.disk.assignment.is_some() {
                    return true;
                }
                assignment
            }
        };
        if !is_planted(Bug::ActBeforePersist) || self.rng.chance(500) {
            self.disk.assignment = Some(Rc::clone(signed));
            self.disk.floor = assignment.version;
        }
        self.judge(&assignment, oracle);
        if let Some(process) = &mut self.process {
            process.version = assignment.version;
            process.desired = Some(assignment.instances);
            process.look_ms = now_us / 1000;
            process.looked = false;
        }
        true
    }

    /// What is put in force must be what the log says, and never older than what was.
    fn judge(&mut self, assignment: &Assignment, oracle: &mut Oracle) {
        let Assignment { node, version, .. } = assignment;
        let before = (self.in_force.epoch, self.in_force.seq);
        oracle.require((version.epoch, version.seq) >= before, "assignments-never-go-back", || {
            format!("{} put {:?} in force after {before:?}", self.name, (version.epoch, version.seq))
        });
        self.in_force = *version;
        let decided = oracle.assignments.get(&(self.name.clone(), version.epoch, version.seq)).copied();
        oracle.require(
            *node == self.name && decided == Some(version.digest),
            "assignments-are-committed",
            || format!("{} put in force what no committed record says: {version:?} for {node}", self.name),
        );
    }

    /// Its time has come.
    pub(crate) fn wake(&mut self, now_us: u64, oracle: &mut Oracle) {
        let now_ms = now_us / 1000;
        if self.process.is_none() {
            self.due_us = u64::MAX;
            return;
        }
        self.finish_tasks(now_ms, oracle);
        self.look(now_ms, oracle);
        self.talk(now_us);
        self.due_us = 1000 * self.next_ms(now_ms).max(now_ms + 1);
    }

    fn next_ms(&self, now_ms: u64) -> u64 {
        let Some(process) = &self.process else { return u64::MAX / 1000 };
        let mut next = process.look_ms;
        let tasks = process.running.values().map(|running| running.due_ms);
        let checks = process.checking.values().map(|checking| checking.due_ms);
        next = tasks.chain(checks).fold(next, u64::min);
        if self.connected {
            for due in [process.heartbeat.due_ms(), process.sync.due_ms()].into_iter().flatten() {
                next = next.min(process.began_ms + due);
            }
            if let Due::At(due) = process.reporter.due() {
                next = next.min(process.began_ms + due);
            }
        }
        let waits = [process.reporting, process.syncing.map(|(_, until)| until)];
        waits.into_iter().flatten().fold(next, u64::min).max(now_ms)
    }

    /// Performs the actions whose time has come.
    fn finish_tasks(&mut self, now_ms: u64, oracle: &mut Oracle) {
        let Some(process) = &mut self.process else { return };
        let desired = process.desired.clone().unwrap_or_default();
        let silent = is_planted(Bug::StopOnSilence) && now_ms > process.heard_ms + 20_000;
        if self.engine.hangs {
            // Nobody waits for an engine without end: what was begun is looked at again, and so is it.
            for running in process.running.values_mut().filter(|running| running.due_ms <= now_ms) {
                running.due_ms = now_ms + HANG_LOOK_MS;
            }
        }
        let due: Vec<Subject> = process
            .running
            .iter()
            .filter(|(_, running)| running.due_ms <= now_ms)
            .map(|(subject, _)| subject.clone())
            .collect();
        for subject in due {
            let Some(mut running) = process.running.remove(&subject) else { continue };
            if subject.is_withdrawn(|id| desired.iter().any(|instance| instance.id == *id)) {
                process.memory.abandoned(&subject);
                process.look_ms = now_ms;
                continue;
            }
            let action = running.task.actions[running.at].clone();
            if let Action::Stop { container, .. } | Action::Remove { container } = &action
                && !self.engine.has_lied(now_ms)
            {
                judge_stop(&self.engine, container, &self.disk, &self.trust, &self.name, oracle);
            }
            let outcome = self.engine.perform(&action, &desired, now_ms, &mut self.rng);
            running.at += 1;
            if let (Ok(()), Action::Start { container, .. }) = (&outcome, &action) {
                *process.starts.entry(container.clone()).or_default() += 1;
            }
            match outcome {
                Err(reason) => {
                    let cause = if self.engine.off { Cause::OutOfReach } else { Cause::Passing };
                    process.memory.ended(&subject, Err(Setback { action, reason, cause }), now_ms);
                }
                Ok(()) if running.at == running.task.actions.len() => {
                    process.memory.ended(&subject, Ok(()), now_ms);
                }
                Ok(()) => {
                    running.due_ms = now_ms + 1 + self.rng.below(300);
                    process.running.insert(subject, running);
                }
            }
            process.look_ms = now_ms;
        }
        let due: Vec<InstanceId> = process
            .checking
            .iter()
            .filter(|(_, checking)| checking.due_ms <= now_ms)
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            let Some(checking) = process.checking.remove(&id) else { continue };
            let outcome = if self.engine.hangs {
                Err("no answer in time".to_owned())
            } else {
                self.engine.check(&checking.container)
            };
            process.memory.checked(&checking.instance, checking.run_ms, outcome, now_ms);
            process.look_ms = now_ms;
        }
        if silent && !self.connected {
            for container in self.engine.containers.keys().cloned().collect::<Vec<_>>() {
                judge_stop(&self.engine, &container, &self.disk, &self.trust, &self.name, oracle);
                let stop = Action::Stop { container, grace_seconds: 0 };
                drop(self.engine.perform(&stop, &desired, now_ms, &mut self.rng));
            }
        }
    }

    /// Looks, decides, and sets to work.
    fn look(&mut self, now_ms: u64, oracle: &mut Oracle) {
        let Some(process) = &mut self.process else { return };
        if process.look_ms > now_ms {
            return;
        }
        process.look_ms = now_ms + POLL_MS;
        // Nothing is known to be wanted, so nothing is known to be an orphan either.
        let Some(desired) = &process.desired else {
            process.reporter.observe(process.version, Vec::new(), now_ms - process.began_ms);
            process.reports = Some(Vec::new());
            process.looked = true;
            return;
        };
        let Ok(observed) = self.engine.look(now_ms, &mut self.rng) else { return };
        process.looked = true;
        process.memory.observe(desired, &observed, now_ms);
        for task in plan(desired, &observed, &process.memory, now_ms) {
            let slow = matches!(task.actions.first(), Some(Action::Prepare(_)));
            let takes = if slow { self.rng.range(100, 4_000) } else { self.rng.range(10, 700) };
            process.memory.begun(task.subject.clone(), task.actions.clone());
            process.running.insert(task.subject.clone(), Running { task, at: 0, due_ms: now_ms + takes });
        }
        for (instance, container, run_ms) in process.memory.begin_checks(desired, &observed, now_ms) {
            let checking = Checking {
                instance: instance.clone(),
                container: container.id.clone(),
                run_ms,
                due_ms: now_ms + self.rng.range(1, 500),
            };
            process.checking.insert(instance.id.clone(), checking);
        }
        let reports = report(desired, &observed, &process.memory, now_ms);
        if !self.engine.has_lied(now_ms) {
            // What is not wanted any more, or is at work on, is told otherwise.
            let judged = |container: &&ObservedContainer| {
                let is_idle = !process.running.contains_key(&Subject::Container(container.id.clone()));
                let wanted = desired.iter().find(|it| it.id == container.instance);
                is_idle && wanted.is_some_and(|it| Some(it.spec_digest) == container.spec_digest)
            };
            let containers = observed.containers().iter().filter(judged);
            judge_loops(containers, &reports, &process.starts, &self.name, oracle);
        }
        let wanted: BTreeSet<_> = desired.iter().map(|instance| &instance.id).collect();
        for told in &reports {
            if wanted.contains(&told.id) {
                process.memory.keep_phase(&told.id, told.phase);
            }
        }
        process.reporter.observe(process.version, reports.clone(), now_ms - process.began_ms);
        process.reports = Some(reports);
        let due = process.memory.next_due_ms(desired, &observed, now_ms);
        process.look_ms = due.unwrap_or(u64::MAX).min(now_ms + POLL_MS).max(now_ms + 20);
    }

    /// Reports, asks and gives signs of life.
    fn talk(&mut self, now_us: u64) {
        let Some(process) = &mut self.process else { return };
        let wall_ms = now_us / 1000;
        let now_ms = wall_ms - process.began_ms;
        if process.reporting.is_some_and(|until| until <= wall_ms) {
            process.reporting = None;
            process.reporter.failed(now_ms);
        }
        let timed_out = process.syncing.is_some_and(|(_, until)| until <= wall_ms);
        if timed_out {
            process.syncing = None;
        }
        if timed_out {
            self.end_sync(now_ms, false);
        }
        let Some(process) = &mut self.process else { return };
        if !self.connected {
            return;
        }
        if process.sync.due_ms().is_some_and(|due| due <= now_ms) {
            process.sync.asked(now_ms);
            self.asks += 1;
            process.syncing = Some((self.asks, wall_ms + SYNC_ANSWER_MS));
            let request = SyncRequest {
                fleet: self.fleet.clone(),
                node: self.name.clone(),
                applied: process.version,
                images: None,
            };
            let signed = Signed::new(&self.key, Purpose::NodeRequest, &request);
            self.out.push(FromNode::Sync(Rc::new(signed), self.asks));
        }
        if let Some(report) = process.reporter.take(now_ms) {
            process.reporting = Some(wall_ms + REPORT_ACK_MS);
            let signed = Signed::new(&self.key, Purpose::Report, &report);
            process.told = Some(report);
            self.out.push(FromNode::Report(Rc::new(signed)));
        }
        if process.heartbeat.due_ms().is_some_and(|due| due <= now_ms) {
            process.heartbeat.sent(now_ms, true, spread(self.rng.next()));
            let heartbeat = Heartbeat {
                fleet: self.fleet.clone(),
                node: self.name.clone(),
                region: self.region.clone(),
                boot: process.reporter.boot(),
                number: 0,
                applied: process.version,
                acked: process.reporter.acked(),
                time: (!self.older).then_some(Time(EPOCH_US + now_us)),
                observed: None,
            };
            self.out.push(FromNode::Heartbeat(Letter::new(Signed::new(
                &self.key,
                Purpose::Heartbeat,
                &heartbeat,
            ))));
        }
    }
}

/// A time within a quarter of another, as the agent draws it.
fn spread(random: u64) -> impl Fn(u64) -> u64 {
    move |ms| ms - ms / 4 + random % (ms / 2 + 1)
}

/// What is acknowledged is committed: the report, or a later one, or what it says was known before.
fn judge_ack(told: Option<&Report>, by: ControllerId, oracle: &mut Oracle) {
    // What it was in may be lost with who said so.
    let Some(told) = told.filter(|_| !oracle.lost.contains(&by)) else { return };
    // A node that was removed meanwhile is forgotten.
    let Some(known) = oracle.state.observed.get(&told.node) else { return };
    let is_known = !told.position().is_after(known.position())
        || known.applied == told.applied
            && known.instances.values().map(AsRef::as_ref).eq(told.instances.iter());
    oracle.require(is_known, "acknowledged-reports-are-committed", || {
        format!("report {} of {} is acknowledged and in no record", told.number, told.node)
    });
}

/// What ended again and again is told to be in a crash loop, at the end that makes it one.
fn judge_loops<'a>(
    containers: impl Iterator<Item = &'a ObservedContainer>,
    reports: &[InstanceReport],
    starts: &BTreeMap<String, u32>,
    node: &NodeName,
    oracle: &mut Oracle,
) {
    for container in containers.filter(|it| it.state == ContainerState::Exited) {
        let ended = starts.get(&container.id).copied().unwrap_or_default();
        // Of an image that ends at once, each start is an end.
        if ended < LOOP_STARTS || container.exit_code != Some(CRASH_CODE) {
            continue;
        }
        let told = reports.iter().find(|report| report.container == Some(container.id.as_str().into()));
        oracle.require(
            told.is_none_or(|told| matches!(told.phase, Phase::Failed | Phase::Pending)),
            "crash-loops-are-told",
            || format!("{node}: {} was started {ended} times: {told:?}", container.instance),
        );
    }
}

/// A container that runs and is what the last verified assignment wants is never stopped.
fn judge_stop(
    engine: &Engine,
    container: &str,
    disk: &Disk,
    trust: &Trust,
    node: &NodeName,
    oracle: &mut Oracle,
) {
    let Some(made) = engine.containers.get(container) else { return };
    if made.seen.state != ContainerState::Running {
        return;
    }
    let kept = disk.assignment.as_ref().and_then(|signed| accept(None, signed, trust, None).ok());
    let Some(Accepted::New(kept) | Accepted::Known(kept)) = kept else { return };
    let wanted = kept
        .instances
        .iter()
        .any(|it| it.id == made.seen.instance && Some(it.spec_digest) == made.seen.spec_digest);
    let heir = kept.instances.iter().find(|it| it.replaces.as_ref() == Some(&made.seen.instance));
    let ready = heir.is_none_or(|heir| engine.had.contains(&heir.spec.container.image));
    oracle.require(ready, "no-stop-before-the-heir-can-be-made", || {
        format!("{node} stops {}, and the image of what replaces it is not here", made.seen.instance)
    });
    let twins = engine.containers.values().filter(|other| other.seen.instance == made.seen.instance).count();
    oracle.require(!wanted || twins > 1, "healthy-containers-are-left-alone", || {
        format!("{node} stops {}, which runs and is wanted", made.seen.instance)
    });
}
