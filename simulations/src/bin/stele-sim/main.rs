//! `stele-sim`: runs seeds, in as many processes as there are processors, and says what broke.
//!
//! It owns the command line and the files; everything else is in the library. It must never
//! decide anything of a run: the same seed is the same run whoever starts it.
//!
//! ```text
//! stele-sim --seed 42
//! stele-sim --seeds 1..1000
//! ```

mod batch;
mod one;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Runs a whole fleet under virtual time, with everything that goes wrong drawn from a seed
#[derive(Parser)]
#[command(
    name = "cargo xtask sim",
    after_help = "Examples:\n  cargo xtask sim --seed 42\n  cargo xtask sim --seeds 1..1000\n  \
                  cargo xtask sim --budget 60m\n  cargo xtask sim --planted"
)]
pub(crate) struct Cli {
    /// Run one seed, print its trace's hash, and shrink it if it fails
    #[arg(long, group = "what")]
    seed: Option<u64>,
    /// Run seeds from A up to, but not including, B
    #[arg(long, value_name = "A..B", value_parser = batch::range, group = "what")]
    seeds: Option<(u64, u64)>,
    /// Run seeds for so long, such as 60m or 90s
    #[arg(long, value_name = "TIME", value_parser = batch::duration, group = "what")]
    budget: Option<std::time::Duration>,
    /// Plant every bug of the catalogue, and fail unless each is noticed
    #[arg(long, group = "what")]
    planted: bool,
    /// Measure how much virtual time passes in an hour, with 5 controllers and 100 agents
    #[arg(long, group = "what")]
    speed: bool,
    /// Plant this bug in what is run
    #[arg(long, value_name = "BUG")]
    plant: Option<String>,
    /// So many nodes, instead of as many as the seed has
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=20_000))]
    agents: Option<u64>,
    /// The first seed of a budget
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Processes at once; as many as there are processors when absent
    #[arg(long)]
    jobs: Option<usize>,
    /// Do not look for fewer faults that still fail
    #[arg(long)]
    no_shrink: bool,
    /// Print everything that happens
    #[arg(long)]
    loud: bool,
    /// Write the log even of a seed that breaks nothing
    #[arg(long)]
    keep_log: bool,
    /// Where the log and the faults of a failure are written
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write the table of planted bugs into this page
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// One line for each seed, for the process that started this one
    #[arg(long, hide = true)]
    brief: bool,
}

fn main() -> ExitCode {
    // A panic is a violation like any other, told with its seed and step.
    std::panic::set_hook(Box::new(|_| {}));
    let cli = Cli::parse();
    let outcome = if let Some(seed) = cli.seed {
        one::run_one(&cli, seed)
    } else if cli.speed {
        Ok(one::speed())
    } else if cli.planted {
        table::run(&cli)
    } else if let Some((from, to)) = cli.seeds {
        batch::run(&cli, from, to, None)
    } else if let Some(budget) = cli.budget {
        batch::run(&cli, cli.from, u64::MAX, Some(budget))
    } else {
        Err("say what to run: --seed N, --seeds A..B, --budget 60m, --planted or --speed".to_owned())
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints a line, and does not mind that nobody reads on.
fn say(line: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}
