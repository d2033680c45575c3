//! Why something is as it is: the chain of records that led to it, back to somebody's request.
//!
//! The chain is worked out from State and records. It does no I/O: whoever asks is told which
//! record is lacking, hands it over, and asks again.

mod chain;
mod found;
mod step;
mod subject;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use subject::Subject;

use crate::event::{Holder, Outcome, Record};
use crate::header::Links;
use crate::ids::{PrincipalId, Seq, Time};
use crate::rejection::Rejection;
use crate::state::State;

/// Why something is as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Why {
    /// What was asked about.
    pub subject: String,
    /// The record this is as of.
    pub at: Seq,
    /// Its time.
    pub time: Time,
    /// What it is then, in a sentence.
    pub is: String,
    /// What led to it, newest first; the last ones are requests, or what nobody asked for.
    pub steps: Vec<Step>,
    /// What could not be found out, in sentences.
    pub unknown: Vec<String>,
}

/// One thing that led to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// Its record.
    pub seq: Seq,
    /// When.
    pub time: Time,
    /// The kind of event.
    pub kind: String,
    /// What happened, in a sentence.
    pub what: String,
    /// What else the same decision did, each in a sentence.
    pub also: Vec<String>,
    /// Who asked for it; `system` when the controllers did it by themselves.
    pub principal: PrincipalId,
    /// Whether that is a person or a program; absent for the controllers, and when its token is gone.
    pub holder: Option<Holder>,
    /// Why, in their words; absent when none was given or it is sealed.
    pub reason: Option<String>,
    /// Where else it is written about.
    pub links: Links,
    /// W3C trace id.
    pub trace: Option<String>,
    /// The seq that led to it; absent where the chain ends.
    pub cause: Option<Seq>,
    /// For a deployment: how it ended, if it did.
    pub outcome: Option<Outcome>,
}

/// Something a chain needs to be told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lack {
    /// This record.
    Record(Seq),
    /// The newest record up to `until` of this kind that touches all of these scopes.
    Newest {
        /// The kind of event.
        kind: &'static str,
        /// The scopes, as headers name them.
        scopes: Vec<String>,
        /// The last seq that counts.
        until: Seq,
    },
}

/// What was found out so far.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Answers: the record, or that there is none within reach.
    pub known: BTreeMap<Lack, Option<Record>>,
}

/// How far a chain has come.
#[derive(Clone, Debug)]
pub enum Told {
    /// All of it.
    All(Box<Why>),
    /// This has to be found out first.
    Lacks(Lack),
}

/// Why a subject is as it is in a State.
pub fn why(state: &State, subject: &Subject, evidence: &Evidence) -> Result<Told, Rejection> {
    match chain::Chain::new(state, subject, evidence).told() {
        Ok(why) => Ok(Told::All(Box::new(why))),
        Err(chain::Stop::Lacks(lack)) => Ok(Told::Lacks(lack)),
        Err(chain::Stop::Refused(rejection)) => Err(rejection),
    }
}
