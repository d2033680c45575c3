//! Notes and checkpoints: known ones, and every way to damage one.
#![allow(clippy::unwrap_used)]

use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use stele_model::signature::{Certificate, CertificateBody, public_key};
use stele_model::{Digest, FleetName, Time};
use stele_proof::note::SignatureKind;
use stele_proof::{Checkpoint, Note, NoteError, SignedCheckpoint, VerifierKey};

/// The example of Go's note package.
const NOTE: &str = "If you think cryptography is the answer to your problem,\n\
    then you don't know what your problem is.\n\
    \n\
    — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
const KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

/// The example of C2SP tlog-cosignature.
const COSIGNED: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
    — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
    — witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn fleet() -> FleetName {
    FleetName::new("demo").unwrap()
}

fn checkpoint() -> Checkpoint {
    let digest = |text: &str| Digest::of(&[text.as_bytes()]);
    Checkpoint {
        fleet: fleet(),
        size: 1234,
        root: digest("root"),
        state: digest("state"),
        chain: digest("chain"),
    }
}

fn signed() -> (SignedCheckpoint, VerifierKey) {
    let mut signed = SignedCheckpoint::new(checkpoint()).unwrap();
    let name = Checkpoint::key_name(&fleet(), 2);
    signed.note.sign(&name, &key(2)).unwrap();
    (signed, VerifierKey::new(&name, SignatureKind::Ed25519, &public_key(&key(2))).unwrap())
}

#[test]
fn a_note_of_another_program_verifies() {
    let note: Note = NOTE.parse().unwrap();
    let key: VerifierKey = KEY.parse().unwrap();
    assert_eq!(key.to_string(), KEY);
    assert_eq!(key.id().to_string(), "c74f20a3");
    let known = [key];
    let by = note.verify(&known).unwrap();
    assert_eq!((by.len(), by[0].by.name(), by[0].time), (1, "PeterNeumann", None));
    assert_eq!(note.to_string(), NOTE);
}

#[test]
fn signatures_of_unknown_keys_are_ignored_and_kept() {
    let note: Note = COSIGNED.parse().unwrap();
    assert_eq!(note.signatures().len(), 2);
    assert_eq!(note.to_string(), COSIGNED);
    let other: VerifierKey = KEY.parse().unwrap();
    assert!(note.signed_by(std::slice::from_ref(&other)).unwrap().is_empty());
    let error = note.verify(&[other]).unwrap_err().to_string();
    assert!(error.contains("witness.example.com/w1"), "{error}");
}

#[test]
fn a_wrong_signature_of_a_known_key_condemns_the_note() {
    let text = NOTE.replacen("problem", "Problem", 1);
    let known = [KEY.parse().unwrap()];
    let mut note: Note = text.parse().unwrap();
    assert_eq!(note.verify(&known), Err(NoteError::Mismatch("PeterNeumann".to_owned())));
    // Another good signature does not save it.
    note.sign("me", &key(1)).unwrap();
    let me = VerifierKey::new("me", SignatureKind::Ed25519, &public_key(&key(1))).unwrap();
    let known = [known, [me]].concat();
    assert_eq!(note.verify(&known), Err(NoteError::Mismatch("PeterNeumann".to_owned())));
}

#[test]
fn a_witness_signs_the_time_too() {
    let (mut signed, controller) = signed();
    signed.note.cosign("witness.example/w", &key(7), 1_700_000_000).unwrap();
    let witness =
        VerifierKey::new("witness.example/w", SignatureKind::Cosignature, &public_key(&key(7))).unwrap();
    let read: SignedCheckpoint = signed.to_string().parse().unwrap();
    let (controllers, witnesses) = ([controller], [witness]);
    let (by, cosigned) = read.verify(&controllers, &witnesses).unwrap();
    assert_eq!((by.len(), cosigned.len()), (1, 1));
    assert_eq!(cosigned[0].time, Some(1_700_000_000));
    assert_eq!(witnesses[0].to_string().parse::<VerifierKey>().unwrap(), witnesses[0]);

    // Another time is another statement.
    let signature = &read.note.signatures()[1];
    let mut later = signature.clone();
    later.bytes[7] ^= 1;
    let mut note = Note::new(read.note.text()).unwrap();
    note.add(later).unwrap();
    note.verify(&witnesses).unwrap_err();
    // A plain signature by the same key says something else, and its id shows it.
    let plain = VerifierKey::new("witness.example/w", SignatureKind::Ed25519, &public_key(&key(7))).unwrap();
    assert_ne!(plain.id(), witnesses[0].id());
}

#[test]
fn a_checkpoint_is_five_lines() {
    let text = checkpoint().to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 5);
    assert_eq!((lines[0], lines[1]), ("stele/demo", "1234"));
    assert_eq!(lines[2].len(), 44);
    assert!(lines[3].starts_with("state sha256:") && lines[4].starts_with("chain sha256:"), "{text}");
    assert_eq!(text.parse::<Checkpoint>().unwrap(), checkpoint());
}

#[test]
fn a_checkpoint_is_written_one_way() {
    let text = checkpoint().to_string();
    for (from, to) in [
        ("stele/demo", "stele/"),
        ("stele/demo", "stele/Demo"),
        ("stele/demo", "demo"),
        ("1234", "01234"),
        ("1234", "+1234"),
        ("1234", "1234 "),
        ("1234", ""),
        ("1234", "-1"),
        ("1234", "9223372036854775808"),
        ("=\n", "\n"),
        ("state ", "state"),
        ("state ", "chain "),
        ("sha256:", "sha512:"),
        ("\nchain", "\n\nchain"),
    ] {
        let other = text.replacen(from, to, 1);
        assert_ne!(other, text, "{from:?}");
        assert!(other.parse::<Checkpoint>().is_err(), "{other:?} is no checkpoint");
    }
    for more in ["\n", "other\n", "x"] {
        assert!(format!("{text}{more}").parse::<Checkpoint>().is_err(), "{more:?} may not follow");
    }
    assert!(text.to_uppercase().parse::<Checkpoint>().is_err());
    for end in 0..text.len() {
        assert!(text[..end].parse::<Checkpoint>().is_err(), "cut off after {end} bytes");
    }
}

#[test]
fn a_certificate_gives_the_key() {
    let body = CertificateBody {
        fleet: fleet(),
        controller: 2,
        key: public_key(&key(2)),
        not_before: Time(10),
        not_after: Time(20),
    };
    let certificate = Certificate::issue(&key(1), body);
    let root = public_key(&key(1));
    let (signed, expected) = signed();
    let found = Checkpoint::key(&certificate, &root, &fleet(), Some(Time(15))).unwrap();
    assert_eq!(found, expected);
    assert_eq!(found.name(), "stele/demo/controller-2");
    signed.verify(&[found], &[]).unwrap();
    Checkpoint::key(&certificate, &root, &fleet(), Some(Time(21))).unwrap_err();
    Checkpoint::key(&certificate, &public_key(&key(3)), &fleet(), None).unwrap_err();
    Checkpoint::key(&certificate, &root, &FleetName::new("other").unwrap(), None).unwrap_err();
}

#[test]
fn every_flipped_bit_of_a_checkpoint_is_refused() {
    let (signed, key) = signed();
    let text = signed.to_string();
    let known = [key];
    signed.verify(&known, &[]).unwrap();
    for at in 0..text.len() * 8 {
        let mut bytes = text.clone().into_bytes();
        bytes[at / 8] ^= 1 << (at % 8);
        let Ok(text) = String::from_utf8(bytes) else { continue };
        let believed =
            text.parse::<SignedCheckpoint>().is_ok_and(|signed| signed.verify(&known, &[]).is_ok());
        assert!(!believed, "bit {at} was flipped: {text}");
    }
}

#[test]
fn what_is_no_note_is_refused() {
    let line = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";
    let many = format!("{line}\n").repeat(101);
    for note in [
        String::new(),
        "text\n".to_owned(),
        "text\n\n".to_owned(),
        format!("text\n{line}\n"),
        format!("text\n\n{line}"),
        format!("text\n\n{line}\n\n"),
        format!("text\r\n\n{line}\n"),
        format!("te\txt\n\n{line}\n"),
        format!("\n{line}\n"),
        format!("text\n\n-{line}\n"),
        format!("text\n\n— {line}\n"),
        "text\n\n— name AAAA\n".to_owned(),
        "text\n\n— name AAAAAA==\n".to_owned(),
        "text\n\n— name AAAAAAB=\n".to_owned(),
        "text\n\n— a+b AAAAAAA=\n".to_owned(),
        "text\n\n—  AAAAAAA=\n".to_owned(),
        format!("text\n\n{many}"),
        format!("{}\n\n{line}\n", "x".repeat(70_000)),
    ] {
        assert!(note.parse::<Note>().is_err(), "{:?} is no note", note.chars().take(200).collect::<String>());
    }
    for text in ["", "text", "a\u{1}b\n"] {
        Note::new(text).unwrap_err();
    }
    for key in [
        "",
        "a",
        "a+b",
        "a+b+c",
        "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+C74F20A3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "x+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "a+00000000+Ag==",
    ] {
        assert!(key.parse::<VerifierKey>().is_err(), "{key:?} is no key");
    }
}

proptest! {
    #[test]
    fn notes_read_back(text in "([a-z ]{0,20}\n){1,5}", seeds in proptest::collection::btree_set(any::<u8>(), 1..5)) {
        let mut note = Note::new(&text).unwrap();
        let mut keys = Vec::new();
        for seed in seeds {
            let name = format!("key-{seed}");
            note.sign(&name, &key(seed)).unwrap();
            keys.push(VerifierKey::new(&name, SignatureKind::Ed25519, &public_key(&key(seed))).unwrap());
        }
        let read: Note = note.to_string().parse().unwrap();
        prop_assert_eq!(&read, &note);
        prop_assert_eq!(read.verify(&keys).unwrap().len(), keys.len());
    }

    #[test]
    fn any_bytes_are_a_note_or_refused(text in "\\PC{0,40}\n\n— \\PC{0,40}\n") {
        if let Ok(note) = text.parse::<Note>() {
            prop_assert_eq!(note.to_string(), text);
        }
    }

    #[test]
    fn checkpoints_read_back(size in 0..=i64::MAX as u64, bytes in any::<[u8; 32]>()) {
        let checkpoint = Checkpoint { size, root: Digest(bytes), ..checkpoint() };
        prop_assert_eq!(checkpoint.to_string().parse::<Checkpoint>().unwrap(), checkpoint);
    }
}
