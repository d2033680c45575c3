//! The HTTP API: every route of [`stele_api::routes`] and nothing else.
//!
//! A request goes through the same steps whatever it asks: who asks, may they,
//! what exactly do they ask, and only then the operation itself.

mod asked;
mod batch;
mod changes;
mod cluster;
mod erasures;
mod events;
mod failure;
mod fleet;
mod fleet_problems;
mod history;
mod limits;
mod logs;
mod preflight;
mod problems;
mod proof;
mod reviews;
mod rollback;
mod scan;
mod scopes;
mod status;
mod undo;
mod untold;
mod what_if;
mod why;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodFilter, on};
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use serde_json::value::{RawValue, to_raw_value};
use stele_api::ProblemKind;
use stele_api::routes::{Method, Operation, ROUTES, Route};

use crate::handle::Handle;
use asked::Asked;
use failure::Failure;

/// What every handler answers.
type Answered = Result<Response, Failure>;

/// Serves the API over a handle. Exactly [`ROUTES`] are served.
pub fn router(handle: Handle) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let handle = handle.clone();
        let serve = move |request: Request| serve(handle.clone(), route, request);
        router = router.route(route.path, on(filter(route.method), serve));
    }
    // With its state, so that axum prepares every route once and not for each connection.
    router.fallback(unknown_path).method_not_allowed_fallback(unknown_method).with_state(())
}

const fn filter(method: Method) -> MethodFilter {
    match method {
        Method::Get => MethodFilter::GET,
        Method::Post => MethodFilter::POST,
        Method::Put => MethodFilter::PUT,
        Method::Delete => MethodFilter::DELETE,
    }
}

async fn unknown_path(request: Request) -> Response {
    let paths = ROUTES.iter().map(|route| route.path);
    let detail = match stele_api::spec::nearest(request.uri().path(), paths) {
        Some(meant) => format!("there is no {}; did you mean {meant}?", request.uri().path()),
        None => format!("there is no {}; see /v1/openapi.json", request.uri().path()),
    };
    Failure::new(ProblemKind::NotFound, detail).into_response()
}

async fn unknown_method(request: Request) -> Response {
    let detail = format!("{} does not take {}; see /v1/openapi.json", request.uri().path(), request.method());
    Failure::new(ProblemKind::MethodNotAllowed, detail).into_response()
}

async fn serve(handle: Handle, route: &'static Route, request: Request) -> Response {
    let trace = asked::trace_of(request.headers());
    let answered = match handle.proofs().diverged() {
        // It is about to stop; until then it says nothing that could be wrong.
        Some(why) => Err(Failure::new(ProblemKind::Unavailable, why)),
        None => match Asked::receive(&handle, route, request, trace.clone()).await {
            Ok(asked) => answer(&handle, asked).await,
            Err(failure) => Err(failure),
        },
    };
    let mut response = match answered {
        Ok(response) => response,
        Err(failure) => {
            let failure = failure.with_trace(&trace);
            if failure.problem.status >= 500 {
                tracing::warn!(%trace, path = route.path, problem = %failure.problem.detail, "request failed");
            }
            failure.into_response()
        }
    };
    // Answers are about a moment, and some hold secrets shown once.
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn answer(handle: &Handle, asked: Asked) -> Answered {
    let principal = asked.caller.as_ref().map(|caller| caller.principal.clone());
    let operation = asked.route.operation;
    // Boxed one by one: a request, and each command of a batch, takes the memory of its own operation, not of
    // the largest.
    let answer: BoxFuture<'_, Answered> = match operation {
        Operation::Health => ready(cluster::health(handle)).boxed(),
        Operation::OpenApi => ready(Ok(axum::Json(stele_api::openapi::document()).into_response())).boxed(),
        Operation::AppSchema => ready(Ok(axum::Json(stele_api::spec::json_schema()).into_response())).boxed(),
        Operation::Apply => changes::apply(handle, &asked).boxed(),
        Operation::Batch => batch::batch(handle, &asked).boxed(),
        Operation::Deploy => changes::deploy(handle, &asked).boxed(),
        Operation::Deployment => status::deployment(handle, &asked).boxed(),
        Operation::Remove => changes::remove(handle, &asked).boxed(),
        Operation::Status => status::status(handle, &asked).boxed(),
        Operation::Convergence => status::convergence(handle, &asked).boxed(),
        Operation::History => history::history(handle, &asked).boxed(),
        Operation::Events => events::events(handle, &asked).boxed(),
        Operation::Records => events::records(handle, &asked).boxed(),
        Operation::Show => history::show(handle, &asked).boxed(),
        Operation::Diff => history::diff_points(handle, &asked).boxed(),
        Operation::Rollback => rollback::rollback(handle, &asked).boxed(),
        Operation::RollbackCandidates => rollback::candidates(handle, &asked).boxed(),
        Operation::Undo => undo::undo(handle, &asked).boxed(),
        Operation::WhatIf => what_if::what_if(handle, &asked).boxed(),
        Operation::Why => why::explain(handle, &asked).boxed(),
        Operation::MarkPoint => reviews::mark(handle, &asked).boxed(),
        Operation::Reviews => reviews::owed(handle, &asked).boxed(),
        Operation::Review => reviews::review(handle, &asked).boxed(),
        Operation::Erase => erasures::erase(handle, &asked).boxed(),
        Operation::Erasures => erasures::erased(handle, &asked).boxed(),
        Operation::Reason => erasures::reason(handle, &asked).boxed(),
        Operation::Unlatch => changes::unlatch(handle, &asked).boxed(),
        Operation::SetConfig => changes::set_config(handle, &asked).boxed(),
        Operation::SetSecret => changes::set_secret(handle, &asked).boxed(),
        Operation::Logs => logs::logs(handle, &asked).boxed(),
        Operation::CreateNodeToken => fleet::create_node_token(handle, &asked).boxed(),
        Operation::Nodes => fleet::nodes(handle, &asked).boxed(),
        Operation::Node => fleet::node(handle, &asked).boxed(),
        Operation::LabelNode => fleet::label_node(handle, &asked).boxed(),
        Operation::RemoveNode => fleet::remove_node(handle, &asked).boxed(),
        Operation::DrainNode => fleet::drain_node(handle, &asked).boxed(),
        Operation::ResumeNode => fleet::resume_node(handle, &asked).boxed(),
        Operation::Join => fleet::join(handle, &asked).boxed(),
        Operation::CreateToken => fleet::create_token(handle, &asked).boxed(),
        Operation::Tokens => fleet::tokens(handle, &asked).boxed(),
        Operation::RevokeToken => fleet::revoke_token(handle, &asked).boxed(),
        Operation::Checkpoint => ready(proof::checkpoint(handle, &asked)).boxed(),
        Operation::InclusionProof => proof::inclusion(handle, &asked).boxed(),
        Operation::ConsistencyProof => proof::consistency(handle, &asked).boxed(),
        Operation::LogCheckpoint => ready(proof::log_checkpoint(handle)).boxed(),
        Operation::LogTile => proof::log_tile(handle, &asked).boxed(),
        Operation::Cluster => cluster::cluster(handle, &asked).boxed(),
        Operation::AddMember => cluster::add_member(handle, &asked).boxed(),
        Operation::RemoveMember => cluster::remove_member(handle, &asked).boxed(),
        Operation::TransferLeader => cluster::transfer_leader(handle, &asked).boxed(),
    };
    let answered = answer.await;
    // Who may not, and what the present state forbids (a latch, say): both are asked about later.
    let refused = [ProblemKind::Forbidden.status(), ProblemKind::Conflict.status()];
    if let (Err(failure), Some(principal)) = (&answered, principal)
        && refused.contains(&failure.problem.status)
    {
        asked::record_refusal(handle, principal, operation, asked.target(), &failure.problem);
    }
    answered
}

/// Begins work on a thread of its own at once; waits for it where it is awaited.
fn beside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Result<T, Failure>> {
    let working = tokio::task::spawn_blocking(work);
    async { working.await.map_err(|error| Failure::new(ProblemKind::Internal, error.to_string())) }
}

/// Answers with JSON.
fn json<T: serde::Serialize>(value: &T) -> Answered {
    let bytes = serde_json::to_vec(value).map_err(unwritable)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response())
}

/// A part of an answer, as it will be sent.
fn written<T: serde::Serialize>(value: &T) -> Result<Box<RawValue>, Failure> {
    to_raw_value(value).map_err(unwritable)
}

fn unwritable(error: serde_json::Error) -> Failure {
    Failure::new(ProblemKind::Internal, format!("cannot write the answer: {error}"))
}
