//! A controller's publisher of the public feed: the controller's and the bus's `feed.rs` without
//! their tasks. What is done next is the product's own decision.

use std::collections::{BTreeMap, BTreeSet};

use stele_codec::StoredRecord;
use stele_feed::limits::FEED_CHECK_MS;
use stele_feed::{Answer, Keeper, Rest, Step, Woken, guards};
use stele_model::{Digest, Seq};

use crate::controller::Process;
use crate::jetstream::{Reply, Request, Shown};
use crate::limits::FEED_ANSWER_US;
use crate::rng::mix;

/// Which question an answer is to: its number, and the seq it is about.
pub(crate) type Tag = (u64, Seq);

/// What stands for a record that nobody has any more.
pub(crate) const LOST: Digest = Digest::EMPTY;

/// Both of what is between a controller and the feed.
#[derive(Default)]
pub(crate) struct Feed {
    run: Option<Run>,
    numbered: u64,
    /// Until when it publishes although it does not lead.
    pub(crate) rival_until: u64,
    /// What leaves for the server.
    pub(crate) out: Vec<(Tag, Request)>,
    /// The records that nobody has any more.
    pub(crate) lost: BTreeSet<Seq>,
    /// Whether the disk does not give a record that is needed.
    pub(crate) starved: bool,
    /// What was taken for published, and on which stream.
    pub(crate) claims: Vec<(i128, Seq)>,
    /// What was found to be wrong with a feed that nobody but controllers wrote to.
    pub(crate) complaint: Option<String>,
}

/// While it leads.
#[derive(Default)]
struct Run {
    keeper: Keeper,
    asked: Option<Asked>,
    rest: Option<(Rest, u64)>,
    connection: (bool, u64),
    committed: Seq,
    /// The stream that was last seen.
    made: i128,
}

/// A question, or several at once, that the server has not answered.
struct Asked {
    number: u64,
    due_us: u64,
    step: Step,
    /// What each question is about, by seq; nothing for one about the stream.
    about: Vec<Shown>,
    replies: BTreeMap<Seq, Reply>,
}

impl Process {
    /// Committed records after a seq, as many as there are without a gap, or what stands for those that are lost.
    fn shown(&self, after: Seq, to: Seq) -> Vec<Shown> {
        let read = |seq| {
            if self.feed.lost.contains(&seq) {
                return Some((seq, LOST));
            }
            let bytes = self.store().record(seq).ok()??;
            let (stored, _) = StoredRecord::from_bytes(&bytes).ok()?;
            Some((seq, Digest::of(&[&stored.leaf])))
        };
        (after + 1..=to.min(self.state().seq)).map_while(read).collect()
    }

    fn is_damaged(&self, seq: Seq) -> bool {
        self.store().record(seq).is_err()
    }

    /// The server answers.
    pub(crate) fn feed_hears(&mut self, (number, seq): Tag, reply: Reply) {
        let asked = self.feed.run.as_mut().and_then(|run| run.asked.as_mut());
        if let Some(asked) = asked.filter(|asked| asked.number == number) {
            // Of what was sent twice, the first answer counts.
            asked.replies.entry(seq).or_insert(reply);
        }
    }

    /// Does what can be done for the feed now. `connection` tells whether NATS is there, and how
    /// often it came back.
    pub(crate) fn serve_feed(&mut self, now_us: u64, connection: (bool, u64)) {
        if !self.app.ledger.is_deciding() && now_us >= self.feed.rival_until {
            self.feed.run = None;
            return;
        }
        let mut run = self.feed.run.take().unwrap_or_default();
        loop {
            if let Some(asked) = run.asked.take() {
                if let Some(asked) = self.take_replies(&mut run, asked, now_us) {
                    run.asked = Some(asked);
                    break;
                }
            } else if let Some((rest, until)) = run.rest {
                let woken = if run.connection != connection {
                    Woken::Connection
                } else if now_us >= until {
                    Woken::Time
                } else if run.committed != self.state().seq && !matches!(rest, Rest::Retry { .. }) {
                    Woken::Committed
                } else {
                    break;
                };
                run.keeper.woken(woken);
                run.rest = None;
            } else {
                self.begin_step(&mut run, now_us, connection);
            }
        }
        self.feed.run = Some(run);
    }

    fn begin_step(&mut self, run: &mut Run, now_us: u64, connection: (bool, u64)) {
        run.connection = connection;
        run.committed = self.state().seq;
        let step = run.keeper.next(connection.0, run.committed);
        let mut about = Vec::new();
        match step {
            Step::Rest(rest) => {
                let pause_ms = match rest {
                    Rest::Done | Rest::Away => FEED_CHECK_MS,
                    Rest::Retry { ms } => ms / 2 + mix(now_us ^ self.app.id) % (ms / 2 + 1),
                };
                run.rest = Some((rest, now_us + pause_ms * 1000));
                return;
            }
            Step::Find | Step::Create | Step::Delete | Step::Await => {}
            Step::Compare { from, to } => {
                about = self.shown(from - 1, to);
                if about.last().is_none_or(|(seq, _)| *seq != to) {
                    self.feed.starved = self.is_damaged(from + about.len() as Seq);
                    return run.keeper.failed();
                }
            }
            Step::Publish { after, limit } => {
                about = self.shown(after, after + limit as Seq);
                // There is more, and this disk does not give it.
                if about.is_empty() || run.keeper.read(about.iter().map(|(seq, _)| *seq)).is_err() {
                    self.feed.starved = self.is_damaged(after + 1);
                    return run.keeper.failed();
                }
            }
        }
        self.feed.numbered += 1;
        let number = self.feed.numbered;
        let ask = |(seq, request)| ((number, seq), request);
        match step {
            Step::Find => self.feed.out.push(ask((0, Request::Find))),
            Step::Create => self.feed.out.push(ask((0, Request::Create))),
            Step::Delete => self.feed.out.push(ask((0, Request::Delete))),
            Step::Compare { .. } => {
                self.feed.out.extend(about.iter().map(|(seq, _)| ask((*seq, Request::Get(*seq)))));
            }
            _ => {
                let publish = |shown: &Shown| ask((shown.0, Request::Publish(guards(shown.0), *shown)));
                self.feed.out.extend(about.iter().map(publish));
            }
        }
        let due_us = now_us + FEED_ANSWER_US;
        run.asked = Some(Asked { number, due_us, step, about, replies: BTreeMap::new() });
    }

    /// Tells the keeper what was answered; gives the question back while it has to be waited for.
    fn take_replies(&mut self, run: &mut Run, mut asked: Asked, now_us: u64) -> Option<Asked> {
        let is_late = now_us >= asked.due_us;
        match asked.step {
            Step::Find | Step::Create | Step::Delete => match asked.replies.remove(&0) {
                Some(Reply::Stream(seen)) => {
                    run.made = seen.map_or(run.made, |seen| seen.made);
                    run.keeper.found(seen, run.committed);
                }
                Some(Reply::Deleted) => run.keeper.deleted(),
                Some(_) => run.keeper.failed(),
                None if is_late => run.keeper.failed(),
                None => return Some(asked),
            },
            Step::Compare { .. } => {
                for (seq, digest) in asked.about.iter().filter(|(_, digest)| *digest != LOST) {
                    match asked.replies.get(seq) {
                        Some(Reply::Message(Some((shown, forged)))) if *shown != Some((*seq, *digest)) => {
                            if !forged && shown.is_none_or(|(_, digest)| digest != LOST) {
                                self.feed.complaint = Some(format!("{seq} is {shown:?}, not {digest}"));
                            }
                            run.keeper.compared(false);
                            return None;
                        }
                        Some(Reply::Message(Some(_))) => {}
                        None if !is_late => return Some(asked),
                        _ => {
                            run.keeper.failed();
                            return None;
                        }
                    }
                }
                run.keeper.compared(true);
            }
            _ => {
                while let Some((seq, _)) = asked.about.first().copied() {
                    let answer = match asked.replies.get(&seq) {
                        Some(Reply::Stored { at, repeated }) => {
                            Answer::Stored { at: *at, repeated: *repeated }
                        }
                        Some(_) => Answer::Refused,
                        None if is_late => Answer::Unknown,
                        None => return Some(asked),
                    };
                    if !run.keeper.answered(answer) {
                        break;
                    }
                    self.feed.claims.push((run.made, seq));
                    asked.about.remove(0);
                }
            }
        }
        None
    }
}
