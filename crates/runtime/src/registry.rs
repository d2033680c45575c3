//! Credentials for registries, in the form of Docker's own `config.json`.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use serde::{Deserialize, Serialize};

/// The registry of images whose name has no host.
const DOCKER_HUB: &str = "docker.io";
/// What Docker's own configuration calls it.
const DOCKER_HUB_KEYS: [&str; 3] = ["https://index.docker.io/v1/", "index.docker.io", DOCKER_HUB];

/// Credentials by registry host: `{"auths": {"registry.example.com": {"auth": "…"}}}`.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Registries {
    /// By host, or by URL as older versions of Docker wrote them.
    pub auths: BTreeMap<String, RegistryAuth>,
}

/// How to log in to one registry.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RegistryAuth {
    /// `user:password` in base64; takes precedence over the two below.
    pub auth: Option<String>,
    /// The user.
    pub username: Option<String>,
    /// The password or access token.
    pub password: Option<String>,
    /// A refresh token in place of a password.
    pub identitytoken: Option<String>,
}

impl std::fmt::Debug for Registries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Hosts alone: credentials have no business in a log.
        f.debug_set().entries(self.auths.keys()).finish()
    }
}

/// Credentials as they are at the time of each pull: those of some registries are valid for hours, and somebody else
/// puts new ones in their place.
#[derive(Clone)]
pub struct Logins(Arc<dyn Fn() -> Registries + Send + Sync>);

impl Logins {
    /// What `read` answers, asked for each pull.
    pub fn new(read: impl Fn() -> Registries + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Those to use now.
    pub fn now(&self) -> Registries {
        (self.0)()
    }
}

impl Default for Logins {
    /// Without any.
    fn default() -> Self {
        Self::new(Registries::default)
    }
}

impl std::fmt::Debug for Logins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Logins")
    }
}

impl Registries {
    /// The credentials for an image's repository, if there are any.
    pub(crate) fn credentials(&self, repository: &str) -> Option<DockerCredentials> {
        let host = registry_host(repository);
        let auth = match host {
            DOCKER_HUB => DOCKER_HUB_KEYS.iter().find_map(|key| self.auths.get(*key)),
            host => self.auths.get(host).or_else(|| {
                let schemes = ["https://", "http://"];
                let bare = |key: &str| {
                    let key = schemes.iter().find_map(|scheme| key.strip_prefix(scheme)).unwrap_or(key);
                    key.split('/').next() == Some(host)
                };
                self.auths.iter().find(|(key, _)| bare(key)).map(|(_, auth)| auth)
            }),
        }?;
        let decoded = auth
            .auth
            .as_deref()
            .and_then(|text| STANDARD.decode(text.trim()).ok())
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .and_then(|text| {
                text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
            });
        let (username, password) = match decoded {
            Some((user, password)) => (Some(user), Some(password)),
            None => (auth.username.clone(), auth.password.clone()),
        };
        Some(DockerCredentials {
            username,
            password,
            identitytoken: auth.identitytoken.clone(),
            serveraddress: Some(host.to_owned()),
            ..DockerCredentials::default()
        })
    }
}

/// The first part of a repository is a host if it looks like one, as Docker has it.
fn registry_host(repository: &str) -> &str {
    match repository.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => DOCKER_HUB,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn credentials_are_those_of_the_images_registry() {
        let text = r#"{"auths": {
            "registry.example.com:5000": {"auth": "dXNlcjpwYTpzcw=="},
            "https://index.docker.io/v1/": {"username": "hub", "password": "secret"},
            "https://other.example.com/v2/": {"identitytoken": "token"}
        }, "credsStore": "ignored"}"#;
        let registries: Registries = serde_json::from_str(text).unwrap();
        let found = |repository: &str| {
            registries.credentials(repository).map(|one| (one.username, one.password, one.identitytoken))
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(found("registry.example.com:5000/shop/web"), Some((text("user"), text("pa:ss"), None)));
        assert_eq!(found("library/busybox"), Some((text("hub"), text("secret"), None)));
        assert_eq!(found("other.example.com/x"), Some((None, None, text("token"))));
        assert_eq!(found("registry.example.com/shop/web"), None);
        assert!(!format!("{registries:?}").contains("secret"));
    }
}
