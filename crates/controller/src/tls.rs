//! The API over TLS. Handshakes run beside one another, so that a client that
//! never finishes its own keeps nobody else out.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::limits::{TLS_HANDSHAKE_DEADLINE, TLS_HANDSHAKES_MAX};

/// Serves TLS with these PEM texts.
pub(crate) fn acceptor(certificate: &str, key: &str) -> anyhow::Result<TlsAcceptor> {
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .context("the API's certificate is not PEM")?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).context("the API's key is not PEM")?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("the API's certificate and key do not belong together")?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Answers leave at once, also while the client has not acknowledged the one before.
pub(crate) fn without_delay(stream: &mut TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "answers may leave late");
    }
}

/// Connections whose handshake is done.
pub(crate) struct Listener {
    address: std::io::Result<SocketAddr>,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl Listener {
    pub(crate) fn new(mut listener: TcpListener, acceptor: TlsAcceptor) -> Self {
        let address = listener.local_addr();
        let (done, ready) = mpsc::channel(TLS_HANDSHAKES_MAX);
        let slots = Arc::new(Semaphore::new(TLS_HANDSHAKES_MAX));
        tokio::spawn(async move {
            while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
                // axum's own: it waits a little when the system is out of file descriptors.
                let (mut stream, peer) = axum::serve::Listener::accept(&mut listener).await;
                without_delay(&mut stream);
                if done.is_closed() {
                    return;
                }
                let (acceptor, done) = (acceptor.clone(), done.clone());
                tokio::spawn(async move {
                    match tokio::time::timeout(TLS_HANDSHAKE_DEADLINE, acceptor.accept(stream)).await {
                        // The server that wanted it may be gone.
                        Ok(Ok(stream)) => drop(done.send((stream, peer)).await),
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
                        Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
                    }
                    drop(slot);
                });
            }
        });
        Self { address, ready }
    }
}

impl axum::serve::Listener for Listener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // Its task ends only with the runtime.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        match &self.address {
            Ok(address) => Ok(*address),
            Err(error) => Err(std::io::Error::new(error.kind(), error.to_string())),
        }
    }
}
