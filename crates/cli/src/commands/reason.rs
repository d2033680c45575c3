//! Reading why a record was asked for.

use stele_api::wire::ReasonAnswer;

use crate::client::with_query;
use crate::exit::Failure;
use crate::options::ReadOptions;
use crate::session::Session;
use crate::terminal::visible;

/// Say why a record was asked for, opening the reason if it is sealed
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele events --kind rolled_back           # has the seqs\n  stele reason 1204\n\nA reason about a person is best sealed: any change with --reason TEXT --reason-subject customer:4711. Then the log\nholds ciphertext, this command opens it for admins, and `stele erase customer:4711` makes it unreadable for ever. The\nsubject itself stands in the log in clear: name it by a number that says nothing without your own records."
)]
pub(crate) struct Reason {
    /// The record's seq
    seq: u64,
    #[command(flatten)]
    read: ReadOptions,
}

impl Reason {
    pub(crate) fn run(&self, session: &Session) -> Result<(), Failure> {
        let path = with_query(&format!("/v1/reasons/{}", self.seq), &[self.read.consistency()]);
        let answer: ReasonAnswer = session.client()?.get(&path)?;
        session.terminal.answer(&answer, |answer| match (&answer.reason, &answer.sealed_for) {
            (Some(reason), _) => visible(reason),
            (None, Some(subject)) => {
                format!("The reason was sealed for {subject}, whose key is destroyed: nobody can read it any more.")
            }
            (None, None) => "No reason was given.".to_owned(),
        })
    }
}
