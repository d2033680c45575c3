//! What the driver calls while it works off one ready cycle.

use raft::eraftpb::{ConfState, Message};

use crate::batch::StoredSnapshot;
use crate::error::HandlerError;
use crate::status::Role;

/// A committed entry, in log order.
#[derive(Debug, Clone, PartialEq)]
pub struct Committed {
    /// Raft index.
    pub index: u64,
    /// Raft term in which it was proposed.
    pub term: u64,
    /// What it holds.
    pub kind: CommittedKind,
}

/// What a committed entry holds.
#[derive(Debug, Clone, PartialEq)]
pub enum CommittedKind {
    /// Bytes given to [`Driver::propose`](crate::Driver::propose).
    Normal(Vec<u8>),
    /// A membership change, already in force.
    ConfChange {
        /// Members from here on.
        conf_state: ConfState,
        /// The context given when it was proposed.
        context: Vec<u8>,
    },
    /// The entry by which a new leader opens its term.
    Empty,
}

/// What applying one entry leaves to be stored, atomically with the fact that
/// it was applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Records of the entry, as (seq, bytes), following the last record.
    pub records: Vec<(u64, Vec<u8>)>,
}

/// A change of role, leader or term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleChange {
    /// The role from now on.
    pub role: Role,
    /// The leader as far as known.
    pub leader: Option<u64>,
    /// The term.
    pub term: u64,
}

/// The application's side of a ready cycle. The driver calls it in the only
/// order that is safe, so the caller has no order to get wrong.
pub trait Handler {
    /// Hands over messages for other controllers. They may be lost, repeated
    /// and reordered. It must not block.
    fn send(&mut self, messages: Vec<Message>);

    /// The role, the leader or the term changed. Called before anything of the
    /// new role happens.
    fn role(&mut self, change: RoleChange);

    /// A leader's snapshot replaced the log; it is durable already. Everything
    /// up to its index counts as applied without [`Handler::apply`] having seen
    /// it, so whoever waits for an index up to it must be resolved or failed
    /// here.
    fn restore(&mut self, snapshot: &StoredSnapshot) -> Result<(), HandlerError>;

    /// Applies one committed entry. An error means that this replica cannot go
    /// on (it stops the driver); an entry that is merely invalid must be
    /// rejected deterministically, as part of applying it.
    fn apply(&mut self, entry: Committed) -> Result<Applied, HandlerError>;

    /// Everything up to `index` is applied, and its records can be read from
    /// the store. Waiters are answered here.
    fn applied(&mut self, index: u64);

    /// A linearizable read may be answered from any state that has applied
    /// `index`.
    fn read(&mut self, context: Vec<u8>, index: u64);
}
