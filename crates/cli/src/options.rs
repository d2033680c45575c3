//! Options several commands share.

use std::time::Duration;

use clap::{Arg, Args};
use stele_model::point::PointError;
use stele_model::{Links, Point, PrincipalId};

use crate::client::Conditions;
use crate::limits::WAIT_DEFAULT;

/// Where to and how; understood by every command.
#[derive(Args, Clone, Debug)]
pub(crate) struct Globals {
    /// Controllers to talk to, separated by commas; the next one is tried when one does not answer
    #[arg(
        long,
        global = true,
        env = "STELE_ADDR",
        value_name = "URL[,URL]",
        value_delimiter = ',',
        help_heading = "Connection"
    )]
    pub(crate) addr: Vec<String>,
    /// Bearer token to use instead of the context's
    #[arg(
        long,
        global = true,
        env = "STELE_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        help_heading = "Connection"
    )]
    pub(crate) token: Option<String>,
    /// Context to use instead of the current one (see: stele context list)
    #[arg(long, global = true, env = "STELE_CONTEXT", value_name = "NAME", help_heading = "Connection")]
    pub(crate) context: Option<String>,
    /// How answers are printed
    #[arg(short, long, global = true, value_enum, default_value_t, help_heading = "Output")]
    pub(crate) output: crate::terminal::Output,
}

/// Everything that is logged about a change, and conditions on it.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ChangeOptions {
    /// Why, for the log
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Seal the reason for this subject, such as customer:4711: `stele erase` makes it unreadable for ever
    #[arg(long, value_name = "SUBJECT", requires = "reason")]
    pub(crate) reason_subject: Option<String>,
    /// A ticket about it, for the log
    #[arg(long, value_name = "TEXT", help_heading = "Links for the log")]
    pub(crate) ticket: Option<String>,
    /// The commit it comes from, for the log
    #[arg(long, value_name = "TEXT", help_heading = "Links for the log")]
    pub(crate) commit: Option<String>,
    /// The CI run it comes from, for the log
    #[arg(long, value_name = "TEXT", help_heading = "Links for the log")]
    pub(crate) ci_run: Option<String>,
    /// For whom it is done, for the log
    #[arg(long, value_name = "PRINCIPAL", help_heading = "Links for the log")]
    pub(crate) on_behalf_of: Option<PrincipalId>,
    /// Refuse unless the target last changed at this seq (see: stele status --output json)
    #[arg(long, value_name = "SEQ")]
    pub(crate) if_match: Option<u64>,
    /// Repeating a change under its key gives the first answer again
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
}

impl ChangeOptions {
    pub(crate) fn links(&self) -> Links {
        Links {
            ticket: self.ticket.clone(),
            commit: self.commit.clone(),
            ci_run: self.ci_run.clone(),
            on_behalf_of: self.on_behalf_of.clone(),
        }
    }

    pub(crate) fn conditions(&self) -> Conditions {
        Conditions {
            idempotency_key: self.idempotency_key.clone(),
            if_match: self.if_match,
            reason_subject: self.reason_subject.clone(),
        }
    }
}

/// How fresh an answer must be.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct ReadOptions {
    /// Answer without a quorum, from what one controller has
    #[arg(long)]
    stale: bool,
}

impl ReadOptions {
    pub(crate) fn is_stale(self) -> bool {
        self.stale
    }

    /// As it is asked for in a query.
    pub(crate) fn consistency(self) -> (&'static str, Option<String>) {
        ("consistency", self.stale.then(|| "stale".to_owned()))
    }
}

/// A point in time as it is written, when it is one.
pub(crate) fn point(text: &str) -> Result<String, String> {
    let point: Point = text.parse().map_err(|error: PointError| error.to_string())?;
    as_written(text, &point)
}

/// Since when something is asked for, as it is written, when it is that.
pub(crate) fn since(text: &str) -> Result<String, String> {
    let point = Point::since(text).map_err(|error| error.to_string())?;
    as_written(text, &point)
}

fn as_written(text: &str, point: &Point) -> Result<String, String> {
    if let Point::Time(time) = point {
        let read = time.parse::<jiff::Timestamp>();
        read.map_err(|error| format!("{time:?} is not a time: {error}; write it like 2026-01-31T12:00:00Z"))?;
    }
    Ok(text.to_owned())
}

/// Options that say nothing where nothing is changed. Where a command lists unless it is told what to change, they want
/// that: whoever forgot it must not take the list for the change.
const OF_A_CHANGE: [&str; 10] = [
    "yes",
    "wait",
    "reason",
    "reason_subject",
    "ticket",
    "commit",
    "ci_run",
    "on_behalf_of",
    "if_match",
    "idempotency_key",
];

/// Makes options of a change require the argument that says what to change.
pub(crate) fn only_with(changed: &'static str) -> impl Fn(Arg) -> Arg {
    move |arg| {
        if OF_A_CHANGE.contains(&arg.get_id().as_str()) { arg.requires(changed) } else { arg }
    }
}

/// A span of time: `90s`, `15m`, `2h`, `7d`, or a number of seconds.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    // Spans are written as they are in points of time.
    match format!("{text} ago").parse() {
        Ok(Point::Ago(micros)) => Ok(Duration::from_micros(micros)),
        _ => Err(format!("{text:?} is no span of time: write 90s, 15m, 2h, 7d, or a number of seconds")),
    }
}

/// Whether to wait for a deployment's end.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct WaitOptions {
    /// Wait until it is done; exit with 1, the reason and the last log lines when it fails
    #[arg(short, long)]
    pub(crate) wait: bool,
    /// How long to wait, such as 90s, 15m or 2h, or a number of seconds
    #[arg(long, value_name = "SPAN", value_parser = span, default_value = WAIT_DEFAULT, requires = "wait")]
    pub(crate) timeout: Duration,
}

impl WaitOptions {
    pub(crate) fn patience(self) -> Duration {
        self.timeout
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn spans_have_units_or_are_seconds() {
        let seconds = |text: &str| span(text).map(|span| span.as_secs());
        for (text, expected) in [("30", 30), ("90s", 90), ("15m", 900), ("2h", 7200), ("7d", 604_800)] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for bad in ["", "soon", "15 minutes or so", "-5", "1.5"] {
            assert!(span(bad).unwrap_err().contains("no span of time"), "{bad}");
        }
        assert!(span(WAIT_DEFAULT).is_ok());
    }
}
