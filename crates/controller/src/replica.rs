//! The replica: one dedicated thread that drives Raft, decides and folds.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use stele_codec::Snapshot;
use stele_consensus::{
    Driver, MembershipChange, MembershipError, ProposeError, StagedSnapshot, StepError, decode_message,
};
use stele_ledger::limits::STATE_DIGEST_INTERVAL_RECORDS;
use stele_ledger::{Fitness, Outcome, Submitted, system_request};
use stele_model::{AppEnv, Command, ControllerId, Request, Seq, State};
use stele_planner::{Dirty, Watch};
use stele_store::Store;
use tokio::sync::oneshot;

use crate::app::App;
use crate::limits::{
    COMMIT_RIDE_MAX, CONDUCTOR_COMMANDS_PER_TURN_MAX, CONDUCTOR_FREE, CONDUCTOR_REST_FACTOR,
    CONDUCTOR_TURN_MAX, ENTRIES_KEPT_BEHIND_SNAPSHOT, HOUSEKEEPING_INTERVAL, INPUTS_PER_TURN_MAX,
    INPUTS_TURN_MAX, LISTENING_GAP_MAX, READY_TURN_MAX, SNAPSHOT_INTERVAL_RECORDS, TICK,
};
use crate::waiter::{Reading, Waiter};

/// What the thread is asked.
pub(crate) enum Input {
    Raft(ControllerId, Vec<u8>),
    Unreachable(ControllerId),
    Submit {
        request: Arc<Request>,
        past: BTreeMap<Seq, State>,
        waiter: Waiter,
    },
    Read(oneshot::Sender<State>),
    Membership(MembershipChange, oneshot::Sender<Result<(), MembershipError>>),
    Transfer(ControllerId, oneshot::Sender<Result<(), String>>),
    Status(oneshot::Sender<stele_consensus::Status>),
    Backfill(Vec<(u64, Vec<u8>)>, oneshot::Sender<()>),
    /// Until now no node could be heard.
    Deaf,
    Stop,
}

pub(crate) struct Replica {
    driver: Driver<Store>,
    app: App,
    inputs: Receiver<Input>,
    /// Commands to give again and again until they are no news.
    standing: Vec<Command>,
    waiting_reads: Vec<Reading>,
    watch: Watch,
    /// Until when the conductor looks at no app.
    conductor_rests: Instant,
    /// The app the conductor looked at last: the next is another's turn.
    looked_at: Option<AppEnv>,
    /// The app it changed assignments of last.
    assigned: Option<AppEnv>,
    ticked: Instant,
    /// Since when what was committed is to be told to the followers.
    untold: Option<Instant>,
    kept: Instant,
}

impl Replica {
    /// Starts the thread. It ends when told to, or with the reason why this
    /// replica cannot go on.
    pub(crate) fn spawn(
        driver: Driver<Store>,
        app: App,
        inputs: Receiver<Input>,
        standing: Vec<Command>,
    ) -> anyhow::Result<JoinHandle<anyhow::Result<()>>> {
        let replica = Self::new(driver, app, inputs, standing);
        std::thread::Builder::new()
            .name("replica".to_owned())
            .spawn(move || replica.run())
            .context("cannot start the replica's thread")
    }

    fn new(driver: Driver<Store>, app: App, inputs: Receiver<Input>, standing: Vec<Command>) -> Self {
        let now = Instant::now();
        Self {
            driver,
            app,
            inputs,
            standing,
            waiting_reads: Vec::new(),
            watch: Watch::default(),
            conductor_rests: now,
            looked_at: None,
            assigned: None,
            ticked: now,
            untold: None,
            kept: now,
        }
    }

    fn run(mut self) -> anyhow::Result<()> {
        self.app.voters = self.driver.status().conf_state.voters;
        if self.app.voters == [self.driver.status().id] {
            // Alone, nobody else could call an election.
            self.driver.campaign()?;
        }
        loop {
            if !self.take_inputs()? {
                return Ok(());
            }
            self.tick()?;
            self.start_reads();
            self.keep_house();
            self.conduct();
            self.propose();
            self.work_off()?;
            self.tell_commit()?;
            self.snapshot()?;
        }
    }

    /// Sends, persists and applies what Raft has ready, for a while.
    fn work_off(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.driver.ready(&mut self.app)? && began.elapsed() < READY_TURN_MAX {
            // A new leader's first record, and what commits made possible.
            self.start_reads();
            self.conduct();
            self.propose();
        }
        Ok(())
    }

    /// False when told to stop.
    fn take_inputs(&mut self) -> anyhow::Result<bool> {
        let mut wait = TICK.saturating_sub(self.ticked.elapsed()).min(TICK);
        let has_work = matches!(&self.app.dirty, Dirty::Apps(apps) if !apps.is_empty());
        if has_work && self.app.ledger.is_deciding() && !self.app.ledger.is_full() {
            wait = wait.min(self.conductor_rests.saturating_duration_since(Instant::now()));
        }
        if let Some(since) = self.untold {
            wait = wait.min(COMMIT_RIDE_MAX.saturating_sub(since.elapsed()));
        }
        if self.driver.has_ready() {
            wait = Duration::ZERO;
        }
        let mut next = match self.inputs.recv_timeout(wait) {
            Ok(input) => Some(input),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(false),
        };
        let began = Instant::now();
        let mut taken = 0;
        while let Some(input) = next {
            if !self.take(input)? {
                return Ok(false);
            }
            taken += 1;
            if taken >= INPUTS_PER_TURN_MAX || began.elapsed() > INPUTS_TURN_MAX {
                break;
            }
            next = self.inputs.try_recv().ok();
        }
        Ok(true)
    }

    fn take(&mut self, input: Input) -> anyhow::Result<bool> {
        match input {
            Input::Raft(from, bytes) => {
                let message = decode_message(&bytes).filter(|(message, _)| message.from == from);
                let Some((message, clock_us)) = message else {
                    tracing::warn!(from, "a controller sent something that is no raft message of its own");
                    return Ok(true);
                };
                if let Some(clock_us) = clock_us {
                    let now = self.app.now();
                    self.app.clocks.heard(from, clock_us, now);
                }
                match self.driver.step(message) {
                    Ok(()) | Err(StepError::Dropped { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Input::Unreachable(peer) => self.driver.report_unreachable(peer),
            Input::Submit { request, past, waiter } => {
                let now = self.app.now();
                let _computing = self.app.keepalive.computing();
                match self.app.ledger.submit(waiter, &request, past, now) {
                    Submitted::Waiting => {}
                    Submitted::Answer(waiter, outcome) => waiter.tell(outcome),
                    Submitted::Confirm(waiter, outcome) => {
                        self.waiting_reads.push(Reading::Outcome(waiter, outcome));
                    }
                }
            }
            Input::Read(reader) => self.waiting_reads.push(Reading::State(reader)),
            // Whoever asked may have gone; then nobody needs the answer.
            Input::Membership(change, answer) => {
                let outcome = self.driver.propose_membership(change, Vec::new()).map(|_| ());
                let _ = answer.send(outcome);
            }
            Input::Transfer(to, answer) => {
                let _ = answer.send(self.driver.transfer_leader(to).map_err(|error| error.to_string()));
            }
            Input::Status(answer) => {
                let _ = answer.send(self.driver.status());
            }
            Input::Deaf => self.app.listens_since_now(),
            Input::Backfill(records, done) => {
                self.driver.backfill(records)?;
                let _ = done.send(());
            }
            Input::Stop => return Ok(false),
        }
        Ok(true)
    }

    fn tick(&mut self) -> anyhow::Result<()> {
        let due = (self.ticked.elapsed().as_millis() / TICK.as_millis()) as usize;
        if due > 0 {
            self.driver.tick_capped(due)?;
            self.ticked += TICK * u32::try_from(due).unwrap_or(u32::MAX);
        }
        Ok(())
    }

    /// Followers hear of a commit with what is proposed next, or by itself when nothing is.
    fn tell_commit(&mut self) -> anyhow::Result<()> {
        if !self.driver.has_untold_commit() {
            self.untold = None;
        } else if self.untold.get_or_insert_with(Instant::now).elapsed() >= COMMIT_RIDE_MAX {
            self.driver.tell_commit()?;
            self.untold = None;
        }
        Ok(())
    }

    /// One ReadIndex for everybody who waits for one.
    fn start_reads(&mut self) {
        let mut readers = std::mem::take(&mut self.waiting_reads);
        readers.append(&mut self.app.unconfirmed);
        readers.extend(self.app.overdue_reads());
        if readers.is_empty() {
            return;
        }
        let context = self.app.begin_read(readers);
        if let Err(error) = self.driver.read_index(context.clone()) {
            tracing::debug!(%error, "reads wait for a leader");
            self.waiting_reads = self
                .app
                .cancel_read(&context)
                .into_iter()
                .filter_map(|reading| match reading {
                    // Leadership that answers rest on is gone.
                    Reading::Outcome(waiter, _) => {
                        waiter.tell(Outcome::Unknown);
                        None
                    }
                    Reading::State(reader) => (!reader.is_closed()).then_some(Reading::State(reader)),
                })
                .collect();
        }
    }

    /// Has a command of the controller's own decided; whether it changed anything.
    fn submit(&mut self, command: Command) -> bool {
        let now = self.app.now();
        let before = self.app.ledger.speculative().map(|state| state.seq);
        let cause = self.app.ledger.speculative().and_then(|state| stele_planner::cause(state, &command));
        let request = Request { cause, ..system_request(command.clone()) };
        let submitted = self.app.ledger.submit(Waiter::Nobody, &request, BTreeMap::new(), now);
        if let Submitted::Confirm(_, Outcome::Rejected(rejection)) = submitted {
            tracing::warn!(%rejection, ?command, "a command of the controller's own was refused");
        }
        self.app.ledger.speculative().map(|state| state.seq) != before
    }

    /// Turns State into further commands: rollouts, digests, membership.
    fn conduct(&mut self) {
        let began = Instant::now();
        // While the batch is full, all would be refused, and what was taken up would be forgotten.
        if !self.app.ledger.is_deciding() || self.app.ledger.is_full() || began < self.conductor_rests {
            return;
        }
        let _computing = self.app.keepalive.computing();
        let mut apps = match std::mem::replace(&mut self.app.dirty, Dirty::Apps(BTreeSet::new())) {
            Dirty::Apps(apps) => apps,
            Dirty::All => {
                self.conduct_membership();
                for command in self.standing.clone() {
                    self.submit(command);
                }
                if self.app.ledger.is_full() {
                    // Some of it may have been refused; what was not is no news the next time.
                    self.app.dirty = Dirty::All;
                    return;
                }
                self.app.ledger.speculative().map(stele_planner::apps).unwrap_or_default()
            }
        };
        let mut in_vain = Duration::ZERO;
        let (mut is_cut_short, mut assigns_several) = (false, false);
        for _ in 0..CONDUCTOR_COMMANDS_PER_TURN_MAX {
            // What is refused for now is looked at again.
            if self.app.ledger.is_full() || began.elapsed() > CONDUCTOR_TURN_MAX {
                is_cut_short = true;
                break;
            }
            let Some(app_env) = next_of(&mut apps, self.looked_at.as_ref()) else { break };
            self.looked_at = Some(app_env.clone());
            // Deadlines count from log times, so they are compared with log time.
            let Some(now) = self.app.ledger.time(self.app.now()) else { return };
            let Some(state) = self.app.ledger.speculative() else { return };
            let looked = Instant::now();
            let command = self.watch.plan_app(state, &app_env, now);
            let assigns = matches!(command, Some(Command::Assign { .. }));
            // One that was refused or changed nothing would be given for ever.
            if command.is_some_and(|command| self.submit(command)) {
                if assigns {
                    assigns_several |= self.assigned.replace(app_env.clone()).is_some_and(|it| it != app_env);
                }
                apps.insert(app_env);
            } else {
                in_vain += looked.elapsed();
            }
        }
        // What follows of one app alone is mostly for other nodes, which need not wait for each other.
        let assigns_more = is_cut_short && assigns_several;
        if std::mem::replace(&mut self.app.assigns_more, assigns_more) && !assigns_more {
            self.app.publish();
        }
        if in_vain > CONDUCTOR_FREE {
            self.conductor_rests = Instant::now() + in_vain * CONDUCTOR_REST_FACTOR;
        }
        for app_env in apps {
            self.app.dirty.add(app_env);
        }
        self.conduct_digest();
    }

    fn conduct_membership(&mut self) {
        let members = self.driver.status().conf_state;
        self.submit(Command::RecordMembership { voters: members.voters, learners: members.learners });
    }

    fn conduct_digest(&mut self) {
        if self.app.ledger.is_full() {
            return;
        }
        let Some(seq) = self.app.ledger.speculative().map(|state| state.seq) else { return };
        if self.app.digest_due || seq >= self.app.digest_at + STATE_DIGEST_INTERVAL_RECORDS {
            self.app.digest_due = false;
            // Until it commits, another must not follow.
            self.app.digest_at = seq;
            self.app.adopt_digest();
            self.submit(Command::RecordStateDigest);
        }
    }

    fn propose(&mut self) {
        while self.app.leads_term().is_some() {
            let Some((bytes, records)) = self.app.ledger.close_batch() else { return };
            match self.driver.propose(bytes) {
                Ok((index, _)) => self.app.ledger.proposed(index),
                Err(error) => {
                    // A gap in what was proposed: nothing after it could commit as decided.
                    tracing::warn!(%error, records, "a proposal was dropped; its callers must ask again");
                    self.app.abandon();
                    if matches!(error, ProposeError::Busy | ProposeError::Transferring) {
                        self.resume_later();
                    }
                    return;
                }
            }
        }
    }

    /// Decides again in this term once all that is in flight has been applied.
    fn resume_later(&mut self) {
        if let Some(term) = self.app.leads_term() {
            let status = self.driver.status();
            self.app.resume_at = status.last_index;
            self.app.ledger.elected(term, status.id);
        }
    }

    fn keep_house(&mut self) {
        let rested = self.kept.elapsed();
        if rested < HOUSEKEEPING_INTERVAL {
            return;
        }
        if rested > LISTENING_GAP_MAX {
            // The process was stopped, or its machine: what nodes told meanwhile is still to be read.
            self.app.listens_since_now();
        }
        self.kept = Instant::now();
        // Deadlines pass without anything being committed.
        for app_env in self.watch.due(self.app.ledger.state()) {
            self.app.dirty.add(app_env);
        }
        let status = self.driver.status();
        if status.role == stele_consensus::Role::Leader {
            self.mind_the_clock();
            // After a dropped proposal: everything in flight is applied, nothing can surprise.
            if status.committed_in_term && status.applied == status.last_index {
                self.app.begin_deciding();
            }
        }
    }

    /// A leader whose clock is far from the others' decides nothing more, and hands leadership over. That of
    /// another one keeps log time right: the machine may have slept, or its clock was set since the term began.
    fn mind_the_clock(&mut self) {
        let now = self.app.now();
        let Fitness::Off { by_us, to } = self.app.clock_is_fit(now) else {
            if let Some(behind_us) = self.app.ledger.follow_wall(now) {
                tracing::warn!(behind_seconds = behind_us as f64 / 1e6, "log time caught up with the clock");
                // The machine may have slept; then nobody listened.
                self.app.listens_since_now();
            }
            return;
        };
        tracing::warn!(
            off_by_seconds = by_us as f64 / 1e6,
            to,
            "this controller's clock is far from the other controllers': set it; another one is to lead"
        );
        if self.app.ledger.is_deciding() {
            self.app.abandon();
            self.resume_later();
            self.app.publish();
        }
        // Whoever cannot take over now is asked again in a moment.
        if let Err(error) = self.driver.transfer_leader(to) {
            tracing::warn!(%error, to, "leadership was not handed over");
        }
    }

    /// Begins a snapshot when one is due or wanted, and keeps one that is staged by now.
    fn snapshot(&mut self) -> anyhow::Result<()> {
        if let Some(snapshot) = self.app.snapshots.staged()? {
            self.keep_snapshot(snapshot)?;
        }
        if !self.app.snapshots.is_free() {
            return Ok(());
        }
        let seq = self.app.ledger.state().seq;
        let due = seq >= self.app.snapshot_at + SNAPSHOT_INTERVAL_RECORDS && self.app.snapshots.is_worth_it();
        if !due && !self.driver.snapshot_wanted() {
            return Ok(());
        }
        let Some(head) = self.driver.begin_snapshot(seq)? else { return Ok(()) };
        let snapshot = Snapshot { chain: self.app.ledger.chain(), state: self.app.ledger.state().clone() };
        self.app.snapshots.begin(head, snapshot, self.driver.store().reader())
    }

    /// Keeps a snapshot, and lets Raft forget what it covers.
    fn keep_snapshot(&mut self, snapshot: StagedSnapshot) -> anyhow::Result<()> {
        let (seq, index) = (snapshot.head.seq, snapshot.head.index);
        self.driver.finish_snapshot(snapshot)?;
        // The leader's may have been installed meanwhile.
        self.app.snapshot_at = self.app.snapshot_at.max(seq);
        // Large entries are kept by their bytes: a thousand of them would take a gigabyte.
        let in_memory = self.driver.store().first_recent().saturating_sub(1);
        let through = index.saturating_sub(ENTRIES_KEPT_BEHIND_SNAPSHOT).max(in_memory.min(index));
        if through >= self.driver.status().first_index {
            self.driver.compact(through)?;
        }
        tracing::info!(seq, "made a snapshot of State");
        Ok(())
    }
}

/// Ends the thread, or the wait for it.
pub(crate) fn join(thread: JoinHandle<anyhow::Result<()>>, within: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + within;
    while !thread.is_finished() {
        anyhow::ensure!(Instant::now() < deadline, "the replica's thread did not stop within {within:?}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    match thread.join() {
        Ok(result) => result,
        Err(_) => anyhow::bail!("the replica's thread panicked"),
    }
}

/// Takes the one after another out, and begins anew after the last.
fn next_of(apps: &mut BTreeSet<AppEnv>, after: Option<&AppEnv>) -> Option<AppEnv> {
    let following = after.and_then(|after| apps.range((Bound::Excluded(after), Bound::Unbounded)).next());
    let next = following.or_else(|| apps.first()).cloned()?;
    apps.take(&next)
}

#[cfg(test)]
#[path = "replica_tests.rs"]
mod tests;
