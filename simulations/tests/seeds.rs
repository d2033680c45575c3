//! A bounded set of seeds, seeds that once found something, and that a seed is one run.

use stele_simulations::fault::draw;
use stele_simulations::{Setup, run, run_seed};

/// Seeds that found something once, in the product or in what the simulator asks of it.
const REGRESSIONS: &[(u64, &str)] = &[
    (78, "a leader that resumes in its own term begins it anew"),
    (1022, "a leader that begins anew has listened all along"),
    (571, "a leader that slept through another's reign has not listened all along"),
    (717, "the log may be ahead by a clock that was set back less than a minute ago, among those that vote"),
    (93, "a leader that cannot read an old record cannot publish it, and is replaced"),
    (484, "what rests on an entry that left before the question is confirmed like any other answer"),
    (209, "a clock that was heard of just now is known, though an earlier message travelled faster"),
];

fn passes(seed: u64) {
    let finished = run_seed(seed);
    assert_eq!(finished.violation, None, "seed {seed}; once more: cargo xtask sim --seed {seed}");
    assert!(finished.counts[0] > 0, "seed {seed} decided nothing");
}

#[test]
fn the_same_seed_is_the_same_run() {
    let setup = Setup { minutes: 2, ..Setup::of(11) };
    let faults = draw(11, 2);
    let (first, second) = (run(&setup, &faults), run(&setup, &faults));
    assert_eq!((first.hash, first.log), (second.hash, second.log));
    let other = run(&Setup { seed: 12, ..setup }, &faults);
    assert_ne!(first.steps, other.steps);
}

#[test]
fn seeds_that_found_something_once() {
    for (seed, _) in REGRESSIONS {
        passes(*seed);
    }
}

macro_rules! seeds {
    ($($name:ident: $from:literal..$to:literal;)*) => {
        $(#[test] fn $name() { ($from..$to).for_each(passes); })*
    };
}

// Each is a test of its own, so that they run beside one another.
seeds! {
    seeds_from_100: 100..103;
    seeds_from_103: 103..106;
    seeds_from_106: 106..109;
    seeds_from_109: 109..112;
}
