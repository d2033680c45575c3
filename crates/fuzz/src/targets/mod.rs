//! Every target. A decoder that is added gets a target here, and with it a line in `docs/fuzzing.md`.

#![allow(
    clippy::unnecessary_wraps,
    clippy::ptr_arg,
    reason = "all runs, menders and makers have the form that `Target` asks for"
)]

mod api;
mod files;
mod keys;
mod log;
mod merkle;
mod notes;
mod pack;
mod peers;
mod shapes;
mod story;
mod texts;
mod wire;

use crate::target::Target;

/// All of them, in the order of the table in `docs/fuzzing.md`.
pub fn all() -> Vec<Target> {
    [
        log::targets(),
        peers::targets(),
        notes::targets(),
        merkle::targets(),
        pack::targets(),
        wire::targets(),
        texts::targets(),
        api::targets(),
        files::targets(),
    ]
    .concat()
}
