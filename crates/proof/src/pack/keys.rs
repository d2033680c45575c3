//! Records at hand, and whose keys they say to trust.

use std::collections::BTreeMap;

use stele_codec::{DecodeError, StoredRecord};
use stele_model::signature::PublicKey;
use stele_model::{ControllerId, Digest, Event, FleetName, Header, Seq, Time};

use super::error::{PackError, Section};
use super::layout::{Piece, check_leaf};
use super::scope::Regions;
use crate::checkpoint::Checkpoint;
use crate::note::VerifierKey;

/// The kind of record that names fleet and root.
pub(super) const FLEET_CREATED: &str = "fleet_created";
/// The kind of record with which a controller's key begins to be trusted.
pub(super) const CONTROLLER_CERTIFIED: &str = "controller_certified";

/// A leaf, read.
#[derive(Clone, Debug)]
pub(super) struct Known<'a> {
    pub(super) header: Header,
    pub(super) leaf: Piece<'a>,
}

impl<'a> Known<'a> {
    /// Reads the leaf of a record that should be `seq`.
    pub(super) fn read(section: Section, seq: Seq, leaf: Piece<'a>) -> Result<Self, PackError> {
        check_leaf(section, seq, leaf)?;
        let header = StoredRecord { leaf: leaf.bytes.to_vec(), payload: Vec::new() }
            .header()
            .map_err(|error| PackError::of(section, seq, leaf.at, error.to_string()))?;
        if header.seq != seq {
            return Err(PackError::of(
                section,
                seq,
                leaf.at,
                format!("the leaf is of record {}", header.seq),
            ));
        }
        Ok(Self { header, leaf })
    }

    /// The event, if this program knows its kind and schema.
    pub(super) fn event(&self, payload: &[u8]) -> Result<Event, DecodeError> {
        let stored = StoredRecord { leaf: self.leaf.bytes.to_vec(), payload: payload.to_vec() };
        Ok(stored.decode()?.event)
    }

    /// Whether this is the payload the header names.
    pub(super) fn check_payload(&self, section: Section, payload: Piece<'_>) -> Result<(), PackError> {
        if Digest::of(&[payload.bytes]) == self.header.payload {
            return Ok(());
        }
        Err(PackError::of(
            section,
            self.header.seq,
            payload.at,
            "the payload is not the one its header names",
        ))
    }
}

/// A record with its payload.
#[derive(Clone, Copy)]
pub(super) struct Whole<'a> {
    pub(super) section: Section,
    pub(super) known: &'a Known<'a>,
    pub(super) payload: Piece<'a>,
}

/// Regions of nodes, as far as nobody can have left a word of them out: where a range begins with the log's first
/// record, each enrolment up to its end is in it, with its payload. Of any other range one may be kept back, and a
/// later one say something else: then no node's region is known.
pub(super) fn regions<'a>((first, last): (Seq, Seq), records: impl Iterator<Item = Whole<'a>>) -> Regions {
    let mut regions = Regions::new();
    if first != 1 {
        return regions;
    }
    for whole in records {
        let header = &whole.known.header;
        if header.kind != super::scope::NODE_ENROLLED || header.seq > last {
            continue;
        }
        if let Ok(Event::NodeEnrolled { node, .. }) = whole.known.event(whole.payload.bytes) {
            regions.entry(node.name).or_default().insert(node.region);
        }
    }
    regions
}

/// Whose signatures on checkpoints are believed.
pub(super) struct Signers {
    /// With the last moment of each certificate.
    keys: Vec<(ControllerId, VerifierKey, Time)>,
    removed: BTreeMap<ControllerId, Seq>,
}

impl Signers {
    /// Reads certificates and removals; every certificate must be by the root.
    pub(super) fn new<'a>(
        records: impl Iterator<Item = Whole<'a>>,
        root: &PublicKey,
        fleet: &FleetName,
    ) -> Result<Self, PackError> {
        let mut signers = Self { keys: Vec::new(), removed: BTreeMap::new() };
        let mut founded = false;
        for Whole { section, known, payload } in records {
            let kind = known.header.kind.as_str();
            if ![FLEET_CREATED, CONTROLLER_CERTIFIED, "controller_removed"].contains(&kind) {
                continue;
            }
            let error = |why: String| PackError::of(section, known.header.seq, payload.at, why);
            match known.event(payload.bytes).map_err(|it| error(it.to_string()))? {
                Event::FleetCreated { fleet: name, root: named, .. } => {
                    if named != *root {
                        return Err(error(format!("the fleet's root key is {named}, and {root} was given")));
                    }
                    if name != *fleet || founded {
                        return Err(error(format!(
                            "fleet {name} was created here; the pack is of fleet {fleet}"
                        )));
                    }
                    founded = true;
                }
                Event::ControllerCertified { certificate, .. } => {
                    let key = Checkpoint::key(&certificate, root, fleet, None)
                        .map_err(|it| error(it.to_string()))?;
                    signers.keys.push((certificate.body.controller, key, certificate.body.not_after));
                }
                Event::ControllerRemoved { controller } => {
                    signers.removed.insert(controller, known.header.seq);
                }
                _ => {}
            }
        }
        if !founded {
            let why = "no record fleet_created is here, so nothing says which root key the fleet has";
            return Err(PackError::new(Section::Keys, 0, why));
        }
        Ok(signers)
    }

    /// Keys believed on a checkpoint of `size` records, of which the newest one at hand is of `time`.
    pub(super) fn at(&self, size: u64, time: Time) -> Vec<VerifierKey> {
        let believed = self.keys.iter().filter(|(id, _, until)| {
            *until >= time && self.removed.get(id).is_none_or(|removed| *removed > size)
        });
        believed.map(|(_, key, _)| key.clone()).collect()
    }
}
