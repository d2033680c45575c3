//! What people say of points and of rollbacks afterwards.

use stele_api::wire::{ChangeAnswer, MarkAnswer, MarkRequest, ReviewRequest, ReviewsAnswer};
use stele_model::{Scope, Seq};
use ureq::http::Method;

use crate::client::with_query;
use crate::exit::Failure;
use crate::options::{ChangeOptions, ReadOptions, only_with, point};
use crate::session::{Session, count};
use crate::terminal::{cell, or_dash, table, time};

/// Mark a point so that it is never offered as last-good
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele mark-bad shop/web@prod v3 --reason \"it loses orders\"\n  stele mark-bad env:prod \"2h ago\"\n  stele mark-bad shop/web@prod v3 --clear\n\nWhat was in force at that point is meant, whenever else it was. It can still be rolled back to by name."
)]
pub(crate) struct MarkBad {
    /// Of what
    scope: Scope,
    /// Which point: v3, seq:N, a time, "2h ago", deploy:ID, prev
    #[arg(value_parser = point)]
    point: String,
    /// Take the mark back
    #[arg(long)]
    clear: bool,
    #[command(flatten)]
    change: ChangeOptions,
}

impl MarkBad {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        let request = MarkRequest {
            scope: self.scope.clone(),
            point: self.point.clone(),
            bad: !self.clear,
            reason: self.change.reason.clone(),
            links: self.change.links(),
        };
        let answer: MarkAnswer =
            session.client()?.write(Method::POST, "/v1/marks", Some(&request), &self.change.conditions())?;
        session.terminal.answer(&answer, |answer| {
            let (scope, point) = (&self.scope, answer.point);
            let word = if self.clear { "no longer marked bad" } else { "marked bad" };
            match answer.seq {
                Some(seq) => format!("{scope} at seq {point} is {word} (seq {seq})"),
                None => format!("{scope} at seq {point} was {word} already"),
            }
        })
    }
}

/// Show rollbacks nobody else has looked at yet, or say that you did
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele review                      # what waits for a look\n  stele review 1842 --reason \"right call; see OPS-7\"\n\nA rollback needs no approval. Somebody other than who did it looks at it afterwards.",
    mut_arg("stale", |stale| stale.conflicts_with("rollback")),
    mut_args(only_with("rollback"))
)]
pub(crate) struct Review {
    /// Seq of the rollback
    #[arg(value_name = "SEQ")]
    rollback: Option<Seq>,
    /// List what waited for a look at this point: seq:N, a time, "2h ago"
    #[arg(long, value_name = "POINT", value_parser = point, conflicts_with = "rollback")]
    at: Option<String>,
    #[command(flatten)]
    read: ReadOptions,
    #[command(flatten)]
    change: ChangeOptions,
}

impl Review {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        let client = session.client()?;
        let Some(rollback) = self.rollback else {
            let path = with_query("/v1/reviews", &[("at", self.at), self.read.consistency()]);
            let answer: ReviewsAnswer = client.get(&path)?;
            return session.terminal.answer(&answer, |answer| {
                if answer.owed.is_empty() {
                    return "No rollback waits for a review.".to_owned();
                }
                let rows = answer.owed.iter().map(|it| {
                    vec![
                        it.rollback.to_string(),
                        time(it.time),
                        it.principal.to_string(),
                        cell(&it.scope),
                        cell(&it.to),
                        or_dash(it.reason.as_deref().map(cell)),
                    ]
                });
                let header = ["SEQ", "TIME", "BY", "SCOPE", "TO", "REASON"];
                let next = answer.owed.first().map(|it| format!("\n\nnext: stele review {}", it.rollback));
                format!(
                    "{}\n{}{}",
                    table(&header, rows.collect()),
                    count(answer.owed.len(), "rollback"),
                    next.unwrap_or_default()
                )
            });
        };
        let request =
            ReviewRequest { rollback, reason: self.change.reason.clone(), links: self.change.links() };
        let answer: ChangeAnswer =
            client.write(Method::POST, "/v1/reviews", Some(&request), &self.change.conditions())?;
        session.changed(&client, &format!("rollback {rollback}: reviewed"), &answer, None)
    }
}
