//! Opening a controller's log, or making it at the controller's first start.
//!
//! Raft counts on what a controller once promised. One that lost its log and starts with an empty one under its
//! old id may vote twice in a term, and deny entries that it acknowledged: what was told to be done would be lost.
//! An empty folder alone does not tell the two apart. So whoever makes a controller's folder puts a mark into it,
//! and a log is made only while the mark is there.
//!
//! The mark goes once the log is made and on the disk, and before the controller takes part in anything. A start
//! that ends in between makes the rest at the next one.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use stele_codec::{Chain, Snapshot};
use stele_consensus::{LogStore as _, bootstrap};
use stele_model::{ControllerId, State};
use stele_store::{Identity, OpenError, Settings, Store};

/// The mark, beside the configuration: this controller has never run.
pub(crate) const FRESH: &str = "fresh";

/// What it says to whoever finds it.
pub(crate) const FRESH_TEXT: &str = "This controller has never run. At its first start it makes its log and deletes \
     this file. Never make it again: a controller whose log is gone is removed, and added again under a new id.\n";

/// Where a controller's log is, and whose it is.
pub(crate) struct Place<'a> {
    /// The controller's data.
    pub(crate) data: &'a Path,
    /// The mark.
    pub(crate) fresh: &'a Path,
    /// Whose log it is.
    pub(crate) identity: Identity,
    /// Who founded the fleet, as the configuration says.
    pub(crate) founders: &'a [ControllerId],
}

impl Place<'_> {
    fn log(&self) -> PathBuf {
        self.data.join("log")
    }

    /// Opens the log; makes it where this controller never ran.
    pub(crate) fn open(&self) -> anyhow::Result<Store> {
        let is_fresh = self
            .fresh
            .try_exists()
            .with_context(|| format!("cannot find out whether {} is there", self.fresh.display()))?;
        let mut store = if is_fresh { self.make()? } else { self.open_made()? };
        // Nothing was ever written: also not by an earlier version that ended before it had founded.
        if self.founders.contains(&self.identity.node) && store.index().is_empty() {
            let genesis = Snapshot { chain: Chain::GENESIS, state: State::default() };
            bootstrap(&mut store, self.founders, genesis.encode())?;
        }
        if is_fresh {
            self.wear_off()?;
        }
        Ok(store)
    }

    fn open_made(&self) -> anyhow::Result<Store> {
        let id = self.identity.node;
        Store::open(&self.log(), &self.identity, &Settings::default()).map_err(|error| match error {
            OpenError::Missing { .. } => anyhow::Error::new(error).context(format!(
                "controller {id} ran before and must not start with an empty log (stele cluster remove {id}, then \
                 stele controller prepare with a new id)"
            )),
            error => error.into(),
        })
    }

    fn make(&self) -> anyhow::Result<Store> {
        match Store::create(&self.log(), &self.identity, &Settings::default()) {
            // An earlier start came so far, or somebody put a log there.
            Err(OpenError::Exists { .. }) => self.open_made(),
            made => Ok(made?),
        }
    }

    /// Deletes the mark, once what was made cannot be lost any more.
    fn wear_off(&self) -> anyhow::Result<()> {
        let sync = |folder: &Path| {
            // A path of one part has an empty parent.
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            std::fs::File::open(folder)
                .and_then(|folder| folder.sync_all())
                .with_context(|| format!("cannot sync {}", folder.display()))
        };
        let log = self.log();
        for folder in [Some(log.as_path()), Some(self.data), self.data.parent()].into_iter().flatten() {
            sync(folder)?;
        }
        std::fs::remove_file(self.fresh).with_context(|| {
            format!(
                "cannot delete {}, so this controller must not run: it could start with an empty log later. Let it \
                 write to that folder",
                self.fresh.display()
            )
        })?;
        self.fresh.parent().map_or(Ok(()), sync)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        /// As it is handed to a controller.
        fn prepared() -> Self {
            let folder = Self(tempfile::tempdir().unwrap());
            std::fs::write(folder.fresh(), FRESH_TEXT).unwrap();
            folder
        }

        fn fresh(&self) -> PathBuf {
            self.0.path().join(FRESH)
        }

        fn data(&self) -> PathBuf {
            self.0.path().join("data")
        }

        fn identity() -> Identity {
            Identity { fleet: "demo".to_owned(), node: 1 }
        }

        fn open(&self, founders: &[ControllerId]) -> anyhow::Result<Store> {
            let (data, fresh) = (self.data(), self.fresh());
            Place { data: &data, fresh: &fresh, identity: Self::identity(), founders }.open()
        }
    }

    fn refused(opened: anyhow::Result<Store>) -> String {
        format!("{:#}", opened.err().unwrap())
    }

    #[test]
    fn a_controller_makes_its_log_once() {
        let folder = Folder::prepared();
        let store = folder.open(&[1, 2, 3]).unwrap();
        assert_eq!(store.index().conf_state().voters, [1, 2, 3]);
        drop(store);
        assert!(!folder.fresh().exists());
        folder.open(&[1, 2, 3]).unwrap();
        // Its disk is lost.
        std::fs::remove_dir_all(folder.data()).unwrap();
        let why = refused(folder.open(&[1, 2, 3]));
        assert!(why.contains("there is no store in") && why.contains("stele cluster remove 1"), "{why}");
        assert!(!folder.data().exists(), "nothing was made");
        // So is that of one that joined later.
        let joined = Folder::prepared();
        joined.open(&[]).unwrap();
        std::fs::remove_dir_all(joined.data().join("log")).unwrap();
        assert!(refused(joined.open(&[])).contains("there is no store in"));
    }

    #[test]
    fn a_first_start_that_ended_anywhere_is_gone_on_with() {
        // Before anything was written, and right after.
        let folder = Folder::prepared();
        let log = folder.data().join("log");
        std::fs::create_dir_all(&log).unwrap();
        drop(Store::create(&log, &Folder::identity(), &Settings::default()).unwrap());
        assert_eq!(folder.open(&[1]).unwrap().index().conf_state().voters, [1]);
        assert!(!folder.fresh().exists());
        // After all but the mark's end.
        std::fs::write(folder.fresh(), FRESH_TEXT).unwrap();
        assert_eq!(folder.open(&[1]).unwrap().index().conf_state().voters, [1]);
        assert!(!folder.fresh().exists());
    }

    #[test]
    fn a_log_of_an_earlier_version_opens_without_a_mark() {
        let folder = Folder(tempfile::tempdir().unwrap());
        drop(Store::create(&folder.data().join("log"), &Folder::identity(), &Settings::default()).unwrap());
        // That version ended before it had founded.
        assert_eq!(folder.open(&[1, 2, 3]).unwrap().index().conf_state().voters, [1, 2, 3]);
    }

    #[test]
    fn a_mark_that_cannot_be_deleted_stops_the_start() {
        let folder = Folder(tempfile::tempdir().unwrap());
        std::fs::create_dir(folder.fresh()).unwrap();
        assert!(refused(folder.open(&[1])).contains("cannot delete"));
    }
}
