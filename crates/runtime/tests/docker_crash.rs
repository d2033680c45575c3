//! A replacement on the real Docker, with every step failing or killing the agent in turn.

mod support;

use support::faults::{Fault, Order, replacement_survives};
use support::real::RealDocker;

/// More steps than a replacement has.
const STEPS_MAX: usize = 40;

async fn every_step(order: Order, fault: Fault) {
    let docker = RealDocker::new();
    for at in 0..STEPS_MAX {
        if !replacement_survives(&docker, &format!("n{at}"), order, fault, at).await {
            assert!(at >= 6, "only {at} steps were made");
            return;
        }
    }
    panic!("a replacement takes more than {STEPS_MAX} steps");
}

#[tokio::test]
async fn every_step_may_fail() {
    every_step(Order::StopFirst, Fault::Fails).await;
}

#[tokio::test]
async fn the_agent_may_die_before_every_step() {
    every_step(Order::StopFirst, Fault::DiesBefore).await;
}

#[tokio::test]
async fn the_agent_may_die_after_every_step() {
    every_step(Order::StopFirst, Fault::DiesAfter).await;
}

#[tokio::test]
async fn the_agent_may_die_after_every_step_while_both_run() {
    every_step(Order::StartFirst, Fault::DiesAfter).await;
}
