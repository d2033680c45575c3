//! The port: what an agent needs of a container engine.

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use stele_model::AppEnv;
use stele_model::release::{Check, Image};
use stele_model::wire::{AssignedInstance, HostPort, TakenPort};
use stele_reconcile::{Cause, ImageHere, Observation, ObservedContainer, PolicyViolation};

/// Something asked of the engine did not happen.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RuntimeError {
    /// The engine cannot be reached or did not answer in time.
    #[error("the container engine is out of reach: {0}")]
    Unreachable(String),
    /// The engine refused, in its own words.
    #[error("{0}")]
    Engine(String),
    /// An image's registry is clear about it: it has no such image. In the engine's words.
    #[error("{0}")]
    NoSuchImage(String),
    /// This host does not allow the container.
    #[error(transparent)]
    Policy(#[from] PolicyViolation),
    /// It is not known where a folder of the host that was to be mounted is.
    #[error("{0}")]
    Folder(String),
    /// The spec cannot be turned into a container.
    #[error("{0}")]
    Spec(String),
}

impl RuntimeError {
    /// What it says about another attempt.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Unreachable(_) => Cause::OutOfReach,
            Self::Engine(_) | Self::Folder(_) => Cause::Passing,
            Self::NoSuchImage(_) | Self::Policy(_) | Self::Spec(_) => Cause::Permanent,
        }
    }
}

/// A line a container printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When, in milliseconds since 1970; absent if the engine does not say.
    pub time_ms: Option<u64>,
    /// Whether on its standard error.
    pub stderr: bool,
    /// The text, without its line end; bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// Which lines of a container's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRequest {
    /// The last so many; all when absent.
    pub tail: Option<usize>,
    /// None that the engine says are from before this, in milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// Whether to go on with lines as they are printed.
    pub follow: bool,
}

impl LogRequest {
    /// Whether a line is not from before what is asked for; of one without a time nobody knows.
    pub(crate) fn reaches(&self, line: &LogLine) -> bool {
        self.since_ms.zip(line.time_ms).is_none_or(|(since, time)| time >= since)
    }
}

/// Lines as they come.
pub type LogStream = BoxStream<'static, Result<LogLine, RuntimeError>>;

/// A container engine, seen by one node of one fleet.
///
/// Everything is idempotent as far as a crash needs it: stopping what does not run and
/// removing what is gone succeed, and a network or volume that exists is taken as it is.
/// A container is made at most once per instance, because its name is the instance's.
pub trait Runtime: Send + Sync + 'static {
    /// The clock the engine's timestamps are in, in milliseconds since 1970.
    fn now_ms(&self) -> u64;

    /// Everything with this fleet's and node's labels.
    fn observe(&self) -> BoxFuture<'_, Result<Observation, RuntimeError>>;

    /// Checks the instance against the host's policy, without touching anything.
    fn admit(&self, instance: &AssignedInstance) -> Result<(), RuntimeError>;

    /// Has an image here under its own name and digest. Downloads nothing when it is.
    fn pull<'a>(&'a self, image: &'a Image) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Has the app's network.
    fn ensure_network<'a>(&'a self, app_env: &'a AppEnv) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Removes the app's network.
    fn remove_network<'a>(&'a self, app_env: &'a AppEnv) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Makes the instance's container and the volumes it needs, and answers with the
    /// container's id. The spec's values must be plain.
    fn create<'a>(&'a self, instance: &'a AssignedInstance) -> BoxFuture<'a, Result<String, RuntimeError>>;

    /// Puts the instance's files into its container.
    fn write_files<'a>(
        &'a self,
        instance: &'a AssignedInstance,
        container: &'a str,
    ) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// How a container differs from what the instance's spec asks for; nothing when it does not.
    ///
    /// It looks at the container itself: its image, its configuration, and the bytes of its
    /// files read back. Labels are not believed. The spec's values must be plain.
    fn inspect<'a>(
        &'a self,
        instance: &'a AssignedInstance,
        container: &'a str,
    ) -> BoxFuture<'a, Result<Vec<String>, RuntimeError>>;

    /// Whether an image is here, by digest, whatever repository it came from: a container is made
    /// of that one then.
    fn has_image<'a>(&'a self, image: &'a Image) -> BoxFuture<'a, Result<bool, RuntimeError>>;

    /// Every image of the engine that has a digest, whoever pulled it.
    fn images(&self) -> BoxFuture<'_, Result<Vec<ImageHere>, RuntimeError>>;

    /// Takes an image's name and digest away, and with its last name the image itself. Never by
    /// force: refused while a container is made of it, whoever made that. Nothing when it is gone.
    fn remove_image<'a>(&'a self, image: &'a Image) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Which of these ports of the host are not free, though none of this node's containers has
    /// them: another container or, as far as the agent can see, a process.
    fn ports_taken<'a>(
        &'a self,
        ports: &'a [HostPort],
    ) -> BoxFuture<'a, Result<Vec<TakenPort>, RuntimeError>>;

    /// Starts a container.
    fn start<'a>(&'a self, container: &'a str) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Asks a container to stop with its own signal, and kills it after the grace.
    fn stop<'a>(&'a self, container: &'a str, grace_seconds: u32) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Removes a container and its anonymous volumes. Named volumes stay.
    fn remove<'a>(&'a self, container: &'a str) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Lets a frozen container go on.
    fn unpause<'a>(&'a self, container: &'a str) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Tries a health check once. The inner error says what was wrong.
    fn check<'a>(
        &'a self,
        container: &'a ObservedContainer,
        check: &'a Check,
        timeout_ms: u64,
    ) -> BoxFuture<'a, Result<(), String>>;

    /// A container's log.
    fn logs(&self, container: &str, request: LogRequest) -> LogStream;

    /// Yields whenever something may have changed. May yield too often, never ends
    /// while the engine lives, and may miss changes: look from time to time anyway.
    fn changes(&self) -> BoxStream<'static, Change>;
}

/// What the engine says that something happened to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A container, by the engine's id.
    Container(String),
    /// It cannot be told: events may have been missed.
    Unknown,
}
