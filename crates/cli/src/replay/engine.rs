//! The replay itself.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use stele_codec::{Chain, Folder, Linker};
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
        scope.spawn(|| link(source, to, &marks, chunks));
        fold(received, checks, &mut folded)
    })
}

fn link(mut source: impl Source, to: Seq, marks: &BTreeSet<Seq>, chunks: SyncSender<Chunk>) {
    let mut linker = Linker::new();
    let mut tree = Frontier::new();
    while linker.seq() < to {
        let mut chunk = Chunk { records: Vec::new(), end: None, last: mark(&linker, &tree) };
        let (mut bytes, mut diverged) = (0, None);
        let read = source.read(linker.seq() + 1, to, &mut |stored, chain| {
            bytes += stored.leaf().len() + stored.payload().len();
            match linker.push(stored, chain) {
                Ok(record) => {
                    tree.append(leaf_hash(stored.leaf()), |_, _, _| {});
                    let wanted = marks.contains(&linker.seq());
                    chunk.records.push((record, wanted.then(|| mark(&linker, &tree))));
                    bytes < REPLAY_CHUNK_BYTES
                }
                Err(error) => {
                    diverged = Some(Divergence::from(error).into());
                    false
                }
            }
        });
        chunk.end = diverged.or(read.err());
        chunk.last = mark(&linker, &tree);
        let is_last = chunk.end.is_some();
        // Nobody folds any more once something diverged.
        if chunks.send(chunk).is_err() || is_last {
            return;
        }
    }
}

fn mark(linker: &Linker, tree: &Frontier) -> Mark {
    Mark { chain: linker.chain(), root: tree.root() }
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
