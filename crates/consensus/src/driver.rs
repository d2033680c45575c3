//! Raft behind an interface that has no order to get wrong.

use std::collections::BTreeMap;

use raft::eraftpb::{ConfState, Message};
use raft::{ProgressState, RawNode, SnapshotStatus, StateRole};

use crate::batch::{SnapshotHead, StagedSnapshot, StoredSnapshot, WriteBatch};
use crate::config::{Config, ElectionTimeout};
use crate::error::{
    CompactError, DriveError, NotReady, ProposeError, StartError, StepError, StoreError, TransferError,
};
use crate::handler::RoleChange;
use crate::limits;
use crate::log_store::LogStore;
use crate::status::{PeerProgress, Role, Status};
use crate::vetting;

/// Makes an empty store the store of a founding member. Every founding member
/// of a cluster must be given the same `voters` and `data`; later members start
/// from an empty store and learn everything from the leader.
///
/// The log starts *after* entry 1, which stands for the founding itself: a
/// member that joins later finds no entry 1 at the leader and is therefore sent
/// a snapshot, and with it the founding membership, which is in no entry.
pub fn bootstrap<S: LogStore>(store: &mut S, voters: &[u64], data: Vec<u8>) -> Result<(), StoreError> {
    if !store.index().is_empty() {
        return Err(StoreError::Refused(
            "this store is in use already; a cluster is founded on empty stores".to_owned(),
        ));
    }
    if voters.is_empty() || voters.contains(&0) || voters.len() > limits::MAX_MEMBERS {
        return Err(StoreError::Refused(format!(
            "{voters:?} cannot found a cluster: it takes 1 to {} members with ids from 1 on",
            limits::MAX_MEMBERS
        )));
    }
    let mut voters = voters.to_vec();
    voters.sort_unstable();
    voters.dedup();
    store.write(WriteBatch {
        install: Some(StoredSnapshot {
            head: SnapshotHead {
                seq: 0,
                index: 1,
                term: 1,
                conf_state: ConfState { voters, ..ConfState::default() },
                retired: Vec::new(),
            },
            data,
        }),
        sync: true,
        ..WriteBatch::default()
    })
}

/// One replica: raft, and the store it writes to.
///
/// The caller feeds it ticks, messages and proposals, and calls
/// [`Driver::ready`] after each (or after several) until it answers `false`.
/// It belongs on one thread that does nothing else.
///
/// Raft itself panics where an invariant is broken. Such a panic must end the
/// process: catching it would go on with a state that is known to be wrong.
pub struct Driver<S: LogStore> {
    pub(crate) raw: RawNode<S>,
    pub(crate) stopped: Option<String>,
    pub(crate) last_role: Option<RoleChange>,
    /// The highest commit index that went out to each follower with an append.
    pub(crate) told_commits: BTreeMap<u64, u64>,
    election_timeout: Option<ElectionTimeout>,
    election_ticks: usize,
    snapshot_retry_ticks: u64,
    snapshot_ages: BTreeMap<u64, u64>,
}

impl<S: LogStore> Driver<S> {
    /// Starts from what the store holds. Entries after the stored applied index
    /// will be applied again; what they leave was not stored either.
    pub fn new(config: Config, store: S) -> Result<Self, StartError> {
        // Raft 0.7.0 panics on a log that contradicts itself. An operator can
        // do something about an error, so these are looked for first.
        if let Some(why) = store.index().inconsistency() {
            return Err(StartError::Inconsistent(why));
        }
        if store.index().retired().contains(&config.id) {
            return Err(StartError::Inconsistent(format!(
                "controller {} was removed from the cluster",
                config.id
            )));
        }
        let raft_config = config.to_raft(store.index().applied())?;
        let raw = RawNode::new(&raft_config, store, &config.logger).map_err(StartError::Raft)?;
        let mut driver = Self {
            raw,
            stopped: None,
            last_role: None,
            told_commits: BTreeMap::new(),
            election_timeout: config.election_timeout,
            election_ticks: config.election_ticks,
            snapshot_retry_ticks: config.snapshot_retry_ticks,
            snapshot_ages: BTreeMap::new(),
        };
        driver.pin_election_timeout();
        Ok(driver)
    }

    /// The store, for reading.
    pub fn store(&self) -> &S {
        self.raw.store()
    }

    /// Gives the store back, for a clean end or a simulated crash.
    pub fn into_store(self) -> S {
        self.raw.raft.r.raft_log.store
    }

    /// Lets one tick pass.
    pub fn tick(&mut self) -> Result<(), DriveError> {
        self.check_running()?;
        self.raw.tick();
        self.retry_lost_snapshots();
        self.settle()
    }

    /// Lets up to `n` ticks pass at once. A process that was paused owes many
    /// ticks; paying all of them without having read a message in between would
    /// start an election against a leader that is perfectly alive. So a burst
    /// is cut to half the election timeout.
    pub fn tick_capped(&mut self, n: usize) -> Result<(), DriveError> {
        for _ in 0..n.min((self.election_ticks / 2).max(1)) {
            self.tick()?;
        }
        Ok(())
    }

    /// Takes a message from another controller. The caller has authenticated
    /// the sender as `message.from`.
    ///
    /// A [`StepError::Dropped`] is harmless. Everything else ends this replica.
    pub fn step(&mut self, message: Message) -> Result<(), StepError> {
        self.check_running()?;
        vetting::vet(&self.raw, &message)?;
        let from = message.from;
        let outcome = self.raw.step(message);
        self.settle()?;
        outcome.map_err(|error| StepError::Dropped {
            from,
            reason: match error {
                raft::Error::StepLocalMsg => "it is for use inside a process only",
                raft::Error::StepPeerNotFound => "the sender is not a member",
                _ => "raft refused it",
            },
        })
    }

    /// Appends an entry. Answers the index and term it has; it is committed if
    /// and only if an entry of that index *and term* is later applied.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<(u64, u64), ProposeError> {
        self.check_may_propose()?;
        if data.is_empty() {
            return Err(ProposeError::Empty);
        }
        if data.len() > limits::MAX_ENTRY_BYTES {
            return Err(ProposeError::TooLarge { bytes: data.len(), limit: limits::MAX_ENTRY_BYTES });
        }
        self.raw.propose(Vec::new(), data).map_err(|_| ProposeError::Busy)?;
        Ok((self.raw.raft.raft_log.last_index(), self.raw.raft.term))
    }

    /// Starts a linearizable read. `context` must be unique among all reads of
    /// all controllers (such as node, boot nonce, counter). The answer comes as
    /// [`Handler::read`](crate::Handler::read), or never: a change of leader or
    /// a lost message drops it silently, so the caller retries with a deadline
    /// and a fresh context.
    pub fn read_index(&mut self, context: Vec<u8>) -> Result<(), NotReady> {
        if context.is_empty() || context.len() > limits::MAX_READ_CONTEXT_BYTES {
            return Err(NotReady::Context { bytes: context.len(), limit: limits::MAX_READ_CONTEXT_BYTES });
        }
        let raft = &self.raw.raft;
        if self.stopped.is_some() || raft.leader_id == raft::INVALID_ID {
            return Err(NotReady::NoLeader);
        }
        if raft.state == StateRole::Leader {
            // Raft drops such a read without a word: before its first commit in
            // the term, a new leader does not know what its predecessor
            // committed.
            if !raft.commit_to_current_term() {
                return Err(NotReady::TermNotCommitted);
            }
            if raft.pending_read_count() >= limits::MAX_PENDING_READS {
                return Err(NotReady::Busy);
            }
        }
        self.raw.read_index(context);
        Ok(())
    }

    /// Hands leadership to a voter. Proposals are refused until it happened or
    /// an election timeout passed.
    pub fn transfer_leader(&mut self, to: u64) -> Result<(), TransferError> {
        if self.stopped.is_some() || self.raw.raft.state != StateRole::Leader {
            return Err(TransferError::NotLeader { leader: self.leader() });
        }
        if !self.store().index().conf_state().voters.contains(&to) {
            return Err(TransferError::NotVoter(to));
        }
        if to != self.raw.raft.id {
            self.raw.transfer_leader(to);
        }
        Ok(())
    }

    /// Stands for election at once, for a founding member that is alone and
    /// for tests. Who is no voter does nothing.
    pub fn campaign(&mut self) -> Result<(), DriveError> {
        self.check_running()?;
        // Raft itself looks at that only where an election timeout passed, and panics when a replica
        // that was removed is elected by itself.
        if !self.raw.raft.promotable() {
            return Ok(());
        }
        // Raft refuses when this replica may not lead; then nothing happens.
        drop(self.raw.campaign());
        self.settle()
    }

    /// Says that messages to a controller were lost, so that the leader probes
    /// it instead of sending ahead.
    pub fn report_unreachable(&mut self, id: u64) {
        self.raw.report_unreachable(id);
    }

    /// Whether this replica leads and has not told every follower that keeps up what it committed last: see
    /// [`Config::lets_commits_ride`]. [`Driver::tell_commit`] is to be called when a moment passes without a
    /// proposal; heartbeats would tell it, but later.
    pub fn has_untold_commit(&self) -> bool {
        let raft = &self.raw.raft;
        let committed = raft.raft_log.committed;
        let is_behind = |id: &u64| self.told_commits.get(id).is_none_or(|told| *told < committed);
        self.stopped.is_none()
            && raft.state == StateRole::Leader
            && raft.prs().iter().any(|(id, progress)| {
                *id != raft.id && progress.state == ProgressState::Replicate && is_behind(id)
            })
    }

    /// Tells followers what is committed, in appends that may be empty.
    pub fn tell_commit(&mut self) -> Result<(), DriveError> {
        self.check_running()?;
        if self.has_untold_commit() {
            let raft = &mut self.raw.raft;
            raft.bcast_append();
            // To whom too much is on its way already raft sends nothing now, and more soon.
            let committed = raft.raft_log.committed;
            self.told_commits = raft.prs().iter().map(|(id, _)| (*id, committed)).collect();
        }
        self.settle()
    }

    /// Whether a follower needs a snapshot that does not exist. The caller then
    /// makes one with [`Driver::create_snapshot`]. Reading it clears it.
    pub fn snapshot_wanted(&self) -> bool {
        self.store().snapshot_wanted()
    }

    /// Stores a snapshot of the application's state as of the last applied
    /// entry. `seq` is the last record folded into `data`.
    ///
    /// Call it with a state that has applied exactly
    /// [`LogIndex::applied`](crate::LogIndex::applied), between two ready
    /// cycles: the snapshot is stamped with that index, and a commit index
    /// instead would make its receiver skip entries.
    pub fn create_snapshot(&mut self, seq: u64, data: Vec<u8>) -> Result<(), DriveError> {
        let Some(head) = self.begin_snapshot(seq)? else { return Ok(()) };
        match self.raw.mut_store().stage_snapshot(seq, data) {
            Ok(staged) => self.finish_snapshot(StagedSnapshot { head, staged }),
            Err(error) => Err(self.stop(DriveError::Store(error))),
        }
    }

    /// The head of a snapshot of the state as of the last applied entry: see
    /// [`Driver::create_snapshot`]. Its bytes may be made and staged while the
    /// log goes on; then it is handed to [`Driver::finish_snapshot`]. `None`
    /// when there is nothing to make one of.
    pub fn begin_snapshot(&self, seq: u64) -> Result<Option<SnapshotHead>, DriveError> {
        self.check_running()?;
        let index = self.store().index();
        let applied = index.applied();
        // A replica that has just joined has applied nothing.
        Ok((applied > 0).then(|| SnapshotHead {
            seq,
            index: if planted!(SnapshotStampedAhead) { index.last_index() } else { applied },
            term: index.term(applied).unwrap_or_default(),
            conf_state: index.conf_state().clone(),
            retired: index.retired().iter().copied().collect(),
        }))
    }

    /// Makes a snapshot begun earlier, whose bytes are staged, the newest one.
    /// One that a leader's snapshot has overtaken meanwhile is dropped.
    pub fn finish_snapshot(&mut self, snapshot: StagedSnapshot) -> Result<(), DriveError> {
        self.check_running()?;
        if self.store().index().snapshot().is_some_and(|mark| mark.index > snapshot.head.index) {
            return Ok(());
        }
        self.write(WriteBatch { snapshot: Some(snapshot), ..WriteBatch::default() })
    }

    /// Drops raft entries up to and including `through`. Records stay.
    ///
    /// It is synced: records are written unsynced while the entries they derive
    /// from are on the disk, so they must be on the disk before those go.
    pub fn compact(&mut self, through: u64) -> Result<(), CompactError> {
        self.check_running()?;
        let index = self.store().index();
        if through <= index.truncated().0 {
            return Ok(());
        }
        let covered = index.snapshot().map_or(0, |mark| mark.index);
        if through > covered {
            return Err(CompactError::NotCovered { through, covered });
        }
        self.write(WriteBatch { compact_through: Some(through), sync: true, ..WriteBatch::default() })?;
        Ok(())
    }

    /// Stores old records, fetched from a peer and verified by the caller, that
    /// an installed snapshot left missing.
    pub fn backfill(&mut self, records: Vec<(u64, Vec<u8>)>) -> Result<(), DriveError> {
        self.check_running()?;
        self.write(WriteBatch { backfill: records, ..WriteBatch::default() })
    }

    /// Where this replica stands.
    pub fn status(&self) -> Status {
        let raft = &self.raw.raft;
        let role = Role::from(raft.state);
        let index = self.store().index();
        let mut progress: Vec<PeerProgress> = if role == Role::Leader {
            raft.prs()
                .iter()
                .map(|(id, progress)| PeerProgress {
                    id: *id,
                    matched: progress.matched,
                    is_learner: raft.prs().conf().learners().contains(id),
                    is_active: *id == raft.id || progress.recent_active,
                    awaits_snapshot: progress.state == ProgressState::Snapshot,
                })
                .collect()
        } else {
            Vec::new()
        };
        progress.sort_unstable_by_key(|peer| peer.id);
        Status {
            id: raft.id,
            role,
            term: raft.term,
            leader: self.leader(),
            commit: raft.raft_log.committed,
            applied: index.applied(),
            first_index: index.first_index(),
            last_index: raft.raft_log.last_index(),
            committed_in_term: raft.commit_to_current_term(),
            conf_state: index.conf_state().clone(),
            retired: index.retired().iter().copied().collect(),
            progress,
        }
    }

    pub(crate) fn leader(&self) -> Option<u64> {
        Some(self.raw.raft.leader_id).filter(|id| *id != raft::INVALID_ID)
    }

    pub(crate) fn check_running(&self) -> Result<(), DriveError> {
        match &self.stopped {
            Some(why) => Err(DriveError::Stopped(why.clone())),
            None => Ok(()),
        }
    }

    pub(crate) fn check_may_propose(&self) -> Result<(), ProposeError> {
        // Raft would forward a follower's proposal to the leader. What a
        // follower decided, it decided on an older state, so that is never used.
        if self.stopped.is_some() || self.raw.raft.state != StateRole::Leader {
            return Err(ProposeError::NotLeader { leader: self.leader() });
        }
        if self.raw.raft.lead_transferee.is_some() {
            return Err(ProposeError::Transferring);
        }
        Ok(())
    }

    /// Stops for good. Raft's memory is ahead of the disk now, and an
    /// acknowledgement could leave for something that is not there.
    pub(crate) fn stop(&mut self, error: DriveError) -> DriveError {
        if self.stopped.is_none() {
            self.stopped = Some(error.to_string());
        }
        error
    }

    pub(crate) fn write(&mut self, batch: WriteBatch) -> Result<(), DriveError> {
        match self.raw.mut_store().write(batch) {
            Ok(()) => Ok(()),
            Err(StoreError::Io { operation: "sync", .. }) if planted!(SyncErrorIgnored) => Ok(()),
            Err(error) => Err(self.stop(DriveError::Store(error))),
        }
    }

    /// To be called after raft did anything: a read that failed inside of it
    /// has been hidden from it and must surface here, before a message leaves.
    pub(crate) fn settle(&mut self) -> Result<(), DriveError> {
        self.pin_election_timeout();
        match self.store().fault() {
            Some(error) => Err(self.stop(DriveError::Store(error))),
            None => Ok(()),
        }
    }

    fn pin_election_timeout(&mut self) {
        if let Some(pick) = &self.election_timeout {
            let raft = &mut self.raw.raft;
            let ticks = pick(raft.id, raft.term);
            let (min, max) = (self.election_ticks, 2 * self.election_ticks - 1);
            raft.set_randomized_election_timeout(ticks.clamp(min, max));
        }
    }

    /// While a snapshot is on its way raft sends that follower nothing else,
    /// and waits for a report which a transport that may lose messages cannot
    /// promise. So an unconfirmed snapshot counts as lost after a while.
    fn retry_lost_snapshots(&mut self) {
        let raft = &self.raw.raft;
        let mut ages = BTreeMap::new();
        if raft.state == StateRole::Leader {
            for (id, progress) in raft.prs().iter() {
                if progress.state == ProgressState::Snapshot {
                    let age = self.snapshot_ages.get(id).copied().unwrap_or_default();
                    ages.insert(*id, age + 1);
                }
            }
        }
        self.snapshot_ages = ages;
        let lost: Vec<u64> = self
            .snapshot_ages
            .iter()
            .filter(|(_, age)| **age >= self.snapshot_retry_ticks)
            .map(|(id, _)| *id)
            .collect();
        for id in lost {
            self.snapshot_ages.remove(&id);
            self.raw.report_snapshot(id, SnapshotStatus::Failure);
        }
    }
}
