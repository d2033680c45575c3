//! `cargo xtask demo`: the whole of Stele at work on this machine, in minutes.

use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::cargo;
use crate::progress::{bold, say};
use crate::setup::{self, Consent};
use crate::test::REGISTRY_VARIABLE;

/// Packages with a program the demo runs.
const PACKAGES: [&str; 3] = ["stele-cli", "stele-agent", "stele-testkit"];
const PROGRAM: &str = "stele-demo";

/// Deploy, break, roll back: a fleet of real processes and containers, before your eyes
///
/// Prepares the machine first, as `cargo xtask setup` does, and builds release programs.
/// Everything the demo makes is gone afterwards, also after Ctrl-C. What set-up started for it (Docker's
/// engine, a registry) runs on for the next time; `cargo xtask setup --stop` ends it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Install nothing: list what is missing, with the commands to copy, and fail
    #[arg(long)]
    no_install: bool,
    /// Don't ask before installing
    #[arg(long, short, conflicts_with = "no_install")]
    yes: bool,
}

impl Args {
    /// Runs the task.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let environment = setup::ensure(&setup::Options {
            consent: match (self.no_install, self.yes) {
                (true, _) => Consent::Refuse,
                (false, true) => Consent::Given,
                (false, false) => Consent::Ask,
            },
            bench: false,
        })?;
        say!("{}", bold("==> release programs (the first time, RocksDB alone takes some minutes)"));
        let mut build = cargo::cargo()?;
        build.args(["build", "--release", "--locked", "--bins"]);
        build.args(PACKAGES.iter().flat_map(|package| ["--package", package]));
        if !build.status().context("cannot run cargo")?.success() {
            bail!("the programs of the demo do not build; see above");
        }
        let program = environment.target_dir.join("release").join(PROGRAM);
        // It takes this process's place: Ctrl-C is then the demo's alone, and it can clean up.
        let error = std::process::Command::new(&program)
            .current_dir(cargo::root())
            .env(REGISTRY_VARIABLE, &environment.registry_addr)
            .exec();
        Err(error).with_context(|| format!("cannot run {}", program.display()))
    }
}
