//! The format of what is kept: golden files, properties, and a stranger's decoder.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros,
    reason = "tests read golden files and run a decoder in another language"
)]

mod corpus;
mod golden;
mod properties;
mod random_log;
mod stranger;
