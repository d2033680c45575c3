//! What the tests against a real NATS server share.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, dead_code, unreachable_pub)]

use std::future::Future;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use serde::Serialize;
use stele_bus::server::{NatsServer, NatsServerConfig};
use stele_bus::{AgentBus, AgentEvent, AgentInbox, BusConfig, Connection, ControllerBus};
use stele_model::signature::Purpose;
use stele_model::wire::Signed;
use tokio::sync::watch;

/// Longest any test waits for anything; reaching it fails the test.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// Awaits `future`, and fails with what was awaited at the deadline.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = tokio::time::timeout(DEADLINE, future).await else { panic!("waited in vain: {what}") };
    value
}

/// Asks again and again until the answer is yes.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    within(what, async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        while !Box::pin(holds()).await {
            tick.tick().await;
        }
    })
    .await;
}

pub struct Nats {
    pub server: NatsServer,
    pub dir: tempfile::TempDir,
}

impl Nats {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = NatsServerConfig {
            token: Some("secret \"token\"".to_owned()),
            ..NatsServerConfig::new(dir.path())
        };
        Self { server: NatsServer::spawn(config).await.unwrap(), dir }
    }

    /// Kills the server, deletes everything it kept, and starts an empty one at the same address.
    pub async fn replace_with_an_empty_one(self) -> Self {
        let Self { server, dir } = self;
        let config = server.stop();
        std::fs::remove_dir_all(dir.path().join("jetstream")).unwrap();
        Self { server: NatsServer::spawn(config).await.unwrap(), dir }
    }

    pub fn config(&self, name: &str) -> BusConfig {
        BusConfig {
            urls: vec![self.server.url()],
            auth: self.server.auth(),
            root_ca: None,
            fleet: "acme".parse().unwrap(),
            name: name.to_owned(),
        }
    }

    pub async fn controller(&self) -> ControllerBus {
        let bus = ControllerBus::connect(self.config("controller")).await.unwrap();
        up(&mut bus.connections(), 1).await;
        bus
    }

    pub async fn agent(&self, node: &str) -> (AgentBus, AgentInbox) {
        let (bus, mut inbox) =
            AgentBus::connect(self.config(node), "eu".parse().unwrap(), node.parse().unwrap()).await.unwrap();
        assert!(matches!(next(&mut inbox).await, AgentEvent::Connected));
        (bus, inbox)
    }

    /// An agent whose subscriptions the server has, which nobody else's order guarantees: it asked
    /// something after them on the same connection, and was told that nobody is there.
    pub async fn listening_agent(&self, node: &str) -> (AgentBus, AgentInbox) {
        let (bus, inbox) = self.agent(node).await;
        let alone = bus.sync(&signed(&"anybody?")).await;
        assert!(matches!(alone, Err(stele_bus::Error::NoResponder { .. })), "{alone:?}");
        (bus, inbox)
    }

    /// A client that is neither controller nor agent.
    pub async fn stranger(&self) -> async_nats::Client {
        let stele_bus::Auth::Token(token) = self.server.auth() else { panic!("the server has a token") };
        async_nats::ConnectOptions::new().token(token).connect(self.server.url()).await.unwrap()
    }
}

/// Waits for the `count`th connection.
pub async fn up(connections: &mut watch::Receiver<Connection>, count: u64) {
    within("a connection to NATS", connections.wait_for(|now| now.up && now.count >= count)).await.unwrap();
}

pub async fn next(inbox: &mut AgentInbox) -> AgentEvent {
    within("an event for the agent", inbox.next()).await.unwrap()
}

pub fn signed<T: Serialize>(message: &T) -> Signed {
    Signed::new(&SigningKey::from_bytes(&[1; 32]), Purpose::Assignment, message)
}
