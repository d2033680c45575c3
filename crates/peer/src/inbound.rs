//! The connections other controllers make to this one.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::error::RequestFailure;
use crate::frame::{Frame, FrameReader, Lane, Outcome, PROTOCOL, write_frame};
use crate::handler::Handler;
use crate::limits;
use crate::link::lock;
use crate::places::Places;
use crate::tls::{Tls, check_name};

/// The members by id, with their addresses.
pub type Members = BTreeMap<u64, String>;

#[derive(Clone)]
pub(crate) struct Acceptor {
    pub(crate) own_id: u64,
    pub(crate) fleet: String,
    pub(crate) tls: Tls,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) members: watch::Receiver<Members>,
    /// Where requests are answered, which may take long.
    pub(crate) answering: Handle,
}

/// Ends a connection when it is dropped.
type End = oneshot::Sender<()>;

/// The connections that are open.
struct Open {
    /// Those whose other side has not said yet who it is: anybody can make them.
    strangers: Mutex<Places<End>>,
    /// Those of members, by member and lane; and which one, counted by this controller.
    known: Mutex<BTreeMap<(u64, u8), (u64, End)>>,
    /// When it was last said that somebody did not identify itself.
    told: Mutex<Option<Instant>>,
}

impl Open {
    /// A member has one connection for each lane: it dials again only when it has given up the one before.
    fn replace(&self, of: (u64, u8), number: u64) -> oneshot::Receiver<()> {
        let (end, ended) = oneshot::channel();
        lock(&self.known).insert(of, (number, end));
        ended
    }

    /// Whether to say that somebody did not identify itself: anybody can be that, as often as he likes.
    fn is_to_be_told(&self) -> bool {
        let mut told = lock(&self.told);
        let is_due = told.is_none_or(|told| told.elapsed() >= limits::STRANGERS_TOLD_INTERVAL);
        if is_due {
            *told = Some(Instant::now());
        }
        is_due
    }

    fn forget(&self, of: (u64, u8), number: u64) {
        let mut known = lock(&self.known);
        if known.get(&of).is_some_and(|(newest, _)| *newest == number) {
            known.remove(&of);
        }
    }
}

impl Acceptor {
    pub(crate) async fn run(self, listener: TcpListener) {
        let open = Arc::new(Open {
            strangers: Mutex::new(Places::new(limits::MAX_UNKNOWN_CONNECTIONS)),
            known: Mutex::default(),
            told: Mutex::default(),
        });
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((stream, address)) => {
                    let (end, ended) = oneshot::channel();
                    // Whoever loses its place is ended by that.
                    if let Ok((place, _)) = lock(&open.strangers).enter(address.ip(), end) {
                        connections.spawn(self.clone().serve(
                            stream,
                            address,
                            Arc::clone(&open),
                            place,
                            ended,
                        ));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection from a controller");
                    sleep(limits::MIN_BACKOFF).await;
                }
            }
        }
    }

    async fn serve(
        mut self,
        stream: TcpStream,
        address: SocketAddr,
        open: Arc<Open>,
        place: u64,
        ended: oneshot::Receiver<()>,
    ) {
        let greeted = tokio::select! {
            greeted = timeout(limits::CONNECT_TIMEOUT, self.greet(stream)) => greeted,
            _ = ended => {
                tracing::debug!(%address, "a connection that had not identified itself made place for another");
                return;
            }
        };
        // From here on it takes no place of a stranger, whoever it is.
        lock(&open.strangers).leave(place);
        let (stream, peer, lane) = match greeted {
            Ok(Ok(greeted)) => greeted,
            // Its certificate is of this fleet.
            Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                tracing::warn!(%address, %error, "refused a connection from a controller");
                return;
            }
            Ok(Err(error)) => {
                if open.is_to_be_told() {
                    tracing::warn!(%address, %error, "a connection did not identify itself");
                }
                return;
            }
            Err(_) => {
                if open.is_to_be_told() {
                    tracing::warn!(%address, "a connection did not identify itself in time");
                }
                return;
            }
        };
        let replaced = open.replace((peer, lane), place);
        let mut members = self.members.clone();
        tokio::select! {
            error = self.converse(stream, peer) => {
                tracing::debug!(peer, %address, %error, "connection from a controller ended");
            }
            // A removed member loses its connections at once.
            removed = members.wait_for(|members| !members.contains_key(&peer)) => {
                // An error is the end of this controller's own transport.
                if removed.is_ok() {
                    tracing::info!(peer, %address, "closed the connection of a removed controller");
                }
            }
            _ = replaced => {
                tracing::debug!(peer, %address, "a controller connected again");
            }
        }
        open.forget((peer, lane), place);
    }

    /// Finds out who it is. Its certificate is from the fleet's authority, or
    /// TLS would have ended it; this checks that it is the one it says, and a
    /// member.
    async fn greet(&mut self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, u64, u8)> {
        stream.set_nodelay(true)?;
        let acceptor = TlsAcceptor::from(Arc::clone(&self.tls.server));
        let mut stream = acceptor.accept(stream).await?;
        let hello = FrameReader::new(&mut stream, limits::MAX_HELLO_BYTES, None).next().await?;
        match self.judge(&stream, &hello) {
            Ok((peer, lane)) => {
                write_frame(&mut stream, &Frame::Welcome).await?;
                Ok((stream, peer, lane))
            }
            Err(why) => {
                write_frame(&mut stream, &Frame::Refused(why.clone())).await?;
                Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
            }
        }
    }

    fn judge(&self, stream: &TlsStream<TcpStream>, hello: &Frame) -> Result<(u64, u8), String> {
        let Frame::Hello { protocol, node, fleet, lane } = hello else {
            return Err("the first frame must be a greeting".to_owned());
        };
        if *protocol != PROTOCOL {
            return Err(format!(
                "controller {} speaks peer protocol {PROTOCOL}, controller {node} speaks {protocol}; \
                 upgrade the older one",
                self.own_id
            ));
        }
        if !Lane::ALL.iter().any(|known| *known as u8 == *lane) {
            return Err(format!("there is no lane {lane}"));
        }
        if *fleet != self.fleet {
            return Err(format!("this is fleet {}, not {fleet}", self.fleet));
        }
        if *node == self.own_id {
            return Err(format!("controller {node} is this one; two must not share an id"));
        }
        if !self.members.borrow().contains_key(node) {
            return Err(format!("controller {node} is not a member of fleet {}", self.fleet));
        }
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = certificate.ok_or("a certificate is needed")?;
        check_name(certificate, *node)
            .map_err(|why| format!("the certificate is not that of controller {node}: {why}"))?;
        Ok((*node, *lane))
    }

    async fn converse(&self, stream: TlsStream<TcpStream>, peer: u64) -> io::Error {
        let (read, write) = tokio::io::split(stream);
        let (answers, queue) = mpsc::channel(limits::MAX_QUEUED_ANSWERS);
        tokio::select! {
            error = self.receive(read, peer, answers) => error,
            error = send_answers(write, queue) => error,
        }
    }

    async fn receive<R: AsyncRead + Unpin>(
        &self,
        read: R,
        peer: u64,
        answers: mpsc::Sender<Frame>,
    ) -> io::Error {
        let mut frames = FrameReader::new(read, limits::MAX_FRAME_BYTES, None);
        let permits = Arc::new(Semaphore::new(limits::MAX_INFLIGHT_REQUESTS));
        let mut requests = JoinSet::new();
        loop {
            while requests.try_join_next().is_some() {}
            match frames.next().await {
                Ok(Frame::Raft(message)) => self.handler.raft(peer, message),
                Ok(Frame::Ping) => {
                    // When answers are waiting to be written, they do as well.
                    drop(answers.try_send(Frame::Pong));
                }
                Ok(Frame::Request { id, deadline_ms, body }) => {
                    let answers = answers.clone();
                    let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                        let busy = Frame::Answer { id, outcome: Outcome::Busy, body: Vec::new() };
                        drop(answers.try_send(busy));
                        continue;
                    };
                    let handler = Arc::clone(&self.handler);
                    let answer = async move {
                        let deadline =
                            Duration::from_millis(u64::from(deadline_ms)).min(limits::MAX_REQUEST_DEADLINE);
                        let answer = timeout(deadline, handler.request(peer, body)).await;
                        // Past its time nobody waits for it any more.
                        if let Ok(answer) = answer {
                            drop(answers.send(to_frame(id, answer)).await);
                        }
                        drop(permit);
                    };
                    requests.spawn_on(answer, &self.answering);
                }
                Ok(_) => {
                    return io::Error::new(io::ErrorKind::InvalidData, "the peer sent an unexpected frame");
                }
                Err(error) => return error,
            }
        }
    }
}

fn to_frame(id: u64, answer: Result<Vec<u8>, RequestFailure>) -> Frame {
    let failed = |message: String| {
        let mut body = message.into_bytes();
        body.truncate(limits::MAX_ERROR_BYTES);
        Frame::Answer { id, outcome: Outcome::Failed, body }
    };
    match answer {
        Ok(body) if body.len() + 64 > limits::MAX_FRAME_BYTES => {
            failed(format!("the answer has {} bytes, more than MAX_FRAME_BYTES", body.len()))
        }
        Ok(body) => Frame::Answer { id, outcome: Outcome::Done, body },
        Err(RequestFailure::Busy) => Frame::Answer { id, outcome: Outcome::Busy, body: Vec::new() },
        Err(RequestFailure::Failed(message)) => failed(message),
    }
}

async fn send_answers<W: AsyncWrite + Unpin>(mut write: W, mut queue: mpsc::Receiver<Frame>) -> io::Error {
    while let Some(frame) = queue.recv().await {
        if let Err(error) = write_frame(&mut write, &frame).await {
            return error;
        }
    }
    io::ErrorKind::BrokenPipe.into()
}
