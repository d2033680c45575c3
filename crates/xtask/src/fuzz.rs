//! `cargo xtask fuzz`: decoders are given what is nearly right, for as long as wanted.

use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::cargo;

const PACKAGE: &str = "stele-fuzz";
const PROGRAM: &str = "stele-fuzz";

/// Give every decoder of bytes from outside what is nearly right, and notice what does not hold
///
/// The same seed and iteration is the same input. What is found is written to a file, and made smaller; kept in the
/// corpus, it is a test from then on. The decoders and what must hold of each: docs/fuzzing.md.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n    cargo xtask fuzz\n    cargo xtask fuzz entry --for 10m --seed 7\n    \
    cargo xtask fuzz entry --input FILE\n    cargo xtask fuzz --list\n    cargo xtask fuzz --corpus\n    \
    cargo xtask fuzz --help-all"
)]
pub(crate) struct Args {
    /// Targets and options; all targets unless some are named
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    options: Vec<String>,
}

impl Args {
    /// Runs the task.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let mut options = self.options;
        if options == ["--help-all"] {
            options = vec!["--help".to_owned()];
        }
        // As tests are built: with the checks of a development build, and most of it built already.
        let mut build = cargo::cargo()?;
        build.args(["build", "--quiet", "--locked", "--package", PACKAGE, "--bin", PROGRAM]);
        if !build.status().context("cannot run cargo")?.success() {
            bail!("the fuzz targets do not build; see above");
        }
        let program = cargo::target_dir()?.join("debug").join(PROGRAM);
        let error = std::process::Command::new(&program).args(&options).current_dir(cargo::root()).exec();
        Err(error).with_context(|| format!("cannot run {}", program.display()))
    }
}
