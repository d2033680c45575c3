//! A sample that nobody chose, and anybody can draw again.

use std::num::NonZeroUsize;

use serde::Serialize;
use stele_model::{Digest, Scope};

use super::change::Change;
use super::population::{Proved, population, print_rows};
use super::range::Between;
use crate::commands::checkpoint::Trust;
use crate::exit::Failure;
use crate::limits::SAMPLE_ROWS_DEFAULT;
use crate::session::Session;
use crate::terminal::Output;

/// How it is drawn, in words.
const DRAWN_BY: &str = "ascending SHA-256(seed ‖ leaf hash)";

/// Draw a sample of the changes between two points: the same seed always draws the same
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele audit sample --seed 2026-Q1 --between 2026-01-01T00:00:00Z 2026-04-01T00:00:00Z\n  stele audit sample -n 40 --seed 7 --between seq:0 now env:prod > sample.csv\n\nHow it is drawn, so that anybody can draw it again from the population: for each row take SHA-256 over the bytes of\nthe seed (UTF-8, as given) followed by the 32 bytes of leaf_hash (hex after sha256:); sort by that; take the first N.\nA larger sample of the same seed begins with the smaller one. Nobody can choose the rows: a leaf hash is fixed when\nthe record is written. Agree on a seed that nobody knew before then.\n\nRows are as in `stele audit population`, in the order drawn; the last column is the command that proves the row."
)]
pub(crate) struct Sample {
    /// Of what
    #[arg(default_value = "fleet")]
    scope: Scope,
    /// How many; all, when there are fewer
    #[arg(short = 'n', long, value_name = "ROWS", default_value_t = default_rows(), allow_negative_numbers = true)]
    number: NonZeroUsize,
    /// Any text: it decides what is drawn
    #[arg(long, value_name = "TEXT")]
    seed: String,
    #[command(flatten)]
    between: Between,
    #[command(flatten)]
    trust: Trust,
}

fn default_rows() -> NonZeroUsize {
    NonZeroUsize::new(SAMPLE_ROWS_DEFAULT).unwrap_or(NonZeroUsize::MIN)
}

#[derive(Serialize)]
struct Drawn {
    #[serde(flatten)]
    change: Change,
    proof: String,
}

#[derive(Serialize)]
struct Answer {
    seed: String,
    drawn_by: &'static str,
    population: Proved,
    sample: Vec<Drawn>,
}

impl Sample {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        let (proved, changes) = population(session, &self.between, &self.scope, &self.trust)?;
        let sample = draw(changes, &self.seed, self.number.get());
        let terminal = session.terminal;
        if matches!(terminal.output, Output::Json | Output::Yaml) {
            let sample = sample.into_iter().map(|change| Drawn { proof: change.proof(), change }).collect();
            let answer = Answer { seed: self.seed, drawn_by: DRAWN_BY, population: proved, sample };
            return terminal.answer(&answer, |_| String::new());
        }
        let columns = [&Change::COLUMNS[..], &["proof"]].concat();
        let drawn = sample.len();
        print_rows(&columns, sample.iter().map(with_proof))?;
        eprintln!("{drawn} of {} drawn by {DRAWN_BY}, seed {:?}", proved.count, self.seed);
        proved.say(terminal);
        Ok(())
    }
}

fn with_proof(change: &Change) -> [String; 17] {
    let mut cells = change.cells().into_iter().chain([change.proof()]);
    std::array::from_fn(|_| cells.next().unwrap_or_default())
}

fn draw(mut changes: Vec<Change>, seed: &str, number: usize) -> Vec<Change> {
    changes.sort_by_cached_key(|change| Digest::of(&[seed.as_bytes(), &change.leaf_hash.0]));
    changes.truncate(number);
    changes
}
