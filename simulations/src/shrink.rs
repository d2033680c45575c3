//! Leaving out faults for as long as a run still fails.

use crate::fault::Scheduled;
use crate::limits::SHRINK_RUNS_MAX;
use crate::run::run;
use crate::setup::Setup;

/// The fewest faults found with which a run still breaks the same invariant, and how many runs
/// that took: first halves are left out, then smaller parts, then single ones.
pub fn shrink(setup: &Setup, faults: &[Scheduled], invariant: &str) -> (Vec<Scheduled>, usize) {
    let mut left = faults.to_vec();
    let mut runs = 0;
    let fails = |faults: &[Scheduled], runs: &mut usize| {
        *runs += 1;
        run(setup, faults).violation.is_some_and(|violation| violation.invariant == invariant)
    };
    let mut part = left.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut shorter = false;
        while at < left.len() && runs < SHRINK_RUNS_MAX {
            let mut fewer = left.clone();
            fewer.drain(at..(at + part).min(left.len()));
            if fails(&fewer, &mut runs) {
                left = fewer;
                shorter = true;
            } else {
                at += part;
            }
        }
        if runs >= SHRINK_RUNS_MAX || (part == 1 && !shorter) {
            return (left, runs);
        }
        part = if part > 1 { part.div_ceil(2) } else { 1 };
    }
}
