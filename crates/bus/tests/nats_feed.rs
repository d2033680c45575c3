//! The public feed on a real JetStream.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt as _;
use stele_bus::feed::{DIGEST_HEADER, OMITTED_HEADER, SEQ_HEADER};
use stele_bus::{ControllerBus, FeedRecord, FeedSource, SourceError};
use stele_model::Digest;
use support::{Nats, eventually};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A log in memory.
struct Log {
    records: Mutex<Vec<FeedRecord>>,
    committed: watch::Sender<u64>,
}

impl Log {
    fn new() -> Arc<Self> {
        Arc::new(Self { records: Mutex::default(), committed: watch::Sender::new(0) })
    }

    /// A log with records whose content depends on `history` and their seq.
    fn filled(history: &str, count: u64) -> Arc<Self> {
        let log = Self::new();
        for _ in 0..count {
            log.append(history);
        }
        log
    }

    fn append(&self, history: &str) {
        let mut records = self.records.lock().unwrap();
        let seq = records.len() as u64 + 1;
        let kind = if seq.is_multiple_of(2) { "latched" } else { "unlatched" };
        let json = Bytes::from(format!("{{\"seq\":{seq},\"history\":\"{history}\"}}"));
        records.push(FeedRecord { seq, kind: kind.to_owned(), digest: Some(Digest::of(&[&json])), json });
        self.committed.send_replace(seq);
    }

    /// Nobody has these records any more.
    fn lose(&self, seqs: std::ops::RangeInclusive<u64>) {
        for record in self.records.lock().unwrap().iter_mut().filter(|it| seqs.contains(&it.seq)) {
            *record = FeedRecord::lost(record.seq);
        }
    }

    fn last(&self) -> u64 {
        *self.committed.borrow()
    }
}

impl FeedSource for Log {
    fn records_after(&self, seq: u64, limit: usize) -> Result<Vec<FeedRecord>, SourceError> {
        let records = self.records.lock().unwrap();
        Ok(records.iter().skip(usize::try_from(seq)?).take(limit).cloned().collect())
    }
}

fn run(bus: &ControllerBus, log: &Arc<Log>) -> JoinHandle<()> {
    let (feed, log, committed) = (bus.feed(), log.clone(), log.committed.subscribe());
    tokio::spawn(async move { feed.run(log, committed).await })
}

async fn published(bus: &ControllerBus, log: &Log) {
    eventually("the feed has everything", async || {
        bus.feed().last_published_seq().await.ok().flatten() == Some(log.last())
    })
    .await;
}

/// Subject, headers and body of everything on the feed.
async fn content(nats: &Nats, bus: &ControllerBus) -> Vec<(String, Vec<Option<String>>, Bytes)> {
    let jetstream = async_nats::jetstream::new(nats.stranger().await);
    let stream = jetstream.get_stream(bus.feed().stream_name()).await.unwrap();
    let mut content = Vec::new();
    for sequence in 1..=stream.cached_info().state.last_sequence {
        let message = stream.get_raw_message(sequence).await.unwrap();
        let headers = [SEQ_HEADER, DIGEST_HEADER, OMITTED_HEADER, "Nats-Msg-Id"]
            .map(|name| message.headers.get(name).map(|value| value.as_str().to_owned()));
        content.push((message.subject.to_string(), headers.to_vec(), message.payload));
    }
    content
}

fn assert_shows(content: &[(String, Vec<Option<String>>, Bytes)], log: &Log) {
    let records = log.records.lock().unwrap();
    assert_eq!(content.len(), records.len());
    for ((subject, headers, body), record) in content.iter().zip(&*records) {
        let seq = Some(record.seq.to_string());
        assert_eq!(subject, &format!("stele.acme.events.{}", record.kind));
        let digest = record.digest.map(|digest| digest.to_string());
        assert_eq!(headers, &[seq.clone(), digest, None, seq]);
        assert_eq!(body, &record.json);
    }
}

#[tokio::test]
async fn every_record_is_published_in_order_and_new_ones_follow() {
    let nats = Nats::start().await;
    let bus = nats.controller().await;
    assert_eq!(bus.feed().last_published_seq().await.unwrap(), None);

    let log = Log::filled("one", 600);
    let running = run(&bus, &log);
    published(&bus, &log).await;
    for _ in 0..5 {
        log.append("one");
    }
    published(&bus, &log).await;
    assert_shows(&content(&nats, &bus).await, &log);
    running.abort();
}

#[tokio::test]
async fn a_feed_lost_with_its_server_is_made_again_identically() {
    let nats = Nats::start().await;
    let bus = nats.controller().await;
    let log = Log::filled("one", 300);
    let running = run(&bus, &log);
    published(&bus, &log).await;
    let before = content(&nats, &bus).await;

    let nats = nats.replace_with_an_empty_one().await;
    support::up(&mut bus.connections(), 2).await;
    published(&bus, &log).await;
    let after = content(&nats, &bus).await;
    assert_eq!(before, after);
    log.append("one");
    published(&bus, &log).await;
    assert_shows(&content(&nats, &bus).await, &log);
    running.abort();
}

#[tokio::test]
async fn what_stands_for_a_lost_record_keeps_its_place() {
    let nats = Nats::start().await;
    let bus = nats.controller().await;
    let log = Log::filled("one", 300);
    let running = run(&bus, &log);
    published(&bus, &log).await;
    running.abort();
    let whole = content(&nats, &bus).await;

    // Whoever publishes from then on lacks some of what is on the feed, and more.
    for _ in 0..100 {
        log.append("one");
    }
    log.lose(250..=350);
    let running = run(&bus, &log);
    published(&bus, &log).await;
    let shown = content(&nats, &bus).await;
    assert_eq!(shown[..300], whole, "what was published stays");
    running.abort();
    let records = log.records.lock().unwrap().clone();
    assert_eq!(shown[349].0, "stele.acme.events.record_lost");
    assert_eq!(shown[349].1[1], None, "it has no digest");
    assert_eq!(shown[350].2, records[350].json);

    // Whoever has one of them puts it back.
    let whole = Log::filled("one", 400);
    let running = run(&bus, &whole);
    let jetstream = async_nats::jetstream::new(nats.stranger().await);
    let shows_all = async || {
        let stream = jetstream.get_stream(bus.feed().stream_name()).await.ok()?;
        let message = stream.get_raw_message(350).await.ok()?;
        Some(stream.cached_info().state.last_sequence == 400 && !message.payload.is_empty())
    };
    eventually("it shows all", async || shows_all().await == Some(true)).await;
    assert_shows(&content(&nats, &bus).await, &whole);
    running.abort();
}

#[tokio::test]
async fn two_publishers_make_one_feed() {
    let nats = Nats::start().await;
    let (one, two) = (nats.controller().await, nats.controller().await);
    let log = Log::filled("one", 400);
    let running = [run(&one, &log), run(&two, &log)];
    for _ in 0..400 {
        log.append("one");
        tokio::task::yield_now().await;
    }
    published(&one, &log).await;
    assert_shows(&content(&nats, &one).await, &log);
    running.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn the_feed_of_another_history_is_replaced() {
    let nats = Nats::start().await;
    let bus = nats.controller().await;
    let old = Log::filled("a fleet of the same name that is no more", 50);
    let running = run(&bus, &old);
    published(&bus, &old).await;
    running.abort();

    let log = Log::filled("the fleet that is", 20);
    let running = run(&bus, &log);
    published(&bus, &log).await;
    assert_shows(&content(&nats, &bus).await, &log);
    running.abort();
}

#[tokio::test]
async fn a_feed_that_somebody_else_wrote_to_is_put_right() {
    let nats = Nats::start().await;
    let bus = nats.controller().await;
    let log = Log::filled("one", 10);
    let running = run(&bus, &log);
    published(&bus, &log).await;
    let stranger = nats.stranger().await;
    stranger.publish("stele.acme.events.latched", "forged".into()).await.unwrap();
    eventually("the forgery is on the feed", async || {
        bus.feed().last_published_seq().await.unwrap() == Some(11)
    })
    .await;

    log.append("one");
    // The feed is away for a moment while it is replaced.
    let jetstream = async_nats::jetstream::new(stranger);
    eventually("a record is in the forgery's place", async || {
        let Ok(stream) = jetstream.get_stream(bus.feed().stream_name()).await else { return false };
        stream.get_raw_message(11).await.is_ok_and(|message| message.headers.get(SEQ_HEADER).is_some())
    })
    .await;
    assert_shows(&content(&nats, &bus).await, &log);
    running.abort();
}

/// Headers of a message, as a stranger may write them.
fn headers(pairs: &[(&str, String)]) -> async_nats::HeaderMap {
    let mut headers = async_nats::HeaderMap::new();
    for (name, value) in pairs {
        headers.insert(*name, value.as_str());
    }
    headers
}

#[tokio::test]
async fn a_forgery_under_records_that_were_on_their_way_is_found() {
    let nats = Nats::start().await;
    let bus = nats.controller().await;
    let log = Log::filled("one", 10);
    let running = run(&bus, &log);
    published(&bus, &log).await;
    running.abort();
    // Of the next two records a leader's message of the second came after the forgery, and was taken.
    let jetstream = async_nats::jetstream::new(nats.stranger().await);
    let subject = "stele.acme.events.latched";
    jetstream.publish(subject, "forged".into()).await.unwrap().await.unwrap();
    log.append("one");
    log.append("one");
    let record = log.records.lock().unwrap()[11].clone();
    let with = headers(&[
        ("Nats-Msg-Id", "12".to_owned()),
        ("Nats-Expected-Last-Sequence", "11".to_owned()),
        (SEQ_HEADER, "12".to_owned()),
        (DIGEST_HEADER, record.digest.unwrap().to_string()),
    ]);
    jetstream.publish_with_headers(subject, with, record.json).await.unwrap().await.unwrap();

    let running = run(&bus, &log);
    becomes_right(&nats, &bus, &log).await;
    running.abort();
}

#[tokio::test]
async fn a_forgery_with_the_id_of_the_next_record_is_found() {
    let nats = Nats::start().await;
    let bus = nats.controller().await;
    let log = Log::filled("one", 10);
    let running = run(&bus, &log);
    published(&bus, &log).await;
    let stranger = nats.stranger().await;
    let jetstream = async_nats::jetstream::new(stranger.clone());
    let with = headers(&[
        ("Nats-Msg-Id", "11".to_owned()),
        (SEQ_HEADER, "11".to_owned()),
        (DIGEST_HEADER, Digest::of(&[b"another history"]).to_string()),
    ]);
    let forged = jetstream.publish_with_headers("stele.acme.events.latched", with, "forged".into());
    forged.await.unwrap().await.unwrap();
    // The server takes the record for a repetition of the forgery. The one after it is sent by itself.
    let mut sent = stranger.subscribe("stele.acme.events.*").await.unwrap();
    stranger.flush().await.unwrap();
    log.append("one");
    support::within("the record is sent", sent.next()).await.unwrap();
    log.append("one");
    becomes_right(&nats, &bus, &log).await;
    running.abort();
}

/// The feed is made again as the log has it; it is away for a moment meanwhile.
async fn becomes_right(nats: &Nats, bus: &ControllerBus, log: &Log) {
    let jetstream = async_nats::jetstream::new(nats.stranger().await);
    eventually("the feed is as the log has it", async || {
        let Ok(stream) = jetstream.get_stream(bus.feed().stream_name()).await else { return false };
        let digest = log.records.lock().unwrap()[10].digest.unwrap().to_string();
        let message = stream.get_raw_message(11).await;
        let is_ours = |found: &str| found == digest;
        message.is_ok_and(|it| it.headers.get(DIGEST_HEADER).is_some_and(|it| is_ours(it.as_str())))
    })
    .await;
    published(bus, log).await;
    assert_shows(&content(nats, bus).await, log);
}

#[tokio::test]
async fn an_event_too_large_for_the_feed_is_announced_without_its_content() {
    let nats = Nats::start().await;
    let bus = nats.controller().await;
    let log = Log::filled("one", 1);
    let size = stele_bus::limits::FEED_EVENT_BYTES_MAX + 1;
    log.records.lock().unwrap()[0].json = Bytes::from(vec![b'x'; size]);
    let running = run(&bus, &log);
    published(&bus, &log).await;
    let content = content(&nats, &bus).await;
    assert_eq!(content[0].1[2], Some(size.to_string()));
    assert!(content[0].2.is_empty());
    running.abort();
}

#[tokio::test]
async fn publishing_ends_with_the_log() {
    let nats = Nats::start().await;
    let bus = nats.controller().await;
    let (committed, watched) = watch::channel(0);
    let feed = bus.feed();
    let running = tokio::spawn(async move { feed.run(Log::new(), watched).await });
    drop(committed);
    support::within("the loop ends", running).await.unwrap();
}
