//! A runtime that fails, or never comes back, at the n-th thing asked of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use stele_model::release::{Check, Image};
use stele_model::wire::{AssignedInstance, HostPort, TakenPort};
use stele_model::{AppEnv, InstanceId};
use stele_reconcile::{ImageHere, Observation, ObservedContainer};
use stele_runtime::{Change, LogRequest, LogStream, Runtime, RuntimeError};
use tokio::sync::Notify;

/// What happens at the n-th call that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails and changes nothing.
    Fails,
    /// The agent dies before it.
    DiesBefore,
    /// The agent dies after it, without seeing its answer.
    DiesAfter,
    /// Nothing but that a container takes until [`Faulty::let_go`] to stop.
    StopsSlowly,
    /// Nothing but that the first pull never ends.
    PullHangs,
}

/// Decorates a runtime with one fault.
pub struct Faulty {
    inner: Arc<dyn Runtime>,
    fault: Fault,
    at: usize,
    calls: AtomicUsize,
    died: Notify,
    let_go: Notify,
    hung: AtomicBool,
    created: Mutex<BTreeMap<InstanceId, String>>,
    started: Mutex<BTreeSet<String>>,
}

impl Faulty {
    pub fn new(inner: Arc<dyn Runtime>, fault: Fault, at: usize) -> Arc<Self> {
        Arc::new(Self {
            inner,
            fault,
            at,
            calls: AtomicUsize::new(0),
            died: Notify::new(),
            let_go: Notify::new(),
            hung: AtomicBool::new(false),
            created: Mutex::default(),
            started: Mutex::default(),
        })
    }

    /// Whether an instance was given a container, and whether that was started.
    pub fn made_and_started(&self, instance: &InstanceId) -> (bool, bool) {
        let created = self.created.lock().unwrap().get(instance).cloned();
        let started = created.as_ref().is_some_and(|it| self.started.lock().unwrap().contains(it));
        (created.is_some(), started)
    }

    /// Waits until a container is being stopped.
    pub async fn stopping(&self) {
        self.died.notified().await;
    }

    /// Lets the container stop.
    pub fn let_go(&self) {
        self.let_go.notify_one();
    }

    /// Changing calls made.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Waits for the call at which the agent dies, or the pull that never ends.
    pub async fn died(&self) {
        self.died.notified().await;
    }

    async fn around<T>(
        &self,
        call: impl Future<Output = Result<T, RuntimeError>> + Send,
    ) -> Result<T, RuntimeError> {
        let at = self.calls.fetch_add(1, Ordering::SeqCst);
        // Once dead, it stays dead: nothing another task of that agent wanted happens either.
        let is_whole = matches!(self.fault, Fault::StopsSlowly | Fault::PullHangs);
        if at < self.at || (at > self.at && self.fault == Fault::Fails) || is_whole {
            return call.await;
        }
        match self.fault {
            Fault::Fails => return Err(RuntimeError::Engine("a fault was injected".to_owned())),
            Fault::DiesAfter if at == self.at => drop(call.await),
            Fault::DiesBefore | Fault::DiesAfter | Fault::StopsSlowly | Fault::PullHangs => {}
        }
        self.died.notify_one();
        std::future::pending().await
    }
}

impl Runtime for Faulty {
    fn now_ms(&self) -> u64 {
        self.inner.now_ms()
    }
    fn observe(&self) -> BoxFuture<'_, Result<Observation, RuntimeError>> {
        self.inner.observe()
    }
    fn admit(&self, instance: &AssignedInstance) -> Result<(), RuntimeError> {
        self.inner.admit(instance)
    }
    fn pull<'a>(&'a self, image: &'a Image) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(async move {
            if self.fault == Fault::PullHangs && !self.hung.swap(true, Ordering::SeqCst) {
                self.died.notify_one();
                std::future::pending::<()>().await;
            }
            self.around(async { self.inner.pull(image).await }).await
        })
    }
    fn has_image<'a>(&'a self, image: &'a Image) -> BoxFuture<'a, Result<bool, RuntimeError>> {
        self.inner.has_image(image)
    }
    fn images(&self) -> BoxFuture<'_, Result<Vec<ImageHere>, RuntimeError>> {
        self.inner.images()
    }
    fn ports_taken<'a>(
        &'a self,
        ports: &'a [HostPort],
    ) -> BoxFuture<'a, Result<Vec<TakenPort>, RuntimeError>> {
        self.inner.ports_taken(ports)
    }
    fn remove_image<'a>(&'a self, image: &'a Image) -> BoxFuture<'a, Result<(), RuntimeError>> {
        self.inner.remove_image(image)
    }
    fn inspect<'a>(
        &'a self,
        instance: &'a AssignedInstance,
        container: &'a str,
    ) -> BoxFuture<'a, Result<Vec<String>, RuntimeError>> {
        self.inner.inspect(instance, container)
    }
    fn ensure_network<'a>(&'a self, app_env: &'a AppEnv) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(async move { self.around(async { self.inner.ensure_network(app_env).await }).await })
    }
    fn remove_network<'a>(&'a self, app_env: &'a AppEnv) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(async move { self.around(async { self.inner.remove_network(app_env).await }).await })
    }
    fn create<'a>(&'a self, instance: &'a AssignedInstance) -> BoxFuture<'a, Result<String, RuntimeError>> {
        Box::pin(async move {
            let created = self.around(async { self.inner.create(instance).await }).await?;
            self.created.lock().unwrap().insert(instance.id.clone(), created.clone());
            Ok(created)
        })
    }
    fn write_files<'a>(
        &'a self,
        instance: &'a AssignedInstance,
        container: &'a str,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(
            async move { self.around(async { self.inner.write_files(instance, container).await }).await },
        )
    }
    fn start<'a>(&'a self, container: &'a str) -> BoxFuture<'a, Result<(), RuntimeError>> {
        self.started.lock().unwrap().insert(container.to_owned());
        Box::pin(async move { self.around(async { self.inner.start(container).await }).await })
    }
    fn stop<'a>(&'a self, container: &'a str, grace: u32) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(async move {
            if self.fault == Fault::StopsSlowly {
                self.died.notify_one();
                self.let_go.notified().await;
            }
            self.around(async { self.inner.stop(container, grace).await }).await
        })
    }
    fn remove<'a>(&'a self, container: &'a str) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(async move { self.around(async { self.inner.remove(container).await }).await })
    }
    fn unpause<'a>(&'a self, container: &'a str) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(async move { self.around(async { self.inner.unpause(container).await }).await })
    }
    fn check<'a>(
        &'a self,
        container: &'a ObservedContainer,
        check: &'a Check,
        timeout_ms: u64,
    ) -> BoxFuture<'a, Result<(), String>> {
        self.inner.check(container, check, timeout_ms)
    }
    fn logs(&self, container: &str, request: LogRequest) -> LogStream {
        self.inner.logs(container, request)
    }
    fn changes(&self) -> BoxStream<'static, Change> {
        self.inner.changes()
    }
}

/// Which of the two runs first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// They cannot run side by side: both want the same port of the host.
    StopFirst,
    /// The old one goes once the new one is healthy.
    StartFirst,
}

/// Replaces an instance while the fault strikes, then lets a new agent go on. Whether the
/// fault struck at all: if not, every step of the replacement has had its turn.
pub async fn replacement_survives(
    fixture: &impl super::Fixture,
    node: &str,
    order: Order,
    fault: Fault,
    at: usize,
) -> bool {
    use stele_model::wire::Phase;

    let runtime = fixture.runtime(node);
    let port = fixture.free_port();
    // Known to be healthy at the first check, not only after having run for a while.
    let quick = |container| super::checked(container, Check::Exec { command: vec!["true".to_owned()] });
    let container = |version| {
        let plain = fixture.container(super::Kind::Runs, version);
        let mut container = match order {
            Order::StopFirst => super::published(plain, port),
            Order::StartFirst => plain,
        };
        container.files =
            [("/etc/app.conf".to_owned(), super::file(&format!("version {version}"), 0o644))].into();
        quick(container)
    };
    let old = super::instance("shop/web@prod/web.0-1", container(1));
    let new = super::replacing(&old, "shop/web@prod/web.0-2", container(2));
    // A second app, so that networks come and go too.
    let leaving = super::instance("shop/pay@prod/pay.0-1", quick(fixture.container(super::Kind::Runs, 1)));
    let mut before = super::agent(runtime.clone(), &[old.clone(), leaving.clone()]);
    super::all(&mut before, 2, Phase::Healthy).await;
    drop(before);

    let faulty = Faulty::new(runtime.clone(), fault, at);
    let mut victim = super::agent(faulty.clone(), std::slice::from_ref(&new));
    tokio::select! {
        () = faulty.died() => {}
        _ = super::all(&mut victim, 1, Phase::Healthy) => {}
    }
    let struck = faulty.calls() > at;
    // Its tasks end with it, wherever they are.
    drop(victim);

    let mut next = super::agent(runtime.clone(), std::slice::from_ref(&new));
    let reports = super::all(&mut next, 1, Phase::Healthy).await;
    assert_eq!(
        (&reports[0].id, reports[0].spec_digest.as_deref()),
        (&new.id, Some(&new.spec_digest)),
        "{fault:?} at {at}"
    );
    let observed = runtime.observe().await.unwrap();
    assert_eq!(observed.containers().len(), 1, "{fault:?} at {at}: {observed:#?}");
    assert_eq!(*observed.networks(), [super::app_env("shop/web@prod")].into(), "{fault:?} at {at}");
    let read = fixture.file(node, &new.id, "/etc/app.conf").await;
    assert_eq!(read.as_deref(), Some(&b"version 2"[..]), "{fault:?} at {at}");

    next.set_desired(Vec::new());
    super::all(&mut next, 0, Phase::Healthy).await;
    assert!(runtime.observe().await.unwrap().networks().is_empty(), "{fault:?} at {at}");
    struck
}
