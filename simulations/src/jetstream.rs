//! JetStream as far as the public feed needs it: one stream, whose sequence numbers, message ids and
//! checks are the server's. Whatever else a fault makes of it, it never checks less than it says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use stele_feed::{Guards, Seen};
use stele_model::{ControllerId, Digest, Seq};

/// Old messages kept for being delivered again.
const OLD_KEPT: usize = 256;

/// Which record a message says it is: its seq and its digest.
pub(crate) type Shown = (Seq, Digest);

/// What a controller asks of the server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Request {
    /// Is there a stream?
    Find,
    /// Make it, unless there is one.
    Create,
    /// Delete it.
    Delete,
    /// Give the message of a sequence number.
    Get(Seq),
    /// Take a record.
    Publish(Guards, Shown),
}

/// What the server answers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reply {
    /// The stream, if there is one.
    Stream(Option<Seen>),
    /// It is deleted.
    Deleted,
    /// A message, if it is there: what it shows, and whether a stranger wrote it.
    Message(Option<(Option<Shown>, bool)>),
    /// It is stored under this number, or was before.
    Stored { at: Seq, repeated: bool },
    /// The last message is another one.
    Refused,
}

#[derive(Clone, Copy, Debug)]
struct Message {
    shown: Option<Shown>,
    forged: bool,
}

#[derive(Debug)]
struct Stream {
    made: i128,
    /// How many were there, including what is no longer kept.
    last: Seq,
    kept: VecDeque<Message>,
    /// When an id was taken, and under which number.
    ids: BTreeMap<Seq, (u64, Seq)>,
}

/// The server.
#[derive(Debug)]
pub(crate) struct JetStream {
    stream: Option<Stream>,
    made: i128,
    /// How long an id is remembered, in microseconds.
    window_us: u64,
    /// The highest sequence number of each stream there ever was.
    tops: BTreeMap<i128, Seq>,
    old: VecDeque<(ControllerId, Guards, Shown)>,
    /// Who is as good as a stranger, because its history was lost.
    lost: BTreeSet<ControllerId>,
}

impl JetStream {
    /// An empty server.
    pub(crate) fn new(window_us: u64) -> Self {
        Self {
            stream: None,
            made: 0,
            window_us,
            tops: BTreeMap::new(),
            old: VecDeque::new(),
            lost: BTreeSet::new(),
        }
    }

    /// Answers; nothing, where a real server has nobody who would.
    pub(crate) fn ask(&mut self, now_us: u64, from: ControllerId, request: Request) -> Option<Reply> {
        match request {
            Request::Find => Some(Reply::Stream(self.seen())),
            Request::Create => {
                if self.stream.is_none() {
                    self.made += 1;
                    self.stream = Some(Stream {
                        made: self.made,
                        last: 0,
                        kept: VecDeque::new(),
                        ids: BTreeMap::new(),
                    });
                }
                Some(Reply::Stream(self.seen()))
            }
            Request::Delete => {
                self.stream = None;
                Some(Reply::Deleted)
            }
            Request::Get(seq) => {
                let message = self.stream.as_ref().and_then(|stream| stream.get(seq));
                Some(Reply::Message(message.map(|message| (message.shown, message.forged))))
            }
            Request::Publish(guards, shown) => {
                if self.old.len() == OLD_KEPT {
                    self.old.pop_front();
                }
                self.old.push_back((from, guards, shown));
                self.take(now_us, from, guards, shown)
            }
        }
    }

    /// As the server does it: first the id is looked for, then the number of the last message.
    fn take(&mut self, now_us: u64, from: ControllerId, guards: Guards, shown: Shown) -> Option<Reply> {
        let (window_us, forged) = (self.window_us, self.lost.contains(&from));
        let stream = self.stream.as_mut()?;
        if let Some((at_us, at)) = stream.ids.get(&guards.id).copied()
            && now_us < at_us + window_us
        {
            return Some(Reply::Stored { at, repeated: true });
        }
        if stream.last != guards.last {
            return Some(Reply::Refused);
        }
        stream.store(Message { shown: Some(shown), forged });
        stream.ids.insert(guards.id, (now_us, stream.last));
        self.tops.insert(stream.made, stream.last);
        Some(Reply::Stored { at: stream.last, repeated: false })
    }

    fn seen(&self) -> Option<Seen> {
        let stream = self.stream.as_ref()?;
        Some(Seen { made: stream.made, first: stream.first(), last: stream.last })
    }

    /// What some controllers wrote after a record is of a history that is lost, and so is what they still write.
    pub(crate) fn forget_after(&mut self, last: Seq, lost: &BTreeSet<ControllerId>) {
        self.lost.extend(lost);
        if let Some(stream) = &mut self.stream {
            for message in &mut stream.kept {
                message.forged |= message.shown.is_none_or(|(seq, _)| seq > last);
            }
        }
    }

    /// The server loses the stream.
    pub(crate) fn lose(&mut self) {
        self.stream = None;
    }

    /// A stranger writes, as plainly as can be, or what looks like the next record of another log.
    pub(crate) fn forge(&mut self, now_us: u64, like_a_record: bool) {
        let Some(stream) = self.stream.as_mut() else { return };
        let next = stream.last + 1;
        let shown = like_a_record.then(|| (next, Digest::of(&[b"another history"])));
        stream.store(Message { shown, forged: true });
        if like_a_record {
            stream.ids.insert(next, (now_us, next));
        }
        self.tops.insert(stream.made, next);
    }

    /// The oldest messages have to go: so many of a thousand.
    pub(crate) fn trim(&mut self, permille: u64) {
        if let Some(stream) = self.stream.as_mut() {
            let count = stream.kept.len() as u64 * permille / 1000;
            stream.kept.drain(..count as usize);
        }
    }

    /// Messages that arrived before, to arrive once more: some from the so manieth on.
    pub(crate) fn old(&self, pick: u64, count: u64) -> Vec<(ControllerId, Guards, Shown)> {
        let from = (pick as usize).checked_rem(self.old.len()).unwrap_or_default();
        self.old.iter().skip(from).take(count as usize).copied().collect()
    }

    /// Whether a stream, or one made since, ever came to a sequence number.
    pub(crate) fn ever_had(&self, made: i128, seq: Seq) -> bool {
        seq == 0 || self.tops.range(made..).any(|(_, top)| *top >= seq)
    }

    /// What there is: the first sequence number, and what each message shows.
    pub(crate) fn content(&self) -> Option<(Seq, Vec<Option<Shown>>)> {
        let stream = self.stream.as_ref()?;
        Some((stream.first(), stream.kept.iter().map(|message| message.shown).collect()))
    }

    /// The last message, unless a stranger wrote it, and its sequence number.
    pub(crate) fn last(&self) -> Option<(Seq, Shown)> {
        let stream = self.stream.as_ref()?;
        let message = stream.kept.back().filter(|message| !message.forged)?;
        Some((stream.last, message.shown?))
    }
}

impl Stream {
    fn first(&self) -> Seq {
        self.last + 1 - self.kept.len() as Seq
    }

    fn get(&self, seq: Seq) -> Option<Message> {
        self.kept.get(seq.checked_sub(self.first())? as usize).copied()
    }

    fn store(&mut self, message: Message) {
        self.last += 1;
        self.kept.push_back(message);
    }
}

#[cfg(test)]
mod tests {
    use stele_feed::guards;

    use super::*;

    fn publish(server: &mut JetStream, now_us: u64, seq: Seq) -> Option<Reply> {
        server.ask(now_us, 1, Request::Publish(guards(seq), (seq, Digest::EMPTY)))
    }

    #[test]
    fn a_message_is_taken_once_and_only_after_the_one_before() {
        let mut server = JetStream::new(10);
        assert!(publish(&mut server, 0, 1).is_none());
        server.ask(0, 1, Request::Create);
        assert!(matches!(publish(&mut server, 0, 2), Some(Reply::Refused)));
        assert!(matches!(publish(&mut server, 0, 1), Some(Reply::Stored { at: 1, repeated: false })));
        assert!(matches!(publish(&mut server, 9, 1), Some(Reply::Stored { at: 1, repeated: true })));
        assert!(matches!(publish(&mut server, 10, 1), Some(Reply::Refused)));
        server.forge(11, true);
        assert!(matches!(publish(&mut server, 12, 2), Some(Reply::Stored { at: 2, repeated: true })));
    }
}
