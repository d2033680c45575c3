//! The connections made to one peer, one for each lane.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::{RequestError, SendError};
use crate::frame::{Frame, FrameReader, Lane, Outcome, PROTOCOL, write_frame};
use crate::handler::Handler;
use crate::limits;
use crate::task::OwnedTask;
use crate::tls::{Tls, controller_name};

type Reply = oneshot::Sender<Result<Vec<u8>, RequestError>>;

/// What one lane sends.
pub(crate) enum Item {
    Raft(Vec<u8>),
    Request { deadline: Instant, body: Vec<u8>, reply: Reply },
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Self::Raft(body) | Self::Request { body, .. } => body.len(),
        }
    }
}

/// How the connections to a peer fare.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) connected: [bool; 3],
    pub(crate) last_error: Option<String>,
    /// When the certificate that the peer showed last ends, since 1970.
    pub(crate) certified_until: Option<Duration>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Queue {
    sender: mpsc::Sender<Item>,
    bytes: Arc<AtomicUsize>,
}

/// Everything needed to talk to one peer.
pub(crate) struct Link {
    peer: u64,
    pub(crate) address: String,
    pub(crate) health: Arc<Mutex<Health>>,
    queues: [Queue; 3],
    _tasks: Vec<OwnedTask>,
}

/// What all lanes of a link share.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) own_id: u64,
    pub(crate) fleet: String,
    pub(crate) tls: Tls,
    pub(crate) handler: Arc<dyn Handler>,
    /// Where connections are served.
    pub(crate) runtime: Handle,
}

struct LaneTask {
    dialer: Dialer,
    peer: u64,
    address: String,
    lane: Lane,
    health: Arc<Mutex<Health>>,
    queue: mpsc::Receiver<Item>,
    queued_bytes: Arc<AtomicUsize>,
}

type Pending = Arc<Mutex<BTreeMap<u64, Reply>>>;

impl Link {
    pub(crate) fn start(dialer: &Dialer, peer: u64, address: String) -> Self {
        let health = Arc::new(Mutex::new(Health::default()));
        let mut tasks = Vec::new();
        let queues = Lane::ALL.map(|lane| {
            let (sender, queue) = mpsc::channel(limits::MAX_QUEUED_FRAMES);
            let bytes = Arc::new(AtomicUsize::new(0));
            let task = LaneTask {
                dialer: dialer.clone(),
                peer,
                address: address.clone(),
                lane,
                health: Arc::clone(&health),
                queue,
                queued_bytes: Arc::clone(&bytes),
            };
            tasks.push(OwnedTask::spawn(&dialer.runtime, task.run()));
            Queue { sender, bytes }
        });
        Self { peer, address, health, queues, _tasks: tasks }
    }

    /// Queues an item, or refuses it at once: nothing here ever waits for a
    /// slow peer.
    pub(crate) fn push(&self, lane: Lane, item: Item) -> Result<(), SendError> {
        let queue = &self.queues[lane as usize];
        let bytes = item.bytes();
        let before = queue.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before == 0 || before + bytes <= limits::MAX_QUEUED_BYTES;
        if fits && queue.sender.try_send(item).is_ok() {
            return Ok(());
        }
        queue.bytes.fetch_sub(bytes, Ordering::Relaxed);
        Err(SendError::Full(self.peer))
    }
}

impl LaneTask {
    async fn run(mut self) {
        let mut backoff = limits::MIN_BACKOFF;
        loop {
            let error = match timeout(limits::CONNECT_TIMEOUT, self.connect()).await {
                Ok(Ok(stream)) => {
                    backoff = limits::MIN_BACKOFF;
                    self.report(true, None);
                    self.converse(stream).await
                }
                Ok(Err(error)) => error,
                Err(_) => io::Error::new(io::ErrorKind::TimedOut, "connecting took too long"),
            };
            if self.queue.is_closed() {
                return;
            }
            self.report(false, Some(error.to_string()));
            self.drop_queued();
            if self.lane != Lane::Request {
                self.dialer.handler.unreachable(self.peer);
            }
            // Jittered, so that a restarted controller is not met by all others
            // at the same moment, again and again.
            sleep(backoff.mul_f64(rand::random_range(0.5..1.0))).await;
            backoff = (backoff * 2).min(limits::MAX_BACKOFF);
        }
    }

    fn report(&self, connected: bool, error: Option<String>) {
        let mut health = lock(&self.health);
        let was = health.connected[self.lane as usize];
        health.connected[self.lane as usize] = connected;
        let is_news = was != connected || (error.is_some() && error != health.last_error);
        if error.is_some() || health.connected == [true; 3] {
            health.last_error.clone_from(&error);
        }
        drop(health);
        if !is_news {
            return;
        }
        let (peer, address, lane) = (self.peer, &self.address, self.lane);
        if let Some(error) = error {
            tracing::warn!(peer, %address, ?lane, %error, "no connection to a controller");
        } else {
            tracing::info!(peer, %address, ?lane, "connected to a controller");
        }
    }

    /// What waited for a connection is old by the time there is one.
    fn drop_queued(&mut self) {
        while let Ok(item) = self.queue.try_recv() {
            self.queued_bytes.fetch_sub(item.bytes(), Ordering::Relaxed);
            if let Item::Request { reply, .. } = item {
                // Whoever asked may have gone.
                drop(reply.send(Err(RequestError::Unreachable(self.peer))));
            }
        }
    }

    async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let invalid = |error: String| io::Error::new(io::ErrorKind::InvalidInput, error);
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let name =
            ServerName::try_from(controller_name(self.peer)).map_err(|error| invalid(error.to_string()))?;
        let connector = TlsConnector::from(Arc::clone(&self.dialer.tls.client));
        // TLS itself checks that the other side is the controller meant.
        let mut stream = connector.connect(name, stream).await?;
        let hello = Frame::Hello {
            protocol: PROTOCOL,
            node: self.dialer.own_id,
            lane: self.lane as u8,
            fleet: self.dialer.fleet.clone(),
        };
        write_frame(&mut stream, &hello).await?;
        match FrameReader::new(&mut stream, limits::MAX_HELLO_BYTES, None).next().await? {
            Frame::Welcome => {
                let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                let until = shown.and_then(|certificate| self.dialer.tls.not_after_of(certificate));
                lock(&self.health).certified_until = until;
                Ok(stream)
            }
            Frame::Refused(why) => {
                Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("refused: {why}")))
            }
            _ => Err(invalid("the peer did not answer the greeting".to_owned())),
        }
    }

    /// Sends what is queued until something breaks; answers what did.
    async fn converse(&mut self, stream: TlsStream<TcpStream>) -> io::Error {
        let (read, mut write) = tokio::io::split(stream);
        let pending: Pending = Arc::default();
        let writing = Arc::new(AtomicBool::new(false));
        let broken = Arc::new(Mutex::new(None));
        let mut answers = OwnedTask::spawn(&self.dialer.runtime, {
            let (pending, writing) = (Arc::clone(&pending), Arc::clone(&writing));
            let (broken, peer) = (Arc::clone(&broken), self.peer);
            async move { *lock(&broken) = Some(read_answers(read, peer, &pending, &writing).await) }
        });
        let error = tokio::select! {
            error = self.send_queued(&mut write, &pending, &writing) => error,
            () = answers.ended() => {
                lock(&broken).take().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())
            }
        };
        for (_, reply) in std::mem::take(&mut *lock(&pending)) {
            drop(reply.send(Err(RequestError::Lost(self.peer))));
        }
        error
    }

    async fn send_queued<W: AsyncWrite + Unpin>(
        &mut self,
        write: &mut W,
        pending: &Pending,
        writing: &AtomicBool,
    ) -> io::Error {
        let mut last_ping = Instant::now();
        let mut next_id = 0u64;
        loop {
            let quiet = limits::PING_INTERVAL.saturating_sub(last_ping.elapsed());
            // Asked for also when there is always something to send: nothing
            // else makes the other side answer to raft messages.
            let next = if quiet.is_zero() { None } else { timeout(quiet, self.queue.recv()).await.ok() };
            let frame = match next {
                None => {
                    last_ping = Instant::now();
                    Frame::Ping
                }
                Some(None) => return io::ErrorKind::Interrupted.into(),
                Some(Some(item)) => {
                    self.queued_bytes.fetch_sub(item.bytes(), Ordering::Relaxed);
                    match item {
                        Item::Raft(body) => Frame::Raft(body),
                        Item::Request { deadline, body, reply } => {
                            let left = deadline.saturating_duration_since(Instant::now());
                            if left.is_zero() || reply.is_closed() {
                                continue;
                            }
                            next_id += 1;
                            lock(pending).insert(next_id, reply);
                            Frame::Request { id: next_id, deadline_ms: millis(left), body }
                        }
                    }
                }
            };
            writing.store(true, Ordering::Relaxed);
            let written = write_frame(write, &frame).await;
            writing.store(false, Ordering::Relaxed);
            if let Err(error) = written {
                return error;
            }
        }
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

async fn read_answers<R: AsyncRead + Unpin>(
    read: ReadHalf<R>,
    peer: u64,
    pending: &Pending,
    writing: &AtomicBool,
) -> io::Error {
    let mut frames = FrameReader::new(read, limits::MAX_FRAME_BYTES, Some(writing));
    loop {
        match frames.next().await {
            Ok(Frame::Pong) => {
                // A good moment to forget those who stopped waiting.
                lock(pending).retain(|_, reply| !reply.is_closed());
            }
            Ok(Frame::Answer { id, outcome, body }) => {
                if let Some(reply) = lock(pending).remove(&id) {
                    let answer = match outcome {
                        Outcome::Done => Ok(body),
                        Outcome::Busy => Err(RequestError::Busy(peer)),
                        Outcome::Failed => Err(RequestError::Failed {
                            peer,
                            message: String::from_utf8_lossy(&body).into_owned(),
                        }),
                    };
                    drop(reply.send(answer));
                }
            }
            Ok(_) => return io::Error::new(io::ErrorKind::InvalidData, "the peer sent an unexpected frame"),
            Err(error) => return error,
        }
    }
}
