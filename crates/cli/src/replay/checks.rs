//! What a replay compares on its way.

use std::collections::{BTreeMap, BTreeSet};

use stele_codec::{
    Chain, DecodeError, Folder, Snapshot, decode_answers, decode_progress, decode_target, encode_answers,
    encode_progress, encode_target,
};
use stele_controller::milestones::{Bytes, Milestones, Parts, at_or_before, bases_of};
use stele_model::{Answers, Delta, Digest, Mismatch, Outline, Seq, State};
use stele_store::Reader;

use super::divergence::Divergence;
use super::replicas::Replica;
use crate::exit::Failure;

/// What is known of the log at one seq without State.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    pub(crate) chain: Chain,
    pub(crate) root: Digest,
}

/// Everything to compare, and how much was equal.
#[derive(Default)]
pub(crate) struct Checks {
    store: Option<Reader>,
    snapshots: BTreeSet<Seq>,
    milestones: Option<Milestones>,
    through: Seq,
    bases: BTreeMap<Seq, Parts>,
    replicas: BTreeMap<Seq, Vec<Replica>>,
    pub(crate) snapshots_matched: u64,
    pub(crate) milestones_matched: u64,
    pub(crate) replicas_matched: Vec<Replica>,
}

impl Checks {
    /// Compares with the replicas' own words.
    pub(crate) fn of_replicas(replicas: Vec<Replica>) -> Self {
        let mut checks = Self::default();
        for replica in replicas {
            checks.replicas.entry(replica.seq).or_default().push(replica);
        }
        checks
    }

    /// Compares with whatever is derived in a store.
    pub(crate) fn of_store(reader: Reader) -> Result<Self, Failure> {
        let failed = |error: stele_store::StoreError| Failure::Failed(error.to_string());
        let milestones = Milestones::new(reader.clone());
        Ok(Self {
            snapshots: reader.snapshots().map_err(failed)?.into_iter().map(|info| info.seq).collect(),
            through: milestones.through().map_err(failed)?,
            milestones: Some(milestones),
            store: Some(reader),
            ..Self::default()
        })
    }

    /// Where something other than State is wanted.
    pub(crate) fn marks(&self) -> BTreeSet<Seq> {
        self.snapshots.iter().chain(self.replicas.keys()).copied().collect()
    }

    /// Compares what there is at State's seq.
    pub(crate) fn at(&mut self, folder: &mut Folder, mark: Option<Mark>) -> Result<(), Failure> {
        if let Some(mark) = mark {
            self.snapshot(folder.state(), mark)?;
            self.replicas(folder, mark)?;
        }
        let state = folder.state();
        if state.seq > 0 && state.seq <= self.through && at_or_before(state.seq) == state.seq {
            self.milestone(&Parts::of(state))?;
        }
        Ok(())
    }

    fn snapshot(&mut self, state: &State, mark: Mark) -> Result<(), Failure> {
        let seq = state.seq;
        let Some(store) = self.store.as_ref().filter(|_| self.snapshots.contains(&seq)) else {
            return Ok(());
        };
        let bytes = store.snapshot(seq).map_err(|error| Failure::Failed(error.to_string()))?;
        let damaged = |why: String| Divergence::new(seq, "snapshot", why, "a snapshot of State");
        let bytes = bytes.ok_or_else(|| damaged("it is gone".to_owned()))?;
        let stored = match Snapshot::decode(&bytes.data) {
            // It is derived data of another version, which no controller of this one uses either.
            Err(DecodeError::Format { .. }) => return Ok(()),
            stored => stored.map_err(|error| damaged(error.to_string()))?,
        };
        if stored.chain != mark.chain {
            return Err(Divergence::new(seq, "snapshot: chain", stored.chain.0, mark.chain.0).into());
        }
        if let Some(mismatch) = stored.state.first_mismatch(state) {
            return Err(differs(seq, "snapshot", mismatch).into());
        }
        self.snapshots_matched += 1;
        Ok(())
    }

    fn replicas(&mut self, folder: &mut Folder, mark: Mark) -> Result<(), Failure> {
        let seq = folder.state().seq;
        for replica in self.replicas.remove(&seq).unwrap_or_default() {
            let of = |what: &str| format!("{what} of controller {}", replica.controller);
            if let Some(told) = replica.root
                && told != mark.root
            {
                return Err(Divergence::new(seq, of("checkpoint: root"), told, mark.root).into());
            }
            let computed = folder.digest();
            if replica.state != computed {
                return Err(Divergence::new(seq, of("state digest"), replica.state, computed).into());
            }
            self.replicas_matched.push(replica);
        }
        Ok(())
    }

    fn milestone(&mut self, parts: &Parts) -> Result<(), Failure> {
        let Some(milestones) = &self.milestones else { return Ok(()) };
        let seq = parts.outline.seq();
        let genesis = Parts::default();
        let base = bases_of(seq).next().and_then(|base| self.bases.get(&base)).unwrap_or(&genesis);
        let stored = milestones.bytes(seq).map_err(|error| Failure::Failed(error.to_string()))?;
        let Some(stored) = stored else {
            return Err(Divergence::new(seq, "milestone", "it is gone", "a milestone").into());
        };
        let computed = parts.since(base);
        let target = encode_target(&computed.delta.target);
        if stored.target != target || stored.progress != encode_progress(&computed.delta.progress) {
            return Err(unlike(seq, &stored, &base.outline, &parts.outline).into());
        }
        if stored.answers != encode_answers(&computed.answers) {
            return Err(answers_unlike(seq, &stored.answers, &base.answers, &parts.answers).into());
        }
        self.milestones_matched += 1;
        self.bases.insert(seq, parts.clone());
        let needed: Vec<_> = bases_of(next_milestone(seq)).collect();
        self.bases.retain(|seq, _| needed.contains(seq));
        Ok(())
    }
}

fn next_milestone(seq: Seq) -> Seq {
    seq + stele_controller::limits::MILESTONE_INTERVAL_RECORDS
}

fn differs(seq: Seq, of: &str, mismatch: Mismatch) -> Divergence {
    let absent = || "nothing".to_owned();
    let (recorded, computed) = (mismatch.one.unwrap_or_else(absent), mismatch.other.unwrap_or_else(absent));
    Divergence::new(seq, format!("{of}: {}", mismatch.field), recorded, computed)
}

/// What is wrong with the bytes of a milestone's outline.
fn unlike(seq: Seq, stored: &Bytes, base: &Outline, computed: &Outline) -> Divergence {
    let mut told = base.clone();
    let target = decode_target(&stored.target);
    let delta = target.and_then(|target| {
        let progress = decode_progress(&stored.progress)?;
        Ok(Delta { target, progress })
    });
    let put = delta
        .map_err(|error| error.to_string())
        .and_then(|delta| delta.put_on(&mut told).map_err(|error| error.to_string()));
    wrong(seq, put, || told.first_mismatch(computed))
}

/// The same for its answers.
fn answers_unlike(seq: Seq, stored: &[u8], base: &Answers, computed: &Answers) -> Divergence {
    let mut told = base.clone();
    let put = decode_answers(stored)
        .map_err(|error| error.to_string())
        .and_then(|delta| delta.put_on(&mut told).map_err(|error| error.to_string()));
    wrong(seq, put, || told.first_mismatch(computed))
}

fn wrong(seq: Seq, put: Result<(), String>, mismatch: impl FnOnce() -> Option<Mismatch>) -> Divergence {
    if let Err(why) = put {
        return Divergence::new(seq, "milestone", why, "what differs from the milestone before");
    }
    match mismatch() {
        Some(mismatch) => differs(seq, "milestone", mismatch),
        None => Divergence::new(seq, "milestone", "other bytes", "the same State in its one encoding"),
    }
}
