//! Checks on messages from peers. Raft trusts its peers and panics on messages
//! that a correct peer never sends; a defect in one controller must not take
//! the others down.

use raft::eraftpb::{EntryType, Message, MessageType};
use raft::{RawNode, StateRole};

use crate::batch::StoredSnapshot;
use crate::error::StepError;
use crate::limits;
use crate::log_store::LogStore;
use crate::membership::{is_sound, read_change};

pub(crate) fn vet<S: LogStore>(raw: &RawNode<S>, message: &Message) -> Result<(), StepError> {
    let raft = &raw.raft;
    let dropped = |reason| Err(StepError::Dropped { from: message.from, reason });
    if message.to != raft.id {
        return dropped("it is addressed to another controller");
    }
    if message.from == raft::INVALID_ID || message.from == raft.id {
        return dropped("it names no other controller as its sender");
    }
    if raft.store().index().retired().contains(&message.from) {
        return dropped("the sender was removed from the cluster");
    }
    // Raft counts on from them.
    if [message.term, message.index, message.commit, message.log_term]
        .iter()
        .any(|it| *it > limits::MAX_NUMBER)
    {
        return dropped("a number in it is beyond what a log can reach");
    }
    let Some(kind) = MessageType::from_i32(message.msg_type) else {
        return dropped("its type is unknown");
    };
    match kind {
        // Forwarded proposals were decided on the state of somebody who may not
        // append in this term.
        MessageType::MsgPropose => return dropped("proposals are never forwarded"),
        MessageType::MsgTransferLeader => return dropped("transfers are asked of the leader"),
        MessageType::MsgReadIndex => {
            let fits = |data: &[u8]| (1..=limits::MAX_READ_CONTEXT_BYTES).contains(&data.len());
            if message.entries.len() != 1 || !fits(&message.entries[0].data) {
                return dropped("the read has no proper context");
            }
            // A follower that passes it on would panic.
            if message.term != 0 {
                return dropped("a read has no term");
            }
            if raft.pending_read_count() >= limits::MAX_PENDING_READS {
                return dropped("too many linearizable reads are waiting");
            }
            return Ok(());
        }
        _ => {}
    }
    // Raft takes a message without a term for one of its own.
    if message.term == 0 {
        return dropped("it has no term");
    }
    match kind {
        MessageType::MsgReadIndexResp if message.entries.len() != 1 => {
            return dropped("the read's answer has no context");
        }
        MessageType::MsgAppend => {
            // Raft has term 0 for entries that are not there, and so would find that they match.
            if (message.index == 0) != (message.log_term == 0) {
                return dropped("it goes on from an entry without a term");
            }
            for (expected, entry) in (message.index + 1..).zip(&message.entries) {
                if entry.index != expected
                    || entry.term == 0
                    || entry.term > message.term
                    || EntryType::from_i32(entry.entry_type).is_none()
                {
                    return dropped("its entries are not in order");
                }
                if entry.entry_type != EntryType::EntryNormal as i32 && read_change(entry).is_err() {
                    return dropped("a membership change in it cannot be read");
                }
                // Raft looks at them only when it finds the one before, and then panics.
                let log = &raft.raft_log;
                if message.term >= raft.term
                    && entry.index <= log.committed
                    && log.match_term(message.index, message.log_term)
                    && log.term(entry.index).is_ok_and(|term| term != 0 && term != entry.term)
                {
                    return Err(StepError::Contradicted { from: message.from, index: entry.index });
                }
            }
        }
        MessageType::MsgSnapshot => {
            let sound =
                message.snapshot.as_ref().and_then(StoredSnapshot::from_raft).is_some_and(|snapshot| {
                    (1..=limits::MAX_NUMBER).contains(&snapshot.head.index)
                        && (1..=message.term).contains(&snapshot.head.term)
                        && is_sound(&snapshot.head.conf_state)
                });
            if !sound {
                return dropped("the snapshot is malformed");
            }
        }
        // A leader heartbeats with what this replica acknowledged to it. If that
        // is not here, the disk lost it; raft would panic.
        MessageType::MsgHeartbeat
            if message.term >= raft.term && message.commit > raft.raft_log.last_index() =>
        {
            return Err(StepError::LostLog {
                acknowledged: message.commit,
                last: raft.raft_log.last_index(),
            });
        }
        MessageType::MsgAppendResponse
            if raft.state == StateRole::Leader
                && message.term == raft.term
                && !message.reject
                && message.index > raft.raft_log.last_index() =>
        {
            return dropped("it acknowledges entries that do not exist");
        }
        _ => {}
    }
    Ok(())
}
