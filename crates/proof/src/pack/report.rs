//! The report for people. Its text follows from the pack's content alone, so that a
//! verifier writes it again and compares; so not a letter of it may change within a format.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use stele_model::event::Pin;
use stele_model::{Digest, Event, Header, Seq, Time, Value};

use super::keys::Known;
use crate::checkpoint::Checkpoint;

/// The first moment of year 10000, which is not written as a date any more, in microseconds.
const DATES_END: u64 = 253_402_300_800_000_000;

/// What a report is about.
pub(super) struct Subject<'a> {
    pub(super) fleet: &'a str,
    pub(super) scope: &'a str,
    pub(super) from: &'a str,
    pub(super) to: &'a str,
    pub(super) checkpoints: Vec<Checkpoint>,
    /// How many records outside the range there are.
    pub(super) keys: usize,
    /// Of the range, in order.
    pub(super) records: &'a [Known<'a>],
    /// Of what touches the scope.
    pub(super) payloads: &'a BTreeMap<Seq, &'a [u8]>,
}

/// A text as it is when it is a plain word, else as canonical JSON, so that no text can pass for another line.
fn shown(text: &str) -> String {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:@=+,".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_word) {
        text.to_owned()
    } else {
        String::from_utf8(stele_model::canonical_json(text)).unwrap_or_default()
    }
}

/// RFC 3339 with microseconds.
pub(super) fn moment(time: Time) -> String {
    if time.0 >= DATES_END {
        return time.0.to_string();
    }
    let (days, micros) = (time.0 / 86_400_000_000, time.0 % 86_400_000_000);
    let (mut year, mut left) = (1970, days);
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while left >= 365 + u64::from(is_leap(year)) {
        left -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    let seconds = micros / 1_000_000;
    format!(
        "{year:04}-{month:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        left + 1,
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        micros % 1_000_000
    )
}

/// Who and why, as far as the header says.
fn because(header: &Header) -> String {
    let mut text = format!("by {}", shown(header.principal.as_str()));
    match &header.reason {
        Some(Value::Plain(reason)) => {
            let _ = write!(text, " because {}", shown(reason));
        }
        Some(Value::Sealed(_)) => text.push_str(" because (sealed)"),
        None => {}
    }
    let links = &header.links;
    for (name, link) in [
        ("ticket", links.ticket.as_deref()),
        ("commit", links.commit.as_deref()),
        ("ci_run", links.ci_run.as_deref()),
        ("on_behalf_of", links.on_behalf_of.as_ref().map(stele_model::PrincipalId::as_str)),
    ] {
        if let Some(link) = link {
            let _ = write!(text, " {name} {}", shown(link));
        }
    }
    text
}

/// The event, where its kind is of schema 1 and codec 1: what the report says of it is frozen.
fn first_schema(known: &Known<'_>, kind: &str, payload: &[u8]) -> Option<Event> {
    let header = &known.header;
    let is_first = header.kind == kind && header.schema == 1 && header.codec == 1;
    if is_first { known.event(payload).ok() } else { None }
}

/// The digests of State that the log recorded, as far as the pack has them.
pub(super) fn state_digests(records: &[Known<'_>], payloads: &BTreeMap<Seq, &[u8]>) -> Vec<(Seq, Digest)> {
    let digests = records.iter().filter_map(|known| {
        let payload = payloads.get(&known.header.seq)?;
        match first_schema(known, "state_digest_recorded", payload)? {
            Event::StateDigestRecorded { digest } => Some((known.header.seq, digest)),
            _ => None,
        }
    });
    digests.collect()
}

/// What came into force where by a record.
fn in_force(known: &Known<'_>, payload: &[u8]) -> Vec<(String, String)> {
    let target = first_schema(known, "target_changed", payload);
    match target.or_else(|| first_schema(known, "pins_changed", payload)) {
        Some(Event::TargetChanged { app_env, revision }) => {
            let what = revision.map_or_else(|| "removed".to_owned(), |revision| revision.release.to_string());
            vec![(app_env.to_string(), what)]
        }
        Some(Event::PinsChanged { app_env, pins }) => {
            let pin = |(place, pin)| {
                let what = match pin {
                    Some(Pin::Revision(revision)) => revision.release.to_string(),
                    Some(Pin::Absent) => "removed".to_owned(),
                    None => "unpinned".to_owned(),
                };
                (format!("{app_env},{place}"), what)
            };
            pins.into_iter().map(pin).collect()
        }
        _ => Vec::new(),
    }
}

/// A heading and its lines, or that there are none.
fn section(text: &mut String, heading: &str, lines: &[String]) {
    let _ = writeln!(text, "\n{heading}");
    for line in lines {
        let _ = writeln!(text, "{line}");
    }
    if lines.is_empty() {
        text.push_str("none\n");
    }
}

/// The whole report.
pub(super) fn report(subject: &Subject<'_>) -> String {
    let Subject { records, payloads, .. } = subject;
    let mut text =
        format!("Evidence pack of fleet {}\nscope {}\n", shown(subject.fleet), shown(subject.scope));
    if let (Some(first), Some(last)) = (records.first(), records.last()) {
        let _ = writeln!(
            text,
            "records {} to {}, asked for from {} to {}",
            first.header.seq,
            last.header.seq,
            shown(subject.from),
            shown(subject.to)
        );
        let _ = writeln!(text, "times {} to {}", moment(first.header.time), moment(last.header.time));
    }
    let _ = writeln!(
        text,
        "{} records in the range, {} of them with payload; {} outside it",
        records.len(),
        payloads.len(),
        subject.keys
    );
    let checkpoints: Vec<_> = subject
        .checkpoints
        .iter()
        .map(|it| format!("{} records, root {}, state {}, chain {}", it.size, it.root, it.state, it.chain))
        .collect();
    section(&mut text, "Checkpoints", &checkpoints);
    let digests: Vec<_> =
        state_digests(records, payloads).iter().map(|(seq, it)| format!("{seq} {it}")).collect();
    section(&mut text, "State digests recorded", &digests);
    let with_payload = || records.iter().filter_map(|it| Some((it, *payloads.get(&it.header.seq)?)));
    let releases = with_payload().flat_map(|(known, payload)| {
        let header = &known.header;
        let line = |(of, what): (String, String)| {
            format!("{} {} {of} {what} {}", header.seq, moment(header.time), because(header))
        };
        in_force(known, payload).into_iter().map(line).collect::<Vec<_>>()
    });
    section(&mut text, "Releases in force", &releases.collect::<Vec<_>>());
    let touching = with_payload().map(|(known, _)| {
        let header = &known.header;
        let scopes: Vec<_> = header.scopes.iter().map(|scope| shown(scope)).collect();
        let scopes = if scopes.is_empty() { "-".to_owned() } else { scopes.join(" & ") };
        format!("{} {} {} {scopes} {}", header.seq, moment(header.time), shown(&header.kind), because(header))
    });
    section(&mut text, "Records that touch the scope", &touching.collect::<Vec<_>>());
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use stele_codec::encode_record;
    use stele_model::release::Revision;
    use stele_model::{Decision, Links};

    use super::*;
    use crate::pack::layout::Piece;

    #[test]
    fn times_are_dates_to_the_microsecond() {
        assert_eq!(moment(Time(0)), "1970-01-01T00:00:00.000000Z");
        assert_eq!(moment(Time(1_770_000_000_123_456)), "2026-02-02T02:40:00.123456Z");
        assert_eq!(moment(Time(951_782_400_000_000)), "2000-02-29T00:00:00.000000Z");
        assert_eq!(moment(Time(DATES_END - 1)), "9999-12-31T23:59:59.999999Z");
        assert_eq!(moment(Time(DATES_END)), "253402300800000000");
    }

    fn in_force_after(event: &Event) -> Vec<(String, String)> {
        let header = Header {
            seq: 1,
            time: Time(1),
            decision: Decision { first: 1, count: 1 },
            principal: "anna".parse().unwrap(),
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
        };
        let (stored, record) = encode_record(header, event).unwrap();
        let known = Known { header: record.header, leaf: Piece { at: 0, bytes: &stored.leaf } };
        in_force(&known, &stored.payload)
    }

    #[test]
    fn a_release_is_in_force_everywhere_or_in_a_place() {
        let app_env = || "shop/web@prod".parse().unwrap();
        let revision =
            || Revision { release: Digest::of(&[b"v1"]), config: None, secrets: stele_model::FlatMap::new() };
        let release = revision().release.to_string();
        let place = |text: &str| text.parse().unwrap();
        let pins = vec![
            (place("region:eu"), Some(Pin::Revision(revision()))),
            (place("node:us-1"), Some(Pin::Absent)),
            (place("node:us-2"), None),
        ];
        assert_eq!(
            in_force_after(&Event::PinsChanged { app_env: app_env(), pins }),
            [
                ("shop/web@prod,region:eu".to_owned(), release.clone()),
                ("shop/web@prod,node:us-1".to_owned(), "removed".to_owned()),
                ("shop/web@prod,node:us-2".to_owned(), "unpinned".to_owned()),
            ]
        );
        assert_eq!(
            in_force_after(&Event::TargetChanged { app_env: app_env(), revision: Some(revision()) }),
            [("shop/web@prod".to_owned(), release)]
        );
        assert_eq!(in_force_after(&Event::Unlatched { app_env: app_env() }), []);
    }

    #[test]
    fn no_text_passes_for_another_line() {
        assert_eq!(shown("shop/web@prod"), "shop/web@prod");
        assert_eq!(shown("a\nb \"c\""), "\"a\\nb \\\"c\\\"\"");
        assert_eq!(shown(""), "\"\"");
    }
}
