//! The slim agent: it owns nothing but the process around [`stele_agent`].
//!
//! It must never grow what a small host cannot spare: one thread, no store, no server.
//!
//! ```text
//! stele-agent run --data /var/lib/stele-agent
//! ```

use std::process::ExitCode;

use clap::Parser as _;
use stele_agent::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the system refuses to run this program: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(cli.execute()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
