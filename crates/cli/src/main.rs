//! The `stele` binary: the client's commands, and the controller behind its own subcommands.
//!
//! It owns what people type and read. It must never decide anything about the fleet:
//! that is the controllers' to do, so every command is a request to them.
//!
//! ```text
//! stele apply -f shop.yaml --wait
//! stele rollback shop/web@prod --to v1
//! ```

mod client;
mod commands;
mod context;
mod dev;
mod differences;
mod exit;
mod files;
mod folder;
mod limits;
mod lines;
mod new_admin;
mod options;
mod progress;
mod recover;
mod renew;
mod replay;
mod server;
mod session;
mod terminal;

use std::process::ExitCode;

use clap::Parser as _;

use commands::Cli;

/// A controller allocates much and gives most of it back from another thread, which the C library's allocator
/// pays dearly for: `docs/benchmarks/README.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_silent() {
                eprintln!("error: {}", terminal::visible(&failure.to_string()));
            }
            failure.exit_code()
        }
    }
}
