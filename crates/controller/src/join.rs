//! Letting nodes join.

use stele_bus::join::{JoinAnswer, JoinError, open_request};
use stele_bus::purposes;
use stele_ledger::system_request;
use stele_model::event::EnrolledNode;
use stele_model::wire::Signed;
use stele_model::{Command, Digest, RegionName};

use crate::handle::{Handle, SubmitError};

/// Why a node may not join.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The request is malformed or not signed by the key it wants enrolled.
    #[error("the join request cannot be believed: {0}")]
    Request(#[from] JoinError),
    /// Refused, or without an answer.
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

impl Handle {
    /// Enrols a node that shows a join token, and tells it all it needs.
    pub async fn join(&self, signed: &Signed) -> Result<Signed, EnrollError> {
        let request = open_request(signed)?;
        let node = EnrolledNode {
            name: request.name.clone(),
            // The token says where it will be.
            region: placeholder_region(),
            labels: std::collections::BTreeMap::new(),
            key: request.key.clone(),
            sealing_key: request.sealing_key,
            address: request.address,
        };
        let join_token = Digest::of(&[request.secret.as_bytes()]);
        let mut asked = system_request(Command::EnrollNode { join_token, node });
        asked.links.on_behalf_of = request.name.as_str().parse().ok();
        let answer = self.submit(asked).await?;
        let enrolled_at = answer.decision.map_or(0, stele_model::Decision::last);
        let enrolled = self.enrolled(&request.name, enrolled_at).await?;
        let identity = self.identity();
        let answer = JoinAnswer {
            fleet: identity.fleet.clone(),
            node: enrolled.name.clone(),
            key: request.key,
            region: enrolled.region.clone(),
            epoch: self.published().state.control.fleet.map_or(0, |fleet| fleet.epoch),
            nats: identity.nats.clone(),
            root: identity.root.clone(),
            controller: identity.certificate.clone(),
        };
        Ok(identity.sign(purposes::JOIN_ANSWER, &answer))
    }

    /// A follower hears of the commit a moment after the leader.
    async fn enrolled(&self, name: &stele_model::NodeName, seq: u64) -> Result<EnrolledNode, SubmitError> {
        let mut watch = self.watch();
        let found = |published: &crate::app::Published| {
            published.state.seq >= seq && published.state.control.nodes.contains_key(name)
        };
        let wait = watch.wait_for(found);
        let published = tokio::time::timeout(crate::limits::READ_DEADLINE, wait)
            .await
            .map_err(|_| SubmitError::OutcomeUnknown)?
            .map_err(|_| SubmitError::Unavailable)?;
        let node = published.state.control.nodes.get(name).map(|node| node.as_ref().clone());
        node.ok_or(SubmitError::OutcomeUnknown)
    }
}

fn placeholder_region() -> RegionName {
    #[allow(clippy::expect_used)]
    RegionName::new("unset").expect("a constant that is a name")
}
