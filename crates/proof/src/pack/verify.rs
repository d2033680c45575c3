//! Verifying a pack. `docs/log-format.md` lists the steps, in this order.

use std::collections::{BTreeMap, BTreeSet};

use stele_codec::Chain;
use stele_model::signature::PublicKey;
use stele_model::{Digest, FleetName, Scope, Seq, Time};

use super::error::{PackError, Section};
use super::keys::{CONTROLLER_CERTIFIED, FLEET_CREATED, Known, Signers, Whole, regions};
use super::layout::{Layout, Piece};
use super::report::{Subject, report, state_digests};
use super::scope::touches;
use super::walk::{Walk, piece};
use crate::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::note::VerifierKey;

/// What a verifier believes beforehand.
#[derive(Clone, Debug)]
pub struct Trust {
    /// The fleet's root key.
    pub root: PublicKey,
    /// Witnesses: whoever saw to it that the log was never forked.
    pub witnesses: Vec<VerifierKey>,
}

/// A checkpoint that the pack was verified against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointSeen {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// Names of the controllers' keys that signed.
    pub signers: Vec<String>,
    /// Names of witnesses, and when they cosigned, in seconds since 1970.
    pub witnesses: Vec<(String, u64)>,
}

/// Whether somebody besides the fleet vouches that there is no other log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witnessed {
    /// A witness cosigned a checkpoint at or after the end of the range.
    Whole,
    /// Witnesses cosigned up to this record only; 0 when none did.
    UpTo(Seq),
}

/// A record whose payload is proved, but of a kind or schema this program does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotDecoded {
    /// Which.
    pub seq: Seq,
    /// Its kind.
    pub kind: String,
    /// Its schema.
    pub schema: u16,
    /// Why it cannot be read.
    pub why: String,
}

/// What a pack proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Whose log.
    pub fleet: FleetName,
    /// Which scope's payloads are here, all of them.
    pub scope: Scope,
    /// The range as it was asked for.
    pub between: (String, String),
    /// The first record of the range.
    pub first: Seq,
    /// The last one.
    pub last: Seq,
    /// How many payloads of the range are here.
    pub payloads: usize,
    /// The checkpoints, by size.
    pub checkpoints: Vec<CheckpointSeen>,
    /// Whether a fork is ruled out.
    pub witnessed: Witnessed,
    /// State digests recorded in the range.
    pub state_digests: Vec<(Seq, Digest)>,
    /// Payloads that are proved, but not understood.
    pub not_decoded: Vec<NotDecoded>,
    /// The report for people.
    pub report: String,
}

/// Everything that was read and is consistent in itself.
pub(super) struct Read<'a> {
    pub(super) layout: Layout<'a>,
    pub(super) fleet: FleetName,
    pub(super) scope: Scope,
    checkpoints: Vec<SignedCheckpoint>,
    keys: Vec<Known<'a>>,
    records: Vec<Known<'a>>,
}

/// Verifies a pack, trusting nothing but `trust`.
pub fn verify(pack: &[u8], trust: &Trust) -> Result<Verified, PackError> {
    let layout = Layout::read(pack)?;
    let (fleet, scope) = head(&layout)?;
    let checkpoints = checkpoints(&layout, &fleet)?;
    let keys = keys(&layout)?;
    let records = leaves(&layout)?;
    in_time(&keys, &records)?;
    let read = Read { layout, fleet, scope, checkpoints, keys, records };
    let payloads = read.payloads()?;
    read.walk()?;
    let seen = read.signatures(trust)?;
    let text = report(&read.subject(&payloads));
    read.same_report(&text)?;
    if !read.layout.is_whole(pack) {
        let why = "the checksum is not that of the bytes before it, which are all right";
        return Err(PackError::new(Section::Checksum, read.layout.checksum.at, why));
    }
    let witnessed = witnessed(&seen, read.layout.last);
    let not_decoded = read.records.iter().filter_map(|known| {
        let error = known.event(payloads.get(&known.header.seq)?).err()?;
        let header = &known.header;
        Some(NotDecoded {
            seq: header.seq,
            kind: header.kind.clone(),
            schema: header.schema,
            why: error.to_string(),
        })
    });
    Ok(Verified {
        between: (read.layout.from.to_owned(), read.layout.to.to_owned()),
        first: read.layout.first,
        last: read.layout.last,
        payloads: payloads.len(),
        checkpoints: seen,
        witnessed,
        state_digests: state_digests(&read.records, &payloads),
        not_decoded: not_decoded.collect(),
        report: text,
        fleet: read.fleet,
        scope: read.scope,
    })
}

fn head(layout: &Layout<'_>) -> Result<(FleetName, Scope), PackError> {
    let error = |why: String| PackError::new(Section::Head, 0, why);
    let fleet: FleetName =
        layout.fleet.parse().map_err(|it: stele_model::ids::NameError| error(it.to_string()))?;
    let scope: Scope =
        layout.scope.parse().map_err(|it: stele_model::scope::ScopeError| error(it.to_string()))?;
    if scope.to_string() != layout.scope {
        return Err(error(format!("the scope is written {scope}, not {:?}", layout.scope)));
    }
    for (point, seq) in [(layout.from, layout.first - 1), (layout.to, layout.last)] {
        if point.starts_with("seq:") && point != format!("seq:{seq}") {
            return Err(error(format!(
                "the range {}-{} is not what {point:?} stands for",
                layout.first, layout.last
            )));
        }
    }
    Ok((fleet, scope))
}

fn checkpoints(layout: &Layout<'_>, fleet: &FleetName) -> Result<Vec<SignedCheckpoint>, PackError> {
    let mut checkpoints: Vec<SignedCheckpoint> = Vec::new();
    for piece in &layout.checkpoints {
        let error = |why: String| PackError::new(Section::Checkpoints, piece.at, why);
        let note = std::str::from_utf8(piece.bytes).map_err(|_| error("the note is not UTF-8".to_owned()))?;
        let signed: SignedCheckpoint = note.parse().map_err(|it: crate::NoteError| error(it.to_string()))?;
        if signed.checkpoint.fleet != *fleet {
            return Err(error(format!(
                "it is of fleet {}, the pack of fleet {fleet}",
                signed.checkpoint.fleet
            )));
        }
        let before = checkpoints.last().map_or(0, |it| it.checkpoint.size);
        if signed.checkpoint.size <= before {
            return Err(error(format!("its size {} does not follow {before}", signed.checkpoint.size)));
        }
        checkpoints.push(signed);
    }
    let size = checkpoints.last().map_or(0, |it| it.checkpoint.size);
    if size < layout.last {
        let at = layout.checkpoints.last().map_or(0, |it| it.at);
        let why = format!("no checkpoint covers record {}: the largest has {size} records", layout.last);
        return Err(PackError::new(Section::Checkpoints, at, why));
    }
    Ok(checkpoints)
}

fn keys<'a>(layout: &Layout<'a>) -> Result<Vec<Known<'a>>, PackError> {
    let mut keys = Vec::new();
    let mut before = 0;
    for key in &layout.keys {
        let seq = key.seq;
        let error = |at: usize, why: &str| PackError::of(Section::Keys, seq, at, why);
        if seq <= before || (layout.first..=layout.last).contains(&seq) {
            return Err(error(key.at, "it is not outside the range, or not in order"));
        }
        before = seq;
        let known = Known::read(Section::Keys, seq, key.leaf)?;
        if ![FLEET_CREATED, CONTROLLER_CERTIFIED].contains(&known.header.kind.as_str()) {
            return Err(error(key.leaf.at, "records of its kind do not belong here"));
        }
        known.check_payload(Section::Keys, key.payload)?;
        keys.push(known);
    }
    Ok(keys)
}

fn leaves<'a>(layout: &Layout<'a>) -> Result<Vec<Known<'a>>, PackError> {
    (layout.first..).zip(&layout.leaves).map(|(seq, leaf)| Known::read(Section::Leaves, seq, *leaf)).collect()
}

/// Log time grows from record to record.
fn in_time(keys: &[Known<'_>], records: &[Known<'_>]) -> Result<(), PackError> {
    let first = records.first().map_or(0, |it| it.header.seq);
    let (before, after): (Vec<_>, Vec<_>) = keys.iter().partition(|it| it.header.seq < first);
    let of = |section| move |known| (section, known);
    let all = before
        .into_iter()
        .map(of(Section::Keys))
        .chain(records.iter().map(of(Section::Leaves)))
        .chain(after.into_iter().map(of(Section::Keys)));
    let mut time = Time(0);
    for (section, known) in all {
        if known.header.time <= time {
            let why = "the record is not later than the one before it";
            return Err(PackError::of(section, known.header.seq, known.leaf.at, why));
        }
        time = known.header.time;
    }
    Ok(())
}

fn witnessed(seen: &[CheckpointSeen], last: Seq) -> Witnessed {
    let cosigned = seen.iter().filter(|it| !it.witnesses.is_empty()).map(|it| it.checkpoint.size);
    match cosigned.max().unwrap_or(0) {
        size if size >= last => Witnessed::Whole,
        size => Witnessed::UpTo(size),
    }
}

impl<'a> Read<'a> {
    fn record(&self, seq: Seq) -> Option<&Known<'a>> {
        self.records.get(usize::try_from(seq.checked_sub(self.layout.first)?).ok()?)
    }

    /// Records whose payload is here, by seq.
    fn whole(&self) -> Vec<Whole<'_>> {
        let keys = self.keys.iter().zip(&self.layout.keys);
        let keys = keys.map(|(known, key)| Whole { section: Section::Keys, known, payload: key.payload });
        let payloads = self.layout.payloads.iter().filter_map(|(seq, _, payload)| {
            Some(Whole { section: Section::Payloads, known: self.record(*seq)?, payload: *payload })
        });
        let mut whole: Vec<_> = keys.chain(payloads).collect();
        whole.sort_by_key(|it| it.known.header.seq);
        whole
    }

    /// The payloads of the range: exactly those of what touches the scope.
    fn payloads(&self) -> Result<BTreeMap<Seq, &'a [u8]>, PackError> {
        let mut payloads = BTreeMap::new();
        let mut before = 0;
        for (seq, at, payload) in &self.layout.payloads {
            let error = |why: &str| PackError::of(Section::Payloads, *seq, *at, why);
            let known = self.record(*seq).filter(|_| *seq > before);
            let known = known.ok_or_else(|| error("it is not in the range, or not in order"))?;
            known.check_payload(Section::Payloads, *payload)?;
            payloads.insert(*seq, payload.bytes);
            before = *seq;
        }
        let last = self.layout.first + self.records.len() as u64 - 1;
        let regions = regions((self.layout.first, last), self.whole().into_iter());
        for known in &self.records {
            let header = &known.header;
            let touches = touches(&self.scope, &regions, &header.kind, &header.scopes);
            if touches != payloads.contains_key(&header.seq) {
                let (at, why) = match self.layout.payloads.iter().find(|(seq, ..)| *seq == header.seq) {
                    Some((_, at, _)) => (*at, "the record does not touch the scope, yet its payload is here"),
                    None => {
                        (self.layout.report.at, "the record touches the scope, but its payload is missing")
                    }
                };
                return Err(PackError::of(Section::Payloads, header.seq, at, why));
            }
        }
        Ok(payloads)
    }

    /// Rebuilds the tree from the leaves and hashes, and with it the root of every checkpoint.
    fn walk(&self) -> Result<(), PackError> {
        let first = self.layout.first;
        let (before, after): (Vec<_>, Vec<_>) = self.keys.iter().partition(|it| it.header.seq < first);
        let mut leaves = before.into_iter().chain(&self.records).chain(after).peekable();
        let mut hashes = self.layout.hashes.iter();
        let mut walk = Walk::default();
        // The chain is known as long as every leaf is.
        let mut chain = Some(Chain::GENESIS);
        for (signed, note) in self.checkpoints.iter().zip(&self.layout.checkpoints) {
            let size = signed.checkpoint.size;
            while walk.position() < size {
                let at = walk.position();
                // The record of seq n is leaf n - 1.
                if let Some(known) = leaves.next_if(|it| it.header.seq == at + 1) {
                    walk.leaf(known.leaf.bytes);
                    chain = chain.map(|chain| chain.link(known.leaf.bytes));
                    continue;
                }
                let end = leaves.peek().map_or(size, |it| size.min(it.header.seq - 1));
                let Some((_, hash)) = hashes.next() else {
                    let why = format!("a hash is missing, for the tree from leaf {at} on");
                    return Err(PackError::new(Section::Hashes, self.layout.hashes_end, why));
                };
                walk.subtree(piece(at, end), *hash);
                chain = None;
            }
            same_root(&walk, chain, &signed.checkpoint, *note)?;
        }
        if let Some(known) = leaves.next() {
            let why = "the record lies beyond the last checkpoint";
            return Err(PackError::of(Section::Keys, known.header.seq, known.leaf.at, why));
        }
        match hashes.next() {
            Some((at, _)) => {
                Err(PackError::new(Section::Hashes, *at, "more hashes are here than the tree needs"))
            }
            None => Ok(()),
        }
    }

    fn signatures(&self, trust: &Trust) -> Result<Vec<CheckpointSeen>, PackError> {
        let signers = Signers::new(self.whole().into_iter(), &trust.root, &self.fleet)?;
        let mut seen = Vec::new();
        for (signed, note) in self.checkpoints.iter().zip(&self.layout.checkpoints) {
            let size = signed.checkpoint.size;
            let newest = self.records.iter().chain(&self.keys).filter(|it| it.header.seq <= size);
            let time = newest.map(|it| it.header.time).max().unwrap_or(Time(0));
            let known = signers.at(size, time);
            let (by, witnesses) = signed
                .verify(&known, &trust.witnesses)
                .map_err(|error| PackError::new(Section::Checkpoints, note.at, error.to_string()))?;
            let signers: BTreeSet<_> = by.iter().map(|it| it.by.name().to_owned()).collect();
            seen.push(CheckpointSeen {
                checkpoint: signed.checkpoint.clone(),
                signers: signers.into_iter().collect(),
                witnesses: witnesses
                    .iter()
                    .map(|it| (it.by.name().to_owned(), it.time.unwrap_or(0)))
                    .collect(),
            });
        }
        Ok(seen)
    }

    fn subject<'b>(&'b self, payloads: &'b BTreeMap<Seq, &'b [u8]>) -> Subject<'b> {
        Subject {
            fleet: self.layout.fleet,
            scope: self.layout.scope,
            from: self.layout.from,
            to: self.layout.to,
            checkpoints: self.checkpoints.iter().map(|it| it.checkpoint.clone()).collect(),
            keys: self.keys.len(),
            records: &self.records,
            payloads,
        }
    }

    fn same_report(&self, text: &str) -> Result<(), PackError> {
        let found = self.layout.report.bytes;
        if found == text.as_bytes() {
            return Ok(());
        }
        let same = found.iter().zip(text.as_bytes()).take_while(|(found, right)| found == right).count();
        let why = "the report is not the one that the pack's content gives";
        Err(PackError::new(Section::Report, self.layout.report.at + same, why))
    }
}

fn same_root(
    walk: &Walk,
    chain: Option<Chain>,
    checkpoint: &Checkpoint,
    note: Piece<'_>,
) -> Result<(), PackError> {
    let error = |why: String| Err(PackError::new(Section::Checkpoints, note.at, why));
    let (size, root) = (checkpoint.size, walk.root());
    if root != checkpoint.root {
        return error(format!(
            "leaves and hashes give a tree of {size} records with root {root}, but the checkpoint says {}: one of \
             them is not of this log",
            checkpoint.root
        ));
    }
    match chain {
        Some(chain) if chain.0 != checkpoint.chain => error(format!(
            "the leaves give chain {} after record {size}, but the checkpoint says {}",
            chain.0, checkpoint.chain
        )),
        _ => Ok(()),
    }
}
