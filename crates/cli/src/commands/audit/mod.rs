//! Evidence for auditors: who changed what, a sample of it that anybody can draw again, and packs that prove it.
//!
//! Records come from the controllers, and nothing they say is believed: every record is hashed here
//! and led to the root of a signed checkpoint before anything of it is printed.

mod change;
mod csv;
mod export;
mod log;
mod pack;
mod population;
mod progress;
mod range;
mod sample;
mod verdict;
mod verify;

use clap::Subcommand;

use crate::exit::Failure;
use crate::session::Session;

/// Take evidence: every change, a sample of them, a file that proves them to strangers
#[derive(Subcommand, Debug)]
pub(crate) enum Audit {
    Population(population::Population),
    Sample(sample::Sample),
    Export(export::Export),
    Verify(verify::Verify),
}

impl Audit {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Population(it) => it.run(session),
            Self::Sample(it) => it.run(session),
            Self::Export(it) => it.run(session),
            Self::Verify(it) => it.run(session),
        }
    }

    /// Whether the answer can be a spreadsheet's rows.
    pub(crate) fn has_rows(&self) -> bool {
        matches!(self, Self::Population(_) | Self::Sample(_))
    }
}
