//! Commits what was published, where the folder is a git repository.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use tokio::process::Command;

use crate::limits::GIT_DEADLINE;

/// A work tree whose top is the folder of checkpoints.
pub(super) struct Repository {
    folder: PathBuf,
}

impl Repository {
    /// If the folder is the top of a work tree, and there is a git.
    pub(super) async fn open(folder: &Path) -> Option<Self> {
        let repository = Self { folder: folder.to_owned() };
        // Below another project's top, commits would land in that project.
        let prefix = repository.git(&["rev-parse", "--is-inside-work-tree", "--show-prefix"]).await.ok()?;
        (prefix.status.success() && prefix.stdout == b"true\n\n").then_some(repository)
    }

    /// Commits files. What goes wrong is only said: checkpoints are in the folder all the same.
    pub(super) async fn commit(&self, files: &[&str], message: &str) {
        let add = [&["add", "--"], files].concat();
        let commit = [&["commit", "--quiet", "--message", message, "--"], files].concat();
        for arguments in [add, commit] {
            match self.git(&arguments).await {
                Ok(output) if output.status.success() => {}
                Ok(output) => {
                    let said = String::from_utf8_lossy(&output.stderr);
                    tracing::warn!(folder = %self.folder.display(), said = %said.trim(), "git failed");
                    return;
                }
                Err(error) => {
                    tracing::warn!(folder = %self.folder.display(), %error, "git failed");
                    return;
                }
            }
        }
    }

    async fn git(&self, arguments: &[&str]) -> std::io::Result<Output> {
        let mut command = Command::new("git");
        command
            .arg("-C")
            .arg(&self.folder)
            .args(arguments)
            // Whoever runs the controller may have no name in git.
            .env("GIT_AUTHOR_NAME", "stele controller")
            .env("GIT_AUTHOR_EMAIL", "controller@stele.invalid")
            .env("GIT_COMMITTER_NAME", "stele controller")
            .env("GIT_COMMITTER_EMAIL", "controller@stele.invalid")
            .env("GIT_TERMINAL_PROMPT", "0")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        match tokio::time::timeout(GIT_DEADLINE, command.output()).await {
            Ok(output) => output,
            Err(_) => Err(std::io::Error::other(format!("no end within {GIT_DEADLINE:?}"))),
        }
    }
}
