//! What may be written can be read back, up to the last byte of the bound.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use stele_codec::{decode_message, encode_message, encode_record};
use stele_model::limits::PAYLOAD_BYTES_MAX;
use stele_model::{Decision, Digest, Event, Header, Links, NodeName, State, Time};

fn header() -> Header {
    Header {
        seq: 1,
        time: Time(1),
        decision: Decision { first: 1, count: 1 },
        principal: "system".parse().unwrap(),
        cause: None,
        trace: None,
        idempotency: None,
        kind: String::new(),
        schema: 0,
        codec: 0,
        scopes: Vec::new(),
        reason: None,
        links: Links::default(),
        payload: Digest::EMPTY,
    }
}

#[test]
fn many_small_values_are_read_back() {
    // The shortest texts there are.
    let node: NodeName = "a".parse().unwrap();
    let scope: stele_model::Scope = "node:a".parse().unwrap();
    assert_eq!(scope.to_string(), "node:a");
    for count in [1, 1000, PAYLOAD_BYTES_MAX / 2 - 16] {
        let event = Event::NodesLost { nodes: vec![node.clone(); count] };
        let (stored, record) = encode_record(header(), &event).expect("it is within the bound");
        assert_eq!(stored.decode().unwrap(), record);
    }
    let event = Event::NodesLost { nodes: vec![node; PAYLOAD_BYTES_MAX] };
    assert!(encode_record(header(), &event).is_err(), "and beyond it nothing is written");
}

/// bincode's encoding of the largest length there is.
const ENDLESS: [u8; 9] = [253, 255, 255, 255, 255, 255, 255, 255, 255];

#[test]
fn a_length_that_nothing_follows_is_refused_wherever_it_stands() {
    let state = encode_message(&State::default());
    // Making room for so many would panic. Where a number stands instead of a length, it is as good as another.
    let is_refused = |at: &usize| {
        let endless = [&state[..*at], &ENDLESS, &state[at + 1..]].concat();
        decode_message::<State>(&endless).is_err()
    };
    let refused = (0..state.len()).filter(is_refused).count();
    assert!(refused * 2 > state.len(), "{refused} of {}", state.len());
    let text = encode_message("text");
    assert_eq!(decode_message::<String>(&text).unwrap(), "text");
    assert!(decode_message::<String>(&[252, 0, 0, 0, 2, b't']).is_err());
}
