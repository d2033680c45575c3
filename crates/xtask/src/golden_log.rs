//! `cargo xtask golden-log`: one more generation of the history that keeps its meaning for ever.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::cargo;

const PACKAGE: &str = "stele-testkit";
const PROGRAM: &str = "stele-golden";

/// Write the next generation of the golden history, from what this version of the program does
///
/// Needed when a kind of event or a schema is new. The generations there are stay as they are: they
/// are never written over.
#[derive(clap::Args)]
#[command(
    after_help = "Writes crates/testkit/golden/history-N.log and history-N.json, to be committed. What the\n\
    generations are for: docs/log-format.md, \"The golden history\"."
)]
pub(crate) struct Args {}

impl Args {
    /// Runs the task.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let Self {} = self;
        let mut command = cargo::cargo()?;
        command.args(["run", "--locked", "--package", PACKAGE, "--bin", PROGRAM, "--", "--checkout"]);
        if !command.arg(cargo::root()).status().context("cannot run cargo")?.success() {
            bail!("no generation was added; see above");
        }
        Ok(ExitCode::SUCCESS)
    }
}
