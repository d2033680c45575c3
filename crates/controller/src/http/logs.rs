//! Log lines of instances, fetched from their nodes.

use std::io;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::IntoResponse as _;
use futures::stream::{self, StreamExt as _};
use stele_api::ProblemKind;
use stele_api::limits::{LOG_TAIL_LINES_DEFAULT, LOG_TAIL_LINES_MAX};
use stele_api::routes::{JSON_LINES, LINES_LEFT_OUT};
use stele_api::wire::{LogLine, LogsQuery, Printed};
use stele_bus::ask::{Outcome, Question, Stamp};
use stele_model::event::EnrolledNode;
use stele_model::{InstanceId, Point, Rejection, RejectionKind, State, Time};

use super::Answered;
use super::asked::{Asked, Caller};
use super::failure::Failure;
use super::limits::{LOGS_DEADLINE, LOGS_FOLLOW_INTERVAL, LOGS_FOLLOW_LINES, LOGS_FOLLOW_PATIENCE};
use crate::handle::Handle;
use crate::when::wall_time;

pub(super) async fn logs(handle: &Handle, asked: &Asked) -> Answered {
    let query: LogsQuery = asked.query()?;
    let since_ms = query.since.as_deref().map(|text| since_ms(text, handle.now())).transpose()?;
    let wants_all = since_ms.is_some() && query.tail.is_none();
    let default = if wants_all { LOG_TAIL_LINES_MAX } else { LOG_TAIL_LINES_DEFAULT };
    let tail = query.tail.unwrap_or(default);
    if tail > LOG_TAIL_LINES_MAX {
        return Err(Failure::invalid(format!(
            "tail: at most {LOG_TAIL_LINES_MAX} lines (LOG_TAIL_LINES_MAX)"
        )));
    }
    let node = node_of(&asked.state, &query.instance)?;
    let form = Form::asked_for(&asked.headers);
    let of = Log { handle: handle.clone(), node, instance: query.instance, since_ms };
    if !query.follow {
        let fetched = of.fetch(tail).await?;
        return Ok(
            (headers(form, fetched.is_cut(tail, wants_all)), form.written(&fetched.lines)).into_response()
        );
    }
    // More is looked at than shown, to find later what is new.
    let fetched = of.fetch(tail.max(LOGS_FOLLOW_LINES)).await?;
    let headers = headers(form, fetched.is_cut(tail, wants_all));
    let seen = fetched.lines;
    let first = form.written(&seen[seen.len().saturating_sub(tail as usize)..]);
    let follow = Follow { of, caller: asked.caller.clone(), form, seen };
    let all = stream::iter([Ok(Bytes::from(first))]).chain(stream::try_unfold(follow, next));
    Ok((headers, Body::from_stream(all)).into_response())
}

/// Milliseconds since 1970.
fn since_ms(text: &str, now: Time) -> Result<u64, Failure> {
    let point = Point::since(text).map_err(|error| Failure::invalid(format!("since: {error}")))?;
    // That it cannot be is the question's fault, and no instance's that is not there.
    let time = wall_time(&point, now.0)
        .map_err(|rejection| Rejection { kind: RejectionKind::Invalid, ..rejection })?;
    Ok(time.unwrap_or(now).0 / 1000)
}

fn headers(form: Form, is_cut: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(form.media_type()));
    if is_cut {
        headers.insert(LINES_LEFT_OUT, HeaderValue::from_static("true"));
    }
    headers
}

/// How lines are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// As they were printed, and no more: all that clients of earlier versions understand.
    Text,
    /// With all that is known of each.
    JsonLines,
}

impl Form {
    fn asked_for(headers: &HeaderMap) -> Self {
        let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
        if accept.is_some_and(|accept| accept.contains(JSON_LINES)) { Self::JsonLines } else { Self::Text }
    }

    const fn media_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; charset=utf-8",
            Self::JsonLines => JSON_LINES,
        }
    }

    fn written(self, lines: &[LogLine]) -> String {
        let written = |it: &LogLine| match self {
            Self::Text => it.line.clone() + "\n",
            Self::JsonLines => serde_json::json!(it).to_string() + "\n",
        };
        lines.iter().map(written).collect()
    }
}

/// The node that runs an instance.
fn node_of(state: &State, instance: &InstanceId) -> Result<EnrolledNode, Failure> {
    let running = state.assigned_to(&instance.slot.app_env).find(|(_, id, _)| *id == instance);
    let reported = || state.observed.iter().find(|(_, observed)| observed.instances.contains_key(instance));
    let name = running.map(|(node, ..)| node).or_else(|| reported().map(|(node, _)| node));
    name.and_then(|name| state.control.nodes.get(name)).map(|node| node.as_ref().clone()).ok_or_else(|| {
        Failure::not_found(format!("no node runs an instance {instance}"))
            .with_next(format!("stele status {}", instance.slot.app_env))
    })
}

/// An instance's log, or the part of it that is asked for.
struct Log {
    handle: Handle,
    node: EnrolledNode,
    instance: InstanceId,
    since_ms: Option<u64>,
}

/// What a node says of a log.
struct Fetched {
    lines: Vec<LogLine>,
    /// Whether there are more, for which an answer has no room.
    is_cut: bool,
}

impl Fetched {
    /// Whether not all is there that was asked for. Whoever says how many lines has as many; whoever says since when
    /// alone may miss the older of them.
    fn is_cut(&self, tail: u32, wants_all: bool) -> bool {
        let is_full = self.lines.len() >= tail as usize;
        if wants_all { self.is_cut || is_full } else { self.is_cut && !is_full }
    }
}

impl Log {
    async fn fetch(&self, lines: u32) -> Result<Fetched, Failure> {
        let node = &self.node;
        let question = Question::Logs { instance: self.instance.clone(), lines, since_ms: self.since_ms };
        let unavailable =
            |why: String| Failure::new(ProblemKind::Unavailable, format!("node {}: {why}", node.name));
        match self.handle.ask_node(node, question, LOGS_DEADLINE).await {
            Ok(Outcome::Logs { lines, stamps, is_cut }) => {
                let lines = stamped(lines, &stamps, self.since_ms.is_some()).map_err(|why| {
                    Failure::not_found(format!("node {}: {why}", node.name))
                        .with_next(format!("stele logs {} --tail 1000", self.instance))
                });
                Ok(Fetched { lines: lines?, is_cut })
            }
            Ok(Outcome::Failed { why }) => Err(Failure::not_found(format!("node {}: {why}", node.name))),
            Ok(Outcome::Images { .. } | Outcome::Ports { .. }) => {
                Err(unavailable("it answered something else".to_owned()))
            }
            Err(error) => Err(unavailable(error.to_string())),
        }
    }
}

/// Lines with what is known of each: nothing, where the agent is of an earlier version. Such a one cannot leave out
/// lines by their time, and what it says is not passed off as all there is since then.
fn stamped(lines: Vec<String>, stamps: &[Stamp], must_be: bool) -> Result<Vec<LogLine>, &'static str> {
    if lines.len() != stamps.len() && (must_be || !stamps.is_empty()) {
        return Err("its agent is of another version, and does not say when each line was printed");
    }
    let line = |(at, line): (usize, String)| {
        let stamp = stamps.get(at);
        let time = stamp.and_then(|stamp| stamp.time_ms).map(|time| Time(time.saturating_mul(1000)));
        let stream = stamp.map(|stamp| if stamp.stderr { Printed::Stderr } else { Printed::Stdout });
        LogLine { time, stream, line }
    };
    Ok(lines.into_iter().enumerate().map(line).collect())
}

struct Follow {
    of: Log,
    caller: Option<Caller>,
    form: Form,
    seen: Vec<LogLine>,
}

/// The next new lines. The stream ends with its instance. It breaks off, so that whoever reads knows that this is no end,
/// when the node does not answer for too long, or the token is no longer believed.
async fn next(mut follow: Follow) -> io::Result<Option<(Bytes, Follow)>> {
    let mut heard = Instant::now();
    loop {
        tokio::time::sleep(LOGS_FOLLOW_INTERVAL).await;
        if !follow.caller.as_ref().is_some_and(|caller| caller.is_believed(&follow.of.handle)) {
            return Err(io::Error::other("the token is no longer believed"));
        }
        match follow.of.fetch(LOGS_FOLLOW_LINES).await {
            Ok(Fetched { lines, .. }) => {
                heard = Instant::now();
                let new = new_lines(&follow.seen, &lines);
                if !new.is_empty() {
                    let text = follow.form.written(new);
                    follow.seen = lines;
                    return Ok(Some((Bytes::from(text), follow)));
                }
            }
            Err(_) if node_of(&follow.of.handle.published().state, &follow.of.instance).is_err() => {
                return Ok(None);
            }
            Err(failure) if heard.elapsed() > LOGS_FOLLOW_PATIENCE => {
                tracing::warn!(problem = %failure.problem.detail, "a followed log breaks off");
                return Err(io::Error::other(failure.problem.detail.clone()));
            }
            Err(_) => {}
        }
    }
}

/// What was added since `seen`.
///
/// A log that only grew begins with what was seen. One that also lost its beginning,
/// because only so many lines are looked at, begins with an end of what was seen;
/// the longest is taken, so that a line is never sent twice.
fn new_lines<'a, T: PartialEq>(seen: &[T], lines: &'a [T]) -> &'a [T] {
    if lines.starts_with(seen) {
        return &lines[seen.len()..];
    }
    let overlap =
        (0..=seen.len().min(lines.len())).rev().find(|count| lines.starts_with(&seen[seen.len() - count..]));
    &lines[overlap.unwrap_or(0)..]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.chars().map(String::from).collect()
    }

    #[test]
    fn only_new_lines_are_followed() {
        let new = |seen: &str, now: &str| new_lines(&lines(seen), &lines(now)).concat();
        assert_eq!(new("", "abc"), "abc");
        assert_eq!(new("abc", "abc"), "");
        assert_eq!(new("abc", "abcde"), "de");
        assert_eq!(new("abc", "bcde"), "de", "the beginning has scrolled by");
        assert_eq!(new("abc", "xyz"), "xyz", "everything seen has scrolled by");
        assert_eq!(new("aa", "aaaa"), "aa", "repetitions are lines, too");
    }

    #[test]
    fn lines_are_sent_with_what_is_known_of_them() {
        let stamps = [(Some(1_500), true), (None, false)].map(Stamp::from);
        let known = stamped(lines("ab"), &stamps, true).unwrap();
        assert_eq!(Form::Text.written(&known), "a\nb\n");
        let sent = Form::JsonLines.written(&known);
        let read: Vec<LogLine> = sent.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, known);
        let (time, stream) = (Some(Time(1_500_000)), Some(Printed::Stderr));
        assert_eq!(read[0], LogLine { time, stream, line: "a".to_owned() });
        assert_eq!((read[1].time, read[1].stream), (None, Some(Printed::Stdout)));
    }

    #[test]
    fn what_is_left_out_is_said() {
        let fetched = |is_cut| Fetched { lines: stamped(lines("abc"), &[], false).unwrap(), is_cut };
        assert!(!fetched(false).is_cut(3, false), "three were asked for");
        assert!(!fetched(true).is_cut(2, false), "more is looked at than shown");
        assert!(fetched(true).is_cut(4, false));
        assert!(fetched(false).is_cut(3, true), "there may be more since then");
        assert!(!fetched(false).is_cut(4, true));
        let told = |is_cut| headers(Form::Text, is_cut).contains_key(LINES_LEFT_OUT);
        assert!(told(true) && !told(false));
    }

    #[test]
    fn an_agent_of_an_earlier_version_says_the_lines_alone() {
        let known = stamped(lines("ab"), &[], false).unwrap();
        assert_eq!(Form::Text.written(&known), "a\nb\n");
        assert!(known.iter().all(|line| line.time.is_none() && line.stream.is_none()), "{known:?}");
        assert!(stamped(lines("ab"), &[], true).is_err(), "it did not leave out what is older");
        assert!(stamped(Vec::new(), &[], true).unwrap().is_empty());
        assert!(stamped(lines("ab"), &[Stamp::from((None, true))], false).is_err(), "which one is it of?");
    }

    #[test]
    fn since_when_is_seen_from_now() {
        let now = Time(1_769_860_800_000_000);
        assert_eq!(since_ms("10m", now).unwrap(), 1_769_860_200_000);
        assert_eq!(since_ms("2026-01-31T11:00:00.25Z", now).unwrap(), 1_769_857_200_250);
        for bad in ["v3", "2027-01-31T11:00:00Z", "2026-01-41T11:00:00Z"] {
            let refused = since_ms(bad, now).unwrap_err();
            assert_eq!(refused.problem.known_kind(), Some(ProblemKind::Invalid), "{bad}");
        }
    }
}
