//! Many changes in one request, each as if it had been asked for alone.

use std::str::FromStr as _;

use axum::body::{Bytes, to_bytes};
use axum::http::header::{HeaderName, IF_MATCH};
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::IntoResponse as _;
use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use serde_json::value::RawValue;
use stele_api::ProblemKind;
use stele_api::limits::{BATCH_COMMANDS_MAX, BODY_BYTES_MAX};
use stele_api::routes::{Operation, ROUTES};
use stele_api::wire::{BatchAnswer, BatchRequest, BatchedAnswer, BatchedCommand};

use super::asked::{Asked, IDEMPOTENCY_KEY, REASON, REASON_SUBJECT};
use super::failure::Failure;
use super::{Answered, json};
use crate::handle::Handle;

pub(super) async fn batch(handle: &Handle, asked: &Asked) -> Answered {
    // Bodies stay as they came, for each is read by its own operation.
    let request: BatchRequest = serde_json::from_slice(asked.bytes())
        .map_err(|error| Failure::new(ProblemKind::Malformed, format!("this is no batch: {error}")))?;
    let count = request.commands.len();
    if count > BATCH_COMMANDS_MAX {
        return Err(Failure::new(
            ProblemKind::TooLarge,
            format!("{count} commands are too many for one batch; the limit is {BATCH_COMMANDS_MAX}"),
        ));
    }
    let commands = request.commands.into_iter().enumerate();
    let answers = join_all(commands.map(|(at, command)| one(handle, asked, at, command))).await;
    json(&BatchAnswer { answers: answers.into_iter().collect::<Result<_, _>>()? })
}

async fn one(
    handle: &Handle,
    asked: &Asked,
    at: usize,
    command: BatchedCommand,
) -> Result<BatchedAnswer, Failure> {
    let answered = match within(handle, asked, at, command) {
        Ok(within) => boxed(handle, within).await,
        Err(failure) => Err(failure),
    };
    let response = answered.unwrap_or_else(Failure::into_response);
    let status = response.status().as_u16();
    let failed = |why: String| Failure::new(ProblemKind::Internal, format!("cannot write the answer: {why}"));
    let body = to_bytes(response.into_body(), BODY_BYTES_MAX).await.map_err(|it| failed(it.to_string()))?;
    let text = String::from_utf8(body.into()).map_err(|error| failed(error.to_string()))?;
    let body = RawValue::from_string(text).map_err(|error| failed(error.to_string()))?;
    Ok(BatchedAnswer { status, body })
}

/// Boxed, because a batch is answered by what answers a batch.
fn boxed(handle: &Handle, asked: Asked) -> BoxFuture<'_, Answered> {
    super::answer(handle, asked).boxed()
}

/// The request that a command stands for.
fn within(handle: &Handle, asked: &Asked, at: usize, command: BatchedCommand) -> Result<Asked, Failure> {
    let BatchedCommand { method, path, body, idempotency_key, if_match } = command;
    // A query is no part of the path, and is refused as it is outside of a batch.
    let named = path.split('?').next().unwrap_or_default();
    let routes = ROUTES.iter().filter(|route| {
        // A batch in a batch would escape its bound, and who joins is no caller.
        route.is_write() && route.role.is_some() && route.operation != Operation::Batch
    });
    let mut found =
        routes.filter(|route| route.method.lowercase().eq_ignore_ascii_case(&method)).filter_map(|route| {
            let parts = route.parts_of(named)?;
            Some((route, parts))
        });
    let Some((route, parts)) = found.next() else {
        let detail = format!("commands.{at}: {method} {path} is no change that a batch can ask for");
        return Err(Failure::not_found(detail).with_next("see /v1/openapi.json"));
    };
    let uri = Uri::from_str(&path)
        .map_err(|error| Failure::new(ProblemKind::Malformed, format!("commands.{at}: path: {error}")))?;
    let mut headers = HeaderMap::new();
    let own = asked.headers.get(IDEMPOTENCY_KEY).and_then(|key| key.to_str().ok());
    if let Some(key) = idempotency_key.or_else(|| own.map(|key| format!("{key}/{at}"))) {
        headers.insert(IDEMPOTENCY_KEY, value(&key)?);
    }
    if let Some(seq) = if_match {
        headers.insert(IF_MATCH, HeaderValue::from(seq));
    }
    // Together: a reason that is to be sealed must never go on without whom it is sealed for.
    for name in [REASON, REASON_SUBJECT].map(HeaderName::from_static) {
        if let Some(value) = asked.headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    let body = body.map(|body| Bytes::from(Box::<str>::from(body).into_string())).unwrap_or_default();
    asked.within(handle, route, parts, uri, headers, body)
}

fn value(key: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(key)
        .map_err(|_| Failure::invalid("an idempotency_key is 1 to 128 visible ASCII characters"))
}
