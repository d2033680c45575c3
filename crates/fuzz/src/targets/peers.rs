//! What controllers tell each other: frames, Raft's messages and what happens when one is taken, requests.

use std::sync::LazyLock;

use stele_codec::decode_message as decode_request;
use stele_consensus::memory::MemoryStore;
use stele_consensus::{
    Applied, Committed, Config, Driver, Handler, HandlerError, Message, RoleChange, SnapshotHead, StepError,
    StoredSnapshot, bootstrap, decode_message, encode_message,
};
use stele_model::{Command, Request};

use super::keys;
use crate::mutate::Form;
use crate::nasty;
use crate::target::{Budget, Named, Target, Verdict, holds};

/// Raft's numbers for kinds of messages.
mod kind {
    pub(super) const APPEND: i32 = 3;
    pub(super) const APPEND_RESPONSE: i32 = 4;
    pub(super) const REQUEST_VOTE: i32 = 5;
    pub(super) const SNAPSHOT: i32 = 7;
    pub(super) const HEARTBEAT: i32 = 8;
    pub(super) const READ_INDEX: i32 = 15;
    pub(super) const PRE_VOTE: i32 = 17;
}

/// Raft's number for an entry that changes the members.
const CONF_CHANGE: i32 = 1;
/// Bytes of the length before each message of a conversation.
const LENGTH: usize = 2;

pub(super) fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "peer-frame",
            decoder: "`peer::FrameReader`",
            holds: "frames that are read are written as the same bytes; memory grows with what arrives, not with what is \
                    announced",
            form: Form::Bytes,
            budget: Budget { fixed: 3 << 20, per_byte: 60 },
            run: frame,
            mend: None,
            made: made_frames,
            nasty: nasty::bytes,
        },
        Target {
            name: "raft-message",
            decoder: "`consensus::decode_message`, `StoredSnapshot::from_raft`",
            holds: "encoded again and read, it is the same; so is a snapshot in it",
            form: Form::Bytes,
            budget: Budget { fixed: 1 << 20, per_byte: 600 },
            run: message,
            mend: None,
            made: made_messages,
            nasty: nasty::bytes,
        },
        Target {
            name: "raft-step",
            decoder: "`Driver::step` and `ready`: entries, membership changes and snapshots of a peer",
            holds: "a message is taken, dropped, or stops this replica with an error",
            form: Form::Bytes,
            budget: Budget { fixed: 8 << 20, per_byte: 4000 },
            run: step,
            mend: Some(mend_step),
            made: made_steps,
            nasty: nasty::bytes,
        },
        Target {
            name: "peer-request",
            decoder: "`controller::{PeerRequest, PeerAnswer}`, `model::Request`",
            holds: "encoded again and read, it is encoded alike; trailing bytes are refused",
            form: Form::Bytes,
            budget: Budget { fixed: 4 << 20, per_byte: 600 },
            run: request,
            mend: None,
            made: made_requests,
            nasty: nasty::bytes,
        },
    ]
}

fn frame(input: &[u8]) -> Result<Verdict, String> {
    static RUNTIME: LazyLock<Option<tokio::runtime::Runtime>> =
        LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_time().build().ok());
    let runtime = RUNTIME.as_ref().ok_or("no runtime")?;
    let written = runtime.block_on(stele_peer::reread_frames(input));
    holds(input.starts_with(&written), || "frames are written otherwise than they were read".to_owned())?;
    Ok(if written.is_empty() { Verdict::Refused } else { Verdict::Read })
}

/// A frame: length, kind, body.
fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    [&(1 + body.len() as u32).to_be_bytes()[..], &[kind], body].concat()
}

fn made_frames() -> anyhow::Result<Vec<Named>> {
    let hello = [&1_u16.to_be_bytes()[..], &2_u64.to_be_bytes(), &[1], b"acme"].concat();
    let request = [&7_u64.to_be_bytes()[..], &5000_u32.to_be_bytes(), b"do"].concat();
    let answer = [&7_u64.to_be_bytes()[..], &[0], b"done"].concat();
    let frames = [
        ("hello", framed(1, &hello)),
        ("welcome", framed(2, b"")),
        ("refused", framed(3, "no".as_bytes())),
        ("raft", framed(4, b"message")),
        ("request", framed(5, &request)),
        ("answer", framed(6, &answer)),
        ("pings", [framed(7, b""), framed(8, b""), framed(7, b"")].concat()),
    ];
    Ok(frames.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect())
}

fn message(input: &[u8]) -> Result<Verdict, String> {
    let Some((message, clock_us)) = decode_message(input) else { return Ok(Verdict::Refused) };
    let again =
        decode_message(&encode_message(&message, clock_us)).ok_or("encoded again, it cannot be read")?;
    holds(again == (message.clone(), clock_us), || "encoded again, it is another message".to_owned())?;
    if let Some(snapshot) = message.snapshot.as_ref().and_then(StoredSnapshot::from_raft) {
        let again = StoredSnapshot::from_raft(&snapshot.to_raft())
            .ok_or("sent again, the snapshot cannot be read")?;
        holds(again == snapshot, || "sent again, it is another snapshot".to_owned())?;
    }
    Ok(Verdict::Read)
}

fn of_kind(kind: i32) -> Message {
    Message { msg_type: kind, to: 1, from: 2, term: 2, ..Message::default() }
}

/// An entry of the empty kind, or with these bytes.
fn append(index: u64, entries: &[(i32, &[u8])]) -> Message {
    let mut message = Message { index, log_term: index.min(2), commit: index, ..of_kind(kind::APPEND) };
    // Its kind of entry has no name here.
    message.entries.resize_with(entries.len(), Default::default);
    for ((entry, (entry_type, data)), index) in message.entries.iter_mut().zip(entries).zip(index + 1..) {
        entry.entry_type = *entry_type;
        entry.term = 2;
        entry.index = index;
        entry.data = data.to_vec();
    }
    message
}

/// A change of one member, as protobuf: its kind (0 adds a voter, 1 removes, 2 adds a learner) and the id.
fn change(kind: u8, id: u8) -> Vec<u8> {
    vec![0x10, kind, 0x18, id]
}

fn snapshot() -> StoredSnapshot {
    let mut head = SnapshotHead { seq: 9, index: 9, term: 2, retired: vec![4], ..SnapshotHead::default() };
    head.conf_state.voters = vec![1, 2, 3];
    StoredSnapshot { head, data: b"state".to_vec() }
}

fn messages() -> Vec<(&'static str, Message)> {
    let (add, remove, learner) = (change(0, 4), change(1, 3), change(2, 5));
    let mut with_snapshot = of_kind(kind::SNAPSHOT);
    with_snapshot.snapshot = Some(snapshot().to_raft());
    let mut read = Message { term: 0, ..of_kind(kind::READ_INDEX) };
    read.entries = append(0, &[(0, b"context")]).entries;
    vec![
        ("heartbeat", Message { commit: 1, ..of_kind(kind::HEARTBEAT) }),
        ("append", append(1, &[(0, b""), (0, b"one"), (0, b"two")])),
        (
            "append-members",
            append(1, &[(0, b""), (CONF_CHANGE, &learner), (CONF_CHANGE, &add), (CONF_CHANGE, &remove)]),
        ),
        ("append-more", Message { commit: 5, ..append(4, &[(0, b"three")]) }),
        ("append-v2", append(1, &[(2, &[0x12, 4, 0x08, 2, 0x10, 6]), (2, b"")])),
        ("response", Message { index: 1, ..of_kind(kind::APPEND_RESPONSE) }),
        ("vote", Message { index: 9, log_term: 2, ..of_kind(kind::REQUEST_VOTE) }),
        ("pre-vote", Message { index: 9, log_term: 2, ..of_kind(kind::PRE_VOTE) }),
        ("snapshot", with_snapshot),
        ("read", read),
    ]
}

fn made_messages() -> anyhow::Result<Vec<Named>> {
    let mut made: Vec<Named> = Vec::new();
    for (name, message) in messages() {
        made.push((name.to_owned(), encode_message(&message, None)));
    }
    let stamped = encode_message(&of_kind(kind::APPEND_RESPONSE), Some(1_800_000_000_000_000));
    made.push(("with-clock".to_owned(), stamped));
    Ok(made)
}

#[derive(Default)]
struct Sink;

impl Handler for Sink {
    fn send(&mut self, _: Vec<Message>) {}
    fn role(&mut self, _: RoleChange) {}
    fn restore(&mut self, _: &StoredSnapshot) -> Result<(), HandlerError> {
        Ok(())
    }
    fn apply(&mut self, _: Committed) -> Result<Applied, HandlerError> {
        Ok(Applied::default())
    }
    fn applied(&mut self, _: u64) {}
    fn read(&mut self, _: Vec<u8>, _: u64) {}
}

/// The messages of a conversation, each after its length.
fn conversation(mut input: &[u8]) -> Vec<Message> {
    let mut all = Vec::new();
    while let Some((length, rest)) = input.split_first_chunk::<LENGTH>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        all.extend(decode_message(&rest[..length]).map(|(message, _)| message));
        input = &rest[length..];
    }
    all
}

fn write_conversation<'a>(messages: impl IntoIterator<Item = &'a Message>) -> Vec<u8> {
    let mut out = Vec::new();
    for message in messages {
        let bytes = encode_message(message, None);
        if let Ok(length) = u16::try_from(bytes.len()) {
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&bytes);
        }
    }
    out
}

fn step(input: &[u8]) -> Result<Verdict, String> {
    let mut store = MemoryStore::new();
    bootstrap(&mut store, &[1, 2, 3], Vec::new()).map_err(|error| error.to_string())?;
    let mut driver = Driver::new(Config::new(1), store).map_err(|error| error.to_string())?;
    let mut verdict = Verdict::Refused;
    for message in conversation(input) {
        match driver.step(message) {
            Ok(()) => verdict = Verdict::Read,
            Err(StepError::Dropped { .. }) => continue,
            Err(_) => return Ok(verdict),
        }
        loop {
            match driver.ready(&mut Sink) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => return Ok(verdict),
            }
        }
    }
    Ok(verdict)
}

/// Sent to this replica, from one that is a member, in a term that is not over.
fn mend_step(input: &mut Vec<u8>) {
    let mut messages = conversation(input);
    for message in &mut messages {
        message.to = 1;
        if !matches!(message.from, 2 | 3) {
            message.from = 2 + message.from % 2;
        }
        if message.msg_type != kind::READ_INDEX {
            message.term = message.term.clamp(2, 1000);
        }
    }
    *input = write_conversation(&messages);
}

fn made_steps() -> anyhow::Result<Vec<Named>> {
    let all = messages();
    let mut made: Vec<Named> = all
        .iter()
        .filter(|(name, _)| !matches!(*name, "response" | "append-more"))
        .map(|(name, message)| ((*name).to_owned(), write_conversation([message])))
        .collect();
    let several = |names: &[&str]| {
        let messages = names.iter().filter_map(|name| all.iter().find(|(known, _)| known == name));
        write_conversation(messages.map(|(_, message)| message))
    };
    made.push(("growing".to_owned(), several(&["heartbeat", "append", "append-more", "heartbeat"])));
    made.push(("members".to_owned(), several(&["append-members", "append-more", "vote"])));
    made.push((
        "joint".to_owned(),
        several(&["append-v2", "heartbeat", "append-more", "snapshot", "append-more"]),
    ));
    Ok(made)
}

fn request(input: &[u8]) -> Result<Verdict, String> {
    let mut verdict = Verdict::Refused;
    for (name, again) in [
        ("request", stele_controller::fuzzing::peer_request as fn(&[u8]) -> Option<Vec<u8>>),
        ("answer", stele_controller::fuzzing::peer_answer),
    ] {
        if let Some(once) = again(input) {
            let twice = again(&once).ok_or_else(|| format!("the {name}, encoded again, cannot be read"))?;
            holds(once == twice, || format!("the {name}, encoded again, is another"))?;
            verdict = Verdict::Read;
        }
    }
    if let Ok(request) = decode_request::<Request>(input) {
        let again = decode_request::<Request>(&stele_codec::encode_message(&request))
            .map_err(|error| format!("encoded again, the command cannot be read: {error}"))?;
        holds(again == request, || "encoded again, it is another command".to_owned())?;
        verdict = Verdict::Read;
    }
    Ok(verdict)
}

fn made_requests() -> anyhow::Result<Vec<Named>> {
    let command = Command::RecordRefusal {
        action: "Apply".to_owned(),
        scope: "shop/web@prod".to_owned(),
        why: "no".to_owned(),
    };
    let request = stele_ledger::system_request(command);
    let mut all = stele_controller::fuzzing::messages(&request, &super::wire::one_sealed());
    all.push(("command".to_owned(), stele_codec::encode_message(&request)));
    let certify = Command::CertifyController {
        certificate: keys::certificate()?,
        api: "https://a:1".to_owned(),
        peer: "a:2".to_owned(),
    };
    all.push((
        "command-certify".to_owned(),
        stele_codec::encode_message(&stele_ledger::system_request(certify)),
    ));
    Ok(all)
}
