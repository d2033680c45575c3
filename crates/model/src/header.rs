//! What every record says about itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::ids::{PrincipalId, Seq, Time};
use crate::value::Value;

/// The frozen header of a record. `docs/log-format.md` gives its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Header {
    /// Position in the log, from 1, without gaps.
    pub seq: Seq,
    /// Log time, strictly increasing.
    pub time: Time,
    /// The decision it is part of.
    pub decision: Decision,
    /// Who caused it, by opaque id.
    pub principal: PrincipalId,
    /// The seq that led to it, when something in the log did.
    pub cause: Option<Seq>,
    /// W3C trace id, 32 hex digits.
    pub trace: Option<String>,
    /// The idempotency key it was asked under.
    pub idempotency: Option<Idempotency>,
    /// The kind of event: see [`crate::Event::kind`].
    pub kind: String,
    /// Version of the payload's structure, from 1.
    pub schema: u16,
    /// How the payload is encoded; 1 is bincode 2.
    pub codec: u8,
    /// The scopes it touches, such as `shop/web@prod` and `node:eu-1`, sorted.
    pub scopes: Vec<String>,
    /// Why, in the principal's words.
    pub reason: Option<Value>,
    /// Where else this is written about.
    pub links: Links,
    /// SHA-256 of the payload's bytes.
    pub payload: Digest,
}

/// What a record is about: as much of its header as tells whether the rest is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headline<'a> {
    /// As [`Header::seq`].
    pub seq: Seq,
    /// As [`Header::time`].
    pub time: Time,
    /// As [`Header::kind`].
    pub kind: &'a str,
    /// As [`Header::scopes`].
    pub scopes: Vec<&'a str>,
}

impl Header {
    /// What the record is about.
    pub fn headline(&self) -> Headline<'_> {
        let scopes = self.scopes.iter().map(String::as_str).collect();
        Headline { seq: self.seq, time: self.time, kind: &self.kind, scopes }
    }
}

/// The records one command was decided into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Decision {
    /// Seq of its first record.
    pub first: Seq,
    /// How many records it has.
    pub count: u32,
}

impl Decision {
    /// Seq of its last record. What was read may claim what no log holds, so this never overflows.
    pub const fn last(self) -> Seq {
        self.first.saturating_add((self.count as u64).saturating_sub(1))
    }
}

/// A key under which a request may be repeated safely.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Idempotency {
    /// Chosen by the caller.
    pub key: String,
    /// Over the request, to tell a repetition from another request under the same key.
    pub request: Digest,
}

/// Where else a change is written about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Links {
    /// A ticket.
    pub ticket: Option<String>,
    /// A commit.
    pub commit: Option<String>,
    /// A CI run.
    pub ci_run: Option<String>,
    /// The principal for whom the caller acted.
    pub on_behalf_of: Option<PrincipalId>,
}
