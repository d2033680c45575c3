//! What the API and the bus ask of a controller. Cheap to clone.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use futures::FutureExt as _;
use stele_bus::ControllerBus;
use stele_codec::{Chain, StoredRecord};
use stele_ledger::Outcome;
use stele_model::point::Point;
use stele_model::release::Image;
use stele_model::{
    Answer, AppEnv, Command, ControllerId, Rejection, RejectionKind, Request, Scope, Seq, State, Time,
};
use stele_peer::Peers;
use stele_store::Reader;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::app::Published;
use crate::forward::{PeerAnswer, PeerRequest};
use crate::identity::Identity;
use crate::keyring::Keyring;
use crate::limits::{
    PEER_REQUEST_DEADLINE, READ_DEADLINE, RECORDS_PER_ANSWER_MAX, SUBMIT_DEADLINE, SUBMIT_RETRY_INTERVAL,
};
use crate::past::{Past, PastError};
use crate::proof::{Proofs, TreeError};
use crate::reached::Reached;
use crate::registry::{Registry, ResolveError};
use crate::replica::Input;
use crate::retention::Retention;
use crate::statements::Statements;
use crate::waiter::Waiter;
use crate::when::{before_genesis, since_1970, wall_time};

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Consistency {
    /// Nothing committed before the read began is missing.
    #[default]
    Linearizable,
    /// What this controller knows, also without a quorum.
    Stale,
}

/// Why a command has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SubmitError {
    /// It was refused.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// It may or may not have been decided. The same idempotency key makes asking again safe.
    #[error("the outcome is unknown: leadership changed before the change was known to be committed")]
    OutcomeUnknown,
    /// No leader was found in time; nothing was decided.
    #[error("no leader: {0} s passed without a controller that a majority follows", SUBMIT_DEADLINE.as_secs())]
    Unavailable,
    /// Too much is waiting; nothing was decided.
    #[error("too many requests are waiting; try again shortly")]
    Busy,
    /// The past that it needs cannot be rebuilt.
    #[error("{0}")]
    Past(String),
}

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No majority answered in time.
    #[error(
        "no majority of controllers confirmed this read within {} s; --stale (consistency=stale) reads what this one knows",
        READ_DEADLINE.as_secs()
    )]
    Unavailable,
    /// See [`PastError`].
    #[error(transparent)]
    Past(#[from] PastError),
    /// The point is not one.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// A task of this controller's failed.
    #[error("reading failed: {0}")]
    Failed(String),
}

pub(crate) struct Inner {
    pub(crate) identity: Identity,
    pub(crate) inputs: SyncSender<Input>,
    pub(crate) published: watch::Receiver<Published>,
    pub(crate) paced: watch::Receiver<Published>,
    pub(crate) committed: watch::Receiver<Seq>,
    pub(crate) reader: Reader,
    /// Ranges of records that no controller has any more, as far as known.
    pub(crate) lost: std::sync::Mutex<Vec<(Seq, Seq)>>,
    /// Held while a controller is removed: of two at once, each might count on the other's records.
    pub(crate) removing: tokio::sync::Mutex<()>,
    pub(crate) past: Past,
    pub(crate) reached: Reached,
    pub(crate) proofs: Proofs,
    /// Whether strangers may read the tree's hashes.
    pub(crate) public_tree: bool,
    pub(crate) peers: Peers,
    pub(crate) keyring: Keyring,
    /// Held while a data key is made.
    pub(crate) making_keys: tokio::sync::Mutex<()>,
    pub(crate) registry: Registry,
    pub(crate) retention: Retention,
    pub(crate) bus: ControllerBus,
    /// What nodes state of themselves, for the proof of convergence.
    pub(crate) statements: Statements,
}

/// What the API and the bus ask of a controller.
#[derive(Clone)]
pub struct Handle(pub(crate) Arc<Inner>);

impl From<Result<Answer, SubmitError>> for PeerAnswer {
    fn from(result: Result<Answer, SubmitError>) -> Self {
        match result {
            Ok(answer) => Self::Done(answer),
            Err(SubmitError::Rejected(rejection)) => Self::Rejected(rejection),
            Err(SubmitError::OutcomeUnknown) => Self::Unknown,
            Err(SubmitError::Unavailable) => Self::NotLeader,
            Err(SubmitError::Busy) => Self::Busy,
            Err(SubmitError::Past(why)) => Self::Failed(why),
        }
    }
}

impl Handle {
    pub(crate) fn peers(&self) -> &Peers {
        &self.0.peers
    }

    pub(crate) fn reader(&self) -> &Reader {
        &self.0.reader
    }

    pub(crate) fn proofs(&self) -> &Proofs {
        &self.0.proofs
    }

    pub(crate) fn keyring(&self) -> &Keyring {
        &self.0.keyring
    }

    /// The controllers' bus.
    pub(crate) fn bus(&self) -> &ControllerBus {
        &self.0.bus
    }

    /// Who this controller is.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// What this controller knows, without asking anybody.
    pub fn published(&self) -> Published {
        self.0.published.borrow().clone()
    }

    /// Tells of every change of what this controller knows.
    pub fn watch(&self) -> watch::Receiver<Published> {
        self.0.published.clone()
    }

    /// Like [`Handle::watch`], for work beside: the first change at once, those that follow it together a
    /// moment later. Who is woken by every commit takes from the commits.
    pub(crate) fn follow(&self) -> watch::Receiver<Published> {
        self.0.paced.clone()
    }

    /// Tells the seq of the last committed record here.
    pub fn committed(&self) -> watch::Receiver<Seq> {
        self.0.committed.clone()
    }

    /// The wall clock.
    pub fn now(&self) -> Time {
        now()
    }

    /// When the certificates end that controllers show each other, as far as this one has seen them.
    pub(crate) fn connections_until(&self) -> BTreeMap<ControllerId, Time> {
        let shown = self.peers().certified_until().into_iter();
        shown.map(|(id, until)| (id, since_1970(until))).collect()
    }

    /// Has a request decided, by whichever controller leads.
    ///
    /// Thousands of these may wait at once. What few of them come to is boxed, here and in what they are made of,
    /// so that the others do not take the memory for it.
    ///
    /// Waits through elections. Where the outcome became unknown, a request with an
    /// idempotency key is asked again, and any other is answered so.
    pub async fn submit(&self, request: Request) -> Result<Answer, SubmitError> {
        let deadline = Instant::now() + SUBMIT_DEADLINE;
        let mut outcome = SubmitError::Unavailable;
        let request = Arc::new(request);
        loop {
            match self.submit_once(&request).await {
                Err(SubmitError::Unavailable) => {}
                Err(SubmitError::OutcomeUnknown) if request.idempotency.is_some() => {
                    outcome = SubmitError::OutcomeUnknown;
                }
                answered => return answered,
            }
            if Instant::now() + SUBMIT_RETRY_INTERVAL > deadline {
                return Err(outcome);
            }
            Box::pin(self.wait_for_change(SUBMIT_RETRY_INTERVAL)).await;
        }
    }

    async fn wait_for_change(&self, within: Duration) {
        let mut published = self.0.published.clone();
        // A clone begins with what the original saw last, which may be long ago.
        published.mark_unchanged();
        // Either is a reason to try again.
        let _ = tokio::time::timeout(within, published.changed()).await;
    }

    async fn submit_once(&self, request: &Arc<Request>) -> Result<Answer, SubmitError> {
        // State is not needed, so it is not cloned.
        let (leads, leader) = {
            let published = self.0.published.borrow();
            (published.leads, published.leader)
        };
        if leads {
            return self.submit_here(Arc::clone(request)).await;
        }
        let Some(leader) = leader.filter(|leader| *leader != self.0.identity.id) else {
            return Err(SubmitError::Unavailable);
        };
        let asked = PeerRequest::Submit(Box::new(Request::clone(request)));
        match Box::pin(self.ask_peer(leader, &asked, PEER_REQUEST_DEADLINE)).await {
            Ok(PeerAnswer::Done(answer)) => Ok(answer),
            Ok(PeerAnswer::Rejected(rejection)) => Err(SubmitError::Rejected(rejection)),
            Ok(PeerAnswer::NotLeader) => Err(SubmitError::Unavailable),
            Ok(PeerAnswer::Busy) => Err(SubmitError::Busy),
            Ok(PeerAnswer::Failed(why)) => Err(SubmitError::Past(why)),
            Err(error) if error.had_no_effect() => Err(SubmitError::Unavailable),
            Ok(_) | Err(_) => Err(SubmitError::OutcomeUnknown),
        }
    }

    /// Has a request decided here, and only here.
    pub(crate) async fn submit_here(&self, request: Arc<Request>) -> Result<Answer, SubmitError> {
        let past = if request.command.past_seqs().is_empty() {
            BTreeMap::new()
        } else {
            let past = Box::pin(self.past_of(&request.command)).await;
            past.map_err(|error| SubmitError::Past(error.to_string()))?
        };
        let (answer, answered) = oneshot::channel();
        let waiter = Waiter::Caller(answer);
        self.push(Input::Submit { request, past, waiter })?;
        match answered.await {
            Ok(Outcome::Done(answer)) => Ok(answer),
            Ok(Outcome::Rejected(rejection)) => Err(SubmitError::Rejected(rejection)),
            Ok(Outcome::NotLeader) => Err(SubmitError::Unavailable),
            Ok(Outcome::Busy) => Err(SubmitError::Busy),
            Ok(Outcome::Unknown) | Err(_) => Err(SubmitError::OutcomeUnknown),
        }
    }

    pub(crate) fn push(&self, input: Input) -> Result<(), SubmitError> {
        self.0.inputs.try_send(input).map_err(|error| match error {
            TrySendError::Full(_) => SubmitError::Busy,
            TrySendError::Disconnected(_) => SubmitError::Unavailable,
        })
    }

    /// Committed State.
    pub async fn read(&self, consistency: Consistency) -> Result<State, ReadError> {
        if consistency == Consistency::Stale {
            return Ok(self.published().state);
        }
        let (reader, state) = oneshot::channel();
        self.push(Input::Read(reader)).map_err(|_| ReadError::Unavailable)?;
        match tokio::time::timeout(READ_DEADLINE, state).await {
            Ok(Ok(state)) => Ok(state),
            Ok(Err(_)) | Err(_) => Err(ReadError::Unavailable),
        }
    }

    /// State right after a record. It may lack what was answered, and then has no digest.
    pub async fn state_at(&self, seq: Seq) -> Result<State, ReadError> {
        let now = self.state_since(seq).await?;
        if now.seq == seq {
            return Ok(now);
        }
        self.in_past(move |past| past.state_at(seq, &now)).await
    }

    /// What should have been right after a record, and what governed: a State without what nodes were told and
    /// told, and without deployments.
    pub async fn target_at(&self, seq: Seq) -> Result<State, ReadError> {
        let now = self.state_since(seq).await?;
        if now.seq == seq {
            return Ok(now);
        }
        self.in_past(move |past| past.target_at(seq, &now)).await
    }

    /// State right after a record, of which only what is about some apps is sure to be there: what governed as a
    /// whole, what should have been of them, their latest deployments, and what nodes were told and told that ran
    /// something of them.
    pub async fn state_about(&self, seq: Seq, apps: BTreeSet<AppEnv>) -> Result<State, ReadError> {
        let now = self.state_since(seq).await?;
        if now.seq == seq {
            return Ok(now);
        }
        self.in_past(move |past| past.state_about(seq, &now, apps)).await
    }

    /// State right after a record with everything that belongs to it: for its digest.
    pub async fn whole_state_at(&self, seq: Seq) -> Result<State, ReadError> {
        let now = self.state_since(seq).await?;
        if now.seq == seq {
            return Ok(now);
        }
        self.in_past(move |past| past.whole_state_at(seq, &now)).await
    }

    /// A State that is at least as late as a record.
    async fn state_since(&self, seq: Seq) -> Result<State, ReadError> {
        let mut published = self.watch();
        // Whoever knows of a record may know it from elsewhere.
        let is_here = published.wait_for(|published| published.state.seq >= seq);
        match tokio::time::timeout(READ_DEADLINE, is_here).await {
            Ok(Ok(published)) => Ok(published.state.clone()),
            Ok(Err(_)) | Err(_) => Err(ReadError::Unavailable),
        }
    }

    /// The earlier States that deciding a command needs: what should have been, and what governed.
    pub(crate) async fn past_of(&self, command: &Command) -> Result<BTreeMap<Seq, State>, ReadError> {
        let mut past = BTreeMap::new();
        for seq in command.past_seqs() {
            if let Entry::Vacant(entry) = past.entry(seq) {
                entry.insert(self.target_at(seq).await?);
            }
        }
        Ok(past)
    }

    pub(crate) async fn in_past<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Past) -> Result<T, PastError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let inner = Arc::clone(&self.0);
        // Replaying takes a processor and the disk, which no other request should wait for.
        match tokio::task::spawn_blocking(move || work(&inner.past)).await {
            Ok(result) => Ok(result?),
            Err(error) => Err(ReadError::Failed(error.to_string())),
        }
    }

    /// Reads the log's tree.
    pub(crate) async fn in_tree<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Proofs) -> Result<T, TreeError> + Send + 'static,
    ) -> Result<T, TreeError> {
        let inner = Arc::clone(&self.0);
        match tokio::task::spawn_blocking(move || work(&inner.proofs)).await {
            Ok(result) => result,
            Err(error) => Err(TreeError::Failed(error.to_string())),
        }
    }

    /// The seq a point stands for, seen from `state`.
    pub async fn resolve(&self, state: &State, scope: &Scope, point: &Point) -> Result<Seq, ReadError> {
        let seq = self.resolve_beginning(state, scope, point).await?;
        if seq == 0 && state.seq > 0 && !matches!(point, Point::Seq(_)) {
            let genesis = self.in_past(|past| past.header(1)).await?.time;
            return Err(before_genesis(point, genesis).into());
        }
        Ok(seq)
    }

    /// The same for whoever wants what came after a point: a time before the log begins is its beginning.
    pub async fn resolve_beginning(
        &self,
        state: &State,
        scope: &Scope,
        point: &Point,
    ) -> Result<Seq, ReadError> {
        let last = state.seq;
        // A leader's clock may have been ahead of this one.
        let now = self.now().max(state.time);
        let seq = match wall_time(point, now.0)? {
            Some(time) => self.in_past(move |past| past.seq_at(time, last)).await?,
            None => match state.resolve_point(scope, point) {
                Err(refused) if refused.kind == RejectionKind::NotFound => {
                    self.resolve_forgotten(state, scope, point).await?.ok_or(refused)?
                }
                resolved => resolved?,
            },
        };
        if seq == last {
            return Ok(seq);
        }
        self.in_past(move |past| past.whole(seq)).await
    }

    /// Records from a seq on, as they are stored, with the chain at each.
    pub async fn records(
        &self,
        from: Seq,
        limit: usize,
    ) -> Result<Vec<(Seq, StoredRecord, Chain)>, ReadError> {
        let limit = limit.min(RECORDS_PER_ANSWER_MAX);
        self.in_past(move |past| past.records(from, limit)).await
    }

    /// Whether an image's registry or the mirror still has it; if not, the registry's own words.
    pub(crate) async fn is_in_registry(&self, image: &Image, within: Duration) -> Result<(), ResolveError> {
        let own = self.0.registry.has(image, within);
        let Some(mirror) = self.0.retention.mirror() else { return own.await };
        let copy = image.mirrored(mirror);
        let mirrors = self.0.registry.has(&copy, within);
        // Whichever says yes first: the other may be away.
        futures::future::select_ok([own.boxed(), mirrors.boxed()]).await.map(drop)
    }

    /// The digest an image reference stands for now.
    pub async fn resolve_image(&self, reference: &str) -> Result<Image, ResolveError> {
        self.0.registry.resolve(reference).await
    }
}

/// The wall clock, in microseconds since 1970.
pub(crate) fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Time(since.unwrap_or_default().as_micros() as u64)
}

/// The id of a controller, for those who only have a handle.
impl Handle {
    /// This controller's id.
    pub fn id(&self) -> ControllerId {
        self.0.identity.id
    }
}
