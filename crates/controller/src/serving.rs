//! The API's connections: which of them have a place, and how long a silent one keeps it.
//!
//! Anybody can open connections and say nothing on them. So their number is bounded, and where all places are taken, a
//! newcomer has that of another who is idle or has not shown a token yet (see [`Places`]). A request of somebody who
//! has keeps its place until its answer is sent, however long that takes: followed logs and exports are answers, too.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stele_peer::Places;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::limits::{
    API_CONNECTIONS_MAX, API_CONNECTIONS_MIN, API_HEAD_BYTES_MAX, API_IDLE_MAX, FILES_FOR_OTHERS,
    FILES_WANTED, TLS_HANDSHAKE_DEADLINE,
};

/// Ends a connection when it is dropped.
type End = oneshot::Sender<()>;

/// What connections are bounded by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Connections at once.
    pub(crate) connections: usize,
    /// Until the head of a first or next request is there.
    pub(crate) idle: Duration,
    /// Until a TLS handshake is done.
    pub(crate) handshake: Duration,
}

impl Bounds {
    /// Those of this process. Each connection is an open file, and when there are no more of these, the log cannot be
    /// written either: so as many are asked for as may be had, and some are left alone.
    pub(crate) fn of_this_process() -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let wanted = maximum.map_or(FILES_WANTED, |maximum| maximum.min(FILES_WANTED));
        let mut files = current.unwrap_or(FILES_WANTED);
        if files < wanted {
            match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
                Ok(()) => files = wanted,
                Err(error) => tracing::warn!(%error, files, "no more files may be opened at once"),
            }
        }
        let connections = usize::try_from(files.saturating_sub(FILES_FOR_OTHERS)).unwrap_or(usize::MAX);
        Self {
            connections: connections.clamp(API_CONNECTIONS_MIN, API_CONNECTIONS_MAX),
            idle: API_IDLE_MAX,
            handshake: TLS_HANDSHAKE_DEADLINE,
        }
    }
}

/// The place of the connection that a request came on: among the request's extensions.
#[derive(Clone)]
pub(crate) struct Place {
    places: Arc<Mutex<Places<End>>>,
    number: u64,
}

impl Place {
    fn places(&self) -> MutexGuard<'_, Places<End>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever asks is known: the place is kept until the answer is sent.
    pub(crate) fn keep(&self) {
        self.places().keep(self.number);
    }
}

/// A request at work; afterwards its connection is idle.
struct Work(Place);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.places().release(self.0.number);
    }
}

/// A connection; afterwards its place is free.
struct Taken(Place);

impl Drop for Taken {
    fn drop(&mut self) {
        drop(self.0.places().leave(self.0.number));
    }
}

/// An answer's body, with which the request's work ends.
struct Answering {
    body: Body,
    _work: Work,
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Serves an API on a socket, over TLS if so wanted, for ever.
pub(crate) async fn serve(
    mut listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    bounds: Bounds,
) -> Infallible {
    let places = Arc::new(Mutex::new(Places::new(bounds.connections)));
    loop {
        // axum's own: it waits a little when the system is out of file descriptors.
        let (stream, peer) = axum::serve::Listener::accept(&mut listener).await;
        let (end, ended) = oneshot::channel();
        let entered = places.lock().unwrap_or_else(PoisonError::into_inner).enter(peer.ip(), end);
        // Whoever loses its place is ended by that.
        let Ok((number, _)) = entered else {
            tracing::debug!(%peer, "a connection was refused: all are at work");
            continue;
        };
        let taken = Taken(Place { places: Arc::clone(&places), number });
        let (tls, router) = (tls.clone(), router.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = converse(stream, peer, tls, router, &taken.0, bounds) => {}
                _ = ended => tracing::debug!(%peer, "an idle connection made place for another"),
            }
        });
    }
}

async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    router: Router,
    place: &Place,
    bounds: Bounds,
) {
    // Answers leave at once, also while the client has not acknowledged the one before.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "answers may leave late");
    }
    let served = match tls {
        None => answer(stream, router, place, bounds).await,
        // Handshakes run beside one another, so that a client that never finishes its own keeps nobody else out.
        Some(tls) => match tokio::time::timeout(bounds.handshake, tls.accept(stream)).await {
            Ok(Ok(stream)) => answer(stream, router, place, bounds).await,
            Ok(Err(error)) => return tracing::debug!(%peer, %error, "a TLS handshake failed"),
            Err(_) => return tracing::debug!(%peer, "a TLS handshake took too long"),
        },
    };
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "a connection ended");
    }
}

async fn answer<I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    io: I,
    router: Router,
    place: &Place,
    bounds: Bounds,
) -> hyper::Result<()> {
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let mut request: Request = request.map(Body::new);
        request.extensions_mut().insert(place.clone());
        let work = Work(place.clone());
        let answering = router.call(request);
        async move {
            let answer = answering.await?;
            Ok::<_, Infallible>(answer.map(|body| Answering { body, _work: work }))
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.idle)
        .max_buf_size(API_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(io), service)
        .await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::Extension;
    use axum::routing::get;
    use futures::stream;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::{Semaphore, mpsc};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);
    const PLACES: usize = 4;

    /// `/hello` answers at once; `/follow` to somebody known, and each time that it is told to go on.
    async fn start(idle: Duration) -> (SocketAddr, mpsc::UnboundedReceiver<()>, Arc<Semaphore>) {
        let (began, begins) = mpsc::unbounded_channel();
        let go_on = Arc::new(Semaphore::new(0));
        let told = Arc::clone(&go_on);
        let follow = move |Extension(place): Extension<Place>| {
            place.keep();
            began.send(()).unwrap();
            let told = Arc::clone(&told);
            async move {
                Body::from_stream(stream::unfold(told, |told| async move {
                    told.acquire().await.ok()?.forget();
                    Some((Ok::<_, Infallible>("more"), told))
                }))
            }
        };
        let router = Router::new().route("/hello", get(async || "hello")).route("/follow", get(follow));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bounds = Bounds { connections: PLACES, idle, handshake: PATIENCE };
        tokio::spawn(serve(listener, None, router, bounds));
        (address, begins, go_on)
    }

    async fn ask(stream: &mut TcpStream, path: &str) {
        let head = format!("GET {path} HTTP/1.1\r\nhost: it\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
    }

    /// Reads until some words are there.
    async fn hear(stream: &mut TcpStream, words: &str) {
        let mut heard = Vec::new();
        let hearing = async {
            while !String::from_utf8_lossy(&heard).contains(words) {
                assert!(stream.read_buf(&mut heard).await.unwrap() > 0, "it ended before: {words}");
            }
        };
        assert!(tokio::time::timeout(PATIENCE, hearing).await.is_ok(), "never: {words}");
    }

    /// Reads until the other side ends it.
    async fn ends(stream: &mut TcpStream) {
        let mut heard = Vec::new();
        let reading = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut heard)).await;
        // A reset is an end, too.
        drop(reading.expect("it never ended"));
    }

    #[tokio::test]
    async fn silent_strangers_take_places_from_each_other_alone() {
        let (address, mut begins, go_on) = start(PATIENCE * 10).await;
        let mut following = TcpStream::connect(address).await.unwrap();
        ask(&mut following, "/follow").await;
        begins.recv().await.unwrap();

        let mut strangers = Vec::new();
        for _ in 0..3 * PLACES {
            strangers.push(TcpStream::connect(address).await.unwrap());
        }
        // One who came early has lost its place, and one who comes now has one.
        ends(&mut strangers[0]).await;
        let mut asking = TcpStream::connect(address).await.unwrap();
        ask(&mut asking, "/hello").await;
        hear(&mut asking, "hello").await;
        // Whoever is known was cut by none of them.
        for _ in 0..2 {
            go_on.add_permits(1);
            hear(&mut following, "more").await;
        }
    }

    #[tokio::test]
    async fn where_all_are_at_work_nobody_is_cut() {
        let (address, mut begins, go_on) = start(PATIENCE * 10).await;
        let mut following = Vec::new();
        for _ in 0..PLACES {
            let mut stream = TcpStream::connect(address).await.unwrap();
            ask(&mut stream, "/follow").await;
            begins.recv().await.unwrap();
            following.push(stream);
        }
        ends(&mut TcpStream::connect(address).await.unwrap()).await;
        go_on.add_permits(PLACES);
        for stream in &mut following {
            hear(stream, "more").await;
        }
        // One that ends makes place.
        drop(following.pop());
        let asked = async {
            loop {
                let mut stream = TcpStream::connect(address).await.unwrap();
                ask(&mut stream, "/hello").await;
                let mut heard = [0; 64];
                if matches!(stream.read(&mut heard).await, Ok(1..)) {
                    return;
                }
            }
        };
        // What ends a followed answer is noticed when there is more of it.
        go_on.add_permits(PLACES);
        assert!(tokio::time::timeout(PATIENCE, asked).await.is_ok(), "the place never became free");
    }

    #[tokio::test]
    async fn who_says_nothing_or_not_all_is_ended() {
        let (address, _begins, _go_on) = start(Duration::from_millis(50)).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        ends(&mut silent).await;
        let mut halting = TcpStream::connect(address).await.unwrap();
        halting.write_all(b"GET /hello HTTP/1.1\r\nhost:").await.unwrap();
        ends(&mut halting).await;
    }

    #[tokio::test]
    async fn an_answer_that_takes_long_is_not_idle() {
        let idle = Duration::from_millis(50);
        let (address, mut begins, go_on) = start(idle).await;
        let mut following = TcpStream::connect(address).await.unwrap();
        ask(&mut following, "/follow").await;
        begins.recv().await.unwrap();
        // Another, which says nothing, is ended for that meanwhile, twice.
        for _ in 0..2 {
            ends(&mut TcpStream::connect(address).await.unwrap()).await;
        }
        go_on.add_permits(1);
        hear(&mut following, "more").await;
    }

    #[test]
    fn this_process_has_places() {
        let bounds = Bounds::of_this_process();
        assert!((API_CONNECTIONS_MIN..=API_CONNECTIONS_MAX).contains(&bounds.connections));
    }
}
