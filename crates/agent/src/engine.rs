//! Which container engine the agent works with, and what the host allows on it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use stele_reconcile::HostPolicy;
use stele_runtime::docker::{Docker, DockerConfig};
use stele_runtime::registry::{Logins, Registries};
use stele_runtime::simulated::{Simulated, SimulatedClock};
use stele_runtime::{Host, Runtime};

use crate::data_dir::{DataDir, read_json};
use crate::error::Error;
use crate::identity::{Engine, Enrollment};
use crate::images::Pruning;

const HOST_POLICY: &str = "host.json";
const REGISTRIES: &str = "registries.json";

/// How an agent is run.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Where its files are.
    pub data: DataDir,
    /// What the host allows containers; `host.json` in the data directory when absent, and
    /// nothing beyond what is harmless when that is absent too.
    pub host_policy: Option<PathBuf>,
    /// Credentials for registries in the form of Docker's `config.json`; `registries.json` in
    /// the data directory when absent.
    pub registries: Option<PathBuf>,
    /// NATS addresses to use in place of those told on joining.
    pub nats_urls: Vec<String>,
    /// Whether and when images that nothing needs are removed.
    pub pruning: Pruning,
}

impl AgentConfig {
    /// Everything from the data directory.
    pub fn new(data: DataDir) -> Self {
        Self { data, host_policy: None, registries: None, nats_urls: Vec::new(), pruning: Pruning::default() }
    }

    /// The container engine of an enrolled node.
    pub fn engine(&self, enrollment: &Enrollment) -> Result<Arc<dyn Runtime>, Error> {
        let host = |publish_address: &str| {
            Ok::<_, Error>(Host {
                fleet: enrollment.fleet.clone(),
                root: enrollment.root.clone(),
                node: enrollment.node.clone(),
                publish_address: publish_address.to_owned(),
                policy: self.policy()?,
            })
        };
        Ok(match &enrollment.engine {
            Engine::Docker { host: socket, publish_address } => Arc::new(Docker::new(DockerConfig {
                host: host(publish_address)?,
                socket: socket.clone(),
                logins: self.logins()?,
            })),
            Engine::Simulated => Arc::new(Simulated::new(host("127.0.0.1")?, SimulatedClock::Wall)),
        })
    }

    fn policy(&self) -> Result<HostPolicy, Error> {
        // A file that was named must be there: running without it could allow too little for
        // what runs already.
        match &self.host_policy {
            Some(path) => read_json(path)?.ok_or_else(|| Error::Damaged {
                path: path.clone(),
                why: "there is no such file".to_owned(),
            }),
            None => Ok(self.data.read_json(HOST_POLICY)?.unwrap_or_default()),
        }
    }

    /// They are read again for each pull. At the start, they must be readable; later, those of before are better than
    /// none while somebody is at the file.
    fn logins(&self) -> Result<Logins, Error> {
        let config = self.clone();
        let last = Mutex::new(self.registries()?);
        Ok(Logins::new(move || {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            match config.registries() {
                Ok(now) => *last = now,
                Err(error) => {
                    tracing::warn!(%error, "the logins of registries cannot be read; those read before are used");
                }
            }
            last.clone()
        }))
    }

    fn registries(&self) -> Result<Registries, Error> {
        match &self.registries {
            Some(path) => read_json(path)?.ok_or_else(|| Error::Damaged {
                path: path.clone(),
                why: "there is no such file".to_owned(),
            }),
            None => Ok(self.data.read_json(REGISTRIES)?.unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn logins_are_those_of_the_file_as_it_is_now_or_the_last_that_made_sense() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logins.json");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        let mut config = AgentConfig::new(DataDir::new(folder.path()));
        config.registries = Some(path.clone());
        assert!(config.logins().is_err(), "one that is named must be there at the start");

        write(r#"{"auths": {"registry.example.com": {"username": "a", "password": "first"}}}"#);
        let logins = config.logins().unwrap();
        let password = || logins.now().auths.get("registry.example.com").and_then(|one| one.password.clone());
        assert_eq!(password().as_deref(), Some("first"));
        write(r#"{"auths": {"registry.example.com": {"username": "a", "password": "second"}}}"#);
        assert_eq!(password().as_deref(), Some("second"));
        write(r#"{"auths": {"registry."#);
        assert_eq!(password().as_deref(), Some("second"));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(password().as_deref(), Some("second"));
    }
}
