//! Leaving out faults for as long as a run still fails.

use crate::fault::Scheduled;
use crate::limits::{SHRINK_RUNS_MAX, SHRINK_STEPS_MAX};
use crate::run::run;
use crate::setup::Setup;

/// The fewest faults found with which a run still breaks the same invariant, and how many runs
/// that took: first halves are left out, then smaller parts, then single ones. The work spent on it
/// is bounded by runs and by their steps, which a large fleet has many of.
pub fn shrink(setup: &Setup, faults: &[Scheduled], invariant: &str) -> (Vec<Scheduled>, usize) {
    let mut left = faults.to_vec();
    let (mut runs, mut steps) = (0, 0);
    let fails = |faults: &[Scheduled], runs: &mut usize, steps: &mut u64| {
        let finished = run(setup, faults);
        *runs += 1;
        *steps += finished.steps;
        finished.violation.is_some_and(|violation| violation.invariant == invariant)
    };
    let is_spent = |runs: usize, steps: u64| runs >= SHRINK_RUNS_MAX || steps >= SHRINK_STEPS_MAX;
    let mut part = left.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut shorter = false;
        while at < left.len() && !is_spent(runs, steps) {
            let mut fewer = left.clone();
            fewer.drain(at..(at + part).min(left.len()));
            if fails(&fewer, &mut runs, &mut steps) {
                left = fewer;
                shorter = true;
            } else {
                at += part;
            }
        }
        if is_spent(runs, steps) || (part == 1 && !shorter) {
            return (left, runs);
        }
        part = if part > 1 { part.div_ceil(2) } else { 1 };
    }
}
