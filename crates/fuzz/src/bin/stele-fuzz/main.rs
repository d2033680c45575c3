//! Runs fuzz targets for as long as wanted. `cargo xtask fuzz` builds and starts it.

mod child;
mod parent;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use stele_fuzz::limits::RUN_SECONDS_DEFAULT;
use stele_fuzz::{Target, all, corpus, target};

/// Give decoders what is nearly right, and notice what does not hold
///
/// Every input follows from seed and iteration alone. What is found is written to a file, and made smaller.
#[derive(Parser)]
#[command(
    name = "cargo xtask fuzz",
    bin_name = "cargo xtask fuzz",
    after_help = "Examples:\n    \
    cargo xtask fuzz\n    cargo xtask fuzz entry --for 10m --seed 7\n    cargo xtask fuzz --corpus\n\n\
    The decoders and what must hold of each: docs/fuzzing.md"
)]
struct Cli {
    /// Which targets; all of them unless said
    targets: Vec<String>,
    /// How long each target runs, such as 30s, 10m or 1h
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    time: Option<Duration>,
    /// Of which seed; drawn from the clock unless said
    #[arg(long)]
    seed: Option<u64>,
    /// Begin at this iteration
    #[arg(long, default_value_t = 0, value_name = "N")]
    from: u64,
    /// Stop after so many iterations
    #[arg(long, value_name = "N")]
    iterations: Option<u64>,
    /// Give the target this file alone
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "time"])]
    input: Option<std::path::PathBuf>,
    /// Write the corpus anew from the program's own types
    #[arg(long)]
    corpus: bool,
    /// List the targets as the table in docs/fuzzing.md has them
    #[arg(long)]
    list: bool,
    /// Say what is done, for the process that started this one
    #[arg(long, hide = true, value_enum)]
    child: Option<child::Mode>,
}

/// `90s`, `10m`, `1h`: spans as they are written in points of time.
fn span(text: &str) -> Result<Duration, String> {
    match format!("{text} ago").parse() {
        Ok(stele_model::Point::Ago(micros)) => Ok(Duration::from_micros(micros)),
        _ => Err("write a span such as 30s, 10m or 1h".to_owned()),
    }
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<Target>> {
    if names.is_empty() {
        return Ok(all());
    }
    let found = names.iter().map(|name| {
        target(name).ok_or_else(|| {
            anyhow::anyhow!("there is no target {name}; see them with: cargo xtask fuzz --list")
        })
    });
    found.collect()
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let targets = chosen(&cli.targets)?;
    if cli.list {
        print!("{}", stele_fuzz::table());
        return Ok(ExitCode::SUCCESS);
    }
    if cli.corpus {
        corpus::write(&targets)?;
        println!("the corpus has {} bytes", corpus::check_size(&all())?);
        return Ok(ExitCode::SUCCESS);
    }
    let time = cli.time.unwrap_or(Duration::from_secs(RUN_SECONDS_DEFAULT));
    let seed = cli.seed.unwrap_or_else(drawn);
    let span = child::Span { seed, from: cli.from, iterations: cli.iterations, time };
    match (cli.child, cli.input) {
        (_, Some(file)) => child::one_file(&targets, &file),
        (Some(mode), None) => child::run(&targets, span, mode),
        (None, None) => parent::run(&targets, span),
    }
}

fn drawn() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |since| since.as_micros() as u64 % 1_000_000)
}
