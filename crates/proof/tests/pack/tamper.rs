//! Whatever is done to a pack, it is refused, and where is said.

use stele_model::signature::{Certificate, CertificateBody, public_key};
use stele_model::{Event, Time};
use stele_proof::Checkpoint;
use stele_proof::pack::{PackError, Witnessed, verify};

use crate::corpus::name;
use crate::evidence::{Kept, controller, key, small, trust, verified};
use crate::parts::{Parts, resealed};

/// What became of a pack: an error, or that nobody vouches for it. Never that it is verified.
fn refused(pack: &[u8], what: &str) -> Option<PackError> {
    match verify(pack, &trust()) {
        Err(error) => Some(error),
        Ok(seen) => {
            assert_ne!(seen.witnessed, Witnessed::Whole, "verified although {what}");
            None
        }
    }
}

/// A pack that is changed on purpose, and what was done. The checksum is right in all of them.
pub(crate) fn changed() -> Vec<(String, Vec<u8>)> {
    let (kept, good) = small();
    let parts = Parts::of(&good);
    let mut changed: Vec<(String, Vec<u8>)> = Vec::new();
    let mut change = |what: &str, change: &dyn Fn(&mut Parts)| {
        let mut parts = parts.clone();
        change(&mut parts);
        changed.push((what.to_owned(), parts.pack()));
    };
    let middle = parts.leaves.len() / 2;
    let first = parts.first;
    change("the first leaf is dropped", &|it| drop(it.leaves.remove(0)));
    change("the first leaf is dropped and the range moved", &|it| {
        it.leaves.remove(0);
        it.first += 1;
        it.texts[2] = format!("seq:{}", it.first - 1).into_bytes();
    });
    change("a leaf in the middle is dropped", &|it| drop(it.leaves.remove(middle)));
    change("a record in the middle is dropped with its payload", &|it| {
        let (seq, _) = it.payloads[it.payloads.len() / 2];
        it.leaves.remove((seq - first) as usize);
        it.payloads.retain(|(of, _)| *of != seq);
    });
    change("the last leaf is dropped", &|it| drop(it.leaves.pop()));
    change("two leaves are swapped", &|it| it.leaves.swap(middle, middle + 1));
    change("a leaf is there twice", &|it| it.leaves.insert(middle, it.leaves[middle].clone()));
    change("a leaf takes another's place", &|it| it.leaves[middle] = it.leaves[middle + 1].clone());
    change("another log's leaf is inserted", &|it| it.leaves.insert(middle, it.keys[0].1.clone()));
    change("all leaves are dropped", &|it| it.leaves.clear());
    change("the range begins elsewhere", &|it| it.first += 1);
    change("the range begins at record 0", &|it| it.first = 0);
    change("the range begins beyond all numbers", &|it| it.first = u64::MAX);
    change("a payload is dropped", &|it| drop(it.payloads.remove(0)));
    change("all payloads are dropped", &|it| it.payloads.clear());
    change("two payloads are swapped", &|it| {
        let other = it.payloads[1].1.clone();
        it.payloads[1].1 = std::mem::replace(&mut it.payloads[0].1, other);
    });
    change("two payloads are swapped with their seqs", &|it| it.payloads.swap(0, 1));
    change("a payload is there twice", &|it| it.payloads.insert(0, it.payloads[0].clone()));
    change("a payload of another record is there", &|it| it.payloads[0].0 += 1);
    change("a payload beyond the range is there", &|it| it.payloads.push((first + 1000, vec![1])));
    change("the payload of a record that does not touch the scope is there", &|it| {
        let seq = (first..first + 1000).find(|seq| it.payloads.iter().all(|(of, _)| of != seq)).unwrap();
        let at = it.payloads.iter().position(|(of, _)| *of > seq).unwrap_or(it.payloads.len());
        it.payloads.insert(at, (seq, kept.records[seq as usize - 1].payload.clone()));
    });
    change("a payload is empty", &|it| it.payloads[0].1.clear());
    change("the scope is wider", &|it| it.texts[1] = b"fleet".to_vec());
    change("the scope is another", &|it| it.texts[1] = b"blog/site@prod".to_vec());
    change("the scope is no scope", &|it| it.texts[1] = b"what".to_vec());
    change("the scope is written otherwise", &|it| it.texts[1] = b"region:eu,shop/web@prod".to_vec());
    change("the fleet is another", &|it| it.texts[0] = b"other".to_vec());
    change("the point it begins at is another", &|it| it.texts[2] = b"seq:1".to_vec());
    change("the point it ends at is another", &|it| it.texts[3] = b"2h ago".to_vec());
    change("the first hash is dropped", &|it| drop(it.hashes.remove(0)));
    change("the last hash is dropped", &|it| drop(it.hashes.pop()));
    change("a hash is there twice", &|it| it.hashes.insert(0, it.hashes[0].clone()));
    change("two hashes are swapped", &|it| it.hashes.swap(0, 1));
    change("a hash follows the last", &|it| it.hashes.push(vec![7; 32]));
    change("all hashes are dropped", &|it| it.hashes.clear());
    change("the record that names the root is dropped", &|it| {
        it.keys.retain(|(seq, ..)| kept.headers[*seq as usize - 1].kind != "fleet_created");
    });
    change("a certificate is dropped", &|it| {
        let at = it
            .keys
            .iter()
            .position(|(seq, ..)| kept.headers[*seq as usize - 1].kind == "controller_certified");
        it.keys.remove(at.unwrap());
    });
    change("two records outside are swapped", &|it| it.keys.swap(0, 1));
    change("a record outside is there twice", &|it| it.keys.insert(0, it.keys[0].clone()));
    change("a record outside has another's payload", &|it| it.keys[0].2 = it.keys[1].2.clone());
    change("a record outside stands elsewhere", &|it| it.keys[0].0 -= 1);
    change("a record of another kind is outside", &|it| {
        let stored = &kept.records[0];
        it.keys.insert(0, (1, stored.leaf.clone(), stored.payload.clone()));
    });
    change("a record beyond the last checkpoint is outside", &|it| {
        let (_, leaf, payload) = it.keys[0].clone();
        it.keys.push((1 << 40, leaf, payload));
    });
    change("the report is empty", &|it| it.report.clear());
    change("the report says more", &|it| it.report.extend(b"all is well\n"));
    change("the report leaves a line out", &|it| {
        let text = String::from_utf8(it.report.clone()).unwrap();
        let end = text.trim_end().rfind('\n').unwrap() + 1;
        it.report.truncate(end);
    });
    let end = kept.records.len();
    let note = |size: usize, by: u8| kept.cosigned(size, by).to_string().into_bytes();
    change("the checkpoint is dropped", &|it| drop(it.checkpoints.pop()));
    change("all checkpoints are dropped", &|it| it.checkpoints.clear());
    change("the checkpoints are swapped", &|it| it.checkpoints.swap(0, 1));
    change("the checkpoint is there twice", &|it| it.checkpoints.push(it.checkpoints[1].clone()));
    change("the checkpoint is an earlier valid one", &|it| it.checkpoints[1] = note(end - 5, 1));
    change("the checkpoint is a later valid one", &|it| it.checkpoints[1] = note(end, 1));
    change("the checkpoint is by a controller whose certificate is not here", &|it| {
        it.checkpoints[1] = note(end - 3, 3);
    });
    change("the checkpoint is of a fork", &|it| {
        let mut fork = Kept { records: kept.records.clone(), headers: kept.headers.clone() };
        let last = fork.records.len() - 5;
        fork.records[last].leaf.push(0);
        it.checkpoints[1] = fork.cosigned(end - 3, 1).to_string().into_bytes();
    });
    change("the checkpoint says another chain", &|it| {
        let mut checkpoint = kept.checkpoint(end - 3);
        checkpoint.size += 1;
        it.checkpoints[1] = sign(checkpoint, 1);
    });
    change("the checkpoint is signed by another key under the controller's name", &|it| {
        let mut signed = stele_proof::SignedCheckpoint::new(kept.checkpoint(end - 3)).unwrap();
        signed.note.sign("stele/demo/controller-1", &key(77)).unwrap();
        it.checkpoints[1] = signed.to_string().into_bytes();
    });
    change("the certificate is by another root", &|it| {
        let at = it
            .keys
            .iter()
            .position(|(seq, ..)| kept.headers[*seq as usize - 1].kind == "controller_certified");
        let (seq, leaf, payload) = &mut it.keys[at.unwrap()];
        let body = CertificateBody {
            fleet: name("demo"),
            controller: 1,
            key: public_key(&controller(1)),
            not_before: Time(1),
            not_after: Time(u64::MAX),
        };
        let event = Event::ControllerCertified {
            certificate: Certificate::issue(&key(50), body),
            api: "here".into(),
            peer: "there".into(),
        };
        let (stored, _) =
            stele_codec::encode_record(kept.headers[*seq as usize - 1].clone(), &event).unwrap();
        (*leaf, *payload) = (stored.leaf, stored.payload);
    });
    changed
}

fn sign(checkpoint: Checkpoint, by: u8) -> Vec<u8> {
    let mut signed = stele_proof::SignedCheckpoint::new(checkpoint).unwrap();
    signed.note.sign(&format!("stele/demo/controller-{by}"), &controller(by)).unwrap();
    signed.to_string().into_bytes()
}

#[test]
fn the_small_pack_uses_every_section_and_is_verified() {
    let (_, pack) = small();
    let parts = Parts::of(&pack);
    assert_eq!(parts.pack(), pack);
    assert_eq!(verified(&pack).witnessed, Witnessed::Whole);
    let counts = [
        parts.checkpoints.len(),
        parts.keys.len(),
        parts.leaves.len(),
        parts.payloads.len(),
        parts.hashes.len(),
    ];
    assert!(counts.iter().all(|count| *count > 1), "{counts:?}");
    assert!(parts.payloads.len() < parts.leaves.len(), "{counts:?}");
}

/// One bit of every byte, as damage does it, and as somebody does it who can compute a checksum.
#[test]
fn a_flipped_bit_is_refused_wherever_it_is() {
    let (_, good) = small();
    let parts = Parts::of(&good);
    let mut told = std::collections::BTreeSet::new();
    for at in 0..good.len() {
        let mut damaged = good.clone();
        damaged[at] ^= 1 << (at % 8);
        let what = format!("byte {at} of the {} is changed", parts.section(at));
        let error = verify(&damaged, &trust()).expect_err(&what);
        told.insert(error.section);
        if parts.section(at) == "checksum" {
            assert_eq!(error.section.to_string(), "checksum", "{what}: {error}");
            continue;
        }
        // Only a cosignature that is no longer a known witness's leaves the rest as it is.
        match refused(&resealed(&damaged), &what) {
            Some(error) => {
                told.insert(error.section);
            }
            None => assert_eq!(parts.section(at), "checkpoints", "{what}"),
        }
    }
    assert_eq!(told.len(), 8, "every section is told apart: {told:?}");
}

#[test]
fn a_truncated_pack_is_refused_wherever_it_ends() {
    let (_, good) = small();
    for end in 0..good.len() {
        verify(&good[..end], &trust()).expect_err("it is cut off");
        if end >= 32 {
            verify(&resealed(&good[..end]), &trust()).expect_err("it is cut off, with a right checksum");
        }
    }
    for more in [&b"\0"[..], &[0; 32], &good] {
        let longer = [&good, more].concat();
        verify(&longer, &trust()).expect_err("something follows");
        verify(&resealed(&longer), &trust()).expect_err("something follows, with a right checksum");
    }
}

#[test]
fn whatever_is_dropped_swapped_inserted_or_replaced_is_refused() {
    for (what, pack) in changed() {
        let error = verify(&pack, &trust()).expect_err(&what);
        assert!(error.at < pack.len(), "{what}: {error}");
    }
}

/// Errors name the record, when it is one's.
#[test]
fn errors_say_where() {
    let (_, good) = small();
    let parts = Parts::of(&good);
    let (seq, payload) = parts.payloads[2].clone();
    let at = good.windows(payload.len()).rposition(|part| part == payload).unwrap();
    let mut damaged = good;
    damaged[at] ^= 1;
    let error = verify(&damaged, &trust()).unwrap_err();
    assert_eq!((error.section.to_string().as_str(), error.seq, error.at), ("payloads", Some(seq), at));
    assert_eq!(
        error.to_string(),
        format!("payloads, record {seq}, byte {at}: the payload is not the one its header names")
    );
}
