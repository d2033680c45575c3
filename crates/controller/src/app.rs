//! What the replica does with what Raft hands out. Runs on the replica's thread.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use stele_codec::Snapshot;
use stele_consensus::{
    Applied, Committed, CommittedKind, Handler, HandlerError, Message, Role, RoleChange, StoredSnapshot,
    encode_message,
};
use stele_ledger::{Clocks, Fitness, Ledger, Moment, Outcome};
use stele_model::{ControllerId, Event, Record, Seq, State};
use stele_peer::{Peers, SendError};
use stele_planner::Dirty;
use tokio::sync::watch;

use crate::digested::Digested;
use crate::handle::now;
use crate::keepalive::Keepalive;
use crate::limits::READ_RETRY_INTERVAL;
use crate::reached::Reached;
use crate::snapshots::Snapshots;
use crate::waiter::{Reading, Waiter};

/// What everybody else sees of the replica.
#[derive(Clone, Debug)]
pub struct Published {
    /// Committed State.
    pub state: State,
    /// Whether this controller leads and decides.
    pub leads: bool,
    /// The leader, as far as known.
    pub leader: Option<ControllerId>,
    /// Raft's term.
    pub term: u64,
    /// Whether it leads and is about to change assignments of further apps.
    pub assigns_more: bool,
}

/// One ReadIndex on its way, for everybody who asked before it left.
struct PendingRead {
    readers: Vec<Reading>,
    asked: Instant,
    /// The index that must be applied, once the quorum answered.
    index: Option<u64>,
}

pub(crate) struct App {
    id: ControllerId,
    pub(crate) ledger: Ledger<Waiter>,
    peers: Peers,
    /// Says that a leader is still there.
    pub(crate) keepalive: Keepalive,
    published: watch::Sender<Published>,
    committed: watch::Sender<Seq>,
    /// What was hashed elsewhere.
    digested: Digested,
    /// Milestones for the archive.
    reached: Reached,
    started: Instant,
    leader: Option<ControllerId>,
    term: u64,
    leads_term: Option<u64>,
    /// Index from which on this leader may decide: after a dropped proposal, all that is in
    /// flight must be applied first.
    pub(crate) resume_at: u64,
    applied: u64,
    /// Answers to give once what they rest on can be read from the store.
    answers: Vec<(Waiter, Outcome)>,
    /// Answers that rest on what has committed, for which leadership is still to be confirmed.
    pub(crate) unconfirmed: Vec<Reading>,
    reads: BTreeMap<Vec<u8>, PendingRead>,
    /// Tells reads of this start from those of earlier ones.
    nonce: u64,
    next_read: u64,
    /// The clocks of the other controllers.
    pub(crate) clocks: Clocks,
    /// Who votes, as Raft has it.
    pub(crate) voters: Vec<ControllerId>,
    /// The last seq at which a State digest was recorded.
    pub(crate) digest_at: Seq,
    /// Whether something was committed that makes a digest worth recording now.
    pub(crate) digest_due: bool,
    /// What the conductor should look at again.
    pub(crate) dirty: Dirty,
    /// Whether the conductor's turn ended while it changed assignments of one app after another.
    pub(crate) assigns_more: bool,
    /// The last snapshot of State.
    pub(crate) snapshot_at: Seq,
    /// Snapshots being made.
    pub(crate) snapshots: Snapshots,
}

impl App {
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        id: ControllerId,
        ledger: Ledger<Waiter>,
        peers: Peers,
        keepalive: Keepalive,
        published: watch::Sender<Published>,
        committed: watch::Sender<Seq>,
        digested: Digested,
        reached: Reached,
        snapshot_at: Seq,
        applied: u64,
        nonce: u64,
    ) -> Self {
        Self {
            id,
            ledger,
            peers,
            keepalive,
            published,
            committed,
            digested,
            reached,
            started: Instant::now(),
            leader: None,
            term: 0,
            leads_term: None,
            resume_at: 0,
            applied,
            answers: Vec::new(),
            unconfirmed: Vec::new(),
            reads: BTreeMap::new(),
            nonce,
            next_read: 0,
            clocks: Clocks::default(),
            voters: Vec::new(),
            digest_at: 0,
            digest_due: false,
            dirty: Dirty::All,
            assigns_more: false,
            snapshot_at,
            snapshots: Snapshots::default(),
        }
    }

    pub(crate) fn now(&self) -> Moment {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment { wall_us: wall.as_micros() as u64, monotonic_us: self.started.elapsed().as_micros() as u64 }
    }

    /// Until now no node could be heard.
    pub(crate) fn listens_since_now(&mut self) {
        let now = self.now();
        self.ledger.listens_since(now);
    }

    pub(crate) fn publish(&self) {
        let state = self.ledger.state();
        self.published.send_replace(Published {
            state: state.clone(),
            leads: self.ledger.is_deciding(),
            leader: self.leader,
            term: self.term,
            assigns_more: self.ledger.is_deciding() && self.assigns_more,
        });
        self.committed.send_if_modified(|seq| {
            let is_newer = *seq != state.seq;
            *seq = state.seq;
            is_newer
        });
    }

    /// Begins to decide, unless the clock is so far off that log time would follow it.
    pub(crate) fn begin_deciding(&mut self) {
        let now = self.now();
        if self.clock_is_fit(now) == Fitness::Fit && self.ledger.caught_up(now) {
            tracing::info!(term = self.term, "deciding");
        }
    }

    /// Whether this controller's clock agrees with those of the other voters.
    pub(crate) fn clock_is_fit(&self, now: Moment) -> Fitness {
        self.clocks.fitness(self.id, &self.voters, now)
    }

    /// Remembers readers under a fresh context, which the caller hands to Raft.
    pub(crate) fn begin_read(&mut self, readers: Vec<Reading>) -> Vec<u8> {
        self.next_read += 1;
        let mut context = self.id.to_be_bytes().to_vec();
        context.extend_from_slice(&self.nonce.to_be_bytes());
        context.extend_from_slice(&self.next_read.to_be_bytes());
        self.reads.insert(context.clone(), PendingRead { readers, asked: Instant::now(), index: None });
        context
    }

    /// Readers whose question or answer was lost on the way: they are asked for again.
    pub(crate) fn overdue_reads(&mut self) -> Vec<Reading> {
        let overdue: Vec<_> = self
            .reads
            .iter()
            .filter(|(_, read)| read.index.is_none() && read.asked.elapsed() > READ_RETRY_INTERVAL)
            .map(|(context, _)| context.clone())
            .collect();
        let reads = overdue.into_iter().filter_map(|context| self.reads.remove(&context));
        reads.flat_map(|read| read.readers).filter(Reading::is_wanted).collect()
    }

    /// Takes a context back that Raft refused.
    pub(crate) fn cancel_read(&mut self, context: &[u8]) -> Vec<Reading> {
        self.reads.remove(context).map(|read| read.readers).unwrap_or_default()
    }

    fn answer_reads(&mut self) {
        let ready: Vec<_> = self
            .reads
            .iter()
            .filter(|(_, read)| read.index.is_some_and(|index| index <= self.applied))
            .map(|(context, _)| context.clone())
            .collect();
        for context in ready {
            for reader in self.cancel_read(&context) {
                match reader {
                    // A reader that went away needs no answer.
                    Reading::State(reader) => drop(reader.send(self.ledger.state().clone())),
                    Reading::Outcome(waiter, outcome) => waiter.tell(outcome),
                }
            }
        }
    }

    /// What rests on this term's speculation cannot be answered in another.
    fn fail_confirmations(&mut self) {
        for reading in std::mem::take(&mut self.unconfirmed) {
            if let Reading::Outcome(waiter, _) = reading {
                waiter.tell(Outcome::Unknown);
            }
        }
        for read in self.reads.values_mut() {
            for reader in std::mem::take(&mut read.readers) {
                match reader {
                    Reading::Outcome(waiter, _) => waiter.tell(Outcome::Unknown),
                    Reading::State(_) => read.readers.push(reader),
                }
            }
        }
    }

    fn note(&mut self, records: &[Record]) {
        for Record { header, event } in records {
            self.dirty.note(self.ledger.state(), header, event);
            match event {
                Event::StateDigestRecorded { .. } => self.digest_at = header.seq,
                // One that was decided after it covers it already.
                Event::DeploymentFinished { .. } | Event::RolledBack { .. } => {
                    self.digest_due |= header.seq > self.digest_at;
                }
                _ => {}
            }
        }
    }

    /// Takes over what was hashed beside this thread: hashing much here would hold up everything else.
    pub(crate) fn adopt_digest(&mut self) {
        if let Some(state) = self.digested.take() {
            self.ledger.adopt_digest(&state);
        }
    }

    /// Gives up speculation; whoever waits hears that nothing is known.
    pub(crate) fn abandon(&mut self) {
        // What was planned on the speculation must be planned again.
        self.dirty = Dirty::All;
        self.assigns_more = false;
        for (waiter, outcome) in self.ledger.deposed() {
            waiter.tell(outcome);
        }
        self.fail_confirmations();
    }

    /// Whether this controller leads in Raft's eyes, and in which term.
    pub(crate) fn leads_term(&self) -> Option<u64> {
        self.leads_term
    }
}

impl Reading {
    fn is_wanted(&self) -> bool {
        match self {
            Self::State(reader) => !reader.is_closed(),
            Self::Outcome(..) => true,
        }
    }
}

/// Sends a message with this controller's clock. One that cannot be sent is lost, which Raft expects.
pub(crate) fn send_raft(peers: &Peers, message: &Message) {
    match peers.send_raft(message.to, encode_message(message, Some(now().0))) {
        Ok(()) => {}
        // Raft would repeat it for ever, and that controller never catch up.
        Err(error @ SendError::TooLarge { .. }) => {
            tracing::error!(to = message.to, %error, "a controller that is far behind cannot be sent State");
        }
        Err(error) => tracing::debug!(to = message.to, %error, "a raft message was dropped"),
    }
}

impl Handler for App {
    fn send(&mut self, messages: Vec<Message>) {
        for message in messages {
            send_raft(&self.peers, &message);
        }
        self.keepalive.spoke();
    }

    fn role(&mut self, change: RoleChange) {
        let leads = change.role == Role::Leader;
        tracing::info!(role = ?change.role, term = change.term, leader = ?change.leader, "role");
        self.keepalive.leads(leads.then_some(change.term));
        self.leader = change.leader;
        self.term = change.term;
        if leads && self.leads_term != Some(change.term) {
            self.leads_term = Some(change.term);
            self.resume_at = 0;
            self.ledger.elected(change.term, self.id);
            self.dirty = Dirty::All;
        } else if !leads && self.leads_term.take().is_some() {
            self.abandon();
        }
        self.publish();
    }

    fn restore(&mut self, snapshot: &StoredSnapshot) -> Result<(), HandlerError> {
        let mut restored = Snapshot::decode(&snapshot.data)?;
        // Once; what is folded from here on is hashed as it changes.
        restored.state.digest();
        tracing::info!(seq = restored.state.seq, "installed the leader's snapshot");
        for (waiter, outcome) in self.ledger.restore(restored.state, restored.chain) {
            waiter.tell(outcome);
        }
        self.voters.clone_from(&snapshot.head.conf_state.voters);
        self.applied = snapshot.head.index;
        self.snapshot_at = snapshot.head.seq;
        self.publish();
        Ok(())
    }

    fn apply(&mut self, entry: Committed) -> Result<Applied, HandlerError> {
        let Committed { index, term, kind } = entry;
        let mut applied = Applied::default();
        match kind {
            CommittedKind::Normal(bytes) => {
                self.adopt_digest();
                let computing = self.keepalive.computing();
                let committed = self.ledger.commit(index, term, &bytes)?;
                self.note(&committed.decoded);
                drop(computing);
                self.reached.put(committed.milestones);
                self.answers.extend(committed.answers);
                let unconfirmed = committed.unconfirmed.into_iter();
                self.unconfirmed
                    .extend(unconfirmed.map(|(waiter, outcome)| Reading::Outcome(waiter, outcome)));
                self.snapshots.note(committed.records.iter().map(|(_, bytes)| bytes.len()).sum());
                applied.records = committed.records;
            }
            CommittedKind::ConfChange { conf_state, .. } => {
                self.dirty = Dirty::All;
                self.voters = conf_state.voters;
            }
            CommittedKind::Empty => {}
        }
        // Everything of earlier terms is folded now: this leader may decide.
        if self.leads_term == Some(term) && index >= self.resume_at {
            self.begin_deciding();
        }
        Ok(applied)
    }

    fn applied(&mut self, index: u64) {
        self.applied = index;
        self.publish();
        for (waiter, outcome) in std::mem::take(&mut self.answers) {
            waiter.tell(outcome);
        }
        self.answer_reads();
    }

    fn read(&mut self, context: Vec<u8>, index: u64) {
        if let Some(read) = self.reads.get_mut(&context) {
            read.index = Some(index);
        }
        self.answer_reads();
    }
}
