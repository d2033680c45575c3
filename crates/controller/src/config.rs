//! A controller's configuration: one JSON file, made by `stele dev` or `stele controller found`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use stele_bus::join::NatsAccess;
use stele_model::event::Token;
use stele_model::signature::{Certificate, PublicKey};
use stele_model::{ControllerId, FleetName};

use crate::limits::IMAGE_RETENTION_DAYS;
use crate::opening::FRESH;

/// Everything a controller needs to start. Paths are relative to the file's folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The fleet.
    pub fleet: FleetName,
    /// This controller's Raft id; never used before by another.
    pub id: ControllerId,
    /// Folder of the log.
    pub data: PathBuf,
    /// The file beside this one that says that this controller never ran: see `docs/operators.md`.
    #[serde(skip)]
    pub fresh: PathBuf,
    /// Where the API listens.
    pub api_listen: SocketAddr,
    /// How others reach the API, such as `https://10.0.0.1:7400`.
    pub api_url: String,
    /// Whether the API speaks TLS, with the certificate of [`Self::tls`]. Off is for loopback,
    /// and for a proxy in front that does it.
    pub api_tls: bool,
    /// Where other controllers are heard.
    pub peer_listen: SocketAddr,
    /// How other controllers reach this one, as host:port.
    pub peer_address: String,
    /// Other controllers known from the start, by id, as host:port; the log's own list counts once there is one.
    pub peers: BTreeMap<ControllerId, String>,
    /// The founding members. Empty for a controller that joins later.
    pub founders: Vec<ControllerId>,
    /// How NATS is reached, by controllers and agents alike.
    pub nats: NatsAccess,
    /// Credentials for registries, in the form of Docker's `config.json`; without it tags are
    /// resolved anonymously.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registries: Option<PathBuf>,
    /// For how many days after it was last in force what an app was made of is kept on nodes and in
    /// the mirror. The same on every controller.
    #[serde(default = "image_retention_days")]
    pub image_retention_days: u32,
    /// Where images are copied to, and where nodes pull them from when their own registry does not
    /// give them: a registry's host and a folder, such as `registry.example.com/mirror`. The same on
    /// every controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
    /// Memory for past States, in MiB: 16 to 1048576. Those that have no room there are read from the disk. Without it,
    /// an eighth of what the controller may use (the machine's memory, or the limit of its control group in version 2),
    /// at most 4096.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub past_memory_mib: Option<u64>,
    /// The fleet root's public key.
    pub root: PublicKey,
    /// The first administrator, for whoever leads first.
    pub first_admin: Option<Token>,
    /// PEM files for mutual TLS between controllers.
    pub tls: TlsFiles,
    /// File with this controller's Ed25519 key, as 64 hex digits.
    pub signing_key: PathBuf,
    /// The root's word for that key.
    pub certificate: Certificate,
    /// File with the fleet's master key, as 64 hex digits: it wraps the data keys kept beside the log.
    pub master_key: PathBuf,
    /// Folder outside the fleet that receives each checkpoint, and where witnesses put their cosignatures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish_checkpoints: Option<PathBuf>,
    /// Whether anybody may read checkpoints and the hashes of the log's tree under `/log/`, without a
    /// token: what witnesses and mirrors of a public log need. Records are never public.
    #[serde(default)]
    pub public_tree: bool,
    /// Keys of witnesses whose cosignatures are believed, as `<name>+<id>+<base64 of the key>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub witnesses: Vec<String>,
}

pub(crate) fn image_retention_days() -> u32 {
    IMAGE_RETENTION_DAYS
}

/// PEM files for mutual TLS.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The fleet's certificate authority.
    pub authority: PathBuf,
    /// This controller's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Config {
    /// Reads a configuration and makes its paths absolute.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let config = Self::as_written(path, &read_text(path)?)?;
        Ok(config.in_folder(path.parent().unwrap_or(Path::new("."))))
    }

    /// What is written in the file, its paths as they are.
    pub(crate) fn as_written(path: &Path, text: &str) -> anyhow::Result<Self> {
        serde_json::from_str(text)
            .with_context(|| format!("{} is not a controller's configuration", path.display()))
    }

    /// Makes the paths of a configuration that lies in a folder absolute.
    pub(crate) fn in_folder(mut self, folder: &Path) -> Self {
        for path in [
            &mut self.data,
            &mut self.tls.authority,
            &mut self.tls.certificate,
            &mut self.tls.key,
            &mut self.signing_key,
            &mut self.master_key,
        ] {
            *path = folder.join(&path);
        }
        self.fresh = folder.join(FRESH);
        self.registries = self.registries.map(|path| folder.join(path));
        self.publish_checkpoints = self.publish_checkpoints.map(|path| folder.join(path));
        self
    }
}

/// Reads a file of text.
pub(crate) fn read_text(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Reads a file of 64 hex digits.
pub(crate) fn read_key(path: &Path) -> anyhow::Result<[u8; 32]> {
    let text = read_text(path)?;
    let mut key = [0; 32];
    hex::decode_to_slice(text.trim(), &mut key)
        .with_context(|| format!("{} does not hold 64 hex digits", path.display()))?;
    Ok(key)
}
