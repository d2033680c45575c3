//! The machine's Docker, by its command line: what a reader could type too.

use std::process::Command;

use anyhow::{Context as _, ensure};

/// Label with the fleet on everything an agent makes.
pub const LABEL_FLEET: &str = "io.stele.fleet";

/// Runs `docker`; answers what it printed.
pub fn docker(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("docker").args(arguments).output().context("cannot run docker")?;
    ensure!(
        output.status.success(),
        "docker {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Ids of a fleet's containers, those that ended included.
pub fn containers(fleet: &str) -> anyhow::Result<Vec<String>> {
    listed(&["ps", "--all", "--quiet", "--no-trunc"], fleet)
}

fn listed(list: &[&str], fleet: &str) -> anyhow::Result<Vec<String>> {
    let filter = format!("label={LABEL_FLEET}={fleet}");
    let text = docker(&[list, &["--filter", &filter]].concat())?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// Names of all fleets that have anything in Docker.
pub fn fleets() -> anyhow::Result<Vec<String>> {
    let format = format!("{{{{.Label \"{LABEL_FLEET}\"}}}}");
    let filter = format!("label={LABEL_FLEET}");
    let mut names = Vec::new();
    for list in [&["ps", "--all"][..], &["network", "ls"], &["volume", "ls"]] {
        let text = docker(&[list, &["--filter", &filter, "--format", &format]].concat())?;
        names.extend(text.split_whitespace().map(str::to_owned));
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// Removes everything of a fleet; answers what is still there.
pub fn remove_fleet(fleet: &str) -> Vec<String> {
    let kinds: [(&str, &[&str], &[&str]); 3] = [
        ("container", &["ps", "--all", "--quiet", "--no-trunc"], &["rm", "--force", "--volumes"]),
        ("network", &["network", "ls", "--quiet"], &["network", "rm"]),
        ("volume", &["volume", "ls", "--quiet"], &["volume", "rm", "--force"]),
    ];
    let mut left = Vec::new();
    for (kind, list, remove) in kinds {
        let names = listed(list, fleet).unwrap_or_default();
        if !names.is_empty() {
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            // What could not be removed is listed again below.
            let _ = docker(&[remove, &names].concat());
        }
        match listed(list, fleet) {
            Ok(names) => left.extend(names.into_iter().map(|name| format!("{kind} {name}"))),
            Err(error) => left.push(format!("maybe a {kind}: {error}")),
        }
    }
    left
}
