//! Makes a controller's data folder of the log that a simulation left, so that `stele replay`, `stele diff`
//! and `stele why` read it with `--data`.
//!
//! It owns nothing but that step, and must never repair a record: a log that contradicts itself is what is
//! being looked for.
//!
//! ```text
//! stele-log-folder --log seed-7.log.hex --folder seed-7
//! ```

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use stele_testkit::history::{new_store, store_bytes};

/// The simulated fleet's name.
const FLEET: &str = "demo";
/// Whose folder it is said to be.
const CONTROLLER: u64 = 1;

/// Make a controller's data folder of a log with one record a line, in hex.
#[derive(Parser)]
struct Cli {
    /// The log
    #[arg(long, value_name = "FILE")]
    log: PathBuf,
    /// Where the folder is made; it must not be there yet
    #[arg(long, value_name = "DIR")]
    folder: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let Cli { log, folder } = Cli::parse();
    let text = std::fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut store = new_store(&folder.join("log"), FLEET, CONTROLLER)?;
    let records = text.lines().enumerate().map(|(at, line)| {
        let bytes = hex(line).with_context(|| format!("line {} of {} is no hex", at + 1, log.display()))?;
        Ok((at as u64 + 1, bytes))
    });
    store_bytes(&mut store, records.collect::<anyhow::Result<_>>()?)
}

fn hex(line: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| (byte as char).to_digit(16);
    let pair = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
        _ => None,
    };
    line.trim().as_bytes().chunks(2).map(pair).collect()
}
