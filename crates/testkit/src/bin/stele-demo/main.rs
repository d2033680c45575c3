//! The demo: Stele's main job on this machine, step by step, each step checked.
//!
//! `cargo xtask demo` prepares the machine, builds the programs and runs this. It tells what it
//! does as the commands a reader could type, and leaves nothing behind however it ends.

mod limits;
mod stage;
mod steps;
mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use stele_testkit::{Interrupted, docker, interrupt};
use tokio::signal::unix::{SignalKind, signal};

use stage::Stage;

/// Runs the main job on real processes and real Docker, before the reader's eyes
#[derive(Parser)]
#[command(name = "stele-demo", version)]
struct Cli {
    /// Folder with the demo's specs
    #[arg(long, default_value = "deploy/demo")]
    specs: PathBuf,
}

/// What shells answer for a program that Ctrl-C ended.
const EXIT_INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = listen_for_signals() {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    // Programs a step starts are bound to the thread that starts them, and it must outlive them.
    let demo = std::thread::spawn(move || run(&cli));
    demo.join().unwrap_or(ExitCode::FAILURE)
}

fn run(cli: &Cli) -> ExitCode {
    let mut stage = Stage::new();
    let outcome = steps::all(&mut stage, cli);
    let interrupted = matches!(&outcome, Err(error) if error.is::<Interrupted>());
    stage.summary(outcome.as_ref().err());
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if interrupted => ExitCode::from(EXIT_INTERRUPTED),
        Err(_) => ExitCode::FAILURE,
    }
}

/// Ctrl-C, a polite kill and a closed terminal end every wait, and so the demo, which then cleans up.
fn listen_for_signals() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut asked, mut terminated, mut hung_up) = {
        let _guard = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = asked.recv() => {}
                    _ = terminated.recv() => {}
                    _ = hung_up.recv() => {}
                }
                eprintln!("\nInterrupted. Removing everything the demo made; a moment, please.");
                interrupt();
            }
        });
    });
    Ok(())
}

/// Removes what demos left that were killed so hard that they could not: their names tell who.
fn sweep() -> anyhow::Result<()> {
    let is_gone = |rest: &str| {
        let owner: String = rest.chars().take_while(char::is_ascii_digit).collect();
        !owner.is_empty() && !Path::new("/proc").join(owner).exists()
    };
    for fleet in docker::fleets()? {
        if fleet.strip_prefix(steps::FLEET_PREFIX).is_some_and(is_gone) {
            docker::remove_fleet(&fleet);
        }
    }
    let prefix = format!("stele-{}", steps::FLEET_PREFIX);
    for folder in std::fs::read_dir(std::env::temp_dir())?.flatten() {
        if folder.file_name().to_string_lossy().strip_prefix(&prefix).is_some_and(is_gone) {
            std::fs::remove_dir_all(folder.path())?;
        }
    }
    Ok(())
}
