//! Data keys: one per subject, kept beside the log and never in it.
//!
//! A key file holds the data key sealed under the fleet's master key. The leader
//! alone makes keys, and uses one only after a majority of controllers has it on
//! disk; whoever lacks one asks the others. Deleting the files on every
//! controller erases what was sealed, while hashes and replay stay valid.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use stele_bus::sealing;
use stele_model::{Digest, Sealed};

/// How the file of a key ends.
const KEY_SUFFIX: &str = ".json";

/// A data key, sealed under the master key: what travels between controllers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptKey {
    /// Whose key.
    pub(crate) subject: String,
    /// Which of the subject's keys, from 1.
    pub(crate) version: u32,
    /// The key as hex, sealed.
    pub(crate) sealed: Sealed,
}

/// Why a key is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The disk failed.
    #[error("cannot keep the data key of {subject}: {source}")]
    Io {
        /// Whose key.
        subject: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It does not open under this master key.
    #[error("the data key of {0} does not open under this fleet's master key")]
    Master(String),
    /// Another key of the same name is here.
    #[error("another data key of {0} is kept here already")]
    Conflict(String),
    /// The system gives no randomness.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
    /// Not enough controllers could keep it.
    #[error("the data key of {0} could not be kept by a majority of controllers; try again")]
    Minority(String),
    /// What is sealed does not open under its key.
    #[error("what is sealed cannot be opened: {0}")]
    Damaged(String),
    /// The folder of all keys cannot be read.
    #[error("cannot read the data keys in {folder}: {source}")]
    Folder {
        /// Where they are.
        folder: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Values are sealed under it, and no controller has it: another one would never open them.
    #[error(
        "no controller has the data key of {0} any more, and values are sealed under it: bring back the controllers that \
         are away, or restore data/keys from a backup; else erase it (stele erase {0} --even-in-use) and set them again"
    )]
    Lost(String),
    /// The log says that it is destroyed.
    #[error("the data key of {0} is destroyed")]
    Destroyed(String),
}

pub(crate) struct Keyring {
    folder: PathBuf,
    master: [u8; 32],
    open: Mutex<BTreeMap<(String, u32), [u8; 32]>>,
    /// Versions up to these are destroyed, and never kept again whoever sends them.
    destroyed: Mutex<BTreeMap<String, u32>>,
}

/// `N` random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], KeyringError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| KeyringError::Random(error.to_string()))?;
    Ok(bytes)
}

impl Keyring {
    pub(crate) fn open(folder: PathBuf, master: [u8; 32]) -> std::io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder, master, open: Mutex::default(), destroyed: Mutex::default() })
    }

    fn path(&self, subject: &str, version: u32) -> PathBuf {
        // Subjects hold slashes; their hash does not.
        self.folder.join(format!("{}-{version}{KEY_SUFFIX}", Digest::of(&[subject.as_bytes()]).hex()))
    }

    /// The key as it is kept, if it is here.
    pub(crate) fn kept(&self, subject: &str, version: u32) -> Result<Option<KeptKey>, KeyringError> {
        match std::fs::read(self.path(subject, version)) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(Some).map_err(|_| KeyringError::Master(subject.to_owned()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(KeyringError::Io { subject: subject.to_owned(), source }),
        }
    }

    /// Keeps a copy of a key that another controller has; whether it is new here.
    pub(crate) fn keep_copy(&self, key: &KeptKey) -> Result<bool, KeyringError> {
        // Copies are made as they are: most are here already, and need not be opened to be known.
        if self.kept(&key.subject, key.version)?.as_ref() == Some(key) {
            return Ok(false);
        }
        self.keep(key)?;
        Ok(true)
    }

    /// Keys in order of their files' names, after one of these, at most so many; and the name to go on after. One that
    /// cannot be read is left out.
    pub(crate) fn page(
        &self,
        after: Option<&str>,
        most: usize,
    ) -> Result<(Vec<KeptKey>, Option<String>), KeyringError> {
        let failed = |source| KeyringError::Folder { folder: self.folder.clone(), source };
        let mut names = Vec::new();
        for file in std::fs::read_dir(&self.folder).map_err(failed)? {
            let name = file.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if name.ends_with(KEY_SUFFIX) && after.is_none_or(|after| name.as_str() > after) {
                names.push(name);
            }
        }
        names.sort_unstable();
        let is_more = names.len() > most;
        names.truncate(most);
        let mut page = Vec::with_capacity(names.len());
        for name in &names {
            match std::fs::read(self.folder.join(name)) {
                Ok(bytes) => match serde_json::from_slice(&bytes) {
                    Ok(kept) => page.push(kept),
                    Err(error) => tracing::error!(name, %error, "a data key is damaged here"),
                },
                // It was destroyed meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok((page, names.pop().filter(|_| is_more)))
    }

    /// Keeps a key made here or elsewhere. One that is here already stays.
    pub(crate) fn keep(&self, key: &KeptKey) -> Result<(), KeyringError> {
        use std::io::Write as _;
        let own = self.unseal(key)?;
        // Held until the file is there: destroying it in between would miss it.
        let destroyed = self.destroyed.lock().unwrap_or_else(PoisonError::into_inner);
        if destroyed.get(&key.subject).is_some_and(|through| key.version <= *through) {
            return Err(KeyringError::Destroyed(key.subject.clone()));
        }
        let path = self.path(&key.subject, key.version);
        if let Some(present) = self.kept(&key.subject, key.version)? {
            // Two keys of one name: what one sealed the other would never open.
            return if self.unseal(&present)? == own {
                Ok(())
            } else {
                Err(KeyringError::Conflict(key.subject.clone()))
            };
        }
        let write = || -> std::io::Result<()> {
            let mut file = tempfile(&path)?;
            file.1.write_all(&serde_json::to_vec(key)?)?;
            file.1.sync_all()?;
            std::fs::rename(&file.0, &path)?;
            std::fs::File::open(&self.folder)?.sync_all()
        };
        write().map_err(|source| KeyringError::Io { subject: key.subject.clone(), source })
    }

    /// Destroys a subject's keys up to a version: on disk, in memory, and against coming back.
    pub(crate) fn destroy(&self, subject: &str, through: u32) -> Result<(), KeyringError> {
        let mut destroyed = self.destroyed.lock().unwrap_or_else(PoisonError::into_inner);
        let before = destroyed.get(subject).copied().unwrap_or_default();
        self.destroy_those(&mut destroyed, subject, through, || Ok((before + 1..=through).collect()))
    }

    /// The same for versions that are numbered by time: most never were, so those that are here are looked for.
    pub(crate) fn destroy_aged(&self, subject: &str, through: u32) -> Result<(), KeyringError> {
        let mut destroyed = self.destroyed.lock().unwrap_or_else(PoisonError::into_inner);
        self.destroy_those(&mut destroyed, subject, through, || {
            let prefix = format!("{}-", Digest::of(&[subject.as_bytes()]).hex());
            let mut versions = Vec::new();
            for file in std::fs::read_dir(&self.folder)? {
                let name = file?.file_name();
                let version = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.split('.').next());
                versions.extend(version.and_then(|it| it.parse::<u32>().ok()).filter(|it| *it <= through));
            }
            Ok(versions)
        })
    }

    fn destroy_those(
        &self,
        destroyed: &mut BTreeMap<String, u32>,
        subject: &str,
        through: u32,
        versions: impl FnOnce() -> std::io::Result<Vec<u32>>,
    ) -> Result<(), KeyringError> {
        let before = destroyed.get(subject).copied().unwrap_or_default();
        if before >= through {
            return Ok(());
        }
        destroyed.insert(subject.to_owned(), through);
        let remove = || -> std::io::Result<()> {
            for version in versions()? {
                for path in [self.path(subject, version), self.path(subject, version).with_extension("new")] {
                    match std::fs::remove_file(path) {
                        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                }
            }
            std::fs::File::open(&self.folder)?.sync_all()
        };
        let removed = remove();
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(owner, version), _| owner != subject || *version > through);
        removed.map_err(|source| {
            // It is tried again from there.
            destroyed.insert(subject.to_owned(), before);
            KeyringError::Io { subject: subject.to_owned(), source }
        })
    }

    /// A new key, kept nowhere yet.
    pub(crate) fn make(&self, subject: &str, version: u32) -> Result<KeptKey, KeyringError> {
        let key: [u8; 32] = random()?;
        let sealed = sealing::seal(subject, version, &self.master, &hex::encode(key), random()?);
        Ok(KeptKey { subject: subject.to_owned(), version, sealed })
    }

    fn unseal(&self, key: &KeptKey) -> Result<[u8; 32], KeyringError> {
        let refused = || KeyringError::Master(key.subject.clone());
        let text = sealing::open(&key.sealed, &self.master).map_err(|_| refused())?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| refused())?;
        Ok(bytes)
    }

    /// The key itself, if it is here.
    pub(crate) fn key(&self, subject: &str, version: u32) -> Result<Option<[u8; 32]>, KeyringError> {
        let name = (subject.to_owned(), version);
        if let Some(key) = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&name) {
            return Ok(Some(*key));
        }
        let destroyed = self.destroyed.lock().unwrap_or_else(PoisonError::into_inner);
        if destroyed.get(subject).is_some_and(|through| version <= *through) {
            return Ok(None);
        }
        let Some(kept) = self.kept(subject, version)? else { return Ok(None) };
        let key = self.unseal(&kept)?;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(name, key);
        Ok(Some(key))
    }
}

/// A new file beside `path`, readable by nobody else.
fn tempfile(path: &std::path::Path) -> std::io::Result<(PathBuf, std::fs::File)> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let temporary = path.with_extension("new");
    let file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    Ok((temporary, file))
}
