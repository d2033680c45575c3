//! An agent's end of the wire.

use std::time::Duration;

use async_nats::Subscriber;
use futures::StreamExt as _;
use stele_model::ids::{NodeName, RegionName};
use stele_model::wire::Signed;
use tokio::sync::watch;

use crate::connection::{BusConfig, Connection, Link, Manner};
use crate::error::Error;
use crate::limits::{
    AGENT_READ_BUFFER_BYTES, AGENT_RECEIVE_QUEUE, AGENT_RECONNECT_SPREAD_MS, AGENT_SEND_QUEUE,
    ASSIGNMENT_BYTES_MAX, QUESTION_BYTES_MAX, REPORT_BYTES_MAX, SMALL_MESSAGE_BYTES_MAX, SYNC_TIMEOUT,
};
use crate::message::{AnswerTo, decode, encode, reply_to};
use crate::subjects::{self, NodeTopic};

/// What reaches an agent.
#[derive(Debug)]
pub enum AgentEvent {
    /// A connection was made: messages may have been missed before, so ask for sync.
    Connected,
    /// The connection was lost; another is being made.
    Disconnected,
    /// An assignment that is not verified yet.
    Assignment(Signed),
    /// Which controllers were removed, not verified yet.
    Removed(Signed),
    /// A question that is not verified yet, and where to answer it.
    Asked(Signed, AnswerTo),
    /// Something that cannot be a message for this node.
    Garbage(Error),
}

/// An agent's connection to NATS, for sending. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AgentBus {
    link: Link,
    region: RegionName,
    node: NodeName,
}

/// What arrives on an agent's connection.
#[derive(Debug)]
pub struct AgentInbox {
    link: Link,
    connections: watch::Receiver<Connection>,
    seen: Connection,
    assignments: Subscriber,
    questions: Subscriber,
    removed: Subscriber,
}

impl AgentBus {
    /// Begins to connect, and keeps connecting for ever; it fails only for a bad configuration.
    pub async fn connect(
        config: BusConfig,
        region: RegionName,
        node: NodeName,
    ) -> Result<(Self, AgentInbox), Error> {
        if subjects::is_reserved_region(&region) {
            return Err(Error::ReservedRegion);
        }
        let manner = Manner {
            send_queue: AGENT_SEND_QUEUE,
            receive_queue: AGENT_RECEIVE_QUEUE,
            read_buffer_bytes: Some(AGENT_READ_BUFFER_BYTES),
            reconnect_spread_ms: AGENT_RECONNECT_SPREAD_MS,
        };
        let link = Link::open(config, manner).await?;
        let subscribe = async |subject: String| {
            link.client.subscribe(subject).await.map_err(Error::nats("subscribe on NATS"))
        };
        let topic = |topic| subjects::node(&link.fleet, &region, &node, topic);
        let inbox = AgentInbox {
            connections: link.connections(),
            seen: Connection::default(),
            assignments: subscribe(topic(NodeTopic::Assignment)).await?,
            questions: subscribe(topic(NodeTopic::Ask)).await?,
            removed: subscribe(subjects::removed(&link.fleet)).await?,
            link: link.clone(),
        };
        Ok((Self { link, region, node }, inbox))
    }

    /// Whether messages can be sent now.
    pub fn is_connected(&self) -> bool {
        self.link.is_up()
    }

    /// Sends a signed [`stele_model::wire::Report`] once and awaits its acknowledgement, a signed
    /// [`stele_model::wire::ReportAck`] that is not verified yet. Any error means: send it again.
    pub async fn report(&self, report: &Signed, within: Duration) -> Result<Signed, Error> {
        let payload = encode("encode a report", report)?;
        let answer = self
            .link
            .request(
                "a report",
                "no controller is connected",
                self.subject(NodeTopic::Report),
                payload,
                REPORT_BYTES_MAX,
                within,
            )
            .await?;
        decode("an acknowledgement", &answer, SMALL_MESSAGE_BYTES_MAX)
    }

    /// Sends a signed [`stele_model::wire::Heartbeat`]; nobody answers it.
    pub async fn heartbeat(&self, heartbeat: &Signed) -> Result<(), Error> {
        let payload = encode("encode a heartbeat", heartbeat)?;
        let subject = self.subject(NodeTopic::Heartbeat);
        self.link.publish("a heartbeat", subject, payload, SMALL_MESSAGE_BYTES_MAX).await
    }

    /// Asks any controller with a signed [`stele_model::wire::SyncRequest`] for this node's
    /// assignment, which is not verified yet; `None` says that what the node has is current.
    pub async fn sync(&self, request: &Signed) -> Result<Option<Signed>, Error> {
        let payload = encode("encode a sync request", request)?;
        let answer = self
            .link
            .request(
                "a sync request",
                "no controller is connected",
                subjects::sync(&self.link.fleet, &self.region),
                payload,
                SMALL_MESSAGE_BYTES_MAX,
                SYNC_TIMEOUT,
            )
            .await?;
        if answer.payload.is_empty() {
            return Ok(None);
        }
        decode("an assignment", &answer, ASSIGNMENT_BYTES_MAX).map(Some)
    }

    fn subject(&self, topic: NodeTopic) -> String {
        subjects::node(&self.link.fleet, &self.region, &self.node, topic)
    }
}

impl AgentInbox {
    /// The next thing that happens; `None` once the connection is closed for good.
    /// Cancelling loses nothing.
    pub async fn next(&mut self) -> Option<AgentEvent> {
        loop {
            let now = *self.connections.borrow_and_update();
            let before = std::mem::replace(&mut self.seen, now);
            // Up again so fast that the loss was never seen is a new connection all the same.
            if now.up && now.count != before.count {
                return Some(AgentEvent::Connected);
            }
            if !now.up && before.up {
                return Some(AgentEvent::Disconnected);
            }
            tokio::select! {
                changed = self.connections.changed() => changed.ok()?,
                message = self.assignments.next() => {
                    let signed = decode("an assignment", &message?, ASSIGNMENT_BYTES_MAX);
                    return Some(signed.map_or_else(AgentEvent::Garbage, AgentEvent::Assignment));
                }
                message = self.removed.next() => {
                    let signed = decode("the removed controllers", &message?, SMALL_MESSAGE_BYTES_MAX);
                    return Some(signed.map_or_else(AgentEvent::Garbage, AgentEvent::Removed));
                }
                message = self.questions.next() => {
                    let message = message?;
                    return Some(self.question(&message).unwrap_or_else(AgentEvent::Garbage));
                }
            }
        }
    }

    fn question(&self, message: &async_nats::Message) -> Result<AgentEvent, Error> {
        let what = "a question";
        let signed = decode(what, message, QUESTION_BYTES_MAX)?;
        let reply = AnswerTo { link: self.link.clone(), subject: reply_to(what, message)? };
        Ok(AgentEvent::Asked(signed, reply))
    }
}
