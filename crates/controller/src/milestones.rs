//! Milestones: what differs between States at regular distances of the log, kept beside it.
//!
//! They are derived data. Whatever is missing, or was written in another layout, is made
//! again from the records; nothing is ever decided by them, and `stele replay` compares
//! every one with what the records say.

use stele_codec::{
    DELTA_FORMAT, DecodeError, decode_answers, decode_progress, decode_target, encode_answers,
    encode_progress, encode_target,
};
use stele_model::{Answers, AnswersDelta, Delta, Outline, Seq};
use stele_store::{Reader, StoreError};

use crate::limits::{MILESTONE_BRANCHING, MILESTONE_INTERVAL_RECORDS};

const PREFIX: &[u8] = b"milestones/";
const LAYOUT: &[u8] = b"milestones/layout";
const THROUGH: &[u8] = b"milestones/through";
const TARGET_AT: &[u8] = b"milestones/target/";
const PROGRESS_AT: &[u8] = b"milestones/progress/";
const ANSWERS_AT: &[u8] = b"milestones/answers/";
/// Raised whenever [`base_of`] names another one.
const BASES: u8 = 2;

/// What milestones are made of, at one seq.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// What reads of the past look at.
    pub outline: Outline,
    /// What only State's digest needs.
    pub answers: Answers,
}

/// What milestones keep: how parts differ from those before them.
#[derive(Debug)]
pub struct Difference {
    /// Between the outlines.
    pub delta: Delta,
    /// Between the answers.
    pub answers: AnswersDelta,
}

/// A milestone as it is kept.
#[derive(Debug)]
pub struct Bytes {
    /// How its targets and what governs differ.
    pub target: Vec<u8>,
    /// How differs what became of it.
    pub progress: Vec<u8>,
    /// How its answers differ.
    pub answers: Vec<u8>,
}

impl Parts {
    /// Of a whole State.
    ///
    /// # Panics
    ///
    /// When it lacks its answers.
    pub fn of(state: &stele_model::State) -> Self {
        Self { outline: Outline::of(state), answers: Answers::of(state) }
    }

    /// What must change in earlier parts to get these.
    pub fn since(&self, before: &Self) -> Difference {
        Difference {
            delta: Delta::between(&before.outline, &self.outline),
            answers: AnswersDelta::between(&before.answers, &self.answers),
        }
    }
}

/// Why milestones cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum MilestoneError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A milestone's bytes are not what they should be.
    #[error("the milestone at seq {seq}: {error}")]
    Decode {
        /// Which.
        seq: Seq,
        /// What is wrong.
        error: DecodeError,
    },
}

/// The last milestone at or before a seq; zero is before the first record.
pub fn at_or_before(seq: Seq) -> Seq {
    seq - seq % MILESTONE_INTERVAL_RECORDS
}

/// Where the difference begins that leads to a milestone: the one before it of its level or a higher one.
/// Thus each change of a fact is kept about once for each level, and not once for every milestone that
/// follows it within its level.
pub fn base_of(milestone: Seq) -> Seq {
    milestone - (MILESTONE_INTERVAL_RECORDS * MILESTONE_BRANCHING.pow(level_of(milestone))).min(milestone)
}

/// Every milestone that one rests on, the nearest first.
pub fn bases_of(milestone: Seq) -> impl Iterator<Item = Seq> {
    std::iter::successors(Some(base_of(milestone)), |base| Some(base_of(*base))).take_while(|base| *base > 0)
}

/// How many digits of a milestone's number, from the last one on, are zero. Few milestones are of a
/// high level, and all others rest on those.
pub fn level_of(milestone: Seq) -> u32 {
    let mut number = milestone / MILESTONE_INTERVAL_RECORDS;
    let mut level = 0;
    while number > 0 && number.is_multiple_of(MILESTONE_BRANCHING) {
        (number, level) = (number / MILESTONE_BRANCHING, level + 1);
    }
    level
}

/// The milestones of a level or a higher one, up to a seq, in order.
pub fn of_level(level: u32, through: Seq) -> impl DoubleEndedIterator<Item = Seq> {
    let interval = MILESTONE_INTERVAL_RECORDS * MILESTONE_BRANCHING.pow(level);
    (1..=through / interval).map(move |number| number * interval)
}

/// The milestones of one store.
#[derive(Clone)]
pub struct Milestones {
    reader: Reader,
}

impl Milestones {
    /// Those kept beside a log.
    pub fn new(reader: Reader) -> Self {
        Self { reader }
    }

    /// The last one kept. Every one before it is kept, too. Zero when there is none that
    /// this program can read.
    pub fn through(&self) -> Result<Seq, StoreError> {
        if self.reader.get_derived(LAYOUT)?.as_deref() != Some(&layout()) {
            return Ok(0);
        }
        let through = self.reader.get_derived(THROUGH)?;
        let through = through.and_then(|bytes| <[u8; 8]>::try_from(bytes.as_slice()).ok());
        Ok(through.map_or(0, u64::from_be_bytes))
    }

    /// Forgets those of another layout, which this program cannot read.
    pub fn prepare(&self) -> Result<(), StoreError> {
        if self.reader.get_derived(LAYOUT)?.as_deref() == Some(&layout()) {
            return Ok(());
        }
        self.reader.delete_all_derived(PREFIX)?;
        self.reader.put_derived(&[(LAYOUT.to_vec(), Some(layout().to_vec()))])
    }

    /// A milestone's bytes.
    pub fn bytes(&self, seq: Seq) -> Result<Option<Bytes>, StoreError> {
        let part = |kind| self.reader.get_derived(&key(kind, seq));
        let (target, progress, answers) = (part(TARGET_AT)?, part(PROGRESS_AT)?, part(ANSWERS_AT)?);
        let all = target.zip(progress).zip(answers);
        Ok(all.map(|((target, progress), answers)| Bytes { target, progress, answers }))
    }

    fn part<T>(
        &self,
        kind: &[u8],
        seq: Seq,
        decode: impl FnOnce(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, MilestoneError> {
        let bytes = self.reader.get_derived(&key(kind, seq))?;
        let decoded = bytes.map(|bytes| decode(&bytes)).transpose();
        decoded.map_err(|error| MilestoneError::Decode { seq, error })
    }

    /// What differs between the outlines of [`base_of`] a milestone and of itself.
    pub fn get(&self, seq: Seq) -> Result<Option<Delta>, MilestoneError> {
        let (target, progress) =
            (self.part(TARGET_AT, seq, decode_target)?, self.part(PROGRESS_AT, seq, decode_progress)?);
        Ok(target.zip(progress).map(|(target, progress)| Delta { target, progress }))
    }

    /// The same, of targets and what governs alone, of which a part can be read.
    pub fn target(&self, seq: Seq) -> Result<Option<Vec<u8>>, StoreError> {
        self.reader.get_derived(&key(TARGET_AT, seq))
    }

    /// The same, of what became of them alone, of which a part can be read.
    pub fn progress(&self, seq: Seq) -> Result<Option<Vec<u8>>, StoreError> {
        self.reader.get_derived(&key(PROGRESS_AT, seq))
    }

    /// The same between the answers.
    pub fn answers(&self, seq: Seq) -> Result<Option<AnswersDelta>, MilestoneError> {
        self.part(ANSWERS_AT, seq, decode_answers)
    }

    /// Keeps the next milestone.
    pub fn keep(&self, difference: &Difference) -> Result<(), StoreError> {
        let Difference { delta, answers } = difference;
        let seq = delta.to();
        self.reader.put_derived(&[
            (key(TARGET_AT, seq), Some(encode_target(&delta.target))),
            (key(PROGRESS_AT, seq), Some(encode_progress(&delta.progress))),
            (key(ANSWERS_AT, seq), Some(encode_answers(answers))),
            (THROUGH.to_vec(), Some(seq.to_be_bytes().to_vec())),
        ])
    }
}

fn key(kind: &[u8], seq: Seq) -> Vec<u8> {
    [kind, &seq.to_be_bytes()].concat()
}

/// Whatever must be the same for a milestone to be read as it was written.
fn layout() -> [u8; 18] {
    let mut layout = [0; 18];
    layout[..2].copy_from_slice(&[DELTA_FORMAT, BASES]);
    layout[2..10].copy_from_slice(&MILESTONE_INTERVAL_RECORDS.to_be_bytes());
    layout[10..].copy_from_slice(&MILESTONE_BRANCHING.to_be_bytes());
    layout
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_milestone_is_few_steps_from_the_beginning() {
        const UNIT: u64 = MILESTONE_INTERVAL_RECORDS;
        assert_eq!(base_of(UNIT), 0);
        assert_eq!(base_of(16 * UNIT), 0);
        assert_eq!(base_of(17 * UNIT), 16 * UNIT);
        assert_eq!(base_of(23 * UNIT), 22 * UNIT);
        assert_eq!(base_of(20 * UNIT), 16 * UNIT);
        assert_eq!(base_of(128 * UNIT), 64 * UNIT);
        for number in 1..20_000 {
            let mut steps = 0;
            let mut at = number * UNIT;
            while at > 0 {
                let base = base_of(at);
                assert!(base < at, "{number}");
                (at, steps) = (base, steps + 1);
            }
            // At most three of each level of a number below 4^8.
            assert!(steps <= 24, "{number} takes {steps}");
        }
        assert_eq!([1, 4, 12, 16, 20].map(|number| level_of(number * UNIT)), [0, 1, 1, 2, 1]);
        assert_eq!(of_level(3, 130 * UNIT).collect::<Vec<_>>(), [64 * UNIT, 128 * UNIT]);
        assert_eq!(at_or_before(UNIT - 1), 0);
        assert_eq!(at_or_before(UNIT), UNIT);
    }
}
