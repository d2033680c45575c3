//! Records as the controllers give them, led to the root of a signed checkpoint.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Instant;

use stele_api::ProblemKind;
use stele_api::limits::EVENTS_PAGE_MAX;
use stele_api::wire::EventsPage;
use stele_codec::StoredRecord;
use stele_model::{Digest, Event, Header, Seq, Time};
use stele_proof::ProofError;
use stele_proof::merkle::{inclusion_proof, leaf_hash, range_proof, verify_inclusion, verify_range};
use stele_proof::pack::Regions;
use stele_proof::tile::{TileHashes, TilePath, TileSource};

use super::progress::Progress;
use super::range::Range;
use crate::client::{Client, with_query};
use crate::commands::checkpoint::{Believed, Trust, believe};
use crate::exit::Failure;
use crate::limits::{
    CHECKPOINT_DEADLINE, REQUEST_TIMEOUT, RETRY_DEADLINE, TILE_BYTES_MAX, TILES_KEPT_MAX, WAIT_PAUSE,
};
use crate::options::ReadOptions;
use crate::replay::FromApi;
use crate::session::Session;

/// The kind of record that says where a node is.
const NODE_ENROLLED: &str = "node_enrolled";
/// The kinds of records without which nobody knows whose signatures to believe.
const KEY_KINDS: [&str; 2] = ["fleet_created", "controller_certified"];

impl From<ProofError> for Failure {
    fn from(error: ProofError) -> Self {
        Self::Failed(format!("not proved: {error}"))
    }
}

/// A fleet's log, up to a checkpoint.
pub(super) struct Log<'a> {
    client: &'a Client,
    read: ReadOptions,
    source: FromApi,
    hashes: TileHashes<Tiles<'a>>,
    pub(super) checkpoint: Believed,
}

impl<'a> Log<'a> {
    /// Waits until a checkpoint covers a record: controllers sign a moment after they commit.
    pub(super) fn open(
        session: &Session,
        client: &'a Client,
        trust: &Trust,
        covers: Seq,
        read: ReadOptions,
    ) -> Result<Self, Failure> {
        let deadline = Instant::now() + CHECKPOINT_DEADLINE;
        loop {
            let checkpoint = believe(session, client, trust)?;
            if checkpoint.size >= covers {
                let hashes = TileHashes::new(Tiles { client, kept: RefCell::default() }, checkpoint.size);
                return Ok(Self {
                    client,
                    read,
                    source: FromApi(session.client()?, read),
                    hashes,
                    checkpoint,
                });
            }
            if Instant::now() > deadline {
                return Err(Failure::Unreachable(format!(
                    "controller {} has signed no more than {} records within {} s, and record {covers} is wanted\n  \
                     next: stele cluster status",
                    checkpoint.controller,
                    checkpoint.size,
                    CHECKPOINT_DEADLINE.as_secs()
                )));
            }
            std::thread::sleep(WAIT_PAUSE);
        }
    }

    /// How many records the checkpoint has.
    pub(super) fn size(&self) -> u64 {
        self.checkpoint.size
    }

    /// The nodes of the checkpoint's tree.
    pub(super) fn hashes(&self) -> &TileHashes<Tiles<'a>> {
        &self.hashes
    }

    /// Reads every record of a range, in order. Answers the hashes of their leaves, to be proved.
    pub(super) fn read(
        &mut self,
        range: &Range,
        mut each: impl FnMut(StoredRecord, Header, Digest) -> Result<(), Failure>,
    ) -> Result<Vec<Digest>, Failure> {
        let progress = Progress::new("reading", range.count());
        let mut hashes = Vec::new();
        let mut next = range.first();
        let mut before = Time(0);
        while next <= range.last() {
            for stored in self.source.page(next, range.last())? {
                let stored = stored?;
                progress.add(1);
                let header = checked(&stored, next)?;
                if header.time <= before {
                    return Err(Failure::Failed(format!(
                        "record {next} is not later than the one before it"
                    )));
                }
                before = header.time;
                let hash = leaf_hash(&stored.leaf);
                hashes.push(hash);
                each(stored, header, hash)?;
                next += 1;
            }
        }
        Ok(hashes)
    }

    /// Proves that exactly these leaves stand there in the checkpoint's tree.
    pub(super) fn prove(&self, first: Seq, leaves: &[Digest]) -> Result<(), Failure> {
        let (size, root) = (self.checkpoint.size, self.checkpoint.root);
        let (begin, end) = (first - 1, first - 1 + leaves.len() as u64);
        let proof = range_proof(&self.hashes, begin, end, size)?;
        Ok(verify_range(leaves, begin, size, &proof, root)?)
    }

    /// One record, proved to be in the checkpoint's tree.
    pub(super) fn proved(&mut self, seq: Seq) -> Result<(StoredRecord, Header), Failure> {
        let Some(stored) = self.source.page(seq, seq)?.next().transpose()? else {
            return Err(Failure::Failed(format!("record {seq} is not there")));
        };
        let header = checked(&stored, seq)?;
        let (size, root) = (self.checkpoint.size, self.checkpoint.root);
        let index = seq.saturating_sub(1);
        let proof = inclusion_proof(&self.hashes, index, size)?;
        verify_inclusion(leaf_hash(&stored.leaf), index, size, &proof, root)?;
        Ok((stored, header))
    }

    /// Records outside a range that say whose keys to believe.
    /// Which there are is a controller's word: without one of them nothing is believed that should not be.
    pub(super) fn beside(&mut self, range: &Range) -> Result<Vec<StoredRecord>, Failure> {
        let mut seqs = Vec::new();
        let mut after = 0;
        while after < self.size() {
            let query = [
                ("after", Some(after.to_string())),
                ("kind", Some(KEY_KINDS.join(","))),
                ("limit", Some(EVENTS_PAGE_MAX.to_string())),
                self.read.consistency(),
            ];
            let page: EventsPage = self.client.get(&with_query("/v1/events", &query))?;
            if page.after <= after {
                return Err(Failure::Failed(format!("the log ends at record {after}")));
            }
            after = page.after;
            seqs.extend(page.events.iter().map(|record| record.header.seq));
        }
        let (inside, size) = (range.first()..=range.last(), self.size());
        seqs.retain(|seq| !inside.contains(seq) && *seq <= size);
        let progress = Progress::new("reading keys", seqs.len() as u64);
        let read = |seq| {
            progress.add(1);
            Ok(self.proved(seq)?.0)
        };
        seqs.into_iter().map(read).collect()
    }
}

/// The header of the record that should be `seq`, whose payload is the one it names.
fn checked(stored: &StoredRecord, seq: Seq) -> Result<Header, Failure> {
    let header = stored
        .header()
        .map_err(|error| Failure::Failed(format!("the header of record {seq} cannot be read: {error}")))?;
    if header.seq != seq {
        return Err(Failure::Failed(format!("record {} stands where record {seq} should", header.seq)));
    }
    if Digest::of(&[&stored.payload]) != header.payload {
        return Err(Failure::Failed(format!("the payload of record {seq} is not the one its header names")));
    }
    Ok(header)
}

/// Notes where a record says that a node is.
pub(super) fn note_region(regions: &mut Regions, stored: &StoredRecord, header: &Header) {
    if header.kind != NODE_ENROLLED {
        return;
    }
    // One of a later version is not understood, and its node is then in doubt everywhere.
    if let Ok(record) = stored.decode()
        && let Event::NodeEnrolled { node, .. } = record.event
    {
        regions.entry(node.name).or_default().insert(node.region);
    }
}

/// Tiles of the tree, fetched when they are needed.
pub(super) struct Tiles<'a> {
    client: &'a Client,
    kept: RefCell<BTreeMap<TilePath, Vec<u8>>>,
}

impl TileSource for Tiles<'_> {
    type Error = Failure;

    fn tile(&self, path: &TilePath) -> Result<Vec<u8>, Failure> {
        if let Some(bytes) = self.kept.borrow().get(path) {
            return Ok(bytes.clone());
        }
        let bytes = fetch(self.client, path)?;
        let mut kept = self.kept.borrow_mut();
        if kept.len() >= TILES_KEPT_MAX {
            kept.clear();
        }
        kept.insert(*path, bytes.clone());
        Ok(bytes)
    }
}

/// Another controller than the one that signed may answer, and be a moment behind it.
fn fetch(client: &Client, path: &TilePath) -> Result<Vec<u8>, Failure> {
    let deadline = Instant::now() + RETRY_DEADLINE;
    loop {
        match client.bytes(&format!("/log/{path}"), TILE_BYTES_MAX, REQUEST_TIMEOUT) {
            Err(Failure::Problem(problem))
                if problem.known_kind() == Some(ProblemKind::NotFound) && Instant::now() < deadline =>
            {
                std::thread::sleep(WAIT_PAUSE);
            }
            answered => return answered,
        }
    }
}
