//! Who may talk to whom, in TLS's terms.

use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

/// Why certificates could not be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM, or nothing in it.
    #[error("the {what} cannot be read: {detail}")]
    Parse {
        /// Which of the files.
        what: &'static str,
        /// The words of the parser.
        detail: String,
    },
    /// TLS refuses them.
    #[error("the certificates cannot be used: {0}")]
    Unusable(String),
    /// The certificate is for somebody else.
    #[error("the certificate is not that of {expected}: {detail}")]
    NotOurs {
        /// The name it should bear.
        expected: String,
        /// The names it bears.
        detail: String,
    },
}

/// A controller's certificates.
#[derive(Clone)]
pub struct Tls {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) client: Arc<ClientConfig>,
    leaf: CertificateDer<'static>,
}

/// The name in the certificate of a controller.
pub fn controller_name(id: u64) -> String {
    format!("controller-{id}")
}

// Chosen here and not process-wide: another library's choice must not change
// how controllers authenticate each other.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(crate) fn roots(ca_pem: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("fleet's certificate", ca_pem)? {
        roots.add(certificate).map_err(|error| TlsError::Unusable(error.to_string()))?;
    }
    Ok(roots)
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let parse = |detail: String| TlsError::Parse { what, detail };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.map_err(|error| parse(error.to_string()))?;
    if found.is_empty() {
        return Err(parse("there is no certificate in it".to_owned()));
    }
    Ok(found)
}

impl Tls {
    /// Takes the fleet's certificate, and a controller's own with its key.
    pub fn from_pem(ca_pem: &str, certificate_pem: &str, key_pem: &str) -> Result<Self, TlsError> {
        let unusable = |error: rustls::Error| TlsError::Unusable(error.to_string());
        let roots = Arc::new(roots(ca_pem)?);
        let chain = certificates("controller's certificate", certificate_pem)?;
        let leaf = chain[0].clone();
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|error| TlsError::Parse { what: "controller's key", detail: error.to_string() })?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
            .build()
            .map_err(|error| TlsError::Unusable(error.to_string()))?;
        let server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(unusable)?;
        let client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(unusable)?;
        Ok(Self { server: Arc::new(server), client: Arc::new(client), leaf })
    }

    /// Checks that the certificate is that of controller `id`, so that a mixed
    /// up file is noticed at the start and not as a refusal by every peer.
    pub(crate) fn check_own(&self, id: u64) -> Result<(), TlsError> {
        check_name(&self.leaf, id)
            .map_err(|detail| TlsError::NotOurs { expected: controller_name(id), detail })
    }
}

/// Whether a certificate, verified already, is that of controller `id`.
pub(crate) fn check_name(certificate: &CertificateDer<'_>, id: u64) -> Result<(), String> {
    let parsed = ParsedCertificate::try_from(certificate).map_err(|error| error.to_string())?;
    let name = ServerName::try_from(controller_name(id)).map_err(|error| error.to_string())?;
    verify_server_name(&parsed, &name).map_err(|error| error.to_string())
}
