//! What happened in a run, as a hash that two runs of a seed must share, and the last lines in words.

use std::collections::VecDeque;

use crate::limits::TRACE_LINES_KEPT;
use crate::rng::mix;

/// The trace of a run.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hash: (u64, u64),
    steps: u64,
    lines: VecDeque<String>,
    /// Prints every line as it is noted.
    pub(crate) loud: bool,
}

impl Trace {
    /// One that prints what it notes, or does not.
    pub(crate) fn new(loud: bool) -> Self {
        Self { loud, ..Self::default() }
    }

    /// Takes one step into the hash.
    pub(crate) fn step(&mut self, now_us: u64, kind: u64, about: u64, detail: u64) {
        self.steps += 1;
        for word in [now_us, kind, about, detail] {
            self.hash.0 = mix(self.hash.0 ^ word).wrapping_add(self.hash.1);
            self.hash.1 = mix(self.hash.1.wrapping_add(word)) ^ self.hash.0;
        }
    }

    /// Keeps a line for people.
    pub(crate) fn say(&mut self, now_us: u64, line: impl FnOnce() -> String) {
        let line = format!("{:>9.3} s  {}", now_us as f64 / 1e6, line());
        if self.loud {
            #[allow(clippy::print_stdout)]
            {
                println!("{line}");
            }
        }
        if self.lines.len() == TRACE_LINES_KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Steps so far.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// The hash, as 32 hex digits.
    pub(crate) fn hash(&self) -> String {
        format!("{:016x}{:016x}", self.hash.0, self.hash.1)
    }

    /// The last lines, oldest first.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}

/// A number that stands for bytes in a trace.
pub(crate) fn of_bytes(bytes: &[u8]) -> u64 {
    let mut hash = bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = mix(hash ^ u64::from_le_bytes(word));
    }
    hash
}
