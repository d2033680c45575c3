//! Whether what clients were told fits one order of events, and that order is the log's.
//!
//! A history is linearizable when each operation can be thought of as happening at one moment
//! between its question and its answer. The log is the witness: it says in which order writes
//! happened, so each operation only has to fit into it.

use std::collections::BTreeMap;

use stele_model::Seq;

/// What a client did, with its own clock's readings in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// When it was asked, the first time.
    pub asked_us: u64,
    /// When the answer arrived.
    pub answered_us: u64,
    /// What it was.
    pub what: Deed,
}

/// Reading or writing a register. No value is ever written twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// An acknowledged write.
    Write {
        /// Where the log has it, as the client was told.
        seq: Seq,
    },
    /// An answered read.
    Read {
        /// Of what.
        register: String,
        /// What was found; nothing before the first write.
        value: Option<String>,
    },
}

/// What the log says of one register: values in order, each with its seq.
pub type Written = Vec<(Seq, String)>;

/// Compares a history with what the log says. Answers what does not fit.
///
/// It finds every history that fits no order: each operation gets the earliest moment in the log that
/// the ones answered before it was asked allow, and moments only push others later.
pub fn misfits(operations: &[Operation], log: &BTreeMap<String, Written>) -> Vec<String> {
    let mut asked: Vec<&Operation> = operations.iter().collect();
    asked.sort_by_key(|operation| operation.asked_us);
    // Answers by time, with the moment each proves to have passed.
    let mut answers: Vec<(u64, Seq)> = Vec::new();
    let mut misfits = Vec::new();
    for operation in asked {
        let known = answers.iter().filter(|(at, _)| *at < operation.asked_us).map(|(_, seq)| *seq);
        let floor = known.max().unwrap_or(0);
        match place(operation, floor, log) {
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

/// The earliest moment of an operation that is not before `floor`.
fn place(operation: &Operation, floor: Seq, log: &BTreeMap<String, Written>) -> Result<Seq, String> {
    match &operation.what {
        Deed::Write { seq } if *seq > floor => Ok(*seq),
        Deed::Write { seq } => Err(format!(
            "a write was acknowledged at record {seq}, and before it was asked somebody knew of record {floor}"
        )),
        Deed::Read { register, value } => {
            let written = log.get(register).map_or(&[][..], Vec::as_slice);
            let (from, next) = match value {
                None => (0, written.first()),
                Some(value) => {
                    let found = written.iter().position(|(_, it)| it == value);
                    let at = found.ok_or_else(|| {
                        format!("{register} was read as {value}, which the log says was never written")
                    })?;
                    (written[at].0, written.get(at + 1))
                }
            };
            let moment = from.max(floor);
            match next {
                Some((seq, newer)) if *seq <= moment => Err(format!(
                    "{register} was read as {value:?}, and before that was asked somebody knew of record {moment}; \
                     since record {seq} it is {newer}"
                )),
                _ => Ok(moment),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> BTreeMap<String, Written> {
        let values = [(5, "one"), (8, "two"), (9, "three")];
        BTreeMap::from([("x".to_owned(), values.map(|(seq, it)| (seq, it.to_owned())).to_vec())])
    }

    fn write(asked_us: u64, answered_us: u64, seq: Seq) -> Operation {
        Operation { asked_us, answered_us, what: Deed::Write { seq } }
    }

    fn read(asked_us: u64, answered_us: u64, value: Option<&str>) -> Operation {
        let value = value.map(str::to_owned);
        Operation { asked_us, answered_us, what: Deed::Read { register: "x".to_owned(), value } }
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
}
