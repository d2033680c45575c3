//! Who sees everything: what any replica applied, what anybody was told. Every replica must agree
//! with it in everything, and what it saw once must never change.

use std::collections::{BTreeMap, BTreeSet};

use stele_codec::{Chain, StoredRecord};
use stele_consensus::CommittedKind;
use stele_linear::Written;
use stele_model::{AppEnv, ControllerId, Digest, Event, NodeName, PrincipalId, Record, Seq, State, fold};
use stele_proof::merkle::{Tree, leaf_hash};

use crate::limits::{EPOCH_US, LOG_AHEAD_US_MAX};
use crate::rules;

/// What must hold and did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant, as a stable word.
    pub invariant: &'static str,
    /// What was found instead.
    pub detail: String,
}

/// An entry of Raft as it was first applied.
type AppliedEntry = (u64, CommittedKind);

/// See the module.
#[derive(Default)]
pub(crate) struct Oracle {
    entries: BTreeMap<u64, AppliedEntry>,
    /// The last record of each entry that has any.
    ends: BTreeMap<u64, Seq>,
    /// Records as they were first committed, from seq 1.
    pub(crate) records: Vec<Vec<u8>>,
    /// The same, decoded.
    pub(crate) decoded: Vec<Record>,
    /// When each was first committed.
    committed_us: Vec<u64>,
    /// The chain after each.
    chains: Vec<Chain>,
    /// Folded here, by nobody's hand but the oracle's.
    pub(crate) state: State,
    /// State after each decision.
    pub(crate) states: BTreeMap<Seq, State>,
    /// The tree over all records.
    pub(crate) tree: Tree,
    /// Its root at each size that was looked at.
    pub(crate) roots: BTreeMap<u64, Digest>,
    digests: BTreeMap<Seq, Digest>,
    /// What each node was told, by the epoch and the seq that told it. What a lost history told them stays.
    pub(crate) assignments: BTreeMap<(NodeName, u64, Seq), Digest>,
    /// When each config of an app came into force, and the value of its one variable.
    pub(crate) values: BTreeMap<AppEnv, Written>,
    /// Where each principal's key was decided.
    pub(crate) keys: BTreeMap<(PrincipalId, String), Seq>,
    /// What time it is.
    pub(crate) now_us: u64,
    /// How far ahead of time the log may be, by as many clocks as cannot be told from good ones; none
    /// where nobody compares clocks.
    pub(crate) ahead_us: Option<i64>,
    /// Who led each term.
    leaders: BTreeMap<u64, ControllerId>,
    /// For whom each replica voted in each term.
    votes: BTreeMap<(ControllerId, u64), ControllerId>,
    /// Whether what is committed is told to nobody: an epoch ends, and its last records come with the next one.
    pub(crate) untold: bool,
    /// Controllers whose history was lost with them, in part.
    pub(crate) lost: BTreeSet<ControllerId>,
    /// The first violation.
    pub(crate) violation: Option<Violation>,
}

impl Oracle {
    /// Notes a violation, unless there is one already.
    pub(crate) fn fail(&mut self, invariant: &'static str, detail: impl Into<String>) {
        if self.violation.is_none() {
            self.violation = Some(Violation { invariant, detail: detail.into() });
        }
    }

    /// Notes it unless something holds.
    pub(crate) fn require(&mut self, holds: bool, invariant: &'static str, detail: impl FnOnce() -> String) {
        if !holds {
            self.fail(invariant, detail());
        }
    }

    /// The last record any replica committed.
    pub(crate) fn head(&self) -> Seq {
        self.records.len() as Seq
    }

    /// When a record was first committed.
    pub(crate) fn committed_us(&self, seq: Seq) -> u64 {
        self.committed_us[seq as usize - 1]
    }

    /// The chain after a record.
    pub(crate) fn chain_at(&self, seq: Seq) -> Chain {
        seq.checked_sub(1).and_then(|at| self.chains.get(at as usize)).copied().unwrap_or(Chain::GENESIS)
    }

    /// A replica leads a term.
    pub(crate) fn leads(&mut self, replica: ControllerId, term: u64) {
        let known = *self.leaders.entry(term).or_insert(replica);
        self.require(known == replica, "one-leader-in-a-term", || {
            format!("{known} and {replica} both led term {term}")
        });
    }

    /// A replica gave its vote.
    pub(crate) fn voted(&mut self, replica: ControllerId, term: u64, candidate: ControllerId) {
        let known = *self.votes.entry((replica, term)).or_insert(candidate);
        self.require(known == candidate, "one-vote-in-a-term", || {
            format!("{replica} voted for {known} and for {candidate} in term {term}")
        });
    }

    /// A replica applied an entry of Raft's.
    pub(crate) fn applied(&mut self, replica: ControllerId, index: u64, term: u64, kind: &CommittedKind) {
        match self.entries.get(&index) {
            None => {
                self.entries.insert(index, (term, kind.clone()));
            }
            Some(known) if known.0 == term && known.1 == *kind => {}
            Some(known) => {
                let detail = format!(
                    "replica {replica} applied entry {index} of term {term}, another replica one of term {}",
                    known.0
                );
                self.fail("replicas-agree-on-entries", detail);
            }
        }
    }

    /// Whether an entry is known to be committed.
    pub(crate) fn is_committed(&self, index: u64, term: u64) -> bool {
        self.entries.get(&index).is_some_and(|known| known.0 == term)
    }

    /// Nobody is left who has what was committed after an entry, and what follows is of another history: whose terms
    /// after one are counted anew, too. Answers the last record that is left.
    pub(crate) fn forget_after(&mut self, index: u64, term: u64) -> Seq {
        self.entries.split_off(&(index + 1));
        self.ends.split_off(&(index + 1));
        self.leaders.split_off(&(term + 1));
        let last = self.ends.last_key_value().map_or(0, |(_, seq)| *seq);
        self.records.truncate(last as usize);
        self.decoded.truncate(last as usize);
        self.committed_us.truncate(last as usize);
        self.chains.truncate(last as usize);
        self.states.split_off(&(last + 1));
        self.roots.split_off(&(last + 1));
        self.digests.split_off(&(last + 1));
        self.state = self.states.get(&last).cloned().unwrap_or_default();
        self.keys.retain(|_, seq| *seq <= last);
        for written in self.values.values_mut() {
            written.retain(|(seq, _)| *seq <= last);
        }
        let stored = self.records.iter().filter_map(|bytes| StoredRecord::from_bytes(bytes).ok());
        self.tree = stored.map(|(stored, _)| leaf_hash(&stored.leaf)).collect();
        last
    }

    /// A replica committed the records of an entry.
    pub(crate) fn committed(&mut self, replica: ControllerId, index: u64, records: &[(Seq, Vec<u8>)]) {
        if let Some((last, _)) = records.last() {
            self.ends.insert(index, *last);
        }
        for (seq, bytes) in records {
            match self.records.get(*seq as usize - 1) {
                Some(known) if known == bytes => {}
                Some(_) => {
                    self.fail(
                        "records-never-change",
                        format!("replica {replica} committed another record {seq}"),
                    );
                }
                None if *seq == self.head() + 1 => self.take(*seq, bytes),
                None => {
                    let head = self.head();
                    self.fail(
                        "records-follow-one-another",
                        format!("replica {replica} committed record {seq} after {head}"),
                    );
                }
            }
        }
    }

    fn take(&mut self, seq: Seq, bytes: &[u8]) {
        let (stored, chain) = match StoredRecord::from_bytes(bytes) {
            Ok(read) => read,
            Err(error) => return self.fail("records-can-be-read", format!("record {seq}: {error}")),
        };
        let record = match stored.decode() {
            Ok(record) => record,
            Err(error) => return self.fail("records-can-be-read", format!("record {seq}: {error}")),
        };
        let expected = self.chain_at(seq - 1).link(&stored.leaf);
        self.require(chain == expected, "chain-links", || {
            format!("record {seq} does not continue the chain")
        });
        let later = record.header.time > self.state.time;
        self.require(later && record.header.seq == seq, "log-time-increases", || {
            format!("record {seq} has seq {} and time {:?}", record.header.seq, record.header.time)
        });
        let latest = self
            .ahead_us
            .map(|ahead| (EPOCH_US + self.now_us + LOG_AHEAD_US_MAX).saturating_add_signed(ahead.max(0)));
        let now = EPOCH_US + self.now_us;
        let is_believable = latest.is_none_or(|latest| record.header.time.0 <= latest);
        self.require(is_believable, "log-time-is-believable", || {
            format!("record {seq} is of {:?}, and it is {now} us", record.header.time)
        });
        if self.violation.is_some() {
            return;
        }
        if let Event::StateDigestRecorded { digest } = &record.event {
            let here = self.state.digest();
            self.require(here == *digest, "state-digest", || {
                format!("record {seq} says {digest}, not {here}")
            });
        }
        let before = self.state.clone();
        fold(&mut self.state, &record);
        self.tree.append(leaf_hash(&stored.leaf));
        self.records.push(bytes.to_vec());
        self.chains.push(chain);
        if record.header.decision.last() == seq {
            self.states.insert(seq, self.state.clone());
        }
        if seq.is_multiple_of(DIGEST_STRIDE_ROOTS) {
            self.roots.insert(seq, self.tree.root());
        }
        self.decoded.push(record);
        self.committed_us.push(self.now_us);
        rules::check(self, &before, seq);
    }

    /// A replica's State after it applied something.
    pub(crate) fn state_of(&mut self, replica: ControllerId, state: &State, chain: Chain) {
        let seq = state.seq;
        let expected = self.chain_at(seq);
        self.require(seq <= self.head() && chain == expected, "replicas-agree-on-chain", || {
            format!("replica {replica} is at record {seq} with {chain:?} instead of {expected:?}")
        });
    }

    /// The State digest of a replica at a seq, which must be everybody's.
    pub(crate) fn digest_of(&mut self, replica: ControllerId, state: &State) {
        let seq = state.seq;
        let found = state.clone().digest();
        let known = if let Some(known) = self.digests.get(&seq) {
            *known
        } else {
            let Some(own) = self.states.get_mut(&seq) else { return };
            let own = own.digest();
            self.digests.insert(seq, own);
            own
        };
        self.require(found == known, "replicas-agree-on-state", || {
            format!("replica {replica} folds records up to {seq} to {found}, others to {known}")
        });
    }
}

/// Records between two sizes at which the tree's root is remembered.
const DIGEST_STRIDE_ROOTS: u64 = 32;
