//! Clients that write as fast as they are answered: thousands of them on one thread, so that
//! they take as little as possible of the processors that the servers run on.

mod grpc;
mod http;

use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::task::LocalSet;

pub(crate) use grpc::Grpc;
pub(crate) use http::{Http, body_length};

use crate::report::Times;

/// What is left out at the beginning: connections are made and caches filled.
const WARM_UP: Duration = Duration::from_millis(500);
/// Longest one answer may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// In the answer to a batch, that a command was done.
const DONE: &[u8] = b"\"status\":200";

/// What one round came to.
pub(crate) struct Sample {
    pub(crate) per_second: f64,
    pub(crate) times: Times,
    /// All that were written, also while that was not timed.
    pub(crate) events: u64,
}

/// A server that takes writes.
pub(crate) enum Server {
    /// Requests as HTTP/1.1, a connection for each client.
    Http { address: SocketAddr, request: Box<dyn Fn(u64) -> Vec<u8>> },
    /// Unary gRPC calls, some connections shared by all clients.
    Grpc { address: SocketAddr, path: &'static str, request: Box<dyn Fn(u64) -> Vec<u8>> },
}

enum Client {
    Http(Http),
    Grpc(Grpc),
}

/// Lets clients write for a time. Each write makes so many events.
pub(crate) fn load(server: Server, clients: usize, events: u64, time: Duration) -> anyhow::Result<Sample> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, run(Rc::new(server), clients, events, time))
}

async fn run(server: Rc<Server>, clients: usize, events: u64, time: Duration) -> anyhow::Result<Sample> {
    let shared = match &*server {
        Server::Grpc { address, path, .. } => grpc::connect(*address, path, clients).await?,
        Server::Http { .. } => Vec::new(),
    };
    let begins = Instant::now() + WARM_UP;
    let ends = begins + time;
    let mut tasks = tokio::task::JoinSet::new();
    for at in 0..clients {
        let client = match &*server {
            Server::Http { address, .. } => Client::Http(Http::connect(*address).await?),
            Server::Grpc { .. } => Client::Grpc(shared[at % shared.len()].clone()),
        };
        // Numbers that no other client and no earlier round has.
        let first = nonce() + ((at as u64) << 32);
        tasks.spawn_local(write(Rc::clone(&server), client, events, first, begins..ends));
    }
    let (mut times, mut written) = (Times::new()?, 0);
    while let Some(done) = tasks.join_next().await {
        let (timed, all) = done.context("a client panicked")??;
        times.add(&timed)?;
        written += all;
    }
    anyhow::ensure!(times.len() > 0, "nothing was written");
    let per_second = (times.len() * events) as f64 / time.as_secs_f64();
    Ok(Sample { per_second, times, events: written * events })
}

async fn write(
    server: Rc<Server>,
    mut client: Client,
    events: u64,
    first: u64,
    time: Range<Instant>,
) -> anyhow::Result<(Times, u64)> {
    let mut times = Times::new()?;
    let mut number = first;
    loop {
        let (Server::Http { request, .. } | Server::Grpc { request, .. }) = &*server;
        let request = request(number);
        number += 1;
        let asked = Instant::now();
        if asked >= time.end {
            return Ok((times, number - first - 1));
        }
        let answer = async {
            match &mut client {
                Client::Http(client) => check(&client.ask(&request).await?, events),
                Client::Grpc(client) => client.ask(request).await,
            }
        };
        tokio::time::timeout(ANSWER_DEADLINE, answer).await.context("a write has no answer")??;
        // What is answered in the time that is divided by, whenever it was asked.
        if time.contains(&Instant::now()) {
            times.record(asked.elapsed());
        }
    }
}

/// A batch is answered well also where some of its commands are not.
fn check(answer: &[u8], events: u64) -> anyhow::Result<()> {
    if events > 1 {
        let done = answer.windows(DONE.len()).filter(|part| *part == DONE).count() as u64;
        anyhow::ensure!(done == events, "{done} of {events} were done: {}", String::from_utf8_lossy(answer));
    }
    Ok(())
}

/// Rounds must not write what an earlier one wrote: that would be no change.
fn nonce() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as u64
}
