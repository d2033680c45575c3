//! Answers requests once it and a follower have synced them. One thread talks to all, another syncs, and what
//! waits meanwhile goes into the next sync.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, channel};

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use super::log::Log;
use super::{Args, LISTENS};
use crate::load::body_length;

/// Requests that one sync carries, at most.
const AT_ONCE_MAX: usize = 4096;
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

struct Request {
    body: Vec<u8>,
    done: oneshot::Sender<()>,
}

/// What waits for a majority.
struct Waiting {
    /// Records that the leader has synced, and each follower.
    own: u64,
    followers: Vec<u64>,
    /// Each with the length of the log that has it.
    requests: VecDeque<(u64, oneshot::Sender<()>)>,
}

impl Waiting {
    /// Answers what the leader and a follower have.
    fn settle(&mut self) {
        let synced = self.own.min(self.followers.iter().copied().max().unwrap_or_default());
        while let Some((length, done)) = self.requests.pop_front() {
            if length > synced {
                self.requests.push_front((length, done));
                return;
            }
            // A client that went needs no answer.
            let _ = done.send(());
        }
    }
}

pub(super) fn run(args: &Args, log: Log) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, lead(args, log))
}

async fn lead(args: &Args, log: Log) -> anyhow::Result<()> {
    let waiting = Rc::new(RefCell::new(Waiting {
        own: 0,
        followers: vec![0; args.follower.len()],
        requests: VecDeque::new(),
    }));
    let mut followers = Vec::new();
    for (at, address) in args.follower.iter().enumerate() {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        let (send, queue) = mpsc::channel(AT_ONCE_MAX);
        followers.push(send);
        tokio::task::spawn_local(tell(write, queue));
        tokio::task::spawn_local(hear(read, at, Rc::clone(&waiting)));
    }
    let statuses = vec!["{\"status\":200}"; usize::try_from(args.commands)?].join(",");
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n[{statuses}]", statuses.len() + 2);
    let listener = TcpListener::bind(args.listen).await?;
    println!("{LISTENS}");
    let (requests, received) = mpsc::channel(AT_ONCE_MAX);
    let answer: Rc<[u8]> = answer.into_bytes().into();
    tokio::task::spawn_local(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (requests, answer) = (requests.clone(), Rc::clone(&answer));
            // A client that breaks off needs nothing more.
            tokio::task::spawn_local(async move { drop(serve(client, &answer, requests).await) });
        }
    });
    // Among the others, so that it takes all that came before its turn.
    tokio::task::spawn_local(write(log, followers, received, waiting)).await?
}

async fn serve(mut client: TcpStream, answer: &[u8], requests: mpsc::Sender<Request>) -> anyhow::Result<()> {
    client.set_nodelay(true)?;
    let mut read = Vec::new();
    loop {
        let head = loop {
            if let Some(at) = read.windows(END_OF_HEAD.len()).position(|four| four == END_OF_HEAD) {
                break at + END_OF_HEAD.len();
            }
            more(&mut client, &mut read).await?;
        };
        let end = head + body_length(std::str::from_utf8(&read[..head])?)?;
        while read.len() < end {
            more(&mut client, &mut read).await?;
        }
        let (done, answered) = oneshot::channel();
        requests.send(Request { body: read[head..end].to_vec(), done }).await?;
        read.drain(..end);
        answered.await?;
        client.write_all(answer).await?;
    }
}

async fn more(client: &mut TcpStream, read: &mut Vec<u8>) -> anyhow::Result<()> {
    anyhow::ensure!(client.read_buf(read).await? > 0, "the client closed its connection");
    Ok(())
}

/// Sends to the followers what was asked for, and has it synced here at the same time.
async fn write(
    log: Log,
    followers: Vec<mpsc::Sender<Rc<[u8]>>>,
    mut received: mpsc::Receiver<Request>,
    waiting: Rc<RefCell<Waiting>>,
) -> anyhow::Result<()> {
    let keeps = log.keeps();
    let (to_sync, queue) = channel();
    let (synced, mut done) = mpsc::channel(1);
    std::thread::spawn(move || sync(log, &queue, &synced));
    let (mut requests, mut length) = (Vec::new(), 0);
    while received.recv_many(&mut requests, AT_ONCE_MAX).await > 0 {
        let mut framed = Vec::new();
        for request in requests.drain(..) {
            length += keeps.framed(&request.body, &mut framed)?;
            waiting.borrow_mut().requests.push_back((length, request.done));
        }
        let shared: Rc<[u8]> = framed.as_slice().into();
        for follower in &followers {
            let sent = follower.send(Rc::clone(&shared)).await;
            sent.ok().context("a follower is gone")?;
        }
        to_sync.send(framed)?;
        let own = done.recv().await.context("nothing is synced any more")??;
        waiting.borrow_mut().own = own;
        waiting.borrow_mut().settle();
    }
    Ok(())
}

/// Syncs what comes, and says how long the log is then.
fn sync(mut log: Log, queue: &Receiver<Vec<u8>>, synced: &mpsc::Sender<anyhow::Result<u64>>) {
    for framed in queue {
        let length = log.append(&framed).map(|()| log.length);
        if synced.blocking_send(length).is_err() {
            return;
        }
    }
}

/// Sends a follower what is for it.
async fn tell(mut follower: OwnedWriteHalf, mut queue: mpsc::Receiver<Rc<[u8]>>) -> anyhow::Result<()> {
    while let Some(framed) = queue.recv().await {
        follower.write_all(&framed).await?;
    }
    Ok(())
}

/// Takes note of what a follower has.
async fn hear(mut follower: OwnedReadHalf, at: usize, waiting: Rc<RefCell<Waiting>>) -> anyhow::Result<()> {
    loop {
        let synced = follower.read_u64().await.context("a follower is gone")?;
        waiting.borrow_mut().followers[at] = synced;
        waiting.borrow_mut().settle();
    }
}
