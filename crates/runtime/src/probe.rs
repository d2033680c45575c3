//! Health checks over the network. They run on the host, which reaches containers by
//! their own addresses.

use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::limits::HTTP_STATUS_BYTES_MAX;

/// Whether a connection opens.
pub(crate) async fn tcp(address: IpAddr, port: u16) -> Result<TcpStream, String> {
    let target = SocketAddr::new(address, port);
    TcpStream::connect(target).await.map_err(|error| format!("cannot connect to port {port}: {error}"))
}

/// Whether `GET` answers 200 to 399.
pub(crate) async fn http(address: IpAddr, port: u16, path: &str) -> Result<(), String> {
    if !path.starts_with('/') || path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(format!("{path:?} is not a path that can be asked for"));
    }
    let mut stream = tcp(address, port).await?;
    let host = SocketAddr::new(address, port);
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: stele-agent\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    let failed = |error: std::io::Error| format!("no answer to GET {path}: {error}");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;

    let mut answer = Vec::new();
    let mut limited = stream.take(HTTP_STATUS_BYTES_MAX as u64);
    // The status line is all that counts; the rest is not read.
    while !answer.contains(&b'\n') {
        if limited.read_buf(&mut answer).await.map_err(failed)? == 0 {
            break;
        }
    }
    match status(&answer) {
        Some(200..=399) => Ok(()),
        Some(status) => Err(format!("GET {path} answered {status}")),
        None => Err(format!("GET {path} was not answered in HTTP")),
    }
}

fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::net::TcpListener;

    async fn asked(answer: &'static [u8]) -> (Result<(), String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            stream.write_all(answer).await.unwrap();
            String::from_utf8(request[..length].to_vec()).unwrap()
        });
        let outcome = http(address.ip(), address.port(), "/health?deep=1").await;
        (outcome, server.await.unwrap())
    }

    #[tokio::test]
    async fn only_a_status_of_success_or_redirection_is_healthy() {
        let (outcome, request) = asked(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(outcome, Ok(()));
        assert!(request.starts_with("GET /health?deep=1 HTTP/1.1\r\nHost: 127.0.0.1:"), "{request}");
        assert_eq!(asked(b"HTTP/1.0 302 Found\r\n\r\n").await.0, Ok(()));
        let (outcome, _) = asked(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").await;
        assert_eq!(outcome, Err("GET /health?deep=1 answered 503".to_owned()));
        assert!(asked(b"SSH-2.0-OpenSSH\r\n").await.0.is_err());
        assert!(asked(b"").await.0.is_err());
    }

    #[tokio::test]
    async fn a_path_cannot_smuggle_a_header() {
        let outcome = http([127, 0, 0, 1].into(), 1, "/ HTTP/1.1\r\nX: y").await;
        assert!(outcome.unwrap_err().contains("not a path"));
    }

    #[tokio::test]
    async fn a_closed_port_is_unhealthy() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(tcp([127, 0, 0, 1].into(), port).await.is_ok());
        drop(listener);
        assert!(tcp([127, 0, 0, 1].into(), port).await.unwrap_err().contains("cannot connect"));
    }
}
