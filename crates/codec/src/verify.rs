//! Verifying a log from its first record, trusting nobody: seqs, times, decisions,
//! hashes, chain, and State digests recomputed by folding.
//!
//! Two halves that need nothing of each other but the records in order, so that a
//! replay can run them on two processors: [`Linker`] reads and links bytes, [`Folder`]
//! folds what they say. [`Verifier`] is both in one.

use stele_model::{Decision, Digest, Event, Record, Seq, State, Time, fold};

use crate::error::DecodeError;
use crate::record::{Chain, RecordBytes};

/// The log is not what it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// A record cannot be read.
    #[error("after record {after}: {error}")]
    Decode {
        /// The last good record.
        after: u64,
        /// What is wrong.
        error: DecodeError,
    },
    /// A payload is not the one its header names.
    #[error("record {seq} names the payload {recorded}, but its payload has {computed}")]
    Payload {
        /// The record.
        seq: u64,
        /// The hash in its header.
        recorded: Digest,
        /// The hash of what is there.
        computed: Digest,
    },
    /// A record is missing or out of order.
    #[error("record {expected} is missing: record {found} follows {after}")]
    Gap {
        /// The last good record.
        after: u64,
        /// What should follow.
        expected: u64,
        /// What does.
        found: u64,
    },
    /// Log time went backwards.
    #[error("record {seq} has time {found}, which is not later than {before}, the time of the one before it")]
    Time {
        /// The record.
        seq: u64,
        /// The time before it, in microseconds.
        before: u64,
        /// Its own.
        found: u64,
    },
    /// A decision is torn, or a record says it is part of another one than it can be.
    #[error(
        "record {seq} says it is of the decision of {} records from {} on; here it can only be of {expected}",
        found.count,
        found.first
    )]
    Decision {
        /// The record.
        seq: u64,
        /// What it can be.
        expected: String,
        /// What it says.
        found: Decision,
    },
    /// A recorded State digest does not match.
    #[error("record {seq} says State has digest {recorded}; folding the log gives {folded}")]
    StateDigest {
        /// The record.
        seq: u64,
        /// What it says.
        recorded: Digest,
        /// What was computed.
        folded: Digest,
    },
    /// The store's own chain differs.
    #[error("record {seq} is chained as {stored:?}, but the records before it give {computed:?}")]
    Chain {
        /// The record.
        seq: u64,
        /// What was stored.
        stored: Chain,
        /// What was computed.
        computed: Chain,
    },
}

/// Reads and links records one after the other, without folding them.
#[derive(Clone, Debug)]
pub struct Linker {
    seq: Seq,
    time: Time,
    chain: Chain,
    /// The decision that further records must complete.
    open: Option<Decision>,
}

impl Default for Linker {
    fn default() -> Self {
        Self::new()
    }
}

impl Linker {
    /// Begins before the first record.
    pub fn new() -> Self {
        Self::after(0, Time::default(), Chain::GENESIS)
    }

    /// Begins after a record that ends a decision and is trusted.
    pub fn after(seq: Seq, time: Time, chain: Chain) -> Self {
        Self { seq, time, chain, open: None }
    }

    /// Reads the next record, against the chain stored beside it if there is one.
    pub fn push<'a>(
        &mut self,
        stored: impl Into<RecordBytes<'a>>,
        chain: Option<Chain>,
    ) -> Result<Record, VerifyError> {
        let stored = stored.into();
        let after = self.seq;
        let record = stored.decode().map_err(|error| unreadable(stored, after, error))?;
        let header = &record.header;
        let seq = header.seq;
        if seq != after + 1 {
            return Err(VerifyError::Gap { after, expected: after + 1, found: seq });
        }
        if header.time <= self.time {
            return Err(VerifyError::Time { seq, before: self.time.0, found: header.time.0 });
        }
        let open = self.decision(seq, header.decision)?;
        let computed = self.chain.link(stored.leaf());
        if let Some(stored) = chain
            && stored != computed
        {
            return Err(VerifyError::Chain { seq, stored, computed });
        }
        (self.seq, self.time, self.chain, self.open) = (seq, header.time, computed, open);
        Ok(record)
    }

    /// What further records must complete after one that says it is of `found`.
    fn decision(&self, seq: Seq, found: Decision) -> Result<Option<Decision>, VerifyError> {
        let wrong = |expected: String| Err(VerifyError::Decision { seq, expected, found });
        match self.open {
            Some(open) if open != found => {
                return wrong(format!("the decision of {} records from {} on", open.count, open.first));
            }
            None if found.first != seq || found.count == 0 => {
                return wrong(format!("a decision that begins at {seq}"));
            }
            _ => {}
        }
        let is_last = u64::from(found.count) == seq - found.first + 1;
        Ok((!is_last).then_some(found))
    }

    /// The last record read.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// The chain after it.
    pub fn chain(&self) -> Chain {
        self.chain
    }

    /// Whether it ends its decision: a log, and a point in it, never lies inside one.
    pub fn is_whole(&self) -> bool {
        self.open.is_none()
    }
}

fn unreadable(stored: RecordBytes<'_>, after: Seq, error: DecodeError) -> VerifyError {
    if let (DecodeError::Checksum("payload"), Ok(header)) = (&error, stored.header()) {
        let computed = Digest::of(&[stored.payload()]);
        return VerifyError::Payload { seq: header.seq, recorded: header.payload, computed };
    }
    VerifyError::Decode { after, error }
}

/// Folds records, and checks every State digest among them.
#[derive(Clone, Debug)]
pub struct Folder {
    state: State,
    digests: u64,
}

impl Default for Folder {
    fn default() -> Self {
        Self::resume(State::default())
    }
}

impl Folder {
    /// Begins before the first record.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins after a State that is trusted, such as one's own snapshot.
    pub fn resume(mut state: State) -> Self {
        state.keep_counts();
        Self { state, digests: 0 }
    }

    /// Folds the next record, which a [`Linker`] has read.
    pub fn push(&mut self, record: &Record) -> Result<(), VerifyError> {
        if let Event::StateDigestRecorded { digest: recorded } = &record.event {
            let folded = self.state.digest();
            if folded != *recorded {
                let seq = record.header.seq;
                return Err(VerifyError::StateDigest { seq, recorded: *recorded, folded });
            }
            self.digests += 1;
        }
        fold(&mut self.state, record);
        Ok(())
    }

    /// State after the records folded so far.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Its digest. Hashes what changed since it was last asked for.
    pub fn digest(&mut self) -> Digest {
        self.state.digest()
    }

    /// State, taken out.
    pub fn into_state(self) -> State {
        self.state
    }

    /// How many recorded State digests matched.
    pub fn digests_matched(&self) -> u64 {
        self.digests
    }
}

/// Verifies records one after the other.
#[derive(Clone, Debug, Default)]
pub struct Verifier {
    linker: Linker,
    folder: Folder,
}

impl Verifier {
    /// Begins before the first record.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins after a State that is trusted, such as one's own snapshot.
    pub fn resume(state: State, chain: Chain) -> Self {
        Self { linker: Linker::after(state.seq, state.time, chain), folder: Folder::resume(state) }
    }

    /// Verifies the next record, against the chain stored beside it if there is one.
    pub fn push<'a>(
        &mut self,
        stored: impl Into<RecordBytes<'a>>,
        chain: Option<Chain>,
    ) -> Result<Record, VerifyError> {
        let record = self.linker.push(stored, chain)?;
        self.folder.push(&record)?;
        Ok(record)
    }

    /// State after the records verified so far.
    pub fn state(&self) -> &State {
        self.folder.state()
    }

    /// The same, taken out, with the chain.
    pub fn into_parts(self) -> (State, Chain) {
        let chain = self.chain();
        (self.folder.into_state(), chain)
    }

    /// The chain after the records verified so far.
    pub fn chain(&self) -> Chain {
        self.linker.chain()
    }

    /// How many recorded State digests matched.
    pub fn digests_matched(&self) -> u64 {
        self.folder.digests_matched()
    }
}
