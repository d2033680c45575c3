//! `cargo xtask sim`: a whole fleet under virtual time, with everything that goes wrong drawn from a seed.

use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::cargo;

const PACKAGE: &str = "stele-simulations";
const PROGRAM: &str = "stele-sim";
/// As fast as a release, and with the assertions of a development build.
const PROFILE: &str = "sim";
/// Where the table of planted bugs stands.
const PAGE: &str = "docs/simulation.md";

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
        let is_planted = options.iter().any(|option| option == "--planted" || option == "--plant");
        let mut build = cargo::cargo()?;
        build.args([
            "build",
            "--quiet",
            "--locked",
            "--profile",
            PROFILE,
            "--package",
            PACKAGE,
            "--bin",
            PROGRAM,
        ]);
        if is_planted {
            build.args(["--features", "planted"]);
        }
        if !build.status().context("cannot run cargo")?.success() {
            bail!("the simulator does not build; see above");
        }
        if options == ["--planted"] {
            options.extend(["--page".to_owned(), PAGE.to_owned()]);
        }
        let program = cargo::target_dir()?.join(PROFILE).join(PROGRAM);
        let error = std::process::Command::new(&program).args(&options).current_dir(cargo::root()).exec();
        Err(error).with_context(|| format!("cannot run {}", program.display()))
    }
}
