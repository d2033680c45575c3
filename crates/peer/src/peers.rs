//! The transport as a whole.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};

use crate::error::{RequestError, SendError, StartError};
use crate::frame::Lane;
use crate::handler::Handler;
use crate::inbound::{Acceptor, Members};
use crate::limits;
use crate::link::{Dialer, Item, Link, lock};
use crate::task::OwnedTask;
use crate::tls::Tls;

/// Settings of one controller's transport.
#[derive(Clone)]
pub struct PeerConfig {
    /// This controller.
    pub id: u64,
    /// The fleet. Controllers of another one are refused.
    pub fleet: String,
    /// Where to listen; port 0 picks one.
    pub listen: SocketAddr,
    /// Certificates of this controller.
    pub tls: Tls,
}

/// How the connections to one member fare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// The member.
    pub id: u64,
    /// Where it is looked for, as host:port.
    pub address: String,
    /// Whether every lane to it is connected.
    pub is_connected: bool,
    /// Why it was not connected last, until it is again.
    pub last_error: Option<String>,
}

struct Inner {
    /// A thread for what passes between controllers alone: a heartbeat of Raft's must not wait behind
    /// whatever else the program does, or leaders are taken for dead. Absent only while it ends.
    runtime: Option<Runtime>,
    dialer: Dialer,
    local_address: SocketAddr,
    members: watch::Sender<Members>,
    links: Mutex<BTreeMap<u64, Link>>,
    listener: Mutex<Option<OwnedTask>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Its tasks are aborted by then, and nothing may wait here.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The transport between controllers. Cloning it is cheap; its connections end
/// with the last clone.
#[derive(Clone)]
pub struct Peers {
    inner: Arc<Inner>,
}

impl Peers {
    /// Starts listening. Nobody is a member yet: see [`Peers::set_members`]. Requests are answered on the
    /// runtime this is called in.
    pub async fn start(config: PeerConfig, handler: Arc<dyn Handler>) -> Result<Self, StartError> {
        let limit = limits::MAX_FLEET_ID_BYTES;
        if config.id == 0 || config.fleet.is_empty() || config.fleet.len() > limit {
            return Err(StartError::Identity(limit));
        }
        config.tls.check_own(config.id)?;
        let failed = |source| StartError::Listen { address: config.listen, source };
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("peers")
            .enable_all()
            .build()
            .map_err(failed)?;
        let bound = runtime.spawn(TcpListener::bind(config.listen)).await;
        let listener = bound.map_err(std::io::Error::other).and_then(|bound| bound).map_err(failed)?;
        let local_address = listener.local_addr().map_err(failed)?;
        let (members, watched) = watch::channel(Members::new());
        let acceptor = Acceptor {
            own_id: config.id,
            fleet: config.fleet.clone(),
            tls: config.tls.clone(),
            handler: Arc::clone(&handler),
            members: watched,
            answering: Handle::current(),
        };
        let handle = runtime.handle().clone();
        let listening = OwnedTask::spawn(&handle, acceptor.run(listener));
        let dialer =
            Dialer { own_id: config.id, fleet: config.fleet, tls: config.tls, handler, runtime: handle };
        Ok(Self {
            inner: Arc::new(Inner {
                runtime: Some(runtime),
                dialer,
                local_address,
                members,
                links: Mutex::default(),
                listener: Mutex::new(Some(listening)),
            }),
        })
    }

    /// Where it listens.
    pub fn local_address(&self) -> SocketAddr {
        self.inner.local_address
    }

    /// Says who the members are and where, as host:port; this controller may be
    /// among them. Who is no longer a member is disconnected, both ways.
    pub fn set_members(&self, members: Members) {
        let inner = &self.inner;
        let mut links = lock(&inner.links);
        links.retain(|id, link| members.get(id) == Some(&link.address));
        for (id, address) in &members {
            if *id != inner.dialer.own_id && !links.contains_key(id) {
                links.insert(*id, Link::start(&inner.dialer, *id, address.clone()));
            }
        }
        drop(links);
        // Every connection looks up when told, and is told often.
        inner.members.send_if_modified(|known| {
            let is_news = *known != members;
            *known = members;
            is_news
        });
    }

    /// Sends a raft message, or drops it: it never waits. Messages may be lost
    /// and reordered.
    pub fn send_raft(&self, to: u64, message: Vec<u8>) -> Result<(), SendError> {
        let lane = if message.len() > limits::MAX_RAFT_LANE_BYTES { Lane::Bulk } else { Lane::Raft };
        self.push(to, lane, Item::Raft(message))
    }

    /// Sends a request and waits for its answer, no longer than `within`
    /// (bounded by [`limits::MAX_REQUEST_DEADLINE`]).
    pub async fn request(
        &self,
        to: u64,
        request: Vec<u8>,
        within: Duration,
    ) -> Result<Vec<u8>, RequestError> {
        let deadline = Instant::now() + within.min(limits::MAX_REQUEST_DEADLINE);
        let (reply, answer) = oneshot::channel();
        self.push(to, Lane::Request, Item::Request { deadline, body: request, reply })?;
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            // The link was taken down; it may have been sent before.
            Ok(Err(_)) => Err(RequestError::Lost(to)),
            Err(_) => Err(RequestError::TimedOut(to)),
        }
    }

    /// How the connections to the members fare.
    pub fn status(&self) -> Vec<PeerStatus> {
        let links = lock(&self.inner.links);
        let status = links.iter().map(|(id, link)| {
            let health = lock(&link.health).clone();
            PeerStatus {
                id: *id,
                address: link.address.clone(),
                is_connected: health.connected == [true; 3],
                last_error: health.last_error,
            }
        });
        status.collect()
    }

    /// When the certificates end that controllers show each other, since 1970: this one's, and what each other one
    /// showed when it was connected to last.
    pub fn certified_until(&self) -> BTreeMap<u64, Duration> {
        let dialer = &self.inner.dialer;
        let own = dialer.tls.not_after().map(|until| (dialer.own_id, until));
        let links = lock(&self.inner.links);
        let others = links.iter().filter_map(|(id, link)| Some((*id, lock(&link.health).certified_until?)));
        own.into_iter().chain(others).collect()
    }

    /// Ends all connections and stops listening; the port is free on return.
    pub async fn shutdown(&self) {
        self.set_members(Members::new());
        let listener = lock(&self.inner.listener).take();
        if let Some(listener) = listener {
            listener.end().await;
        }
    }

    fn push(&self, to: u64, lane: Lane, item: Item) -> Result<(), SendError> {
        let (Item::Raft(body) | Item::Request { body, .. }) = &item;
        // Room for the frame's head.
        if body.len() + 64 > limits::MAX_FRAME_BYTES {
            return Err(SendError::TooLarge { bytes: body.len(), limit: limits::MAX_FRAME_BYTES });
        }
        lock(&self.inner.links).get(&to).ok_or(SendError::Unknown(to))?.push(lane, item)
    }
}
