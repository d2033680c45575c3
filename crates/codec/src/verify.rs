//! Verifying a log from its first record, trusting nobody: seqs, hashes, chain, and
//! State digests recomputed by folding.

use stele_model::{Event, Record, State, fold};

use crate::error::DecodeError;
use crate::record::{Chain, StoredRecord};

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
    #[error("record {0} is not later than the one before it")]
    Time(u64),
    /// A recorded State digest does not match.
    #[error("record {seq} says State has digest {recorded}; folding the log gives {folded}")]
    StateDigest {
        /// The record.
        seq: u64,
        /// What it says.
        recorded: stele_model::Digest,
        /// What was computed.
        folded: stele_model::Digest,
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

/// Verifies records one after the other.
#[derive(Clone, Debug)]
pub struct Verifier {
    state: State,
    chain: Chain,
    digests: u64,
}

impl Default for Verifier {
    fn default() -> Self {
        Self::new()
    }
}

impl Verifier {
    /// Begins before the first record.
    pub fn new() -> Self {
        Self::resume(State::default(), Chain::GENESIS)
    }

    /// Begins after a State that is trusted, such as one's own snapshot.
    pub fn resume(state: State, chain: Chain) -> Self {
        Self { state, chain, digests: 0 }
    }

    /// Verifies the next record, against the chain stored beside it if there is one.
    pub fn push(&mut self, stored: &StoredRecord, chain: Option<Chain>) -> Result<Record, VerifyError> {
        let after = self.state.seq;
        let record = stored.decode().map_err(|error| VerifyError::Decode { after, error })?;
        let seq = record.header.seq;
        if seq != after + 1 {
            return Err(VerifyError::Gap { after, expected: after + 1, found: seq });
        }
        if record.header.time <= self.state.time {
            return Err(VerifyError::Time(seq));
        }
        let computed = self.chain.link(&stored.leaf);
        if let Some(stored) = chain
            && stored != computed
        {
            return Err(VerifyError::Chain { seq, stored, computed });
        }
        if let Event::StateDigestRecorded { digest: recorded } = &record.event {
            let folded = self.state.digest();
            if folded != *recorded {
                return Err(VerifyError::StateDigest { seq, recorded: *recorded, folded });
            }
            self.digests += 1;
        }
        fold(&mut self.state, &record);
        self.chain = computed;
        Ok(record)
    }

    /// State after the records verified so far.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The same, taken out, with the chain.
    pub fn into_parts(self) -> (State, Chain) {
        (self.state, self.chain)
    }

    /// The chain after the records verified so far.
    pub fn chain(&self) -> Chain {
        self.chain
    }

    /// How many recorded State digests matched.
    pub fn digests_matched(&self) -> u64 {
        self.digests
    }
}
