//! HTTP to the controllers: several addresses, one idempotency key per write, bounded patience.

use std::io::{BufRead as _, BufReader, Read};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use stele_api::{Problem, ProblemKind};
use ureq::http::{HeaderMap, HeaderValue, Method, Request, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, BodyReader};

use crate::context::Context;
use crate::exit::Failure;
use crate::limits::{
    ALIVE_TIMEOUT, ANSWER_BYTES_MAX, CONNECT_TIMEOUT, KEY_BYTES, REQUEST_TIMEOUT, RETRY_DEADLINE,
    RETRY_PAUSE_MAX, RETRY_PAUSE_MIN,
};

/// Where a system keeps the authorities it trusts, when `SSL_CERT_FILE` does not say.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Talks to one fleet.
pub(crate) struct Client {
    addresses: Vec<String>,
    token: Option<String>,
    agent: Agent,
    /// Which of them answered last.
    answered: AtomicUsize,
}

/// Lines as they come.
pub(crate) struct Stream {
    /// Whether they are of a form that was asked for: a controller of an earlier version may know another alone.
    pub(crate) is_as_asked: bool,
    pub(crate) headers: HeaderMap,
    reader: BufReader<BodyReader<'static>>,
}

impl Stream {
    pub(crate) fn lines(self) -> impl Iterator<Item = std::io::Result<String>> + Send {
        self.reader.lines()
    }
}

/// None of the addresses.
const NOBODY: usize = usize::MAX;

/// A write's headers.
#[derive(Default)]
pub(crate) struct Conditions {
    /// Chosen by the caller; else a new one.
    pub(crate) idempotency_key: Option<String>,
    /// The scope must have last changed at this seq.
    pub(crate) if_match: Option<u64>,
    /// For whom the reason is sealed.
    pub(crate) reason_subject: Option<String>,
}

/// One attempt's end.
enum Attempt {
    /// An answer, good or bad.
    Answered(Response<Body>),
    /// No answer; `sent` when the request may have arrived.
    Silent { why: String, sent: bool },
}

/// An address as it is asked: with its scheme, and without a slash at its end.
pub(crate) fn origin(address: &str) -> String {
    with_scheme(address.trim().trim_end_matches('/'))
}

/// A token as it is sent: without what surrounds it in a file or a variable, none when nothing is left.
/// Refused are characters that no token has, without repeating them: it may be one all the same.
pub(crate) fn bearer(token: &str) -> Result<Option<String>, Failure> {
    let token = token.trim();
    let is_of_tokens = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    if token.bytes().all(is_of_tokens) {
        return Ok((!token.is_empty()).then(|| token.to_owned()));
    }
    Err(Failure::Usage(
        "the token has characters that no token has: nothing was sent\n  next: give it as stele token create printed \
         it, with STELE_TOKEN, --token or stele login --token-stdin"
            .to_owned(),
    ))
}

/// An address without a scheme: in clear on this machine alone, because a token goes with it.
fn with_scheme(address: &str) -> String {
    if address.contains("://") {
        return address.to_owned();
    }
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|host| host.is_loopback());
    if is_here { format!("http://{address}") } else { format!("https://{address}") }
}

impl Client {
    pub(crate) fn new(context: &Context) -> Result<Self, Failure> {
        let addresses: Vec<_> = context.addresses.iter().map(|address| origin(address)).collect();
        let token = context.token.as_deref().map(bearer).transpose()?.flatten();
        if addresses.is_empty() {
            return Err(Failure::Usage("no controller's address is known".to_owned()));
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .user_agent(concat!("stele/", env!("CARGO_PKG_VERSION")));
        if addresses.iter().any(|address| address.starts_with("https://")) {
            let roots = match &context.tls_root {
                Some(pem) => read_roots(pem.as_bytes(), "the context's tls_root")?,
                None => system_roots()?,
            };
            config = config.tls_config(
                TlsConfig::builder()
                    .root_certs(RootCerts::Specific(Arc::new(roots)))
                    .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
                    .build(),
            );
        }
        Ok(Self { addresses, token, agent: config.build().new_agent(), answered: AtomicUsize::new(NOBODY) })
    }

    /// Reads.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let response = self.patiently(&Method::GET, path, &[], None, Some(REQUEST_TIMEOUT))?;
        read_answer(response)
    }

    /// Reads bytes: no more than so many, within so long.
    pub(crate) fn bytes(&self, path: &str, bytes_max: u64, timeout: Duration) -> Result<Vec<u8>, Failure> {
        let response = check_status(self.patiently(&Method::GET, path, &[], None, Some(timeout))?)?;
        let mut bytes = Vec::new();
        let mut reader = response.into_body().into_with_config().limit(bytes_max).reader();
        reader
            .read_to_end(&mut bytes)
            .map_err(|error| Failure::Unreachable(format!("the answer cannot be read: {error}")))?;
        Ok(bytes)
    }

    /// Opens a stream of lines.
    pub(crate) fn stream(&self, path: &str, accept: &str) -> Result<Stream, Failure> {
        let headers = [("accept", accept.to_owned())];
        let response = self.patiently(&Method::GET, path, &headers, None, None)?;
        let response = check_status(response)?;
        let is_as_asked = response.body().mime_type().is_some_and(|it| accept.contains(it));
        let (head, body) = response.into_parts();
        let reader = BufReader::new(body.into_with_config().limit(u64::MAX).reader());
        Ok(Stream { is_as_asked, headers: head.headers, reader })
    }

    /// Changes. Repeated under one key until it is answered, or the deadline passes.
    pub(crate) fn write<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        conditions: &Conditions,
    ) -> Result<T, Failure> {
        let body = body
            .map(serde_json::to_vec)
            .transpose()
            .map_err(|error| Failure::Failed(format!("cannot write the request: {error}")))?;
        let key = match &conditions.idempotency_key {
            Some(key) => key.clone(),
            None => new_key()?,
        };
        let mut headers = vec![("idempotency-key", key)];
        if let Some(seq) = conditions.if_match {
            headers.push(("if-match", format!("\"{seq}\"")));
        }
        if let Some(subject) = &conditions.reason_subject {
            headers.push(("x-stele-reason-subject", subject.clone()));
        }
        if let Some((name, value)) = headers.iter().find(|(_, value)| HeaderValue::from_str(value).is_err()) {
            return Err(Failure::Usage(format!("{value:?} has characters that cannot be sent as {name}")));
        }
        let response = self.patiently(&method, path, &headers, body.as_deref(), Some(REQUEST_TIMEOUT))?;
        read_answer(response)
    }

    /// Asks controller after controller, and again, while there is hope.
    fn patiently(
        &self,
        method: &Method,
        path: &str,
        headers: &[(&str, String)],
        body: Option<&[u8]>,
        timeout: Option<Duration>,
    ) -> Result<Response<Body>, Failure> {
        let deadline = Instant::now() + RETRY_DEADLINE;
        let mut pause = RETRY_PAUSE_MIN;
        let mut may_have_happened = false;
        loop {
            let mut unanswered = Vec::new();
            let mut refused_for_now = None;
            for at in self.order() {
                let address = &self.addresses[at];
                match self.once(address, method, path, headers, body, timeout) {
                    Attempt::Answered(response) if is_for_now(response.status().as_u16()) => {
                        may_have_happened |= method != Method::GET;
                        refused_for_now = Some(response);
                    }
                    Attempt::Answered(response) => {
                        self.answered.store(at, Ordering::Relaxed);
                        return Ok(response);
                    }
                    Attempt::Silent { why, sent } => {
                        self.answered.store(NOBODY, Ordering::Relaxed);
                        may_have_happened |= sent && method != Method::GET;
                        unanswered.push(format!("{address}: {why}"));
                    }
                }
            }
            let hopeless = refused_for_now.is_none() && !may_have_happened;
            if hopeless || Instant::now() + pause > deadline {
                return match refused_for_now {
                    Some(response) => Ok(response),
                    None => Err(unreachable(&unanswered, may_have_happened)),
                };
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    /// In which order controllers are asked: from the one on that answered last; else as they are given, but last those
    /// that do not even say within a moment that they are there.
    fn order(&self) -> Vec<usize> {
        let count = self.addresses.len();
        let answered = self.answered.load(Ordering::Relaxed);
        let mut order: Vec<usize> = (0..count).collect();
        if answered < count {
            order.rotate_left(answered);
        } else if count > 1 {
            let silent = order.iter().take_while(|at| self.is_silent(&self.addresses[**at])).count();
            order.rotate_left(silent);
        }
        order
    }

    fn is_silent(&self, address: &str) -> bool {
        let request = Request::builder().method(Method::GET).uri(format!("{address}/v1/health")).body(());
        let Ok(request) = request else { return false };
        // Read to its end, so that what is asked next goes over the same connection.
        let answer = self.run(request, Some(ALIVE_TIMEOUT));
        let answer = answer.and_then(|response| response.into_body().into_with_config().read_to_vec());
        matches!(answer, Err(ureq::Error::Timeout(_)))
    }

    fn once(
        &self,
        address: &str,
        method: &Method,
        path: &str,
        headers: &[(&str, String)],
        body: Option<&[u8]>,
        timeout: Option<Duration>,
    ) -> Attempt {
        let mut request = Request::builder().method(method.clone()).uri(format!("{address}{path}"));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let result = match body {
            Some(body) => match request.header("content-type", "application/json").body(body) {
                Ok(request) => self.run(request, timeout),
                Err(error) => return Attempt::Silent { why: error.to_string(), sent: false },
            },
            None => match request.body(()) {
                Ok(request) => self.run(request, timeout),
                Err(error) => return Attempt::Silent { why: error.to_string(), sent: false },
            },
        };
        match result {
            Ok(response) => Attempt::Answered(response),
            Err(error) => Attempt::Silent { sent: !is_before_sending(&error), why: explain(&error) },
        }
    }

    fn run(
        &self,
        request: Request<impl ureq::AsSendBody>,
        timeout: Option<Duration>,
    ) -> Result<Response<Body>, ureq::Error> {
        let request = self
            .agent
            .configure_request(request)
            .allow_non_standard_methods(true)
            .timeout_global(timeout)
            .build();
        self.agent.run(request)
    }
}

/// Percent-encodes a part of a path or a query value.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.extend(['%', hex_digit(byte >> 4), hex_digit(byte & 15)]);
        }
    }
    out
}

fn hex_digit(nibble: u8) -> char {
    char::from(b"0123456789ABCDEF"[usize::from(nibble)])
}

/// A path with the query parameters that are there.
pub(crate) fn with_query(path: &str, parameters: &[(&str, Option<String>)]) -> String {
    let query: Vec<_> = parameters
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", encode(value.as_ref()?))))
        .collect();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}

fn new_key() -> Result<String, Failure> {
    let mut bytes = [0; KEY_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| Failure::Failed(format!("no random numbers: {error}")))?;
    Ok(hex::encode(bytes))
}

/// Statuses that another controller, or a later moment, may not give.
const fn is_for_now(status: u16) -> bool {
    matches!(status, 429 | 502..=504)
}

/// Whether the request surely did not arrive.
fn is_before_sending(error: &ureq::Error) -> bool {
    use std::io::ErrorKind;
    match error {
        ureq::Error::Io(error) => matches!(
            error.kind(),
            ErrorKind::ConnectionRefused
                | ErrorKind::AddrNotAvailable
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
        ),
        ureq::Error::Timeout(timeout) => matches!(timeout, ureq::Timeout::Connect | ureq::Timeout::Resolve),
        ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::BadUri(_)
        | ureq::Error::Tls(_)
        | ureq::Error::Rustls(_) => true,
        _ => false,
    }
}

fn explain(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

fn unreachable(unanswered: &[String], may_have_happened: bool) -> Failure {
    let mut message = "no controller answered".to_owned();
    for line in unanswered {
        message.push_str("\n  - ");
        message.push_str(line);
    }
    if may_have_happened {
        message.push_str("\n  whether it happened is not known; see: stele events --follow");
    }
    Failure::Unreachable(message)
}

fn check_status(response: Response<Body>) -> Result<Response<Body>, Failure> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    let mut text = Vec::new();
    response.into_body().into_with_config().limit(ANSWER_BYTES_MAX).reader().read_to_end(&mut text)?;
    if let Ok(problem) = serde_json::from_slice::<Problem>(&text) {
        return Err(problem.into());
    }
    // Something in between answered, not a controller.
    let kind = if status.is_client_error() { ProblemKind::Malformed } else { ProblemKind::Unavailable };
    let text = String::from_utf8_lossy(&text);
    Err(Problem::new(kind, format!("{status}: {}", text.lines().next().unwrap_or_default())).into())
}

fn read_answer<T: DeserializeOwned>(response: Response<Body>) -> Result<T, Failure> {
    let response = check_status(response)?;
    response
        .into_body()
        .into_with_config()
        .limit(ANSWER_BYTES_MAX)
        .read_json()
        .map_err(|error| Failure::Unreachable(format!("the answer cannot be read: {error}")))
}

fn read_roots(pem: &[u8], source: &str) -> Result<Vec<Certificate<'static>>, Failure> {
    let roots: Vec<_> = parse_pem(pem)
        .filter_map(|item| match item {
            Ok(ureq::tls::PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if roots.is_empty() { Err(Failure::Usage(format!("{source} holds no certificate"))) } else { Ok(roots) }
}

fn system_roots() -> Result<Vec<Certificate<'static>>, Failure> {
    let path = std::env::var("SSL_CERT_FILE")
        .ok()
        .or_else(|| {
            SYSTEM_ROOTS.into_iter().find(|path| std::path::Path::new(path).exists()).map(str::to_owned)
        })
        .ok_or_else(|| {
            Failure::Usage(
                "https needs authorities to trust: set SSL_CERT_FILE, or log in with --tls-root".to_owned(),
            )
        })?;
    let pem = std::fs::read(&path).map_err(|error| Failure::Usage(format!("cannot read {path}: {error}")))?;
    read_roots(&pem, &path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_cross_no_network_in_clear_by_default() {
        assert_eq!(with_scheme("127.0.0.1:7400"), "http://127.0.0.1:7400");
        assert_eq!(with_scheme("localhost:7400"), "http://localhost:7400");
        assert_eq!(with_scheme("10.0.0.1:7400"), "https://10.0.0.1:7400");
        assert_eq!(with_scheme("stele.example.com"), "https://stele.example.com");
        assert_eq!(with_scheme("http://10.0.0.1:7400"), "http://10.0.0.1:7400");
    }

    #[test]
    fn tokens_are_sent_as_they_were_made_or_not_at_all() {
        let token = format!("stele_{}", "0f".repeat(32));
        for surrounded in [token.clone(), format!("{token}\n"), format!("  {token}\r\n")] {
            assert!(bearer(&surrounded).is_ok_and(|it| it.as_ref() == Some(&token)), "{surrounded:?}");
        }
        assert!(bearer(" \n").is_ok_and(|it| it.is_none()));
        for nonsense in ["stele_ä", "stele_0f\nx-evil: 1", "two words", "stele_\u{200b}0f"] {
            let Err(Failure::Usage(why)) = bearer(nonsense) else { panic!("{nonsense:?} is no token") };
            assert!(!why.contains(nonsense), "it is told to whoever reads the error: {why}");
        }
    }

    #[test]
    fn queries_are_encoded() {
        let path =
            with_query("/v1/status", &[("scope", Some("shop/web@prod,region:eu".into())), ("at", None)]);
        assert_eq!(path, "/v1/status?scope=shop%2Fweb%40prod%2Cregion%3Aeu");
        assert_eq!(with_query("/v1/nodes", &[("at", None)]), "/v1/nodes");
    }
}
