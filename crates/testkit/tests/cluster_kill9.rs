//! Controllers killed at random, again and again, under a steady load of writes.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use stele_testkit::limits::RECOVERY_DEADLINE;
use stele_testkit::load::{Load, broken_promises};
use stele_testkit::{Cluster, ClusterConfig, eventually, fetch_log};

/// Kills in one run.
const ROUNDS: usize = 50;
/// Decides which controllers are killed; a failure is repeated by repeating its seed.
const SEED: u64 = 20_261;
/// Names another seed.
const SEED_VARIABLE: &str = "STELE_TEST_SEED";
/// Writes acknowledged between one kill and the next.
const WRITES_PER_ROUND: u64 = 12;
/// The time in which leadership should be back. Reported rather than asserted: a busy machine
/// may be slower, and no test may depend on that.
const LEADERSHIP_GOAL: Duration = Duration::from_secs(3);
/// After each write of each writer.
const PAUSE: Duration = Duration::from_millis(20);

/// The numbers a seed stands for (SplitMix64).
struct Dice(u64);

impl Dice {
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        from[((mixed ^ (mixed >> 31)) % from.len() as u64) as usize]
    }
}

#[test]
fn nothing_acknowledged_is_lost_whoever_is_killed() {
    let mut cluster = Cluster::start(ClusterConfig::simulated("kill9")).unwrap();
    let clients: Vec<_> = cluster.ids().into_iter().map(|id| cluster.client(id).unwrap()).collect();
    let load = Load::start(&clients, &["eu-1", "us-1", "ap-1"], PAUSE);
    let seed = std::env::var(SEED_VARIABLE).map_or(SEED, |seed| seed.parse().unwrap());
    let mut dice = Dice(seed);
    let mut leaderless = Vec::new();
    let began = Instant::now();
    for round in 0..ROUNDS {
        let victim = dice.pick(&cluster.ids());
        let led = cluster.leader().unwrap() == victim;
        let killed = Instant::now();
        cluster.kill(victim).unwrap();
        if led {
            cluster.leader_besides(victim).unwrap();
            leaderless.push(killed.elapsed());
        }
        let goal = load.acknowledged() + WRITES_PER_ROUND;
        eventually(RECOVERY_DEADLINE, &format!("writes are acknowledged after kill {round}"), || {
            (load.acknowledged() >= goal).then_some(())
        })
        .unwrap();
        cluster.restart(victim).unwrap();
        // The next kill may hit any of them, so a quorum must be up to date without this one.
        let leader = cluster.leader().unwrap();
        let seq = cluster.health(leader).map_or(0, |health| health.seq);
        eventually(RECOVERY_DEADLINE, &format!("controller {victim} catches up in round {round}"), || {
            cluster.health(victim).filter(|health| health.seq >= seq)
        })
        .unwrap();
    }
    let promises = load.stop();
    let acknowledged: usize = promises.iter().map(|(_, acks)| acks.len()).sum();
    leaderless.sort();
    let in_time = leaderless.iter().filter(|time| **time <= LEADERSHIP_GOAL).count();
    let median = leaderless.get(leaderless.len() / 2).copied().unwrap_or_default();
    println!(
        "seed {seed}: {ROUNDS} kills in {:.0?}, {acknowledged} writes acknowledged; the leader was hit {} times: another led \
         after {median:.2?} (median), {:.2?} (longest), {in_time} times within {LEADERSHIP_GOAL:?}\n{leaderless:.2?}",
        began.elapsed(),
        leaderless.len(),
        leaderless.last().copied().unwrap_or_default(),
    );
    assert!(leaderless.len() > ROUNDS / 10, "the leader must be among the victims: choose another seed");

    let leader = cluster.leader().unwrap();
    let last = cluster.health(leader).unwrap().seq;
    let mut logs = Vec::new();
    for id in cluster.ids() {
        eventually(RECOVERY_DEADLINE, &format!("controller {id} has all"), || {
            cluster.health(id).filter(|health| health.seq >= last)
        })
        .unwrap();
        let log = fetch_log(&cluster.client(id).unwrap(), last).unwrap();
        assert_eq!(broken_promises(&promises, &log.records), Vec::<String>::new(), "controller {id}");
        assert_eq!(log.folded, log.told, "controller {id} is in the state its log folds into");
        logs.push((log.chain, log.told));
    }
    assert!(logs.windows(2).all(|pair| pair[0] == pair[1]), "every replica has the same history: {logs:?}");
}
