//! A controller: the real driver, ledger and planner, in the thinnest shell around them. It stands
//! for the controller's `replica.rs`, `handle.rs` and `backfill.rs`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ed25519_dalek::SigningKey;
use stele_codec::{Chain, Snapshot};
use stele_consensus::memory::{Kind, MemoryStore, Rot};
use stele_consensus::{
    Config, Driver, LogStore as _, MembershipChange, ProposeError, Role, SnapshotHead, Staged,
    StagedSnapshot, StepError, bootstrap, decode_message,
};
use stele_ledger::limits::STATE_DIGEST_INTERVAL_RECORDS;
use stele_ledger::{Fitness, Moment, Outcome, Submitted, system_request};
use stele_model::signature::Certificate;
use stele_model::{Command, ControllerId, Digest, Idempotency, Links, Point, Request, Seq, State};
use stele_planner::{Dirty, Watch};
use stele_planted::{Bug, is_planted};

use crate::app::{App, Reading, told_state};
use crate::clock::Clock;
use crate::feed::Feed;
use crate::limits::{CONDUCTOR_COMMANDS_MAX, EPOCH_US, HOUSEKEEPING_US, RECORDS_PER_ANSWER_MAX, TICK_US};
use crate::oracle::Oracle;
use crate::outbox::{Outbox, Signer};
use crate::past::{Filling, recover};
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

/// How far a snapshot is.
enum Making {
    Encoding(Box<Snapshot>),
    Staged(Staged),
}

/// A controller's process.
pub(crate) struct Process {
    pub(crate) driver: Driver<MemoryStore>,
    /// What it does with what Raft hands out.
    pub(crate) app: App,
    waiting_reads: Vec<Reading>,
    standing: Command,
    watch: Watch,
    ticked_us: u64,
    /// Whether it will be asked in a moment to tell what it committed.
    will_tell: bool,
    pub(crate) kept_us: u64,
    began_us: u64,
    pub(crate) outbox: Outbox,
    /// Publishes the public feed.
    pub(crate) feed: Feed,
    snapshot: Option<(u64, SnapshotHead, Making)>,
    /// What is fetched of a gap.
    pub(crate) filling: Filling,
    /// Earlier States, by seq, to rebuild others from.
    pub(crate) past: BTreeMap<Seq, State>,
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
    pub(crate) parked: Option<MemoryStore>,
    /// What time it takes it to be.
    pub(crate) clock: Clock,
    /// Whether its disk does what no disk should: then its process may end by itself.
    pub(crate) bad_disk: bool,
    /// Whether it found its disk damaged and is to be replaced.
    pub(crate) broken: bool,
    /// Longest write of its disk, in microseconds; nothing for one that is quick.
    pub(crate) slow_us: u64,
    /// Whether it ends and starts again after the next vote that it gives.
    pub(crate) jumpy: bool,
    /// Whether it is of an older version, which says nothing of its clock.
    pub(crate) older: bool,
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
    pub(crate) fn new(id: ControllerId, founders: &[ControllerId], keys: &Keys, setup: &Setup) -> Self {
        let seed = setup.seed;
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
            clock: Clock::default(),
            bad_disk: false,
            broken: false,
            slow_us: 0,
            jumpy: false,
            older: setup.skewed && id.is_multiple_of(2),
            paused_until: 0,
            held: Vec::new(),
            incarnation: 0,
            retired: false,
            rng: Rng::fork(seed, 0x0c00_0000 + id),
        }
    }

    /// Signs for it; of fleets with several versions some are newer.
    pub(crate) fn signer(&self, skewed: bool) -> Signer {
        let newer = skewed && !self.older;
        Signer { key: self.key.clone(), certificate: self.certificate.clone(), newer }
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
        let now_us = self.clock.local_us(now_us);
        self.incarnation += 1;
        if store.lost_synced_writes() {
            self.broken = true;
            return Err(Ended { why: "its disk lost what was synced".to_owned(), is_defect: false });
        }
        let (mut state, chain, snapshot_at) = match recover(&store) {
            Ok(recovered) => recovered,
            Err(why) => {
                self.broken = self.bad_disk;
                return Err(Ended { why, is_defect: !self.bad_disk });
            }
        };
        state.digest();
        let applied = store.index().applied();
        let nonce = mix(setup.seed ^ self.id << 32 ^ self.incarnation);
        let mut past = BTreeMap::new();
        past.insert(state.seq, state.clone());
        let voters = store.index().conf_state().voters.clone();
        let mut app = App::new(self.id, (state, chain), (snapshot_at, applied, nonce), Rc::clone(oracle));
        app.voters = voters;
        let seed = setup.seed;
        let election = move |id: u64, term: u64| mix(seed ^ mix(id << 32 ^ term)) as usize % 1000;
        let mut config = Config { lets_commits_ride: !self.older, ..Config::new(self.id) };
        let ticks = config.election_ticks;
        config.election_timeout = Some(Box::new(move |id, term| ticks + election(id, term) % ticks));
        let driver =
            Driver::new(config, store).map_err(|error| Ended { why: error.to_string(), is_defect: true })?;
        let mut app = app;
        app.stamps = !self.older;
        let standing = Command::CreateFleet {
            fleet: keys.fleet.clone(),
            root: keys.root_public.clone(),
            admin: Keys::admin(),
        };
        self.process = Some(Process {
            driver,
            app,
            waiting_reads: Vec::new(),
            standing,
            watch: Watch::default(),
            ticked_us: now_us,
            will_tell: false,
            kept_us: now_us,
            began_us: now_us,
            outbox: Outbox::new(now_us),
            feed: Feed::default(),
            snapshot: None,
            filling: Filling::default(),
            past,
            fails_on_purpose: self.bad_disk,
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
        self.driver.disk().fail_writes(full);
    }

    /// The disk writes what is to be synced, and the sync fails.
    pub(crate) fn fail_syncs(&mut self) {
        self.fails_on_purpose = true;
        self.driver.disk().fail_syncs();
    }

    /// The disk spoils what is read from a place: of a kind, the so manieth.
    pub(crate) fn spoil(&mut self, kind: Kind, which: u64, rot: Rot) {
        self.fails_on_purpose = true;
        let numbers = self.store().numbers(kind);
        let pick = |which: u64| numbers.get(which.checked_rem(numbers.len() as u64)? as usize).copied();
        let (Some(number), Some(other)) = (pick(which), pick(which + 1)) else { return };
        let rot = if rot == Rot::Misdirected(0) { Rot::Misdirected(other) } else { rot };
        self.driver.disk().spoil(kind, number, rot);
    }

    /// Makes a snapshot and forgets every entry that it covers, at once.
    pub(crate) fn forget_entries(&mut self) -> Result<(), Ended> {
        let on_purpose = self.fails_on_purpose;
        let seq = self.app.ledger.state().seq;
        let snapshot = Snapshot { chain: self.app.ledger.chain(), state: self.app.ledger.state().clone() };
        // One at a time: what is on its way is forgotten.
        self.snapshot = None;
        self.driver.create_snapshot(seq, snapshot.encode()).map_err(|error| ended(&error, on_purpose))?;
        let through = self.driver.status().applied;
        match self.driver.compact(through) {
            Ok(()) | Err(stele_consensus::CompactError::NotCovered { .. }) => Ok(()),
            Err(error) => Err(ended(&error, on_purpose)),
        }
    }

    /// Stands for election, whoever leads; whoever may not vote is refused.
    pub(crate) fn stand(&mut self) -> Result<(), Ended> {
        let on_purpose = self.fails_on_purpose;
        self.driver.campaign().map_err(|error| ended(&error, on_purpose))
    }

    /// Terms in a log never go down.
    pub(crate) fn check_terms(&self) -> Option<String> {
        let index = self.store().index();
        let (first, mut before) = index.truncated();
        for at in first + 1..=index.last_index() {
            let term = index.term(at).unwrap_or_default();
            if term < before {
                return Some(format!("entry {at} is of term {term}, the one before of term {before}"));
            }
            before = term;
        }
        None
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
            self.start_reads();
            self.conduct();
            self.propose();
        }
        self.snapshot(now_us, setup, rng)
    }

    /// Whether what it committed is to be told in a moment; says so once.
    pub(crate) fn is_to_tell(&mut self) -> bool {
        let is_news = self.driver.has_untold_commit() && !self.will_tell;
        self.will_tell |= is_news;
        is_news
    }

    /// Tells what it committed, unless an append has by now.
    pub(crate) fn tell_commit(&mut self) -> Result<(), Ended> {
        self.will_tell = false;
        let on_purpose = self.fails_on_purpose;
        self.driver.tell_commit().map_err(|error| ended(&error, on_purpose))
    }

    /// Takes a packet in.
    pub(crate) fn take(&mut self, from: ControllerId, packet: Packet) -> Result<(), Ended> {
        match packet {
            Packet::Raft(bytes) => {
                let decoded = decode_message(&bytes).filter(|(message, _)| message.from == from);
                let Some((message, clock_us)) = decoded else { return Ok(()) };
                if let Some(clock_us) = clock_us {
                    self.app.clocks.heard(from, clock_us, self.app.now);
                }
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
                // What the disk does not give whole is not given on.
                let read = |seq| Some((seq, self.store().record(seq).ok()??.into_owned()));
                let records: Vec<_> = (first..=last).map_while(read).collect();
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
            Want::Rollback { scope, point } => {
                let resolved =
                    point.parse::<Point>().ok().and_then(|point| state.resolve_point(scope, &point).ok());
                let Some(seq) = resolved.and_then(|seq| self.whole(seq)) else {
                    return self.app.answer(asker, Told::Unavailable);
                };
                Command::Rollback {
                    scope: scope.clone(),
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
            Submitted::Confirm(asker, outcome) if is_planted(Bug::NoOpUnconfirmed) => {
                self.app.tell(asker, outcome);
            }
            Submitted::Confirm(asker, outcome) => self.waiting_reads.push(Reading::Outcome(asker, outcome)),
        }
    }

    fn start_reads(&mut self) {
        let mut readers = std::mem::take(&mut self.waiting_reads);
        readers.append(&mut self.app.unconfirmed);
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
        if !self.app.ledger.is_deciding() || self.app.ledger.is_full() {
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
                self.submit_own(self.standing.clone());
                if self.app.ledger.is_full() {
                    self.app.dirty = Dirty::All;
                    return;
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
            if let Some(command) = self.watch.plan_app(state, &app_env, now)
                && self.submit_own(command)
                && !is_planted(Bug::PlanOnCommitted)
            {
                apps.insert(app_env);
            }
        }
        for app_env in apps {
            self.app.dirty.add(app_env);
        }
        if self.app.ledger.is_full() {
            return;
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
                    if matches!(error, ProposeError::Busy | ProposeError::Transferring) {
                        self.resume_later();
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
        for app_env in self.watch.due(self.app.ledger.state()) {
            self.app.dirty.add(app_env);
        }
        let status = self.driver.status();
        if status.role == Role::Leader {
            for peer in status.progress.iter().filter(|peer| peer.is_learner && peer.is_active) {
                // One that lags is asked again in a moment.
                drop(self.driver.propose_membership(MembershipChange::Promote(peer.id), Vec::new()));
            }
            let settled = status.applied == status.last_index;
            self.mind_the_clock();
            if status.committed_in_term && settled {
                self.app.begin_deciding();
            }
        }
        self.ask_for_gap(&status);
    }

    /// A leader whose clock is far from the others' decides nothing more, and hands leadership over.
    fn mind_the_clock(&mut self) {
        let Fitness::Off { to, .. } = self.app.clock_is_fit() else {
            if self.app.ledger.follow_wall(self.app.now).is_some() {
                self.app.ledger.listens_since(self.app.now);
            }
            return;
        };
        if self.app.ledger.is_deciding() {
            self.app.abandon();
            self.resume_later();
        }
        self.transfer(to);
    }

    fn resume_later(&mut self) {
        let Some(term) = self.app.leads_term else { return };
        let status = self.driver.status();
        self.app.resume_at = status.last_index;
        self.app.ledger.elected(term, status.id);
    }

    fn snapshot(
        &mut self,
        now_us: u64,
        setup: &Setup,
        rng: &mut Rng,
    ) -> Result<(), stele_consensus::DriveError> {
        if let Some((due, head, making)) = self.snapshot.take() {
            if now_us < due {
                self.snapshot = Some((due, head, making));
                return Ok(());
            }
            let index = head.index;
            let staged = match making {
                Making::Encoding(snapshot) => {
                    let staged = self.driver.disk().stage_snapshot(head.seq, snapshot.encode())?;
                    self.snapshot = Some((now_us + rng.below(100_000), head, Making::Staged(staged)));
                    return Ok(());
                }
                Making::Staged(staged) => staged,
            };
            self.driver.finish_snapshot(StagedSnapshot { head, staged })?;
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
        let Some(head) = self.driver.begin_snapshot(seq)? else { return Ok(()) };
        let mut state = self.app.ledger.state().clone();
        if is_planted(Bug::SnapshotForgetsKeys) {
            state.history.answered.clear();
        }
        let snapshot = Snapshot { chain: self.app.ledger.chain(), state };
        self.app.snapshot_at = seq;
        self.snapshot = Some((now_us + rng.below(1_500_000), head, Making::Encoding(Box::new(snapshot))));
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
