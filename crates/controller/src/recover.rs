//! Going on with one controller of a fleet that lost its quorum for good.
//!
//! All of it is worked out from the folder of the controller that is left, which does not run meanwhile, and becomes
//! so by one write: either nothing happened or everything did. What the controller has is kept, known to be committed
//! or not, because a record that was acknowledged may be among it. The word on it is decided as a leader would decide
//! it, and is the log's next entry: the fleet's next epoch, with the ids that are given up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use serde::Serialize;
use stele_consensus::LogStore as _;
use stele_consensus::recovery::{
    Held, Takeover, Unapplied, is_alone, members_of, next_entry, take_over, unapplied,
};
use stele_ledger::{Ledger, Moment, Outcome, Submitted, system_request};
use stele_model::{Command, ControllerId, FleetName, Request, Seq, State, Time};
use stele_store::{Identity, OpenError, Settings, Store};

use crate::config::{Config, read_key};
use crate::keyring::Keyring;
use crate::start::recover as rebuild;

/// Records as the store keeps them, by seq.
type Records = Vec<(Seq, Vec<u8>)>;

/// What was found in the folder of the controller that is left.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// The fleet.
    pub fleet: FleetName,
    /// The controller.
    pub controller: ControllerId,
    /// Whether it voted; a learner only followed, and may be far behind.
    pub voted: bool,
    /// Who voted, as far as it knows.
    pub voters: Vec<ControllerId>,
    /// Who only followed.
    pub learners: Vec<ControllerId>,
    /// The last record it has.
    pub last_seq: Seq,
    /// When that was decided.
    pub last_time: Time,
    /// Raft's term of the last entry it has: of several controllers that are left, the one with the highest, and with
    /// the highest index among those, has the most.
    pub last_term: u64,
    /// Raft's index of it.
    pub last_index: u64,
    /// How many of its records are not known to be committed. They are kept.
    pub uncertain_records: u64,
    /// Of whom its log holds a change of members that had not come into force. It is passed over.
    pub passed_over: Vec<ControllerId>,
    /// Records that it lacks from before, as inclusive ranges.
    pub missing_records: Vec<(Seq, Seq)>,
    /// How many data keys the values in State are sealed under.
    pub keys: usize,
    /// Those of them that are not here, as the subject and the version.
    pub missing_keys: Vec<(String, u32)>,
    /// Every other controller that it knows of. They are given up, whether or not their disks are.
    pub given_up: Vec<ControllerId>,
    /// The fleet's epoch from the recovery on.
    pub epoch: u64,
    /// The last record of the recovery.
    pub recovered_seq: Seq,
}

/// A controller that is left, with its store open and the recovery decided, but not written.
pub struct Survivor {
    store: Store,
    found: Found,
    takeover: Takeover,
}

impl Survivor {
    /// Looks at the folder of a controller that does not run, and decides what its recovery would write. Nothing is
    /// changed but what every start of the controller does. One that votes alone goes on by itself, unless what it has
    /// is an older copy of its log, which is `restored`: nodes would refuse what it tells them.
    pub fn examine(config: &Config, reason: Option<&str>, restored: bool) -> anyhow::Result<Self> {
        let store = open(config)?;
        let id = config.id;
        let index = store.index();
        ensure!(
            !index.retired().contains(&id),
            "controller {id} was removed from the fleet: it is none that could go on"
        );
        let members = members_of(index.conf_state());
        ensure!(
            members.contains(&id),
            "controller {id} has nothing of a fleet yet: there is nothing to recover"
        );
        let tail = unapplied(&store)?;
        ensure!(
            restored || !is_alone(index, id, &tail),
            "controller {id} votes alone: it waits for nobody, and nothing is to be recovered (stele controller run). \
             If its log is an older copy, from a backup: --restored"
        );
        let (state, chain, _) = rebuild(&store)?;
        let mut ledger: Ledger<()> = Ledger::new(config.fleet.as_str(), state, chain);
        let (mut records, uncertain_records) = fold(&mut ledger, &tail)?;
        let state = ledger.state().clone();
        ensure!(
            state.control.fleet.is_some(),
            "the fleet has no first record yet: found it again (stele controller found)"
        );
        let changed = changed_by(&tail);
        let given_up = others(config, &state, members.iter().chain(&changed).copied(), index.retired());
        let (next, term) = next_entry(index);
        let data = decide(&mut ledger, (next, term), (id, &given_up), reason, &mut records)?;
        let (keys, missing_keys) = look_for_keys(config, &state)?;
        let found = Found {
            fleet: config.fleet.clone(),
            controller: id,
            voted: index.conf_state().voters.contains(&id),
            voters: index.conf_state().voters.clone(),
            learners: index.conf_state().learners.clone(),
            last_seq: state.seq,
            last_time: state.time,
            last_term: index.last_term(),
            last_index: index.last_index(),
            uncertain_records,
            passed_over: changed.into_iter().collect(),
            missing_records: index.gaps().to_vec(),
            keys,
            missing_keys,
            given_up: given_up.clone(),
            epoch: ledger.state().control.fleet.as_ref().map_or(0, |fleet| fleet.epoch),
            recovered_seq: ledger.state().seq,
        };
        Ok(Self { store, found, takeover: Takeover { id, given_up, data, records } })
    }

    /// What was found, and what would be done.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// Makes the controller the only one that votes. On return it is on the disk.
    pub fn recover(mut self) -> anyhow::Result<Found> {
        take_over(&mut self.store, self.takeover)?;
        Ok(self.found)
    }
}

fn open(config: &Config) -> anyhow::Result<Store> {
    let id = config.id;
    let fresh = &config.fresh;
    let is_fresh = fresh
        .try_exists()
        .with_context(|| format!("cannot find out whether {} is there", fresh.display()))?;
    ensure!(!is_fresh, "controller {id} has never run: there is nothing in its folder to go on with");
    let identity = Identity { fleet: config.fleet.to_string(), node: id };
    let opened = Store::open(&config.data.join("log"), &identity, &Settings::default());
    opened.map_err(|error| match error {
        OpenError::Missing { path } => {
            anyhow::anyhow!("there is no log in {}: nothing of controller {id} is left there", path.display())
        }
        error @ OpenError::Locked { .. } => {
            anyhow::Error::new(error).context(format!("controller {id} runs: stop it first"))
        }
        error => error.into(),
    })
}

/// Folds what was not applied. Answers its records, and how many of them are not known to be committed.
fn fold(ledger: &mut Ledger<()>, tail: &[Unapplied]) -> anyhow::Result<(Records, u64)> {
    let (mut records, mut uncertain) = (Vec::new(), 0);
    for entry in tail {
        let Held::Data(bytes) = &entry.held else { continue };
        let committed = ledger.commit(entry.index, entry.term, bytes)?;
        if !entry.is_committed {
            uncertain += committed.records.len() as u64;
        }
        records.extend(committed.records);
    }
    Ok((records, uncertain))
}

/// Of whom the tail holds a change of members.
fn changed_by(tail: &[Unapplied]) -> BTreeSet<ControllerId> {
    let changes = tail.iter().filter_map(|entry| match &entry.held {
        Held::Members(ids) => Some(ids),
        _ => None,
    });
    changes.flatten().copied().collect()
}

/// Every controller known from anywhere but this one and those that are retired.
fn others(
    config: &Config,
    state: &State,
    known_to_raft: impl Iterator<Item = ControllerId>,
    retired: &BTreeSet<ControllerId>,
) -> Vec<ControllerId> {
    let control = &state.control;
    let in_state = control.voters.iter().chain(&control.learners).chain(control.controllers.keys());
    let configured = config.founders.iter().chain(config.peers.keys());
    let all: BTreeSet<_> = known_to_raft.chain(in_state.chain(configured).copied()).collect();
    let is_left =
        |id: &ControllerId| *id != config.id && !retired.contains(id) && !control.retired.contains(id);
    all.into_iter().filter(is_left).collect()
}

/// Decides the recovery as a leader of that term would, as the entry of that index. Answers the entry's bytes.
fn decide(
    ledger: &mut Ledger<()>,
    (index, term): (u64, u64),
    (controller, given_up): (ControllerId, &[ControllerId]),
    reason: Option<&str>,
    records: &mut Records,
) -> anyhow::Result<Vec<u8>> {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Moment { wall_us: wall.as_micros() as u64, monotonic_us: 0 };
    ledger.elected(term, controller);
    ledger.caught_up(now);
    let command = Command::RecoverFleet { controller, given_up: given_up.to_vec() };
    let request = Request { reason: reason.map(Into::into), ..system_request(command) };
    match ledger.submit((), &request, BTreeMap::new(), now) {
        Submitted::Waiting => {}
        Submitted::Confirm((), Outcome::Rejected(why)) | Submitted::Answer((), Outcome::Rejected(why)) => {
            return Err(why.into());
        }
        other => anyhow::bail!("the recovery was not decided: {other:?}"),
    }
    let (bytes, _) = ledger.close_batch().context("the recovery has no records")?;
    ledger.proposed(index);
    records.extend(ledger.commit(index, term, &bytes)?.records);
    Ok(bytes)
}

/// How many keys State's values are sealed under, and those that cannot be opened here.
fn look_for_keys(config: &Config, state: &State) -> anyhow::Result<(usize, Vec<(String, u32)>)> {
    let needed = state.sealing_keys();
    let keyring = Keyring::open(config.data.join("keys"), read_key(&config.master_key)?)?;
    let is_here = |subject: &str, version| matches!(keyring.key(subject, version), Ok(Some(_)));
    let missing = needed.iter().filter(|(subject, version)| !is_here(subject, *version));
    Ok((needed.len(), missing.cloned().collect()))
}

#[cfg(test)]
#[path = "recover_tests.rs"]
mod tests;
