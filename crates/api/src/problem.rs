//! Errors as RFC 9457 problem details, `application/problem+json`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stele_model::{Rejection, RejectionKind};

use crate::spec::{SpecError, SpecErrors};

/// The media type of a [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Why a request failed, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// A stable URI of the kind: `urn:stele:problem:` and the kind's word.
    #[serde(rename = "type")]
    pub kind: ProblemUri,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was wrong this time.
    pub detail: String,
    /// Identifies this occurrence: the trace it is logged under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// A command to copy that gets further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Everything that stood in the way, when it is more than one thing or has a place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<SpecError>,
}

/// A kind as a URI.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ProblemUri(pub String);

/// Kinds of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// The request cannot be read.
    Malformed,
    /// Nobody is logged in.
    Unauthenticated,
    /// The principal may not.
    Forbidden,
    /// It names something that does not exist.
    NotFound,
    /// The route does not know this method.
    MethodNotAllowed,
    /// The State does not allow it.
    Conflict,
    /// `If-Match` does not match.
    PreconditionFailed,
    /// The body is larger than the limit named.
    TooLarge,
    /// The body is of another type than JSON.
    UnsupportedMediaType,
    /// It makes no sense, whatever the State.
    Invalid,
    /// The idempotency key was used for another request.
    KeyReused,
    /// A queue is full: ask again later.
    Busy,
    /// A bug: the trace finds it in the logs.
    Internal,
    /// The change may or may not have happened; asking again with the same key is safe.
    OutcomeUnknown,
    /// No leader or no quorum.
    Unavailable,
}

const URI_PREFIX: &str = "urn:stele:problem:";

impl ProblemKind {
    const ALL: [Self; 15] = [
        Self::Malformed,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::PreconditionFailed,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::Invalid,
        Self::KeyReused,
        Self::Busy,
        Self::Internal,
        Self::OutcomeUnknown,
        Self::Unavailable,
    ];

    /// Its word, status and title.
    const fn parts(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::Malformed => ("malformed", 400, "The request cannot be read"),
            Self::Unauthenticated => ("unauthenticated", 401, "A valid token is needed"),
            Self::Forbidden => ("forbidden", 403, "Not allowed"),
            Self::NotFound => ("not_found", 404, "Not found"),
            Self::MethodNotAllowed => ("method_not_allowed", 405, "Another method is needed"),
            Self::Conflict => ("conflict", 409, "The present state does not allow it"),
            Self::PreconditionFailed => ("precondition_failed", 412, "It was changed in the meantime"),
            Self::TooLarge => ("too_large", 413, "Too large"),
            Self::UnsupportedMediaType => ("unsupported_media_type", 415, "The body must be JSON"),
            Self::Invalid => ("invalid", 422, "The request makes no sense"),
            Self::KeyReused => ("key_reused", 422, "The idempotency key was used for another request"),
            Self::Busy => ("busy", 429, "Too many requests at once"),
            Self::Internal => ("internal", 500, "Something is wrong with the controller"),
            Self::OutcomeUnknown => ("outcome_unknown", 503, "Whether it happened is not known"),
            Self::Unavailable => ("unavailable", 503, "No quorum of controllers"),
        }
    }

    /// The HTTP status.
    pub const fn status(self) -> u16 {
        self.parts().1
    }

    /// The stable URI.
    pub fn uri(self) -> ProblemUri {
        ProblemUri(format!("{URI_PREFIX}{}", self.parts().0))
    }
}

impl Problem {
    /// A problem of a kind.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        let (_, status, title) = kind.parts();
        Self {
            kind: kind.uri(),
            title: title.to_owned(),
            status,
            detail: detail.into(),
            instance: None,
            next: None,
            errors: Vec::new(),
        }
    }

    /// Adds the command that gets further.
    #[must_use]
    pub fn with_next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// Its kind, when this version knows it.
    pub fn known_kind(&self) -> Option<ProblemKind> {
        ProblemKind::ALL.into_iter().find(|kind| kind.uri() == self.kind)
    }
}

impl From<SpecErrors> for Problem {
    fn from(errors: SpecErrors) -> Self {
        let detail = match errors.errors.as_slice() {
            [_] => errors.to_string(),
            several => format!("{} things are wrong with the spec or request", several.len()),
        };
        Self { errors: errors.errors, ..Self::new(ProblemKind::Invalid, detail) }
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let kind = match rejection.kind {
            RejectionKind::Invalid => ProblemKind::Invalid,
            RejectionKind::NotFound => ProblemKind::NotFound,
            RejectionKind::Conflict => ProblemKind::Conflict,
            RejectionKind::Forbidden => ProblemKind::Forbidden,
            RejectionKind::Precondition => ProblemKind::PreconditionFailed,
            RejectionKind::KeyReused => ProblemKind::KeyReused,
            RejectionKind::TooLarge => ProblemKind::TooLarge,
        };
        let errors =
            rejection.details.into_iter().map(|detail| SpecError::new(String::new(), detail, None)).collect();
        Self { next: rejection.next, errors, ..Self::new(kind, rejection.message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_known_by_its_uri() {
        for kind in ProblemKind::ALL {
            let problem = Problem::new(kind, "x");
            assert_eq!(problem.known_kind(), Some(kind));
            assert_eq!(problem.status, kind.status());
        }
    }

    #[test]
    fn a_rejection_keeps_its_next_command() {
        let rejection = Rejection::new(RejectionKind::Conflict, "latched").with_next("stele unlatch a/b@c");
        let problem = Problem::from(rejection);
        assert_eq!((problem.status, problem.next.as_deref()), (409, Some("stele unlatch a/b@c")));
    }
}
