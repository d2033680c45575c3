//! The replay itself.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use stele_codec::{Chain, Folder, Linker, RecordBytes};
use stele_model::{Digest, Record, Seq};
use stele_proof::merkle::{Frontier, leaf_hash};

use super::checks::{Checks, Mark};
use super::divergence::Divergence;
use super::source::Source;
use crate::exit::Failure;
use crate::limits::{REPLAY_CHUNK_BYTES, REPLAY_CHUNKS_AHEAD};

/// How a replay went.
pub(crate) struct Replayed {
    pub(crate) records: Seq,
    pub(crate) digests: u64,
    pub(crate) chain: Chain,
    pub(crate) root: Digest,
    pub(crate) state: Digest,
}

/// Records that are linked to all before them, with what was asked about single ones.
struct Chunk {
    records: Vec<(Record, Option<Mark>)>,
    /// Why there will be no more.
    end: Option<Failure>,
    last: Mark,
}

/// Replays a log up to a record. `folded` is told of every record.
pub(crate) fn replay(
    source: impl Source,
    to: Seq,
    checks: &mut Checks,
    mut folded: impl FnMut(&Record) -> Result<(), Failure>,
) -> Result<Replayed, Failure> {
    let marks = checks.marks();
    let (chunks, received) = sync_channel(REPLAY_CHUNKS_AHEAD);
    std::thread::scope(|scope| {
        // The sender goes with its thread, and with it the receiver's loop ends.
        scope.spawn(|| Links::new(&marks, chunks).of(source, to));
        fold(received, checks, &mut folded)
    })
}

/// Links records to all before them, and sends them on.
struct Links<'a> {
    linker: Linker,
    tree: Frontier,
    marks: &'a BTreeSet<Seq>,
    records: Vec<(Record, Option<Mark>)>,
    /// What these took as they were read.
    bytes: usize,
    diverged: Option<Failure>,
    chunks: SyncSender<Chunk>,
    /// Whether nobody folds any more, because something diverged there.
    is_vain: bool,
}

impl<'a> Links<'a> {
    fn new(marks: &'a BTreeSet<Seq>, chunks: SyncSender<Chunk>) -> Self {
        Self {
            linker: Linker::new(),
            tree: Frontier::new(),
            marks,
            records: Vec::new(),
            bytes: 0,
            diverged: None,
            chunks,
            is_vain: false,
        }
    }

    fn of(mut self, mut source: impl Source, to: Seq) {
        let end = self.read(&mut source, to).err();
        self.send(end);
    }

    fn read(&mut self, source: &mut impl Source, to: Seq) -> Result<(), Failure> {
        while self.linker.seq() < to && !self.is_vain {
            let next = self.linker.seq() + 1;
            let read = source.read(next, to, &mut |stored, chain| self.push(stored, chain));
            if let Some(diverged) = self.diverged.take() {
                return Err(diverged);
            }
            read?;
            if self.linker.seq() < next {
                return Err(Failure::Failed(format!("record {next} was not given")));
            }
        }
        Ok(())
    }

    /// Whether there should be more.
    fn push(&mut self, stored: RecordBytes<'_>, chain: Option<Chain>) -> bool {
        match self.linker.push(stored, chain) {
            Ok(record) => {
                self.tree.append(leaf_hash(stored.leaf()), |_, _, _| {});
                let wanted = self.marks.contains(&self.linker.seq());
                self.records.push((record, wanted.then(|| self.mark())));
                self.bytes += stored.leaf().len() + stored.payload().len();
                if self.bytes >= REPLAY_CHUNK_BYTES {
                    self.send(None);
                }
                !self.is_vain
            }
            Err(error) => {
                self.diverged = Some(Divergence::from(error).into());
                false
            }
        }
    }

    fn send(&mut self, end: Option<Failure>) {
        let chunk = Chunk { records: std::mem::take(&mut self.records), end, last: self.mark() };
        self.bytes = 0;
        self.is_vain = self.chunks.send(chunk).is_err();
    }

    fn mark(&self) -> Mark {
        Mark { chain: self.linker.chain(), root: self.tree.root() }
    }
}

fn fold(
    received: Receiver<Chunk>,
    checks: &mut Checks,
    folded: &mut impl FnMut(&Record) -> Result<(), Failure>,
) -> Result<Replayed, Failure> {
    let mut folder = Folder::new();
    let mut last = Mark { chain: Chain::GENESIS, root: Frontier::new().root() };
    for chunk in received {
        for (record, mark) in chunk.records {
            folder.push(&record).map_err(Divergence::from)?;
            checks.at(&mut folder, mark)?;
            folded(&record)?;
        }
        if let Some(failure) = chunk.end {
            return Err(failure);
        }
        last = chunk.last;
    }
    Ok(Replayed {
        records: folder.state().seq,
        digests: folder.digests_matched(),
        state: folder.digest(),
        chain: last.chain,
        root: last.root,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use stele_codec::{StoredRecord, encode_record};
    use stele_model::{Decision, Event, Header, Links, Time};

    use super::*;
    use crate::replay::source::Each;

    /// Gives what it has, and nothing beyond.
    struct FromMemory(Vec<StoredRecord>);

    impl Source for FromMemory {
        fn read(&mut self, from: Seq, to: Seq, each: &mut Each<'_>) -> Result<(), Failure> {
            let wanted = self.0.iter().take(to as usize).skip(from as usize - 1);
            for stored in wanted {
                if !each(stored.into(), None) {
                    break;
                }
            }
            Ok(())
        }
    }

    fn log(records: Seq) -> Vec<StoredRecord> {
        let record = |seq: Seq| {
            let header = Header {
                seq,
                time: Time(seq),
                decision: Decision { first: seq, count: 1 },
                principal: "admin".parse().unwrap(),
                cause: None,
                trace: None,
                idempotency: None,
                kind: String::new(),
                schema: 0,
                codec: 0,
                scopes: Vec::new(),
                reason: None,
                links: Links::default(),
                payload: Digest::EMPTY,
            };
            let environment = format!("e{seq}").parse().unwrap();
            encode_record(header, &Event::EnvironmentCreated { environment }).unwrap().0
        };
        (1..=records).map(record).collect()
    }

    /// How a replay ended, and the records that were folded before.
    fn replayed(log: Vec<StoredRecord>, to: Seq) -> (Result<Replayed, Failure>, Seq) {
        let mut last = 0;
        let ended = replay(FromMemory(log), to, &mut Checks::default(), |record| {
            assert_eq!(record.header.seq, last + 1);
            last = record.header.seq;
            Ok(())
        });
        (ended, last)
    }

    #[test]
    fn a_log_of_several_chunks_is_replayed_whole() {
        let log = log(20_000);
        let bytes: usize = log.iter().map(|stored| stored.leaf.len() + stored.payload.len()).sum();
        assert!(bytes > REPLAY_CHUNK_BYTES, "{bytes}");
        let (ended, last) = replayed(log.clone(), 20_000);
        let whole = ended.unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!((whole.records, last), (20_000, 20_000));
        let (ended, last) = replayed(log, 19_999);
        let part = ended.unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!((part.records, last), (19_999, 19_999));
        assert!(part.chain != whole.chain && part.root != whole.root && part.state != whole.state);
    }

    #[test]
    fn the_first_divergence_ends_a_replay_after_all_before_it() {
        let mut log = log(9);
        log[4].payload[0] ^= 1;
        log.swap(6, 7);
        let (ended, last) = replayed(log, 9);
        let Err(Failure::Diverged(divergence)) = ended else { panic!("record 5 is not what was written") };
        assert_eq!((divergence.seq, divergence.field.as_str(), last), (5, "payload hash", 4));
    }

    #[test]
    fn a_source_that_gives_nothing_does_not_hold_a_replay() {
        let (ended, last) = replayed(log(3), 5);
        let Err(Failure::Failed(why)) = ended else { panic!("there are no more than 3") };
        assert_eq!((why.as_str(), last), ("record 4 was not given", 3));
    }

    #[test]
    fn who_folds_may_stop_a_long_log() {
        let mut folded = 0;
        let ended = replay(FromMemory(log(30_000)), 30_000, &mut Checks::default(), |_| {
            folded += 1;
            if folded == 10 { Err(Failure::Closed) } else { Ok(()) }
        });
        assert!(matches!(ended, Err(Failure::Closed)));
    }
}
