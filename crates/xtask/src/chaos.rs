//! `cargo xtask chaos`: the real programs, and everything that goes wrong with real machines.

use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::cargo;
use crate::setup::{self, Consent};

/// Packages with a program the run uses.
const PACKAGES: [&str; 3] = ["stele-cli", "stele-agent", "stele-testkit"];
const PROGRAM: &str = "stele-chaos";

/// Run real programs on machines of their own, break things, and check what was promised
///
/// Controllers, regions and NATS servers live in network namespaces, on small disks; partitions, kills,
/// full and failing disks, wrong clocks and lost messages are drawn from a seed. Nothing of it is seen
/// outside, and all of it is gone afterwards, however it ends. See docs/chaos.md.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n    cargo xtask chaos\n    cargo xtask chaos --seed 7 --rounds 40\n    \
    cargo xtask chaos --list\n    cargo xtask chaos --release --only power-cut --keep\n    cargo xtask chaos --help-all")]
pub(crate) struct Args {
    /// Trust the machine to be ready and skip the look at it
    #[arg(long)]
    no_setup: bool,
    /// Use release programs; those of tests check more of what they believe while they run
    #[arg(long)]
    release: bool,
    /// --seed S, --rounds N, --only KIND, --controllers N, --keep, --short, --lying-disks, --list
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
        if !self.no_setup {
            setup::ensure(&setup::Options { consent: Consent::Ask, bench: false })?;
        }
        let mut build = cargo::cargo()?;
        build.args(["build", "--quiet", "--locked", "--bins"]);
        if self.release {
            build.arg("--release");
        }
        build.args(PACKAGES.iter().flat_map(|package| ["--package", package]));
        if !build.status().context("cannot run cargo")?.success() {
            bail!("the programs do not build; see above");
        }
        let profile = if self.release { "release" } else { "debug" };
        let program = cargo::target_dir()?.join(profile).join(PROGRAM);
        // It takes this process's place: Ctrl-C is then its alone, and it can clean up.
        let error = std::process::Command::new(&program).args(&options).current_dir(cargo::root()).exec();
        Err(error).with_context(|| format!("cannot run {}", program.display()))
    }
}
