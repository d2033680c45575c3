//! A request, received: who asks, what, under which conditions.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts as _, Path, Query, Request};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, IF_MATCH};
use axum::http::{HeaderMap, Uri};
use futures::StreamExt as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use stele_api::limits::BODY_BYTES_MAX;
use stele_api::routes::{Operation, Route};
use stele_api::wire::ReadConsistency;
use stele_api::{Problem, ProblemKind};
use stele_model::event::Role;
use stele_model::limits::{REASON_BYTES_MAX, SUBJECT_BYTES_MAX};
use stele_model::{
    Answer, Command, Digest, Idempotency, Links, PrincipalId, RejectionKind, Request as Submission, Scope,
    Seq, State, Value, is_subject,
};
use stele_proof::tile::{TileKind, TilePath};

use super::failure::Failure;
use super::limits::{
    APPLY_DEADLINE, BODY_DEADLINE, BODY_DRAINED_FACTOR, STRANGERS_BODY_BYTES_MAX, TARGET_BYTES_MAX,
};
use crate::handle::{Consistency, Handle, SubmitError};
use crate::keyring::random;
use crate::serving::Place;

/// Under which a request may be repeated.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Why, for the log.
pub(super) const REASON: &str = "x-stele-reason";
/// For whom that is sealed.
pub(super) const REASON_SUBJECT: &str = "x-stele-reason-subject";

/// Who asks, as authenticated by a bearer token.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) principal: PrincipalId,
    pub(super) role: Role,
    /// Of the token shown: another token of the same principal is another matter.
    pub(super) token: Digest,
}

impl Caller {
    /// Whether the token is still believed, for answers that take long.
    pub(super) fn is_believed(&self, handle: &Handle) -> bool {
        let control = handle.published().state.control;
        let token = control.tokens.get(&self.principal);
        token.is_some_and(|token| token.hash == self.token && token.expires > handle.now())
    }
}

/// Everything about a request.
pub(super) struct Asked {
    pub(super) route: &'static Route,
    /// Absent where no token is needed.
    pub(super) caller: Option<Caller>,
    /// State as fresh as was asked for; for changes, what this controller knows.
    pub(super) state: Arc<State>,
    pub(super) headers: HeaderMap,
    path: BTreeMap<String, String>,
    uri: Uri,
    body: Bytes,
    trace: String,
}

/// Why a change is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Why {
    pub(super) reason: Option<String>,
    pub(super) links: Links,
}

/// What a body says it is about, whatever else it says.
#[derive(Deserialize)]
struct Target {
    app_env: Option<String>,
    scope: Option<String>,
}

/// The caller's trace id (W3C), or a new one.
pub(super) fn trace_of(headers: &HeaderMap) -> String {
    let given = headers.get("traceparent").and_then(|value| value.to_str().ok()).and_then(|text| {
        let trace = text.split('-').nth(1)?;
        let is_id = trace.len() == 32 && trace.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (is_id && trace.bytes().any(|byte| byte != b'0')).then(|| trace.to_owned())
    });
    // Without randomness, a request is served all the same.
    given.unwrap_or_else(|| random::<16>().map_or_else(|_| "1".repeat(32), hex::encode))
}

impl Asked {
    /// Authenticates, authorizes and reads a request.
    pub(super) async fn receive(
        handle: &Handle,
        route: &'static Route,
        request: Request,
        trace: String,
    ) -> Result<Self, Failure> {
        let (mut parts, body) = request.into_parts();
        let Path(path) = Path::<BTreeMap<String, String>>::from_request_parts(&mut parts, &())
            .await
            .map_err(|error| Failure::new(ProblemKind::Malformed, error.body_text()))?;
        let is_open = route.role.is_none() || is_public(handle, route, &parts.uri, &parts.headers);
        let (state, caller) = if is_open {
            (handle.published().state, None)
        } else {
            // Who shows nothing has no controller asked what is newest.
            bearer(&parts.headers)?;
            let state = fresh_enough(handle, route, &parts.uri).await?;
            let (state, caller) = authenticate(handle, state, &parts.headers).await?;
            (state, Some(caller))
        };
        // Strangers are turned away before their bodies are read.
        let most = if caller.is_some() { BODY_BYTES_MAX } else { STRANGERS_BODY_BYTES_MAX };
        if let Some(place) = parts.extensions.get::<Place>().filter(|_| caller.is_some()) {
            place.keep();
        }
        let body = read_body(&parts.headers, body, most).await?;
        check_query(route, &parts.uri)?;
        let headers = parts.headers;
        let state = Arc::new(state);
        let asked = Self { route, caller, state, headers, path, uri: parts.uri, body, trace };
        asked.authorize(handle)?;
        Ok(asked)
    }

    /// A request within this one, by the same caller, as if it had been made alone.
    pub(super) fn within(
        &self,
        handle: &Handle,
        route: &'static Route,
        path: BTreeMap<String, String>,
        uri: Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Self, Failure> {
        check_query(route, &uri)?;
        let (caller, state, trace) = (self.caller.clone(), Arc::clone(&self.state), self.trace.clone());
        let asked = Self { route, caller, state, headers, path, uri, body, trace };
        asked.authorize(handle)?;
        Ok(asked)
    }

    /// The body as it came.
    pub(super) fn bytes(&self) -> &Bytes {
        &self.body
    }

    /// Whether the caller's role suffices. What the State adds to that is decided by the model.
    fn authorize(&self, handle: &Handle) -> Result<(), Failure> {
        let (Some(caller), Some(needed)) = (&self.caller, self.route.role) else { return Ok(()) };
        if allows(caller.role, needed) {
            return Ok(());
        }
        let failure = forbidden(caller, needed);
        record_refusal(
            handle,
            caller.principal.clone(),
            self.route.operation,
            self.target(),
            &failure.problem,
        );
        Err(failure)
    }

    /// A part of the path.
    pub(super) fn path<T: std::str::FromStr<Err: std::fmt::Display>>(
        &self,
        name: &str,
    ) -> Result<T, Failure> {
        let text = self.path.get(name).map_or("", String::as_str);
        text.parse().map_err(|error| Failure::invalid(format!("{name} in the path: {error}")))
    }

    /// The query's parameters.
    pub(super) fn query<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        match Query::<T>::try_from_uri(&self.uri) {
            Ok(Query(query)) => Ok(query),
            Err(error) => Err(Failure::invalid(error.body_text())),
        }
    }

    /// The body.
    pub(super) fn body<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        Ok(stele_api::spec::parse_json(&self.body)?)
    }

    /// The body, where it may be left out.
    pub(super) fn body_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Failure> {
        if self.body.is_empty() { Ok(T::default()) } else { self.body() }
    }

    /// What it is about, for the record of a refusal.
    pub(super) fn target(&self) -> Option<String> {
        let path: Vec<_> = self.path.values().cloned().collect();
        let target = if path.is_empty() {
            let target: Target = serde_json::from_slice(&self.body).ok()?;
            target.app_env.or(target.scope)?
        } else {
            path.join("/")
        };
        // It goes into a record's header, so whoever is refused must not choose its size.
        (target.len() <= TARGET_BYTES_MAX).then_some(target)
    }

    /// Under which key it may be repeated.
    fn idempotency_key(&self) -> Result<Option<String>, Failure> {
        let Some(key) = self.headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
        let key = key.to_str().ok().filter(|key| !key.is_empty());
        match key {
            Some(key) => Ok(Some(key.to_owned())),
            None => Err(Failure::invalid("an Idempotency-Key is 1 to 128 visible ASCII characters")),
        }
    }

    /// What tells it from others under the same key.
    fn parts(&self) -> [&[u8]; 7] {
        [
            self.route.method.lowercase().as_bytes(),
            &[0],
            self.uri.path_and_query().map_or("", |it| it.as_str()).as_bytes(),
            &[0],
            self.headers.get(IF_MATCH).map_or(&[][..], |value| value.as_bytes()),
            &[0],
            &self.body,
        ]
    }

    async fn idempotency(&self, handle: &Handle) -> Result<Option<Idempotency>, Failure> {
        let Some((key, caller)) = self.idempotency_key()?.zip(self.caller.as_ref()) else { return Ok(None) };
        let name = (caller.principal.clone(), key);
        // What is asked again has the digest that it had.
        if let Some(before) = self.state.history.answered.get(&name)
            && handle.is_request(&before.request, &self.parts()).await?
        {
            return Ok(Some(Idempotency { key: name.1, request: before.request }));
        }
        let request = handle.request_digest(&self.parts()).await.map_err(|error| {
            Failure::new(ProblemKind::Unavailable, format!("a repetition could not be told now: {error}"))
                .with_next(super::failure::CLUSTER_STATUS)
        })?;
        Ok(Some(Idempotency { key: name.1, request }))
    }

    /// The answer given to the same request before, as far as this controller knows.
    pub(super) async fn answered_before(&self, handle: &Handle) -> Result<Option<Answer>, Failure> {
        self.answered_in(handle, &self.state).await
    }

    /// The answer given to the same request before, as far as a State knows.
    pub(super) async fn answered_in(
        &self,
        handle: &Handle,
        state: &State,
    ) -> Result<Option<Answer>, Failure> {
        let Some((key, caller)) = self.idempotency_key()?.zip(self.caller.as_ref()) else { return Ok(None) };
        let Some(before) = state.history.answered.get(&(caller.principal.clone(), key)) else {
            return Ok(None);
        };
        let is_same = handle.is_request(&before.request, &self.parts()).await?;
        Ok(is_same.then(|| before.answer.clone()))
    }

    /// The seq a scope's target must have last changed at.
    fn if_match(&self) -> Result<Option<Seq>, Failure> {
        let Some(value) = self.headers.get(IF_MATCH) else { return Ok(None) };
        let text = value.to_str().unwrap_or_default().trim().trim_start_matches("W/").trim_matches('"');
        text.parse().map(Some).map_err(|_| {
            Failure::new(
                ProblemKind::Malformed,
                "If-Match is the seq that last changed the scope, such as \"142\"",
            )
        })
    }

    /// A command with everything that is logged about its asking.
    pub(super) async fn submission(
        &self,
        handle: &Handle,
        command: Command,
        scope: Option<Scope>,
        why: Why,
    ) -> Result<Submission, Failure> {
        let caller = self
            .caller
            .as_ref()
            .ok_or_else(|| Failure::new(ProblemKind::Internal, "a change was asked for by nobody"))?;
        let if_match = match (self.if_match()?, scope) {
            (Some(seq), Some(scope)) => Some((scope, seq)),
            (Some(_), None) => {
                return Err(Failure::invalid("If-Match is about a target, and this request changes none"));
            }
            (None, _) => None,
        };
        Ok(Submission {
            principal: caller.principal.clone(),
            command,
            idempotency: self.idempotency(handle).await?,
            trace: Some(self.trace.clone()),
            cause: None,
            reason: self.reason(handle, why.reason).await?,
            links: why.links,
            if_match,
        })
    }

    /// Why a change is asked for, as it will stand in the log for ever: in clear, or sealed for a subject.
    async fn reason(&self, handle: &Handle, of_body: Option<String>) -> Result<Option<Value>, Failure> {
        let of_header = self.headers.get(REASON).map(|value| value.to_str()).transpose().map_err(|_| {
            Failure::invalid(format!("{REASON} is ASCII text, as headers are"))
                .with_next("write it as the body's `reason`, which takes any text")
        })?;
        let reason = of_body.or_else(|| of_header.map(str::to_owned));
        let Some(subject) = self.headers.get(REASON_SUBJECT) else { return Ok(reason.map(Value::Plain)) };
        let Some(reason) = reason else {
            return Err(Failure::invalid("a reason's subject was given, but no reason"));
        };
        if reason.len() > REASON_BYTES_MAX {
            return Err(Failure::new(
                ProblemKind::TooLarge,
                format!("the reason is longer than {REASON_BYTES_MAX} bytes (REASON_BYTES_MAX)"),
            ));
        }
        match subject.to_str() {
            Ok(subject) if is_subject(subject) => {
                Ok(Some(Value::Sealed(Box::pin(handle.seal(subject, &reason)).await?)))
            }
            Ok(_) | Err(_) => Err(Failure::invalid(format!(
                "a reason's subject is 1 to {SUBJECT_BYTES_MAX} bytes of ASCII text, such as customer:4711"
            ))),
        }
    }

    /// Refuses what is said for a record where none is written in the caller's name, rather than to drop it.
    pub(super) fn refuse_why(&self, why: &Why) -> Result<(), Failure> {
        let is_said = why.reason.is_some() || why.links != Links::default();
        let headers = [HeaderName::from_static(REASON), HeaderName::from_static(REASON_SUBJECT), IF_MATCH];
        if !is_said && !headers.iter().any(|name| self.headers.contains_key(name)) {
            return Ok(());
        }
        Err(Failure::invalid(
            "nothing is logged of this that a reason or links could stand in, and it has no condition",
        )
        .with_next("repeat it without a reason, links and If-Match"))
    }

    /// Has a command decided; the answer comes once this controller knows of it, too.
    pub(super) async fn submit(
        &self,
        handle: &Handle,
        command: Command,
        scope: Option<Scope>,
        why: Why,
    ) -> Result<Answer, Failure> {
        self.submit_as_is(handle, self.submission(handle, command, scope, why).await?).await
    }

    /// The same for a submission that was made before.
    pub(super) async fn submit_as_is(
        &self,
        handle: &Handle,
        submission: Submission,
    ) -> Result<Answer, Failure> {
        let answer = match handle.submit(submission).await {
            Err(SubmitError::Rejected(rejection)) if rejection.kind == RejectionKind::KeyReused => {
                // A repetition that this controller did not know for one may have had another digest.
                let state = handle.read(Consistency::Linearizable).await?;
                Box::pin(self.answered_in(handle, &state)).await?.ok_or(rejection)?
            }
            answered => answered?,
        };
        if let Some(decision) = answer.decision {
            wait_until_known(handle, decision.last()).await;
        }
        Ok(answer)
    }
}

/// Refuses options of a change that stand where nobody looks: `?plan=true` must not carry it out.
fn check_query(route: &Route, uri: &Uri) -> Result<(), Failure> {
    if !route.is_write() || uri.query().unwrap_or_default().is_empty() {
        return Ok(());
    }
    let detail = format!("{} takes no query: options of a change belong in its body", route.path);
    Err(Failure::invalid(detail).with_next("see /v1/openapi.json"))
}

/// Lets whoever made a change read it here right afterwards. It is committed either way.
async fn wait_until_known(handle: &Handle, seq: Seq) {
    let mut watch = handle.watch();
    // On the leader it is known by the time that it is answered.
    if watch.borrow().state.seq >= seq {
        return;
    }
    let known = watch.wait_for(|published| published.state.seq >= seq);
    if !matches!(Box::pin(tokio::time::timeout(APPLY_DEADLINE, known)).await, Ok(Ok(_))) {
        tracing::debug!(seq, "a change was answered before this controller applied it");
    }
}

/// State for a request: reads are linearizable unless they say they need not be.
async fn fresh_enough(handle: &Handle, route: &Route, uri: &Uri) -> Result<State, Failure> {
    #[derive(Deserialize, Default)]
    struct Freshness {
        #[serde(default)]
        consistency: ReadConsistency,
    }
    let consistency = match Query::<Freshness>::try_from_uri(uri) {
        // Whoever changes something is told by the leader, whatever is known here.
        _ if route.is_write() => Consistency::Stale,
        // What this controller signed and proves stays true, whatever the others know.
        _ if route.is_of_one_controller() => Consistency::Stale,
        Ok(Query(Freshness { consistency: ReadConsistency::Stale })) => Consistency::Stale,
        // A malformed query is for the operation to complain about.
        Ok(_) | Err(_) => Consistency::Linearizable,
    };
    Ok(handle.read(consistency).await?)
}

/// Whether a stranger may read it: hashes of the tree and what is signed of them, where that is wanted.
fn is_public(handle: &Handle, route: &Route, uri: &Uri, headers: &HeaderMap) -> bool {
    let of_tree = match route.operation {
        Operation::LogCheckpoint => true,
        Operation::LogTile => {
            let path = uri.path().trim_start_matches("/log/").parse::<TilePath>();
            path.is_ok_and(|path| matches!(path.kind, TileKind::Hashes(_)))
        }
        _ => false,
    };
    of_tree && handle.0.public_tree && !headers.contains_key(AUTHORIZATION)
}

/// The hash of the token that a request shows.
fn bearer(headers: &HeaderMap) -> Result<Digest, Failure> {
    let text = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = text
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let (_, token) = token.ok_or_else(|| unauthenticated("no bearer token was given"))?;
    Ok(Digest::of(&[token.trim().as_bytes()]))
}

async fn authenticate(
    handle: &Handle,
    state: State,
    headers: &HeaderMap,
) -> Result<(State, Caller), Failure> {
    let hash = bearer(headers)?;
    if let Some(caller) = caller_of(handle, &state, &hash)? {
        return Ok((state, caller));
    }
    // It may have been made a moment ago, at another controller. Where nobody can say, it is not
    // refused: the same token may be good in a moment.
    let state = handle.read(Consistency::Linearizable).await?;
    if state.control.fleet.is_none() {
        return Err(Failure::new(ProblemKind::Unavailable, "the fleet is being founded")
            .with_next("try again in a moment"));
    }
    match caller_of(handle, &state, &hash)? {
        Some(caller) => Ok((state, caller)),
        None => Err(unauthenticated("the token is not known, or was revoked")),
    }
}

fn caller_of(handle: &Handle, state: &State, hash: &Digest) -> Result<Option<Caller>, Failure> {
    let Some(principal) = state.control.bearers.get(hash) else { return Ok(None) };
    let Some(token) = state.control.tokens.get(principal).filter(|token| token.hash == *hash) else {
        return Ok(None);
    };
    if token.expires <= handle.now() {
        return Err(unauthenticated(&format!("the token of {principal} has expired")));
    }
    Ok(Some(Caller { principal: principal.clone(), role: token.role, token: token.hash }))
}

fn unauthenticated(detail: &str) -> Failure {
    Failure::new(ProblemKind::Unauthenticated, detail).with_next("stele login --addr URL")
}

fn allows(role: Role, needed: Role) -> bool {
    match needed {
        Role::Auditor => true,
        Role::Deployer => role != Role::Auditor,
        Role::Admin => role == Role::Admin,
    }
}

fn forbidden(caller: &Caller, needed: Role) -> Failure {
    let word = |role: Role| format!("{role:?}").to_lowercase();
    let detail =
        format!("{} is {}; this needs the role {}", caller.principal, word(caller.role), word(needed));
    Failure::new(ProblemKind::Forbidden, detail)
}

async fn read_body(headers: &HeaderMap, body: Body, most: usize) -> Result<Bytes, Failure> {
    let bytes = match tokio::time::timeout(BODY_DEADLINE, collect(body, most)).await {
        Ok(Ok(Some(bytes))) => bytes,
        Ok(Ok(None)) => {
            let limit = if most == BODY_BYTES_MAX { "BODY_BYTES_MAX" } else { "STRANGERS_BODY_BYTES_MAX" };
            let detail = format!("the body is larger than {limit}, {most} bytes");
            return Err(Failure::new(ProblemKind::TooLarge, detail));
        }
        Ok(Err(error)) => {
            return Err(Failure::new(ProblemKind::Malformed, format!("the body broke off: {error}")));
        }
        Err(_) => return Err(Failure::new(ProblemKind::Malformed, "the body did not arrive in time")),
    };
    let is_json = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_none_or(|text| text.split(';').next().unwrap_or_default().trim().ends_with("json"));
    if !bytes.is_empty() && !is_json {
        return Err(Failure::new(ProblemKind::UnsupportedMediaType, "send JSON, as application/json"));
    }
    Ok(bytes)
}

/// The body; `None` when it is too large. Somewhat more than that is read and dropped, because
/// a client that is still sending when the connection closes never sees the answer.
async fn collect(body: Body, most: usize) -> Result<Option<Bytes>, axum::Error> {
    let mut stream = body.into_data_stream();
    let mut collected = Vec::new();
    let mut length = 0;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        length += chunk.len();
        if length > BODY_DRAINED_FACTOR * most {
            return Ok(None);
        }
        if length <= most {
            collected.extend_from_slice(&chunk);
        }
    }
    Ok((length <= most).then(|| collected.into()))
}

/// Refusals are facts: who tried what, when. The model bounds how many are logged.
pub(super) fn record_refusal(
    handle: &Handle,
    principal: PrincipalId,
    operation: Operation,
    target: Option<String>,
    problem: &Problem,
) {
    let command = Command::RecordRefusal {
        action: format!("{operation:?}"),
        scope: target.unwrap_or_else(|| "fleet".to_owned()),
        why: problem.detail.clone(),
    };
    let request = Submission { principal, ..stele_ledger::system_request(command) };
    let handle = handle.clone();
    tokio::spawn(async move {
        if let Err(error) = handle.submit(request).await {
            tracing::warn!(%error, "a refusal could not be logged");
        }
    });
}
