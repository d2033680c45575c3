//! Whether what clients were told fits one order of events, and that order is the log's.
//!
//! A history is linearizable when each operation can be thought of as happening at one moment
//! between its question and its answer (Herlihy and Wing, 1990). The log is the witness: it says in
//! which order writes happened, so each operation only has to fit into it.
//!
//! The simulation and chaos both judge by it. It must never know how either of them came to its history.
//!
//! ```
//! use std::collections::BTreeMap;
//! use stele_linear::Deed;
//!
//! // The log says that x became 1 at record 5 and 2 at record 8.
//! let log = BTreeMap::from([("x", vec![(5, Some("1".to_owned())), (8, Some("2".to_owned()))])]);
//! let read = Deed::Read { register: "x", value: Some("1".to_owned()) };
//! assert_eq!(read.earliest(0, &log), Ok(5));
//! // Somebody was told of record 8 before this was asked.
//! assert!(read.earliest(8, &log).is_err());
//! ```

use std::collections::BTreeMap;
use std::fmt::Display;

use stele_model::Seq;

/// What a client did, with its own clock's readings in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation<K> {
    /// When it was asked, the first time.
    pub asked_us: u64,
    /// When the answer arrived.
    pub answered_us: u64,
    /// What it was.
    pub what: Deed<K>,
}

/// Reading or writing registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed<K> {
    /// An acknowledged write.
    Write {
        /// Where the log has it, as the client was told.
        seq: Seq,
    },
    /// An answered read of one register. A write that was answered that nothing had to change is one.
    Read {
        /// Of what.
        register: K,
        /// What was found; nothing before the first write.
        value: Option<String>,
    },
    /// An answered read that says as of which record it is.
    ReadAsOf {
        /// The last record it saw.
        seq: Seq,
    },
}

/// What the log says of one register: what it was from each of these seqs on, in order. Before the
/// first it was nothing.
pub type Written = Vec<(Seq, Option<String>)>;

/// Compares a history with what the log says. Answers what does not fit.
///
/// It finds every history that fits no order: each operation gets the earliest moment in the log that
/// the ones answered before it was asked allow, and moments only push others later.
pub fn misfits<K: Ord + Display>(operations: &[Operation<K>], log: &BTreeMap<K, Written>) -> Vec<String> {
    let mut asked: Vec<&Operation<K>> = operations.iter().collect();
    asked.sort_by_key(|operation| operation.asked_us);
    // Answers by time, with the moment each proves to have passed.
    let mut answers: Vec<(u64, Seq)> = Vec::new();
    let mut misfits = Vec::new();
    for operation in asked {
        let known = answers.iter().filter(|(at, _)| *at < operation.asked_us).map(|(_, seq)| *seq);
        let floor = known.max().unwrap_or(0);
        match operation.what.earliest(floor, log) {
            Ok(moment) => answers.push((operation.answered_us, moment)),
            Err(why) => misfits.push(why),
        }
        forget_the_overtaken(&mut answers, operation.asked_us);
    }
    misfits
}

/// Of all answers before now only the latest moment matters: nobody asks earlier any more.
fn forget_the_overtaken(answers: &mut Vec<(u64, Seq)>, now_us: u64) {
    let past = answers.iter().filter(|(at, _)| *at < now_us).max_by_key(|(_, seq)| *seq).copied();
    answers.retain(|(at, _)| *at >= now_us);
    answers.extend(past);
}

impl<K: Ord + Display> Deed<K> {
    /// The earliest moment it can have happened at, when `floor` is the last record that anybody had been
    /// told of before it was asked. An error says why there is none.
    pub fn earliest(&self, floor: Seq, log: &BTreeMap<K, Written>) -> Result<Seq, String> {
        match self {
            Self::Write { seq } if *seq > floor => Ok(*seq),
            Self::Write { seq } => Err(format!(
                "a write was acknowledged at record {seq}, and before it was asked somebody knew of record {floor}"
            )),
            Self::ReadAsOf { seq } if *seq >= floor => Ok(*seq),
            Self::ReadAsOf { seq } => Err(format!(
                "record {seq} was read, and before that was asked somebody knew of record {floor}"
            )),
            Self::Read { register, value } => {
                let written = log.get(register).map_or(&[][..], Vec::as_slice);
                earliest_read(written, value.as_ref(), floor)
                    .map_err(|why| format!("{register} was read as {value:?}, {why}"))
            }
        }
    }
}

/// The first moment from `floor` on at which a register had a value.
fn earliest_read(
    written: &[(Seq, Option<String>)],
    value: Option<&String>,
    floor: Seq,
) -> Result<Seq, String> {
    let first = [(0, None)];
    let spans = first.iter().chain(written);
    let ends = written.iter().map(|(seq, _)| *seq).chain([Seq::MAX]);
    let mut was = None;
    for ((from, then), end) in spans.zip(ends) {
        if then.as_ref() != value {
            continue;
        }
        if end > floor {
            return Ok(floor.max(*from));
        }
        was = Some(end);
    }
    Err(match was {
        Some(end) => format!(
            "and before that was asked somebody knew of record {floor}; since record {end} it is something else"
        ),
        None => "which the log says was never written".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> BTreeMap<&'static str, Written> {
        let values = [(5, "one"), (8, "two"), (9, "three")];
        BTreeMap::from([("x", values.map(|(seq, it)| (seq, Some(it.to_owned()))).to_vec())])
    }

    fn write(asked_us: u64, answered_us: u64, seq: Seq) -> Operation<&'static str> {
        Operation { asked_us, answered_us, what: Deed::Write { seq } }
    }

    fn read(asked_us: u64, answered_us: u64, value: Option<&str>) -> Operation<&'static str> {
        let value = value.map(str::to_owned);
        Operation { asked_us, answered_us, what: Deed::Read { register: "x", value } }
    }

    #[test]
    fn what_overlaps_may_be_seen_or_not() {
        let seen = [read(0, 1, None), write(10, 20, 5), read(12, 13, None), read(14, 15, Some("one"))];
        assert_eq!(misfits(&seen, &log()), Vec::<String>::new());
    }

    #[test]
    fn a_stale_read_is_noticed() {
        let stale = [write(10, 20, 5), write(30, 40, 8), read(41, 42, Some("one"))];
        assert_eq!(misfits(&stale, &log()).len(), 1);
        let empty = [write(10, 20, 5), read(21, 22, None)];
        assert_eq!(misfits(&empty, &log()).len(), 1);
    }

    #[test]
    fn what_one_reader_saw_no_later_reader_may_miss() {
        // The write is on its way all the time; the first reader proves that it has happened.
        let back = [write(0, 100, 8), read(10, 20, Some("two")), read(30, 40, Some("one"))];
        assert_eq!(misfits(&back, &log()).len(), 1);
    }

    #[test]
    fn a_write_lands_after_what_was_known_when_it_was_asked() {
        let early = [write(10, 20, 8), write(30, 40, 5)];
        assert_eq!(misfits(&early, &log()).len(), 1);
    }

    #[test]
    fn a_value_nobody_wrote_is_noticed() {
        assert_eq!(misfits(&[read(0, 1, Some("four"))], &log()).len(), 1);
    }

    #[test]
    fn a_long_history_is_judged_by_all_of_it() {
        let mut operations: Vec<_> =
            (0..1000).map(|at| read(10 * at + 100, 10 * at + 105, Some("three"))).collect();
        assert_eq!(misfits(&operations, &log()), Vec::<String>::new());
        operations.push(read(20_000, 20_001, Some("two")));
        assert_eq!(misfits(&operations, &log()).len(), 1);
    }

    #[test]
    fn a_value_may_come_back() {
        let mut log = log();
        log.get_mut("x").unwrap().extend([(12, None), (15, Some("one".to_owned()))]);
        let at = |value: Option<&str>, floor| {
            Deed::Read { register: "x", value: value.map(str::to_owned) }.earliest(floor, &log)
        };
        assert_eq!((at(Some("one"), 0), at(Some("one"), 6), at(Some("one"), 9)), (Ok(5), Ok(6), Ok(15)));
        assert_eq!((at(None, 3), at(None, 7)), (Ok(3), Ok(12)));
        assert!(at(None, 15).is_err() && at(Some("two"), 9).is_err());
    }

    #[test]
    fn a_read_that_names_its_record_is_held_to_it() {
        let as_of =
            |asked_us, answered_us, seq| Operation { asked_us, answered_us, what: Deed::ReadAsOf { seq } };
        assert_eq!(misfits(&[write(0, 5, 5), as_of(6, 7, 5)], &log()), Vec::<String>::new());
        assert_eq!(misfits(&[write(0, 5, 8), as_of(6, 7, 5)], &log()).len(), 1);
    }
}
