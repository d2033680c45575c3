//! A snapshot of State: derived data that spares a replay.

use stele_model::{Digest, State};

use crate::bytes::{Reader, Writer};
use crate::error::DecodeError;
use crate::limits::SNAPSHOT_BYTES_MAX;
use crate::message;
use crate::record::Chain;

const MAGIC: &[u8; 4] = b"STSN";
/// Raised whenever State gets another part: its maps are encoded as they are. 1 knew no pins,
/// barriers, marks, reviews and erasures, 2 no deployments by app.
const FORMAT: u8 = 5;
/// The one before, without drained nodes. It is written, too, where none is drained: controllers of the version before
/// read it, while a fleet is upgraded.
const FORMAT_WITHOUT_DRAINED: u8 = 4;

/// State with the chain at its seq.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The chain after the last record folded into it.
    pub chain: Chain,
    /// The State.
    pub state: State,
}

impl Snapshot {
    /// Magic, format, chain, checksum of the rest, then State, and what is drained of it.
    pub fn encode(&self) -> Vec<u8> {
        let drained = &self.state.control.drained;
        let (format, state) = if drained.is_empty() {
            (FORMAT_WITHOUT_DRAINED, message::encode(&self.state))
        } else {
            (FORMAT, message::encode(&(&self.state, drained)))
        };
        let mut out = Writer::default();
        out.raw(MAGIC);
        out.u8(format);
        out.raw(&self.chain.0.0);
        out.raw(&Digest::of(&[&self.chain.0.0, &state]).0);
        out.raw(&state);
        out.0
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (format, chain, state) = parts(bytes)?;
        let mut state: State = match format {
            FORMAT => {
                let (mut state, drained): (State, _) = message::decode(WHAT, state, SNAPSHOT_BYTES_MAX)?;
                state.control.drained = drained;
                state
            }
            FORMAT_WITHOUT_DRAINED => message::decode(WHAT, state, SNAPSHOT_BYTES_MAX)?,
            _ => return Err(DecodeError::Format { what: WHAT, found: format, known: FORMAT }),
        };
        state.share();
        Ok(Self { chain, state })
    }

    /// The chain a snapshot was made at. It stands at the same place in every format, so that history
    /// can be proved to lead to a snapshot whose State this version does not read.
    pub fn chain_of(bytes: &[u8]) -> Result<Chain, DecodeError> {
        Ok(parts(bytes)?.1)
    }
}

const WHAT: &str = "snapshot";

/// Format, chain and encoded State, of a snapshot whose checksum is right.
fn parts(bytes: &[u8]) -> Result<(u8, Chain, &[u8]), DecodeError> {
    let mut from = Reader::new(WHAT, bytes);
    if from.take(MAGIC.len())? != MAGIC {
        return Err(from.malformed("it does not begin with STSN"));
    }
    let format = from.u8()?;
    if format == 0 || format > FORMAT {
        return Err(DecodeError::Format { what: WHAT, found: format, known: FORMAT });
    }
    let chain = Chain(Digest(from.array()?));
    let checksum = Digest(from.array()?);
    let state = &bytes[from.at()..];
    if Digest::of(&[&chain.0.0, state]) != checksum {
        return Err(DecodeError::Checksum(WHAT));
    }
    Ok((format, chain, state))
}
