//! The leader's State ahead of what has committed.

use std::collections::VecDeque;

use stele_codec::{Chain, Entry, encode_record};
use stele_model::limits::DECISION_BYTES_MAX;
use stele_model::{
    Answer, Decision, Digest, Event, Header, Rejection, RejectionKind, Request, State, Time, answer_of, fold,
};

use crate::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, IN_FLIGHT_MAX, LOG_TIME_BEHIND_US_MAX};
use crate::{Moment, Outcome, Pair, milestone, too_large};

/// Committed State plus everything decided since, in this term.
#[derive(Debug)]
pub(crate) struct Speculation<W> {
    term: u64,
    pub(crate) state: State,
    chain: Chain,
    /// Log time at the start of the term, or when it last caught up with the wall, and the monotonic clock then.
    started: (Time, u64),
    batch: Batch<W>,
    /// Closed, waiting to be told its index, then to commit; oldest first.
    in_flight: VecDeque<InFlight<W>>,
}

#[derive(Debug)]
struct Batch<W> {
    previous: Chain,
    records: Vec<Pair>,
    milestones: Vec<State>,
    bytes: usize,
    waiters: Vec<(W, Outcome)>,
}

/// A proposed entry.
#[derive(Debug)]
pub(crate) struct InFlight<W> {
    index: Option<u64>,
    pub(crate) records: Vec<Pair>,
    pub(crate) milestones: Vec<State>,
    pub(crate) waiters: Vec<(W, Outcome)>,
    /// Those that asked after it was proposed, and whose answers rest on it.
    pub(crate) unconfirmed: Vec<(W, Outcome)>,
    /// State and chain once it commits.
    pub(crate) state: State,
    pub(crate) chain: Chain,
}

impl<W> Batch<W> {
    fn new(previous: Chain) -> Self {
        Self { previous, records: Vec::new(), milestones: Vec::new(), bytes: 0, waiters: Vec::new() }
    }
}

impl<W> Speculation<W> {
    pub(crate) fn new(term: u64, state: State, chain: Chain, now: Moment) -> Self {
        // A clock that is behind the log cannot take time back.
        let start = Time(now.wall_us.max(state.time.0));
        Self {
            term,
            started: (start, now.monotonic_us),
            batch: Batch::new(chain),
            in_flight: VecDeque::new(),
            state,
            chain,
        }
    }

    /// Has log time catch up with the wall where it is far behind; by how much, in microseconds. It never goes back.
    pub(crate) fn follow_wall(&mut self, now: Moment) -> Option<u64> {
        let behind = now.wall_us.saturating_sub(self.time(now).0);
        if behind <= LOG_TIME_BEHIND_US_MAX {
            return None;
        }
        self.started = (Time(now.wall_us), now.monotonic_us);
        Some(behind)
    }

    /// Log time now: the wall at the term's start plus what really passed, strictly increasing.
    pub(crate) fn time(&self, now: Moment) -> Time {
        if planted!(TimeOfTheWall) {
            return Time(now.wall_us);
        }
        let (start, monotonic) = self.started;
        let elapsed = now.monotonic_us.saturating_sub(monotonic);
        Time((start.0 + elapsed).max(self.state.time.0 + 1))
    }

    /// Adds a decision's events to the batch, all or none.
    pub(crate) fn add(
        &mut self,
        request: &Request,
        events: &[Event],
        time: Time,
    ) -> Result<Answer, Rejection> {
        let first = self.state.seq + 1;
        let count = u32::try_from(events.len())
            .map_err(|_| Rejection::new(RejectionKind::TooLarge, "too many events in one decision"))?;
        let mut pairs = Vec::with_capacity(events.len());
        let mut bytes = 0;
        for (at, event) in events.iter().enumerate() {
            let header = Header {
                seq: first + at as u64,
                time: Time(time.0 + at as u64),
                decision: Decision { first, count },
                principal: request.principal.clone(),
                cause: request.cause,
                trace: request.trace.clone(),
                idempotency: request.idempotency.clone(),
                kind: String::new(),
                schema: 0,
                codec: 0,
                scopes: Vec::new(),
                reason: request.reason.clone(),
                links: request.links.clone(),
                payload: Digest::EMPTY,
            };
            let (stored, record) = encode_record(header, event).map_err(|error| too_large(&error))?;
            // What no replica could read back must never be proposed, for it could never be undone.
            if stored.decode().map_err(|error| too_large(&error))? != record {
                return Err(Rejection::new(
                    RejectionKind::Invalid,
                    "a record does not read back as it was written",
                ));
            }
            bytes += stored.leaf.len() + stored.payload.len();
            pairs.push((stored, record));
        }
        if bytes > DECISION_BYTES_MAX {
            return Err(Rejection::new(
                RejectionKind::TooLarge,
                format!("the decision has {bytes} bytes; the limit is {DECISION_BYTES_MAX}"),
            ));
        }
        if planted!(PoisonEvent) && first.is_multiple_of(100) {
            // Checked above, and spoilt since.
            pairs[0].0.payload.clear();
        }
        let answer = answer_of(pairs.iter().map(|(_, record)| record));
        // A decision that cannot be folded ends the process here, and is never proposed.
        for (stored, record) in &pairs {
            fold(&mut self.state, record);
            self.chain = self.chain.link(&stored.leaf);
            self.batch.milestones.extend(milestone(&self.state));
        }
        self.batch.bytes += bytes;
        self.batch.records.append(&mut pairs);
        Ok(answer)
    }

    /// Whether nothing decided waits to commit.
    pub(crate) fn is_settled(&self) -> bool {
        self.batch.records.is_empty() && self.in_flight.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        let batch = &self.batch;
        batch.records.len() >= BATCH_RECORDS_MAX
            || batch.bytes >= BATCH_BYTES_MAX
            || batch.waiters.len() >= BATCH_RECORDS_MAX
    }

    /// Remembers whom to tell once everything their answer rests on has committed.
    pub(crate) fn wait(&mut self, waiter: W, outcome: Outcome, decided: bool) {
        let newest = self.in_flight.back_mut();
        match newest {
            Some(newest) if !decided && self.batch.records.is_empty() => {
                newest.unconfirmed.push((waiter, outcome));
            }
            _ => self.batch.waiters.push((waiter, outcome)),
        }
    }

    pub(crate) fn close(&mut self, fleet: String) -> Option<(Vec<u8>, usize)> {
        if self.batch.records.is_empty() || self.in_flight.len() >= IN_FLIGHT_MAX {
            return None;
        }
        let batch = std::mem::replace(&mut self.batch, Batch::new(self.chain));
        let entry = Entry {
            fleet,
            term: self.term,
            first: batch.records[0].1.header.seq,
            previous: batch.previous,
            records: batch.records.iter().map(|(stored, _)| stored.clone()).collect(),
        };
        let count = batch.records.len();
        self.in_flight.push_back(InFlight {
            index: None,
            records: batch.records,
            milestones: batch.milestones,
            waiters: batch.waiters,
            unconfirmed: Vec::new(),
            state: self.state.clone(),
            chain: self.chain,
        });
        Some((entry.encode(), count))
    }

    pub(crate) fn proposed(&mut self, index: u64) {
        let newest = self.in_flight.back_mut();
        assert!(newest.as_ref().is_some_and(|entry| entry.index.is_none()), "an index is told once");
        if let Some(newest) = newest {
            newest.index = Some(index);
        }
    }

    /// The oldest entry in flight, if it is the one that committed.
    pub(crate) fn take(&mut self, index: u64, term: u64) -> Option<InFlight<W>> {
        if term != self.term || self.in_flight.front()?.index != Some(index) {
            return None;
        }
        self.in_flight.pop_front()
    }

    /// Everybody who waits is told that nothing is known.
    pub(crate) fn abandon(self) -> Vec<(W, Outcome)> {
        let in_flight =
            self.in_flight.into_iter().flat_map(|entry| entry.waiters.into_iter().chain(entry.unconfirmed));
        in_flight.chain(self.batch.waiters).map(|(waiter, _)| (waiter, Outcome::Unknown)).collect()
    }
}
