//! Where the checkout is, where builds go, and how to call cargo from inside cargo.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The top of the checkout this command was started from.
///
/// Asked at run time first: two checkouts may share one target folder, and then the
/// path compiled into the program can be the other one's.
pub(crate) fn root() -> PathBuf {
    let manifest_dir = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest_dir.ancestors().nth(2).map_or(manifest_dir.clone(), Path::to_path_buf)
}

/// Where builds, logs and the data of started services go: outside the checkout, so
/// that the checkout stays small enough to copy, search and mount.
pub(crate) fn target_dir() -> Result<PathBuf> {
    if let Some(dir) = non_empty("CARGO_TARGET_DIR") {
        return std::path::absolute(&dir)
            .with_context(|| format!("CARGO_TARGET_DIR={} is not a path", dir.display()));
    }
    let cache = match (non_empty("XDG_CACHE_HOME"), non_empty("HOME")) {
        (Some(cache), _) => cache,
        (None, Some(home)) => home.join(".cache"),
        (None, None) => {
            bail!(
                "neither CARGO_TARGET_DIR, XDG_CACHE_HOME nor HOME is set, so there is no place \
                 to build in; try: export CARGO_TARGET_DIR=/var/tmp/stele-target"
            )
        }
    };
    Ok(cache.join("stele-target"))
}

fn non_empty(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// A cargo to be run at the top of the checkout, as if a person had typed it.
pub(crate) fn cargo() -> Result<Command> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).env("CARGO_TARGET_DIR", target_dir()?);
    // `cargo run` describes this very package in the environment. Build scripts watch some
    // of these names, and RocksDB would be compiled anew, for minutes, whenever
    // `cargo xtask` and a plain `cargo build` take turns.
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(describes_this_package) {
            command.env_remove(name);
        }
    }
    let from_config = root().join(".cargo/cxx");
    if env::var_os("CXX").is_some_and(|cxx| Path::new(&cxx) == from_config) {
        command.env_remove("CXX");
    }
    Ok(command)
}

fn describes_this_package(name: &str) -> bool {
    name == "CARGO"
        || ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}
