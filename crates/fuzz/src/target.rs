//! A decoder, and what must hold of it whatever bytes it gets.

use crate::mutate::Form;

/// What a decoder made of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It read it.
    Read,
    /// It said why not.
    Refused,
}

/// Memory that decoding may ask for in all: so much whatever the input is, and so much for each of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// In bytes.
    pub fixed: usize,
    /// In bytes for each byte of the input.
    pub per_byte: usize,
}

impl Budget {
    /// For an input of this length, in bytes.
    pub const fn of(self, length: usize) -> usize {
        self.fixed + self.per_byte * length
    }
}

/// Bytes, and what they are called in the corpus.
pub type Named = (String, Vec<u8>);

/// A decoder under test.
#[derive(Clone, Copy)]
pub struct Target {
    /// What it is called on the command line, and the folder of its corpus.
    pub name: &'static str,
    /// Which decoders it drives.
    pub decoder: &'static str,
    /// What must hold, besides that nothing panics and that memory keeps to the budget.
    pub holds: &'static str,
    /// What its inputs look like, and so how they are changed.
    pub form: Form,
    /// What decoding may cost.
    pub budget: Budget,
    /// Decodes, and says what does not hold.
    pub run: fn(&[u8]) -> Result<Verdict, String>,
    /// Makes checksums, hashes and signatures right again after a change, so that what lies behind them is
    /// reached too.
    pub mend: Option<fn(&mut Vec<u8>)>,
    /// Good inputs, made of the program's own types.
    pub made: fn() -> anyhow::Result<Vec<Named>>,
    /// Inputs that are bad on purpose.
    pub nasty: fn() -> Vec<Vec<u8>>,
}

/// Says what does not hold, unless it does.
pub(crate) fn holds(is_so: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(what()) }
}
