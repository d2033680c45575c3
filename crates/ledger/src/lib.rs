//! Deciding safely: speculation, group commit and what callers are answered.
//!
//! Owns the step from requests to Raft entries and from committed entries to State.
//! The leader decides against a *speculative* State, committed plus in flight, and
//! no caller hears of a decision before everything it saw has committed. It must
//! never do I/O or read a clock: time comes in as numbers, bytes go in and out, and
//! the same calls give the same bytes in production and in a simulation.
//!
//! ```
//! use stele_ledger::{Ledger, Moment};
//! use stele_codec::Chain;
//! use stele_model::State;
//!
//! let mut ledger: Ledger<u32> = Ledger::new("demo", State::default(), Chain::GENESIS);
//! ledger.elected(1, 1);
//! // Raft's own empty entry of the term has committed: now everything before is known.
//! let started = ledger.caught_up(Moment { wall_us: 1_000, monotonic_us: 0 });
//! assert!(started);
//! let (bytes, _) = ledger.close_batch().expect("the term's first record waits to be proposed");
//! ledger.proposed(2);
//! let committed = ledger.commit(2, 1, &bytes).expect("it is a valid entry");
//! assert_eq!(committed.records.len(), 1);
//! assert_eq!(ledger.state().seq, 1);
//! ```

/// Whether a bug is planted here: never, unless the simulator's own run asks for the feature.
macro_rules! planted {
    ($bug:ident) => {{
        #[cfg(feature = "planted")]
        {
            stele_planted::is_planted(stele_planted::Bug::$bug)
        }
        #[cfg(not(feature = "planted"))]
        {
            false
        }
    }};
}

mod clocks;
pub mod limits;
mod speculation;

use std::collections::BTreeMap;

use stele_codec::{Chain, DecodeError, Entry, StoredRecord};
use stele_model::{
    Answer, Command, ControllerId, Digest, Event, Links, Record, Rejection, RejectionKind, Request, Seq,
    State, Time, decide, fold,
};

pub use clocks::{Clocks, Fitness};

use crate::limits::MILESTONE_INTERVAL_RECORDS;
use crate::speculation::{InFlight, Speculation};

/// A reading of both clocks of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Microseconds since 1970, as the operating system believes.
    pub wall_us: u64,
    /// Microseconds since any fixed moment, never going back.
    pub monotonic_us: u64,
}

/// What a caller is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is committed, or nothing had to change.
    Done(Answer),
    /// It was refused, by a State that has committed.
    Rejected(Rejection),
    /// Leadership was lost before it committed: it may or may not be in the log.
    /// Asking again under the same idempotency key is safe.
    Unknown,
    /// This controller does not lead.
    NotLeader,
    /// Too much waits to be committed; nothing was decided.
    Busy,
}

/// What became of a request handed in.
#[derive(Debug, PartialEq, Eq)]
pub enum Submitted<W> {
    /// The answer comes out of [`Ledger::commit`], perhaps still to be confirmed, or [`Ledger::deposed`].
    Waiting,
    /// Nothing is in flight: answer after a ReadIndex has confirmed leadership.
    Confirm(W, Outcome),
    /// Answer at once.
    Answer(W, Outcome),
}

/// What a committed entry came to.
#[derive(Debug)]
pub struct Committed<W> {
    /// The bytes to keep, by seq, with the chain inside.
    pub records: Vec<(Seq, Vec<u8>)>,
    /// The same, decoded.
    pub decoded: Vec<Record>,
    /// State at each milestone among them: see [`limits::MILESTONE_INTERVAL_RECORDS`].
    pub milestones: Vec<State>,
    /// Who is told what.
    pub answers: Vec<(W, Outcome)>,
    /// Who is told what after a ReadIndex has confirmed leadership: they asked when the entry was on its
    /// way already, so a majority may have taken it before, and follow another leader since.
    pub unconfirmed: Vec<(W, Outcome)>,
}

impl<W> Default for Committed<W> {
    fn default() -> Self {
        Self {
            records: Vec::new(),
            decoded: Vec::new(),
            milestones: Vec::new(),
            answers: Vec::new(),
            unconfirmed: Vec::new(),
        }
    }
}

/// A committed entry cannot be folded. The controller must stop deciding and say so.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Its bytes are not an entry of this program's.
    #[error("the committed entry {index} cannot be read: {error}")]
    Decode {
        /// Raft index.
        index: u64,
        /// What is wrong.
        error: DecodeError,
    },
    /// State here differs from State where the digest was recorded.
    #[error(
        "record {seq} says State has digest {recorded}, here it is {folded}: this replica has diverged and must \
         not answer; wipe it and let it rejoin under a new id"
    )]
    Diverged {
        /// The record.
        seq: Seq,
        /// The leader's digest.
        recorded: Digest,
        /// Ours.
        folded: Digest,
    },
    /// It belongs to another fleet.
    #[error("the committed entry {index} is of fleet {found:?}, this is {expected:?}")]
    Fleet {
        /// Raft index.
        index: u64,
        /// In the entry.
        found: String,
        /// Ours.
        expected: String,
    },
}

/// State, and on the leader what it is about to become.
///
/// `W` identifies a waiting caller to the shell.
#[derive(Debug)]
pub struct Ledger<W> {
    fleet: String,
    state: State,
    chain: Chain,
    /// The term this controller leads, and under which id, until it is deposed.
    leading: Option<(u64, ControllerId)>,
    /// Present once everything before this term is folded.
    speculation: Option<Speculation<W>>,
}

impl<W> Ledger<W> {
    /// Begins from a State and the chain at its seq.
    pub fn new(fleet: &str, mut state: State, chain: Chain) -> Self {
        state.keep_index();
        Self { fleet: fleet.to_owned(), state, chain, leading: None, speculation: None }
    }

    /// Committed State. A clone costs nothing.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The chain at committed State.
    pub fn chain(&self) -> Chain {
        self.chain
    }

    /// Takes over what was hashed elsewhere for a committed State of this log: see [`State::adopt_digest`].
    pub fn adopt_digest(&mut self, earlier: &State) {
        if earlier.seq <= self.state.seq {
            self.state.adopt_digest(earlier);
            if let Some(speculation) = &mut self.speculation {
                speculation.state.adopt_digest(earlier);
            }
        }
    }

    /// Replaces State by an installed snapshot. Whoever waits is told nothing is known.
    pub fn restore(&mut self, mut state: State, chain: Chain) -> Vec<(W, Outcome)> {
        state.keep_index();
        self.state = state;
        self.chain = chain;
        self.deposed()
    }

    /// Raft says this controller leads `term`. It does not decide yet: entries of
    /// earlier terms may still commit.
    pub fn elected(&mut self, term: u64, controller: ControllerId) {
        self.leading = Some((term, controller));
        if !planted!(KeepSpeculation) {
            self.speculation = None;
        }
    }

    /// Leadership is lost, or speculation can no longer be trusted.
    pub fn deposed(&mut self) -> Vec<(W, Outcome)> {
        self.leading = None;
        if planted!(KeepSpeculation) {
            return Vec::new();
        }
        self.speculation.take().map(Speculation::abandon).unwrap_or_default()
    }

    /// An entry of the term this controller leads was applied, so all before it are
    /// folded: starts deciding with the term's first record. False when there is
    /// nothing to start.
    pub fn caught_up(&mut self, now: Moment) -> bool {
        let Some((term, controller)) = self.leading else { return false };
        if self.speculation.is_some() {
            return false;
        }
        let speculation = Speculation::new(term, self.state.clone(), self.chain, now);
        self.speculation = Some(speculation);
        let request = system_request(Command::StartTerm { term, controller });
        // Nobody waits for it: whatever else is decided sees it committed first.
        let decided = self.decide_into_batch(&request, BTreeMap::new(), now);
        assert!(matches!(decided, Ok(Some(_))), "starting a term is never refused: {decided:?}");
        true
    }

    /// Log time now, while this controller decides.
    pub fn time(&self, now: Moment) -> Option<Time> {
        self.speculation.as_ref().map(|speculation| speculation.time(now))
    }

    /// Has log time catch up with the wall clock of a controller that decides, where it is more than
    /// [`limits::LOG_TIME_BEHIND_US_MAX`] behind; answers by how much, in microseconds. Only for one whose clock is
    /// [fit](Clocks::fitness): log time follows it, and never goes back.
    pub fn follow_wall(&mut self, now: Moment) -> Option<u64> {
        self.speculation.as_mut()?.follow_wall(now)
    }

    /// Notes that nodes could not be heard before now: no deadline counts time from before it. Without effect on one that
    /// does not decide.
    pub fn listens_since(&mut self, now: Moment) {
        if let Some(speculation) = &mut self.speculation {
            let now = speculation.time(now);
            speculation.state.listens_since(now);
        }
    }

    /// Whether this controller decides.
    pub fn is_deciding(&self) -> bool {
        self.speculation.is_some()
    }

    /// Whether more is refused until something commits.
    pub fn is_full(&self) -> bool {
        self.speculation.as_ref().is_some_and(Speculation::is_full)
    }

    /// State as the next decision will see it.
    pub fn speculative(&self) -> Option<&State> {
        self.speculation.as_ref().map(|speculation| &speculation.state)
    }

    /// Decides a request. `past` holds the earlier States that deciding it needs.
    pub fn submit(
        &mut self,
        waiter: W,
        request: &Request,
        past: BTreeMap<Seq, State>,
        now: Moment,
    ) -> Submitted<W> {
        if self.speculation.is_none() {
            return Submitted::Answer(waiter, Outcome::NotLeader);
        }
        if self.is_full() {
            return Submitted::Answer(waiter, Outcome::Busy);
        }
        let outcome = match self.decide_into_batch(request, past, now) {
            Ok(Some(answer)) => {
                self.wait(waiter, Outcome::Done(answer), true);
                return Submitted::Waiting;
            }
            Ok(None) => Outcome::Done(Answer::default()),
            Err(Refusal::Repeated(answer)) => Outcome::Done(answer),
            Err(Refusal::Rejected(rejection)) => Outcome::Rejected(rejection),
        };
        if planted!(AnswerOnSpeculation) {
            return Submitted::Answer(waiter, outcome);
        }
        // The answer rests on a State that may never commit: it waits for it.
        if self.speculation.as_ref().is_some_and(Speculation::is_settled) {
            return Submitted::Confirm(waiter, outcome);
        }
        self.wait(waiter, outcome, false);
        Submitted::Waiting
    }

    fn wait(&mut self, waiter: W, outcome: Outcome, decided: bool) {
        if let Some(speculation) = &mut self.speculation {
            speculation.wait(waiter, outcome, decided);
        }
    }

    /// `Ok(Some)` when records were added to the batch, `Ok(None)` when nothing had to change.
    fn decide_into_batch(
        &mut self,
        request: &Request,
        past: BTreeMap<Seq, State>,
        now: Moment,
    ) -> Result<Option<Answer>, Refusal> {
        let Some(speculation) = &mut self.speculation else { return Ok(None) };
        if matches!(request.command, Command::RecordStateDigest) {
            // Hashes what changed here, where it stays hashed; deciding then reads it from a copy.
            speculation.state.digest();
        }
        let time = speculation.time(now);
        let context = stele_model::Context { now: time, past };
        match decide(&speculation.state, request, &context).map_err(Refusal::Rejected)? {
            stele_model::Decided::Repeated(answer) => Err(Refusal::Repeated(answer)),
            stele_model::Decided::Events(events) if events.is_empty() => Ok(None),
            stele_model::Decided::Events(events) => {
                speculation.add(request, &events, time).map(Some).map_err(Refusal::Rejected)
            }
        }
    }

    /// Closes the batch: the entry's bytes to propose, and how many records are in it.
    /// `None` when nothing waits or enough is in flight.
    pub fn close_batch(&mut self) -> Option<(Vec<u8>, usize)> {
        let fleet = self.fleet.clone();
        self.speculation.as_mut()?.close(fleet)
    }

    /// The entry closed last was proposed at this index.
    pub fn proposed(&mut self, index: u64) {
        if let Some(speculation) = &mut self.speculation {
            speculation.proposed(index);
        }
    }

    /// Folds a committed entry. `term` is Raft's own for it.
    ///
    /// An entry decided in another term than Raft's, or against another log than
    /// this one, is void: every replica sees that alike and folds nothing.
    pub fn commit(&mut self, index: u64, term: u64, bytes: &[u8]) -> Result<Committed<W>, LedgerError> {
        if let Some(own) = self.speculation.as_mut().and_then(|speculation| speculation.take(index, term)) {
            return Ok(self.commit_own(own));
        }
        let entry = Entry::decode(bytes).map_err(|error| LedgerError::Decode { index, error })?;
        if entry.fleet != self.fleet {
            return Err(LedgerError::Fleet { index, found: entry.fleet, expected: self.fleet.clone() });
        }
        if entry.term != term || entry.first != self.state.seq + 1 || entry.previous != self.chain {
            return Ok(Committed::default());
        }
        let count = entry.records.len();
        let mut committed = Committed {
            records: Vec::with_capacity(count),
            decoded: Vec::with_capacity(count),
            ..Committed::default()
        };
        for stored in entry.records {
            let record = stored.decode().map_err(|error| LedgerError::Decode { index, error })?;
            self.check_digest(&record)?;
            fold(&mut self.state, &record);
            committed.milestones.extend(milestone(&self.state));
            self.chain = self.chain.link(&stored.leaf);
            committed.records.push((record.header.seq, stored.to_bytes(self.chain)));
            committed.decoded.push(record);
        }
        Ok(committed)
    }

    /// What this controller decided itself was folded already, when it was decided.
    fn commit_own(&mut self, own: InFlight<W>) -> Committed<W> {
        let mut committed = Committed {
            records: Vec::with_capacity(own.records.len()),
            decoded: Vec::with_capacity(own.records.len()),
            milestones: own.milestones,
            answers: own.waiters,
            unconfirmed: own.unconfirmed,
        };
        for (stored, record) in own.records {
            self.chain = self.chain.link(&stored.leaf);
            committed.records.push((record.header.seq, stored.to_bytes(self.chain)));
            committed.decoded.push(record);
        }
        assert_eq!(self.chain, own.chain, "what was decided is what commits");
        self.state = own.state;
        committed
    }

    fn check_digest(&mut self, record: &Record) -> Result<(), LedgerError> {
        let Event::StateDigestRecorded { digest: recorded } = &record.event else { return Ok(()) };
        let folded = self.state.digest();
        if folded == *recorded {
            return Ok(());
        }
        Err(LedgerError::Diverged { seq: record.header.seq, recorded: *recorded, folded })
    }
}

/// State, where it is one of a milestone.
fn milestone(state: &State) -> Option<State> {
    state.seq.is_multiple_of(MILESTONE_INTERVAL_RECORDS).then(|| state.clone())
}

/// Why nothing was added to the batch.
#[derive(Debug)]
enum Refusal {
    Repeated(Answer),
    Rejected(Rejection),
}

/// A request of the controllers' own.
pub fn system_request(command: Command) -> Request {
    Request {
        principal: stele_model::decide::system(),
        command,
        idempotency: None,
        trace: None,
        cause: None,
        reason: None,
        links: Links::default(),
        if_match: None,
    }
}

/// A stored record with what it says.
type Pair = (StoredRecord, Record);

fn too_large(error: &DecodeError) -> Rejection {
    Rejection::new(RejectionKind::TooLarge, error.to_string())
}
