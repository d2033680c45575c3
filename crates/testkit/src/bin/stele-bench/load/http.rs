//! As little of an HTTP/1.1 client as answers with a length need.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Largest answer read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
const READ_BYTES: usize = 4096;

/// One kept connection.
pub(crate) struct Http {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Http {
    pub(crate) async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: Vec::with_capacity(READ_BYTES) })
    }

    /// The bytes of a request with a JSON body.
    pub(crate) fn request(method: &str, path: &str, token: &str, body: &str) -> Vec<u8> {
        format!(
            "{method} {path} HTTP/1.1\r\nhost: stele\r\nauthorization: Bearer {token}\r\ncontent-type: \
             application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }

    /// Sends a request; an answer other than 200 is an error.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.stream.write_all(request).await?;
        self.read.clear();
        let head = loop {
            if let Some(at) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let (status, length) = parse(&self.read[..head])?;
        while self.read.len() < head + length {
            self.more().await?;
        }
        let body = self.read.get(head..).unwrap_or_default();
        ensure!(status == 200, "HTTP {status}: {}", String::from_utf8_lossy(body));
        Ok(body.to_vec())
    }

    async fn more(&mut self) -> anyhow::Result<()> {
        ensure!(self.read.len() < ANSWER_BYTES_MAX, "the answer is too large");
        let read = self.stream.read_buf(&mut self.read).await?;
        ensure!(read > 0, "the connection was closed instead of an answer");
        Ok(())
    }
}

/// Status and length of the body.
fn parse(head: &[u8]) -> anyhow::Result<(u16, usize)> {
    let head = std::str::from_utf8(head).context("a head is text")?;
    let status = head.split(' ').nth(1).context("no status line")?;
    Ok((status.parse()?, body_length(head)?))
}

/// The length that the head of a request or an answer tells.
pub(crate) fn body_length(head: &str) -> anyhow::Result<usize> {
    let mut fields = head.split("\r\n").filter_map(|line| line.split_once(':'));
    let (_, length) = fields
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .with_context(|| format!("a head does not say the length of its body: {head}"))?;
    Ok(length.trim().parse()?)
}
