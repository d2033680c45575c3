//! The public event feed: every record of the log, in order, on JetStream.
//!
//! It is for integrators and is no ledger: whenever it is behind, gone, or not what
//! the log says, it is made again from the log. What is done next is decided by
//! [`stele_feed::Keeper`]; here it is carried out.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{NATS_EXPECTED_LAST_SEQUENCE, NATS_MESSAGE_ID};
use async_nats::jetstream::{
    self, ErrorCode,
    context::{GetStreamErrorKind, PublishError, PublishErrorKind},
    message::PublishMessage,
    publish::PublishAck,
    stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType, Stream},
};
use bytes::Bytes;
use stele_feed::limits::FEED_CHECK_MS;
use stele_feed::{Answer, Keeper, Rest, Seen, Step, Woken, guards};
use stele_model::Digest;
use stele_model::ids::Seq;
use tokio::sync::watch;

use crate::connection::{Link, jittered};
use crate::error::Error;
use crate::limits::{FEED_AGE_MAX, FEED_BYTES_MAX, FEED_DUPLICATE_WINDOW, FEED_EVENT_BYTES_MAX, FEED_LINGER};
use crate::subjects;

/// Header with the record's seq.
pub const SEQ_HEADER: &str = "Stele-Seq";
/// Header with the record's digest.
pub const DIGEST_HEADER: &str = "Stele-Digest";
/// Header of what stands in place of a record that no controller has any more. It has no digest and no body.
pub const LOST_HEADER: &str = "Stele-Lost";
/// Header with the size in bytes of an event too large for the feed, which then has no body.
pub const OMITTED_HEADER: &str = "Stele-Omitted-Bytes";

/// One record as the feed shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedRecord {
    /// Its seq.
    pub seq: Seq,
    /// The stable word for its kind, which is the last level of its subject.
    pub kind: String,
    /// Tells it from a record with the same seq in another history: the payload's or leaf's hash. None of a record
    /// that is lost for good.
    pub digest: Option<Digest>,
    /// The event as JSON.
    pub json: Bytes,
}

impl FeedRecord {
    /// In place of a record that is lost for good, so that those behind it stand where they belong.
    pub fn lost(seq: Seq) -> Self {
        Self { seq, kind: LOST_KIND.to_owned(), digest: None, json: Bytes::new() }
    }
}

/// The last level of the subject of a record that is lost.
const LOST_KIND: &str = "record_lost";

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
        let mut keeper = Keeper::default();
        loop {
            let connected = connections.borrow_and_update().up;
            let goal = *committed.borrow_and_update();
            let step = keeper.next(connected, goal);
            let Step::Rest(rest) = step else {
                if let Err(error) = self.carry_out(step, &mut keeper, &source, goal).await {
                    keeper.failed();
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the public feed is behind; trying again"
                    );
                }
                continue;
            };
            let pause = match rest {
                Rest::Done | Rest::Away => FEED_CHECK_MS,
                Rest::Retry { ms } => jittered(ms),
            };
            let woken = tokio::select! {
                // After a failure only time helps: new records would fail in the same way.
                _ = committed.changed(), if !matches!(rest, Rest::Retry { .. }) => Woken::Committed,
                _ = connections.changed() => Woken::Connection,
                () = tokio::time::sleep(Duration::from_millis(pause)) => Woken::Time,
            };
            if woken == Woken::Committed {
                // What follows at once is published together: every message alone would cost a round trip.
                tokio::time::sleep(FEED_LINGER).await;
            }
            if committed.has_changed().is_err() {
                return;
            }
            keeper.woken(woken);
        }
    }

    /// Does what the keeper decided, and tells it what came of it.
    async fn carry_out<S: FeedSource>(
        &self,
        step: Step,
        keeper: &mut Keeper,
        source: &S,
        committed: Seq,
    ) -> Result<(), Error> {
        match step {
            Step::Find => keeper.found(self.find().await?.as_ref().map(seen), committed),
            Step::Create => keeper.found(Some(seen(&self.create().await?)), committed),
            Step::Compare { from, to } => keeper.compared(self.shows(source, from, to).await?),
            Step::Delete => {
                self.jetstream
                    .delete_stream(&self.stream)
                    .await
                    .map_err(Error::nats("delete the public feed"))?;
                keeper.deleted();
            }
            Step::Publish { after, limit } => {
                let records = source.records_after(after, limit).map_err(Error::Source)?;
                keeper
                    .read(records.iter().map(|record| record.seq))
                    .map_err(|gap| Error::SourceGap { expected: gap.expected, found: gap.found })?;
                self.publish(keeper, records).await?;
            }
            // Answers are awaited where messages are sent.
            Step::Await | Step::Rest(_) => {}
        }
        Ok(())
    }

    /// Whether the stream has what the log has, from one seq to another.
    async fn shows<S: FeedSource>(&self, source: &S, from: Seq, to: Seq) -> Result<bool, Error> {
        let stream = self
            .jetstream
            .get_stream_no_info(&self.stream)
            .await
            .map_err(Error::nats("look at the public feed"))?;
        let mut due = from;
        while due <= to {
            let limit = usize::try_from(to - due).unwrap_or(usize::MAX).saturating_add(1);
            let ours = source.records_after(due - 1, limit).map_err(Error::Source)?;
            if ours.is_empty() {
                return Err(Error::Source(format!("it did not give record {due}").into()));
            }
            for record in ours {
                if record.seq != due {
                    return Err(Error::SourceGap { expected: due, found: record.seq });
                }
                let theirs =
                    stream.get_raw_message(due).await.map_err(Error::nats("read the public feed"))?;
                let has = |name, value: String| {
                    theirs.headers.get(name).is_some_and(|found| found.as_str() == value)
                };
                // What is lost may have been published while it was not.
                let is_same = record.digest.is_none_or(|digest| {
                    has(SEQ_HEADER, due.to_string()) && has(DIGEST_HEADER, digest.to_string())
                });
                if !is_same {
                    tracing::warn!(
                        stream = self.stream,
                        seq = due,
                        "the public feed does not show this log; making it again from the log"
                    );
                    return Ok(false);
                }
                due += 1;
            }
        }
        Ok(true)
    }

    /// Sends records; the acknowledgements are awaited together.
    async fn publish(&self, keeper: &mut Keeper, records: Vec<FeedRecord>) -> Result<(), Error> {
        let mut acks = Vec::with_capacity(records.len());
        for record in records {
            if !self.link.is_up() {
                return Err(Error::Disconnected);
            }
            let seq = record.seq;
            let (subject, message) = self.message(record);
            let ack = self
                .jetstream
                .send_publish(subject, message)
                .await
                .map_err(Error::nats("publish to the public feed"))?;
            acks.push((seq, ack));
        }
        for (seq, ack) in acks {
            let (answer, error) = self.answer(seq, ack.await);
            if !keeper.answered(answer) {
                return Err(error);
            }
        }
        Ok(())
    }

    /// What came of a record's message, and how that is said if it does not count.
    fn answer(&self, seq: Seq, ack: Result<PublishAck, PublishError>) -> (Answer, Error) {
        match ack {
            Ok(ack) => {
                let why = format!("record {seq} became {} of {}", ack.sequence, ack.stream);
                let answer = if ack.stream == self.stream {
                    Answer::Stored { at: ack.sequence, repeated: ack.duplicate }
                } else {
                    Answer::Refused
                };
                (answer, Error::FeedChanged { why })
            }
            Err(error) => match error.kind() {
                PublishErrorKind::WrongLastSequence | PublishErrorKind::StreamNotFound => {
                    (Answer::Refused, Error::FeedChanged { why: error.to_string() })
                }
                _ => {
                    let doing = "publish to the public feed";
                    (Answer::Unknown, Error::Nats { doing, source: Box::new(error) })
                }
            },
        }
    }

    fn message(&self, record: FeedRecord) -> (String, PublishMessage) {
        let mut headers = HeaderMap::new();
        let guards = guards(record.seq);
        headers.insert(NATS_MESSAGE_ID, guards.id.to_string());
        headers.insert(NATS_EXPECTED_LAST_SEQUENCE, guards.last.to_string());
        headers.insert(SEQ_HEADER, record.seq.to_string());
        match record.digest {
            Some(digest) => headers.insert(DIGEST_HEADER, digest.to_string()),
            None => headers.insert(LOST_HEADER, "true"),
        }
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

fn seen(stream: &Stream<Info>) -> Seen {
    let info = stream.cached_info();
    let last = info.state.last_sequence;
    let first = if info.state.messages == 0 { last + 1 } else { info.state.first_sequence };
    Seen { made: info.created.unix_timestamp_nanos(), first, last }
}
