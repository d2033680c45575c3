//! A copy of where the replica stands, for the operator and for decisions
//! outside of raft.

use raft::eraftpb::ConfState;

/// A replica's role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether an election could be won, without disturbing the term.
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
}

impl From<raft::StateRole> for Role {
    fn from(role: raft::StateRole) -> Self {
        match role {
            raft::StateRole::Follower => Self::Follower,
            raft::StateRole::PreCandidate => Self::PreCandidate,
            raft::StateRole::Candidate => Self::Candidate,
            raft::StateRole::Leader => Self::Leader,
        }
    }
}

/// How far a member has come, as its leader knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerProgress {
    /// The member.
    pub id: u64,
    /// Last entry it is known to hold.
    pub matched: u64,
    /// Whether it does not vote.
    pub is_learner: bool,
    /// Whether it answered within the last election timeout.
    pub is_active: bool,
    /// Whether a snapshot is on its way to it.
    pub awaits_snapshot: bool,
}

/// Where a replica stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// This controller.
    pub id: u64,
    /// Its role.
    pub role: Role,
    /// The term.
    pub term: u64,
    /// The leader as far as known.
    pub leader: Option<u64>,
    /// Last entry known to be committed.
    pub commit: u64,
    /// Last entry applied.
    pub applied: u64,
    /// First entry still held by raft.
    pub first_index: u64,
    /// Last entry in the log.
    pub last_index: u64,
    /// Whether an entry of this term has committed.
    pub committed_in_term: bool,
    /// Members as applied here.
    pub conf_state: ConfState,
    /// Ids that were removed.
    pub retired: Vec<u64>,
    /// Progress of every member in order of id; empty unless leading.
    pub progress: Vec<PeerProgress>,
}
