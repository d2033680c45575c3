//! What holds for any log, and for any damage.

use std::sync::Arc;

use proptest::prelude::*;
use stele_codec::{Chain, DecodeError, Entry, Snapshot, StoredRecord, Verifier, encode_record};
use stele_model::{Digest, Event, Header, Sealed, State, Time, Value};

use crate::corpus;
use crate::random_log::{Log, Step};

/// One change of some bytes.
#[derive(Clone, Debug)]
enum Damage {
    Truncate(prop::sample::Index),
    Flip(prop::sample::Index, u32),
    Insert(prop::sample::Index, u8),
    Append(u8),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        any::<prop::sample::Index>().prop_map(Damage::Truncate),
        (any::<prop::sample::Index>(), 0_u32..8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        any::<u8>().prop_map(Damage::Append),
    ]
}

fn damaged(bytes: &[u8], damage: &Damage) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    match damage {
        Damage::Truncate(at) => bytes.truncate(at.index(bytes.len())),
        Damage::Flip(at, bit) => {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        Damage::Insert(at, byte) => bytes.insert(at.index(bytes.len()), *byte),
        Damage::Append(byte) => bytes.push(*byte),
    }
    bytes
}

fn value() -> impl Strategy<Value = Value> {
    let sealed = (".*", any::<u32>(), "[0-9a-f]{48}", "([0-9a-f]{2}){0,40}");
    prop_oneof![
        ".*".prop_map(Value::Plain),
        sealed.prop_map(|(subject, key_version, nonce, ciphertext)| {
            Value::Sealed(Sealed { subject, key_version, nonce, ciphertext })
        }),
    ]
}

/// Any header, with the fields that follow from the event left empty.
fn header() -> impl Strategy<Value = Header> {
    let numbers = (1..u64::MAX, any::<u64>(), any::<u64>(), any::<u32>(), any::<Option<u64>>());
    let texts = (
        proptest::option::of("[0-9a-f]{32}"),
        proptest::option::of((".*", any::<[u8; 32]>())),
        proptest::option::of(value()),
        proptest::option::of(".*"),
        proptest::option::of(".*"),
        proptest::option::of(".*"),
        proptest::option::of("[a-z0-9]{1,63}"),
    );
    (numbers, texts, "[a-z0-9]{1,63}").prop_map(|(numbers, texts, principal)| {
        let (seq, time, first, count, cause) = numbers;
        let (trace, idempotency, reason, ticket, commit, ci_run, on_behalf_of) = texts;
        Header {
            seq,
            time: Time(time),
            decision: stele_model::Decision { first, count },
            principal: corpus::name(&principal),
            cause,
            trace,
            idempotency: idempotency
                .map(|(key, request)| stele_model::Idempotency { key, request: Digest(request) }),
            reason,
            links: stele_model::Links {
                ticket,
                commit,
                ci_run,
                on_behalf_of: on_behalf_of.map(|name| corpus::name(&name)),
            },
            ..corpus::header(1)
        }
    })
}

fn step() -> impl Strategy<Value = Step> {
    let number = || 0_usize..3;
    prop_oneof![
        6 => (number(), 0_u8..4, 0_u8..4).prop_map(|(app, image, replicas)| Step::Deploy { app, image, replicas }),
        1 => number().prop_map(|app| Step::Remove { app }),
        2 => (number(), 0_u8..3).prop_map(|(app, value)| Step::SetConfig { app, value }),
        2 => number().prop_map(|app| Step::SetSecret { app }),
        3 => (number(), 1_u32..4).prop_map(|(app, steps)| Step::Rollback { app, steps }),
        3 => (number(), 0_usize..4, 1_u32..4).prop_map(|(app, part, steps)| Step::RollbackPart { app, part, steps }),
        2 => (0_usize..4).prop_map(|back| Step::Undo { back }),
        1 => (number(), any::<bool>()).prop_map(|(app, bad)| Step::Mark { app, bad }),
        1 => Just(Step::Review),
        1 => number().prop_map(|app| Step::Unlatch { app }),
        8 => Just(Step::Conduct),
        6 => any::<bool>().prop_map(|failing| Step::Report { failing }),
        1 => number().prop_map(|node| Step::Lose { node }),
        1 => number().prop_map(|node| Step::Return { node }),
        1 => number().prop_map(|node| Step::RemoveNode { node }),
        1 => number().prop_map(|node| Step::DrainNode { node }),
        1 => number().prop_map(|node| Step::ResumeNode { node }),
        2 => number().prop_map(|node| Step::Enrol { node }),
        1 => (number(), 0_u8..3).prop_map(|(node, value)| Step::Label { node, value }),
        1 => any::<bool>().prop_map(|revoke| Step::Token { revoke }),
        1 => Just(Step::Refuse),
        1 => (1_u64..4).prop_map(|count| Step::Members { count }),
        1 => Just(Step::RecordDigest),
    ]
}

fn an_entry(log: &Log) -> Entry {
    let from = log.records.len() / 2;
    Entry {
        fleet: "demo".to_owned(),
        term: 3,
        first: from as u64 + 1,
        previous: log.records[from - 1].1,
        records: log.records[from..].iter().map(|(stored, _)| stored.clone()).collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_header_is_read_back(header in header(), at in any::<prop::sample::Index>()) {
        let events = corpus::events();
        let (stored, record) = encode_record(header, at.get(&events)).unwrap();
        prop_assert_eq!(&stored.decode().unwrap(), &record);
        let chain = Chain::GENESIS.link(&stored.leaf);
        let (read, kept) = StoredRecord::from_bytes(&stored.to_bytes(chain)).unwrap();
        prop_assert_eq!((read, kept), (stored, chain));
    }

    /// The chain covers the leaf, the leaf covers the payload: nothing damaged passes as a record of the log.
    #[test]
    fn a_damaged_record_is_found_out(at in any::<prop::sample::Index>(), damages in prop::collection::vec(damage(), 1..3)) {
        let records = corpus::records();
        let at = at.index(records.len());
        let (stored, _, chain) = &records[at];
        let whole = stored.to_bytes(*chain);
        let bytes = damages.iter().fold(whole.clone(), |bytes, damage| {
            if bytes.is_empty() { bytes } else { damaged(&bytes, damage) }
        });
        prop_assume!(bytes != whole);
        let previous = if at == 0 { Chain::GENESIS } else { records[at - 1].2 };
        if let Ok((read, kept)) = StoredRecord::from_bytes(&bytes)
            && previous.link(&read.leaf) == *chain
            && kept == *chain
        {
            prop_assert!(read.decode().is_err(), "a changed payload was taken for the one that was hashed");
        }
    }

    #[test]
    fn a_damaged_entry_is_refused(damages in prop::collection::vec(damage(), 1..3)) {
        let records = corpus::records();
        let entry = Entry {
            fleet: "demo".to_owned(),
            term: 2,
            first: 1,
            previous: Chain::GENESIS,
            records: records.into_iter().map(|(stored, _, _)| stored).collect(),
        };
        let whole = entry.encode();
        let bytes = damages.iter().fold(whole.clone(), |bytes, damage| {
            if bytes.is_empty() { bytes } else { damaged(&bytes, damage) }
        });
        prop_assume!(bytes != whole);
        prop_assert!(Entry::decode(&bytes).is_err());
    }

    /// Bytes from anywhere are refused, never a panic, and never more memory than they are long.
    #[test]
    fn noise_is_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..300), magic in 0_u8..3) {
        let start: &[u8] = [&b"STLE\x01"[..], b"STSN\x01", b"\x00\x00\x00\x40\x01"][usize::from(magic)];
        for (byte, known) in bytes.iter_mut().zip(start) {
            *byte = *known;
        }
        prop_assert!(Entry::decode(&bytes).is_err());
        prop_assert!(Snapshot::decode(&bytes).is_err());
        if let Ok((stored, _)) = StoredRecord::from_bytes(&bytes) {
            prop_assert!(stored.decode().is_err());
        }
        let _ = stele_codec::decode_message::<Event>(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_log_verifies_and_any_state_survives_its_bytes(
        steps in prop::collection::vec((step(), any::<bool>()), 1..60)
    ) {
        let mut log = Log::new();
        for (step, ask_digest) in steps {
            log.step(step);
            if ask_digest {
                log.digest();
            }
        }
        let digest = log.digest();
        let snapshot = Snapshot { chain: log.chain(), state: log.state().clone() };
        let read = Snapshot::decode(&snapshot.encode()).unwrap();
        prop_assert_eq!(&read, &snapshot);
        // Read from bytes, every leaf is hashed anew; in the log, only what was touched.
        prop_assert_eq!(read.state.clone().digest(), digest);
        prop_assert_eq!(read.encode(), snapshot.encode(), "equal States have equal bytes");
        // And by a stranger who folds from the beginning, record by record.
        let mut verifier = Verifier::new();
        for (stored, chain) in &log.records {
            verifier.push(stored, Some(*chain)).unwrap();
        }
        let (mut folded, chain) = verifier.into_parts();
        prop_assert_eq!(&folded, log.state());
        prop_assert_eq!(folded.digest(), digest);
        prop_assert_eq!(chain, log.chain());
        let entry = an_entry(&log);
        prop_assert_eq!(Entry::decode(&entry.encode()).unwrap(), entry);
    }

    #[test]
    fn a_damaged_snapshot_is_refused(damages in prop::collection::vec(damage(), 1..3)) {
        let kept = std::fs::read_to_string(crate::golden::folder().join("snapshot.hex")).unwrap();
        let whole = hex::decode(kept.trim()).unwrap();
        prop_assert!(Snapshot::decode(&whole).is_ok());
        let bytes = damages.iter().fold(whole.clone(), |bytes, damage| {
            if bytes.is_empty() { bytes } else { damaged(&bytes, damage) }
        });
        prop_assume!(bytes != whole);
        prop_assert!(Snapshot::decode(&bytes).is_err());
    }
}

#[test]
fn an_earlier_snapshot_still_says_where_history_must_lead() {
    /// Behind the magic: the format, which the checksum does not cover.
    const FORMAT_AT: usize = 4;
    let kept = std::fs::read_to_string(crate::golden::folder().join("snapshot.hex")).unwrap();
    let mut bytes = hex::decode(kept.trim()).unwrap();
    let chain = Snapshot::decode(&bytes).unwrap().chain;
    bytes[FORMAT_AT] = 1;
    assert!(matches!(Snapshot::decode(&bytes), Err(DecodeError::Format { found: 1, .. })));
    assert_eq!(Snapshot::chain_of(&bytes).unwrap(), chain);
    bytes[FORMAT_AT] = u8::MAX;
    assert!(matches!(Snapshot::chain_of(&bytes), Err(DecodeError::Format { found: u8::MAX, .. })));
    bytes[FORMAT_AT] = 1;
    *bytes.last_mut().unwrap() ^= 1;
    assert!(matches!(Snapshot::chain_of(&bytes), Err(DecodeError::Checksum(_))));
}

/// Puts another ciphertext into every sealed value.
fn reseal(tree: &mut serde_json::Value, with: &str) {
    match tree {
        serde_json::Value::Object(members) => {
            if members.contains_key("key_version")
                && let Some(text) = members.get_mut("ciphertext")
            {
                *text = format!("{with}{}", text.as_str().unwrap()).into();
            }
            members.values_mut().for_each(|member| reseal(member, with));
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(|item| reseal(item, with)),
        _ => {}
    }
}

fn resealed<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T, with: &str) -> T {
    let mut tree = serde_json::to_value(value).unwrap();
    reseal(&mut tree, with);
    serde_json::from_value(tree).unwrap()
}

/// The same in all that State holds of sealed values.
fn state_resealed(state: &State, with: &str) -> State {
    let mut state = state.clone();
    let history = &mut state.history;
    history.secrets = history
        .secrets
        .written()
        .map(|(key, seq, value)| (key.clone(), seq, resealed(value, with)))
        .collect();
    history.configs = history
        .configs
        .written()
        .map(|(key, seq, bundle)| (*key, seq, Arc::new(resealed(bundle.as_ref(), with))))
        .collect();
    history.releases = history
        .releases
        .written()
        .map(|(key, seq, record)| {
            let mut record = record.as_ref().clone();
            record.release = resealed(&record.release, with);
            (*key, seq, Arc::new(record))
        })
        .collect();
    state
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// What is sealed never decides anything: with every secret another one, all else is the same.
    /// So a destroyed key takes nothing from a replay.
    #[test]
    fn folding_never_depends_on_what_is_sealed(
        steps in prop::collection::vec(step(), 1..40),
        with in "[0-9a-f]{2}",
    ) {
        let mut log = Log::new();
        for step in steps {
            log.step(step);
        }
        let mut other = State::default();
        for (stored, _) in &log.records {
            let mut record = stored.decode().unwrap();
            record.event = resealed(&record.event, &with);
            stele_model::fold(&mut other, &record);
        }
        prop_assert_eq!(state_resealed(log.state(), &with), other);
    }
}
