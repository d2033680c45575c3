//! Where the programs under test are.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

/// Names the folder with the programs that tests start.
const BIN_DIR_VARIABLE: &str = "STELE_TEST_BIN_DIR";
/// Names the registry that tests pull images from.
const REGISTRY_VARIABLE: &str = "STELE_TEST_REGISTRY";
/// Where `cargo xtask setup` puts the registry unless told otherwise.
const REGISTRY_DEFAULT: &str = "127.0.0.1:5055";

/// The programs of one build.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The folder they are in.
    pub folder: PathBuf,
}

impl Programs {
    /// Those of the build this program is of, unless the environment says otherwise.
    pub fn find() -> anyhow::Result<Self> {
        let folder = match std::env::var_os(BIN_DIR_VARIABLE).filter(|folder| !folder.is_empty()) {
            Some(folder) => PathBuf::from(folder),
            None => beside_this_program()?,
        };
        let programs = Self { folder };
        for program in [programs.stele(), programs.agent()] {
            ensure!(
                program.exists(),
                "{} is not there; build it first: cargo build -p stele-cli -p stele-agent --bins",
                program.display()
            );
        }
        Ok(programs)
    }

    /// `stele`.
    pub fn stele(&self) -> PathBuf {
        self.folder.join("stele")
    }

    /// `stele-agent`.
    pub fn agent(&self) -> PathBuf {
        self.folder.join("stele-agent")
    }
}

fn beside_this_program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("this program's path is unknown")?;
    let folder = own.parent().context("this program has no folder")?;
    // Tests are built into a folder below the programs'.
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(Path::to_path_buf(folder))
}

/// `host:port` of the registry with the test images, which `cargo xtask setup` makes.
pub fn registry() -> String {
    std::env::var(REGISTRY_VARIABLE)
        .ok()
        .filter(|registry| !registry.is_empty())
        .unwrap_or_else(|| REGISTRY_DEFAULT.to_owned())
}
