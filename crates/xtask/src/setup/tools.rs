//! The parts of the Rust toolchain and the cargo subcommands that checks and tests need.

use std::process::Command;

use crate::progress::say;
use anyhow::{Context, Result, bail};

use super::packages::program;
use crate::cargo;

/// Something cargo needs that is not there.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tool {
    /// A component of the toolchain, added by rustup.
    Component {
        /// What rustup calls it.
        name: &'static str,
    },
    /// A cargo subcommand, compiled from crates.io.
    Subcommand {
        /// Crate and program name.
        name: &'static str,
        version: &'static str,
        features: &'static [&'static str],
        why: &'static str,
    },
}

const COMPONENTS: &[(&str, &str)] = &[("rustfmt", "cargo-fmt"), ("clippy", "cargo-clippy")];

const SUBCOMMANDS: &[Tool] = &[
    Tool::Subcommand {
        name: "cargo-nextest",
        version: "0.9.151",
        // Without the part that updates itself, which brings a TLS stack along.
        features: &["--no-default-features", "--features", "default-no-update"],
        why: "runs tests, each in its own process with its own time limit",
    },
    Tool::Subcommand {
        name: "cargo-deny",
        version: "0.20.2",
        features: &[],
        why: "checks licences, advisories and sources of dependencies",
    },
];

/// The tools that are not there.
pub(crate) fn missing() -> Result<Vec<Tool>> {
    let mut missing = Vec::new();
    for (name, subcommand) in COMPONENTS {
        // rustup leaves a stand-in on PATH for a component that is absent, so it must be run.
        if !answers(subcommand.trim_start_matches("cargo-"))? {
            missing.push(Tool::Component { name });
        }
    }
    for tool in SUBCOMMANDS {
        if let Tool::Subcommand { name, .. } = tool
            && !answers(name.trim_start_matches("cargo-"))?
        {
            missing.push(*tool);
        }
    }
    Ok(missing)
}

fn answers(subcommand: &str) -> Result<bool> {
    let output = cargo::cargo()?.args([subcommand, "--version"]).output().context("cannot run cargo")?;
    Ok(output.status.success())
}

impl Tool {
    fn arguments(&self) -> Vec<String> {
        match self {
            Self::Component { name } => vec!["component".into(), "add".into(), (*name).into()],
            Self::Subcommand { name, version, features, .. } => {
                let mut arguments: Vec<String> =
                    vec!["install".into(), "--locked".into(), format!("{name}@{version}")];
                arguments.extend(features.iter().map(|&feature| feature.to_owned()));
                arguments
            }
        }
    }

    fn program(&self) -> &'static str {
        match self {
            Self::Component { .. } => "rustup",
            Self::Subcommand { .. } => "cargo",
        }
    }
}

/// Says what is missing and how to install it by hand.
pub(crate) fn describe(missing: &[Tool]) {
    if missing.is_empty() {
        return;
    }
    say!("\nRust tools:");
    for tool in missing {
        match tool {
            Tool::Component { name } => say!("    {name:<18} a component of the toolchain"),
            Tool::Subcommand { name, why, .. } => {
                say!("    {name:<18} {why}; compiled from source, which takes minutes");
            }
        }
    }
    say!();
    for tool in missing {
        say!("    {} {}", tool.program(), tool.arguments().join(" "));
    }
    say!();
}

/// Installs the tools.
pub(crate) fn install(missing: &[Tool]) -> Result<()> {
    for tool in missing {
        let shown = format!("{} {}", tool.program(), tool.arguments().join(" "));
        say!("running: {shown}");
        let mut command = match tool {
            Tool::Component { .. } => {
                let Some(rustup) = program("rustup") else {
                    bail!(
                        "the Rust toolchain here lacks a component and was not installed by \
                         rustup; install it with your package manager (`{shown}`)"
                    );
                };
                Command::new(rustup)
            }
            Tool::Subcommand { .. } => {
                let mut command = cargo::cargo()?;
                // Optimising a tool takes longer than all the time its speed would save, and
                // a folder of its own keeps it from waiting for a build that is going on.
                command
                    .env("CARGO_TARGET_DIR", cargo::target_dir()?.join("tools"))
                    .env("CARGO_PROFILE_DEV_DEBUG", "false");
                command
            }
        };
        command.args(tool.arguments());
        if matches!(tool, Tool::Subcommand { .. }) {
            command.args(["--profile", "dev"]);
        }
        let status = command.status().with_context(|| format!("cannot run {}", tool.program()))?;
        if !status.success() {
            bail!(
                "`{shown}` failed ({status}); its own message is above. It needs crates.io \
                 (or the mirror in ~/.cargo/config.toml) to be reachable"
            );
        }
    }
    let tools = cargo::target_dir()?.join("tools");
    if tools.is_dir() {
        std::fs::remove_dir_all(&tools).with_context(|| format!("cannot remove {}", tools.display()))?;
    }
    Ok(())
}
