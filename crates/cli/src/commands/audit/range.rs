//! The part of the log between two points, and whether the log agrees that it is that part.

use stele_api::ProblemKind;
use stele_api::wire::DiffAnswer;
use stele_model::{Header, Point, Scope, Seq, Time};
use stele_proof::limits::PACK_RECORDS_MAX;

use super::log::Log;
use crate::client::{Client, with_query};
use crate::exit::Failure;
use crate::options::{ReadOptions, point};
use crate::terminal::time;

/// Which points, as asked on the command line.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Between {
    /// From just after one point up to another: seq:N, a time, "2h ago", v12, deploy:ID, prev, now
    #[arg(long, num_args = 2, required = true, value_names = ["POINT", "POINT"], value_parser = point)]
    between: Vec<String>,
    #[command(flatten)]
    pub(super) read: ReadOptions,
}

impl Between {
    /// All of the log, from its first record to the newest.
    pub(super) fn everything() -> Self {
        Self { between: vec!["seq:0".to_owned(), "now".to_owned()], read: ReadOptions::default() }
    }

    /// Asks the controllers which records that is.
    pub(super) fn resolve(&self, client: &Client, scope: &Scope) -> Result<Range, Failure> {
        let [from, to] = self.between.as_slice() else {
            return Err(Failure::Usage("--between takes two points".to_owned()));
        };
        let from = End::parse(from, "first")?;
        let to = End::parse(to, "second")?;
        let from = from.resolve(client, scope, self.read)?;
        let to = to.resolve(client, scope, self.read)?;
        if from.seq > to.seq {
            return Err(Failure::Usage(format!(
                "--between goes backwards: {} is seq {}, and {} is seq {}\n  next: write the earlier point first",
                from.written, from.seq, to.written, to.seq
            )));
        }
        if from.seq == to.seq {
            return Err(Failure::Usage(format!(
                "nothing happened between {} and {}: both are seq {}\n  next: stele events -n 10",
                from.written, to.written, to.seq
            )));
        }
        let range = Range { from, to };
        if range.count() > PACK_RECORDS_MAX as u64 {
            return Err(Failure::Usage(format!(
                "{} records lie between {} and {}, and at most {PACK_RECORDS_MAX} are looked at in one go\n  next: \
                 take several shorter ranges, each beginning where the one before it ends",
                range.count(),
                range.from.written,
                range.to.written
            )));
        }
        check_known(client, scope, &range, self.read)?;
        Ok(range)
    }
}

/// One end of a range.
#[derive(Clone, Debug)]
pub(super) struct End {
    /// As it is told to others. A seq is the one it stands for: no point lies inside a decision.
    pub(super) written: String,
    point: Point,
    /// The last record that is not after it.
    seq: Seq,
    /// Which of the two it is, for messages.
    which: &'static str,
}

/// Records in a row, at least one.
#[derive(Clone, Debug)]
pub(super) struct Range {
    pub(super) from: End,
    pub(super) to: End,
}

impl Range {
    pub(super) fn first(&self) -> Seq {
        self.from.seq + 1
    }

    pub(super) fn last(&self) -> Seq {
        self.to.seq
    }

    pub(super) fn count(&self) -> u64 {
        self.to.seq - self.from.seq
    }

    /// The controllers said which seqs the points are. Where the log can tell, it is asked: so nothing
    /// at either end is left out on their word alone.
    pub(super) fn check(&self, log: &mut Log<'_>) -> Result<(), Failure> {
        self.from.check(log)?;
        self.to.check(log)
    }
}

impl End {
    fn parse(text: &str, which: &'static str) -> Result<Self, Failure> {
        let point: Point = text.parse().map_err(|error: stele_model::point::PointError| {
            Failure::Usage(format!("--between, the {which} point: {error}"))
        })?;
        Ok(Self { written: text.trim().to_owned(), point, seq: 0, which })
    }

    fn resolve(self, client: &Client, scope: &Scope, read: ReadOptions) -> Result<Self, Failure> {
        // Only these are about an app; the others mean the same in every scope, also in one that was not there yet.
        let of_app = matches!(self.point, Point::Release(_) | Point::Previous(_) | Point::LastGood);
        let scope = if of_app { scope } else { &Scope::fleet() };
        let seq = seq_of(client, scope, &self.written, read).map_err(|failure| match failure {
            Failure::Problem(mut problem) => {
                problem.detail = format!("--between, the {} point: {}", self.which, problem.detail);
                Failure::Problem(problem)
            }
            other => other,
        })?;
        let written =
            if matches!(self.point, Point::Seq(_)) { format!("seq:{seq}") } else { self.written.clone() };
        Ok(Self { written, seq, ..self })
    }

    fn check(&self, log: &mut Log<'_>) -> Result<(), Failure> {
        let is_after: Box<dyn Fn(&Header) -> bool> = match &self.point {
            Point::Seq(asked) => {
                let asked = *asked;
                Box::new(move |header| header.seq > asked)
            }
            Point::Time(_) => {
                let at = stele_controller::wall_time(&self.point, u64::MAX)
                    .map_err(|rejection| Failure::Usage(rejection.to_string()))?
                    .unwrap_or(Time(u64::MAX));
                Box::new(move |header| header.time > at)
            }
            // The others are words of the controllers' own, or depend on a clock that nobody else has read.
            _ => return Ok(()),
        };
        let contradicts = |header: &Header| {
            Failure::Failed(format!(
                "the controllers say that {} is seq {}, but record {} of {} is in the log\n  next: ask another \
                 controller with --addr, and tell the owner of this one",
                self.written,
                self.seq,
                header.seq,
                time(header.time)
            ))
        };
        if self.seq > 0 {
            let last = log.proved(self.seq)?.1;
            if is_after(&last) {
                return Err(contradicts(&last));
            }
        }
        if self.seq == log.size() {
            return Ok(());
        }
        // A decision is inside a range, or outside it: its last record says which.
        let decision = log.proved(self.seq + 1)?.1.decision;
        let next = log.proved(decision.last())?.1;
        if is_after(&next) { Ok(()) } else { Err(contradicts(&next)) }
    }
}

/// The seq of a point, as a controller sees it.
fn seq_of(client: &Client, scope: &Scope, point: &str, read: ReadOptions) -> Result<Seq, Failure> {
    // Nothing differs between a point and itself: only its seq is wanted.
    let query = [
        ("scope", Some(scope.to_string())),
        ("from", Some(point.to_owned())),
        ("to", Some(point.to_owned())),
        read.consistency(),
    ];
    Ok(client.get::<DiffAnswer>(&with_query("/v1/diff", &query))?.to)
}

/// A misspelt scope must not look like one in which nothing happened. It may be gone at one end of the
/// range, or not be there yet, but not at both.
fn check_known(client: &Client, scope: &Scope, range: &Range, read: ReadOptions) -> Result<(), Failure> {
    if *scope == Scope::fleet() {
        return Ok(());
    }
    let known = |end: &End| seq_of(client, scope, &format!("seq:{}", end.seq), read);
    match known(&range.to) {
        Err(Failure::Problem(problem)) if problem.known_kind() == Some(ProblemKind::NotFound) => {
            match known(&range.from) {
                Ok(_) => Ok(()),
                // What is not there at the end of the range is what whoever asks will understand.
                Err(_) => Err(Failure::Problem(problem)),
            }
        }
        answered => answered.map(drop),
    }
}
