//! Log lines of instances, fetched from their nodes.

use std::io;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse as _;
use futures::stream::{self, StreamExt as _};
use stele_api::ProblemKind;
use stele_api::limits::{LOG_TAIL_LINES_DEFAULT, LOG_TAIL_LINES_MAX};
use stele_api::wire::LogsQuery;
use stele_bus::ask::{Outcome, Question};
use stele_model::event::EnrolledNode;
use stele_model::{InstanceId, State};

use super::Answered;
use super::asked::{Asked, Caller};
use super::failure::Failure;
use super::limits::{LOGS_DEADLINE, LOGS_FOLLOW_INTERVAL, LOGS_FOLLOW_LINES, LOGS_FOLLOW_PATIENCE};
use crate::handle::Handle;

pub(super) async fn logs(handle: &Handle, asked: &Asked) -> Answered {
    let query: LogsQuery = asked.query()?;
    let tail = query.tail.unwrap_or(LOG_TAIL_LINES_DEFAULT);
    if tail > LOG_TAIL_LINES_MAX {
        return Err(Failure::invalid(format!(
            "tail: at most {LOG_TAIL_LINES_MAX} lines (LOG_TAIL_LINES_MAX)"
        )));
    }
    let node = node_of(&asked.state, &query.instance)?;
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
    if !query.follow {
        let lines = fetch(handle, &node, &query.instance, tail).await?;
        return Ok((headers, as_text(&lines)).into_response());
    }
    // More is looked at than shown, to find later what is new.
    let lines = fetch(handle, &node, &query.instance, tail.max(LOGS_FOLLOW_LINES)).await?;
    let first = as_text(&lines[lines.len().saturating_sub(tail as usize)..]);
    let (handle, caller) = (handle.clone(), asked.caller.clone());
    let follow = Follow { handle, caller, node, instance: query.instance, seen: lines };
    let all = stream::iter([Ok(Bytes::from(first))]).chain(stream::try_unfold(follow, next));
    Ok((headers, Body::from_stream(all)).into_response())
}

fn as_text(lines: &[String]) -> String {
    lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
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

async fn fetch(
    handle: &Handle,
    node: &EnrolledNode,
    instance: &InstanceId,
    lines: u32,
) -> Result<Vec<String>, Failure> {
    let question = Question::Logs { instance: instance.clone(), lines };
    let unavailable =
        |why: String| Failure::new(ProblemKind::Unavailable, format!("node {}: {why}", node.name));
    match handle.ask_node(node, question, LOGS_DEADLINE).await {
        Ok(Outcome::Logs { lines }) => Ok(lines),
        Ok(Outcome::Failed { why }) => Err(Failure::not_found(format!("node {}: {why}", node.name))),
        Ok(Outcome::Images { .. } | Outcome::Ports { .. }) => {
            Err(unavailable("it answered something else".to_owned()))
        }
        Err(error) => Err(unavailable(error.to_string())),
    }
}

struct Follow {
    handle: Handle,
    caller: Option<Caller>,
    node: EnrolledNode,
    instance: InstanceId,
    seen: Vec<String>,
}

/// The next new lines. The stream ends with its instance. It breaks off, so that whoever reads knows that this is no end,
/// when the node does not answer for too long, or the token is no longer believed.
async fn next(mut follow: Follow) -> io::Result<Option<(Bytes, Follow)>> {
    let mut heard = Instant::now();
    loop {
        tokio::time::sleep(LOGS_FOLLOW_INTERVAL).await;
        if !follow.caller.as_ref().is_some_and(|caller| caller.is_believed(&follow.handle)) {
            return Err(io::Error::other("the token is no longer believed"));
        }
        match fetch(&follow.handle, &follow.node, &follow.instance, LOGS_FOLLOW_LINES).await {
            Ok(lines) => {
                heard = Instant::now();
                let new = new_lines(&follow.seen, &lines);
                if !new.is_empty() {
                    let text = as_text(new);
                    follow.seen = lines;
                    return Ok(Some((Bytes::from(text), follow)));
                }
            }
            Err(_) if node_of(&follow.handle.published().state, &follow.instance).is_err() => {
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
fn new_lines<'a>(seen: &[String], lines: &'a [String]) -> &'a [String] {
    if lines.starts_with(seen) {
        return &lines[seen.len()..];
    }
    let overlap =
        (0..=seen.len().min(lines.len())).rev().find(|count| lines.starts_with(&seen[seen.len() - count..]));
    &lines[overlap.unwrap_or(0)..]
}

#[cfg(test)]
mod tests {
    use super::new_lines;

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
}
