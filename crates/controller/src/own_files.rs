//! Files beside a controller's configuration, written by whoever governs its host for whoever runs it.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Writes a file in the place of the one that may be there, all of it or nothing, for those who may read another one.
pub(crate) fn replace(path: &Path, text: &str, like: &Path) -> anyhow::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    // Of an attempt that was interrupted.
    match std::fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot write {}", part.display()));
        }
        _ => {}
    }
    write_new(&part, text, like)?;
    std::fs::rename(&part, path)
        .inspect_err(|_| drop(std::fs::remove_file(&part)))
        .with_context(|| format!("cannot replace {}", path.display()))?;
    sync_folder_of(path)
}

/// Writes a file that was not there, for those who may read another one: whoever renews need not be who runs it.
pub(crate) fn write_new(path: &Path, text: &str, like: &Path) -> anyhow::Result<()> {
    let present = std::fs::metadata(like).with_context(|| format!("cannot read {}", like.display()))?;
    let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = create().with_context(|| format!("cannot write {}", path.display()))?;
    fill(&mut file, text, &present)
        .inspect_err(|_| drop(std::fs::remove_file(path)))
        .with_context(|| format!("cannot write {} for those who read {}", path.display(), like.display()))
}

fn fill(file: &mut File, text: &str, like: &Metadata) -> io::Result<()> {
    file.write_all(text.as_bytes())?;
    let made = file.metadata()?;
    if (made.uid(), made.gid()) != (like.uid(), like.gid()) {
        fchown(&*file, Some(like.uid()), Some(like.gid()))?;
    }
    file.set_permissions(Permissions::from_mode(like.mode() & 0o777))?;
    file.sync_all()
}

pub(crate) fn sync_folder_of(path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let sync = || File::open(folder)?.sync_all();
    sync().with_context(|| format!("cannot write {}", folder.display()))
}
