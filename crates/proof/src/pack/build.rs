//! Putting a pack together.

use std::collections::BTreeMap;

use stele_codec::StoredRecord;
use stele_model::{Digest, Event, Seq};

use super::error::{PackError, Section};
use super::keys::{CONTROLLER_CERTIFIED, FLEET_CREATED, Known, Whole, regions};
use super::layout::{Piece, Writer};
use super::report::{Subject, report};
use super::scope::touches;
use super::walk::piece;
use crate::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::limits::{PACK_CHECKPOINTS_MAX, PACK_RECORDS_MAX};
use crate::merkle::Hashes;

/// What goes into a pack. Nothing of it is believed: a pack that was built is verified like any other.
#[derive(Clone, Debug)]
pub struct Contents {
    /// Which scope's payloads go in.
    pub scope: stele_model::Scope,
    /// The range as it was asked for, such as `2h ago` and `now`.
    pub between: (String, String),
    /// The records of the range, in order and without gaps.
    pub records: Vec<StoredRecord>,
    /// Records outside the range; those that are needed go in.
    pub others: Vec<StoredRecord>,
    /// Signed checkpoints, at least one of them at or after the end of the range.
    pub checkpoints: Vec<SignedCheckpoint>,
}

/// A record that goes in whole.
struct Other<'a> {
    stored: &'a StoredRecord,
    known: Known<'a>,
}

/// The pack of these contents. Hashes are of the tree of the largest checkpoint.
pub fn build<H: Hashes>(contents: &Contents, hashes: &H) -> Result<Vec<u8>, H::Error>
where
    H::Error: From<PackError>,
{
    let checkpoints = in_order(&contents.checkpoints)?;
    let size = checkpoints.last().map_or(0, |it| it.checkpoint.size);
    let fleet = checkpoints.first().map(|it| it.checkpoint.fleet.to_string()).unwrap_or_default();
    let records =
        contents.records.iter().map(|stored| read(Section::Leaves, stored)).collect::<Result<Vec<_>, _>>()?;
    let (Some(first), Some(last)) = (records.first(), records.last()) else {
        return Err(PackError::new(Section::Head, 0, "nothing happened in this range").into());
    };
    let (first, last) = (first.header.seq, last.header.seq);
    check_count(Section::Leaves, records.len(), PACK_RECORDS_MAX)?;
    let keys = needed(contents, &checkpoints, (first, last), size)?;
    check_count(Section::Keys, keys.len(), PACK_RECORDS_MAX)?;
    let in_range = records.iter().zip(&contents.records);
    let regions = regions((first, last), in_range.clone().map(|(known, stored)| whole_of(known, stored)));
    let payloads: BTreeMap<Seq, &[u8]> = in_range
        .filter(|(known, _)| touches(&contents.scope, &regions, &known.header.kind, &known.header.scopes))
        .map(|(known, stored)| (known.header.seq, stored.payload.as_slice()))
        .collect();

    let scope = contents.scope.to_string();
    let (from, to) = (contents.between.0.as_str(), contents.between.1.as_str());
    let mut out = Writer::head(&fleet, &scope, (from, to), (first, records.len()));
    out.count(checkpoints.len());
    for signed in &checkpoints {
        out.blob(signed.to_string().as_bytes());
    }
    out.count(keys.len());
    for key in &keys {
        out.u64(key.known.header.seq);
        out.blob(&key.stored.leaf);
        out.blob(&key.stored.payload);
    }
    for stored in &contents.records {
        out.blob(&stored.leaf);
    }
    out.count(payloads.len());
    for (seq, payload) in &payloads {
        out.u64(*seq);
        out.blob(payload);
    }
    let at_hand = keys.iter().map(|key| key.known.header.seq);
    let (before, after): (Vec<_>, Vec<_>) = at_hand.partition(|seq| *seq < first);
    let at_hand = before.into_iter().chain(first..=last).chain(after);
    let others = missing(at_hand, checkpoints.iter().map(|it| it.checkpoint.size), hashes)?;
    out.count(others.len());
    for hash in others {
        out.hash(hash);
    }
    let subject = Subject {
        fleet: &fleet,
        scope: &scope,
        from,
        to,
        checkpoints: checkpoints.iter().map(|it| it.checkpoint.clone()).collect(),
        keys: keys.len(),
        records: &records,
        payloads: &payloads,
    };
    out.blob(report(&subject).as_bytes());
    Ok(out.finish())
}

fn check_count(section: Section, found: usize, limit: usize) -> Result<(), PackError> {
    if found > limit {
        let why = format!(
            "{found} of them do not fit into one pack; the limit is {limit}: ask for a shorter range"
        );
        return Err(PackError::new(section, 0, why));
    }
    Ok(())
}

/// By size, one of each; signatures on the same checkpoint are put together.
fn in_order(checkpoints: &[SignedCheckpoint]) -> Result<Vec<SignedCheckpoint>, PackError> {
    let error = |why: String| PackError::new(Section::Checkpoints, 0, why);
    let mut by_size: BTreeMap<u64, SignedCheckpoint> = BTreeMap::new();
    for signed in checkpoints {
        let size = signed.checkpoint.size;
        let Some(present) = by_size.get_mut(&size) else {
            by_size.insert(size, signed.clone());
            continue;
        };
        if present.checkpoint != signed.checkpoint {
            return Err(error(format!("two checkpoints of {size} records differ: the log was forked")));
        }
        for signature in signed.note.signatures() {
            present.note.add(signature.clone()).map_err(|it| error(it.to_string()))?;
        }
    }
    check_count(Section::Checkpoints, by_size.len(), PACK_CHECKPOINTS_MAX)?;
    Ok(by_size.into_values().collect())
}

/// Reads a record's leaf, whatever its seq.
fn read(section: Section, stored: &StoredRecord) -> Result<Known<'_>, PackError> {
    let header = stored.header().map_err(|error| PackError::new(section, 0, error.to_string()))?;
    Known::read(section, header.seq, Piece { at: 0, bytes: &stored.leaf })
}

fn whole_of<'a>(known: &'a Known<'a>, stored: &'a StoredRecord) -> Whole<'a> {
    Whole { section: Section::Leaves, known, payload: Piece { at: 0, bytes: &stored.payload } }
}

/// The records outside the range without which keys would not be known, by seq.
fn needed<'a>(
    contents: &'a Contents,
    checkpoints: &[SignedCheckpoint],
    (first, last): (Seq, Seq),
    size: u64,
) -> Result<Vec<Other<'a>>, PackError> {
    let mut needed = BTreeMap::new();
    for stored in &contents.others {
        let known = read(Section::Keys, stored)?;
        let seq = known.header.seq;
        if (first..=last).contains(&seq) || seq > size {
            continue;
        }
        let is_needed = match known.header.kind.as_str() {
            FLEET_CREATED => true,
            CONTROLLER_CERTIFIED => certifies_a_signer(&known, stored, checkpoints),
            _ => false,
        };
        if is_needed {
            needed.insert(seq, Other { stored, known });
        }
    }
    Ok(needed.into_values().collect())
}

fn certifies_a_signer(known: &Known<'_>, stored: &StoredRecord, checkpoints: &[SignedCheckpoint]) -> bool {
    let Ok(Event::ControllerCertified { certificate, .. }) = known.event(&stored.payload) else {
        return false;
    };
    let name = Checkpoint::key_name(&certificate.body.fleet, certificate.body.controller);
    checkpoints.iter().any(|signed| signed.note.signatures().iter().any(|it| it.name == name))
}

/// The hashes of everything that is not at hand, as the walk over the tree asks for them.
fn missing<H: Hashes>(
    at_hand: impl Iterator<Item = Seq>,
    sizes: impl Iterator<Item = u64>,
    hashes: &H,
) -> Result<Vec<Digest>, H::Error> {
    let mut at_hand = at_hand.peekable();
    let mut missing = Vec::new();
    let mut position = 0;
    for size in sizes {
        while position < size {
            if at_hand.next_if(|seq| *seq == position + 1).is_some() {
                position += 1;
                continue;
            }
            let end = at_hand.peek().map_or(size, |seq| size.min(seq - 1));
            let level = piece(position, end);
            missing.push(hashes.hash(level, position >> level)?);
            position += 1 << level;
        }
    }
    Ok(missing)
}
