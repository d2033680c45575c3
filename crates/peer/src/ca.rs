//! The fleet's certificate authority for controllers.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::tls::{check_at, controller_name, roots};

/// How long an authority is valid: 10 years.
pub const AUTHORITY_VALIDITY: Duration = Duration::from_hours(10 * 365 * 24);

/// How long a controller's certificate is valid: 5 years, as long as the fleet's root certifies its key for.
pub const CERTIFICATE_VALIDITY: Duration = Duration::from_hours(5 * 365 * 24);

/// How far a certificate reaches back, for hosts whose clocks are behind: a day.
pub const BACKDATE: Duration = Duration::from_hours(24);

/// Why a certificate was not made.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Making keys or certificates failed.
    #[error("making a certificate failed")]
    Generate(#[from] rcgen::Error),
    /// A certificate or key is not PEM.
    #[error("the authority's {what} cannot be read: {detail}")]
    Parse {
        /// `certificate` or `key`.
        what: &'static str,
        /// The words of the parser.
        detail: String,
    },
    /// Certificate, key and fleet do not belong together.
    #[error("the authority cannot issue certificates for fleet {fleet}: {detail}")]
    Mismatch {
        /// The fleet asked for.
        fleet: String,
        /// What the verification of a trial certificate said.
        detail: String,
    },
    /// Ids start at 1.
    #[error("0 is not a controller id")]
    ZeroId,
}

/// A certificate and its private key, both as PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate_pem: String,
    /// The private key. It goes to its owner only, with mode 0600.
    pub key_pem: String,
}

/// Can make a controller trusted by all others. Its key belongs on a machine
/// that is not a controller.
pub struct Authority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn validity(params: &mut CertificateParams, lasts: Duration) {
    valid_from(params, SystemTime::now(), lasts);
}

fn valid_from(params: &mut CertificateParams, now: SystemTime, lasts: Duration) {
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + lasts).into();
}

fn authority_params(fleet: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Stele");
    name.push(DnType::CommonName, format!("Stele fleet {fleet}"));
    params.distinguished_name = name;
    // It signs leaves and nothing that could sign in turn.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params, AUTHORITY_VALIDITY);
    params
}

impl Authority {
    /// Makes a new authority for a fleet.
    pub fn create(fleet: &str) -> Result<Self, CaError> {
        let key = KeyPair::generate()?;
        let params = authority_params(fleet);
        let certificate_pem = params.self_signed(&key)?.pem();
        Ok(Self { certificate_pem, issuer: Issuer::new(params, key) })
    }

    /// Takes up an authority that was made before, for the same fleet.
    pub fn from_pem(fleet: &str, certificate_pem: &str, key_pem: &str) -> Result<Self, CaError> {
        let key = KeyPair::from_pem(key_pem)
            .map_err(|error| CaError::Parse { what: "key", detail: error.to_string() })?;
        let authority = Self {
            certificate_pem: certificate_pem.to_owned(),
            issuer: Issuer::new(authority_params(fleet), key),
        };
        authority.check(fleet)?;
        Ok(authority)
    }

    /// Issues a trial certificate and verifies it as a peer would: a key of
    /// another authority is noticed here, not when the controller is refused.
    fn check(&self, fleet: &str) -> Result<(), CaError> {
        let mismatch = |detail: String| CaError::Mismatch { fleet: fleet.to_owned(), detail };
        let parse = |detail: String| CaError::Parse { what: "certificate", detail };
        let roots = roots(&self.certificate_pem).map_err(|error| parse(error.to_string()))?;
        let trial = self.issue(1, &[])?;
        let leaf = CertificateDer::from_pem_slice(trial.certificate_pem.as_bytes())
            .map_err(|error| parse(error.to_string()))?;
        check_at(Arc::new(roots), &leaf, 1, UnixTime::now()).map_err(mismatch)
    }

    /// The certificate that every controller trusts.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key. Whoever holds it can join the fleet as any controller.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Issues a certificate to a controller, as a server and as a client.
    /// `addresses` are added for those who connect to an address by its number.
    pub fn issue(&self, controller: u64, addresses: &[IpAddr]) -> Result<Issued, CaError> {
        if controller == 0 {
            return Err(CaError::ZeroId);
        }
        let name = controller_name(controller);
        let mut params = CertificateParams::new(vec![name.clone(), "localhost".to_owned()])?;
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        validity(&mut params, CERTIFICATE_VALIDITY);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tls::Tls;

    #[test]
    fn an_authority_survives_its_pem() {
        let made = Authority::create("demo").unwrap();
        let (certificate, key) = (made.certificate_pem().to_owned(), made.key_pem());
        let loaded = Authority::from_pem("demo", &certificate, &key).unwrap();
        assert!(loaded.issue(7, &[]).unwrap().certificate_pem.contains("BEGIN CERTIFICATE"));
    }

    /// The guide for operators counts on it. TLS takes the authority's name and key, and not its dates.
    #[test]
    fn an_authority_that_has_ended_still_vouches_for_controllers() {
        let key = KeyPair::generate().unwrap();
        let mut params = authority_params("demo");
        valid_from(&mut params, SystemTime::now() - 2 * AUTHORITY_VALIDITY, AUTHORITY_VALIDITY);
        let certificate = params.self_signed(&key).unwrap().pem();
        let loaded = Authority::from_pem("demo", &certificate, &key.serialize_pem()).unwrap();
        let issued = loaded.issue(7, &[]).unwrap();
        let tls = Tls::from_pem(&certificate, &issued.certificate_pem, &issued.key_pem).unwrap();
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        tls.check_at(7, now).unwrap();
        tls.check_at(7, now + CERTIFICATE_VALIDITY + BACKDATE).unwrap_err();
    }

    #[test]
    fn an_authority_is_refused_with_the_key_or_the_fleet_of_another() {
        let one = Authority::create("demo").unwrap();
        let two = Authority::create("demo").unwrap();
        let mixed = Authority::from_pem("demo", one.certificate_pem(), &two.key_pem());
        assert!(matches!(mixed, Err(CaError::Mismatch { .. })));
        let renamed = Authority::from_pem("prod", one.certificate_pem(), &one.key_pem());
        assert!(matches!(renamed, Err(CaError::Mismatch { .. })));
        let broken = Authority::from_pem("demo", "no pem", &one.key_pem());
        assert!(matches!(broken, Err(CaError::Parse { .. })));
    }
}
