//! The controllers' end of the wire.

use std::time::Duration;

use async_nats::{Subject, Subscriber};
use bytes::Bytes;
use futures::StreamExt as _;
use stele_model::ids::{FleetName, NodeName, RegionName};
use stele_model::wire::Signed;
use tokio::sync::watch;

use crate::connection::{BusConfig, Connection, Link, Manner};
use crate::error::Error;
use crate::feed::Feed;
use crate::limits::{
    ANSWER_BYTES_MAX, ASSIGNMENT_BYTES_MAX, CONTROLLER_RECEIVE_QUEUE, CONTROLLER_SEND_QUEUE,
    QUESTION_BYTES_MAX, REPORT_BYTES_MAX, SMALL_MESSAGE_BYTES_MAX,
};
use crate::message::{decode, encode, reply_to};
use crate::subjects::{self, NodeTopic};

/// Who among the controllers gets a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// One of those that ask for it this way.
    One,
    /// Every one that asks for it this way.
    Every,
}

/// A controller's connection to NATS. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ControllerBus {
    link: Link,
}

impl ControllerBus {
    /// Begins to connect, and keeps connecting for ever; it fails only for a bad configuration.
    pub async fn connect(config: BusConfig) -> Result<Self, Error> {
        let manner = Manner {
            send_queue: CONTROLLER_SEND_QUEUE,
            receive_queue: CONTROLLER_RECEIVE_QUEUE,
            read_buffer_bytes: None,
            reconnect_spread_ms: 0,
        };
        Ok(Self { link: Link::open(config, manner).await? })
    }

    /// Whether messages can be sent now.
    pub fn is_connected(&self) -> bool {
        self.link.is_up()
    }

    /// Largest assignment that can be sent, in bytes: a NATS server may carry less than Stele needs. What it
    /// carries is known once it is reached.
    pub fn assignment_bytes_max(&self) -> usize {
        if self.is_connected() {
            ASSIGNMENT_BYTES_MAX.min(self.link.client.max_payload())
        } else {
            ASSIGNMENT_BYTES_MAX
        }
    }

    /// Whether an assignment of so many bytes could be sent now.
    pub fn check_assignment(&self, bytes: usize) -> Result<(), Error> {
        self.link.check("an assignment", bytes, ASSIGNMENT_BYTES_MAX)
    }

    /// Tells of every connection lost and made.
    pub fn connections(&self) -> watch::Receiver<Connection> {
        self.link.connections()
    }

    /// Sends a node its assignment, a signed [`stele_model::wire::Assignment`].
    ///
    /// Nothing tells whether it arrived but the node's heartbeats. A region's subjects must not
    /// lie in the public feed, so [`subjects::is_reserved_region`] names are refused.
    pub async fn publish_assignment(
        &self,
        region: &RegionName,
        node: &NodeName,
        assignment: &Signed,
    ) -> Result<(), Error> {
        if subjects::is_reserved_region(region) {
            return Err(Error::ReservedRegion);
        }
        let subject = subjects::node(&self.link.fleet, region, node, NodeTopic::Assignment);
        let payload = encode("encode an assignment", assignment)?;
        self.link.publish("an assignment", subject, payload, ASSIGNMENT_BYTES_MAX).await
    }

    /// Tells every node which controllers were removed, with a signed [`stele_model::wire::RemovedControllers`].
    /// Who is not connected now has to be told again.
    pub async fn publish_removed(&self, removed: &Signed) -> Result<(), Error> {
        let what = "the removed controllers";
        let payload = encode("encode the removed controllers", removed)?;
        self.link.publish(what, subjects::removed(&self.link.fleet), payload, SMALL_MESSAGE_BYTES_MAX).await
    }

    /// Begins to receive the nodes' reports.
    pub async fn reports(&self, audience: Audience) -> Result<Reports, Error> {
        let subject = subjects::every_node(&self.link.fleet, NodeTopic::Report);
        Ok(Reports { messages: self.subscribe(subject, audience).await?, link: self.link.clone() })
    }

    /// Begins to receive the nodes' heartbeats.
    pub async fn heartbeats(&self, audience: Audience) -> Result<Heartbeats, Error> {
        let subject = subjects::every_node(&self.link.fleet, NodeTopic::Heartbeat);
        Ok(Heartbeats { messages: self.subscribe(subject, audience).await?, fleet: self.link.fleet.clone() })
    }

    /// Begins to receive the nodes' requests for their assignment; each reaches one controller.
    pub async fn sync_requests(&self) -> Result<SyncRequests, Error> {
        let subject = subjects::every_sync(&self.link.fleet);
        Ok(SyncRequests { messages: self.subscribe(subject, Audience::One).await?, link: self.link.clone() })
    }

    /// Asks a node with a signed [`crate::ask::Request`]; the answer, a signed
    /// [`crate::ask::Answer`], is not verified yet.
    pub async fn ask(
        &self,
        region: &RegionName,
        node: &NodeName,
        request: &Signed,
        within: Duration,
    ) -> Result<Signed, Error> {
        let subject = subjects::node(&self.link.fleet, region, node, NodeTopic::Ask);
        let payload = encode("encode a question", request)?;
        let answer = self
            .link
            .request(
                "a question",
                "the node's agent is not connected",
                subject,
                payload,
                QUESTION_BYTES_MAX,
                within,
            )
            .await?;
        decode("an answer", &answer, ANSWER_BYTES_MAX)
    }

    /// The public event feed.
    pub fn feed(&self) -> Feed {
        Feed::new(self.link.clone())
    }

    async fn subscribe(&self, subject: String, audience: Audience) -> Result<Subscriber, Error> {
        let client = &self.link.client;
        match audience {
            Audience::Every => client.subscribe(subject).await,
            Audience::One => {
                client.queue_subscribe(subject, subjects::controllers_group(&self.link.fleet)).await
            }
        }
        .map_err(Error::nats("subscribe on NATS"))
    }
}

/// A message of a node, not verified yet: region and node are what the subject says.
#[derive(Clone, Debug)]
pub struct FromNode {
    /// The region in the subject.
    pub region: RegionName,
    /// The node in the subject.
    pub node: NodeName,
    /// The message.
    pub signed: Signed,
}

impl FromNode {
    fn read(
        fleet: &FleetName,
        topic: NodeTopic,
        what: &'static str,
        message: &async_nats::Message,
        max: usize,
    ) -> Result<Self, Error> {
        let (region, node) =
            subjects::parse_node(fleet, topic, &message.subject).ok_or_else(|| Error::Malformed {
                subject: message.subject.to_string(),
                what,
                why: "the subject names no region and node".to_owned(),
            })?;
        Ok(Self { region, node, signed: decode(what, message, max)? })
    }
}

/// Where a report is acknowledged.
#[derive(Clone, Debug)]
pub struct Ack {
    link: Link,
    subject: Subject,
}

impl Ack {
    /// Tells the node with a signed [`stele_model::wire::ReportAck`] that its report is committed.
    ///
    /// Should it be lost, the node sends the same report again.
    pub async fn send(self, ack: &Signed) -> Result<(), Error> {
        let payload = encode("encode an acknowledgement", ack)?;
        self.link
            .publish("an acknowledgement", self.subject.to_string(), payload, SMALL_MESSAGE_BYTES_MAX)
            .await
    }
}

/// Reports as they arrive: see [`ControllerBus::reports`].
#[derive(Debug)]
pub struct Reports {
    messages: Subscriber,
    link: Link,
}

impl Reports {
    /// The next report with where to acknowledge it, or why a message is none.
    /// `None` once the connection is closed for good. Cancelling loses nothing.
    pub async fn next(&mut self) -> Option<Result<(FromNode, Ack), Error>> {
        let message = self.messages.next().await?;
        Some(self.read(&message))
    }

    fn read(&self, message: &async_nats::Message) -> Result<(FromNode, Ack), Error> {
        let what = "a report";
        let from = FromNode::read(&self.link.fleet, NodeTopic::Report, what, message, REPORT_BYTES_MAX)?;
        let ack = Ack { link: self.link.clone(), subject: reply_to(what, message)? };
        Ok((from, ack))
    }
}

/// Heartbeats as they arrive: see [`ControllerBus::heartbeats`].
#[derive(Debug)]
pub struct Heartbeats {
    messages: Subscriber,
    fleet: FleetName,
}

impl Heartbeats {
    /// The next heartbeat, or why a message is none; `None` once the connection is closed for good.
    pub async fn next(&mut self) -> Option<Result<FromNode, Error>> {
        let message = self.messages.next().await?;
        Some(FromNode::read(
            &self.fleet,
            NodeTopic::Heartbeat,
            "a heartbeat",
            &message,
            SMALL_MESSAGE_BYTES_MAX,
        ))
    }
}

/// Requests for assignments as they arrive: see [`ControllerBus::sync_requests`].
#[derive(Debug)]
pub struct SyncRequests {
    messages: Subscriber,
    link: Link,
}

impl SyncRequests {
    /// The next request, a signed [`stele_model::wire::SyncRequest`], with where to answer it, or
    /// why a message is none; `None` once the connection is closed for good.
    pub async fn next(&mut self) -> Option<Result<(Signed, SyncReply), Error>> {
        let message = self.messages.next().await?;
        Some(self.read(&message))
    }

    fn read(&self, message: &async_nats::Message) -> Result<(Signed, SyncReply), Error> {
        let what = "a sync request";
        let signed = decode(what, message, SMALL_MESSAGE_BYTES_MAX)?;
        Ok((signed, SyncReply { link: self.link.clone(), subject: reply_to(what, message)? }))
    }
}

/// Where a sync request is answered.
#[derive(Clone, Debug)]
pub struct SyncReply {
    link: Link,
    subject: Subject,
}

impl SyncReply {
    /// Answers with the node's signed assignment; `None` says that what it has is current.
    pub async fn send(self, assignment: Option<&Signed>) -> Result<(), Error> {
        let payload = match assignment {
            Some(signed) => encode("encode an assignment", signed)?,
            None => Bytes::new(),
        };
        self.link.publish("an assignment", self.subject.to_string(), payload, ASSIGNMENT_BYTES_MAX).await
    }
}
