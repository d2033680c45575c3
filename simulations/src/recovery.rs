//! Going on with one controller of a fleet whose quorum is lost for good: the controller's `recover.rs` without its
//! folder, and what nobody who is left can know any more.

use std::collections::{BTreeMap, BTreeSet};

use stele_consensus::memory::MemoryStore;
use stele_consensus::recovery::{
    Held, Takeover, Unapplied, is_alone, members_of, next_entry, take_over, unapplied,
};
use stele_consensus::{CommittedKind, LogStore as _};
use stele_ledger::{Ledger, Moment, Submitted, system_request};
use stele_model::{Command, ControllerId, Seq, State};

use crate::controller::{Controller, Process};
use crate::limits::EPOCH_US;
use crate::oracle::Oracle;
use crate::past::recover;

/// Records as the store keeps them, by seq.
type Records = Vec<(Seq, Vec<u8>)>;

/// An entry that counts as committed from then on: its index, its term, what it is and its records.
type Entry = (u64, u64, CommittedKind, Records);

impl Controller {
    /// Whether an operator would go on with it: its disk is good, and it knows all nodes. Records may be missing.
    pub(crate) fn can_go_on(&self, nodes: usize) -> bool {
        let Some(store) = self.disk().filter(|_| !self.retired && !self.broken && !self.bad_disk) else {
            return false;
        };
        let index = store.index();
        members_of(index.conf_state()).contains(&self.id)
            && !index.retired().contains(&self.id)
            && recover(store).is_ok_and(|(state, ..)| state.control.nodes.len() == nodes)
    }

    /// Its disk, whether or not it runs.
    pub(crate) fn disk(&self) -> Option<&MemoryStore> {
        self.process.as_ref().map(Process::store).or(self.parked.as_ref())
    }

    /// It is gone, and its disk with it.
    pub(crate) fn is_lost(&mut self) {
        self.crash();
        self.parked = None;
        self.retired = true;
    }

    /// Becomes the only one that votes, while its process does not run. Answers the last record that is left of what
    /// was ever committed, and how many it has now.
    pub(crate) fn go_on_alone(&mut self, now_us: u64, oracle: &mut Oracle) -> Result<(Seq, Seq), String> {
        self.crash();
        // Whoever does it sets the clock before: nobody else can tell that it is wrong.
        let off_us = self.clock.local_us(now_us).cast_signed() - now_us.cast_signed() + self.clock.off_us;
        self.clock.jump(now_us, -off_us);
        let id = self.id;
        let store = self.parked.as_mut().ok_or("it has no disk")?;
        let words = |error: stele_consensus::StoreError| error.to_string();
        let tail = unapplied(store).map_err(words)?;
        let (applied, term) = (store.index().applied(), store.index().hard_state().term);
        let own = own_end(store, applied, oracle);
        oracle.require(
            tail.iter().all(|it| !it.is_committed || it.index <= own),
            "what-is-left-is-kept",
            || format!("controller {id} takes for committed what never was: {tail:?}"),
        );
        let entries = write(id, store, &tail, Moment { wall_us: EPOCH_US + now_us, monotonic_us: 0 })?;

        let last = oracle.forget_after(own, term);
        oracle.untold = true;
        for (index, term, kind, records) in &entries {
            oracle.applied(id, *index, *term, kind);
            oracle.committed(id, *index, records);
        }
        oracle.untold = false;
        let head = oracle.head();
        let store_ends = store.index().last_seq();
        oracle.require(store_ends == head, "what-is-left-is-kept", || {
            format!("controller {id} ends at record {store_ends} instead of {head}")
        });
        Ok((last, head))
    }
}

/// The last entry that it has of what was ever committed.
fn own_end(store: &MemoryStore, applied: u64, oracle: &Oracle) -> u64 {
    let index = store.index();
    let is_known = |at: &u64| index.term(*at).is_ok_and(|term| oracle.is_committed(*at, term));
    (applied + 1..=index.last_index()).take_while(is_known).last().unwrap_or(applied)
}

/// Decides the recovery and writes it. Answers what counts as committed by it.
fn write(
    id: ControllerId,
    store: &mut MemoryStore,
    tail: &[Unapplied],
    now: Moment,
) -> Result<Vec<Entry>, String> {
    let index = store.index();
    if is_alone(index, id, tail) {
        return Err("it votes alone".to_owned());
    }
    let (state, chain, _) = recover(store)?;
    let mut ledger: Ledger<()> = Ledger::new("demo", state, chain);
    let mut entries = Vec::new();
    let mut changed = Vec::new();
    for entry in tail {
        let (kind, records) = match &entry.held {
            Held::Data(bytes) => {
                let committed = ledger.commit(entry.index, entry.term, bytes);
                let committed = committed.map_err(|error| error.to_string())?;
                (CommittedKind::Normal(bytes.clone()), committed.records)
            }
            Held::Empty => (CommittedKind::Empty, Records::new()),
            // It is passed over.
            Held::Members(ids) => {
                changed.extend(ids.iter().copied());
                continue;
            }
        };
        entries.push((entry.index, entry.term, kind, records));
    }
    let known = members_of(index.conf_state()).into_iter().chain(changed);
    let given_up = others(id, ledger.state(), known, index.retired());
    let (next, term) = next_entry(index);
    ledger.elected(term, id);
    ledger.caught_up(now);
    let command = Command::RecoverFleet { controller: id, given_up: given_up.clone() };
    let decided = ledger.submit((), &system_request(command), BTreeMap::new(), now);
    if !matches!(decided, Submitted::Waiting) {
        return Err(format!("the recovery is not decided: {decided:?}"));
    }
    let (bytes, _) = ledger.close_batch().ok_or("the recovery has no records")?;
    ledger.proposed(next);
    let committed = ledger.commit(next, term, &bytes).map_err(|error| error.to_string())?;
    entries.push((next, term, CommittedKind::Normal(bytes.clone()), committed.records));
    let records = entries.iter().flat_map(|(.., records)| records.clone()).collect();
    take_over(store, Takeover { id, given_up, data: bytes, records }).map_err(|error| error.to_string())?;
    Ok(entries)
}

/// Every controller known from anywhere but this one and those that are retired.
fn others(
    id: ControllerId,
    state: &State,
    known: impl Iterator<Item = ControllerId>,
    retired: &BTreeSet<ControllerId>,
) -> Vec<ControllerId> {
    let control = &state.control;
    let in_state = control.voters.iter().chain(&control.learners).copied();
    let all: BTreeSet<_> = known.chain(in_state).collect();
    let is_left =
        |other: &ControllerId| *other != id && !retired.contains(other) && !control.retired.contains(other);
    all.into_iter().filter(is_left).collect()
}
