//! Every bound of the demo, each with its unit.

use std::time::Duration;

/// Longest one command may take.
pub(crate) const COMMAND_DEADLINE: Duration = Duration::from_mins(5);
/// Longest anything else may take that should take moments.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);
/// How long the fleet is watched while it has no NATS.
pub(crate) const WITHOUT_NATS: Duration = Duration::from_secs(5);
/// Longest a page may take to answer.
pub(crate) const PAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest line of a command's output shown, in characters.
pub(crate) const LINE_CHARS_MAX: usize = 118;
