//! The agent's files. Whatever is written is either wholly there or not at all,
//! also after a power cut.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::limits::{FILE_BYTES_MAX, LOCK_ATTEMPTS, LOCK_PAUSE};

/// The folder of one agent.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
}

/// Keeps other agents out for as long as it lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl DataDir {
    /// An existing folder, or one that will be made by [`Self::create`].
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folder, readable by its owner alone.
    pub fn create(&self) -> Result<(), Error> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .map_err(failed("create", &self.path))
    }

    /// Keeps other agents out. Waits a moment for whoever only looks, such as `status`.
    pub fn lock_soon(&self) -> Result<Lock, Error> {
        for _ in 1..LOCK_ATTEMPTS {
            match self.lock() {
                Err(Error::Locked(_)) => std::thread::sleep(LOCK_PAUSE),
                other => return other,
            }
        }
        self.lock()
    }

    /// Keeps other agents out.
    pub fn lock(&self) -> Result<Lock, Error> {
        let path = self.path.join("lock");
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        // On a file system that became read-only it can be held all the same.
        let file = options
            .open(&path)
            .or_else(|error| File::open(&path).map_err(|_| error))
            .map_err(failed("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked(self.path.clone())),
            Err(TryLockError::Error(source)) => Err(failed("lock", &path)(source)),
        }
    }

    /// Has a file hold these bytes. Nothing is written where it does: a full disk is no reason to stop then.
    pub fn ensure(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        if self.read(name).is_ok_and(|held| held.is_some_and(|held| held == bytes)) {
            return Ok(());
        }
        self.write(name, bytes)
    }

    /// Writes a file that only its owner can read, so that a crash leaves the old one or the new one.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.write_together(&[(name, bytes)])
    }

    /// The same with several, of which a crash may leave some as they were, with one sync of their folder.
    pub(crate) fn write_together(&self, files: &[(&str, &[u8])]) -> Result<(), Error> {
        let temporary = |name: &str| self.path.join(format!("{name}.new"));
        for (name, bytes) in files {
            let temporary = temporary(name);
            let mut options = OpenOptions::new();
            options.create(true).truncate(true).write(true).mode(0o600);
            options
                .open(&temporary)
                .and_then(|mut file| {
                    file.write_all(bytes)?;
                    file.sync_all()
                })
                .map_err(failed("write", &temporary))?;
        }
        for (name, _) in files {
            let path = self.path.join(name);
            fs::rename(temporary(name), &path).map_err(failed("replace", &path))?;
        }
        // New names are only kept once their folder is.
        File::open(&self.path).and_then(|folder| folder.sync_all()).map_err(failed("sync", &self.path))
    }

    /// Reads a file; `None` when there is none.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        read_bounded(&self.path.join(name))
    }

    /// Writes a value as JSON: see [`Self::write`].
    pub fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        self.write(name, &self.json(name, value)?)
    }

    /// A value as it is written.
    pub(crate) fn json<T: Serialize>(&self, name: &str, value: &T) -> Result<Vec<u8>, Error> {
        serde_json::to_vec_pretty(value).map_err(|error| self.damaged(name, error.to_string()))
    }

    /// Reads a value from JSON; `None` when there is no such file.
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        read_json(&self.path.join(name))
    }

    pub(crate) fn damaged(&self, name: &str, why: String) -> Error {
        Error::Damaged { path: self.path.join(name), why }
    }
}

/// Reads a value from a JSON file anywhere; `None` when there is none.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let Some(bytes) = read_bounded(path)? else { return Ok(None) };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Error::Damaged { path: path.to_owned(), why: error.to_string() })
}

fn read_bounded(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed("read", path)(source)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed("read", path))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Error::Damaged {
            path: path.to_owned(),
            why: format!("it is larger than {FILE_BYTES_MAX} bytes"),
        });
    }
    Ok(Some(bytes))
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { doing, path, source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_are_replaced_whole_and_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::new(folder.path().join("agent"));
        data.create().unwrap();
        assert_eq!(data.read("x").unwrap(), None);
        data.write("x", b"one").unwrap();
        data.write("x", b"two").unwrap();
        assert_eq!(data.read("x").unwrap().unwrap(), b"two");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&data.path().join("x")), 0o600);
        assert_eq!(mode(data.path()), 0o700);
        let names: Vec<_> =
            fs::read_dir(data.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["x"]);
    }

    #[test]
    fn what_is_there_needs_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::new(folder.path());
        data.ensure("x", b"one").unwrap();
        // From now on nothing can be written.
        fs::create_dir(folder.path().join("x.new")).unwrap();
        data.ensure("x", b"one").unwrap();
        data.ensure("x", b"two").unwrap_err();
        assert_eq!(data.read("x").unwrap().unwrap(), b"one");
    }

    #[test]
    fn a_second_agent_is_kept_out_until_the_first_ends() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::new(folder.path());
        let lock = data.lock().unwrap();
        assert!(matches!(data.lock(), Err(Error::Locked(_))));
        drop(lock);
        data.lock().unwrap();
    }

    #[test]
    fn a_damaged_file_names_itself() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::new(folder.path());
        data.write("x.json", b"{").unwrap();
        let error = data.read_json::<u32>("x.json").unwrap_err();
        assert!(error.to_string().contains("x.json is damaged"), "{error}");
    }
}
