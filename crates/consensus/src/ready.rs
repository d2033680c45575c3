//! One ready cycle. The order of the steps in [`Driver::ready`] is what keeps
//! raft's promises; do not reorder them.

use raft::StateRole;
use raft::eraftpb::{ConfChangeType, ConfChangeV2, Entry, EntryType, HardState, Message, MessageType};

use crate::batch::{StoredSnapshot, WriteBatch, is_member};
use crate::driver::Driver;
use crate::error::DriveError;
use crate::handler::{Committed, CommittedKind, Handler, RoleChange};
use crate::log_store::LogStore;
use crate::membership::read_change;
use crate::status::Role;

impl<S: LogStore> Driver<S> {
    /// Works off what raft has ready: sends, persists, applies. Answers whether
    /// there was anything; call it until it answers `false`.
    ///
    /// After an error the driver is stopped for good (see [`DriveError`]).
    pub fn ready<H: Handler>(&mut self, handler: &mut H) -> Result<bool, DriveError> {
        self.check_running()?;
        if !self.raw.has_ready() {
            return Ok(false);
        }
        let outcome = self.cycle(handler);
        outcome.map_err(|error| self.stop(error))?;
        Ok(true)
    }

    /// Whether [`Driver::ready`] has something to do.
    pub fn has_ready(&self) -> bool {
        self.stopped.is_none() && self.raw.has_ready()
    }

    fn cycle<H: Handler>(&mut self, handler: &mut H) -> Result<(), DriveError> {
        let mut ready = self.raw.ready();
        // Raft read entries to make this. If that failed, nothing may leave.
        self.settle()?;
        self.announce_role(handler);

        // 1. A leader's appends may leave before its own write: it counts itself
        //    only once persisted, so the disk and the network work in parallel.
        let messages = ready.take_messages();
        if !messages.is_empty() {
            self.send(messages, handler);
        }

        // 2. One atomic batch. Everything a message sent below promises is in it.
        let install = if ready.snapshot().is_empty() {
            None
        } else {
            let index = ready.snapshot().get_metadata().index;
            Some(
                StoredSnapshot::from_raft(ready.snapshot())
                    .ok_or(DriveError::Entry { index, detail: "the snapshot is malformed".to_owned() })?,
            )
        };
        let batch = WriteBatch {
            install: install.clone(),
            entries: ready.take_entries(),
            hard_state: stored(ready.hs()),
            sync: ready.must_sync() && !planted!(AckBeforeSync),
            ..WriteBatch::default()
        };
        if batch.install.is_some() || !batch.entries.is_empty() || batch.hard_state.is_some() {
            self.write(batch)?;
        }

        // 3. Votes and acknowledgements: only now, because they promise that
        //    what was just written survives.
        let messages = ready.take_persisted_messages();
        if !messages.is_empty() {
            self.send(messages, handler);
        }
        if let Some(snapshot) = &install {
            handler
                .restore(snapshot)
                .map_err(|source| DriveError::Handler { index: snapshot.head.index, source })?;
        }
        for state in ready.take_read_states() {
            handler.read(state.request_ctx, state.index);
        }

        // 4. Committed entries: those known before the write, and those it let
        //    commit. Raft has finished the cycle by then, so that a membership
        //    change meets it between two cycles and not inside one.
        let mut committed = ready.take_committed_entries();
        let mut light = self.raw.advance_append(ready);
        self.settle()?;
        let messages = light.take_messages();
        if !messages.is_empty() {
            self.send(messages, handler);
        }
        committed.extend(light.take_committed_entries());
        let mut left = WriteBatch::default();
        self.apply(committed, handler, &mut left)?;

        // 5. What applying left, with the commit index in the same batch: raft
        //    cannot be started on a log that was applied further than it is
        //    committed. Unsynced, because all of it follows from synced entries.
        if let Some(commit) = light.commit_index() {
            let mut hard_state = self.store().index().hard_state().clone();
            hard_state.commit = commit;
            left.hard_state = Some(hard_state);
        }
        //    An installed snapshot counts as applied, too: raft goes on asking for
        //    the entries it replaced otherwise, and panics when they are gone.
        let newly_applied = left.applied;
        let applied = newly_applied.or(install.map(|snapshot| snapshot.head.index));
        if left.hard_state.is_some() || newly_applied.is_some() {
            #[cfg(feature = "planted")]
            let left = forget_applied(left);
            self.write(left)?;
        }
        if let Some(index) = applied {
            self.raw.advance_apply_to(index);
            handler.applied(index);
        }
        self.settle()
    }

    fn send<H: Handler>(&mut self, messages: Vec<Message>, handler: &mut H) {
        for message in messages.iter().filter(|message| message.msg_type() == MessageType::MsgAppend) {
            let told = self.told_commits.entry(message.to).or_default();
            *told = message.commit.max(*told);
        }
        handler.send(messages);
    }

    fn announce_role<H: Handler>(&mut self, handler: &mut H) {
        let now = RoleChange {
            role: Role::from(self.raw.raft.state),
            leader: self.leader(),
            term: self.raw.raft.term,
        };
        if self.last_role != Some(now) {
            self.last_role = Some(now);
            handler.role(now);
        }
    }

    fn apply<H: Handler>(
        &mut self,
        entries: Vec<Entry>,
        handler: &mut H,
        left: &mut WriteBatch,
    ) -> Result<(), DriveError> {
        for entry in entries {
            let (index, term) = (entry.index, entry.term);
            let kind = self.interpret(entry, left)?;
            let applied = handler
                .apply(Committed { index, term, kind })
                .map_err(|source| DriveError::Handler { index, source })?;
            left.records.extend(applied.records);
            left.applied = Some(index);
        }
        Ok(())
    }

    fn interpret(&mut self, entry: Entry, left: &mut WriteBatch) -> Result<CommittedKind, DriveError> {
        // The type decides, before any look at the data: the entry that leaves a
        // joint configuration is a membership change with empty data, and
        // skipping empty entries first would leave the cluster joint for ever.
        match EntryType::from_i32(entry.entry_type) {
            Some(EntryType::EntryNormal) if entry.data.is_empty() => Ok(CommittedKind::Empty),
            Some(EntryType::EntryNormal) => Ok(CommittedKind::Normal(entry.data)),
            Some(EntryType::EntryConfChange | EntryType::EntryConfChangeV2) => {
                let change =
                    read_change(&entry).map_err(|detail| DriveError::Entry { index: entry.index, detail })?;
                Ok(self.change_members(change, left))
            }
            None => Err(DriveError::Entry {
                index: entry.index,
                detail: format!("its type {} is unknown", entry.entry_type),
            }),
        }
    }

    fn change_members(&mut self, change: ConfChangeV2, left: &mut WriteBatch) -> CommittedKind {
        // Raft refuses a change that makes no sense (such as removing the last
        // voter) by looking at the configuration alone, so every replica
        // refuses it alike, and the members stay as they are.
        let mut conf_state = self
            .raw
            .apply_conf_change(&change)
            .unwrap_or_else(|_| self.raw.raft.prs().conf().to_conf_state());
        // A leader may find itself removed: by an entry its predecessor proposed.
        // Raft would let it go on leading and panic at its next commit.
        let raft = &mut self.raw.raft;
        if raft.state == StateRole::Leader && !conf_state.voters.contains(&raft.id) {
            raft.become_follower(raft.term, raft::INVALID_ID);
        }
        // Raft lists members in the order of a hash set, which differs from
        // replica to replica. What is applied must not.
        conf_state.voters.sort_unstable();
        conf_state.learners.sort_unstable();
        conf_state.voters_outgoing.sort_unstable();
        conf_state.learners_next.sort_unstable();
        let mut retired: Vec<u64> = match left.retired.take() {
            Some(ids) => ids,
            None => self.store().index().retired().iter().copied().collect(),
        };
        for single in &change.changes {
            let removes = single.change_type == ConfChangeType::RemoveNode as i32;
            if removes && !is_member(&conf_state, single.node_id) {
                retired.push(single.node_id);
            }
        }
        retired.sort_unstable();
        retired.dedup();
        left.retired = Some(retired);
        left.conf_state = Some(conf_state.clone());
        CommittedKind::ConfChange { conf_state, context: change.context }
    }
}

#[cfg(feature = "planted")]
fn forget_applied(mut left: WriteBatch) -> WriteBatch {
    if planted!(AppliedNotStored) {
        left.applied = None;
    }
    left
}

/// Term, vote and commit as they are stored.
fn stored(hard_state: Option<&HardState>) -> Option<HardState> {
    let vote = |state: &HardState| if planted!(VoteNotStored) { 0 } else { state.vote };
    hard_state.map(|state| HardState { vote: vote(state), ..state.clone() })
}
