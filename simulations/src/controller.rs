//! A controller: the real driver, ledger and planner, in the thinnest shell around them. It stands
//! for the controller's `replica.rs`, `handle.rs` and `backfill.rs`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ed25519_dalek::SigningKey;
use stele_codec::{Chain, Snapshot, StoredRecord};
use stele_consensus::memory::MemoryStore;
use stele_consensus::{
    Config, Driver, LogStore as _, MembershipChange, ProposeError, Role, StepError, StoredSnapshot,
    bootstrap, decode_message,
};
use stele_ledger::limits::STATE_DIGEST_INTERVAL_RECORDS;
use stele_ledger::{Moment, Outcome, Submitted, system_request};
use stele_model::signature::Certificate;
use stele_model::{
    Command, ControllerId, Digest, Idempotency, Links, Point, Request, Scope, Seq, State, fold,
};
use stele_planner::Dirty;
use stele_planted::{Bug, is_planted};

use crate::app::{App, Reading, told_state};
use crate::limits::{CONDUCTOR_COMMANDS_MAX, EPOCH_US, HOUSEKEEPING_US, RECORDS_PER_ANSWER_MAX, TICK_US};
use crate::oracle::Oracle;
use crate::outbox::Outbox;
use crate::rng::{Rng, mix};
use crate::setup::{Keys, Setup};
use crate::wire::{Asked, Asker, Out, Packet, Told, Want};

/// Why a controller's process ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// In words.
    pub(crate) why: String,
    /// Whether a broken invariant ended it, and not its disk.
    pub(crate) is_defect: bool,
}

/// A controller's process.
pub(crate) struct Process {
    driver: Driver<MemoryStore>,
    /// What it does with what Raft hands out.
    pub(crate) app: App,
    waiting_reads: Vec<Reading>,
    standing: Vec<Command>,
    ticked_us: u64,
    kept_us: u64,
    began_us: u64,
    pub(crate) outbox: Outbox,
    snapshot: Option<(u64, StoredSnapshot, Snapshot)>,
    /// Pages of a gap fetched so far.
    gap: Vec<(Seq, Vec<u8>)>,
    /// Earlier States, by seq, to rebuild others from.
    past: BTreeMap<Seq, State>,
    fails_on_purpose: bool,
}

/// A controller, whether it runs or not.
pub(crate) struct Controller {
    /// Its id.
    pub(crate) id: ControllerId,
    /// Signs what it sends to nodes.
    pub(crate) key: SigningKey,
    /// The root's word for that key.
    pub(crate) certificate: Certificate,
    /// Its process, while it runs.
    pub(crate) process: Option<Process>,
    /// Its disk, while it does not.
    parked: Option<MemoryStore>,
    /// How far its clock is off, in microseconds.
    pub(crate) clock_us: i64,
    /// Until when its process stands still.
    pub(crate) paused_until: u64,
    /// What arrived meanwhile.
    pub(crate) held: Vec<(ControllerId, Packet)>,
    /// The process that runs or ran last, from 1.
    pub(crate) incarnation: u64,
    /// Whether it is gone for good.
    pub(crate) retired: bool,
    rng: Rng,
}

impl Controller {
    /// A controller whose disk is empty, or that of a founder.
    pub(crate) fn new(id: ControllerId, founders: &[ControllerId], keys: &Keys, seed: u64) -> Self {
        let mut store = MemoryStore::new();
        if founders.contains(&id) {
            let genesis = Snapshot { chain: Chain::GENESIS, state: State::default() };
            // An empty store takes any valid founding.
            drop(bootstrap(&mut store, founders, genesis.encode()));
        }
        let key = keys.controller(id);
        let certificate = keys.certificate(id, &key, &keys.root);
        Self {
            id,
            key,
            certificate,
            process: None,
            parked: Some(store),
            clock_us: 0,
            paused_until: 0,
            held: Vec::new(),
            incarnation: 0,
            retired: false,
            rng: Rng::fork(seed, 0x0c00_0000 + id),
        }
    }

    /// Starts the process from what the disk holds.
    pub(crate) fn start(
        &mut self,
        now_us: u64,
        keys: &Keys,
        setup: &Setup,
        oracle: &Rc<RefCell<Oracle>>,
    ) -> Result<(), Ended> {
        let Some(store) = self.parked.take() else { return Ok(()) };
        if store.index().retired().contains(&self.id) {
            self.parked = Some(store);
            self.retired = true;
            return Ok(());
        }
        stele_planted::work_for(self.id);
        self.incarnation += 1;
        let (mut state, chain, snapshot_at) =
            recover(&store).map_err(|why| Ended { why, is_defect: true })?;
        state.digest();
        let applied = store.index().applied();
        let nonce = mix(setup.seed ^ self.id << 32 ^ self.incarnation);
        let mut past = BTreeMap::new();
        past.insert(state.seq, state.clone());
        let app = App::new(self.id, (state, chain), (snapshot_at, applied, nonce), Rc::clone(oracle));
        let seed = setup.seed;
        let election = move |id: u64, term: u64| mix(seed ^ mix(id << 32 ^ term)) as usize % 1000;
        let mut config = Config::new(self.id);
        let ticks = config.election_ticks;
        config.election_timeout = Some(Box::new(move |id, term| ticks + election(id, term) % ticks));
        let driver =
            Driver::new(config, store).map_err(|error| Ended { why: error.to_string(), is_defect: true })?;
        let standing = Command::CreateFleet {
            fleet: keys.fleet.clone(),
            root: keys.root_public.clone(),
            admin: Keys::admin(),
        };
        self.process = Some(Process {
            driver,
            app,
            waiting_reads: Vec::new(),
            standing: vec![standing],
            ticked_us: now_us,
            kept_us: now_us,
            began_us: now_us,
            outbox: Outbox::new(now_us),
            snapshot: None,
            gap: Vec::new(),
            past,
            fails_on_purpose: false,
        });
        Ok(())
    }

    /// Ends the process; of what was not synced, only a prefix survives.
    pub(crate) fn crash(&mut self) {
        self.held.clear();
        if let Some(process) = self.process.take() {
            let store = process.driver.into_store();
            let keep = self.rng.below(store.unsynced() as u64 + 1) as usize;
            self.parked = Some(store.crash(keep));
        }
    }
}

/// State as of the last record: the newest snapshot, and what follows it.
fn recover(store: &MemoryStore) -> Result<(State, Chain, Seq), String> {
    let (mut state, mut chain) = match store.latest_snapshot() {
        Some(snapshot) => {
            let read = Snapshot::decode(&snapshot.data).map_err(|error| error.to_string())?;
            (read.state, read.chain)
        }
        None => (State::default(), Chain::GENESIS),
    };
    let snapshot_at = state.seq;
    let mut last = store.index().last_seq();
    if is_planted(Bug::RecoverShort) {
        last = last.saturating_sub(1);
    }
    for seq in state.seq + 1..=last {
        let bytes =
            store.records().get(&seq).ok_or_else(|| format!("record {seq} is missing from this log"))?;
        let (stored, kept) = StoredRecord::from_bytes(bytes).map_err(|error| error.to_string())?;
        chain = chain.link(&stored.leaf);
        if kept != chain {
            return Err(format!("record {seq} does not continue the log before it"));
        }
        fold(&mut state, &stored.decode().map_err(|error| error.to_string())?);
    }
    Ok((state, chain, snapshot_at))
}

fn ended(error: &impl std::fmt::Display, on_purpose: bool) -> Ended {
    Ended { why: error.to_string(), is_defect: !on_purpose }
}

impl Process {
    /// The store, for whoever looks from outside.
    pub(crate) fn store(&self) -> &MemoryStore {
        self.driver.store()
    }

    /// Where the replica stands.
    pub(crate) fn status(&self) -> stele_consensus::Status {
        self.driver.status()
    }

    /// Committed State as known here.
    pub(crate) fn state(&self) -> &State {
        self.app.ledger.state()
    }

    /// Makes applying fail after so many entries, as if the process ended there.
    pub(crate) fn end_inside(&mut self, entries: u64) {
        self.fails_on_purpose = true;
        self.app.fail_in = Some(entries);
    }

    /// The disk takes no more writes.
    pub(crate) fn fill_disk(&mut self) {
        self.fails_on_purpose = true;
        let full = stele_consensus::StoreError::DiskFull {
            path: "/disk".to_owned(),
            free_bytes: 0,
            needed_bytes: 1,
        };
        self.driver.fail_writes(full);
    }

    /// Sets both clocks for the turn that begins.
    pub(crate) fn at(&mut self, now_us: u64, clock_us: i64) {
        let wall_us = (EPOCH_US + now_us).saturating_add_signed(clock_us);
        self.app.now = Moment { wall_us, monotonic_us: now_us - self.began_us + 1 };
    }

    /// One turn of the replica's loop.
    pub(crate) fn turn(&mut self, now_us: u64, setup: &Setup, rng: &mut Rng) -> Result<(), Ended> {
        let on_purpose = self.fails_on_purpose;
        self.turn_inside(now_us, setup, rng).map_err(|error| ended(&error, on_purpose))
    }

    fn turn_inside(
        &mut self,
        now_us: u64,
        setup: &Setup,
        rng: &mut Rng,
    ) -> Result<(), stele_consensus::DriveError> {
        let due = (now_us - self.ticked_us) / TICK_US;
        if due > 0 {
            self.driver.tick_capped(due as usize)?;
            self.ticked_us += due * TICK_US;
        }
        self.start_reads();
        self.keep_house(now_us);
        self.conduct();
        self.propose();
        while self.driver.ready(&mut self.app)? {
            self.remember();
            self.conduct();
            self.propose();
        }
        self.snapshot(now_us, setup, rng)
    }

    /// Keeps a State now and then, as milestones do.
    fn remember(&mut self) {
        const STRIDE: u64 = 32;
        let state = self.app.ledger.state();
        let newest = self.past.last_key_value().map_or(0, |(seq, _)| *seq);
        if state.seq >= newest + STRIDE {
            self.past.insert(state.seq, state.clone());
        }
    }

    /// State right after a record, rebuilt from the log here.
    fn state_at(&self, seq: Seq) -> Option<State> {
        if self.state().seq == seq {
            return Some(self.state().clone());
        }
        let seq = if is_planted(Bug::PastOffByOne) { seq.saturating_sub(1) } else { seq };
        let mut state =
            self.past.range(..=seq).next_back().map(|(_, state)| state.clone()).unwrap_or_default();
        if seq > self.state().seq {
            return None;
        }
        for at in state.seq + 1..=seq {
            let (stored, _) = StoredRecord::from_bytes(self.store().records().get(&at)?).ok()?;
            fold(&mut state, &stored.decode().ok()?);
        }
        Some(state)
    }

    /// The last record of the decision that a record is of.
    fn whole(&self, seq: Seq) -> Option<Seq> {
        if seq == 0 {
            return Some(0);
        }
        let (stored, _) = StoredRecord::from_bytes(self.store().records().get(&seq)?).ok()?;
        Some(stored.header().ok()?.decision.last())
    }

    /// Takes a packet in.
    pub(crate) fn take(&mut self, from: ControllerId, packet: Packet) -> Result<(), Ended> {
        match packet {
            Packet::Raft(bytes) => {
                let Some(message) = decode_message(&bytes).filter(|message| message.from == from) else {
                    return Ok(());
                };
                match self.driver.step(message) {
                    Ok(()) | Err(StepError::Dropped { .. }) => {}
                    Err(error) => return Err(ended(&error, self.fails_on_purpose)),
                }
            }
            Packet::Ask(asker, asked) => self.asked(asker, &asked),
            Packet::Forward(asker, request) => {
                let asker = Asker::Peer { controller: from, asker: Box::new(asker) };
                self.decide(asker, &request);
            }
            Packet::Answer(Asker::Reports(reports), Told::Outcome(Outcome::Done(_))) => {
                self.app.acks.extend(reports);
            }
            Packet::Answer(asker, told) => self.app.answer(asker, told),
            Packet::WantRecords { from: first, to } => {
                let last = to.min(first + RECORDS_PER_ANSWER_MAX - 1);
                let records = self.store().records().range(first..=last);
                let records: Vec<_> = records.map(|(seq, bytes)| (*seq, bytes.clone())).collect();
                self.app.out.push(Out::Peer(from, Packet::Records(records)));
            }
            Packet::Records(records) => {
                let on_purpose = self.fails_on_purpose;
                self.backfill(records).map_err(|error| ended(&error, on_purpose))?;
            }
        }
        Ok(())
    }

    fn asked(&mut self, asker: Asker, asked: &Asked) {
        let state = self.state().clone();
        let command = match &asked.want {
            Want::Read if is_planted(Bug::ReadWithoutIndex) => {
                return self.app.answer_reading(Reading::State(asker));
            }
            Want::Read => return self.waiting_reads.push(Reading::State(asker)),
            Want::ReadAt(seq) => {
                let told = self.state_at(*seq).map_or(Told::Unavailable, |state| told_state(&state));
                return self.app.answer(asker, told);
            }
            Want::Command(command) => command.clone(),
            Want::Rollback { app_env, point } => {
                let scope = Scope::app_env(app_env);
                let resolved =
                    point.parse::<Point>().ok().and_then(|point| state.resolve_point(&scope, &point).ok());
                let Some(seq) = resolved.and_then(|seq| self.whole(seq)) else {
                    return self.app.answer(asker, Told::Unavailable);
                };
                Command::Rollback {
                    scope,
                    except: Vec::new(),
                    point: point.clone(),
                    seq,
                    now: false,
                    strict: false,
                    best_effort: false,
                    pass_barriers: false,
                    unobtainable: Vec::new(),
                }
            }
            Want::Undo(decision) => Command::Undo {
                decisions: vec![*decision],
                what: format!("seq:{}", decision.first),
                now: false,
                pass_barriers: false,
            },
        };
        let idempotency =
            Idempotency { key: asked.key.clone(), request: Digest::of(&[asked.key.as_bytes(), b"request"]) };
        let is_system = asked.principal == stele_model::decide::system();
        let request = Request {
            principal: asked.principal.clone(),
            command,
            idempotency: (!is_system).then_some(idempotency),
            trace: None,
            cause: None,
            reason: None,
            links: Links::default(),
            if_match: None,
        };
        self.submit(asker, request);
    }

    /// Has a request decided, here or by the leader.
    pub(crate) fn submit(&mut self, asker: Asker, request: Request) {
        if self.app.ledger.is_deciding() {
            return self.decide(asker, &request);
        }
        match self.app.leader.filter(|leader| *leader != self.app.id) {
            Some(leader) => self.app.out.push(Out::Peer(leader, Packet::Forward(asker, Box::new(request)))),
            None => self.app.answer(asker, Told::Unavailable),
        }
    }

    fn decide(&mut self, asker: Asker, request: &Request) {
        let mut past = BTreeMap::new();
        for seq in request.command.past_seqs() {
            let Some(state) = self.state_at(seq) else { return self.app.answer(asker, Told::Unavailable) };
            past.insert(seq, state);
        }
        let early = is_planted(Bug::AnswerBeforeCommit).then(|| asker.clone());
        match self.app.ledger.submit(asker, request, past, self.app.now) {
            Submitted::Waiting => {
                // What a client hears now is what it would hear once it has committed.
                if let (Some(early), Some(state)) = (early, self.app.ledger.speculative()) {
                    let key =
                        request.idempotency.as_ref().map(|it| (request.principal.clone(), it.key.clone()));
                    let answered = key.and_then(|key| state.history.answered.get(&key).cloned());
                    if let Some(answered) = answered {
                        self.app.tell(early, Outcome::Done(answered.answer));
                    }
                }
            }
            Submitted::Answer(asker, outcome) => self.app.tell(asker, outcome),
            Submitted::Confirm(asker, outcome) => self.waiting_reads.push(Reading::Outcome(asker, outcome)),
        }
    }

    fn start_reads(&mut self) {
        let mut readers = std::mem::take(&mut self.waiting_reads);
        readers.extend(self.app.overdue_reads());
        if readers.is_empty() {
            return;
        }
        let context = self.app.begin_read(readers);
        if self.driver.read_index(context.clone()).is_err() {
            for reading in self.app.cancel_read(&context) {
                match reading {
                    Reading::Outcome(asker, _) => self.app.tell(asker, Outcome::Unknown),
                    Reading::State(asker) => self.waiting_reads.push(Reading::State(asker)),
                }
            }
        }
    }

    fn submit_own(&mut self, command: Command) -> bool {
        let before = self.app.ledger.speculative().map(|state| state.seq);
        let cause = self.app.ledger.speculative().and_then(|state| stele_planner::cause(state, &command));
        let request = Request { cause, ..system_request(command) };
        self.app.ledger.submit(Asker::Nobody, &request, BTreeMap::new(), self.app.now);
        self.app.ledger.speculative().map(|state| state.seq) != before
    }

    fn conduct(&mut self) {
        if !self.app.ledger.is_deciding() {
            return;
        }
        let mut apps = match std::mem::replace(&mut self.app.dirty, Dirty::Apps(BTreeSet::new())) {
            Dirty::Apps(apps) => apps,
            Dirty::All => {
                let members = self.driver.status().conf_state;
                if !is_planted(Bug::MembersNotRecorded) {
                    self.submit_own(Command::RecordMembership {
                        voters: members.voters,
                        learners: members.learners,
                    });
                }
                for command in self.standing.clone() {
                    self.submit_own(command);
                }
                self.app.ledger.speculative().map(stele_planner::apps).unwrap_or_default()
            }
        };
        for _ in 0..CONDUCTOR_COMMANDS_MAX {
            if self.app.ledger.is_full() {
                break;
            }
            let Some(app_env) = apps.pop_first() else { break };
            let Some(now) = self.app.ledger.time(self.app.now) else { return };
            let state = if is_planted(Bug::PlanOnCommitted) {
                Some(self.app.ledger.state())
            } else {
                self.app.ledger.speculative()
            };
            let Some(state) = state else { return };
            if let Some(command) = stele_planner::plan_app(state, &app_env, now)
                && self.submit_own(command)
                && !is_planted(Bug::PlanOnCommitted)
            {
                apps.insert(app_env);
            }
        }
        for app_env in apps {
            self.app.dirty.add(app_env);
        }
        let Some(seq) = self.app.ledger.speculative().map(|state| state.seq) else { return };
        if self.app.digest_due || seq >= self.app.digest_at + STATE_DIGEST_INTERVAL_RECORDS {
            self.app.digest_due = false;
            self.app.digest_at = seq;
            self.submit_own(Command::RecordStateDigest);
        }
    }

    fn propose(&mut self) {
        while self.app.leads_term.is_some() {
            let Some((bytes, _)) = self.app.ledger.close_batch() else { return };
            match self.driver.propose(bytes) {
                Ok((index, _)) => self.app.ledger.proposed(index),
                Err(error) => {
                    self.app.abandon();
                    if let (ProposeError::Busy | ProposeError::Transferring, Some(term)) =
                        (error, self.app.leads_term)
                    {
                        let status = self.driver.status();
                        self.app.resume_at = status.last_index;
                        self.app.ledger.elected(term, status.id);
                    }
                    return;
                }
            }
        }
    }

    fn keep_house(&mut self, now_us: u64) {
        if now_us < self.kept_us + HOUSEKEEPING_US {
            return;
        }
        self.kept_us = now_us;
        for app_env in stele_planner::on_their_way(self.app.ledger.state()) {
            self.app.dirty.add(app_env.clone());
        }
        let status = self.driver.status();
        if status.role == Role::Leader {
            for peer in status.progress.iter().filter(|peer| peer.is_learner && peer.is_active) {
                // One that lags is asked again in a moment.
                drop(self.driver.propose_membership(MembershipChange::Promote(peer.id), Vec::new()));
            }
            let settled = status.applied == status.last_index;
            if status.committed_in_term && settled {
                self.app.ledger.caught_up(self.app.now);
            }
        }
        self.ask_for_gap(&status);
    }

    /// The next page of what an installed snapshot left missing.
    fn ask_for_gap(&mut self, status: &stele_consensus::Status) {
        let Some((from, to)) = self.store().gaps().first().copied() else { return };
        let next = self.gap.last().map_or(from, |(seq, _)| seq + 1);
        let voters = &status.conf_state.voters;
        let at = (self.kept_us / HOUSEKEEPING_US) as usize;
        if let Some(peer) = voters.get(at % voters.len().max(1)).filter(|peer| **peer != self.app.id) {
            self.app.out.push(Out::Peer(*peer, Packet::WantRecords { from: next, to }));
        }
    }

    /// Keeps what fills a gap once its whole chain is proven to lead to the snapshot's.
    fn backfill(&mut self, records: Vec<(Seq, Vec<u8>)>) -> Result<(), stele_consensus::DriveError> {
        let Some((from, to)) = self.store().gaps().first().copied() else { return Ok(()) };
        let next = self.gap.last().map_or(from, |(seq, _)| seq + 1);
        if records.first().is_none_or(|(seq, _)| *seq != next) {
            return Ok(());
        }
        self.gap.extend(records.into_iter().filter(|(seq, _)| *seq <= to));
        if is_planted(Bug::BackfillAnything) {
            let mut page = std::mem::take(&mut self.gap);
            // Off by one: each record is kept under its successor's seq.
            let bytes: Vec<_> = page.iter().map(|(_, bytes)| bytes.clone()).collect();
            page.iter_mut().zip(bytes.into_iter().rev()).for_each(|(kept, bytes)| kept.1 = bytes);
            return self.driver.backfill(page);
        }
        if self.gap.last().is_some_and(|(seq, _)| *seq == to) {
            let gap = std::mem::take(&mut self.gap);
            if self.is_proven(from, to, &gap) {
                return self.driver.backfill(gap);
            }
        }
        Ok(())
    }

    fn is_proven(&self, from: Seq, to: Seq, records: &[(Seq, Vec<u8>)]) -> bool {
        let before = from.checked_sub(1).filter(|seq| *seq > 0);
        let mut chain = match before.map(|seq| self.store().records().get(&seq)) {
            None => Chain::GENESIS,
            Some(bytes) => match bytes.and_then(|bytes| StoredRecord::from_bytes(bytes).ok()) {
                Some((_, chain)) => chain,
                None => return false,
            },
        };
        for (_, bytes) in records {
            let Ok((stored, kept)) = StoredRecord::from_bytes(bytes) else { return false };
            chain = chain.link(&stored.leaf);
            let payload = stored.header().is_ok_and(|it| it.payload == Digest::of(&[&stored.payload]));
            if kept != chain || !payload {
                return false;
            }
        }
        let after = self.store().snapshot_at(to).and_then(|data| Snapshot::decode(data).ok());
        after.is_some_and(|snapshot| snapshot.chain == chain)
    }

    fn snapshot(
        &mut self,
        now_us: u64,
        setup: &Setup,
        rng: &mut Rng,
    ) -> Result<(), stele_consensus::DriveError> {
        if let Some((due, begun, snapshot)) = self.snapshot.take() {
            if now_us < due {
                self.snapshot = Some((due, begun, snapshot));
                return Ok(());
            }
            let index = begun.index;
            self.driver.finish_snapshot(StoredSnapshot { data: snapshot.encode(), ..begun })?;
            let through = index.saturating_sub(setup.entries_kept);
            if through >= self.driver.status().first_index {
                // It is covered by the snapshot just made, or by one that overtook it.
                match self.driver.compact(through) {
                    Ok(()) | Err(stele_consensus::CompactError::NotCovered { .. }) => {}
                    Err(stele_consensus::CompactError::Drive(error)) => return Err(error),
                }
            }
        }
        let seq = self.app.ledger.state().seq;
        let due = seq >= self.app.snapshot_at + setup.snapshot_every;
        if due || self.driver.snapshot_wanted() {
            self.begin_snapshot(now_us, rng)?;
        }
        Ok(())
    }

    /// Begins a snapshot, whose bytes are ready a little later.
    pub(crate) fn begin_snapshot(
        &mut self,
        now_us: u64,
        rng: &mut Rng,
    ) -> Result<(), stele_consensus::DriveError> {
        let seq = self.app.ledger.state().seq;
        let Some(begun) = self.driver.begin_snapshot(seq)? else { return Ok(()) };
        let mut state = self.app.ledger.state().clone();
        if is_planted(Bug::SnapshotForgetsKeys) {
            state.history.answered.clear();
        }
        let snapshot = Snapshot { chain: self.app.ledger.chain(), state };
        self.app.snapshot_at = seq;
        self.snapshot = Some((now_us + rng.below(1_500_000), begun, snapshot));
        Ok(())
    }

    /// Proposes a membership change; what makes no sense is refused.
    pub(crate) fn change_members(&mut self, change: MembershipChange) -> bool {
        self.driver.propose_membership(change, Vec::new()).is_ok()
    }

    /// Hands leadership over; whoever does not lead or names no voter is refused.
    pub(crate) fn transfer(&mut self, to: ControllerId) {
        drop(self.driver.transfer_leader(to));
    }
}
