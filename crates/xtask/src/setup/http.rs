//! Just enough HTTP to ask a local registry two questions without a client library.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};

use anyhow::{Context, Result, bail};

use crate::limits::{ANSWER_TIMEOUT, CONNECT_TIMEOUT, MAX_ANSWER_BYTES};

/// Status and headers of an answer; the body is not looked at.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The HTTP status code.
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
}

impl Answer {
    /// A header's value; names are compared without regard to case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Asks a server at `host:port` for a path.
pub(crate) fn request(method: &str, addr: &str, path: &str, accept: &str) -> Result<Answer> {
    let resolved = addr
        .to_socket_addrs()
        .with_context(|| format!("{addr} is not an address"))?
        .next()
        .with_context(|| format!("{addr} stands for no address"))?;
    let mut stream = TcpStream::connect_timeout(&resolved, CONNECT_TIMEOUT)
        .with_context(|| format!("nothing answers at {addr}"))?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {addr}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    )?;
    let mut bytes = Vec::new();
    stream
        .take(MAX_ANSWER_BYTES)
        .read_to_end(&mut bytes)
        .with_context(|| format!("{addr} did not answer"))?;
    parse(&String::from_utf8_lossy(&bytes)).with_context(|| format!("{addr} does not speak HTTP"))
}

fn parse(text: &str) -> Result<Answer> {
    let mut lines = text.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let mut words = status_line.split(' ');
    if !words.next().is_some_and(|word| word.starts_with("HTTP/1.")) {
        bail!("the answer begins with {status_line:?}");
    }
    let status = words
        .next()
        .and_then(|word| word.parse().ok())
        .with_context(|| format!("no status in {status_line:?}"))?;
    let headers = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    Ok(Answer { status, headers })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn headers_end_where_the_body_begins() {
        let answer = parse("HTTP/1.1 200 OK\r\nDocker-Content-Digest: sha256:ab\r\n\r\nX: y\r\n").unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("docker-content-digest"), Some("sha256:ab"));
        assert_eq!(answer.header("x"), None);
    }

    #[test]
    fn another_protocol_is_named_as_such() {
        let error = parse("INFO {\"server_id\":\"N\"}\r\n").unwrap_err();
        assert!(error.to_string().contains("INFO"), "{error}");
    }
}
