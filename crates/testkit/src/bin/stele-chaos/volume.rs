//! The small disk of one controller: an ext4 image on a loop device, a tmpfs, or one of our own making.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::dice::Dice;
use crate::disk::Ailment;
use crate::fuse::Mounted;
use crate::limits::FILLER_BYTES;
use crate::net::run;

/// What a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An ext4 file system in a file.
    Loop,
    /// Memory, where the kernel mounts no images.
    Memory,
    /// A FUSE file system that forgets and fails on request.
    Fuse,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Loop => "ext4 on a loop device",
            Self::Memory => "tmpfs",
            Self::Fuse => "FUSE",
        }
    }
}

/// A mounted disk.
pub(crate) struct Volume {
    pub(crate) kind: Kind,
    at: PathBuf,
    fuse: Option<Mounted>,
}

const FILLER: &str = "filler";

impl Volume {
    /// Makes a disk and mounts it.
    pub(crate) fn make(kind: Kind, at: &Path, bytes: u64, dice: &mut Dice) -> anyhow::Result<Self> {
        fs::create_dir_all(at)?;
        let path = at.display();
        let mut fuse = None;
        match kind {
            Kind::Loop => {
                let image = at.with_extension("img");
                File::create(&image)?.set_len(bytes)?;
                let image = image.display();
                run(&format!("mkfs.ext4 -q -F -m 0 {image}"))?;
                run(&format!("mount -o loop {image} {path}"))?;
            }
            Kind::Memory => run(&format!("mount -t tmpfs -o size={bytes} stele-chaos {path}"))?,
            Kind::Fuse => fuse = Some(Mounted::mount(at, bytes, dice.fork())?),
        }
        Ok(Self { kind, at: at.to_owned(), fuse })
    }

    /// The disk of our own making, if it is one.
    pub(crate) fn fuse(&self) -> Option<&Mounted> {
        self.fuse.as_ref()
    }

    pub(crate) fn set(&self, ailment: Ailment) {
        if let Some(fuse) = &self.fuse {
            fuse.disk().ailment = ailment;
        }
    }

    /// Writes until nothing more fits; says how much it was.
    pub(crate) fn fill(&self) -> anyhow::Result<u64> {
        let mut file = File::create(self.at.join(FILLER))?;
        let mut size = FILLER_BYTES;
        let mut written = 0;
        // First in large pieces, then in smaller ones, so that not even a small write fits.
        while size > 0 {
            match file.write(&vec![0; size]) {
                Ok(count @ 1..) => written += count as u64,
                Ok(_) => size /= 2,
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => size /= 2,
                Err(error) => return Err(error).context("the disk cannot be filled"),
            }
        }
        Ok(written)
    }

    /// Makes room again.
    pub(crate) fn empty(&self) -> anyhow::Result<()> {
        let filler = self.at.join(FILLER);
        if filler.exists() {
            fs::remove_file(filler)?;
        }
        Ok(())
    }
}
