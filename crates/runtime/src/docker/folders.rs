//! The host's folders that containers mount.

use std::fmt::Display;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use stele_reconcile::HostPolicy;

use crate::runtime::RuntimeError;

/// Whether the folders, each with whether it is read-only, may be mounted also where links lead. A folder that is
/// allowed may be a link to one that is not, and a container may have made that link in a folder it may write to.
pub(super) fn check(policy: &HostPolicy, folders: &[(String, bool)]) -> Result<(), RuntimeError> {
    for (path, read_only) in folders {
        let resolved = resolved(Path::new(path))?;
        policy.check_host_path("HostConfig.Mounts", &resolved.to_string_lossy(), *read_only)?;
    }
    Ok(())
}

/// The path without links. The engine makes what is missing of a folder, through the links that lead there: so as much
/// of it is resolved as exists.
fn resolved(path: &Path) -> Result<PathBuf, RuntimeError> {
    let refused = |why: &dyn Display| {
        RuntimeError::Folder(format!("the host's folder {} is not mounted: {why}", path.display()))
    };
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(refused(&"its path contains `..`"));
    }
    let mut missing = Vec::new();
    let mut existing = path;
    loop {
        match existing.canonicalize() {
            Ok(resolved) => return Ok(missing.iter().rev().fold(resolved, |path, part| path.join(part))),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(refused(&format!("{}: {error}", existing.display()))),
        }
        match existing.symlink_metadata() {
            // Where it leads can change at any time, into whatever is made there.
            Ok(_) => return Err(refused(&format!("the link {} leads nowhere", existing.display()))),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(refused(&format!("{}: {error}", existing.display()))),
        }
        let (Some(parent), Some(name)) = (existing.parent(), existing.file_name()) else {
            return Err(refused(&"nothing on the way to it exists"));
        };
        missing.push(name);
        existing = parent;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use stele_reconcile::HostMount;

    use super::*;

    #[test]
    fn a_folder_is_judged_by_where_it_is_though_it_is_not_there_yet() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let shared = root.join("shared");
        std::fs::create_dir_all(shared.join("there")).unwrap();
        std::fs::create_dir(root.join("private")).unwrap();
        std::fs::write(shared.join("file"), "").unwrap();
        symlink(root.join("private"), shared.join("out")).unwrap();
        symlink(shared.join("there"), shared.join("within")).unwrap();
        symlink(root.join("nowhere"), shared.join("dangling")).unwrap();
        let policy = HostPolicy {
            host_mounts: vec![HostMount { path: shared.to_string_lossy().into_owned(), writable: true }],
            ..HostPolicy::default()
        };
        let judged = |below: &str| {
            let path = shared.join(below).to_string_lossy().into_owned();
            check(&policy, &[(path, false)]).map_err(|error| error.to_string())
        };
        for fine in ["", "there", "new", "new/and/deeper", "there/new", "within", "within/new"] {
            assert_eq!(judged(fine), Ok(()), "{fine}");
        }
        for (below, said) in [
            ("out", "host_mounts"),
            ("out/new", "host_mounts"),
            ("out/new/and/deeper", "host_mounts"),
            ("dangling", "leads nowhere"),
            ("dangling/new", "leads nowhere"),
            ("there/../new", "`..`"),
            ("file/new", "file/new"),
        ] {
            let refused = judged(below).unwrap_err();
            assert!(refused.contains(said), "{below}: {refused}");
        }
    }

    #[test]
    fn what_does_not_exist_for_the_agent_is_judged_as_it_is_written() {
        let path = "/no-such-folder-of-this-host/data".to_owned();
        let allowed = HostPolicy {
            host_mounts: vec![HostMount { path: path.clone(), writable: false }],
            ..HostPolicy::default()
        };
        assert!(check(&allowed, &[(path.clone(), true)]).is_ok());
        assert!(check(&allowed, &[(path.clone(), false)]).is_err());
        assert!(check(&HostPolicy::default(), &[(path, true)]).is_err());
    }
}
