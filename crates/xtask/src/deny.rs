//! Licences, advisories, bans and sources of dependencies, with cargo-deny.

use std::process::Command;

use anyhow::{Context, Result};

use crate::cargo;
use crate::progress::{Outcome, say};

const ADVISORY_SOURCE: &str = "https://github.com/rustsec/advisory-db";

/// Runs cargo-deny. Where the advisory database cannot be fetched, everything else is
/// still checked, and the outcome says so: a machine without the internet is no reason to
/// let a bad licence through, and a check that was not made is not to look like one that passed.
pub(crate) fn check() -> Result<Outcome> {
    let fetched =
        deny(&["fetch", "db"])?.output().context("cannot run cargo-deny; `cargo xtask setup` installs it")?;
    if fetched.status.success() {
        return Ok(outcome(run(&["check", "--disable-fetch", "--hide-inclusion-graph"])?, Outcome::Passed));
    }
    let said = String::from_utf8_lossy(&fetched.stderr);
    // git's own last word says most; cargo-deny wraps it in lines about what it tried.
    let reason = said
        .lines()
        .rfind(|line| line.starts_with("fatal:") || line.contains("[ERROR]"))
        .unwrap_or("no reason given");
    say!(
        "    The advisory database could not be fetched from {ADVISORY_SOURCE}:\n    {}\n    \
         So no dependency was checked for known vulnerabilities here; licences, bans and \
         sources are.",
        reason.trim()
    );
    Ok(outcome(
        run(&["check", "--hide-inclusion-graph", "licenses", "bans", "sources"])?,
        Outcome::PassedExcept("advisories not checked: their database could not be fetched".into()),
    ))
}

fn outcome(passed: bool, good: Outcome) -> Outcome {
    if passed {
        good
    } else {
        Outcome::Failed("see above; decisions and their reasons are in deny.toml".into())
    }
}

fn run(arguments: &[&str]) -> Result<bool> {
    Ok(deny(arguments)?.status().context("cannot run cargo-deny")?.success())
}

fn deny(arguments: &[&str]) -> Result<Command> {
    let mut command = cargo::cargo()?;
    command.args(["deny", "--locked", "--workspace"]).args(arguments);
    Ok(command)
}
