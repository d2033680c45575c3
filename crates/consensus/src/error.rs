//! What can go wrong, and what the operator should do about it.

/// An error of the application's own, from a [`Handler`](crate::Handler).
pub type HandlerError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A failure of the durable side. All of them are fatal to the replica that
/// meets them: what raft believes to be on disk would no longer be there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The disk (or the file system) failed to read, write or sync.
    #[error("{operation} failed in {place}: {detail}")]
    Io {
        /// What was attempted, such as `write` or `read`.
        operation: &'static str,
        /// The folder or file, and the column family where known.
        place: String,
        /// The words of the layer below.
        detail: String,
    },
    /// Stored bytes are not what was written.
    #[error("{place} is damaged: {detail}. {remedy}")]
    Corrupt {
        /// Folder, column family and index.
        place: String,
        /// What was found instead.
        detail: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// Too little room is left to write safely; nothing was written.
    #[error(
        "the disk of {path} is full: {free_bytes} bytes are free, {needed_bytes} are needed; \
         free some space and start this controller again"
    )]
    DiskFull {
        /// The folder of the store.
        path: String,
        /// Bytes free for this process.
        free_bytes: u64,
        /// Bytes that must be free, the batch and a reserve together.
        needed_bytes: u64,
    },
    /// The write would make a log that could not be opened again, or would
    /// rewrite history; nothing was written. This is a defect of the caller.
    #[error("refused to write: {0}")]
    Refused(String),
}

/// Why a driver could not be built.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration contradicts itself.
    #[error("invalid consensus configuration: {0}")]
    Config(String),
    /// The stored log contradicts itself, so raft would panic or lose data.
    #[error(
        "the stored raft log is inconsistent: {0}; remove this controller from the cluster and \
         add it again under a new id with an empty folder"
    )]
    Inconsistent(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Raft refused the stored state.
    #[error("raft refused to start")]
    Raft(#[source] raft::Error),
}

/// Why a proposal was not made. Nothing was appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Only the leader of a term appends in it.
    #[error("this controller is not the leader (leader: {leader:?})")]
    NotLeader {
        /// The leader as far as known here.
        leader: Option<u64>,
    },
    /// Leadership is being handed over.
    #[error("leadership is being transferred; try again")]
    Transferring,
    /// More than [`MAX_ENTRY_BYTES`](crate::limits::MAX_ENTRY_BYTES).
    #[error("an entry of {bytes} bytes exceeds the limit of {limit} (MAX_ENTRY_BYTES)")]
    TooLarge {
        /// Size of the entry.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Raft's own empty entries mark terms, so an empty proposal would be lost.
    #[error("an entry must not be empty")]
    Empty,
    /// Too much is proposed and not yet committed.
    #[error("too many uncommitted bytes; try again")]
    Busy,
}

/// Why a linearizable read was not started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// No leader is known.
    #[error("no leader is known; try again")]
    NoLeader,
    /// The leader has not committed an entry of its term yet, so it cannot
    /// know what is committed.
    #[error("the leader has not committed in its term yet; try again")]
    TermNotCommitted,
    /// Too many reads are waiting.
    #[error("too many linearizable reads are waiting; try again")]
    Busy,
    /// Empty or oversized context.
    #[error("a read context must have 1 to {limit} bytes, this one has {bytes}")]
    Context {
        /// Size of the context.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

/// Why a membership change was not proposed. Nothing was appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// See [`ProposeError`].
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// One change at a time.
    #[error("another membership change is still pending; try again")]
    Pending,
    /// Ids start at 1.
    #[error("0 is not a member id")]
    ZeroId,
    /// The id is a member already.
    #[error("controller {0} is a member already")]
    Exists(u64),
    /// The id is no member.
    #[error("controller {0} is not a member")]
    Unknown(u64),
    /// A removed controller may have forgotten votes and entries.
    #[error("id {0} was used by a removed controller; ids are never used again, take a new one")]
    Retired(u64),
    /// The learner has not caught up.
    #[error("controller {id} lags {lag} entries behind; it can be promoted at {limit} or fewer")]
    Lagging {
        /// The learner.
        id: u64,
        /// Entries behind the leader's commit.
        lag: u64,
        /// See [`PROMOTE_MAX_LAG_ENTRIES`](crate::limits::PROMOTE_MAX_LAG_ENTRIES).
        limit: u64,
    },
    /// Not a learner.
    #[error("controller {0} votes already")]
    VotesAlready(u64),
    /// A leader that removes itself would go on leading without a vote.
    #[error("controller {0} is the leader; transfer leadership before removing it")]
    IsLeader(u64),
    /// The last voter cannot go.
    #[error("controller {0} is the last voter")]
    LastVoter(u64),
    /// The one removed may be the last that has the whole log.
    #[error(
        "controller {id} is not removed while the leader lacks records {from} to {to}: nobody else may have them"
    )]
    Incomplete {
        /// Who was to be removed.
        id: u64,
        /// First record of the leader's first gap.
        from: u64,
        /// Last record of it.
        to: u64,
    },
    /// The cluster is full.
    #[error("a cluster has at most {0} members (MAX_MEMBERS)")]
    Full(usize),
}

/// Why leadership was not transferred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Only the leader transfers.
    #[error("this controller is not the leader (leader: {leader:?})")]
    NotLeader {
        /// The leader as far as known here.
        leader: Option<u64>,
    },
    /// Only a voter can lead.
    #[error("controller {0} is not a voter")]
    NotVoter(u64),
}

/// Why a message from a peer was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// The message is not one raft would send here; it was dropped.
    #[error("dropped a message from controller {from}: {reason}")]
    Dropped {
        /// Sender.
        from: u64,
        /// What was wrong with it.
        reason: &'static str,
    },
    /// This replica acknowledged entries it no longer has. Going on could lose
    /// acknowledged writes, so it must not vote again under this id.
    #[error(
        "the leader says this controller acknowledged entry {acknowledged}, but its log ends at \
         {last}: its disk lost data. Remove it from the cluster and add it again under a new id \
         with an empty folder"
    )]
    LostLog {
        /// What the leader knows to be acknowledged.
        acknowledged: u64,
        /// The last entry here.
        last: u64,
    },
    /// A leader would replace an entry that is committed here. One of the two is wrong, and raft panics.
    #[error(
        "controller {from} leads, and its entry {index} is another than the one committed here: one of the two \
         logs was changed. Compare them before either goes on: stele replay"
    )]
    Contradicted {
        /// The leader.
        from: u64,
        /// The entry.
        index: u64,
    },
    /// See [`DriveError`].
    #[error(transparent)]
    Drive(#[from] DriveError),
}

/// A failure while driving raft. The driver is dead afterwards: every further
/// call answers [`DriveError::Stopped`], because memory and disk may differ.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The application failed to apply or restore.
    #[error("applying entry {index} failed")]
    Handler {
        /// Raft index of the entry or snapshot.
        index: u64,
        /// The application's error.
        #[source]
        source: HandlerError,
    },
    /// A committed entry does not decode, or raft refused it.
    #[error("committed entry {index} is invalid: {detail}")]
    Entry {
        /// Raft index.
        index: u64,
        /// What was wrong.
        detail: String,
    },
    /// An earlier failure stopped this driver.
    #[error("consensus stopped after an earlier failure: {0}")]
    Stopped(String),
}

impl PartialEq for DriveError {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for DriveError {}

impl Clone for DriveError {
    fn clone(&self) -> Self {
        match self {
            Self::Store(error) => Self::Store(error.clone()),
            // The source cannot be cloned, its words can.
            Self::Handler { index, source } => {
                Self::Handler { index: *index, source: source.to_string().into() }
            }
            Self::Entry { index, detail } => Self::Entry { index: *index, detail: detail.clone() },
            Self::Stopped(why) => Self::Stopped(why.clone()),
        }
    }
}

/// Why raft's entries were not compacted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompactError {
    /// A follower that needs the dropped entries could not be served.
    #[error("entry {through} is not covered by a snapshot (the newest covers {covered})")]
    NotCovered {
        /// Asked for.
        through: u64,
        /// Index of the newest snapshot, 0 without one.
        covered: u64,
    },
    /// See [`DriveError`].
    #[error(transparent)]
    Drive(#[from] DriveError),
}
