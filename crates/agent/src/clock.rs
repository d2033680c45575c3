//! The host's clock, and whether to believe it.

use std::time::{SystemTime, UNIX_EPOCH};

use stele_model::ids::Time;

use crate::limits::CLOCK_US_MIN;

/// The time, if the clock was ever set: hosts without a battery start in 1970.
pub(crate) fn now() -> Option<Time> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let micros = u64::try_from(since.as_micros()).ok()?;
    (micros >= CLOCK_US_MIN).then_some(Time(micros))
}
