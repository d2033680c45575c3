//! A controller whose clock is a day ahead never says what time it is in the log.
#![allow(clippy::unwrap_used)]

use std::time::{SystemTime, UNIX_EPOCH};

use stele_testkit::limits::RECOVERY_DEADLINE;
use stele_testkit::{Cluster, ClusterConfig, eventually, fetch_log, with_clock_off};

/// The controller with the wrong clock, and by how many seconds.
const WRONG: u64 = 1;
const DAY_S: i64 = 86_400;
/// How far log time may be ahead of ours, in microseconds: what a leader's clock may be off.
const AHEAD_US_MAX: u64 = stele_ledger::limits::CLOCK_OFF_US_MAX;

fn now_us() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

#[test]
fn a_leader_whose_clock_is_a_day_ahead_hands_over_before_it_decides() {
    let config = ClusterConfig::simulated("clock");
    let mut cluster = Cluster::found(&config).unwrap();
    let clock = with_clock_off(DAY_S).expect("this test needs libfaketime");
    for id in cluster.ids() {
        cluster.start_wrapped(id, if id == WRONG { &clock } else { &[] }).unwrap();
    }
    let decides = |cluster: &Cluster| {
        eventually(RECOVERY_DEADLINE, "another controller leads", || {
            cluster.leader_now().filter(|leader| *leader != WRONG)
        })
        .unwrap()
    };
    for round in 0..3 {
        let leader = decides(&cluster);
        let change = |when: &str| {
            let name = format!("{when}-{round}");
            cluster.run_cli(&["token", "create", &name, "--role", "auditor"]).unwrap();
        };
        change("before");
        // Whether it takes over for a moment or not: it decides nothing, and gives leadership back.
        let handed = cluster.output_of(&["cluster", "transfer-leader", &WRONG.to_string()]).unwrap();
        assert!(handed.status.success() || handed.status.code() == Some(5), "from {leader}: {handed:?}");
        change("after");
    }
    let leader = decides(&cluster);
    let last = cluster.health(leader).unwrap().seq;
    let log = fetch_log(&cluster.client(leader).unwrap(), last).unwrap();
    let latest = log.records.iter().map(|record| record.header.time.0).max().unwrap();
    assert!(latest <= now_us() + AHEAD_US_MAX, "the log is {} us ahead", latest - now_us());
    let led = log.records.iter().filter_map(|record| match record.event {
        stele_model::Event::TermStarted { controller, .. } => Some(controller),
        _ => None,
    });
    assert!(led.into_iter().all(|controller| controller != WRONG), "controller {WRONG} began to decide");
}
