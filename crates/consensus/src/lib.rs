//! Consensus: one replica of the log, driven by inputs, observed by outputs.
//!
//! Owns the order in which a replica sends, persists and applies; the checks
//! that keep the known traps of the raft library shut; and the port to the
//! durable side, [`LogStore`]. Entries are opaque bytes here.
//!
//! It must never look at a clock, draw a random number of its own, start a
//! thread, or touch a file or a socket: the simulator runs it unchanged.
//!
//! # Example
//!
//! ```
//! use stele_consensus::memory::MemoryStore;
//! use stele_consensus::{
//!     Applied, Committed, CommittedKind, Config, Driver, Handler, HandlerError, RoleChange,
//!     StoredSnapshot, bootstrap,
//! };
//!
//! #[derive(Default)]
//! struct Journal(Vec<Vec<u8>>);
//!
//! impl Handler for Journal {
//!     fn send(&mut self, _messages: Vec<raft::eraftpb::Message>) {}
//!     fn role(&mut self, _change: RoleChange) {}
//!     fn restore(&mut self, _snapshot: &StoredSnapshot) -> Result<(), HandlerError> {
//!         Ok(())
//!     }
//!     fn apply(&mut self, entry: Committed) -> Result<Applied, HandlerError> {
//!         let mut applied = Applied::default();
//!         if let CommittedKind::Normal(bytes) = entry.kind {
//!             self.0.push(bytes.clone());
//!             applied.records.push((self.0.len() as u64, bytes));
//!         }
//!         Ok(applied)
//!     }
//!     fn applied(&mut self, _index: u64) {}
//!     fn read(&mut self, _context: Vec<u8>, _index: u64) {}
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut store = MemoryStore::new();
//! bootstrap(&mut store, &[1], Vec::new())?;
//! let mut driver = Driver::new(Config::new(1), store)?;
//! let mut journal = Journal::default();
//! driver.campaign()?;
//! while driver.ready(&mut journal)? {}
//! let (index, term) = driver.propose(b"hello".to_vec())?;
//! while driver.ready(&mut journal)? {}
//! assert_eq!(journal.0, [b"hello"]);
//! assert_eq!((driver.status().applied, driver.status().term), (index, term));
//! # Ok(())
//! # }
//! ```

/// Whether a bug is planted here: never, unless the simulator's own run asks for the feature.
macro_rules! planted {
    ($bug:ident) => {{
        #[cfg(feature = "planted")]
        {
            stele_planted::is_planted(stele_planted::Bug::$bug)
        }
        #[cfg(not(feature = "planted"))]
        {
            false
        }
    }};
}

mod batch;
mod config;
mod driver;
mod error;
mod handler;
pub mod limits;
mod log_index;
mod log_store;
mod membership;
pub mod memory;
mod ready;
pub mod recovery;
pub mod seal;
pub mod size;
mod status;
mod vetting;

pub use batch::{SnapshotHead, Staged, StagedSnapshot, StoredSnapshot, WriteBatch};
pub use config::{Config, ElectionTimeout};
pub use driver::{Driver, bootstrap};
pub use error::{
    CompactError, DriveError, HandlerError, MembershipError, NotReady, ProposeError, StartError, StepError,
    StoreError, TransferError,
};
pub use handler::{Applied, Committed, CommittedKind, Handler, RoleChange};
pub use log_index::{Changes, LogIndex, Recovered, SnapshotMark, Span};
pub use log_store::LogStore;
pub use membership::MembershipChange;
pub use raft::eraftpb::{ConfState, Message};
pub use status::{PeerProgress, Role, Status};

/// What a message carries beside Raft's own, in a field that Raft's do not use: whoever does not know
/// it skips it.
#[derive(Clone, PartialEq, prost::Message)]
struct Stamp {
    #[prost(fixed64, optional, tag = "1000")]
    clock_us: Option<u64>,
}

/// The bytes of a message, for the wire between controllers, with the sender's wall clock in
/// microseconds since 1970, where it is to be known.
pub fn encode_message(message: &Message, clock_us: Option<u64>) -> Vec<u8> {
    let mut bytes = prost::Message::encode_to_vec(message);
    bytes.extend(prost::Message::encode_to_vec(&Stamp { clock_us }));
    bytes
}

/// The reverse of [`encode_message`]; `None` when malformed. The clock is absent where the sender
/// does not know of it yet.
pub fn decode_message(bytes: &[u8]) -> Option<(Message, Option<u64>)> {
    let message = prost::Message::decode(bytes).ok()?;
    let stamp: Stamp = prost::Message::decode(bytes).ok()?;
    Some((message, stamp.clock_us))
}

/// A heartbeat that tells a follower who leads in a term and nothing else: no commit index, no read. To be sent
/// beside those of Raft's own, by the leader of that term alone.
pub fn bare_heartbeat(leader: u64, term: u64, to: u64) -> Message {
    let mut message = Message { from: leader, to, term, ..Message::default() };
    message.set_msg_type(raft::eraftpb::MessageType::MsgHeartbeat);
    message
}

/// The vote that a message gives, if it gives one: its term and the candidate. A candidate's own
/// vote is given by its asking for others.
pub fn vote_of(message: &Message) -> Option<(u64, u64)> {
    match raft::eraftpb::MessageType::from_i32(message.msg_type)? {
        raft::eraftpb::MessageType::MsgRequestVote => Some((message.term, message.from)),
        raft::eraftpb::MessageType::MsgRequestVoteResponse if !message.reject => {
            Some((message.term, message.to))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_carries_a_clock_that_older_controllers_skip_and_need_not_send() {
        let message = Message { from: 1, to: 2, term: 3, context: vec![7; 300], ..Message::default() };
        let bytes = encode_message(&message, Some(1_800_000_000_000_000));
        assert_eq!(decode_message(&bytes), Some((message.clone(), Some(1_800_000_000_000_000))));
        // What an older one reads, and what it sends.
        assert_eq!(prost::Message::decode(bytes.as_slice()).ok(), Some(message.clone()));
        assert_eq!(decode_message(&prost::Message::encode_to_vec(&message)), Some((message, None)));
        assert_eq!(decode_message(&bytes[1..]), None);
    }
}
