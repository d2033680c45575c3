//! Destroying what was sealed for a subject.

use stele_api::wire::{ErasureAnswer, ErasureRequest, ErasuresAnswer};
use ureq::http::Method;

use crate::client::with_query;
use crate::exit::Failure;
use crate::options::{ChangeOptions, ReadOptions, only_with, point};
use crate::session::{Session, count};
use crate::terminal::{cell, table};

/// Destroy the keys of a subject, so that what they sealed can never be read again
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele erase                          # whose keys are destroyed\n  stele erase shop/web@prod --reason \"GDPR request 17\" --yes\n\nSecrets and sealed values are sealed for the app and environment they belong to. The log keeps their\nciphertext, so that its hashes, its proofs and every replay stay valid; without the key it says nothing.\nA copy of a controller's keys folder that was made before, such as a backup, still holds the key: destroy it, too.",
    mut_arg("stale", |stale| stale.conflicts_with("subject")),
    mut_args(only_with("subject"))
)]
pub(crate) struct Erase {
    /// Whose keys, such as shop/web@prod
    subject: Option<String>,
    /// List whose keys were destroyed by this point: seq:N, a time, "2h ago"
    #[arg(long, value_name = "POINT", value_parser = point, conflicts_with = "subject")]
    at: Option<String>,
    #[command(flatten)]
    read: ReadOptions,
    /// Even when containers that run, or should run, use what is sealed
    #[arg(long, requires = "subject")]
    even_in_use: bool,
    /// Do not ask
    #[arg(long, short = 'y')]
    yes: bool,
    #[command(flatten)]
    change: ChangeOptions,
}

impl Erase {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        let client = session.client()?;
        let Some(subject) = self.subject else {
            let path = with_query("/v1/erasures", &[("at", self.at), self.read.consistency()]);
            let answer: ErasuresAnswer = client.get(&path)?;
            return session.terminal.answer(&answer, |answer| {
                if answer.erased.is_empty() {
                    return "No subject's keys are destroyed.".to_owned();
                }
                let rows = answer.erased.iter().map(|it| vec![cell(&it.subject), it.through.to_string()]);
                format!(
                    "{}\n{}",
                    table(&["SUBJECT", "KEYS UP TO VERSION"], rows.collect()),
                    count(answer.erased.len(), "subject")
                )
            });
        };
        let question =
            format!("Destroy the keys of {subject}? Nothing sealed for it so far can ever be read again.");
        session.confirm(&question, self.yes)?;
        let request = ErasureRequest {
            subject,
            even_in_use: self.even_in_use,
            reason: self.change.reason.clone(),
            links: self.change.links(),
        };
        let answer: ErasureAnswer =
            client.write(Method::POST, "/v1/erasures", Some(&request), &self.change.conditions())?;
        session.terminal.answer(&answer, |answer| {
            let done = format!("The keys of {} up to version {} are destroyed", answer.subject, answer.through);
            let seq = answer.seq.map_or_else(String::new, |seq| format!(" (seq {seq})"));
            if answer.keepers.is_empty() {
                return format!("{done}{seq}, on every controller.");
            }
            let keepers: Vec<_> = answer.keepers.iter().map(ToString::to_string).collect();
            format!(
                "{done}{seq}. Controller {} has not confirmed it yet: one that is away destroys its copy when \
                 it returns.",
                keepers.join(", ")
            )
        })
    }
}
