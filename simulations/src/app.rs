//! What a replica does with what Raft hands out: the controller's `app.rs` without its threads and
//! channels.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use stele_codec::{Chain, Snapshot};
use stele_consensus::{
    Applied, Committed, CommittedKind, Handler, HandlerError, Message, Role, RoleChange, StoredSnapshot,
    encode_message, vote_of,
};
use stele_ledger::{Clocks, Fitness, Ledger, Moment, Outcome};
use stele_model::{ControllerId, Event, Record, Scope, Seq, State};
use stele_planner::Dirty;
use stele_planted::{Bug, is_planted};

use crate::client::VARIABLE;
use crate::limits::{DIGEST_STRIDE, READ_RETRY_US};
use crate::oracle::Oracle;
use crate::wire::{Asker, Out, Packet, Told};

/// Somebody who waits for leadership to be confirmed.
#[derive(Debug)]
pub(crate) enum Reading {
    /// Wants State.
    State(Asker),
    /// Has an answer that rests on a State nothing was in flight for.
    Outcome(Asker, Outcome),
}

struct PendingRead {
    readers: Vec<Reading>,
    asked_us: u64,
    index: Option<u64>,
}

/// See the module.
pub(crate) struct App {
    /// Which controller.
    pub(crate) id: ControllerId,
    /// Decides and folds.
    pub(crate) ledger: Ledger<Asker>,
    /// Who leads, as far as known.
    pub(crate) leader: Option<ControllerId>,
    /// Raft's term.
    pub(crate) term: u64,
    /// The term this controller leads.
    pub(crate) leads_term: Option<u64>,
    /// Index from which on this leader may decide.
    pub(crate) resume_at: u64,
    /// Last entry applied.
    pub(crate) applied: u64,
    answers: Vec<(Asker, Outcome)>,
    /// Answers that rest on what has committed, for which leadership is still to be confirmed.
    pub(crate) unconfirmed: Vec<Reading>,
    reads: BTreeMap<Vec<u8>, PendingRead>,
    nonce: u64,
    next_read: u64,
    /// Whether messages say what time it is here.
    pub(crate) stamps: bool,
    /// Whether a vote was given in this turn.
    pub(crate) voted: bool,
    /// Whether a snapshot was installed in this turn.
    pub(crate) restored: bool,
    /// The clocks of the other controllers.
    pub(crate) clocks: Clocks,
    /// Who votes, as Raft has it.
    pub(crate) voters: Vec<ControllerId>,
    /// The last seq at which a State digest was recorded.
    pub(crate) digest_at: Seq,
    /// Whether one is worth recording now.
    pub(crate) digest_due: bool,
    /// What the conductor should look at.
    pub(crate) dirty: Dirty,
    /// The last snapshot of State.
    pub(crate) snapshot_at: Seq,
    /// Both clocks, as of the turn under way.
    pub(crate) now: Moment,
    /// What is given out in this turn.
    pub(crate) out: Vec<Out>,
    /// Entries until applying fails, as if the process ended there.
    pub(crate) fail_in: Option<u64>,
    /// Whether committed State changed since the outbox looked.
    pub(crate) changed: bool,
    /// Reports whose content is committed, to be acknowledged: node, boot, number.
    pub(crate) acks: Vec<(usize, u64, u64)>,
    oracle: Rc<RefCell<Oracle>>,
}

impl App {
    /// A process that begins with what was recovered.
    pub(crate) fn new(
        id: ControllerId,
        (state, chain): (State, Chain),
        (snapshot_at, applied, nonce): (Seq, u64, u64),
        oracle: Rc<RefCell<Oracle>>,
    ) -> Self {
        Self {
            id,
            ledger: Ledger::new("demo", state, chain),
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
            stamps: true,
            voted: false,
            restored: false,
            clocks: Clocks::default(),
            voters: Vec::new(),
            digest_at: 0,
            digest_due: false,
            dirty: Dirty::All,
            snapshot_at,
            now: Moment { wall_us: 0, monotonic_us: 0 },
            out: Vec::new(),
            fail_in: None,
            changed: true,
            acks: Vec::new(),
            oracle,
        }
    }

    /// Begins to decide, unless the clock is so far off that log time would follow it.
    pub(crate) fn begin_deciding(&mut self) {
        if self.clock_is_fit() == Fitness::Fit {
            self.ledger.caught_up(self.now);
        }
    }

    /// Whether this controller's clock agrees with those of the other voters.
    pub(crate) fn clock_is_fit(&self) -> Fitness {
        self.clocks.fitness(self.id, &self.voters, self.now)
    }

    /// Answers somebody.
    pub(crate) fn tell(&mut self, asker: Asker, outcome: Outcome) {
        self.answer(asker, Told::Outcome(outcome));
    }

    /// Answers somebody.
    pub(crate) fn answer(&mut self, asker: Asker, told: Told) {
        match asker {
            Asker::Nobody | Asker::Reports(_) => {}
            Asker::Client { client, attempt } => self.out.push(Out::Client(client, attempt, told)),
            Asker::Peer { controller, asker } => {
                self.out.push(Out::Peer(controller, Packet::Answer(*asker, told)));
            }
        }
    }

    /// Reports that were decided, to be acknowledged by whoever took them.
    fn tell_committed(&mut self, asker: Asker, outcome: Outcome, acks: &mut Vec<(usize, u64, u64)>) {
        match (asker, outcome) {
            (Asker::Reports(reports), Outcome::Done(_)) => acks.extend(reports),
            (asker, outcome) => self.tell(asker, outcome),
        }
    }

    /// Remembers readers under a fresh context.
    pub(crate) fn begin_read(&mut self, readers: Vec<Reading>) -> Vec<u8> {
        self.next_read += 1;
        let mut context = self.id.to_be_bytes().to_vec();
        context.extend_from_slice(&self.nonce.to_be_bytes());
        context.extend_from_slice(&self.next_read.to_be_bytes());
        let asked_us = self.now.monotonic_us;
        self.reads.insert(context.clone(), PendingRead { readers, asked_us, index: None });
        context
    }

    /// Readers whose question or answer was lost on the way.
    pub(crate) fn overdue_reads(&mut self) -> Vec<Reading> {
        let now = self.now.monotonic_us;
        let overdue: Vec<_> = self
            .reads
            .iter()
            .filter(|(_, read)| read.index.is_none() && now.saturating_sub(read.asked_us) > READ_RETRY_US)
            .map(|(context, _)| context.clone())
            .collect();
        overdue.iter().flat_map(|context| self.cancel_read(context)).collect()
    }

    /// Takes a context back that Raft refused.
    pub(crate) fn cancel_read(&mut self, context: &[u8]) -> Vec<Reading> {
        self.reads.remove(context).map(|read| read.readers).unwrap_or_default()
    }

    /// Answers a reader from committed State.
    pub(crate) fn answer_reading(&mut self, reading: Reading) {
        match reading {
            Reading::State(asker) => {
                let told = told_state(self.ledger.state());
                self.answer(asker, told);
            }
            Reading::Outcome(Asker::Reports(reports), Outcome::Done(_)) => self.acks.extend(reports),
            Reading::Outcome(asker, outcome) => self.tell(asker, outcome),
        }
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
                self.answer_reading(reader);
            }
        }
    }

    fn fail_confirmations(&mut self) {
        let mut failed = Vec::new();
        for reading in std::mem::take(&mut self.unconfirmed) {
            if let Reading::Outcome(asker, _) = reading {
                failed.push(asker);
            }
        }
        for read in self.reads.values_mut() {
            for reader in std::mem::take(&mut read.readers) {
                match reader {
                    Reading::Outcome(asker, _) => failed.push(asker),
                    Reading::State(_) => read.readers.push(reader),
                }
            }
        }
        for asker in failed {
            self.tell(asker, Outcome::Unknown);
        }
    }

    fn note(&mut self, records: &[Record]) {
        for Record { header, event } in records {
            self.dirty.note(self.ledger.state(), header, event);
            match event {
                Event::StateDigestRecorded { .. } => self.digest_at = header.seq,
                Event::DeploymentFinished { .. } | Event::RolledBack { .. } => {
                    self.digest_due |= header.seq > self.digest_at;
                }
                _ => {}
            }
        }
    }

    /// Gives up speculation; whoever waits hears that nothing is known.
    pub(crate) fn abandon(&mut self) {
        self.dirty = Dirty::All;
        for (asker, outcome) in self.ledger.deposed() {
            self.tell(asker, outcome);
        }
        self.fail_confirmations();
    }
}

/// What a reader is told of a State.
pub(crate) fn told_state(state: &State) -> Told {
    let values = state.target.intent.iter().map(|(app_env, revision)| {
        let config = revision.config.as_ref().and_then(|config| state.history.configs.get(config));
        let value = config.and_then(|config| config.get(VARIABLE)).map(|value| format!("{value:?}"));
        (app_env.clone(), value)
    });
    let values = values.collect();
    Told::State { seq: state.seq, target: state.target_digest(&Scope::fleet()), values }
}

impl Handler for App {
    fn send(&mut self, messages: Vec<Message>) {
        let clock_us = self.stamps.then_some(self.now.wall_us);
        for message in messages {
            if let Some((term, candidate)) = vote_of(&message) {
                self.voted = true;
                self.oracle.borrow_mut().voted(self.id, term, candidate);
            }
            self.out.push(Out::Peer(message.to, Packet::Raft(encode_message(&message, clock_us))));
        }
    }

    fn role(&mut self, change: RoleChange) {
        let leads = change.role == Role::Leader;
        if leads {
            self.oracle.borrow_mut().leads(self.id, change.term);
        }
        self.leader = change.leader;
        self.term = change.term;
        self.changed = true;
        if leads && self.leads_term != Some(change.term) {
            self.leads_term = Some(change.term);
            self.resume_at = 0;
            self.ledger.elected(change.term, self.id);
            if is_planted(Bug::ForgetDirty) {
                self.dirty = Dirty::Apps(std::collections::BTreeSet::new());
            } else {
                self.dirty = Dirty::All;
            }
        } else if !leads && self.leads_term.take().is_some() {
            self.abandon();
        }
    }

    fn restore(&mut self, snapshot: &StoredSnapshot) -> Result<(), HandlerError> {
        let mut restored = Snapshot::decode(&snapshot.data)?;
        restored.state.digest();
        for (asker, outcome) in self.ledger.restore(restored.state, restored.chain) {
            self.tell(asker, outcome);
        }
        self.voters.clone_from(&snapshot.head.conf_state.voters);
        self.applied = snapshot.head.index;
        self.restored = true;
        self.snapshot_at = snapshot.head.seq;
        self.changed = true;
        let mut oracle = self.oracle.borrow_mut();
        oracle.state_of(self.id, self.ledger.state(), self.ledger.chain());
        oracle.digest_of(self.id, self.ledger.state());
        Ok(())
    }

    fn apply(&mut self, entry: Committed) -> Result<Applied, HandlerError> {
        if let Some(left) = &mut self.fail_in {
            if *left == 0 {
                return Err("the process ends here".into());
            }
            *left -= 1;
        }
        let Committed { index, term, kind } = entry;
        self.oracle.borrow_mut().applied(self.id, index, term, &kind);
        let mut applied = Applied::default();
        match kind {
            CommittedKind::Normal(bytes) => {
                let committed = self.ledger.commit(index, term, &bytes)?;
                self.note(&committed.decoded);
                self.answers.extend(committed.answers);
                let unconfirmed = committed.unconfirmed.into_iter();
                self.unconfirmed.extend(unconfirmed.map(|(asker, outcome)| Reading::Outcome(asker, outcome)));
                applied.records = committed.records;
                self.changed = true;
                let mut oracle = self.oracle.borrow_mut();
                oracle.committed(self.id, index, &applied.records);
                oracle.state_of(self.id, self.ledger.state(), self.ledger.chain());
                if self.ledger.state().seq / DIGEST_STRIDE
                    != (self.ledger.state().seq - applied.records.len() as u64) / DIGEST_STRIDE
                {
                    oracle.digest_of(self.id, self.ledger.state());
                }
            }
            CommittedKind::ConfChange { conf_state, .. } => {
                self.dirty = Dirty::All;
                self.voters = conf_state.voters;
            }
            CommittedKind::Empty => {}
        }
        if self.leads_term == Some(term) && index >= self.resume_at {
            self.begin_deciding();
        }
        Ok(applied)
    }

    fn applied(&mut self, index: u64) {
        self.applied = index;
        let mut acks = Vec::new();
        for (asker, outcome) in std::mem::take(&mut self.answers) {
            self.tell_committed(asker, outcome, &mut acks);
        }
        self.acks.extend(acks);
        self.answer_reads();
    }

    fn read(&mut self, context: Vec<u8>, index: u64) {
        if let Some(read) = self.reads.get_mut(&context) {
            read.index = Some(index);
        }
        self.answer_reads();
    }
}
