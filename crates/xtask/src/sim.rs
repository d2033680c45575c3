//! `cargo xtask sim`: a whole fleet under virtual time, with everything that goes wrong drawn from a seed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use crate::cargo;
use crate::progress::say;

const PACKAGE: &str = "stele-simulations";
const PROGRAM: &str = "stele-sim";
/// As fast as a release, and with the assertions of a development build.
const PROFILE: &str = "sim";
/// Where the table of planted bugs stands.
const PAGE: &str = "docs/simulation.md";
/// Makes data folders of logs. It links a store, which the simulator must not.
const FOLDERS_PACKAGE: &str = "stele-testkit";
const FOLDERS_PROGRAM: &str = "stele-log-folder";
/// How the name of a log ends that a run left.
const LOG_SUFFIX: &str = ".log.hex";

/// Run a whole fleet under virtual time, with every fault drawn from a seed
///
/// The same seed is the same run, bit for bit. What it is and how to read a failure: docs/simulation.md.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n    cargo xtask sim --seed 42\n    cargo xtask sim --seeds 1..1000\n    \
    cargo xtask sim --budget 60m\n    cargo xtask sim --planted\n    cargo xtask sim --help-all")]
pub(crate) struct Args {
    /// What to run, and its options
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "OPTIONS")]
    options: Vec<String>,
}

impl Args {
    /// Runs the task.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let mut options = self.options;
        if options == ["--help-all"] {
            options = vec!["--help".to_owned()];
        }
        let is_planted = options.iter().any(|option| option == "--planted" || option.starts_with("--plant"));
        let program = build(is_planted)?;
        if options == ["--planted"] {
            options.extend(["--page".to_owned(), PAGE.to_owned()]);
        }
        if value_of(&options, "--out").is_none() {
            let out = cargo::target_dir()?.join("sim-logs");
            options.extend(["--out".to_owned(), out.display().to_string()]);
        }
        let out = PathBuf::from(value_of(&options, "--out").unwrap_or_default());
        let began = SystemTime::now();
        let status = Command::new(&program)
            .args(&options)
            .current_dir(cargo::root())
            .status()
            .with_context(|| format!("cannot run {}", program.display()))?;
        for log in logs_since(&out, began)? {
            make_folder(&log)?;
        }
        Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Builds the simulator, with the bugs to plant or without.
pub(crate) fn build(is_planted: bool) -> Result<PathBuf> {
    let mut build = cargo::cargo()?;
    build.args(["build", "--quiet", "--locked", "--profile", PROFILE]);
    build.args(["--package", PACKAGE, "--bin", PROGRAM]);
    if is_planted {
        build.args(["--features", "planted"]);
    }
    if !build.status().context("cannot run cargo")?.success() {
        bail!("the simulator does not build; see above");
    }
    Ok(cargo::target_dir()?.join(PROFILE).join(PROGRAM))
}

fn value_of<'a>(options: &'a [String], name: &str) -> Option<&'a str> {
    let mut options = options.iter();
    while let Some(option) = options.next() {
        if option == name {
            return options.next().map(String::as_str);
        }
        if let Some(value) = option.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
            return Some(value);
        }
    }
    None
}

/// The logs in a folder that were written since a moment.
fn logs_since(out: &Path, began: SystemTime) -> Result<Vec<PathBuf>> {
    let Ok(entries) = std::fs::read_dir(out) else { return Ok(Vec::new()) };
    let mut logs = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let is_log = path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.ends_with(LOG_SUFFIX));
        if is_log && path.metadata()?.modified()? >= began {
            logs.push(path);
        }
    }
    logs.sort();
    Ok(logs)
}

/// Makes the data folder of a log beside it, and says what can be done with it.
fn make_folder(log: &Path) -> Result<()> {
    let name = log.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let folder = log.with_file_name(name.trim_end_matches(LOG_SUFFIX));
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot replace {}", folder.display()))?;
    }
    let mut command = cargo::cargo()?;
    command.args([
        "run",
        "--quiet",
        "--locked",
        "--package",
        FOLDERS_PACKAGE,
        "--bin",
        FOLDERS_PROGRAM,
        "--",
    ]);
    command.arg("--log").arg(log).arg("--folder").arg(&folder);
    if !command.status().context("cannot run cargo")?.success() {
        bail!("no data folder was made of {}; see above", log.display());
    }
    let folder = folder.display();
    say!(
        "its data folder: {folder}\n    stele replay --data {folder}\n    stele diff fleet seq:1 --data {folder}\n    \
         stele why shop/app0@prod --data {folder}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_s_value_is_found_in_both_forms() {
        let options: Vec<String> = ["--seed", "4", "--out=there"].map(str::to_owned).into();
        assert_eq!(value_of(&options, "--seed"), Some("4"));
        assert_eq!(value_of(&options, "--out"), Some("there"));
        assert_eq!(value_of(&options, "--outer"), None);
    }
}
