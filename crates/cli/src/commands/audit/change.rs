//! What an auditor counts as a change, and its row.

use serde::Serialize;
use stele_model::decide::SYSTEM;
use stele_model::{Digest, Header, Seq, Time, Value};

/// What stands in place of a reason that only who has its key can read.
const SEALED: &str = "(sealed)";
/// Between scopes in one cell.
const BETWEEN_SCOPES: &str = " & ";

/// Kinds of records that say who may decide, or ask for, anything. They are changes whoever wrote them:
/// some, such as the first token, are the controllers' own because there is nobody else yet.
const WHO_MAY: [&str; 7] = [
    "fleet_created",
    "controller_certified",
    "controller_removed",
    "membership_changed",
    "fleet_recovered",
    "token_created",
    "token_revoked",
];

/// Whether something was changed with this record. Told from the header alone, so that whoever has
/// only headers can count again: it is not the controllers' own (unless they acted for somebody, such
/// as a node that joins, or it is about who may do what), and no refusal, which changes nothing.
pub(super) fn is_change(header: &Header) -> bool {
    let kind = header.kind.as_str();
    let is_own = header.principal.as_str() == SYSTEM && header.links.on_behalf_of.is_none();
    kind != "refused" && (!is_own || WHO_MAY.contains(&kind))
}

/// One change.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Change {
    seq: Seq,
    time: String,
    kind: String,
    scopes: Vec<String>,
    principal: String,
    on_behalf_of: Option<String>,
    reason: Option<String>,
    ticket: Option<String>,
    commit: Option<String>,
    ci_run: Option<String>,
    decision_first: Seq,
    decision_count: u32,
    cause: Option<Seq>,
    trace: Option<String>,
    payload: Digest,
    pub(super) leaf_hash: Digest,
}

impl Change {
    /// The columns, in the order of [`Self::cells`].
    pub(super) const COLUMNS: [&'static str; 16] = [
        "seq",
        "time",
        "kind",
        "scopes",
        "principal",
        "on_behalf_of",
        "reason",
        "ticket",
        "commit",
        "ci_run",
        "decision_first",
        "decision_count",
        "cause",
        "trace",
        "payload",
        "leaf_hash",
    ];

    pub(super) fn new(header: Header, leaf_hash: Digest) -> Self {
        let reason = header.reason.map(|reason| match reason {
            Value::Plain(text) => text,
            Value::Sealed(_) => SEALED.to_owned(),
        });
        let links = header.links;
        Self {
            seq: header.seq,
            time: moment(header.time),
            kind: header.kind,
            scopes: header.scopes,
            principal: header.principal.to_string(),
            on_behalf_of: links.on_behalf_of.map(|whom| whom.to_string()),
            reason,
            ticket: links.ticket,
            commit: links.commit,
            ci_run: links.ci_run,
            decision_first: header.decision.first,
            decision_count: header.decision.count,
            cause: header.cause,
            trace: header.trace,
            payload: header.payload,
            leaf_hash,
        }
    }

    pub(super) fn cells(&self) -> [String; 16] {
        let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
        [
            self.seq.to_string(),
            self.time.clone(),
            self.kind.clone(),
            self.scopes.join(BETWEEN_SCOPES),
            self.principal.clone(),
            or_empty(&self.on_behalf_of),
            or_empty(&self.reason),
            or_empty(&self.ticket),
            or_empty(&self.commit),
            or_empty(&self.ci_run),
            self.decision_first.to_string(),
            self.decision_count.to_string(),
            self.cause.map(|seq| seq.to_string()).unwrap_or_default(),
            or_empty(&self.trace),
            self.payload.to_string(),
            self.leaf_hash.to_string(),
        ]
    }

    /// The command with which anybody proves that the record is in the log.
    pub(super) fn proof(&self) -> String {
        format!("stele proof inclusion {}", self.seq)
    }
}

/// Log time to the microsecond, in UTC: no two records share one.
pub(super) fn moment(time: Time) -> String {
    i64::try_from(time.0).ok().and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok()).map_or_else(
        || time.0.to_string(),
        |timestamp| timestamp.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use stele_model::{Decision, Links};

    fn header(kind: &str, principal: &str, on_behalf_of: Option<&str>) -> Header {
        Header {
            seq: 7,
            time: Time(1_770_000_000_123_456),
            decision: Decision { first: 6, count: 2 },
            principal: principal.parse().unwrap(),
            cause: Some(5),
            trace: None,
            idempotency: None,
            kind: kind.to_owned(),
            schema: 1,
            codec: 1,
            scopes: vec!["node:eu-1".to_owned(), "shop/web@prod".to_owned()],
            reason: Some(Value::Plain("=cmd()".to_owned())),
            links: Links { on_behalf_of: on_behalf_of.map(|whom| whom.parse().unwrap()), ..Links::default() },
            payload: Digest::EMPTY,
        }
    }

    #[test]
    fn changes_are_what_somebody_did() {
        assert!(is_change(&header("target_changed", "anna", None)));
        assert!(is_change(&header("node_enrolled", "system", Some("eu-1"))), "a node that joined");
        assert!(is_change(&header("token_created", "system", None)), "the first token is nobody's");
        assert!(!is_change(&header("placement_changed", "system", None)), "what controllers made of it");
        assert!(!is_change(&header("refused", "anna", None)), "a refusal changes nothing");
    }

    #[test]
    fn a_row_has_a_cell_for_every_column() {
        let change = Change::new(header("target_changed", "anna", Some("bob")), Digest::of(&[b"leaf"]));
        let cells = change.cells();
        let cell = |name: &str| {
            let at = Change::COLUMNS.iter().position(|column| *column == name).unwrap();
            cells[at].as_str()
        };
        assert_eq!((cell("seq"), cell("time")), ("7", "2026-02-02T02:40:00.123456Z"));
        assert_eq!((cell("scopes"), cell("on_behalf_of")), ("node:eu-1 & shop/web@prod", "bob"));
        assert_eq!((cell("decision_first"), cell("decision_count"), cell("cause")), ("6", "2", "5"));
        assert_eq!((cell("reason"), cell("trace")), ("=cmd()", ""));
        // Programs read the same names.
        let json = serde_json::to_value(&change).unwrap();
        let mut names: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let mut columns = Change::COLUMNS;
        names.sort_unstable();
        columns.sort_unstable();
        assert_eq!(names, columns);
    }
}
