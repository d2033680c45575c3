//! HTTP to one controller: one request, one answer, nothing repeated behind one's back.

use std::fmt;
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::Agent;
use ureq::http::{Method, Request};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::limits::{ANSWER_BYTES_MAX, CONNECT_TIMEOUT, REQUEST_TIMEOUT};

/// Talks to one controller as one principal.
#[derive(Clone, Debug)]
pub struct Client {
    base: String,
    token: Option<String>,
    agent: Agent,
    timeout: Duration,
}

/// What a controller said.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP's status.
    pub status: u16,
    /// The body, `null` unless it is JSON.
    pub body: Value,
    /// The body as it came.
    pub bytes: Vec<u8>,
    /// When all of it was here, and not read as JSON yet.
    pub received: Instant,
}

/// There was no answer; whether the request arrived is not known.
#[derive(Clone, Debug)]
pub struct Unanswered(String);

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer: {}", self.0)
    }
}

impl std::error::Error for Unanswered {}

impl Answer {
    /// The body of a successful answer.
    pub fn ok<T: DeserializeOwned>(self) -> anyhow::Result<T> {
        ensure!((200..300).contains(&self.status), "HTTP {}: {}", self.status, self.body);
        serde_json::from_value(self.body).context("the answer is of another form")
    }

    /// What a problem says.
    pub fn detail(&self) -> &str {
        self.body["detail"].as_str().unwrap_or_default()
    }
}

impl Client {
    /// For one controller.
    pub fn new(api: SocketAddr, token: Option<&str>) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIMEOUT));
        Self {
            base: format!("http://{api}"),
            token: token.map(str::to_owned),
            agent: config.build().new_agent(),
            timeout: REQUEST_TIMEOUT,
        }
    }

    /// For one controller beyond loopback, which speaks TLS with a certificate of this authority.
    pub fn secure(api: SocketAddr, token: Option<&str>, authority_pem: &str) -> anyhow::Result<Self> {
        let authority = Certificate::from_pem(authority_pem.as_bytes()).context("no authority in PEM")?;
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(vec![authority])))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .tls_config(tls);
        Ok(Self {
            base: format!("https://{api}"),
            token: token.map(str::to_owned),
            agent: config.build().new_agent(),
            timeout: REQUEST_TIMEOUT,
        })
    }

    /// The same as another principal.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// The same with other patience.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Reads.
    pub fn get(&self, path: &str) -> Result<Answer, Unanswered> {
        self.send(Method::GET, path, &[], None)
    }

    /// Reads what must be there.
    pub fn read<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.get(path)?.ok().with_context(|| format!("GET {path}"))
    }

    /// Changes.
    pub fn post(&self, path: &str, body: &Value) -> Result<Answer, Unanswered> {
        self.send(Method::POST, path, &[], Some(&body.to_string()))
    }

    /// Changes what must be changeable.
    pub fn change<T: DeserializeOwned>(&self, path: &str, body: &Value) -> anyhow::Result<T> {
        self.post(path, body)?.ok().with_context(|| format!("POST {path}"))
    }

    /// Sends any request, once.
    pub fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Result<Answer, Unanswered> {
        let failed = |error: &dyn fmt::Display| Unanswered(error.to_string());
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = match body {
            Some(body) => {
                let request = request.header("content-type", "application/json").body(body);
                self.run(request.map_err(|error| failed(&error))?)
            }
            None => self.run(request.body(()).map_err(|error| failed(&error))?),
        };
        let response = response.map_err(|error| failed(&error))?;
        let status = response.status().as_u16();
        let mut text = Vec::new();
        let mut reader = response.into_body().into_with_config().limit(ANSWER_BYTES_MAX).reader();
        reader.read_to_end(&mut text).map_err(|error| failed(&error))?;
        let received = Instant::now();
        Ok(Answer {
            status,
            body: serde_json::from_slice(&text).unwrap_or(Value::Null),
            bytes: text,
            received,
        })
    }

    fn run(
        &self,
        request: Request<impl ureq::AsSendBody>,
    ) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let request = self.agent.configure_request(request);
        self.agent.run(request.allow_non_standard_methods(true).timeout_global(Some(self.timeout)).build())
    }
}
