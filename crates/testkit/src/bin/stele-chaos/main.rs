//! Chaos: the real programs on machines of their own, faults drawn from a seed, and a look at whether
//! anything that was promised was broken.
//!
//! The program starts itself again in namespaces of its own (network, mounts, processes). Whatever is
//! made there, bridges, mounts, loop devices, processes, belongs to these namespaces, and the kernel
//! takes all of it away with the first process in them, however that ends. What is left is one folder,
//! which is removed at the end, or by the next run.
//!
//! `cargo xtask chaos` builds the programs and runs this; docs/chaos.md says more.

mod checks;
mod clients;
mod dice;
mod disk;
mod faults;
mod fleet;
mod fuse;
mod inside;
mod limits;
mod net;
mod outside;
mod probe;
mod relay;
mod report;
mod volume;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum as _};

use faults::Kind;
use limits::{CONTROLLERS_MAX, ROUNDS};

/// This machine cannot run it.
const EXIT_UNABLE: u8 = 3;

const EXIT_CODES: &str = "\
Exit codes: 0 everything held, 1 something did not, 2 wrong usage, 3 this machine cannot run it, 130 stopped.

Examples:
    cargo xtask chaos
    cargo xtask chaos --seed 7 --rounds 40
    cargo xtask chaos --only power-cut --only disk-full --keep";

/// Runs real controllers, agents and NATS servers, breaks things, and checks what was promised
#[derive(Parser)]
#[command(name = "cargo xtask chaos", bin_name = "cargo xtask chaos", after_help = EXIT_CODES)]
struct Cli {
    /// What everything is drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Faults, one after the other
    #[arg(long, default_value_t = ROUNDS)]
    rounds: u32,
    /// Only this kind of fault; repeat it for several
    #[arg(long, value_name = "KIND")]
    only: Vec<Kind>,
    /// Controllers
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=CONTROLLERS_MAX))]
    controllers: u64,
    /// Keep the folder with all logs
    #[arg(long)]
    keep: bool,
    /// Few nodes and short faults
    #[arg(long)]
    short: bool,
    /// Let all disks say that they synced what they did not, and cut the power: the run must fail
    #[arg(long, conflicts_with = "only")]
    lying_disks: bool,
    /// List the kinds of faults
    #[arg(long)]
    list: bool,
    /// The folder to work in: this is the process inside
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.list {
        for kind in Kind::value_variants() {
            println!("{:16} {}", kind.name(), kind.help());
        }
        return ExitCode::SUCCESS;
    }
    match &cli.inside {
        None => outside::run(&cli),
        Some(dir) => inside::run(&cli, dir),
    }
}

/// What `unshare` is told besides, so that a user who is not root may do it.
fn as_root() -> &'static [&'static str] {
    if nix::unistd::geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] }
}
