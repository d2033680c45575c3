//! Distance: a relay on each machine that holds back what goes to the others.
//!
//! Kernels often lack `tc netem`. Connections that a machine opens are redirected to a relay in its
//! own namespace, which opens them to where they were meant for, with the machine's own address, and
//! passes bytes on late, in both directions.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc as queue, watch};
use tokio::time::Instant;

use crate::limits::{RELAY_BYTES_MAX, RELAY_READ_BYTES};
use crate::net::{Net, RELAY_MARK, RELAY_PORT};

/// How long bytes take from a machine to each address.
pub(crate) type Delays = BTreeMap<Ipv4Addr, Duration>;

/// Relays of all machines; all connections through them end when it is dropped.
pub(crate) struct Relays {
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

impl Relays {
    /// Starts one on each machine, and returns when all of them listen.
    pub(crate) fn start(machines: BTreeMap<String, Delays>) -> anyhow::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let mut relays = Self { stop, threads: Vec::new() };
        for (name, delays) in machines {
            let (ready, is_ready) = mpsc::sync_channel(1);
            let stopped = stopped.clone();
            relays.threads.push(std::thread::spawn(move || relay(&name, delays, stopped, &ready)));
            is_ready.recv().context("a relay ended before it listened")??;
        }
        Ok(relays)
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            // One that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

type Ready = mpsc::SyncSender<anyhow::Result<()>>;

/// One machine's relay, on a thread that lives in the machine's namespace.
fn relay(name: &str, delays: Delays, mut stopped: watch::Receiver<bool>, ready: &Ready) {
    let started = || -> anyhow::Result<_> {
        let namespace = std::fs::File::open(Net::file(name))?;
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::UNSPECIFIED, RELAY_PORT)))?;
        Ok((runtime, listener))
    };
    let (runtime, listener) = match started() {
        Ok(started) => started,
        Err(error) => {
            // Whoever waits for it has given up only if this program ends.
            let _ = ready.send(Err(error.context(format!("the relay of {name} does not start"))));
            return;
        }
    };
    let _ = ready.send(Ok(()));
    let delays = Arc::new(delays);
    runtime.block_on(async {
        loop {
            tokio::select! {
                _ = stopped.changed() => break,
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted {
                        tokio::spawn(carry(stream, Arc::clone(&delays)));
                    }
                }
            }
        }
    });
    // Its tasks, and with them all connections, end with the runtime.
}

/// A connection, from whoever opened it to where it was meant for.
async fn carry(near: TcpStream, delays: Arc<Delays>) {
    let Ok(meant) = getsockopt(&near, sockopt::OriginalDst) else { return };
    let address = Ipv4Addr::from(u32::from_be(meant.sin_addr.s_addr));
    let port = u16::from_be(meant.sin_port);
    let delay = delays.get(&address).copied().unwrap_or_default();
    let Ok(far) = open(SocketAddrV4::new(address, port)).await else { return };
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    let there = tokio::spawn(pass(near_in, far_out, delay));
    pass(far_in, near_out, delay).await;
    // It ends when its own end is closed, or with the relay.
    drop(there);
}

async fn open(to: SocketAddrV4) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    setsockopt(&socket, sockopt::Mark, &RELAY_MARK)?;
    Ok(socket.connect(SocketAddr::V4(to)).await?)
}

/// Passes bytes on, each as late as the others, until either end is closed.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (send, mut receive) = queue::channel::<(Instant, Vec<u8>)>(RELAY_BYTES_MAX / RELAY_READ_BYTES);
    let reader = async move {
        let mut buffer = vec![0; RELAY_READ_BYTES];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            if send.send((Instant::now() + delay, buffer[..count].to_vec())).await.is_err() {
                break;
            }
        }
    };
    let writer = async move {
        while let Some((due, bytes)) = receive.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        // An end that is gone says so itself.
        let _ = to.shutdown().await;
    };
    tokio::join!(reader, writer);
}
