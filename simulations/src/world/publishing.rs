//! Between the controllers and the stream of the public feed, and what must hold on it.

use stele_codec::StoredRecord;
use stele_feed::Guards;
use stele_model::{ControllerId, Digest, Seq};

use super::{Event, World};
use crate::feed::{LOST, Tag};
use crate::jetstream::{Reply, Request, Shown};

/// Of a thousand messages, how many are late where some are.
const LATE_PERMILLE: u32 = 150;
/// Longest way to the server and back from it where nothing is wrong, in microseconds.
const WAY_US_MAX: u64 = 2_000;

/// What becomes of messages to the stream and of its answers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FeedWeather {
    pub(super) lose: u32,
    pub(super) repeat: u32,
    pub(super) lose_answers: u32,
    /// How late some are, in microseconds.
    pub(super) late_us: u64,
}

impl World {
    /// A controller does what it can for the feed.
    pub(super) fn publish(&mut self, id: ControllerId) {
        let (now, connection) = (self.now_us, (self.bus_up, self.bus_count));
        let lost = self.lost_at(id);
        let Some(controller) = self.controllers.get_mut(&id) else { return };
        let (incarnation, local) = (controller.incarnation, controller.clock.local_us(now));
        let Some(process) = &mut controller.process else { return };
        process.feed.lost = lost;
        process.serve_feed(local, connection);
        let (out, claims) = (std::mem::take(&mut process.feed.out), std::mem::take(&mut process.feed.claims));
        let complaint = process.feed.complaint.take();
        let mut oracle = self.oracle.borrow_mut();
        for (made, seq) in claims {
            oracle.require(self.jetstream.ever_had(made, seq), "published-is-on-the-feed", || {
                format!("controller {id} takes record {seq} for published on stream {made}")
            });
        }
        if let Some(complaint) = complaint {
            oracle.fail("the-feed-is-made-again-only-when-wrong", format!("controller {id}: {complaint}"));
        }
        drop(oracle);
        for (tag, request) in out {
            self.send_to_stream(id, incarnation, tag, request);
        }
    }

    fn send_to_stream(&mut self, from: ControllerId, incarnation: u64, tag: Tag, request: Request) {
        let FeedWeather { lose, repeat, .. } = self.feed_weather;
        let copies = 1 + u32::from(repeat > 0 && self.feed_rng.chance(repeat));
        for _ in 0..copies {
            if !self.bus_up || (lose > 0 && self.feed_rng.chance(lose)) {
                continue;
            }
            let at = self.feed_way(from);
            self.push(at, Event::FeedAsks { from, incarnation, tag, request });
        }
    }

    /// When something that leaves now gets there. On a connection nothing overtakes anything, unless
    /// it is one of the messages that are late.
    fn feed_way(&mut self, of: ControllerId) -> u64 {
        let at = self.now_us + 200 + self.feed_rng.below(WAY_US_MAX);
        let late_us = self.feed_weather.late_us;
        if late_us > 0 && self.feed_rng.chance(LATE_PERMILLE) {
            return at + self.feed_rng.below(late_us);
        }
        let last = self.feed_ways.entry(of).or_default();
        *last = at.max(*last);
        *last
    }

    /// The server takes a question, and answers.
    pub(super) fn stream_hears(&mut self, from: ControllerId, incarnation: u64, tag: Tag, request: Request) {
        if !self.bus_up {
            return;
        }
        let now = self.now_us;
        if matches!(request, Request::Create | Request::Delete) {
            self.trace.say(now, || format!("controller {from} to the public feed: {request:?}"));
        }
        let Some(reply) = self.jetstream.ask(now, from, request) else { return };
        if let Reply::Stored { repeated: false, .. } = reply {
            self.check_stored();
        }
        let lose = self.feed_weather.lose_answers;
        if lose > 0 && self.feed_rng.chance(lose) {
            return;
        }
        let at = self.feed_way(from);
        self.push(at, Event::FeedHears { to: from, incarnation, tag, reply });
    }

    /// A controller hears what the server answered its process.
    pub(super) fn publisher_hears(&mut self, to: ControllerId, incarnation: u64, tag: Tag, reply: Reply) {
        let now = self.now_us;
        let Some(controller) = self.controllers.get_mut(&to) else { return };
        if controller.incarnation != incarnation {
            return;
        }
        let paused = controller.paused_until;
        if paused > now {
            return self.push(paused, Event::FeedHears { to, incarnation, tag, reply });
        }
        let Some(process) = &mut controller.process else { return };
        process.feed_hears(tag, reply);
        self.publish(to);
    }

    /// Whoever looks after a fleet reads in a leader's log that it cannot read what it is to publish.
    pub(super) fn end_starved(&mut self) {
        for controller in self.controllers.values_mut().filter(|it| it.bad_disk) {
            if controller.process.as_ref().is_some_and(|process| process.feed.starved) {
                controller.broken = true;
                controller.crash();
            }
        }
    }

    /// Old messages arrive at the stream once more.
    pub(super) fn replay_feed(&mut self, pick: u64, count: u64) {
        for (from, guards, shown) in self.jetstream.old(pick, count) {
            // Nobody waits for an answer.
            self.publish_again(from, guards, shown);
        }
    }

    fn publish_again(&mut self, from: ControllerId, guards: Guards, shown: Shown) {
        let at = self.now_us + 200 + self.feed_rng.below(WAY_US_MAX);
        self.push(
            at,
            Event::FeedAsks { from, incarnation: 0, tag: (0, 0), request: Request::Publish(guards, shown) },
        );
    }

    /// What a controller's message was just stored as.
    fn check_stored(&mut self) {
        let Some((at, (seq, digest))) = self.jetstream.last() else { return };
        let mut oracle = self.oracle.borrow_mut();
        oracle.require(at == seq, "the-feed-has-no-gap", || format!("record {seq} became message {at}"));
        let own = oracle.records.get(seq as usize - 1).and_then(|bytes| leaf(bytes));
        let is_lost = digest == LOST && self.is_lost(seq);
        oracle.require(own == Some(digest) || is_lost, "the-feed-shows-the-log", || {
            format!("message {at} shows {digest}, the log has {own:?}")
        });
    }

    /// What the feed lacks, or shows and should not. Behind the last record a forgery may stand until
    /// there is a record that belongs there: it could be another leader's.
    pub(crate) fn feed_lacks(&self) -> Option<String> {
        let Some((first, shown)) = self.jetstream.content() else {
            return Some("there is no public feed".to_owned());
        };
        let oracle = self.oracle.borrow();
        let last = first - 1 + shown.len() as Seq;
        if last < oracle.head() {
            return Some(format!("the public feed ends at {last}, the log at {}", oracle.head()));
        }
        let wrong = (first..=oracle.head()).zip(&shown).find(|(seq, shown)| {
            let own = oracle.records.get(*seq as usize - 1).and_then(|bytes| leaf(bytes));
            let is_lost = **shown == Some((*seq, LOST)) && self.is_lost(*seq);
            **shown != own.map(|digest| (*seq, digest)) && !is_lost
        });
        wrong.map(|(seq, shown)| format!("the public feed shows {shown:?} as {seq}"))
    }
}

fn leaf(bytes: &[u8]) -> Option<Digest> {
    let (stored, _) = StoredRecord::from_bytes(bytes).ok()?;
    Some(Digest::of(&[&stored.leaf]))
}
