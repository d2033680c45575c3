//! The keeper of the feed. It lives as long as its controller leads.

use stele_model::Seq;

use crate::limits::{FEED_BATCH_RECORDS, FEED_RETRY_FIRST_MS, FEED_RETRY_MS_MAX};

/// What the shell does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Look for the stream, and say [`Keeper::found`].
    Find,
    /// Make the stream, unless somebody else just did, and say [`Keeper::found`].
    Create,
    /// Compare what the stream and the log have from one seq to another, both included, and say
    /// [`Keeper::compared`].
    Compare {
        /// The first.
        from: Seq,
        /// The last.
        to: Seq,
    },
    /// Delete the stream, and say [`Keeper::deleted`].
    Delete,
    /// Read the records after a seq, say [`Keeper::read`], send them all, each with its [`guards`],
    /// and say [`Keeper::answered`] for each, in order.
    Publish {
        /// The last seq on the stream.
        after: Seq,
        /// Most records at once.
        limit: usize,
    },
    /// Go on with what came of the messages sent.
    Await,
    /// Wait, and say [`Keeper::woken`].
    Rest(Rest),
}

/// What is waited for, beside a change of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Everything is published: for a record, or until it is time for a look.
    Done,
    /// For time alone: whatever is new would fail in the same way.
    Retry {
        /// Longest, in milliseconds; a random part of it is left out.
        ms: u64,
    },
    /// There is no connection.
    Away,
}

/// What ended a rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// More is committed.
    Committed,
    /// The connection went or came back.
    Connection,
    /// Time is up.
    Time,
}

/// A stream as it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When it was made, in whatever unit: tells it from one that was made again.
    pub made: i128,
    /// Its first message's sequence number; one more than `last` where there is none.
    pub first: Seq,
    /// Its last message's sequence number, even if that is no longer kept; 0 for a new one.
    pub last: Seq,
}

/// What came of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It stands on the feed's own stream.
    Stored {
        /// Under this sequence number.
        at: Seq,
        /// The server had a message with its id, and did not look any further.
        repeated: bool,
    },
    /// It was refused, or stands on another stream: somebody else wrote, or the stream is gone.
    Refused,
    /// It is not known: no acknowledgement came.
    Unknown,
}

/// What the server checks before it takes a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guards {
    /// The message's id: for a while the server takes no second one.
    pub id: Seq,
    /// The last sequence number there must be.
    pub last: Seq,
}

/// What a record's message is checked by.
pub const fn guards(seq: Seq) -> Guards {
    Guards { id: seq, last: seq - 1 }
}

/// The log gave another record than the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log gave record {found} where {expected} was due")]
pub struct Gap {
    /// The seq that was due.
    pub expected: Seq,
    /// The seq that came.
    pub found: Seq,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// What is on the feed is not known.
    #[default]
    Unknown,
    /// Something failed; only time helps.
    Failed,
    /// There is no stream.
    Missing,
    /// The stream is there; what it shares with the log is not known to be the same.
    Shared { from: Seq, to: Seq, last: Seq },
    /// The stream does not show this log.
    Foreign,
    /// The stream ends with `last`. `dry` when the log had nothing after it.
    Known { last: Seq, dry: bool },
    /// Messages up to `sent` are on their way, and up to `acked` they are there.
    Sent { acked: Seq, sent: Seq },
}

/// Decides what is done next; see the crate.
#[derive(Clone, Debug, Default)]
pub struct Keeper {
    stage: Stage,
    /// The stream that was last seen.
    made: Option<i128>,
    /// Up to here that stream is known to show the log.
    proven: Seq,
    failures: u32,
}

impl Keeper {
    /// What to do next, with or without a connection, when so much is committed.
    pub fn next(&mut self, connected: bool, committed: Seq) -> Step {
        if !connected {
            self.stage = Stage::Unknown;
            return Step::Rest(Rest::Away);
        }
        match self.stage {
            Stage::Unknown => Step::Find,
            Stage::Failed => Step::Rest(Rest::Retry { ms: retry_ms(self.failures) }),
            Stage::Missing => Step::Create,
            Stage::Shared { from, to, .. } => Step::Compare { from, to },
            Stage::Foreign => Step::Delete,
            Stage::Sent { .. } => Step::Await,
            // What was not yet committed here when it was looked at, and what the server took for a repetition,
            // may be anybody's: nothing is published on top of it, nor does it count once a record belongs there.
            Stage::Known { last, dry: false } if last.min(committed) > self.proven => {
                self.stage = Stage::Unknown;
                Step::Find
            }
            Stage::Known { last, dry } if last >= committed || dry => {
                self.failures = 0;
                Step::Rest(Rest::Done)
            }
            Stage::Known { last, .. } => Step::Publish { after: last, limit: FEED_BATCH_RECORDS },
        }
    }

    /// The stream was looked for or made; none if there is none.
    pub fn found(&mut self, seen: Option<Seen>, committed: Seq) {
        let Some(Seen { made, first, last }) = seen else {
            self.stage = Stage::Missing;
            return;
        };
        if self.made != Some(made) {
            self.made = Some(made);
            self.proven = 0;
        }
        let shared = last.min(committed);
        // The last record is compared each time. Messages on their way are checked against the one
        // before by its number alone, so under them may stand what a stranger wrote in between: that
        // is no further back than one batch from the end that a leader finds before it adds to it.
        let batch = shared.saturating_sub(FEED_BATCH_RECORDS as Seq) + 1;
        let unproven = if planted!(FeedComparesLast) { shared } else { batch.max(self.proven + 1) };
        let from = unproven.min(shared).max(first).max(1);
        if from > shared || planted!(FeedNotCompared) {
            // Nothing that could be compared is left.
            self.proven = shared;
            self.stage = Stage::Known { last, dry: false };
        } else {
            self.stage = Stage::Shared { from, to: shared, last };
        }
    }

    /// What the stream and the log share was compared.
    pub fn compared(&mut self, same: bool) {
        if let Stage::Shared { to, last, .. } = self.stage {
            // What is another's stays so until it is gone: to delete it may fail.
            self.stage = if same { Stage::Known { last, dry: false } } else { Stage::Foreign };
            if same {
                self.proven = to;
            }
        }
    }

    /// The stream was deleted.
    pub fn deleted(&mut self) {
        self.made = None;
        self.stage = Stage::Missing;
    }

    /// These records were read, and are sent now. After none there is nothing to send.
    pub fn read(&mut self, seqs: impl IntoIterator<Item = Seq>) -> Result<(), Gap> {
        let Stage::Known { last, .. } = self.stage else { return Ok(()) };
        let mut sent = last;
        for found in seqs {
            let expected = sent + 1;
            if found != expected {
                self.failed();
                return Err(Gap { expected, found });
            }
            sent = found;
        }
        self.stage =
            if sent == last { Stage::Known { last, dry: true } } else { Stage::Sent { acked: last, sent } };
        Ok(())
    }

    /// What came of the next of the messages sent. False if it does not count as published: then
    /// nothing is known of those after it either, and no more answers are awaited.
    pub fn answered(&mut self, answer: Answer) -> bool {
        let Stage::Sent { acked, sent } = self.stage else { return false };
        let seq = acked + 1;
        let (counts, is_proof) = match answer {
            Answer::Stored { at, repeated } => (at == seq, !repeated || planted!(FeedRepetitionProves)),
            Answer::Refused => (false, false),
            // It may be there or not. Only a look tells.
            Answer::Unknown => (planted!(FeedCountsUnacked), false),
        };
        if !counts {
            self.failed();
            return false;
        }
        if is_proof && self.proven == acked {
            self.proven = seq;
        }
        self.stage = if seq == sent {
            Stage::Known { last: seq, dry: false }
        } else {
            Stage::Sent { acked: seq, sent }
        };
        true
    }

    /// A step could not be carried out, or nobody knows whether it was.
    pub fn failed(&mut self) {
        // What has failed already fails no further before the rest that follows it.
        if self.stage != Stage::Failed {
            self.stage = Stage::Failed;
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// A rest is over.
    pub fn woken(&mut self, by: Woken) {
        match (by, &mut self.stage) {
            // After a failure only time helps.
            (Woken::Committed, Stage::Known { dry, .. }) => *dry = false,
            (Woken::Committed, _) => {}
            // The server may have come back empty, or somebody may have deleted the stream.
            (Woken::Connection | Woken::Time, stage) => *stage = Stage::Unknown,
        }
    }

    /// The last seq that counts as published, as far as known.
    #[cfg(test)]
    pub(crate) const fn published(&self) -> Option<Seq> {
        match self.stage {
            Stage::Known { last, .. } => Some(last),
            Stage::Sent { acked, .. } => Some(acked),
            _ => None,
        }
    }
}

/// The longest pause after so many failures in a row, in milliseconds.
fn retry_ms(failures: u32) -> u64 {
    let doublings = failures.saturating_sub(1).min(20);
    (FEED_RETRY_FIRST_MS << doublings).min(FEED_RETRY_MS_MAX)
}
