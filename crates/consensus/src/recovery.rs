//! Going on with one replica of a cluster whose quorum is lost for good.
//!
//! It happens while the replica does not run, in one write: what it holds counts as committed from then on, and the
//! configuration is itself alone. Whatever it held of a change of members is passed over, not applied: a promotion
//! in it would take the new quorum away again.
//!
//! This breaks Raft's promise to whoever else holds a part of the log. The others must be lost, or be kept from ever
//! taking part again: their ids are retired with the same write.

use raft::GetEntriesContext;
use raft::eraftpb::{ConfState, Entry, EntryType, HardState};

use crate::batch::{WriteBatch, is_member};
use crate::error::StoreError;
use crate::limits;
use crate::log_index::LogIndex;
use crate::log_store::LogStore;
use crate::membership::read_change;

/// An entry that a replica holds and has not applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unapplied {
    /// Raft index.
    pub index: u64,
    /// Raft term in which it was proposed.
    pub term: u64,
    /// Whether the replica knows that it is committed. Of others nobody who is left can tell.
    pub is_committed: bool,
    /// What is in it.
    pub held: Held,
}

/// What an entry holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// Bytes given to [`Driver::propose`](crate::Driver::propose).
    Data(Vec<u8>),
    /// A membership change of these ids.
    Members(Vec<u64>),
    /// The entry by which a leader opened its term.
    Empty,
}

/// What [`take_over`] is to write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Takeover {
    /// The replica that goes on.
    pub id: u64,
    /// All others that are known of.
    pub given_up: Vec<u64>,
    /// The application's word on it, which becomes the log's next entry.
    pub data: Vec<u8>,
    /// Records of what is unapplied, and of that entry.
    pub records: Vec<(u64, Vec<u8>)>,
}

fn refused(why: String) -> StoreError {
    StoreError::Refused(why)
}

/// Everybody in a configuration, in whatever part, in ascending order.
pub fn members_of(conf_state: &ConfState) -> Vec<u64> {
    let ConfState { voters, learners, voters_outgoing, learners_next, .. } = conf_state;
    let mut ids = [voters, learners, voters_outgoing, learners_next].map(Clone::clone).concat();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Whether a replica decides alone, whatever becomes of what it has not applied.
pub fn is_alone(index: &LogIndex, id: u64, unapplied: &[Unapplied]) -> bool {
    let conf_state = index.conf_state();
    let changes = unapplied.iter().any(|entry| matches!(entry.held, Held::Members(_)));
    conf_state.voters == [id] && conf_state.voters_outgoing.is_empty() && !changes
}

/// The index and the term of the entry that [`take_over`] writes.
pub fn next_entry(index: &LogIndex) -> (u64, u64) {
    (index.last_index() + 1, index.hard_state().term + 1)
}

/// What a replica holds and has not applied, in order.
pub fn unapplied<S: LogStore>(store: &S) -> Result<Vec<Unapplied>, StoreError> {
    let index = store.index();
    let committed = index.hard_state().commit;
    let last = if planted!(TailForgotten) { committed } else { index.last_index() };
    let (mut next, end) = (index.applied() + 1, last + 1);
    let mut all = Vec::new();
    while next < end {
        let limit = Some(limits::MAX_APPEND_BYTES);
        let read = store.entries(next, end, limit, GetEntriesContext::empty(false));
        if let Some(fault) = store.fault() {
            return Err(fault);
        }
        let read = read.map_err(|error| refused(format!("entry {next} cannot be read: {error}")))?;
        if read.is_empty() {
            return Err(refused(format!("entry {next} is missing")));
        }
        for entry in read {
            let Entry { index, term, .. } = entry;
            let held = held(entry).map_err(|why| refused(format!("entry {index}: {why}")))?;
            all.push(Unapplied { index, term, is_committed: index <= committed, held });
            next = index + 1;
        }
    }
    Ok(all)
}

fn held(entry: Entry) -> Result<Held, String> {
    match EntryType::from_i32(entry.entry_type) {
        Some(EntryType::EntryNormal) if entry.data.is_empty() => Ok(Held::Empty),
        Some(EntryType::EntryNormal) => Ok(Held::Data(entry.data)),
        Some(EntryType::EntryConfChange | EntryType::EntryConfChangeV2) => {
            Ok(Held::Members(read_change(&entry)?.changes.iter().map(|single| single.node_id).collect()))
        }
        None => Err(format!("its type {} is unknown", entry.entry_type)),
    }
}

/// Makes a replica the only voter, at the end of all that it holds. The store is then as that of a leader which was
/// elected alone in the next term, and whose first entry has committed and was applied.
pub fn take_over<S: LogStore>(store: &mut S, takeover: Takeover) -> Result<(), StoreError> {
    let Takeover { id, given_up, data, records } = takeover;
    let at = store.index();
    let (index, term) = next_entry(at);
    let members = at.conf_state();
    if !is_member(members, id) || at.retired().contains(&id) || given_up.contains(&id) {
        return Err(refused(format!("controller {id} is no member")));
    }
    if let Some(left) = members_of(members).into_iter().find(|it| *it != id && !given_up.contains(it)) {
        return Err(refused(format!("controller {left} is a member, and is not given up")));
    }
    if data.is_empty() || data.len() > limits::MAX_ENTRY_BYTES {
        return Err(refused(format!("an entry of {} bytes cannot be appended", data.len())));
    }
    let mut retired = at.retired().clone();
    retired.extend(given_up);
    store.write(WriteBatch {
        entries: vec![Entry { index, term, data, ..Entry::default() }],
        hard_state: Some(HardState { term, vote: id, commit: index }),
        records,
        conf_state: Some(ConfState { voters: vec![id], ..ConfState::default() }),
        retired: Some(retired.into_iter().collect()),
        applied: Some(index),
        sync: true,
        ..WriteBatch::default()
    })
}
