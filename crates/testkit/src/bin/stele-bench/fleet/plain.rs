//! The limit: messages of the same size published by NATS alone to as many connections.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use stele_bus::server::{NatsServer, NatsServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::{DEADLINE, now_us};

const CONNECT: &[u8] = b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n";

const PING: &[u8] = b"PING\r\n";

/// Time from the first publish until each connection has its message.
pub(super) fn publish(connections: usize, bytes: usize, rounds: usize) -> anyhow::Result<Vec<Vec<Duration>>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let folder = tempfile::Builder::new().prefix("stele-bench-nats-").tempdir()?;
    runtime.block_on(async {
        let server = NatsServer::spawn(NatsServerConfig::new(folder.path().join("nats"))).await?;
        let address = server.url().trim_start_matches("nats://").to_owned();
        let (told, mut heard) = mpsc::unbounded_channel();
        for at in 0..connections {
            tokio::spawn(listen(connect(&address, Some(at)).await?, told.clone()));
        }
        let mut publisher = tokio::io::BufWriter::new(connect(&address, None).await?);
        let message = vec![b'x'; bytes];
        let mut all = Vec::new();
        for _ in 0..rounds {
            let began = now_us();
            for at in 0..connections {
                publisher.write_all(format!("PUB plain.{at} {bytes}\r\n").as_bytes()).await?;
                publisher.write_all(&message).await?;
                publisher.write_all(b"\r\n").await?;
            }
            publisher.flush().await?;
            let mut times = Vec::with_capacity(connections);
            while times.len() < connections {
                let at: u64 =
                    tokio::time::timeout(DEADLINE, heard.recv()).await?.context("all listeners ended")?;
                times.push(Duration::from_micros(at.saturating_sub(began)));
            }
            all.push(times);
        }
        drop(server);
        Ok(all)
    })
}

async fn connect(address: &str, listens: Option<usize>) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(CONNECT).await?;
    if let Some(at) = listens {
        stream.write_all(format!("SUB plain.{at} 1\r\n").as_bytes()).await?;
    }
    stream.write_all(b"PING\r\n").await?;
    // The server greets, and answers the ping once it knows the subscription.
    let mut read = Vec::new();
    while !read.ends_with(b"PONG\r\n") {
        ensure!(stream.read_buf(&mut read).await? > 0, "NATS closed the connection");
    }
    Ok(stream)
}

/// Tells when each message is complete.
async fn listen(mut stream: TcpStream, told: mpsc::UnboundedSender<u64>) {
    let mut read = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut read).await {
        loop {
            if let Some(length) = message(&read) {
                read.drain(..length);
                if told.send(now_us()).is_err() {
                    return;
                }
            } else if read.starts_with(PING) {
                read.drain(..PING.len());
                if stream.write_all(b"PONG\r\n").await.is_err() {
                    return;
                }
            } else {
                break;
            }
        }
    }
}

/// The length of the message that is complete at the beginning.
fn message(read: &[u8]) -> Option<usize> {
    if !read.starts_with(b"MSG ") {
        return None;
    }
    let head = read.windows(2).position(|two| two == b"\r\n")? + 2;
    let size: usize = std::str::from_utf8(&read[..head]).ok()?.trim().rsplit(' ').next()?.parse().ok()?;
    (read.len() >= head + size + 2).then_some(head + size + 2)
}
