//! `cargo xtask test`: every test there is.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::cargo;
use crate::progress::{Outcome, Steps};
use crate::setup::{self, Consent, Environment};

/// Names the folder with the programs that tests start.
const BIN_DIR_VARIABLE: &str = "STELE_TEST_BIN_DIR";
/// Names the registry that tests pull images from.
pub(crate) const REGISTRY_VARIABLE: &str = "STELE_TEST_REGISTRY";

/// Run every test: unit, property, contract, real processes, examples in docs
///
/// Prepares the machine first, as `cargo xtask setup` does, then builds the programs that
/// tests start.
#[derive(clap::Args)]
#[command(after_help = "Arguments after -- go to cargo-nextest; with any, examples in docs are \
    left out:\n\n    cargo xtask test -- -p stele-store\n    cargo xtask test -- -E 'test(rollback)'")]
pub(crate) struct Args {
    /// Trust the machine to be ready and skip the look at it
    #[arg(long)]
    no_setup: bool,
    /// Arguments for `cargo nextest run`
    #[arg(last = true)]
    nextest: Vec<OsString>,
}

impl Args {
    /// Runs the task.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let environment = if self.no_setup {
            None
        } else {
            Some(setup::ensure(&setup::Options { consent: Consent::Ask, bench: false })?)
        };
        let environment = environment.as_ref();
        let mut steps = Steps::default();
        steps.run("programs", || {
            let mut command = prepared(environment)?;
            // Of the whole workspace, as the tests are: built by themselves, the programs would
            // get other features of shared dependencies, and those be compiled twice.
            command.args(["build", "--locked", "--workspace", "--bins"]);
            passed(command, "the programs that tests start do not build")
        });
        // Tests that start yesterday's programs would only mislead.
        if steps.any_failed() {
            return Ok(steps.finish("test"));
        }
        steps.run("tests", || {
            let mut command = prepared(environment)?;
            command.args(["nextest", "run", "--locked"]);
            if !self.nextest.iter().any(chooses_packages) {
                command.arg("--workspace");
            }
            command.args(&self.nextest);
            passed(command, "see nextest's summary above")
        });
        if self.nextest.is_empty() {
            steps.run("doc examples", || {
                let mut command = prepared(environment)?;
                command.args(["test", "--locked", "--doc", "--workspace", "--quiet"]);
                passed(command, "an example in the docs does not hold; see above")
            });
        }
        Ok(steps.finish("test"))
    }
}

fn chooses_packages(argument: &OsString) -> bool {
    argument.to_str().is_some_and(|argument| argument.starts_with("-p") || argument.starts_with("--package"))
}

fn prepared(environment: Option<&Environment>) -> Result<Command> {
    let mut command = cargo::cargo()?;
    command.env(BIN_DIR_VARIABLE, cargo::target_dir()?.join("debug"));
    if let Some(environment) = environment {
        command.env(REGISTRY_VARIABLE, &environment.registry_addr);
    }
    Ok(command)
}

fn passed(mut command: Command, advice: &str) -> Result<Outcome> {
    let status = command.status().context("cannot run cargo")?;
    Ok(if status.success() { Outcome::Passed } else { Outcome::Failed(advice.to_owned()) })
}
