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
mod history;
mod limits;
mod logs;
mod preflight;
mod proof;
mod reviews;
mod rollback;
mod scan;
mod scopes;
mod status;
mod undo;
mod what_if;
mod why;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodFilter, on};
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
    let (operation, target) = (asked.route.operation, asked.target());
    let answered = match operation {
        Operation::Health => cluster::health(handle),
        Operation::OpenApi => Ok(axum::Json(stele_api::openapi::document()).into_response()),
        Operation::AppSchema => Ok(axum::Json(stele_api::spec::json_schema()).into_response()),
        Operation::Apply => changes::apply(handle, &asked).await,
        Operation::Batch => batch::batch(handle, &asked).await,
        Operation::Deploy => changes::deploy(handle, &asked).await,
        Operation::Deployment => status::deployment(handle, &asked).await,
        Operation::Remove => changes::remove(handle, &asked).await,
        Operation::Status => status::status(handle, &asked).await,
        Operation::Convergence => status::convergence(handle, &asked).await,
        Operation::History => history::history(handle, &asked).await,
        Operation::Events => events::events(handle, &asked).await,
        Operation::Records => events::records(handle, &asked).await,
        Operation::Show => history::show(handle, &asked).await,
        Operation::Diff => history::diff_points(handle, &asked).await,
        Operation::Rollback => rollback::rollback(handle, &asked).await,
        Operation::RollbackCandidates => rollback::candidates(handle, &asked).await,
        Operation::Undo => undo::undo(handle, &asked).await,
        Operation::WhatIf => what_if::what_if(handle, &asked).await,
        Operation::Why => why::explain(handle, &asked).await,
        Operation::MarkPoint => reviews::mark(handle, &asked).await,
        Operation::Reviews => reviews::owed(handle, &asked).await,
        Operation::Review => reviews::review(handle, &asked).await,
        Operation::Erase => erasures::erase(handle, &asked).await,
        Operation::Erasures => erasures::erased(handle, &asked).await,
        Operation::Reason => erasures::reason(handle, &asked).await,
        Operation::Unlatch => changes::unlatch(handle, &asked).await,
        Operation::SetConfig => changes::set_config(handle, &asked).await,
        Operation::SetSecret => changes::set_secret(handle, &asked).await,
        Operation::Logs => logs::logs(handle, &asked).await,
        Operation::CreateNodeToken => fleet::create_node_token(handle, &asked).await,
        Operation::Nodes => fleet::nodes(handle, &asked).await,
        Operation::Node => fleet::node(handle, &asked).await,
        Operation::LabelNode => fleet::label_node(handle, &asked).await,
        Operation::RemoveNode => fleet::remove_node(handle, &asked).await,
        Operation::Join => fleet::join(handle, &asked).await,
        Operation::CreateToken => fleet::create_token(handle, &asked).await,
        Operation::Tokens => fleet::tokens(handle, &asked).await,
        Operation::RevokeToken => fleet::revoke_token(handle, &asked).await,
        Operation::Checkpoint => proof::checkpoint(handle, &asked),
        Operation::InclusionProof => proof::inclusion(handle, &asked).await,
        Operation::ConsistencyProof => proof::consistency(handle, &asked).await,
        Operation::LogCheckpoint => proof::log_checkpoint(handle),
        Operation::LogTile => proof::log_tile(handle, &asked).await,
        Operation::Cluster => cluster::cluster(handle, &asked).await,
        Operation::AddMember => cluster::add_member(handle, &asked).await,
        Operation::RemoveMember => cluster::remove_member(handle, &asked).await,
        Operation::TransferLeader => cluster::transfer_leader(handle, &asked).await,
    };
    // Who may not, and what the present state forbids (a latch, say): both are asked about later.
    let refused = [ProblemKind::Forbidden.status(), ProblemKind::Conflict.status()];
    if let (Err(failure), Some(principal)) = (&answered, principal)
        && refused.contains(&failure.problem.status)
    {
        asked::record_refusal(handle, principal, operation, target, &failure.problem);
    }
    answered
}

/// Answers with JSON.
fn json<T: serde::Serialize>(value: &T) -> Answered {
    match serde_json::to_vec(value) {
        Ok(bytes) => Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response()),
        Err(error) => Err(Failure::new(ProblemKind::Internal, format!("cannot write the answer: {error}"))),
    }
}
