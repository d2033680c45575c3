//! Evidence packs: built of random logs, tampered with in every way, and read by a stranger.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests run a verifier in another language over files"
)]

#[path = "../../../codec/tests/format/corpus.rs"]
#[allow(dead_code)]
mod corpus;
#[path = "../../../codec/tests/format/random_log.rs"]
#[allow(dead_code)]
mod random_log;

mod evidence;
mod parts;
mod properties;
mod stranger;
mod tamper;
