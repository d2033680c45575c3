//! One run: founding, faults, healing, and the last look at everything.

use std::panic::{AssertUnwindSafe, catch_unwind};

use stele_codec::{StoredRecord, Verifier};
use stele_model::Scope;
use stele_model::wire::Phase;
use stele_proof::merkle::{Tree, consistency_proof, leaf_hash, verify_consistency};

use crate::fault::{Scheduled, draw};
use crate::limits::CONVERGENCE_LOOK_US;
use crate::oracle::Violation;
use crate::setup::Setup;
use crate::world::World;

/// A run that is over.
#[derive(Clone, Debug)]
pub struct Finished {
    /// What was broken, if anything.
    pub violation: Option<Violation>,
    /// The trace's hash.
    pub hash: String,
    /// Steps of the world.
    pub steps: u64,
    /// Virtual time that passed, in microseconds.
    pub virtual_us: u64,
    /// Records in the log.
    pub records: u64,
    /// Writes acknowledged, refused, of unknown outcome, and reads answered.
    pub counts: [u64; 4],
    /// The last lines of what happened.
    pub lines: Vec<String>,
    /// The log, as records are stored.
    pub log: Vec<Vec<u8>>,
}

/// Runs what a seed makes of it, with the faults it draws.
pub fn run_seed(seed: u64) -> Finished {
    let setup = Setup::of(seed);
    run(&setup, &draw(seed, setup.minutes))
}

/// Runs a world with faults.
pub fn run(setup: &Setup, faults: &[Scheduled]) -> Finished {
    let mut world = World::new(setup, faults);
    // Raft panics where an invariant is broken, and so does the ledger: that is a violation, too.
    let outcome = catch_unwind(AssertUnwindSafe(|| live(&mut world)));
    let panicked = outcome.err().map(|payload| {
        let words = payload.downcast_ref::<String>().cloned();
        let detail = words
            .or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default();
        Violation { invariant: "nothing-panics", detail }
    });
    let counts = world.counts();
    let lines = world.trace.lines().map(str::to_owned).collect();
    let (hash, steps, virtual_us) = (world.trace.hash(), world.trace.steps(), world.now_us);
    // After a panic the oracle may still be held by whoever panicked: then there is only its log to lose.
    let (violation, log) = catch_unwind(AssertUnwindSafe(|| {
        let mut oracle = world.oracle();
        (oracle.violation.take(), std::mem::take(&mut oracle.records))
    }))
    .unwrap_or_default();
    Finished {
        violation: violation.or(panicked),
        hash,
        steps,
        virtual_us,
        records: log.len() as u64,
        counts,
        lines,
        log,
    }
}

fn live(world: &mut World) {
    let founding_us = world.setup.founding_us();
    world.run_until(founding_us);
    if world.is_sound() && !world.histories.founded {
        world.oracle().fail("a-calm-fleet-is-founded", "its first commands were not decided in time");
    }
    world.run_until(founding_us + world.setup.minutes * 60_000_000);
    if !world.is_sound() {
        return;
    }
    world.heal();
    let end = world.now_us + world.setup.convergence_us();
    loop {
        let next = world.now_us + CONVERGENCE_LOOK_US;
        world.run_until(next);
        if !world.is_sound() {
            return;
        }
        world.retire_removed();
        world.replace_broken();
        world.hand_over();
        match unsettled(world) {
            None => break,
            Some(why) if world.now_us >= end => {
                return world.oracle().fail("everything-converges", why);
            }
            Some(_) => {}
        }
    }
    last_look(world);
}

/// What has not converged yet, if anything.
fn unsettled(world: &World) -> Option<String> {
    if !world.clients_are_idle() {
        return Some("a client still waits for an answer".to_owned());
    }
    let Some(leader) = world.leader() else { return Some("there is no leader".to_owned()) };
    let Some(process) = world.controllers.get(&leader).and_then(|it| it.process.as_ref()) else {
        return Some("the leader does not run".to_owned());
    };
    let status = process.status();
    if !status.committed_in_term || status.applied != status.last_index || !process.app.ledger.is_deciding() {
        return Some(format!("leader {leader} does not decide, or has something in flight"));
    }
    let members = &status.conf_state;
    for id in members.voters.iter().chain(&members.learners) {
        let Some(member) = world.controllers.get(id).and_then(|it| it.process.as_ref()) else {
            return Some(format!("controller {id} does not run"));
        };
        if member.status().applied != status.applied {
            return Some(format!("controller {id} is behind"));
        }
        if member.status().conf_state != *members {
            return Some(format!("controller {id} knows other members"));
        }
        // Nobody can give what was lost with a quorum, nor prove what is before or behind it.
        if let Some(gap) =
            member.store().gaps().iter().find(|(from, to)| world.first_lost(*from, *to).is_none())
        {
            return Some(format!("controller {id} lacks history: {gap:?}"));
        }
    }
    if !members.learners.is_empty() {
        return Some(format!("{:?} never came to vote", members.learners));
    }
    let state = process.state();
    if !state.control.voters.iter().eq(members.voters.iter()) {
        return Some(format!("the log says that {:?} vote, {:?} do", state.control.voters, members.voters));
    }
    if let Some(app_env) = stele_planner::on_their_way(state).next() {
        return Some(format!("the deployment of {app_env} never ends"));
    }
    for agent in &world.agents {
        let seen = state.observed.get(&agent.name);
        if seen.is_some_and(|seen| seen.lost) {
            return Some(format!("{} can be reached and counts as lost", agent.name));
        }
        let told = state.assignment_version(&agent.name);
        if agent.version() != told {
            return Some(format!("{} has {:?} and was told {told:?}", agent.name, agent.version()));
        }
        if !agent.is_settled() {
            return Some(format!("{} has something to tell or to do", agent.name));
        }
        let known: Vec<_> = seen.map(|seen| seen.instances.values().cloned().collect()).unwrap_or_default();
        let own = agent.last_reports().unwrap_or_default();
        if known.len() != own.len() || known.iter().any(|one| !own.contains(one)) {
            return Some(format!("{} is not as the log says it is: {known:?}, {own:?}", agent.name));
        }
        let waits = |phase| matches!(phase, Phase::Pending | Phase::Pulling | Phase::Starting);
        if let Some(waiting) = own.iter().find(|one| waits(one.phase)) {
            return Some(format!(
                "{} never gets beyond {:?}: {:?}",
                waiting.id,
                waiting.phase,
                waiting.reason()
            ));
        }
    }
    world.feed_lacks()
}

/// What is looked at once, when all is quiet: every replica's whole log, its proofs, and what runs.
fn last_look(world: &World) {
    let mut oracle = world.oracle();
    let records = oracle.records.clone();
    let mut verifier = Verifier::new();
    for bytes in &records {
        let read = StoredRecord::from_bytes(bytes).map_err(|error| error.to_string());
        let verified = read.and_then(|(stored, chain)| {
            verifier.push(&stored, Some(chain)).map_err(|error| error.to_string())
        });
        if let Err(why) = verified {
            return oracle.fail("a-stranger-verifies-the-log", why);
        }
    }
    let (mut state, _) = verifier.into_parts();
    let mut own = oracle.state.clone();
    oracle.require(state.digest() == own.digest(), "a-replay-gives-the-same-state", || {
        "folding the log again gives another State".to_owned()
    });
    let acknowledged = world.histories.acknowledged.iter();
    for ((principal, key), decision) in acknowledged {
        let record = oracle.decoded.get(decision.first as usize - 1);
        let kept =
            record.is_some_and(|it| it.header.decision == *decision && it.header.principal == *principal);
        oracle.require(kept, "acknowledged-is-never-lost", || {
            format!("{key} was decided at {}", decision.first)
        });
    }
    let roots = oracle.roots.clone();
    for id in world.living() {
        let Some(controller) = world.controllers.get(&id) else { continue };
        let Some(process) = &controller.process else { continue };
        if !process.status().conf_state.voters.contains(&id) {
            continue;
        }
        let held = process.store().records();
        let gaps = process.store().gaps();
        let lacks = |seq: u64| gaps.iter().any(|(from, to)| *from <= seq && seq <= *to);
        let lacking: u64 = gaps.iter().map(|(from, to)| to - from + 1).sum();
        // What a bad disk does not give is not given out, and that is all that is asked of it.
        let given = |(at, record): (usize, &Vec<u8>)| {
            let seq = at as u64 + 1;
            let bytes = process.store().record(seq);
            lacks(seq) || bytes.map_or(true, |bytes| bytes.is_some_and(|bytes| bytes == record.as_slice()))
        };
        let same =
            held.len() as u64 + lacking == records.len() as u64 && records.iter().enumerate().all(given);
        oracle.require(same, "every-replica-holds-every-record", || {
            format!("controller {id} holds {} records, the log has {}", held.len(), records.len())
        });
        oracle.digest_of(id, process.state());
        let leaves = held.values().filter_map(|bytes| StoredRecord::from_bytes(bytes).ok());
        let tree: Tree = leaves.map(|(stored, _)| leaf_hash(&stored.leaf)).collect();
        for (size, root) in roots.iter().filter(|_| gaps.is_empty()) {
            let proof = consistency_proof(&tree, *size, tree.size());
            let holds = proof.is_ok_and(|proof| {
                verify_consistency(*size, tree.size(), &proof, *root, tree.root()).is_ok()
            });
            oracle.require(holds, "roots-are-consistent", || {
                format!("controller {id}'s tree of {} does not extend the one of {size}", tree.size())
            });
        }
        let now = process.state().target_digest(&Scope::fleet());
        oracle.require(now == own.target_digest(&Scope::fleet()), "replicas-agree-on-target", || {
            format!("controller {id} has another target")
        });
    }
    for agent in &world.agents {
        let assigned =
            own.assigned.get(&agent.name).map(|assigned| assigned.instances.clone()).unwrap_or_default();
        for (instance, spec) in agent.engine.running() {
            let wanted = assigned.get(instance).is_some_and(|to| to.spec == spec);
            oracle.require(wanted, "nothing-runs-unasked", || {
                format!("{} runs {instance} unasked", agent.name)
            });
        }
    }
}
