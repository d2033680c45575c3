//! The bytes of the log: records, their headers, entries, snapshots and deltas.

use stele_codec::{
    Chain, Entry, Linker, ProgressBytes, RecordBytes, Snapshot, StoredRecord, TargetBytes, decode_answers,
    decode_progress, decode_target, encode_answers, encode_progress, encode_record, encode_target,
};
use stele_model::{
    Answers, AnswersDelta, Delta, Digest, Excerpt, Interest, Outline, ProgressDelta, Record, Scope, State,
    TargetDelta, TargetOutline, Time, fold,
};

use super::story;
use crate::mutate::Form;
use crate::nasty;
use crate::target::{Budget, Named, Target, Verdict, holds};

const HASH: usize = 32;
/// Magic, format.
const SNAPSHOT_HEAD: usize = 5;
const ENTRY_CHECKSUM: usize = 8;

pub(super) fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "record",
            decoder: "`StoredRecord::from_bytes`, `decode`, all schemas of all kinds; `model::fold`",
            holds: "written again it is the same bytes; header and event are what they were when encoded again; \
                    trailing bytes are refused; what decodes can be folded and State be digested",
            form: Form::Bytes,
            budget: Budget { fixed: 4 << 20, per_byte: 300 },
            run: record,
            mend: Some(mend_record),
            made: made_records,
            nasty: nasty::bytes,
        },
        Target {
            name: "header",
            decoder: "`StoredRecord::header`, `RecordBytes::headline`",
            holds: "refuses what is no header; one that is read back gives the same leaf; its headline says the same",
            form: Form::Bytes,
            budget: Budget { fixed: 1 << 20, per_byte: 100 },
            run: header,
            mend: None,
            made: made_headers,
            nasty: nasty::bytes,
        },
        Target {
            name: "entry",
            decoder: "`Entry::decode`, then `Linker`",
            holds: "written again it is the same bytes; trailing bytes are refused; records link or are refused",
            form: Form::Bytes,
            budget: Budget { fixed: 4 << 20, per_byte: 300 },
            run: entry,
            mend: Some(mend_entry),
            made: made_entries,
            nasty: nasty::bytes,
        },
        Target {
            name: "snapshot",
            decoder: "`Snapshot::decode`",
            holds: "encoded again and read, it is the same State with the same digest; trailing bytes are refused",
            form: Form::Bytes,
            budget: Budget { fixed: 8 << 20, per_byte: 2000 },
            run: snapshot,
            mend: Some(mend_snapshot),
            made: made_snapshots,
            nasty: nasty::bytes,
        },
        Target {
            name: "delta",
            decoder: "`decode_target`, `decode_progress`, `TargetBytes`, `ProgressBytes`, `Delta::put_on`",
            holds: "encoded again and read, it is the same; a part of it reads as in the whole; it is put on State or \
                    refused",
            form: Form::Bytes,
            budget: Budget { fixed: 8 << 20, per_byte: 2000 },
            run: delta,
            mend: None,
            made: made_deltas,
            nasty: nasty::bytes,
        },
        Target {
            name: "answers",
            decoder: "`decode_answers`, `AnswersDelta::put_on`",
            holds: "encoded again and read, it is the same; it is put on answers or refused",
            form: Form::Bytes,
            budget: Budget { fixed: 8 << 20, per_byte: 2000 },
            run: answers,
            mend: None,
            made: made_answers,
            nasty: nasty::bytes,
        },
    ]
}

fn record(input: &[u8]) -> Result<Verdict, String> {
    let Ok((stored, chain)) = StoredRecord::from_bytes(input) else { return Ok(Verdict::Refused) };
    holds(stored.to_bytes(chain) == input, || "written again, the record has other bytes".to_owned())?;
    let Ok(record) = stored.decode() else { return Ok(Verdict::Refused) };
    again(&stored, &record)?;
    let (mut state, _) = story::early()?.clone();
    // A record is folded where it stands, which readers have checked before.
    let mut record = record;
    (record.header.seq, record.header.time) = (state.seq + 1, Time(state.time.0 + 1));
    fold(&mut state, &record);
    state.digest();
    Ok(Verdict::Read)
}

/// Encodes a record again, as today's program would write it.
fn again(stored: &StoredRecord, record: &Record) -> Result<(), String> {
    // An event that was read may be too large to be written with today's limits.
    let Ok((new, written)) = encode_record(record.header.clone(), &record.event) else { return Ok(()) };
    let read = new.decode().map_err(|error| format!("encoded again, it cannot be read: {error}"))?;
    holds(read.event == record.event, || "encoded again, it is another event".to_owned())?;
    holds(read.header == written.header, || "encoded again, it has another header".to_owned())?;
    if written.header == record.header {
        holds(new.leaf == stored.leaf, || "the same header has two encodings".to_owned())?;
    }
    // Whoever looks at a header asks where its decision ends.
    let _ = record.header.decision.last();
    Ok(())
}

fn mend_record(input: &mut Vec<u8>) {
    let Ok((mut stored, chain)) = StoredRecord::from_bytes(input) else { return };
    if let Some(at) = stored.leaf.len().checked_sub(HASH) {
        stored.leaf[at..].copy_from_slice(&Digest::of(&[&stored.payload]).0);
        *input = stored.to_bytes(chain);
    }
}

fn made_records() -> anyhow::Result<Vec<Named>> {
    let kinds = story::of_each_kind()?;
    Ok(kinds
        .into_iter()
        .map(|((kind, schema), (stored, chain))| (format!("{kind}-{schema}"), stored.to_bytes(chain)))
        .collect())
}

fn header(input: &[u8]) -> Result<Verdict, String> {
    let stored = StoredRecord { leaf: input.to_vec(), payload: Vec::new() };
    let Ok(header) = stored.header() else { return Ok(Verdict::Refused) };
    let _ = header.decision.last();
    let json = serde_json::to_string(&header).map_err(|error| format!("it is no JSON: {error}"))?;
    let read: stele_model::Header =
        serde_json::from_str(&json).map_err(|error| format!("its JSON cannot be read: {error}"))?;
    holds(read == header, || "read from its JSON it is another header".to_owned())?;
    let bytes = stored.to_bytes(Chain::GENESIS);
    let headline = RecordBytes::read(&bytes).and_then(|(record, _)| record.headline());
    holds(headline == Ok(header.headline()), || "its headline says something else".to_owned())?;
    Ok(Verdict::Read)
}

fn made_headers() -> anyhow::Result<Vec<Named>> {
    let mut all = Vec::new();
    for stored in story::records()? {
        let header = stored.header()?;
        let has = [
            header.reason.is_some(),
            header.idempotency.is_some(),
            header.links.on_behalf_of.is_some(),
            header.cause.is_some(),
            header.trace.is_some(),
        ];
        let name: String = has.iter().map(|has| if *has { '1' } else { '0' }).collect();
        if all.iter().all(|(known, _)| *known != name) {
            all.push((name, stored.leaf));
        }
    }
    Ok(all)
}

fn entry(input: &[u8]) -> Result<Verdict, String> {
    let Ok(entry) = Entry::decode(input) else { return Ok(Verdict::Refused) };
    holds(entry.encode() == input, || "encoded again, the entry has other bytes".to_owned())?;
    let before = entry.first.saturating_sub(1);
    let mut linker = Linker::after(before, Time::default(), entry.previous);
    for stored in &entry.records {
        if linker.push(stored, None).is_err() {
            break;
        }
        let _ = linker.is_whole();
    }
    Ok(Verdict::Read)
}

fn mend_entry(input: &mut Vec<u8>) {
    if let Some(at) = input.len().checked_sub(ENTRY_CHECKSUM) {
        let checksum = Digest::of(&[&input[..at]]);
        input[at..].copy_from_slice(&checksum.0[..ENTRY_CHECKSUM]);
    }
}

fn made_entries() -> anyhow::Result<Vec<Named>> {
    let records = story::records()?;
    let mut chain = Chain::GENESIS;
    let mut all = Vec::new();
    for (name, first, count) in [("founding", 1_u64, 4), ("one", 5, 1), ("more", 6, 7)] {
        let records: Vec<_> = records.iter().skip(first as usize - 1).take(count).cloned().collect();
        let after = records.iter().fold(chain, |chain, stored| chain.link(&stored.leaf));
        let entry = Entry { fleet: "acme".to_owned(), term: 3, first, previous: chain, records };
        all.push((name.to_owned(), entry.encode()));
        chain = after;
    }
    let empty = Entry { fleet: "acme".to_owned(), term: 3, first: 13, previous: chain, records: Vec::new() };
    all.push(("empty".to_owned(), empty.encode()));
    Ok(all)
}

fn snapshot(input: &[u8]) -> Result<Verdict, String> {
    let Ok(snapshot) = Snapshot::decode(input) else { return Ok(Verdict::Refused) };
    let again = Snapshot::decode(&snapshot.encode()).map_err(|error| format!("encoded again: {error}"))?;
    holds(again == snapshot, || "encoded again, it is another snapshot".to_owned())?;
    let (mut one, mut other) = (snapshot.state, again.state);
    holds(one.digest() == other.digest(), || "the same State has two digests".to_owned())?;
    Ok(Verdict::Read)
}

fn mend_snapshot(input: &mut Vec<u8>) {
    if input.len() < SNAPSHOT_HEAD + 2 * HASH {
        return;
    }
    let (head, state) = input.split_at_mut(SNAPSHOT_HEAD + 2 * HASH);
    let checksum = Digest::of(&[&head[SNAPSHOT_HEAD..SNAPSHOT_HEAD + HASH], state]);
    head[SNAPSHOT_HEAD + HASH..].copy_from_slice(&checksum.0);
}

fn made_snapshots() -> anyhow::Result<Vec<Named>> {
    let mut all = Vec::new();
    for count in [1, 12, 60] {
        let (state, chain) = story::state_after(count)?;
        all.push((format!("after-{count}"), Snapshot { chain, state }.encode()));
    }
    Ok(all)
}

/// Where the first half of a delta ends, which is kept as two values: here the first one follows its length.
fn halves(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = input.split_first_chunk()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

fn joined(delta: &Delta) -> Vec<u8> {
    let (target, progress) = (encode_target(&delta.target), encode_progress(&delta.progress));
    [&(target.len() as u32).to_le_bytes()[..], &target, &progress].concat()
}

fn read_delta(input: &[u8]) -> Option<Delta> {
    let (target, progress) = halves(input)?;
    Some(Delta { target: decode_target(target).ok()?, progress: decode_progress(progress).ok()? })
}

fn delta(input: &[u8]) -> Result<Verdict, String> {
    let Some(delta) = read_delta(input) else { return Ok(Verdict::Refused) };
    let again = read_delta(&joined(&delta)).ok_or("encoded again, it is refused")?;
    holds(again == delta, || "encoded again, it is another delta".to_owned())?;
    let (state, _) = story::early()?;
    progress_in_part(&encode_progress(&delta.progress), &delta.progress, state)?;
    target_in_part(&encode_target(&delta.target), &delta.target, state)?;
    let mut of_target = TargetOutline::of(state);
    if delta.target.clone().put_on(&mut of_target).is_ok() {
        let mut later = state.clone();
        later.seq = of_target.seq();
        let _ = of_target.filled(&later, later.seq).target_digest(&Scope::fleet());
    }
    let mut outline = Outline::of(state);
    let _ = delta.count();
    if delta.put_on(&mut outline).is_ok() {
        // A delta may say that it leads to any seq.
        let through = outline.seq();
        let mut later = state.clone();
        later.seq = through;
        let mut filled = outline.filled(&later, through);
        let answers = Answers::of(state);
        if answers.seq() == through {
            answers.put_into(&mut filled);
            filled.digest();
        }
    }
    Ok(Verdict::Read)
}

/// What is read of some apps is what is read of them with all others.
fn target_in_part(bytes: &[u8], whole: &TargetDelta, state: &State) -> Result<(), String> {
    let refused = |error| format!("read as a whole, and refused in part: {error}");
    let apps = whole.apps.keys().take(2).cloned().collect();
    let part = TargetBytes::read(bytes).and_then(|bytes| bytes.about(&apps)).map_err(refused)?;
    let mut wanted = whole.clone();
    wanted.apps.retain(|app_env, _| apps.contains(app_env));
    holds(part == wanted, || "in part it is another delta".to_owned())?;
    let mut outline = TargetOutline::of(state).about(&apps);
    let _ = part.put_on(&mut outline);
    Ok(())
}

/// The same of what became of them.
fn progress_in_part(bytes: &[u8], whole: &ProgressDelta, state: &State) -> Result<(), String> {
    let refused = |error| format!("read as a whole, and refused in part: {error}");
    let bytes = ProgressBytes::read(bytes).map_err(refused)?;
    let outline = Outline::of(state);
    let mut interest = Interest::in_apps(whole.apps.keys().take(2).cloned().collect());
    interest.in_hosts_at(&outline);
    let apps = bytes.of_apps(interest.apps()).map_err(refused)?;
    for change in apps.values() {
        interest.in_hosts_of(change);
    }
    let part = bytes.about(&interest).map_err(refused)?;
    let mut wanted = whole.clone();
    wanted.nodes.retain(|node, _| interest.nodes().contains(node));
    wanted.apps.retain(|app_env, _| interest.apps().contains(app_env));
    holds(part == wanted, || "in part it is another delta".to_owned())?;
    let mut excerpt = Excerpt::of(&outline, &interest);
    let _ = part.put_on(&mut excerpt);
    Ok(())
}

fn answers(input: &[u8]) -> Result<Verdict, String> {
    let Ok(delta) = decode_answers(input) else { return Ok(Verdict::Refused) };
    let again = decode_answers(&encode_answers(&delta)).map_err(|error| format!("encoded again: {error}"))?;
    holds(again == delta, || "encoded again, it is another delta".to_owned())?;
    let (state, _) = story::early()?;
    let mut answers = Answers::of(state);
    if delta.put_on(&mut answers).is_ok() {
        let mut whole = state.clone();
        // A delta may say that it leads to any seq.
        whole.seq = answers.seq();
        answers.put_into(&mut whole);
        whole.digest();
    }
    Ok(Verdict::Read)
}

fn made_answers() -> anyhow::Result<Vec<Named>> {
    let (early, _) = story::early().map_err(anyhow::Error::msg)?;
    let (later, _) = story::state_after(early.seq as usize + 30)?;
    let [early, later] = [early, &later].map(Answers::of);
    let none = Answers::default();
    Ok(vec![
        ("nothing".to_owned(), encode_answers(&AnswersDelta::between(&early, &early))),
        ("on-early".to_owned(), encode_answers(&AnswersDelta::between(&early, &later))),
        ("from-none".to_owned(), encode_answers(&AnswersDelta::between(&none, &early))),
    ])
}

fn made_deltas() -> anyhow::Result<Vec<Named>> {
    let (early, _) = story::early().map_err(anyhow::Error::msg)?;
    let (later, _) = story::state_after(early.seq as usize + 30)?;
    let (before, _) = story::state_after(20)?;
    let [before, early, later] = [&before, early, &later].map(Outline::of);
    let nothing = Delta::between(&early, &early);
    Ok(vec![
        ("nothing".to_owned(), joined(&nothing)),
        ("on-early".to_owned(), joined(&Delta::between(&early, &later))),
        ("to-early".to_owned(), joined(&Delta::between(&before, &early))),
    ])
}
