//! Every bound this crate enforces, each with its unit.

use stele_model::limits::DECISION_BYTES_MAX;

/// Slots set or cleared in one command: with more, the rest follows in the next, so that no decision is too large
/// for the log.
pub const SLOTS_PER_COMMAND_MAX: usize = 8192;
/// Assignments changed in one command, about, for the same reason.
pub const ASSIGNMENTS_PER_COMMAND_MAX: usize = 4096;
/// The same in bytes, as the log counts them: each names all of its app's secrets.
pub const ASSIGNMENTS_BYTES_PER_COMMAND_MAX: usize = DECISION_BYTES_MAX / 2;
/// How long an instance of which no deadline is known any more may take to be gone, in milliseconds.
pub const LEAVING_MS: u64 = 120_000;
/// Nodes named to say why there is no room; more are only counted.
pub const NODES_NAMED_MAX: usize = 8;
/// Apps that had no room when they were looked at last, and are looked at again at the same time. To look at one may
/// mean to go through all slots of a fleet.
pub const WITHOUT_ROOM_PER_LOOK_MAX: usize = 1;
