//! A fleet's log with a root, certified controllers and a witness, and packs of it.

use ed25519_dalek::SigningKey;
use stele_codec::{Chain, StoredRecord, encode_record};
use stele_model::signature::{Certificate, CertificateBody, public_key};
use stele_model::{Digest, Event, Header, Links, Scope, Time, Value};
use stele_proof::merkle::{Tree, leaf_hash};
use stele_proof::note::SignatureKind;
use stele_proof::pack::{Contents, PackError, Trust, Verified, build, verify};
use stele_proof::{Checkpoint, ProofError, SignedCheckpoint, VerifierKey};

use crate::corpus::{name, sealed};
use crate::random_log::{Log, Step};

pub(crate) const WITNESS: &str = "witness.example.com";

/// Why a pack could not be made.
#[derive(Debug)]
#[allow(dead_code)]
pub(crate) enum Failed {
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

/// Reads the tree with the errors that building has.
struct Hashes<'a>(&'a Tree);

impl stele_proof::merkle::Hashes for Hashes<'_> {
    type Error = Failed;
    fn hash(&self, level: u32, index: u64) -> Result<Digest, Failed> {
        Ok(self.0.hash(level, index)?)
    }
}

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub(crate) fn root() -> SigningKey {
    key(1)
}

/// The signing key of a controller.
pub(crate) fn controller(id: u8) -> SigningKey {
    key(10 + id)
}

/// What an auditor believes, with the witness.
pub(crate) fn trust() -> Trust {
    let witness = VerifierKey::new(WITNESS, SignatureKind::Cosignature, &public_key(&key(99))).unwrap();
    Trust { root: public_key(&root()), witnesses: vec![witness] }
}

/// A log, as it is kept.
pub(crate) struct Kept {
    pub(crate) records: Vec<StoredRecord>,
    pub(crate) headers: Vec<Header>,
}

impl Kept {
    /// What a fleet of two controllers keeps when all this happens.
    pub(crate) fn of(steps: &[Step]) -> Self {
        let mut log = Log::new();
        for step in steps {
            log.step(*step);
        }
        let mut kept = Self { records: Vec::new(), headers: Vec::new() };
        for (stored, _) in &log.records {
            let record = stored.decode().unwrap();
            let end = record.header.decision.last() == record.header.seq;
            match record.event {
                Event::FleetCreated { fleet, epoch, .. } => {
                    let root = public_key(&root());
                    kept.push(record.header, &Event::FleetCreated { fleet, root, epoch });
                }
                event => kept.push(record.header, &event),
            }
            if end && kept.records.len() == 3 {
                kept.certify(1);
                kept.certify(2);
            }
        }
        kept
    }

    /// A busy month, in little.
    pub(crate) fn busy() -> Self {
        let deploy = |app, image| {
            [Step::Deploy { app, image, replicas: 2 }, Step::Conduct, Step::Report { failing: false }]
        };
        let mut steps = Vec::new();
        for image in 1..4 {
            steps.extend(deploy(0, image));
            steps.extend([Step::Conduct, Step::SetConfig { app: 0, value: image }, Step::Conduct]);
            steps.extend(deploy(2, image));
            steps.extend([Step::RecordDigest, Step::Refuse, Step::Token { revoke: false }]);
        }
        steps.extend([Step::Rollback { app: 0, steps: 1 }, Step::Conduct, Step::Report { failing: true }]);
        steps.extend([Step::Unlatch { app: 0 }, Step::RecordDigest, Step::Remove { app: 2 }, Step::Conduct]);
        Self::of(&steps)
    }

    fn certify(&mut self, id: u8) {
        let header = self.headers.last().unwrap().clone();
        let event = certified(id, Time(u64::MAX));
        let decision = stele_model::Decision { first: header.seq + 1, count: 1 };
        self.push(Header { decision, seq: header.seq + 1, time: Time(header.time.0 + 1), ..header }, &event);
    }

    /// Has controller 1's first certificate end at a time, and a controller certified anew after all that is there.
    pub(crate) fn ending(mut self, until: Time, renewed: u8) -> Self {
        let first = self.headers.iter().position(|header| header.kind == "controller_certified").unwrap();
        let (stored, record) = encode_record(self.headers[first].clone(), &certified(1, until)).unwrap();
        (self.records[first], self.headers[first]) = (stored, record.header);
        self.certify(renewed);
        self
    }

    /// Appends an event, as late as its header says or later, with something to say in every tenth header.
    fn push(&mut self, mut header: Header, event: &Event) {
        let seq = self.records.len() as u64 + 1;
        header.decision.first += seq - header.seq;
        header.time.0 += seq - header.seq;
        header.seq = seq;
        if seq.is_multiple_of(5) {
            header.principal = name("anna");
            header.reason = Some(Value::Plain("it is \"slow\",\nthey say \u{1f600}\u{7f}".to_owned()));
        }
        if seq.is_multiple_of(10) {
            header.reason = Some(Value::Sealed(sealed("shop/web@prod")));
            header.links = Links {
                ticket: Some("OPS-1".to_owned()),
                commit: Some(String::new()),
                ci_run: Some("https://ci.example.com/1?a=b".to_owned()),
                on_behalf_of: Some(name("bob")),
            };
        }
        let (stored, record) = encode_record(header, event).unwrap();
        self.records.push(stored);
        self.headers.push(record.header);
    }

    /// Makes the first record of a kind one that no program knows, of the same length.
    pub(crate) fn make_unknown(&mut self, kind: &str) {
        let at = self.headers.iter().position(|header| header.kind == kind).unwrap();
        let leaf = &mut self.records[at].leaf;
        let from = leaf.windows(kind.len()).position(|part| part == kind.as_bytes()).unwrap();
        leaf[from] = b'x';
        self.headers[at] = self.records[at].header().unwrap();
    }

    pub(crate) fn tree(&self) -> Tree {
        self.records.iter().map(|stored| leaf_hash(&stored.leaf)).collect()
    }

    pub(crate) fn checkpoint(&self, size: usize) -> Checkpoint {
        let records = &self.records[..size];
        let chain = records.iter().fold(Chain::GENESIS, |chain, stored| chain.link(&stored.leaf));
        Checkpoint {
            fleet: name("demo"),
            size: size as u64,
            root: records.iter().map(|stored| leaf_hash(&stored.leaf)).collect::<Tree>().root(),
            state: Digest::of(&[b"state", &size.to_be_bytes()]),
            chain: chain.0,
        }
    }

    /// A checkpoint signed by a controller.
    pub(crate) fn signed(&self, size: usize, by: u8) -> SignedCheckpoint {
        let mut signed = SignedCheckpoint::new(self.checkpoint(size)).unwrap();
        let name = Checkpoint::key_name(&name("demo"), u64::from(by));
        signed.note.sign(&name, &controller(by)).unwrap();
        signed
    }

    /// One that the witness saw, too.
    pub(crate) fn cosigned(&self, size: usize, by: u8) -> SignedCheckpoint {
        let mut signed = self.signed(size, by);
        signed.note.cosign(WITNESS, &key(99), 1_700_000_000).unwrap();
        signed
    }

    pub(crate) fn contents(
        &self,
        scope: &str,
        (first, last): (usize, usize),
        checkpoints: Vec<SignedCheckpoint>,
    ) -> Contents {
        let scope: Scope = scope.parse().unwrap();
        Contents {
            scope,
            between: (format!("seq:{}", first - 1), "now".to_owned()),
            records: self.records[first - 1..last].to_vec(),
            others: self.records.clone(),
            checkpoints,
        }
    }

    pub(crate) fn pack(&self, contents: &Contents) -> Vec<u8> {
        build(contents, &Hashes(&self.tree())).unwrap()
    }
}

/// The root's word for a controller's key, until a time.
fn certified(id: u8, not_after: Time) -> Event {
    let body = CertificateBody {
        fleet: name("demo"),
        controller: u64::from(id),
        key: public_key(&controller(id)),
        not_before: Time(1),
        not_after,
    };
    let certificate = Certificate::issue(&root(), body);
    Event::ControllerCertified { certificate, api: "here".into(), peer: "there".into() }
}

/// A small pack with every section in use: two checkpoints, records outside, hashes on both sides.
pub(crate) fn small() -> (Kept, Vec<u8>) {
    let kept = Kept::busy();
    let end = kept.records.len();
    let first = kept.headers.iter().position(|header| header.kind == "target_changed").unwrap();
    let range = (first, first + 9);
    let checkpoints = vec![kept.signed(first - 2, 2), kept.cosigned(end - 3, 1)];
    let pack = kept.pack(&kept.contents("shop/web@prod,region:eu", range, checkpoints));
    (kept, pack)
}

pub(crate) fn verified(pack: &[u8]) -> Verified {
    verify(pack, &trust()).unwrap()
}
