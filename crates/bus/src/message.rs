//! Signed messages as bytes, and back.

use async_nats::{Message, Subject};
use bytes::Bytes;
use stele_model::wire::Signed;

use crate::connection::Link;
use crate::error::Error;
use crate::limits::ANSWER_BYTES_MAX;

pub(crate) fn encode(what: &'static str, signed: &Signed) -> Result<Bytes, Error> {
    serde_json::to_vec(signed)
        .map(Bytes::from)
        .map_err(|error| Error::Nats { doing: what, source: Box::new(error) })
}

/// Reads a message without believing it.
pub(crate) fn decode(what: &'static str, message: &Message, max: usize) -> Result<Signed, Error> {
    let bytes = message.payload.len();
    if bytes > max {
        return Err(Error::TooLarge { what, bytes, max });
    }
    serde_json::from_slice(&message.payload).map_err(|error| Error::Malformed {
        subject: message.subject.to_string(),
        what,
        why: error.to_string(),
    })
}

pub(crate) fn reply_to(what: &'static str, message: &Message) -> Result<Subject, Error> {
    message.reply.clone().ok_or_else(|| Error::NoReply { subject: message.subject.to_string(), what })
}

/// Where a node's answer to a question goes.
#[derive(Clone, Debug)]
pub struct AnswerTo {
    pub(crate) link: Link,
    pub(crate) subject: Subject,
}

impl AnswerTo {
    /// Answers with a signed [`crate::ask::Answer`].
    pub async fn send(self, answer: &Signed) -> Result<(), Error> {
        let payload = encode("encode an answer", answer)?;
        self.link.publish("an answer", self.subject.to_string(), payload, ANSWER_BYTES_MAX).await
    }
}
