//! Founding a fleet: its keys, and a folder with everything for each controller.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use ed25519_dalek::SigningKey;
use stele_bus::join::NatsAccess;
use stele_model::event::{Holder, Role, Token};
use stele_model::limits::TOKEN_LIFE_SECONDS_MAX;
use stele_model::signature::{Certificate, CertificateBody, PublicKey, public_key};
use stele_model::{ControllerId, Digest, FleetName, PrincipalId, Time};
use stele_peer::ca::Authority;

use crate::config::{Config, TlsFiles, read_key, read_text};
use crate::handle::now;
use crate::keyring::random;
use crate::limits::CERTIFICATE_LIFE;
use crate::opening::{FRESH, FRESH_TEXT};

const ROOT: &str = "root";
const ROOT_KEY: &str = "root.key";
const MASTER_KEY: &str = "master.key";
const AUTHORITY: &str = "authority.pem";
const AUTHORITY_KEY: &str = "authority.key";
const CONFIG: &str = "controller.json";

/// Where one controller will be.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its Raft id.
    pub id: ControllerId,
    /// Where its API listens, and is reached.
    pub api: SocketAddr,
    /// Where its peers reach it.
    pub peer: SocketAddr,
}

/// A fleet to be founded.
#[derive(Clone, Debug)]
pub struct Founding {
    /// Its name.
    pub fleet: FleetName,
    /// Its founding controllers.
    pub controllers: Vec<Place>,
    /// How NATS is reached.
    pub nats: NatsAccess,
    /// The first administrator's name.
    pub admin: PrincipalId,
}

/// What founding made.
#[derive(Clone, Debug)]
pub struct Founded {
    /// The first administrator's token. It is kept nowhere else.
    pub admin_token: String,
    /// When that token ends.
    pub admin_token_expires: Time,
    /// The root's public key, by which others know the fleet.
    pub root: PublicKey,
    /// Each controller's configuration file.
    pub configs: BTreeMap<ControllerId, PathBuf>,
}

/// A new bearer token's text, and the hash that the log knows.
pub fn new_token() -> anyhow::Result<(String, Digest)> {
    let text = format!("stele_{}", hex::encode(random::<32>()?));
    let hash = Digest::of(&[text.as_bytes()]);
    Ok((text, hash))
}

/// Makes a fleet's keys in `folder/root`, and `folder/controller-N` for each
/// controller. The root folder can be taken off line afterwards: only adding
/// controllers and renewing their certificates needs it.
pub fn found(folder: &Path, founding: &Founding) -> anyhow::Result<Founded> {
    let place = folder.join(ROOT);
    anyhow::ensure!(!place.exists(), "{} exists: this fleet was founded already", place.display());
    make_private(&place)?;
    write_secret(&place.join(ROOT_KEY), &hex::encode(random::<32>()?))?;
    write_secret(&place.join(MASTER_KEY), &hex::encode(random::<32>()?))?;
    let authority = Authority::create(founding.fleet.as_str())?;
    write_secret(&place.join(AUTHORITY), authority.certificate_pem())?;
    write_secret(&place.join(AUTHORITY_KEY), &authority.key_pem())?;
    let (admin_token, hash) = new_token()?;
    let admin = Token {
        principal: founding.admin.clone(),
        hash,
        role: Role::Admin,
        holder: Holder::Person,
        expires: Time(now().0 + TOKEN_LIFE_SECONDS_MAX * 1_000_000),
    };
    let (admin_token_expires, root) = (admin.expires, public_key(&root_key(folder)?));
    let founders: Vec<_> = founding.controllers.iter().map(|place| place.id).collect();
    let peers: BTreeMap<_, _> =
        founding.controllers.iter().map(|place| (place.id, place.peer.to_string())).collect();
    let mut configs = BTreeMap::new();
    for place in &founding.controllers {
        let settings = Settings {
            fleet: founding.fleet.clone(),
            nats: founding.nats.clone(),
            peers: peers.clone(),
            founders: founders.clone(),
            first_admin: Some(admin.clone()),
        };
        configs.insert(place.id, write_controller(folder, place, settings)?);
    }
    Ok(Founded { admin_token, admin_token_expires, root, configs })
}

/// Makes the folder of a controller that joins a fleet founded earlier. `like` is
/// the configuration of one of its controllers.
pub fn prepare(folder: &Path, place: &Place, like: &Path) -> anyhow::Result<PathBuf> {
    let like = Config::read(like)?;
    let mut peers = like.peers;
    peers.insert(like.id, like.peer_address);
    let settings =
        Settings { fleet: like.fleet, nats: like.nats, peers, founders: Vec::new(), first_admin: None };
    write_controller(folder, place, settings)
}

struct Settings {
    fleet: FleetName,
    nats: NatsAccess,
    peers: BTreeMap<ControllerId, String>,
    founders: Vec<ControllerId>,
    first_admin: Option<Token>,
}

fn write_controller(folder: &Path, place: &Place, settings: Settings) -> anyhow::Result<PathBuf> {
    let own = folder.join(format!("controller-{}", place.id));
    anyhow::ensure!(!own.exists(), "{} exists: a controller's id is never used again", own.display());
    make_private(&own)?;
    let root_key = root_key(folder)?;
    let master =
        std::fs::read_to_string(folder.join(ROOT).join(MASTER_KEY)).context("cannot read the master key")?;
    let authority = authority(folder, &settings.fleet)?;
    let issued = authority.issue(place.id, &[place.peer.ip(), place.api.ip()])?;
    // Bearer tokens must not cross a network in clear.
    let api_tls = !place.api.ip().is_loopback();
    let scheme = if api_tls { "https" } else { "http" };
    let key: [u8; 32] = random()?;
    let signing = SigningKey::from_bytes(&key);
    let begins = now();
    let certificate = Certificate::issue(
        &root_key,
        CertificateBody {
            fleet: settings.fleet.clone(),
            controller: place.id,
            key: public_key(&signing),
            // Clocks differ a little between machines.
            not_before: Time(begins.0.saturating_sub(3_600_000_000)),
            not_after: certified_until(begins),
        },
    );
    write_secret(&own.join("authority.pem"), authority.certificate_pem())?;
    write_secret(&own.join("tls.pem"), &issued.certificate_pem)?;
    write_secret(&own.join("tls.key"), &issued.key_pem)?;
    write_secret(&own.join("signing.key"), &hex::encode(key))?;
    write_secret(&own.join("master.key"), &master)?;
    let config = Config {
        fleet: settings.fleet,
        id: place.id,
        data: "data".into(),
        fresh: FRESH.into(),
        api_listen: place.api,
        api_url: format!("{scheme}://{}", place.api),
        api_tls,
        peer_listen: place.peer,
        peer_address: place.peer.to_string(),
        peers: settings.peers.into_iter().filter(|(id, _)| *id != place.id).collect(),
        founders: settings.founders,
        nats: settings.nats,
        registries: None,
        image_retention_days: crate::limits::IMAGE_RETENTION_DAYS,
        mirror: None,
        past_memory_mib: None,
        root: public_key(&root_key),
        first_admin: settings.first_admin,
        tls: TlsFiles {
            authority: "authority.pem".into(),
            certificate: "tls.pem".into(),
            key: "tls.key".into(),
        },
        signing_key: "signing.key".into(),
        certificate,
        master_key: "master.key".into(),
        publish_checkpoints: None,
        public_tree: false,
        witnesses: Vec::new(),
    };
    // Before the configuration, so that there is none without it.
    write_secret(&own.join(FRESH), FRESH_TEXT)?;
    let path = own.join(CONFIG);
    write_secret(&path, &serde_json::to_string_pretty(&config)?)?;
    Ok(path)
}

/// Where the root's key is, in the folder a fleet was founded in.
pub(crate) fn root_key_file(folder: &Path) -> PathBuf {
    folder.join(ROOT).join(ROOT_KEY)
}

/// The root's key.
pub(crate) fn root_key(folder: &Path) -> anyhow::Result<SigningKey> {
    Ok(SigningKey::from_bytes(&read_key(&root_key_file(folder))?))
}

/// The authority for the certificates of a fleet's connections.
pub(crate) fn authority(folder: &Path, fleet: &FleetName) -> anyhow::Result<Authority> {
    let read = |name: &str| read_text(&folder.join(ROOT).join(name));
    Ok(Authority::from_pem(fleet.as_str(), &read(AUTHORITY)?, &read(AUTHORITY_KEY)?)?)
}

/// Until when the root vouches for a controller's key that it certifies now.
pub(crate) fn certified_until(now: Time) -> Time {
    Time(now.0.saturating_add(CERTIFICATE_LIFE.as_micros() as u64))
}

/// Makes a folder that only its owner enters: the log inside is for those with a token.
fn make_private(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("cannot make {}", path.display()))
}

/// Writes a file that only its owner reads.
fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
