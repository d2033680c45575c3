//! `cargo xtask check`: may this be merged?

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::progress::{Outcome, Steps};
use crate::{cargo, deny, layers, tidy};

/// Check formatting, lints, layers, dependencies and docs
///
/// Every step runs even when an earlier one failed, and the last lines say how each went.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these steps; all of them when none is named
    steps: Vec<Step>,
    /// Write what is generated from the sources (docs/limits.md) instead of comparing it
    #[arg(long)]
    bless: bool,
}

/// The quick ones come first, so that a slip is seen within seconds.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// rustfmt would change nothing
    Format,
    /// Which crate may depend on which
    Layers,
    /// Sizes of files, docs of crates, generated pages, declared dependencies
    Tidy,
    /// Licences, advisories, bans and sources of dependencies, with cargo-deny
    Dependencies,
    /// Clippy, every warning an error
    Lints,
    /// rustdoc, every warning an error
    Docs,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Layers => "layers",
            Self::Tidy => "tidy",
            Self::Dependencies => "dependencies",
            Self::Lints => "lints",
            Self::Docs => "docs",
        }
    }

    fn run(self, bless: bool) -> Result<Outcome> {
        match self {
            Self::Format => run(&["fmt", "--all", "--check"], &[], "run: cargo fmt --all"),
            Self::Layers => layers::check(),
            Self::Tidy => tidy::check(bless),
            Self::Dependencies => deny::check(),
            Self::Lints => run(
                &[
                    "clippy",
                    "--locked",
                    "--workspace",
                    "--all-targets",
                    "--keep-going",
                    "--",
                    "--deny=warnings",
                ],
                &[],
                "clippy found something; see above",
            ),
            Self::Docs => run(
                &["doc", "--locked", "--workspace", "--no-deps", "--keep-going", "--document-private-items"],
                &[("RUSTDOCFLAGS", "--deny=warnings")],
                "rustdoc found something; see above",
            ),
        }
    }
}

impl Args {
    /// Runs the task.
    pub(crate) fn run(self) -> ExitCode {
        let mut steps = Steps::default();
        for step in Step::value_variants() {
            if self.steps.is_empty() || self.steps.contains(step) {
                steps.run(step.name(), || step.run(self.bless));
            }
        }
        steps.finish("check")
    }
}

fn run(arguments: &[&str], variables: &[(&str, &str)], advice: &str) -> Result<Outcome> {
    let status = cargo::cargo()?
        .args(arguments)
        .envs(variables.iter().copied())
        .status()
        .context("cannot run cargo")?;
    Ok(if status.success() { Outcome::Passed } else { Outcome::Failed(advice.to_owned()) })
}
