//! Who may talk to whom, in TLS's terms.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::ServerCertVerifier as _;
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

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
    roots: Arc<RootCertStore>,
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
            .with_root_certificates(Arc::clone(&roots))
            .with_client_auth_cert(chain, key)
            .map_err(unusable)?;
        Ok(Self { server: Arc::new(server), client: Arc::new(client), roots, leaf })
    }

    /// Checks that others would believe the certificate of controller `id` at a time since 1970: it ends some day, and
    /// then all connections fail.
    pub fn check_at(&self, id: u64, since_1970: Duration) -> Result<(), TlsError> {
        check_at(Arc::clone(&self.roots), &self.leaf, id, UnixTime::since_unix_epoch(since_1970))
            .map_err(TlsError::Unusable)
    }

    /// When the certificate ends, since 1970, if it can be read at all.
    pub fn not_after(&self) -> Option<Duration> {
        self.not_after_of(&self.leaf)
    }

    /// The same of another controller's.
    pub(crate) fn not_after_of(&self, leaf: &CertificateDer<'_>) -> Option<Duration> {
        let roots = Arc::clone(&self.roots);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider()).build().ok()?;
        let name = ServerName::try_from("localhost").ok()?;
        // At the end of time every certificate has ended, and the refusal says since when. Dates are looked at first.
        let at = UnixTime::since_unix_epoch(Duration::MAX);
        match verifier.verify_server_cert(leaf, &[], &name, &[], at) {
            Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
                not_after, ..
            })) => Some(Duration::from_secs(not_after.as_secs())),
            _ => None,
        }
    }

    /// Checks that the certificate is that of controller `id`, so that a mixed
    /// up file is noticed at the start and not as a refusal by every peer.
    pub(crate) fn check_own(&self, id: u64) -> Result<(), TlsError> {
        check_name(&self.leaf, id)
            .map_err(|detail| TlsError::NotOurs { expected: controller_name(id), detail })
    }
}

/// Whether others would believe the certificate of controller `id` at a time.
pub(crate) fn check_at(
    roots: Arc<RootCertStore>,
    leaf: &CertificateDer<'_>,
    id: u64,
    at: UnixTime,
) -> Result<(), String> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|error| error.to_string())?;
    let name = ServerName::try_from(controller_name(id)).map_err(|error| error.to_string())?;
    verifier.verify_server_cert(leaf, &[], &name, &[], at).map(drop).map_err(|error| error.to_string())
}

/// Whether a certificate, verified already, is that of controller `id`.
pub(crate) fn check_name(certificate: &CertificateDer<'_>, id: u64) -> Result<(), String> {
    let parsed = ParsedCertificate::try_from(certificate).map_err(|error| error.to_string())?;
    let name = ServerName::try_from(controller_name(id)).map_err(|error| error.to_string())?;
    verify_server_name(&parsed, &name).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::SystemTime;

    use super::*;
    use crate::ca::{Authority, CERTIFICATE_VALIDITY};

    #[test]
    fn a_certificate_ends_when_it_says() {
        let authority = Authority::create("demo").unwrap();
        let issued = authority.issue(7, &[]).unwrap();
        let tls =
            Tls::from_pem(authority.certificate_pem(), &issued.certificate_pem, &issued.key_pem).unwrap();
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let day = Duration::from_hours(24);
        tls.check_at(7, now).unwrap();
        tls.check_at(7, now + CERTIFICATE_VALIDITY.saturating_sub(day)).unwrap();
        assert!(tls.check_at(8, now).is_err(), "it is of another controller");
        let ended = tls.check_at(7, now + CERTIFICATE_VALIDITY + day).unwrap_err().to_string();
        assert!(ended.contains("expired"), "{ended}");
        let end = tls.not_after().unwrap();
        tls.check_at(7, end).unwrap();
        tls.check_at(7, end + Duration::from_secs(1)).unwrap_err();
    }
}
