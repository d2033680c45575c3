//! Fuzzing: every decoder that reads bytes from outside, given what is nearly right.
//!
//! Owns the targets, the corpus they start from, and the engine that changes inputs, counts memory, and notices
//! what does not hold. It runs on stable Rust: an input follows from seed and iteration alone, so every failure
//! is repeated by its two numbers. `docs/fuzzing.md` lists the decoders and what must hold of each.
//!
//! It must never be linked into anything that is shipped, and its tests must never depend on time.
//!
//! ```
//! use stele_fuzz::{Run, target};
//!
//! let scope = target("scope").expect("there is such a target");
//! let tally = Run::new(scope, 1)?.bounded(100).expect("nothing goes wrong");
//! assert!(tally.inputs > 100 && tally.read > 0);
//! # Ok::<(), anyhow::Error>(())
//! ```

pub mod corpus;
pub mod limits;
mod memory;
mod minimise;
mod mutate;
mod nasty;
mod rng;
mod run;
mod target;
mod targets;

pub use minimise::minimise;
pub use mutate::Form;
pub use run::{Finding, Run, Tally, What, on_decoder_thread, one};
pub use target::{Budget, Named, Target, Verdict};
pub use targets::all;

/// The targets as a table, as `docs/fuzzing.md` has it.
pub fn table() -> String {
    let rows = all()
        .into_iter()
        .map(|target| format!("| `{}` | {} | {} |\n", target.name, target.decoder, target.holds));
    ["| target | decoders | what must hold |\n".to_owned(), "| --- | --- | --- |\n".to_owned()]
        .into_iter()
        .chain(rows)
        .collect()
}

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    all().into_iter().find(|target| target.name == name)
}
