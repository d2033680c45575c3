//! Runs with a bug planted, until it is noticed.

use stele_planted::{Bug, Place, plant};

use crate::fault::draw;
use crate::run::{Finished, run};
use crate::setup::Setup;

/// How a planted bug fared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caught {
    /// Seeds it took.
    pub seeds: u64,
    /// The seed that showed it.
    pub seed: u64,
    /// The invariant that broke.
    pub invariant: &'static str,
}

/// Whether a bug can be planted in this build.
pub fn can_plant(bug: Bug) -> bool {
    bug.place() == Place::Shell || cfg!(feature = "planted")
}

/// Runs one seed with a bug planted.
pub fn run_planted(bug: Bug, seed: u64) -> Finished {
    plant(Some(bug));
    let setup = Setup::of(seed);
    let finished = run(&setup, &draw(seed, setup.minutes));
    plant(None);
    finished
}

/// Runs seeds with a bug planted until one shows it, at most so many.
pub fn hunt(bug: Bug, seeds: u64) -> Option<Caught> {
    (1..=seeds).find_map(|seed| {
        let violation = run_planted(bug, seed).violation?;
        Some(Caught { seeds: seed, seed, invariant: violation.invariant })
    })
}
