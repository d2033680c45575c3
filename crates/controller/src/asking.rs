//! Asking a node something, and believing nobody else's answer.

use std::time::Duration;

use stele_bus::ask::{Answer, Outcome, Question, Request};
use stele_bus::purposes;
use stele_model::event::EnrolledNode;
use stele_model::wire::OpenError;
use thiserror::Error;

use crate::handle::Handle;

/// Why a node's answer is not known.
#[derive(Debug, Error)]
pub(crate) enum AskError {
    /// It did not answer, or cannot be asked.
    #[error(transparent)]
    Bus(#[from] stele_bus::Error),
    /// Somebody else answered, or garbage.
    #[error("its answer is not believed: {0}")]
    Forged(#[from] OpenError),
    /// An answer to something else, which may be somebody's replay.
    #[error("it answered a question that was not asked")]
    OtherQuestion,
}

impl Handle {
    /// Asks a node, and verifies its answer.
    pub(crate) async fn ask_node(
        &self,
        node: &EnrolledNode,
        question: Question,
        within: Duration,
    ) -> Result<Outcome, AskError> {
        let identity = self.identity();
        let request = Request {
            fleet: identity.fleet.clone(),
            node: node.name.clone(),
            question,
            asked: self.now(),
            controller: identity.certificate.clone(),
        };
        let signed = identity.sign(purposes::QUESTION, &request);
        let answer = self.bus().ask(&node.region, &node.name, &signed, within).await?;
        let answer: Answer = answer.open(&node.key, purposes::ANSWER)?;
        let same = answer.node == node.name
            && answer.asked == request.asked
            && request.question.is_answered_as(&answer.question);
        if same { Ok(answer.outcome) } else { Err(AskError::OtherQuestion) }
    }
}
