//! Failures as RFC 9457 problems.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use stele_api::problem::PROBLEM_JSON;
use stele_api::spec::SpecErrors;
use stele_api::{Problem, ProblemKind};
use stele_model::Rejection;

use super::limits::RETRY_AFTER_SECONDS;
use crate::handle::{ReadError, SubmitError};
use crate::keyring::KeyringError;
use crate::past::PastError;

/// What shows why nobody leads, also without a quorum.
pub(super) const CLUSTER_STATUS: &str = "stele cluster status --stale";

/// What a failed request is answered.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) problem: Box<Problem>,
}

impl Failure {
    pub(super) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Problem::new(kind, detail).into()
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(ProblemKind::NotFound, detail)
    }

    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(ProblemKind::Invalid, detail)
    }

    pub(super) fn with_next(mut self, next: impl Into<String>) -> Self {
        self.problem.next = Some(next.into());
        self
    }

    pub(super) fn with_trace(mut self, trace: &str) -> Self {
        self.problem.instance = Some(format!("urn:trace:{trace}"));
        self
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self { problem: Box::new(problem) }
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        Problem::from(rejection).into()
    }
}

impl From<SpecErrors> for Failure {
    fn from(errors: SpecErrors) -> Self {
        Problem::from(errors).into()
    }
}

impl From<SubmitError> for Failure {
    fn from(error: SubmitError) -> Self {
        let message = error.to_string();
        match error {
            SubmitError::Rejected(rejection) => rejection.into(),
            SubmitError::OutcomeUnknown => Self::new(ProblemKind::OutcomeUnknown, message)
                .with_next("repeat the request with the same Idempotency-Key"),
            SubmitError::Unavailable => {
                Self::new(ProblemKind::Unavailable, message).with_next(CLUSTER_STATUS)
            }
            SubmitError::Busy => Self::new(ProblemKind::Busy, message),
            SubmitError::Past(_) => Self::new(ProblemKind::Unavailable, message),
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        let message = error.to_string();
        match error {
            ReadError::Unavailable => Self::new(ProblemKind::Unavailable, message).with_next(CLUSTER_STATUS),
            ReadError::Past(PastError::Missing(_)) => Self::new(ProblemKind::Unavailable, message),
            ReadError::Past(_) | ReadError::Failed(_) => Self::new(ProblemKind::Internal, message),
            ReadError::Rejected(rejection) => rejection.into(),
        }
    }
}

impl From<KeyringError> for Failure {
    fn from(error: KeyringError) -> Self {
        let kind = match error {
            KeyringError::Minority(_) => ProblemKind::Unavailable,
            _ => ProblemKind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.problem).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
        let headers = response.headers_mut();
        match status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"stele\""));
            }
            _ => {}
        }
        response
    }
}
