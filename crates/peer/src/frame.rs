//! The frames on the wire: length (4 bytes), kind (1 byte), body.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::limits;

/// The version of this protocol. Peers of different versions do not talk.
pub(crate) const PROTOCOL: u16 = 1;

/// What a connection is for. Each has its own, so that neither large answers
/// nor snapshots delay a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Small raft messages.
    Raft = 0,
    /// Requests and their answers.
    Request = 1,
    /// Large raft messages.
    Bulk = 2,
}

impl Lane {
    pub(crate) const ALL: [Self; 3] = [Self::Raft, Self::Request, Self::Bulk];
}

/// How a request ended at the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done = 0,
    Failed = 1,
    Busy = 2,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// The first frame of whoever connected.
    Hello {
        protocol: u16,
        node: u64,
        lane: u8,
        fleet: String,
    },
    /// The answer: go on.
    Welcome,
    /// The answer: no, and why.
    Refused(String),
    Raft(Vec<u8>),
    Request {
        id: u64,
        deadline_ms: u32,
        body: Vec<u8>,
    },
    Answer {
        id: u64,
        outcome: Outcome,
        body: Vec<u8>,
    },
    Ping,
    Pong,
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the peer sent a malformed frame: {what}"))
}

impl Frame {
    /// Kind, fixed part and body.
    fn parts(&self) -> (u8, Vec<u8>, &[u8]) {
        match self {
            Self::Hello { protocol, node, lane, fleet } => {
                let mut head = protocol.to_be_bytes().to_vec();
                head.extend_from_slice(&node.to_be_bytes());
                head.push(*lane);
                (1, head, fleet.as_bytes())
            }
            Self::Welcome => (2, Vec::new(), &[]),
            Self::Refused(why) => (3, Vec::new(), why.as_bytes()),
            Self::Raft(body) => (4, Vec::new(), body),
            Self::Request { id, deadline_ms, body } => {
                let mut head = id.to_be_bytes().to_vec();
                head.extend_from_slice(&deadline_ms.to_be_bytes());
                (5, head, body)
            }
            Self::Answer { id, outcome, body } => {
                let mut head = id.to_be_bytes().to_vec();
                head.push(*outcome as u8);
                (6, head, body)
            }
            Self::Ping => (7, Vec::new(), &[]),
            Self::Pong => (8, Vec::new(), &[]),
        }
    }

    fn parse(kind: u8, body: Vec<u8>) -> io::Result<Self> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| malformed("a text is not UTF-8"));
        let nothing = |frame: Self| {
            if body.is_empty() { Ok(frame) } else { Err(malformed("a body where none belongs")) }
        };
        match kind {
            1 => {
                let (protocol, rest) = body.split_first_chunk::<2>().ok_or_else(|| malformed("hello"))?;
                let (node, rest) = rest.split_first_chunk::<8>().ok_or_else(|| malformed("hello"))?;
                let (lane, fleet) = rest.split_first().ok_or_else(|| malformed("hello"))?;
                Ok(Self::Hello {
                    protocol: u16::from_be_bytes(*protocol),
                    node: u64::from_be_bytes(*node),
                    lane: *lane,
                    fleet: text(fleet.to_vec())?,
                })
            }
            2 => nothing(Self::Welcome),
            3 => Ok(Self::Refused(text(body)?)),
            4 => Ok(Self::Raft(body)),
            5 => {
                let (id, rest) = body.split_first_chunk::<8>().ok_or_else(|| malformed("request"))?;
                let (deadline, body) = rest.split_first_chunk::<4>().ok_or_else(|| malformed("request"))?;
                Ok(Self::Request {
                    id: u64::from_be_bytes(*id),
                    deadline_ms: u32::from_be_bytes(*deadline),
                    body: body.to_vec(),
                })
            }
            6 => {
                let (id, rest) = body.split_first_chunk::<8>().ok_or_else(|| malformed("answer"))?;
                let (outcome, body) = rest.split_first().ok_or_else(|| malformed("answer"))?;
                let outcome = match outcome {
                    0 => Outcome::Done,
                    1 => Outcome::Failed,
                    2 => Outcome::Busy,
                    _ => return Err(malformed("unknown outcome")),
                };
                Ok(Self::Answer { id: u64::from_be_bytes(*id), outcome, body: body.to_vec() })
            }
            7 => nothing(Self::Ping),
            8 => nothing(Self::Pong),
            _ => Err(malformed("unknown kind")),
        }
    }
}

fn stalled(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("the peer stopped {what}"))
}

/// Length and kind, with which every frame begins.
const FRAME_START_BYTES: usize = 5;

/// Writes one frame. Gives up when the other side takes nothing for
/// `STALL_TIMEOUT`, however large the frame is.
pub(crate) async fn write_frame<W: AsyncWrite + Unpin>(to: &mut W, frame: &Frame) -> io::Result<()> {
    let (kind, head, body) = frame.parts();
    let length = 1 + head.len() + body.len();
    let length = u32::try_from(length)
        .ok()
        .filter(|_| length <= limits::MAX_FRAME_BYTES)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the frame is too large"))?;
    // What is short leaves in one piece: two would wake the other side twice.
    let (first, rest) = body.split_at(body.len().min(limits::IO_CHUNK_BYTES));
    let mut start = Vec::with_capacity(FRAME_START_BYTES + head.len() + first.len());
    start.extend_from_slice(&length.to_be_bytes());
    start.push(kind);
    start.extend_from_slice(&head);
    start.extend_from_slice(first);
    for chunk in std::iter::once(start.as_slice()).chain(rest.chunks(limits::IO_CHUNK_BYTES)) {
        timeout(limits::STALL_TIMEOUT, to.write_all(chunk)).await.map_err(|_| stalled("reading"))??;
    }
    timeout(limits::STALL_TIMEOUT, to.flush()).await.map_err(|_| stalled("reading"))?
}

/// Reads frames, and knows when the other side is merely silent because this
/// side is busy writing.
pub(crate) struct FrameReader<'a, R> {
    from: R,
    max_bytes: usize,
    writing: Option<&'a AtomicBool>,
}

impl<'a, R: AsyncRead + Unpin> FrameReader<'a, R> {
    pub(crate) fn new(from: R, max_bytes: usize, writing: Option<&'a AtomicBool>) -> Self {
        Self { from, max_bytes, writing }
    }

    /// Reads one frame. Not to be cancelled half-way.
    pub(crate) async fn next(&mut self) -> io::Result<Frame> {
        let mut head = [0; 5];
        self.fill(&mut head, limits::STALL_TIMEOUT).await?;
        let [a, b, c, d, kind] = head;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length == 0 || length > self.max_bytes {
            return Err(malformed("its length is out of bounds"));
        }
        let mut left = length - 1;
        let mut body = Vec::new();
        // Memory grows with what really arrives, not with what was announced.
        while left > 0 {
            let start = body.len();
            body.resize(start + left.min(limits::IO_CHUNK_BYTES), 0);
            self.fill(&mut body[start..], limits::STALL_TIMEOUT).await?;
            left -= body.len() - start;
        }
        Frame::parse(kind, body)
    }

    async fn fill(&mut self, buffer: &mut [u8], patience: Duration) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            // A single read may be cancelled without losing bytes.
            match timeout(patience, self.from.read(&mut buffer[filled..])).await {
                Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(Ok(bytes)) => filled += bytes,
                Ok(Err(error)) => return Err(error),
                Err(_) if self.writing.is_some_and(|busy| busy.load(Ordering::Relaxed)) => {}
                Err(_) => return Err(stalled("writing")),
            }
        }
        Ok(())
    }
}

/// Reads frames until the bytes end or one is refused, and writes again what was read.
/// For tests of what arbitrary bytes do.
pub async fn reread_frames(bytes: &[u8]) -> Vec<u8> {
    let mut frames = FrameReader::new(bytes, limits::MAX_FRAME_BYTES, None);
    let mut written = Vec::new();
    while let Ok(frame) = frames.next().await {
        if write_frame(&mut written, &frame).await.is_err() {
            break;
        }
    }
    written
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn trip(frame: Frame) -> Frame {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, &frame).await.unwrap();
        FrameReader::new(bytes.as_slice(), limits::MAX_FRAME_BYTES, None).next().await.unwrap()
    }

    #[tokio::test]
    async fn every_frame_survives_the_wire() {
        for frame in [
            Frame::Hello { protocol: 3, node: 9, lane: 2, fleet: "demo".to_owned() },
            Frame::Welcome,
            Frame::Refused("no".to_owned()),
            Frame::Raft(vec![1; 700_000]),
            Frame::Request { id: 5, deadline_ms: 100, body: b"do".to_vec() },
            Frame::Answer { id: 5, outcome: Outcome::Busy, body: Vec::new() },
            Frame::Ping,
            Frame::Pong,
        ] {
            assert_eq!(trip(frame.clone()).await, frame);
        }
    }

    #[tokio::test]
    async fn malformed_and_oversized_frames_are_refused() {
        let refused =
            async |bytes: &[u8]| FrameReader::new(bytes, 1000, None).next().await.unwrap_err().kind();
        assert_eq!(refused(&[0, 0, 0, 0, 1]).await, io::ErrorKind::InvalidData);
        assert_eq!(refused(&[0, 0, 0, 1, 99]).await, io::ErrorKind::InvalidData);
        assert_eq!(refused(&[0, 0, 0, 3, 5, 0, 0]).await, io::ErrorKind::InvalidData);
        assert_eq!(refused(&[255, 255, 255, 255, 4]).await, io::ErrorKind::InvalidData);
        assert_eq!(refused(&[0, 0, 0, 9, 4, 1]).await, io::ErrorKind::UnexpectedEof);
        assert_eq!(refused(&[0, 0, 0, 2, 7, 0]).await, io::ErrorKind::InvalidData);
        assert_eq!(refused(&[0, 0, 0, 2, 3, 0xff]).await, io::ErrorKind::InvalidData);
    }
}
