//! The developer's commands: one word for each thing a working day needs.
//!
//! `cargo xtask setup` turns a bare machine into one that can build and run Stele,
//! `check` says whether a change may be merged, `test` runs every test. CI runs the
//! same three, so what passes here passes there. `demo` shows what it is all about.
//!
//! This crate runs before anything else is installed. It must therefore build with a
//! Rust toolchain and a linker alone: never depend on a crate that needs a C++
//! compiler, `protoc` or a service, and never on another Stele crate.

mod bench;
mod cargo;
mod chaos;
mod check;
mod demo;
mod deny;
mod fuzz;
mod goals_page;
mod golden_log;
mod layers;
mod limits;
mod limits_page;
mod progress;
mod setup;
mod sim;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer commands of the Stele repository.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    after_help = "A fresh clone needs two commands:\n\n    cargo xtask setup\n    cargo xtask test\n\n\
        To see Stele at work:\n\n    cargo xtask demo\n\n\
        Builds go to $CARGO_TARGET_DIR, or to ~/.cache/stele-target when that is unset."
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

/// A further task is one line here, one line in `main`, and a module with an `Args`.
#[derive(Subcommand)]
enum Task {
    Setup(setup::Args),
    Check(check::Args),
    Test(test::Args),
    Demo(demo::Args),
    Bench(bench::Args),
    GoldenLog(golden_log::Args),
    Sim(sim::Args),
    Fuzz(fuzz::Args),
    Chaos(chaos::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Setup(args) => args.run(),
        Task::Check(args) => Ok(args.run()),
        Task::Test(args) => args.run(),
        Task::Demo(args) => args.run(),
        Task::Bench(args) => args.run(),
        Task::GoldenLog(args) => args.run(),
        Task::Sim(args) => args.run(),
        Task::Fuzz(args) => args.run(),
        Task::Chaos(args) => args.run(),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}
