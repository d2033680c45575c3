//! Resolving image references to digests, once, by the registry's word.

use std::collections::BTreeMap;
use std::str::FromStr as _;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use serde::Deserialize;
use stele_model::Digest;
use stele_model::release::Image;

use crate::limits::RESOLVE_DEADLINE;

/// Why a reference has no digest.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ResolveError {
    /// It is no image reference.
    #[error("{reference:?} is not an image reference: {why}")]
    Malformed {
        /// As given.
        reference: String,
        /// What is wrong.
        why: String,
    },
    /// The registry said no.
    #[error("the registry does not resolve {reference}: {words}")]
    Registry {
        /// As given.
        reference: String,
        /// The registry's own words.
        words: String,
    },
    /// The registry did not answer in time.
    #[error("the registry did not answer within {seconds} s for {reference}")]
    TimedOut {
        /// As given.
        reference: String,
        /// How long was waited, in seconds.
        seconds: u64,
    },
}

/// Names and passwords by registry host, as Docker's `config.json` has them.
#[derive(Default)]
pub(crate) struct Credentials(BTreeMap<String, (String, String)>);

impl Credentials {
    /// Reads `{"auths": {"registry.example.com": {"auth": "<base64 of name:password>"}}}`.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct File {
            #[serde(default)]
            auths: BTreeMap<String, Entry>,
        }
        #[derive(Deserialize)]
        struct Entry {
            auth: Option<String>,
        }
        let file: File = serde_json::from_str(text)?;
        let mut credentials = BTreeMap::new();
        for (registry, Entry { auth }) in file.auths {
            // Without one, a credential helper of somebody's desktop keeps it.
            let Some(auth) = auth else { continue };
            let pair = String::from_utf8(STANDARD.decode(auth.trim())?)?;
            let (name, password) =
                pair.split_once(':').with_context(|| format!("the auth of {registry} has no password"))?;
            let bare = registry.trim_start_matches("https://").trim_start_matches("http://");
            // Docker's own names for Docker Hub differ.
            let host = match bare.split('/').next().unwrap_or_default() {
                "index.docker.io" => "docker.io",
                host => host,
            };
            credentials.insert(host.to_owned(), (name.to_owned(), password.to_owned()));
        }
        Ok(Self(credentials))
    }

    fn of(&self, registry: &str) -> RegistryAuth {
        match self.0.get(registry) {
            Some((name, password)) => RegistryAuth::Basic(name.clone(), password.clone()),
            None => RegistryAuth::Anonymous,
        }
    }
}

/// Asks registries. Those on loopback may speak plain HTTP.
pub(crate) struct Registry {
    encrypted: Client,
    plain: Client,
    credentials: Credentials,
}

impl Registry {
    pub(crate) fn new(credentials: Credentials) -> Self {
        // A blob travels in one request: its size is known.
        let client = |protocol| {
            Client::new(ClientConfig { protocol, use_monolithic_push: true, ..ClientConfig::default() })
        };
        Self { encrypted: client(ClientProtocol::Https), plain: client(ClientProtocol::Http), credentials }
    }

    /// The client that speaks as a reference's registry does.
    pub(crate) fn client_of(&self, reference: &Reference) -> &Client {
        if is_loopback(reference.registry()) { &self.plain } else { &self.encrypted }
    }

    /// Who this controller is to a reference's registry.
    pub(crate) fn auth_of(&self, reference: &Reference) -> RegistryAuth {
        self.credentials.of(reference.registry())
    }

    /// Whether the registry still has an image, by its digest; if not, why that is not known.
    pub(crate) async fn has(&self, image: &Image, within: Duration) -> Result<(), ResolveError> {
        let text = image.to_string();
        let reference = Reference::from_str(&text)
            .map_err(|error| ResolveError::Malformed { reference: text.clone(), why: error.to_string() })?;
        self.ask(&text, &reference, within).await.map(drop)
    }

    /// The digest a reference stands for now. One that names a digest is not looked up.
    pub(crate) async fn resolve(&self, text: &str) -> Result<Image, ResolveError> {
        let malformed = |why: String| ResolveError::Malformed { reference: text.to_owned(), why };
        let reference = Reference::from_str(text).map_err(|error| malformed(error.to_string()))?;
        let repository = format!("{}/{}", reference.registry(), reference.repository());
        if let Some(digest) = reference.digest() {
            let digest: Digest = digest
                .parse()
                .map_err(|error: stele_model::digest::ParseDigestError| malformed(error.to_string()))?;
            return Ok(Image { repository, digest });
        }
        let digest = self.ask(text, &reference, RESOLVE_DEADLINE).await?;
        let digest = digest.parse().map_err(|error: stele_model::digest::ParseDigestError| {
            ResolveError::Registry { reference: text.to_owned(), words: error.to_string() }
        })?;
        Ok(Image { repository, digest })
    }

    /// The digest in the registry's answer.
    async fn ask(&self, text: &str, reference: &Reference, within: Duration) -> Result<String, ResolveError> {
        let (client, auth) = (self.client_of(reference), self.auth_of(reference));
        let answer = tokio::time::timeout(within, client.fetch_manifest_digest(reference, &auth))
            .await
            .map_err(|_| ResolveError::TimedOut { reference: text.to_owned(), seconds: within.as_secs() })?;
        answer
            .map_err(|error| ResolveError::Registry { reference: text.to_owned(), words: error.to_string() })
    }
}

fn is_loopback(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn credentials_are_found_by_host() {
        let auth = STANDARD.encode("ci:pass:word");
        let text = format!(
            r#"{{"auths": {{"https://registry.example.com/v1/": {{"auth": "{auth}"}}, "other": {{}}}}}}"#
        );
        let credentials = Credentials::parse(&text).unwrap();
        assert!(matches!(
            credentials.of("registry.example.com"),
            RegistryAuth::Basic(name, password) if name == "ci" && password == "pass:word"
        ));
        assert!(matches!(credentials.of("other"), RegistryAuth::Anonymous));
        assert!(Credentials::parse(r#"{"auths": {"a": {"auth": "%%"}}}"#).is_err());
    }
}
