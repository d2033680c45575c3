//! Evidence packs.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use anyhow::anyhow;
use stele_codec::{Chain, StoredRecord, encode_record};
use stele_model::signature::public_key;
use stele_model::{Decision, Digest, Event, Header, Time};
use stele_proof::merkle::{Tree, leaf_hash};
use stele_proof::note::SignatureKind;
use stele_proof::pack::{Contents, PackError, Trust, build, verify};
use stele_proof::{Checkpoint, ProofError, SignedCheckpoint, VerifierKey};

use super::{keys, story};
use crate::mutate::Form;
use crate::nasty;
use crate::target::{Budget, Named, Target, Verdict, holds};

const CHECKSUM: usize = 32;
const WITNESS: &str = "witness.example.com";

pub(super) fn targets() -> Vec<Target> {
    vec![Target {
        name: "pack",
        decoder: "`pack::verify`",
        holds: "whatever is changed in a pack, right checksum or not: it is refused, or it proves what it proved before; \
                trailing bytes are refused",
        form: Form::Bytes,
        budget: Budget { fixed: 4 << 20, per_byte: 300 },
        run: pack,
        mend: Some(mend),
        made,
        nasty: nasty::bytes,
    }]
}

fn trust() -> Result<Trust, String> {
    let witness = VerifierKey::new(WITNESS, SignatureKind::Cosignature, &public_key(&keys::witness()));
    Ok(Trust { root: keys::root_public(), witnesses: vec![witness.map_err(|error| error.to_string())?] })
}

/// What good packs prove: their reports, which hold all of it.
fn reports() -> Result<&'static BTreeSet<String>, String> {
    static REPORTS: LazyLock<Result<BTreeSet<String>, String>> = LazyLock::new(|| {
        let trust = trust()?;
        let packs = made().map_err(|error| format!("{error:#}"))?;
        let reports = packs.into_iter().map(|(_, pack)| verify(&pack, &trust).map(|proved| proved.report));
        reports.collect::<Result<_, _>>().map_err(|error| error.to_string())
    });
    REPORTS.as_ref().map_err(Clone::clone)
}

fn pack(input: &[u8]) -> Result<Verdict, String> {
    let known = reports()?;
    let Ok(proved) = verify(input, &trust()?) else { return Ok(Verdict::Refused) };
    holds(known.contains(&proved.report), || format!("it proves something new:\n{}", proved.report))?;
    Ok(Verdict::Read)
}

fn mend(input: &mut Vec<u8>) {
    if let Some(at) = input.len().checked_sub(CHECKSUM) {
        let checksum = Digest::of(&[&input[..at]]);
        input[at..].copy_from_slice(&checksum.0);
    }
}

/// Why a pack could not be made.
#[derive(Debug)]
enum Failed {
    Proof(ProofError),
    Pack(PackError),
}

impl From<ProofError> for Failed {
    fn from(error: ProofError) -> Self {
        Self::Proof(error)
    }
}

impl From<PackError> for Failed {
    fn from(error: PackError) -> Self {
        Self::Pack(error)
    }
}

struct Hashes<'a>(&'a Tree);

impl stele_proof::merkle::Hashes for Hashes<'_> {
    type Error = Failed;
    fn hash(&self, level: u32, index: u64) -> Result<Digest, Failed> {
        Ok(self.0.hash(level, index)?)
    }
}

/// A log with a root that certified a controller, and some of what else happens.
fn log() -> anyhow::Result<Vec<StoredRecord>> {
    let founding = [
        Event::FleetCreated { fleet: keys::fleet()?, root: keys::root_public(), epoch: 1 },
        Event::ControllerCertified {
            certificate: keys::certificate()?,
            api: "https://127.0.0.1:1".to_owned(),
            peer: "127.0.0.1:2".to_owned(),
        },
    ];
    let mut events = Vec::from(founding);
    for ((kind, schema), (stored, _)) in story::of_each_kind()? {
        // These say who may sign; the ones above are all there are.
        let is_other =
            !["fleet_created", "controller_certified", "controller_removed"].contains(&kind.as_str());
        if is_other && schema == Event::schema_of(&kind) && stored.payload.len() < 400 {
            events.push(stored.decode()?.event);
        }
    }
    let header = story::records()?.first().ok_or_else(|| anyhow!("the golden history is empty"))?.header()?;
    let stored = events.iter().zip(1..).map(|(event, seq)| {
        let header = Header {
            seq,
            time: Time(keys::NOW.0 + seq),
            decision: Decision { first: seq, count: 1 },
            ..header.clone()
        };
        Ok(encode_record(header, event)?.0)
    });
    stored.collect()
}

fn signed(records: &[StoredRecord], is_cosigned: bool) -> anyhow::Result<SignedCheckpoint> {
    let chain = records.iter().fold(Chain::GENESIS, |chain, stored| chain.link(&stored.leaf));
    let checkpoint = Checkpoint {
        fleet: keys::fleet()?,
        size: records.len() as u64,
        root: records.iter().map(|stored| leaf_hash(&stored.leaf)).collect::<Tree>().root(),
        state: Digest::of(&[b"state"]),
        chain: chain.0,
    };
    let mut signed = SignedCheckpoint::new(checkpoint)?;
    signed.note.sign(&Checkpoint::key_name(&keys::fleet()?, 1), &keys::controller())?;
    if is_cosigned {
        signed.note.cosign(WITNESS, &keys::witness(), keys::NOW.0 / 1_000_000)?;
    }
    Ok(signed)
}

fn made() -> anyhow::Result<Vec<Named>> {
    let log = log()?;
    let tree: Tree = log.iter().map(|stored| leaf_hash(&stored.leaf)).collect();
    let mut all = Vec::new();
    for (name, scope, range, is_cosigned) in [
        ("fleet", "fleet", 0..9, false),
        ("app", "shop/web@prod", 4..20, true),
        ("node", "node:eu-1", 10..16, true),
    ] {
        let contents = Contents {
            scope: scope.parse()?,
            between: ("2h ago".to_owned(), "now".to_owned()),
            records: log.get(range.clone()).unwrap_or_default().to_vec(),
            others: log.iter().take(range.start).chain(log.iter().skip(range.end)).cloned().collect(),
            checkpoints: vec![signed(&log[..range.end], false)?, signed(&log, is_cosigned)?],
        };
        let pack = build(&contents, &Hashes(&tree)).map_err(|failed| match failed {
            Failed::Proof(error) => anyhow!(error),
            Failed::Pack(error) => anyhow!(error),
        })?;
        all.push((name.to_owned(), pack));
    }
    Ok(all)
}
