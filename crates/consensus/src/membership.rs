//! Changing who the members are, one at a time.

use std::collections::BTreeSet;

use prost::Message as _;
use raft::StateRole;
use raft::eraftpb::{
    ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry,
    EntryType,
};

use crate::batch::is_member;
use crate::driver::Driver;
use crate::error::{MembershipError, ProposeError};
use crate::limits;
use crate::log_store::LogStore;

/// A change of one member. A new member is added as a learner and promoted once
/// it has caught up: a voter that holds nothing would weigh down every quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MembershipChange {
    /// Adds a controller that receives the log and does not vote.
    AddLearner(u64),
    /// Makes a learner a voter.
    Promote(u64),
    /// Removes a controller for good; its id is never used again.
    Remove(u64),
    /// The same under a leader that lacks records, for whoever knows that nobody would miss those of the one removed.
    RemoveRegardless(u64),
}

impl MembershipChange {
    /// Whose part changes.
    pub fn id(self) -> u64 {
        let (Self::AddLearner(id) | Self::Promote(id) | Self::Remove(id) | Self::RemoveRegardless(id)) = self;
        id
    }
}

/// The change of members that an entry of that type holds. Raft panics on kinds of change that it does not
/// know, so they are refused here.
pub(crate) fn read_change(entry: &Entry) -> Result<ConfChangeV2, String> {
    let undecodable = |error: prost::DecodeError| format!("the membership change does not decode: {error}");
    let data = entry.data.as_slice();
    let change = if entry.entry_type == EntryType::EntryConfChange as i32 {
        let change = ConfChange::decode(data).map_err(undecodable)?;
        let single = ConfChangeSingle { change_type: change.change_type, node_id: change.node_id };
        ConfChangeV2 { changes: vec![single], context: change.context, ..ConfChangeV2::default() }
    } else {
        ConfChangeV2::decode(data).map_err(undecodable)?
    };
    if ConfChangeTransition::from_i32(change.transition).is_none() {
        return Err(format!("the transition {} of the membership change is unknown", change.transition));
    }
    match change.changes.iter().find(|single| ConfChangeType::from_i32(single.change_type).is_none()) {
        Some(single) => Err(format!("the membership change {} is unknown", single.change_type)),
        None => Ok(change),
    }
}

/// Whether raft can make this configuration out of nothing, which it does when a snapshot is installed. It
/// panics where it cannot.
pub(crate) fn is_sound(conf_state: &ConfState) -> bool {
    let ConfState { voters, learners, voters_outgoing, learners_next, auto_leave } = conf_state;
    let each_once = |ids: &[u64]| {
        let set: BTreeSet<u64> = ids.iter().copied().collect();
        set.len() == ids.len() && !set.contains(&0)
    };
    let none_in = |ids: &[u64], others: &[u64]| !ids.iter().any(|id| others.contains(id));
    let is_joint = !voters_outgoing.is_empty();
    [voters, learners, voters_outgoing, learners_next].into_iter().all(|ids| each_once(ids))
        && !voters.is_empty()
        && voters.len() + learners.len() + voters_outgoing.len() <= 3 * limits::MAX_MEMBERS
        && none_in(learners, voters)
        && none_in(learners, voters_outgoing)
        && none_in(learners_next, voters)
        && learners_next.iter().all(|id| voters_outgoing.contains(id))
        && (is_joint || !auto_leave)
}

impl<S: LogStore> Driver<S> {
    /// Proposes a membership change. `context` comes back with
    /// [`CommittedKind::ConfChange`](crate::CommittedKind::ConfChange). Answers
    /// the index and term of the entry.
    pub fn propose_membership(
        &mut self,
        change: MembershipChange,
        context: Vec<u8>,
    ) -> Result<(u64, u64), MembershipError> {
        self.check_may_propose()?;
        // Raft takes a second change with `Ok` while one is pending, and appends
        // an empty entry in its place. It would look committed and do nothing.
        if self.raw.raft.has_pending_conf() {
            return Err(MembershipError::Pending);
        }
        self.check_membership(change)?;
        let (change_type, node_id) = match change {
            MembershipChange::AddLearner(id) => (ConfChangeType::AddLearnerNode, id),
            MembershipChange::Promote(id) => (ConfChangeType::AddNode, id),
            MembershipChange::Remove(id) | MembershipChange::RemoveRegardless(id) => {
                (ConfChangeType::RemoveNode, id)
            }
        };
        let change = ConfChange { change_type: change_type as i32, node_id, context, id: 0 };
        self.raw.propose_conf_change(Vec::new(), change).map_err(|_| ProposeError::Busy)?;
        let index = self.raw.raft.raft_log.last_index();
        if self.raw.raft.pending_conf_index != index {
            return Err(MembershipError::Pending);
        }
        Ok((index, self.raw.raft.term))
    }

    fn check_membership(&self, change: MembershipChange) -> Result<(), MembershipError> {
        let index = self.store().index();
        let members = index.conf_state();
        let id = change.id();
        if id == 0 {
            return Err(MembershipError::ZeroId);
        }
        // A removed controller may come back with an empty disk. Under its old
        // id it could vote twice in a term and deny entries it acknowledged.
        if index.retired().contains(&id) {
            return Err(MembershipError::Retired(id));
        }
        if matches!(change, MembershipChange::AddLearner(_)) {
            if is_member(members, id) {
                return Err(MembershipError::Exists(id));
            }
            if members.voters.len() + members.learners.len() >= limits::MAX_MEMBERS {
                return Err(MembershipError::Full(limits::MAX_MEMBERS));
            }
            return Ok(());
        }
        if !is_member(members, id) {
            return Err(MembershipError::Unknown(id));
        }
        if matches!(change, MembershipChange::Promote(_)) {
            return self.check_promotion(id);
        }
        if members.voters == [id] {
            return Err(MembershipError::LastVoter(id));
        }
        if id == self.raw.raft.id && self.raw.raft.state == StateRole::Leader {
            return Err(MembershipError::IsLeader(id));
        }
        // Raft asks for entries alone; old records are fetched from other members. With a leader that
        // lacks none, one whole log stays whoever goes.
        match index.gaps().first() {
            Some((from, to)) if change == MembershipChange::Remove(id) => {
                Err(MembershipError::Incomplete { id, from: *from, to: *to })
            }
            _ => Ok(()),
        }
    }

    fn check_promotion(&self, id: u64) -> Result<(), MembershipError> {
        let raft = &self.raw.raft;
        if !self.store().index().conf_state().learners.contains(&id) {
            return Err(MembershipError::VotesAlready(id));
        }
        let matched = raft.prs().get(id).map_or(0, |progress| progress.matched);
        let lag = raft.raft_log.committed.saturating_sub(matched);
        if lag > limits::PROMOTE_MAX_LAG_ENTRIES {
            return Err(MembershipError::Lagging { id, lag, limit: limits::PROMOTE_MAX_LAG_ENTRIES });
        }
        Ok(())
    }
}
