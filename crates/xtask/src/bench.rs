//! `cargo xtask bench`: Stele beside its peers, measured in one run on this machine.

use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::cargo;
use crate::progress::{bold, say};
use crate::setup::{self, Consent};
use crate::test::REGISTRY_VARIABLE;

/// Packages with a program the benchmarks run.
const PACKAGES: [&str; 3] = ["stele-cli", "stele-agent", "stele-testkit"];
const PROGRAM: &str = "stele-bench";

/// Measure Stele beside its peers, in one run on this machine
///
/// Prepares the machine first, the peers included, and builds release programs.
#[derive(clap::Args)]
#[command(after_help = "Example:\n    cargo xtask bench commit --clients 1,64 --seconds 5")]
pub(crate) struct Args {
    /// Install nothing: list what is missing, with the commands to copy, and fail
    #[arg(long)]
    no_install: bool,
    /// Only the few minutes that guard against getting slower: compares with the committed baseline
    #[arg(long, conflicts_with = "bench")]
    quick: bool,
    /// Which benchmark, and its options; all of them when absent
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "BENCH")]
    bench: Vec<String>,
}

impl Args {
    /// Runs the task.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let consent = if self.no_install { Consent::Refuse } else { Consent::Ask };
        let environment = setup::ensure(&setup::Options { consent, bench: true })?;
        say!("{}", bold("==> release programs"));
        let mut build = cargo::cargo()?;
        build.args(["build", "--release", "--locked", "--bins"]);
        build.args(PACKAGES.iter().flat_map(|package| ["--package", package]));
        if !build.status().context("cannot run cargo")?.success() {
            bail!("the programs of the benchmarks do not build; see above");
        }
        let program = environment.target_dir.join("release").join(PROGRAM);
        let bench = match (self.quick, self.bench.is_empty()) {
            (true, _) => vec!["quick".to_owned()],
            (false, true) => vec!["all".to_owned()],
            (false, false) => self.bench,
        };
        let error = std::process::Command::new(&program)
            .args(&bench)
            .current_dir(cargo::root())
            .env(REGISTRY_VARIABLE, &environment.registry_addr)
            .exec();
        Err(error).with_context(|| format!("cannot run {}", program.display()))
    }
}
