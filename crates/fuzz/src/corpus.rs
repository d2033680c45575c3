//! The corpus: one file for each input, in a folder for each target, committed.
//!
//! `made-*` files are written by [`write()`] from the program's own types. `found-*` files made a target fail
//! once; nothing here ever writes or removes them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::limits::CORPUS_BYTES_MAX;
use crate::target::{Named, Target};

const MADE: &str = "made-";

/// Where it is.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The files of a target, in order of name.
pub fn files(target: &Target) -> anyhow::Result<Vec<Named>> {
    let folder = folder().join(target.name);
    let entries = fs::read_dir(&folder).with_context(|| {
        format!("{} is not there; make it with: cargo xtask fuzz --corpus", folder.display())
    })?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.push((name, fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?));
    }
    files.sort();
    Ok(files)
}

/// Whether a file of the corpus is one that a decoder must read.
pub fn is_made(name: &str) -> bool {
    name.starts_with(MADE)
}

/// Writes the made files of these targets anew.
pub fn write(targets: &[Target]) -> anyhow::Result<()> {
    for target in targets {
        let folder = folder().join(target.name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        for (name, _) in files(target)?.iter().filter(|(name, _)| is_made(name)) {
            fs::remove_file(folder.join(name)).with_context(|| format!("cannot remove {name}"))?;
        }
        for (name, bytes) in (target.made)().with_context(|| format!("making {}", target.name))? {
            let path = folder.join(format!("{MADE}{name}"));
            fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

/// Checks that all of it together is small.
pub fn check_size(targets: &[Target]) -> anyhow::Result<u64> {
    let mut size = 0;
    for target in targets {
        size += files(target)?.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
    }
    ensure!(size <= CORPUS_BYTES_MAX, "the corpus has {size} bytes; CORPUS_BYTES_MAX is {CORPUS_BYTES_MAX}");
    Ok(size)
}
