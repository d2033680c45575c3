//! Writing a log down: decide, encode, link, fold.

use std::collections::BTreeMap;

use stele_codec::{Chain, StoredRecord, encode_record};
use stele_model::{
    Command, Context, Decided, Decision, Digest, Event, Header, Record, Rejection, RejectionKind, Request,
    Seq, State, Time, decide, fold,
};

/// One record as a store keeps it.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its seq.
    pub seq: Seq,
    /// Its exact bytes.
    pub stored: StoredRecord,
    /// The chain after it.
    pub chain: Chain,
}

/// Decides requests one after the other, and keeps what was written until it is taken.
#[derive(Debug)]
pub struct Scribe {
    state: State,
    chain: Chain,
    time: u64,
    written: Vec<Written>,
    /// State after each decision, when what was is to be asked for.
    kept: Option<BTreeMap<Seq, State>>,
    began_after: Seq,
}

impl Scribe {
    /// Begins an empty log at a time.
    pub fn new(begins: Time) -> Self {
        Self::after(State::default(), Chain::GENESIS, begins)
    }

    /// Goes on with a log that was written before.
    pub fn after(mut state: State, chain: Chain, begins: Time) -> Self {
        state.keep_index();
        let began_after = state.seq;
        Self { state, chain, time: begins.0, written: Vec::new(), kept: None, began_after }
    }

    /// From now on keeps State after each decision, so that requests about the past need no States
    /// beside them. Those from before are given. For logs of some thousand records.
    pub(crate) fn keep_states(&mut self, before: BTreeMap<Seq, State>) {
        self.kept = Some(before);
    }

    /// The last record of the log it goes on with.
    pub(crate) fn began_after(&self) -> Seq {
        self.began_after
    }

    /// State after everything written.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The chain after everything written.
    pub fn chain(&self) -> Chain {
        self.chain
    }

    /// State's digest. Hashes what changed since it was last asked for.
    pub fn digest(&mut self) -> Digest {
        self.state.digest()
    }

    /// Log time of the next decision.
    pub fn now(&self) -> Time {
        Time(self.time)
    }

    /// Lets time pass.
    pub fn pass(&mut self, micros: u64) {
        self.time += micros;
    }

    /// What was written since it was last taken.
    pub fn take(&mut self) -> Vec<Written> {
        std::mem::take(&mut self.written)
    }

    /// Has a request decided, with the earlier States it needs. Answers what was written: nothing
    /// when nothing had to change, or when it was answered before.
    pub fn ask(&mut self, request: &Request, past: BTreeMap<Seq, State>) -> Result<Vec<Record>, Rejection> {
        if matches!(request.command, Command::RecordStateDigest) {
            // Deciding hashes a copy; what is hashed here stays hashed.
            self.state.digest();
        }
        let mut past = past;
        for seq in request.command.past_seqs() {
            if let Some(state) = self.kept.as_ref().and_then(|kept| kept.get(&seq)) {
                past.entry(seq).or_insert_with(|| state.clone());
            }
        }
        let context = Context { now: self.now(), past };
        match decide(&self.state, request, &context)? {
            Decided::Repeated(_) => Ok(Vec::new()),
            Decided::Events(events) => self.write(request, &events),
        }
    }

    /// Writes the records of one decision.
    pub fn write(&mut self, request: &Request, events: &[Event]) -> Result<Vec<Record>, Rejection> {
        self.write_with(request, events, encode_record)
    }

    /// The same, encoded otherwise than this version of the program would.
    pub fn write_with(
        &mut self,
        request: &Request,
        events: &[Event],
        encode: impl Fn(Header, &Event) -> Result<(StoredRecord, Record), stele_codec::DecodeError>,
    ) -> Result<Vec<Record>, Rejection> {
        let refused = |why: String| Rejection::new(RejectionKind::TooLarge, why);
        let count = u32::try_from(events.len()).map_err(|error| refused(error.to_string()))?;
        let decision = Decision { first: self.state.seq + 1, count };
        let mut records = Vec::with_capacity(events.len());
        for event in events {
            let header = Header {
                seq: self.state.seq + 1,
                time: Time(self.time.max(self.state.time.0 + 1)),
                decision,
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
            let (stored, record) = encode(header, event).map_err(|error| refused(error.to_string()))?;
            fold(&mut self.state, &record);
            self.chain = self.chain.link(&stored.leaf);
            self.time = self.state.time.0;
            self.written.push(Written { seq: record.header.seq, stored, chain: self.chain });
            records.push(record);
        }
        if let Some(kept) = &mut self.kept {
            kept.insert(self.state.seq, self.state.clone());
        }
        Ok(records)
    }
}
