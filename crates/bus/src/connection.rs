//! One connection that is never given up, and the word of its comings and goings.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stele_model::ids::FleetName;
use tokio::sync::watch;

use crate::error::Error;
use crate::limits::{
    CONNECT_TIMEOUT, NATS_PAYLOAD_BYTES_MAX, PING_INTERVAL, RECONNECT_FIRST_MS, RECONNECT_MS_MAX,
    SEND_TIMEOUT,
};

/// Where NATS is and how to get in.
#[derive(Clone, Debug)]
pub struct BusConfig {
    /// Addresses such as `nats://host:4222` or `tls://host:4222`; any of them will do.
    pub urls: Vec<String>,
    /// What to show at the door.
    pub auth: Auth,
    /// PEM file of the authority that signed the servers' certificates; the system's own when absent.
    pub root_ca: Option<PathBuf>,
    /// The fleet, which begins every subject.
    pub fleet: FleetName,
    /// What NATS's own monitoring shows for this connection.
    pub name: String,
}

/// What a client shows to be let in.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// Nothing.
    #[default]
    None,
    /// A name and a password.
    User {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// One shared text.
    Token(String),
    /// The seed of an Ed25519 key, `SU…`; only a signature of the server's nonce is sent.
    Nkey(String),
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Credentials end up in logs by way of Debug, so none of them is shown.
        f.write_str(match self {
            Self::None => "None",
            Self::User { .. } => "User(hidden)",
            Self::Token(_) => "Token(hidden)",
            Self::Nkey(_) => "Nkey(hidden)",
        })
    }
}

/// Whether there is a connection, and which one it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// Whether messages can be sent now.
    pub up: bool,
    /// Connections made so far. A higher one than before means that messages may have been missed.
    pub count: u64,
}

/// What differs between those who connect.
pub(crate) struct Manner {
    pub(crate) send_queue: usize,
    pub(crate) receive_queue: usize,
    pub(crate) read_buffer_bytes: Option<u16>,
    /// Over how many milliseconds those that lost their connections together come back.
    pub(crate) reconnect_spread_ms: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) client: Client,
    pub(crate) fleet: FleetName,
    connections: watch::Receiver<Connection>,
}

impl Link {
    /// Returns at once; connecting goes on in the background for as long as it takes.
    pub(crate) async fn open(config: BusConfig, manner: Manner) -> Result<Self, Error> {
        if config.urls.is_empty() {
            return Err(Error::NoUrl);
        }
        let mut servers = Vec::with_capacity(config.urls.len());
        for url in &config.urls {
            let server: ServerAddr = url
                .parse()
                .map_err(|error: std::io::Error| Error::Url { url: url.clone(), why: error.to_string() })?;
            servers.push(server);
        }
        let (told, connections) = watch::channel(Connection::default());
        let away = AtomicBool::new(false);
        let known = connections.clone();
        let delay = move |attempts| {
            let again = known.borrow().count > 0;
            reconnect_delay(attempts, if again { manner.reconnect_spread_ms } else { 0 })
        };
        let mut options = ConnectOptions::new()
            .name(&config.name)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .connection_timeout(CONNECT_TIMEOUT)
            .ping_interval(PING_INTERVAL)
            .client_capacity(manner.send_queue)
            .subscription_capacity(manner.receive_queue)
            .reconnect_delay_callback(delay)
            .event_callback(move |event| {
                note(&told, &away, &event);
                std::future::ready(())
            });
        if let Some(bytes) = manner.read_buffer_bytes {
            options = options.read_buffer_capacity(bytes);
        }
        // Which TLS implementation is used must not depend on what else a program links. Failing
        // means that the program has chosen already.
        let _ = async_nats::rustls::crypto::ring::default_provider().install_default();
        if let Some(path) = config.root_ca {
            options = options.add_root_certificates(path).require_tls(true);
        }
        options = match config.auth {
            Auth::None => options,
            Auth::User { user, password } => options.user_and_password(user, password),
            Auth::Token(token) => options.token(token),
            Auth::Nkey(seed) => options.nkey(seed),
        };
        let client = options.connect(servers).await.map_err(Error::nats("connect to NATS"))?;
        Ok(Self { client, fleet: config.fleet, connections })
    }

    pub(crate) fn connections(&self) -> watch::Receiver<Connection> {
        self.connections.clone()
    }

    pub(crate) fn is_up(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Checks that the server will take a message of that size now.
    ///
    /// Nothing is queued while there is no connection: it would arrive late and in
    /// bulk, when newer values have long replaced it.
    pub(crate) fn check(&self, what: &'static str, bytes: usize, max: usize) -> Result<(), Error> {
        if bytes > max {
            return Err(Error::TooLarge { what, bytes, max });
        }
        if !self.is_up() {
            return Err(Error::Disconnected);
        }
        let max = self.client.max_payload();
        if bytes > max {
            return Err(Error::ServerPayload { what, bytes, max, wanted: NATS_PAYLOAD_BYTES_MAX });
        }
        Ok(())
    }

    pub(crate) async fn publish(
        &self,
        what: &'static str,
        subject: String,
        payload: Bytes,
        max: usize,
    ) -> Result<(), Error> {
        self.check(what, payload.len(), max)?;
        tokio::time::timeout(SEND_TIMEOUT, self.client.publish(subject, payload))
            .await
            .map_err(|_| Error::TimedOut { what, after: SEND_TIMEOUT })?
            .map_err(Error::nats("publish to NATS"))
    }

    /// Sends and awaits the first answer.
    pub(crate) async fn request(
        &self,
        what: &'static str,
        hint: &'static str,
        subject: String,
        payload: Bytes,
        max: usize,
        within: Duration,
    ) -> Result<async_nats::Message, Error> {
        self.check(what, payload.len(), max)?;
        // An inbox of its own: the client's shared one keeps an entry for every
        // request that is never answered, for as long as the process lives.
        let request =
            async_nats::Request::new().payload(payload).inbox(self.client.new_inbox()).timeout(None);
        let answer = tokio::time::timeout(within, self.client.send_request(subject, request))
            .await
            .map_err(|_| Error::TimedOut { what, after: within })?;
        answer.map_err(|error| match error.kind() {
            async_nats::RequestErrorKind::NoResponders => Error::NoResponder { what, hint },
            async_nats::RequestErrorKind::TimedOut => Error::TimedOut { what, after: within },
            _ => Error::Nats { doing: "send a request over NATS", source: Box::new(error) },
        })
    }
}

/// `away` is whether it was said already that NATS is not reached: an outage of days is one warning.
fn note(told: &watch::Sender<Connection>, away: &AtomicBool, event: &Event) {
    match event {
        Event::Connected => {
            away.store(false, Ordering::Relaxed);
            told.send_modify(|connection| {
                connection.up = true;
                connection.count += 1;
            });
        }
        Event::Disconnected | Event::Closed => told.send_modify(|connection| connection.up = false),
        Event::SlowConsumer(_) => {
            tracing::warn!("messages arrive from NATS faster than they are handled; some were dropped");
        }
        Event::ServerError(error) => tracing::warn!(%error, "NATS server reports an error"),
        Event::ClientError(error) if away.swap(true, Ordering::Relaxed) => {
            tracing::debug!(%error, "NATS is still not reached");
        }
        Event::ClientError(error) => tracing::warn!(%error, "NATS is not reached; trying again for ever"),
        other => tracing::debug!(%other, "NATS"),
    }
}

/// Jitter over a doubling bound. A fleet that has lost its server must not come back all at once, and no node
/// knows whether others lost it, too: the first attempt after that is made any time within `spread_ms` milliseconds.
fn reconnect_delay(attempts: usize, spread_ms: u64) -> Duration {
    let ms = if attempts <= 1 && spread_ms > 0 {
        // Without randomness the delay is the longest.
        getrandom::u64().map_or(spread_ms, |random| random % (spread_ms + 1))
    } else {
        jittered(backoff_ms(attempts, RECONNECT_FIRST_MS, RECONNECT_MS_MAX))
    };
    Duration::from_millis(ms)
}

/// `first` doubled at each attempt after the first, up to `max`, in milliseconds.
pub(crate) fn backoff_ms(attempts: usize, first: u64, max: u64) -> u64 {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX).min(20);
    first.saturating_mul(1 << doublings).min(max)
}

/// A random time from half of `ms` to `ms`, in milliseconds.
pub(crate) fn jittered(ms: u64) -> u64 {
    // Without randomness the delay is the longest: still correct, only less spread.
    getrandom::u64().map_or(ms, |random| ms / 2 + random % (ms / 2 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_their_bound_and_stay_within_it() {
        let bounds: Vec<u64> = (0..9).map(|attempt| backoff_ms(attempt, 200, 10_000)).collect();
        assert_eq!(bounds, [200, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff_ms(usize::MAX, 200, 10_000), 10_000);
        for _ in 0..1000 {
            let delay = jittered(100);
            assert!((50..=100).contains(&delay), "{delay}");
        }
    }

    #[test]
    fn a_fleet_that_lost_its_server_comes_back_over_a_while() {
        let delays: Vec<_> = (0..1000).map(|_| reconnect_delay(1, 5000).as_millis()).collect();
        assert!(delays.iter().all(|delay| *delay <= 5000));
        assert!(delays.iter().any(|delay| *delay < 1000) && delays.iter().any(|delay| *delay > 4000));
        // Who finds it away still, and who starts, waits as always.
        assert!(reconnect_delay(2, 5000) <= Duration::from_millis(2 * RECONNECT_FIRST_MS));
        assert!(reconnect_delay(1, 0) <= Duration::from_millis(RECONNECT_FIRST_MS));
    }

    #[test]
    fn credentials_are_not_shown() {
        let auth = Auth::User { user: "agent".to_owned(), password: "hunter2".to_owned() };
        assert!(!format!("{auth:?}").contains("hunter2"));
        assert!(!format!("{:?}", Auth::Token("hunter2".to_owned())).contains("hunter2"));
    }
}
