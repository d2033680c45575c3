//! Every bound this crate enforces, each with its unit.

/// Most bytes all files of the corpus have together: they are in every clone for ever.
pub const CORPUS_BYTES_MAX: u64 = 300 * 1024;
/// Largest input that is made by changing others, in bytes.
pub const INPUT_BYTES_MAX: usize = 64 * 1024;
/// Most changes made to one input.
pub const CHANGES_MAX: u64 = 8;
/// Inputs that each target is given in the tests, beside its corpus as it stands.
pub const ITERATIONS_IN_TESTS: u64 = 2000;
/// Stack of the thread that decodes, in bytes: what threads of the product have.
pub const STACK_BYTES: usize = 2 * 1024 * 1024;
/// Most memory all decoders may hold at once, in bytes; beyond it the program ends, and the machine does not.
pub const MEMORY_BYTES_MAX: usize = 4 * 1024 * 1024 * 1024;
/// Longest one input may take in a long run, in seconds, before it is called a hang.
pub const HANG_SECONDS: u64 = 20;
/// Attempts at making a failing input smaller.
pub const MINIMISE_ATTEMPTS_MAX: usize = 4000;
/// How long a target runs when nothing else is said, in seconds.
pub const RUN_SECONDS_DEFAULT: u64 = 30;
/// Inputs between two looks at the clock.
pub const ITERATIONS_PER_LOOK: u64 = 64;
