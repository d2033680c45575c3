//! The loop: NATS on one side, the container engine on the other, rules in between.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use stele_bus::ask::{self, Request};
use stele_bus::{AgentBus, AgentEvent, AgentInbox, AnswerTo, BusConfig, purposes};
use stele_model::ids::InstanceId;
use stele_model::wire::{
    AssignedInstance, Heartbeat, ImagePolicy, InstanceReport, Observed, ReportAck, Signed, SyncRequest,
};
use stele_reconcile::{Due, HeartbeatSchedule, Pinned, Reporter, SyncSchedule};
use stele_runtime::{Reconciler, ReconcilerConfig, Runtime};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::asked;
use crate::boot;
use crate::clock;
use crate::data_dir::{DataDir, Lock};
use crate::desired::{Desired, Received};
use crate::engine::AgentConfig;
use crate::error::Error;
use crate::identity::{Enrollment, Keys};
use crate::images::{Pruner, Pruning};
use crate::limits::{ANSWER_TIMEOUT, QUESTIONS_CONCURRENCY_MAX, QUESTIONS_HELD_MAX, REPORT_ACK_TIMEOUT};
use crate::schedule::jittered_ms;

const NATS_ROOT: &str = "nats-root.pem";
/// Between two warnings about messages that are not believed, in milliseconds.
const WARNING_MS_MIN: u64 = 1_000;
/// Shortest pause between two steps of the keeper that nothing asked for.
const WAKE_MIN: Duration = Duration::from_millis(20);

/// An enrolled node's files, held by this process alone.
#[derive(Debug)]
pub struct Home {
    data: DataDir,
    keys: Keys,
    enrollment: Enrollment,
    pruning: Pruning,
    _lock: Lock,
}

impl Home {
    /// Opens the data directory of a node that has joined, and keeps other agents out of it.
    pub fn open(data: DataDir) -> Result<Self, Error> {
        let not_joined = || Error::NotJoined(data.path().to_owned());
        let enrollment = Enrollment::load(&data)?.ok_or_else(not_joined)?;
        let keys = Keys::load(&data)?.ok_or_else(not_joined)?;
        let lock = data.lock_soon()?;
        Ok(Self { data, keys, enrollment, pruning: Pruning::default(), _lock: lock })
    }

    /// Removes images so, and not as by default.
    #[must_use]
    pub fn with_pruning(self, pruning: Pruning) -> Self {
        Self { pruning, ..self }
    }

    /// What the node was told when it joined.
    pub fn enrollment(&self) -> &Enrollment {
        &self.enrollment
    }
}

/// Runs the agent until `shutdown` completes. Containers are left as they are then.
pub async fn run(config: AgentConfig, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let mut home = Home::open(config.data.clone())?.with_pruning(config.pruning);
    if !config.nats_urls.is_empty() {
        home.enrollment.nats.urls.clone_from(&config.nats_urls);
    }
    let runtime = config.engine(&home.enrollment)?;
    run_with(home, runtime, shutdown).await
}

/// Like [`run`], on a container engine of the caller's.
pub async fn run_with(
    home: Home,
    runtime: Arc<dyn Runtime>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let pinned = home.enrollment.pinned();
    let (desired, problem) =
        Desired::load(home.data.clone(), pinned.clone(), home.enrollment.epoch, home.keys.sealing);
    if let Some(why) = problem {
        tracing::error!(%why, "the last verified assignment is lost; containers are left as they are until sync");
    }
    let boot = boot::next(&home.data, clock::now());
    let (bus, inbox) = connect(&home).await?;
    let (wanted, wanted_by_keeper) = watch::channel(None);
    let (seen_by_keeper, seen) = watch::channel(Seen::default());
    let pruner = Pruner::new(home.data.clone(), home.pruning);
    let keeper = tokio::spawn(keep(Arc::clone(&runtime), wanted_by_keeper, seen_by_keeper, pruner));
    let keeper_ends = keeper.abort_handle();
    tracing::info!(
        fleet = %home.enrollment.fleet,
        node = %home.enrollment.node,
        seq = desired.version().seq,
        "the agent begins"
    );

    let mut agent = Agent {
        reporter: Reporter::new(home.enrollment.fleet.clone(), home.enrollment.node.clone(), boot),
        home,
        pinned,
        runtime,
        bus,
        desired,
        wanted,
        seen,
        began: Instant::now(),
        connected: false,
        heartbeat: HeartbeatSchedule::default(),
        heartbeats: 0,
        sync: SyncSchedule::default(),
        questions_held: Arc::new(Semaphore::new(QUESTIONS_HELD_MAX)),
        questions: Arc::new(Semaphore::new(QUESTIONS_CONCURRENCY_MAX)),
        warned_ms: None,
        unwarned: 0,
    };
    agent.want();
    agent.observe();
    let outcome = tokio::select! {
        outcome = agent.work(inbox) => outcome,
        ended = keeper => Err(Error::Broken(format!("reconciling: {ended:?}"))),
        () = shutdown => {
            tracing::info!("the agent ends; containers are left as they are");
            Ok(())
        }
    };
    keeper_ends.abort();
    outcome
}

async fn connect(home: &Home) -> Result<(AgentBus, AgentInbox), Error> {
    let Enrollment { fleet, node, region, nats, .. } = &home.enrollment;
    let root_ca = match &nats.tls_root {
        None => None,
        Some(pem) => {
            home.data.ensure(NATS_ROOT, pem.as_bytes())?;
            Some(home.data.path().join(NATS_ROOT))
        }
    };
    let config = BusConfig {
        urls: nats.urls.clone(),
        auth: nats.auth.clone(),
        root_ca,
        fleet: fleet.clone(),
        name: format!("stele-agent {node}"),
    };
    Ok(AgentBus::connect(config, region.clone(), node.clone()).await?)
}

/// What the last verified assignment asks for, opened; nothing before the first.
type Wanted = Option<Arc<(Vec<AssignedInstance>, Option<ImagePolicy>)>>;

/// What the last look at the container engine showed; nothing before the first.
#[derive(Clone, Debug, Default)]
struct Seen {
    reports: Option<Vec<InstanceReport>>,
    /// What inspection shows; nothing while the engine cannot be looked at.
    observed: Option<Observed>,
}

/// Reconciles for ever, whether or not there is a controller, once anything was ever verified.
async fn keep(
    runtime: Arc<dyn Runtime>,
    mut wanted: watch::Receiver<Wanted>,
    seen: watch::Sender<Seen>,
    mut pruner: Pruner,
) {
    let mut reconciler = Reconciler::new(Arc::clone(&runtime), ReconcilerConfig::default());
    reconciler.set_pull_record(pruner.record());
    let mut in_force: Wanted = None;
    let mut began = false;
    let mut trouble = None;
    loop {
        if !began || wanted.has_changed().unwrap_or(false) {
            let now = wanted.borrow_and_update().clone();
            match now {
                Some(now) => {
                    let (instances, images) = now.as_ref();
                    reconciler.set_desired(instances.clone());
                    reconciler.set_mirror(images.as_ref().and_then(|images| images.mirror.clone()));
                    in_force = Some(now);
                    began = true;
                }
                // Nothing is known to be wanted, so nothing is known to be an orphan either.
                None if !began => {
                    if wanted.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
                None => {}
            }
        }
        let step = reconciler.step().await;
        match (&step.runtime_error, &trouble) {
            (Some(why), last) if Some(why) != last.as_ref() => {
                tracing::warn!(%why, "containers cannot be seen");
            }
            (None, Some(_)) => tracing::info!("containers can be seen again"),
            _ => {}
        }
        // Before the first look, "no containers" would not be an observation. That nobody can look for long is one.
        let looked =
            step.runtime_error.is_none() || seen.borrow().reports.is_some() || !step.reports.is_empty();
        seen.send_if_modified(|last| {
            let changed = looked && last.reports.as_ref() != Some(&step.reports);
            if looked {
                last.reports = Some(step.reports);
            }
            // The next heartbeat takes it along; nobody has to be told of it before.
            last.observed = step.observed;
            changed
        });
        trouble = step.runtime_error;
        let mut next_wake = step.next_wake;
        // Only while nothing is under way: what is being pulled is not used by any container yet.
        let calm = step.settled && !wanted.has_changed().unwrap_or(true);
        if let Some((instances, images)) = in_force.as_deref().filter(|_| calm) {
            pruner.turn(runtime.as_ref(), instances, images.as_ref()).await;
            next_wake = pruner.due_in().map_or(next_wake, |due| due.min(next_wake)).max(WAKE_MIN);
        }
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                wanted.mark_changed();
            }
            () = reconciler.changed() => {}
            () = tokio::time::sleep(next_wake) => {}
        }
    }
}

struct Agent {
    home: Home,
    pinned: Pinned,
    runtime: Arc<dyn Runtime>,
    bus: AgentBus,
    desired: Desired,
    wanted: watch::Sender<Wanted>,
    seen: watch::Receiver<Seen>,
    began: Instant,
    connected: bool,
    heartbeat: HeartbeatSchedule,
    /// How many were made.
    heartbeats: u64,
    reporter: Reporter,
    sync: SyncSchedule,
    questions_held: Arc<Semaphore>,
    questions: Arc<Semaphore>,
    warned_ms: Option<u64>,
    unwarned: u64,
}

type Answer<T> = Option<BoxFuture<'static, Result<T, stele_bus::Error>>>;

/// Awaits what is under way; never ends when nothing is.
async fn under_way<T>(answer: &mut Answer<T>) -> Result<T, stele_bus::Error> {
    match answer {
        None => std::future::pending().await,
        Some(future) => {
            let outcome = future.await;
            *answer = None;
            outcome
        }
    }
}

impl Agent {
    async fn work(&mut self, mut inbox: AgentInbox) -> Result<(), Error> {
        let mut reporting: Answer<Signed> = None;
        let mut syncing: Answer<Option<Signed>> = None;
        loop {
            let now = self.now_ms();
            if self.connected {
                if self.sync.due_ms().is_some_and(|due| due <= now) {
                    self.sync.asked(now);
                    syncing = Some(self.ask_for_sync());
                }
                if let Some(report) = self.reporter.take(now) {
                    let signed = Signed::new(&self.home.keys.signing, purposes::REPORT, &report);
                    let bus = self.bus.clone();
                    reporting = Some(Box::pin(async move { bus.report(&signed, REPORT_ACK_TIMEOUT).await }));
                }
                if self.heartbeat.due_ms().is_some_and(|due| due <= now) {
                    let is_whole = self.beat().await;
                    self.heartbeat.sent(now, is_whole, jittered_ms);
                }
            }
            let wake = self.next_wake_ms().map(|wake| self.began + Duration::from_millis(wake));
            tokio::select! {
                event = inbox.next() => match event {
                    Some(event) => self.take_in(event),
                    None => return Err(Error::Broken("the NATS client".to_owned())),
                },
                answer = under_way(&mut reporting) => self.reported(answer),
                answer = under_way(&mut syncing) => self.synced(answer),
                changed = self.seen.changed() => {
                    if changed.is_err() {
                        // The keeper ended; whoever selects on it says why.
                        std::future::pending::<()>().await;
                    }
                    self.observe();
                }
                () = tokio::time::sleep_until(wake.unwrap_or(self.began)), if wake.is_some() => {}
            }
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Nothing is due while nobody can be told.
    fn next_wake_ms(&self) -> Option<u64> {
        let report = match self.reporter.due() {
            Due::At(due) if self.connected => Some(due),
            _ => None,
        };
        [self.heartbeat.due_ms(), self.sync.due_ms(), report].into_iter().flatten().min()
    }

    fn take_in(&mut self, event: AgentEvent) {
        let now = self.now_ms();
        match event {
            AgentEvent::Connected => {
                tracing::info!("connected to NATS");
                self.connected = true;
                self.heartbeat.connected(now);
                self.sync.connected(now);
                self.reporter.connected();
            }
            AgentEvent::Disconnected => {
                tracing::warn!("NATS is away; containers are kept as last assigned");
                self.connected = false;
                self.heartbeat.disconnected();
                self.sync.disconnected();
            }
            AgentEvent::Assignment(signed) => {
                if !self.receive(&signed) {
                    self.sync.doubted(now);
                }
            }
            AgentEvent::Removed(signed) => self.learn_removed(&signed),
            AgentEvent::Asked(signed, reply) => self.answer(&signed, reply),
            AgentEvent::Garbage(error) => self.warn("a message", &error.to_string()),
        }
    }

    /// Whether the assignment is in force now.
    fn receive(&mut self, signed: &Signed) -> bool {
        match self.desired.receive(signed) {
            Ok(Received::InForce) => {
                let version = self.desired.version();
                tracing::info!(epoch = version.epoch, seq = version.seq, "an assignment is in force");
                self.want();
                self.observe();
                true
            }
            Ok(Received::Known) => true,
            Ok(Received::NewImagePolicy) => {
                tracing::debug!("what is said about images has changed");
                self.want();
                true
            }
            Ok(Received::Refused(refusal)) => {
                self.warn("an assignment", &refusal.to_string());
                false
            }
            Err(error) => {
                tracing::error!(%error, "an assignment cannot be kept on disk, so it is not acted on");
                false
            }
        }
    }

    fn learn_removed(&mut self, signed: &Signed) {
        match self.desired.learn_removed(signed) {
            Ok(Ok(true)) => {
                let removed: Vec<_> = self.desired.trust().removed().keys().collect();
                tracing::info!(?removed, "these controllers were removed, and are not believed any more");
            }
            Ok(Ok(false)) => {}
            Ok(Err(why)) => self.warn("what was said of removed controllers", &why.to_string()),
            Err(error) => {
                tracing::error!(%error, "which controllers were removed is forgotten at the next start");
            }
        }
    }

    /// Hands what should run to the keeper, opened.
    fn want(&self) {
        if let Some((instances, problems)) = self.desired.opened() {
            for problem in problems {
                tracing::error!(%problem, "a sealed value cannot be opened");
            }
            let images = self.desired.assignment().and_then(|assignment| assignment.images.clone());
            self.wanted.send_replace(Some(Arc::new((instances, images))));
        }
    }

    /// Tells the reporter what is true now.
    fn observe(&mut self) {
        let reports = self.seen.borrow_and_update().reports.clone();
        // With nothing in force nothing is looked at, and that is the whole truth.
        let nothing = self.desired.assignment().is_none().then(Vec::new);
        if let Some(reports) = reports.or(nothing) {
            let now = self.now_ms();
            self.reporter.observe(self.desired.version(), reports, now);
        }
    }

    fn ask_for_sync(&self) -> BoxFuture<'static, Result<Option<Signed>, stele_bus::Error>> {
        let request = SyncRequest {
            fleet: self.pinned.fleet.clone(),
            node: self.pinned.node.clone(),
            applied: self.desired.version(),
            images: self.desired.assignment().and_then(|it| it.images.as_ref()).map(ImagePolicy::digest),
        };
        let signed = Signed::new(&self.home.keys.signing, purposes::SYNC, &request);
        let bus = self.bus.clone();
        Box::pin(async move { bus.sync(&signed).await })
    }

    fn synced(&mut self, answer: Result<Option<Signed>, stele_bus::Error>) {
        let helped = match answer {
            Ok(Some(signed)) => self.receive(&signed),
            // Anybody may say so; it only counts where there is something to be current.
            Ok(None) => self.desired.assignment().is_some(),
            Err(error) => {
                tracing::debug!(%error, "sync was not answered");
                false
            }
        };
        self.sync.ended(self.now_ms(), helped, jittered_ms);
    }

    fn reported(&mut self, answer: Result<Signed, stele_bus::Error>) {
        let acked = answer.map_err(|error| error.to_string()).and_then(|signed| self.open_ack(&signed));
        match acked {
            Ok(ack) if self.reporter.acked_by(ack.boot, ack.number, self.now_ms()) => {
                self.heartbeat.reported(self.now_ms(), jittered_ms);
            }
            Ok(ack) => {
                if let Some(next) = self.reporter.outrun(ack.boot) {
                    boot::keep(&self.home.data, next);
                    tracing::warn!(
                        boot = next,
                        "a later start of this node is known: its disk and clock were set back, or another agent \
                         runs with its keys"
                    );
                } else {
                    let what = format!("it is of report {} of boot {}", ack.number, ack.boot);
                    self.warn("an acknowledgement", &what);
                }
                self.reporter.failed(self.now_ms());
            }
            Err(why) => {
                tracing::debug!(%why, "a report was not acknowledged; it will be sent again");
                self.reporter.failed(self.now_ms());
            }
        }
    }

    fn open_ack(&self, signed: &Signed) -> Result<ReportAck, String> {
        let ack: ReportAck = signed.peek().map_err(|error| error.to_string())?;
        let controller = &ack.controller;
        self.desired.trust().check(controller, clock::now()).map_err(|error| error.to_string())?;
        signed.verify(&controller.body.key, purposes::REPORT_ACK).map_err(|error| error.to_string())?;
        if ack.node == self.pinned.node { Ok(ack) } else { Err(format!("it is for node {}", ack.node)) }
    }

    /// Whether it said what runs here.
    async fn beat(&mut self) -> bool {
        // Not told yet what to run, it looks at nothing, and the version that it states says so. Who was told to run
        // nothing looks.
        let nothing = self.desired.assignment().is_none().then(Observed::default);
        let observed = self.seen.borrow().observed.clone().or(nothing);
        let is_whole = observed.is_some();
        self.heartbeats += 1;
        let heartbeat = Heartbeat {
            fleet: self.pinned.fleet.clone(),
            node: self.pinned.node.clone(),
            region: self.home.enrollment.region.clone(),
            boot: self.reporter.boot(),
            number: self.heartbeats,
            applied: self.desired.version(),
            acked: self.reporter.acked(),
            time: clock::now(),
            observed,
        };
        let signed = Signed::new(&self.home.keys.signing, purposes::HEARTBEAT, &heartbeat);
        if let Err(error) = self.bus.heartbeat(&signed).await {
            tracing::debug!(%error, "a heartbeat was not sent");
        }
        is_whole
    }

    fn answer(&mut self, signed: &Signed, reply: AnswerTo) {
        let request = match asked::open(signed, self.desired.trust(), clock::now()) {
            Ok(request) => request,
            Err(why) => return self.warn("a question", &why),
        };
        let Ok(held) = Arc::clone(&self.questions_held).try_acquire_owned() else {
            return self.warn("a question", "too many are being answered");
        };
        let questions = Arc::clone(&self.questions);
        let (runtime, key) = (Arc::clone(&self.runtime), self.home.keys.signing.clone());
        let seen = self.seen.clone();
        tokio::spawn(async move {
            // Whoever asked of an engine that does not answer has given up by then.
            let Ok(Ok(turn)) = tokio::time::timeout(ANSWER_TIMEOUT, questions.acquire_owned()).await else {
                return;
            };
            let container = |instance: &InstanceId| {
                let seen = seen.borrow();
                let report = seen.reports.as_ref()?.iter().find(|report| report.id == *instance)?;
                report.container.as_ref().map(ToString::to_string)
            };
            let outcome = asked::answer(runtime.as_ref(), &request.question, container).await;
            let Request { node, question, asked, .. } = request;
            let signed = Signed::new(&key, purposes::ANSWER, &ask::Answer { node, question, asked, outcome });
            if let Err(error) = reply.send(&signed).await {
                tracing::warn!(%error, "an answer was not sent");
            }
            drop((turn, held));
        });
    }

    /// Warns of what is not believed; rarely, as anybody on NATS can cause it.
    fn warn(&mut self, what: &str, why: &str) {
        let now = self.now_ms();
        if self.warned_ms.is_some_and(|warned| now < warned + WARNING_MS_MIN) {
            self.unwarned += 1;
            return;
        }
        tracing::warn!(unlogged_before = self.unwarned, "{what} was ignored: {why}");
        self.warned_ms = Some(now);
        self.unwarned = 0;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::AtomicU64;

    use stele_model::Digest;
    use stele_model::release::{Container, Image, InstanceSpec};
    use stele_model::signature::PublicKey;
    use stele_model::wire::Phase;
    use stele_reconcile::HostPolicy;
    use stele_reconcile::limits::UNSEEN_GRACE_MS;
    use stele_runtime::Host;
    use stele_runtime::simulated::{Simulated, SimulatedClock};

    use super::*;

    fn web() -> AssignedInstance {
        let image = Image { repository: "registry.example/web".to_owned(), digest: Digest::EMPTY };
        let spec = InstanceSpec {
            app_env: "shop/web@prod".parse().unwrap(),
            service: "web".parse().unwrap(),
            container: Container::new(image),
        };
        let spec_digest = spec.digest();
        AssignedInstance { id: "shop/web@prod/web.0-1".parse().unwrap(), spec, spec_digest, replaces: None }
    }

    #[tokio::test]
    async fn an_engine_that_is_away_since_the_agent_began_is_told_of_in_time() {
        let host = Host {
            fleet: "acme".parse().unwrap(),
            root: PublicKey("00".repeat(32)),
            node: "eu-1".parse().unwrap(),
            publish_address: "127.0.0.1".to_owned(),
            policy: HostPolicy::default(),
        };
        let engine = Simulated::new(host, SimulatedClock::Manual(Arc::new(AtomicU64::new(1_000_000))));
        engine.set_down(true);
        let folder = tempfile::tempdir().unwrap();
        let pruner = Pruner::new(DataDir::new(folder.path()), Pruning::default());
        let (_wanted, by_keeper) = watch::channel(Some(Arc::new((vec![web()], None))));
        let (tell, mut seen) = watch::channel(Seen::default());
        let keeper = tokio::spawn(keep(Arc::new(engine.clone()), by_keeper, tell, pruner));
        // Whenever it looked first, it has not been able to for long enough some time.
        let told = async {
            loop {
                engine.advance(UNSEEN_GRACE_MS);
                let look = seen.wait_for(|seen| seen.reports.is_some());
                if let Ok(seen) = tokio::time::timeout(Duration::from_millis(100), look).await {
                    break seen.unwrap().reports.clone().unwrap();
                }
            }
        };
        let told = tokio::time::timeout(Duration::from_mins(1), told).await.unwrap();
        assert_eq!((told.len(), &told[0].id, told[0].phase), (1, &web().id, Phase::Pending));
        assert!(told[0].reason().unwrap().contains("not seen since"), "{:?}", told[0]);
        keeper.abort();
    }
}
