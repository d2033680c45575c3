//! Points that are times.

use std::time::Duration;

use stele_model::{Point, Rejection, RejectionKind, Time};

/// The time a point stands for, seen from a clock's time in microseconds; none when the point is no time.
pub fn wall_time(point: &Point, now_us: u64) -> Result<Option<Time>, Rejection> {
    let time = match point {
        Point::Ago(micros) => Time(now_us.saturating_sub(*micros)),
        Point::Time(text) => parse_time(text)?,
        _ => return Ok(None),
    };
    if time.0 > now_us {
        return Err(Rejection::new(
            RejectionKind::NotFound,
            format!("{point} is in the future: it is {} now", written(Time(now_us))),
        )
        .with_next("write now, or an earlier time"));
    }
    Ok(Some(time))
}

/// A time before the first record is before there was anything.
pub(crate) fn before_genesis(point: &Point, genesis: Time) -> Rejection {
    Rejection::new(
        RejectionKind::NotFound,
        format!("{point} is before the log begins: its first record is of {}", written(genesis)),
    )
    .with_next("write a later time, or seq:1")
}

fn parse_time(text: &str) -> Result<Time, Rejection> {
    let timestamp: jiff::Timestamp = text.parse().map_err(|error| {
        Rejection::new(RejectionKind::Invalid, format!("{text:?} is not a time: {error}"))
            .with_next("write it like 2026-01-31T12:00:00Z")
    })?;
    // What is before 1970 is before any log.
    Ok(Time(u64::try_from(timestamp.as_microsecond()).unwrap_or(0)))
}

pub(crate) fn written(time: Time) -> String {
    timestamp(time).map_or_else(|| format!("{} us", time.0), |timestamp| timestamp.to_string())
}

/// The day of a time in UTC, as in `2026-01-31`.
pub(crate) fn day(time: Time) -> String {
    timestamp(time).map_or_else(|| time.0.to_string(), |timestamp| timestamp.strftime("%Y-%m-%d").to_string())
}

/// A time that is counted from 1970.
pub(crate) fn since_1970(since: Duration) -> Time {
    Time(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

fn timestamp(time: Time) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_microsecond(i64::try_from(time.0).ok()?).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOON: u64 = 1_769_860_800_000_000;

    fn at(text: &str) -> Result<Option<Time>, Rejection> {
        wall_time(&text.parse().unwrap(), NOON)
    }

    #[test]
    fn times_are_seen_from_now() {
        assert_eq!(at("2h ago").unwrap(), Some(Time(NOON - 7_200_000_000)));
        assert_eq!(at("2026-01-31T12:00:00Z").unwrap(), Some(Time(NOON)));
        assert_eq!(at("2026-01-31T13:00:00+01:00").unwrap(), Some(Time(NOON)));
        assert_eq!(at("1969-07-20T20:17:40Z").unwrap(), Some(Time(0)));
        assert_eq!(at("seq:3").unwrap(), None);
        assert_eq!(at("v3").unwrap(), None);
    }

    #[test]
    fn what_is_no_time_yet_is_refused() {
        let future = at("2026-01-31T12:00:01Z").unwrap_err();
        assert_eq!(future.kind, RejectionKind::NotFound);
        assert!(future.message.contains("it is 2026-01-31T12:00:00Z now"), "{}", future.message);
        let nonsense = at("2026-13-31T12:00:00Z").unwrap_err();
        assert_eq!(nonsense.kind, RejectionKind::Invalid);
        assert!(nonsense.message.contains("2026-13-31"), "{}", nonsense.message);
    }
}
