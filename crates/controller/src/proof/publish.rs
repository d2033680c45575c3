//! Puts checkpoints into a folder outside the fleet, for others to keep and cosign.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stele_proof::SignedCheckpoint;

use super::cosign::Awaited;
use super::{git, lock};
use crate::handle::Handle;
use crate::limits::CHECKPOINT_PUBLISH_INTERVAL;

/// The file that always holds the newest checkpoint.
const LATEST: &str = "latest.note";

/// Publishes for ever, when there is a folder to publish in. A folder that cannot be written
/// is complained about and tried again: it never stops the controller.
pub(crate) async fn run(handle: Handle, folder: Option<PathBuf>) {
    let Some(folder) = folder else { return std::future::pending().await };
    let mut watch = handle.proofs().checkpoint.subscribe();
    let repository = git::Repository::open(&folder).await;
    let mut awaited = Awaited::open(folder.clone());
    let mut published = 0;
    let mut complained = false;
    loop {
        let newest = watch.borrow_and_update().clone();
        if let Some(signed) = newest.filter(|signed| signed.checkpoint.size > published) {
            let size = signed.checkpoint.size;
            match write(&folder, &signed).await {
                Ok(()) => {
                    published = size;
                    complained = false;
                    awaited.expect(size);
                    if let Some(repository) = &repository {
                        repository
                            .commit(&[&name(size), LATEST], &format!("Checkpoint at {size} records"))
                            .await;
                    }
                }
                Err(error) if !complained => {
                    complained = true;
                    tracing::warn!(folder = %folder.display(), %error, "checkpoints cannot be published");
                }
                Err(_) => {}
            }
        }
        awaited = look(&handle, awaited).await;
        tokio::time::sleep(CHECKPOINT_PUBLISH_INTERVAL).await;
    }
}

/// The file of a checkpoint.
pub(super) fn name(size: u64) -> String {
    format!("{size}.note")
}

async fn look(handle: &Handle, mut awaited: Awaited) -> Awaited {
    let reader = handle.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let found = awaited.look(&reader);
        (awaited, found)
    });
    match looked.await {
        Ok((awaited, found)) => {
            if let Some(found) = found {
                *lock(&handle.proofs().cosigned) = Some(Arc::new(found));
            }
            awaited
        }
        Err(error) => {
            tracing::warn!(%error, "looking for cosignatures failed");
            Awaited::default()
        }
    }
}

async fn write(folder: &Path, signed: &SignedCheckpoint) -> std::io::Result<()> {
    let (folder, name, text) = (folder.to_owned(), name(signed.checkpoint.size), signed.to_string());
    let written = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&folder)?;
        put(&folder, &name, &text)?;
        put(&folder, LATEST, &text)
    });
    written.await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

/// Writes a file so that whoever reads it finds all of it or none. Witnesses may write to the folder, too: what is
/// there already under the temporary name, a link to a key, say, is nothing to write through.
fn put(folder: &Path, name: &str, text: &str) -> std::io::Result<()> {
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::File::options().write(true).create_new(true).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(temporary, folder.join(name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nothing_is_written_through_a_link_that_somebody_left() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("master.key");
        std::fs::write(&key, "secret").unwrap();
        let temporary = format!(".{LATEST}.{}", std::process::id());
        std::os::unix::fs::symlink(&key, folder.path().join(&temporary)).unwrap();
        put(folder.path(), LATEST, "note").unwrap();
        assert_eq!(std::fs::read_to_string(&key).unwrap(), "secret");
        assert_eq!(std::fs::read_to_string(folder.path().join(LATEST)).unwrap(), "note");
        assert!(!folder.path().join(temporary).exists());
    }
}
