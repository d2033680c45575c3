//! The public event feed: every record of the log, in order, on JetStream.
//!
//! It is for integrators and is no ledger: whenever it is behind, gone, or not what
//! the log says, it is made again from the log. The stream is written by nobody else
//! and from its beginning, so its sequence numbers are the log's seqs; the server is
//! asked to check that at each message, and so there can be no gap and no reordering,
//! even when two controllers publish at once or a connection breaks half-way.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{NATS_EXPECTED_LAST_SEQUENCE, NATS_MESSAGE_ID};
use async_nats::jetstream::{
    self, ErrorCode,
    context::{GetStreamErrorKind, PublishErrorKind},
    message::PublishMessage,
    stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType, Stream},
};
use bytes::Bytes;
use stele_model::Digest;
use stele_model::ids::Seq;
use tokio::sync::watch;

use crate::connection::{Link, backoff_ms, jittered};
use crate::error::Error;
use crate::limits::{
    FEED_AGE_MAX, FEED_BATCH_RECORDS, FEED_BYTES_MAX, FEED_CHECK_INTERVAL, FEED_DUPLICATE_WINDOW,
    FEED_EVENT_BYTES_MAX, FEED_RETRY_FIRST_MS, FEED_RETRY_MS_MAX,
};
use crate::subjects;

/// Header with the record's seq.
pub const SEQ_HEADER: &str = "Stele-Seq";
/// Header with the record's digest.
pub const DIGEST_HEADER: &str = "Stele-Digest";
/// Header with the size in bytes of an event too large for the feed, which then has no body.
pub const OMITTED_HEADER: &str = "Stele-Omitted-Bytes";

/// One record as the feed shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedRecord {
    /// Its seq.
    pub seq: Seq,
    /// The stable word for its kind, which is the last level of its subject.
    pub kind: String,
    /// Tells it from a record with the same seq in another history: the payload's or leaf's hash.
    pub digest: Digest,
    /// The event as JSON.
    pub json: Bytes,
}

/// Why a source cannot give records.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// The committed log, to be read again and again.
pub trait FeedSource: Send + Sync {
    /// Committed records after `seq`, in order and without gaps, `limit` at most; none at the end.
    fn records_after(&self, seq: Seq, limit: usize) -> Result<Vec<FeedRecord>, SourceError>;
}

impl<S: FeedSource + ?Sized> FeedSource for Arc<S> {
    fn records_after(&self, seq: Seq, limit: usize) -> Result<Vec<FeedRecord>, SourceError> {
        (**self).records_after(seq, limit)
    }
}

/// Publishes the feed.
#[derive(Clone, Debug)]
pub struct Feed {
    link: Link,
    jetstream: jetstream::Context,
    stream: String,
}

impl Feed {
    pub(crate) fn new(link: Link) -> Self {
        let stream = subjects::feed_stream(&link.fleet);
        Self { jetstream: jetstream::new(link.client.clone()), stream, link }
    }

    /// Name of its JetStream stream.
    pub fn stream_name(&self) -> &str {
        &self.stream
    }

    /// The seq of the last event on the feed, zero for an empty one; `None` when there is no feed.
    pub async fn last_published_seq(&self) -> Result<Option<Seq>, Error> {
        Ok(self.find().await?.map(|stream| stream.cached_info().state.last_sequence))
    }

    /// Keeps the feed equal to the log, for ever: publishes what is committed, and makes the
    /// feed again when it is gone. Returns when the sender of `committed` (the highest committed
    /// seq) is dropped. Failures are logged and tried again.
    pub async fn run<S: FeedSource>(&self, source: S, mut committed: watch::Receiver<Seq>) {
        let mut connections = self.link.connections();
        let mut position = None;
        let mut failures = 0;
        loop {
            let pause = if connections.borrow_and_update().up {
                match self.catch_up(&source, &mut committed, position).await {
                    Ok(last) => {
                        position = Some(last);
                        failures = 0;
                        FEED_CHECK_INTERVAL
                    }
                    Err(error) => {
                        position = None;
                        failures += 1;
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "the public feed is behind; trying again"
                        );
                        let bound = backoff_ms(failures, FEED_RETRY_FIRST_MS, FEED_RETRY_MS_MAX);
                        Duration::from_millis(jittered(bound))
                    }
                }
            } else {
                position = None;
                FEED_CHECK_INTERVAL
            };
            tokio::select! {
                // After a failure only time helps: new records would fail in the same way.
                changed = committed.changed(), if failures == 0 => {
                    if changed.is_err() {
                        return;
                    }
                }
                // The server may have come back empty.
                _ = connections.changed() => position = None,
                () = tokio::time::sleep(pause) => position = None,
            }
            if failures > 0 && committed.has_changed().is_err() {
                return;
            }
        }
    }

    async fn catch_up<S: FeedSource>(
        &self,
        source: &S,
        committed: &mut watch::Receiver<Seq>,
        position: Option<Seq>,
    ) -> Result<Seq, Error> {
        let goal = *committed.borrow_and_update();
        let mut last = match position {
            Some(last) => last,
            None => self.look(source, goal).await?,
        };
        while last < goal {
            let records = source.records_after(last, FEED_BATCH_RECORDS).map_err(Error::Source)?;
            if records.is_empty() {
                break;
            }
            last = self.publish(last, records).await?;
        }
        Ok(last)
    }

    /// Finds or makes the stream and returns the last seq on it.
    async fn look<S: FeedSource>(&self, source: &S, committed: Seq) -> Result<Seq, Error> {
        let stream = match self.find().await? {
            Some(stream) => stream,
            None => self.create().await?,
        };
        let state = &stream.cached_info().state;
        let (first, last) = (state.first_sequence, state.last_sequence);
        let shared = last.min(committed);
        // One record tells the histories apart: each record's digest is over its content,
        // and nobody but controllers of this log should write here at all.
        if state.messages > 0 && shared >= first && shared > 0 {
            let ours = source.records_after(shared - 1, 1).map_err(Error::Source)?;
            let theirs = stream.get_raw_message(shared).await.map_err(Error::nats("read the public feed"))?;
            let header = |name| theirs.headers.get(name).map(|value| value.as_str().to_owned());
            let same = ours.first().is_some_and(|record| {
                record.seq == shared
                    && header(SEQ_HEADER) == Some(shared.to_string())
                    && header(DIGEST_HEADER) == Some(record.digest.to_string())
            });
            if !same {
                tracing::warn!(
                    stream = self.stream,
                    seq = shared,
                    "the public feed does not show this log; making it again from the log"
                );
                self.jetstream
                    .delete_stream(&self.stream)
                    .await
                    .map_err(Error::nats("delete the public feed"))?;
                self.create().await?;
                return Ok(0);
            }
        }
        Ok(last)
    }

    /// Publishes the records that follow `last`; the acknowledgements are awaited together.
    async fn publish(&self, last: Seq, records: Vec<FeedRecord>) -> Result<Seq, Error> {
        let mut due = last + 1;
        let mut acks = Vec::with_capacity(records.len());
        for record in records {
            if record.seq != due {
                return Err(Error::SourceGap { expected: due, found: record.seq });
            }
            if !self.link.is_up() {
                return Err(Error::Disconnected);
            }
            let (subject, message) = self.message(record);
            let ack = self
                .jetstream
                .send_publish(subject, message)
                .await
                .map_err(Error::nats("publish to the public feed"))?;
            acks.push((due, ack));
            due += 1;
        }
        for (seq, ack) in acks {
            let ack = ack.await.map_err(|error| match error.kind() {
                PublishErrorKind::WrongLastSequence | PublishErrorKind::StreamNotFound => {
                    Error::FeedChanged { why: error.to_string() }
                }
                _ => Error::Nats { doing: "publish to the public feed", source: Box::new(error) },
            })?;
            if ack.sequence != seq || ack.stream != self.stream {
                return Err(Error::FeedChanged {
                    why: format!("record {seq} became {} of {}", ack.sequence, ack.stream),
                });
            }
        }
        Ok(due - 1)
    }

    fn message(&self, record: FeedRecord) -> (String, PublishMessage) {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, record.seq.to_string());
        headers.insert(NATS_EXPECTED_LAST_SEQUENCE, (record.seq - 1).to_string());
        headers.insert(SEQ_HEADER, record.seq.to_string());
        headers.insert(DIGEST_HEADER, record.digest.to_string());
        let json = if record.json.len() > FEED_EVENT_BYTES_MAX {
            headers.insert(OMITTED_HEADER, record.json.len().to_string());
            Bytes::new()
        } else {
            record.json
        };
        let message = PublishMessage::build().payload(json).headers(headers);
        (subjects::event(&self.link.fleet, &record.kind), message)
    }

    async fn find(&self) -> Result<Option<Stream<Info>>, Error> {
        if !self.link.is_up() {
            return Err(Error::Disconnected);
        }
        match self.jetstream.get_stream(&self.stream).await {
            Ok(stream) => Ok(Some(stream)),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(cause) if cause.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    Ok(None)
                }
                _ => Err(Error::Nats { doing: "look at the public feed", source: Box::new(error) }),
            },
        }
    }

    async fn create(&self) -> Result<Stream<Info>, Error> {
        self.jetstream
            .create_stream(Config {
                name: self.stream.clone(),
                description: Some("Every event of the fleet, for integrators; made from the log.".to_owned()),
                subjects: vec![subjects::every_event(&self.link.fleet)],
                retention: RetentionPolicy::Limits,
                discard: DiscardPolicy::Old,
                storage: StorageType::File,
                num_replicas: 1,
                max_age: FEED_AGE_MAX,
                max_bytes: FEED_BYTES_MAX,
                max_messages: -1,
                max_messages_per_subject: -1,
                max_consumers: -1,
                duplicate_window: FEED_DUPLICATE_WINDOW,
                ..Config::default()
            })
            .await
            .map_err(Error::nats("create the public feed"))
    }
}
