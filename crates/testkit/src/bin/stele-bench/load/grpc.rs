//! Unary gRPC calls over HTTP/2: what etcd's own clients speak.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use tokio::net::TcpStream;
use ureq::http::Request;

/// Connections, at most: as many as etcd's own benchmarks open for a thousand clients.
const CONNECTIONS_MAX: usize = 100;

/// One client's way to the server.
#[derive(Clone)]
pub(crate) struct Grpc {
    send: SendRequest<Bytes>,
    uri: String,
}

/// Opens connections for so many clients.
pub(crate) async fn connect(address: SocketAddr, path: &str, clients: usize) -> anyhow::Result<Vec<Grpc>> {
    let mut connections = Vec::new();
    for _ in 0..clients.clamp(1, CONNECTIONS_MAX) {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (send, connection) = h2::client::handshake(stream).await?;
        // It ends with the last client, and what breaks it breaks a call.
        tokio::task::spawn_local(async move { drop(connection.await) });
        connections.push(Grpc { send, uri: format!("http://{address}{path}") });
    }
    Ok(connections)
}

impl Grpc {
    /// Calls with an encoded message; any status but OK is an error.
    pub(crate) async fn ask(&mut self, message: Vec<u8>) -> anyhow::Result<()> {
        let request = Request::post(&self.uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let mut framed = BytesMut::with_capacity(message.len() + 5);
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len())?);
        framed.extend_from_slice(&message);
        let mut send = self.send.clone().ready().await?;
        let (answer, mut body) = send.send_request(request, false)?;
        body.send_data(framed.freeze(), true)?;
        let mut answer = answer.await?.into_body();
        while let Some(data) = answer.data().await {
            let data = data?;
            answer.flow_control().release_capacity(data.len())?;
        }
        let trailers = answer.trailers().await?.context("the answer has no trailers")?;
        let status = trailers.get("grpc-status").and_then(|status| status.to_str().ok());
        ensure!(status == Some("0"), "gRPC status {status:?}: {:?}", trailers.get("grpc-message"));
        Ok(())
    }
}
