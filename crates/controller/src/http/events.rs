//! The log: events by page and as a stream, and raw records for auditors.

use std::collections::BTreeSet;
use std::convert::Infallible;

use axum::http::header::ACCEPT;
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::stream::{self, Stream, StreamExt as _};
use stele_api::ProblemKind;
use stele_api::limits::{EVENTS_PAGE_DEFAULT, EVENTS_PAGE_MAX, RECORDS_PAGE_MAX};
use stele_api::wire::{EventsPage, EventsQuery, RawRecord, RecordsPage, RecordsQuery};
use stele_model::{Event, Header, PrincipalId, Record, Scope, Seq, State};

use super::asked::{Asked, Caller};
use super::failure::Failure;
use super::limits::{EVENTS_PAGE_BYTES_MAX, EVENTS_SCANNED_MAX, RECORDS_PER_SCAN, STREAM_KEEPALIVE};
use super::scopes::check_known;
use super::status::{point, point_seq};
use super::{Answered, json};
use crate::handle::Handle;

/// Which events are wanted.
#[derive(Clone)]
struct Filter {
    scope: Option<Scope>,
    kinds: Option<BTreeSet<String>>,
    principal: Option<PrincipalId>,
}

impl Filter {
    fn new(query: &EventsQuery) -> Result<Self, Failure> {
        let kinds: Option<BTreeSet<String>> =
            query.kind.as_ref().map(|text| text.split(',').map(|kind| kind.trim().to_owned()).collect());
        if let Some(unknown) = kinds.iter().flatten().find(|kind| !Event::KINDS.contains(&kind.as_str())) {
            return Err(Failure::new(
                ProblemKind::Malformed,
                format!("there is no kind of event {unknown:?}"),
            )
            .with_next(format!("one of: {}", Event::KINDS.join(", "))));
        }
        Ok(Self { scope: query.scope.clone(), kinds, principal: query.principal.clone() })
    }

    fn wants(&self, state: &State, header: &Header) -> bool {
        self.principal.as_ref().is_none_or(|principal| *principal == header.principal)
            && self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&header.kind))
            && self.scope.as_ref().is_none_or(|scope| touches(state, scope, &header.scopes))
    }
}

/// Whether a record that touches `touched` touches something in `scope`: one of its
/// scopes satisfies the part about apps, and one the part about nodes.
fn touches(state: &State, scope: &Scope, touched: &[String]) -> bool {
    let touched: Vec<Scope> = touched.iter().filter_map(|text| text.parse().ok()).collect();
    let names_app = scope.project.is_some() || scope.app.is_some() || scope.environment.is_some();
    let of_app = |it: &Scope| {
        let app_project = it.app.as_ref().map(|app| &app.project).or(it.project.as_ref());
        scope.project.as_ref().is_none_or(|project| app_project == Some(project))
            && scope.app.as_ref().is_none_or(|app| it.app.as_ref() == Some(app))
            // What is about an app in all environments is about it in this one.
            && scope.environment.as_ref().is_none_or(|environment| {
                it.environment.as_ref() == Some(environment) || (it.environment.is_none() && it.app.is_some() && scope.app.is_some())
            })
    };
    let of_node = |it: &Scope| {
        it.node.as_ref().is_some_and(|node| scope.covers_node(node, state.region_of(node)))
            || (it.region.is_some() && it.region == scope.region && scope.node.is_none())
    };
    (!names_app || touched.iter().any(of_app)) && (!scope.is_placed() || touched.iter().any(of_node))
}

/// Events after a seq: at most `wanted`, having looked at a bounded number of records up to `last`.
async fn scan(
    handle: &Handle,
    filter: &Filter,
    mut after: Seq,
    last: Seq,
    wanted: usize,
) -> Result<(Vec<Record>, Seq), Failure> {
    let state = handle.published().state;
    let mut events = Vec::new();
    let (mut scanned, mut bytes) = (0, 0);
    while after < last && events.len() < wanted && scanned < EVENTS_SCANNED_MAX {
        let count = RECORDS_PER_SCAN.min((last - after) as usize);
        // Of what nobody has any more, nobody waits for anything.
        if let Some(lost) = handle.lost_from(after + 1) {
            after = lost.min(last);
            continue;
        }
        let records = handle.records(after + 1, count).await?;
        for (seq, stored, _) in records {
            let damaged =
                |error: stele_codec::DecodeError| Failure::new(ProblemKind::Internal, error.to_string());
            if filter.wants(&state, &stored.header().map_err(damaged)?) {
                bytes += stored.payload.len();
                events.push(stored.decode().map_err(damaged)?);
            }
            after = seq;
            scanned += 1;
            if events.len() == wanted || bytes >= EVENTS_PAGE_BYTES_MAX {
                return Ok((events, after));
            }
        }
    }
    Ok((events, after))
}

/// After which record the events begin that are asked for.
async fn begin(handle: &Handle, state: &State, query: &EventsQuery) -> Result<Seq, Failure> {
    match (query.after, &query.since) {
        (Some(_), Some(_)) => Err(Failure::invalid("after, since: only one of them says where to begin")),
        (after, None) => Ok(after.unwrap_or(0)),
        (None, Some(since)) => {
            let scope = query.scope.clone().unwrap_or_default();
            Ok(handle.resolve_beginning(state, &scope, &point(since)?).await?)
        }
    }
}

pub(super) async fn events(handle: &Handle, asked: &Asked) -> Answered {
    let query: EventsQuery = asked.query()?;
    let filter = Filter::new(&query)?;
    if let Some(scope) = &query.scope {
        // Nodes go, and what is told of them stays; apps and environments stay known.
        check_known(&Scope { region: None, node: None, ..scope.clone() }, &[&asked.state])?;
    }
    let wants_stream = asked
        .headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/event-stream"));
    let resumed = asked.headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let after = match resumed {
        Some(text) => text.parse().map_err(|_| {
            Failure::new(ProblemKind::Malformed, format!("Last-Event-ID {text:?} is not a seq"))
        })?,
        None => begin(handle, &asked.state, &query).await?,
    };
    if wants_stream && query.at.is_some() {
        return Err(Failure::invalid("at: a stream goes on from now; only pages are of the past"));
    }
    if wants_stream {
        return Ok(stream_response(handle.clone(), filter, after, asked.caller.clone()));
    }
    let limit = query.limit.unwrap_or(EVENTS_PAGE_DEFAULT).clamp(1, EVENTS_PAGE_MAX);
    // What the linearizable read saw is there; more may be.
    let last = match &query.at {
        Some(at) => point_seq(handle, &asked.state, &query.scope.unwrap_or_default(), at).await?,
        None => asked.state.seq,
    };
    let (events, after) = scan(handle, &filter, after, last, limit).await?;
    json(&EventsPage { events, after, last })
}

fn stream_response(handle: Handle, filter: Filter, after: Seq, caller: Option<Caller>) -> Response {
    let keep_alive = KeepAlive::new().interval(STREAM_KEEPALIVE).text("still here");
    Sse::new(event_stream(handle, filter, after, caller)).keep_alive(keep_alive).into_response()
}

/// Never ends by itself; it breaks off when the token is no longer believed, or records cannot be read.
fn event_stream(
    handle: Handle,
    filter: Filter,
    after: Seq,
    caller: Option<Caller>,
) -> impl Stream<Item = Result<Sent, Infallible>> {
    let committed = handle.committed();
    let batches = stream::unfold(
        (handle, filter, after, committed),
        move |(handle, filter, mut after, mut committed)| {
            let caller = caller.clone();
            async move {
                loop {
                    let last = *committed.borrow_and_update();
                    if !caller.as_ref().is_some_and(|caller| caller.is_believed(&handle)) {
                        return None;
                    }
                    if after < last {
                        let (events, scanned) = match scan(&handle, &filter, after, last, EVENTS_PAGE_MAX)
                            .await
                        {
                            Ok(found) => found,
                            Err(failure) => {
                                tracing::warn!(problem = %failure.problem.detail, "an event stream breaks off");
                                return None;
                            }
                        };
                        after = scanned;
                        if !events.is_empty() {
                            return Some((stream::iter(events), (handle, filter, after, committed)));
                        }
                    } else if committed.changed().await.is_err() {
                        return None;
                    }
                }
            }
        },
    );
    batches.flatten().map(|record| {
        let sent = Sent::default().id(record.header.seq.to_string()).event(record.header.kind.clone());
        // A record is always representable as JSON; if ever not, its place in the stream is kept.
        Ok(sent.json_data(&record).unwrap_or_else(|error| {
            Sent::default().id(record.header.seq.to_string()).comment(error.to_string())
        }))
    })
}

pub(super) async fn records(handle: &Handle, asked: &Asked) -> Answered {
    let query: RecordsQuery = asked.query()?;
    let from = query.from.unwrap_or(1).max(1);
    let last = asked.state.seq;
    let limit = query.limit.unwrap_or(RECORDS_PAGE_MAX).clamp(1, RECORDS_PAGE_MAX);
    let records = if from > last { Vec::new() } else { handle.records(from, limit).await? };
    let records = records
        .into_iter()
        .filter(|(seq, ..)| *seq <= last)
        .map(|(seq, stored, _)| RawRecord {
            seq,
            leaf: STANDARD.encode(&stored.leaf),
            payload: STANDARD.encode(&stored.payload),
        })
        .collect();
    json(&RecordsPage { records, last })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hits(scope: &str, touched: &[&str]) -> bool {
        let touched: Vec<_> = touched.iter().map(|&text| text.to_owned()).collect();
        touches(&State::default(), &scope.parse().unwrap(), &touched)
    }

    #[test]
    fn events_are_found_by_what_they_touch() {
        assert!(hits("fleet", &[]));
        assert!(hits("shop/web@prod", &["node:eu-1", "shop/web@prod"]));
        assert!(hits("shop/web@prod", &["shop/web"]), "a release is of every environment");
        assert!(!hits("shop/web@prod", &["shop/web@dev"]));
        assert!(!hits("shop/web@prod", &["fleet", "env:prod", "node:eu-1"]));
        assert!(hits("project:shop", &["shop/web@prod"]));
        assert!(hits("env:prod", &["shop/web@prod"]));
        assert!(!hits("env:prod", &["shop/web"]));
        assert!(hits("node:eu-1", &["node:eu-1"]));
        assert!(!hits("node:eu-1", &["node:eu-2", "shop/web@prod"]));
        assert!(hits("shop/web@prod,node:eu-1", &["node:eu-1", "shop/web@prod"]));
        assert!(!hits("shop/web@prod,node:eu-1", &["node:eu-1", "shop/cart@prod"]));
    }
}
