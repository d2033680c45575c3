//! Steps with a name and a time, so that a long run can be followed and a slow part seen.

/// Prints a line. Unlike `println!` it does not mind that nobody reads on, as in
/// `cargo xtask setup | head`.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($words)*);
    }};
}
pub(crate) use say;

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

/// How one step ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything the step looks at is in order.
    Passed,
    /// What could be looked at is in order; the note says what could not.
    PassedExcept(String),
    /// The reason, in one line; details were printed while the step ran.
    Failed(String),
}

/// The steps run so far, in order.
#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<(String, Outcome, Duration)>,
}

impl Steps {
    /// Runs one step and remembers how it went. A failure does not stop the others:
    /// whoever waits for a check wants to hear everything at once.
    pub(crate) fn run(&mut self, name: &str, step: impl FnOnce() -> Result<Outcome>) {
        say!("{}", bold(&format!("==> {name}")));
        let started = Instant::now();
        let outcome = step().unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            Outcome::Failed(format!("{error}"))
        });
        let took = started.elapsed();
        say!("{}\n", line(name, &outcome, took));
        self.done.push((name.to_owned(), outcome, took));
    }

    /// True when some step so far has failed.
    pub(crate) fn any_failed(&self) -> bool {
        self.done.iter().any(|(_, outcome, _)| matches!(outcome, Outcome::Failed(_)))
    }

    /// Prints one line for each step and says whether all passed.
    pub(crate) fn finish(self, what: &str) -> ExitCode {
        let mut summary = bold(&format!("==> {what}: summary"));
        for (name, outcome, took) in &self.done {
            let _ = write!(summary, "\n{}", line(name, outcome, *took));
        }
        say!("{summary}");
        if self.any_failed() {
            say!("{}", bold(&format!("{what}: FAILED")));
            ExitCode::FAILURE
        } else {
            say!("{}", bold(&format!("{what}: passed")));
            ExitCode::SUCCESS
        }
    }
}

fn line(name: &str, outcome: &Outcome, took: Duration) -> String {
    let (word, note) = match outcome {
        Outcome::Passed => ("ok", ""),
        Outcome::PassedExcept(note) => ("ok, but", note.as_str()),
        Outcome::Failed(note) => ("FAILED", note.as_str()),
    };
    let seconds = took.as_secs_f64();
    format!("    {word:<8}{name:<14}{seconds:>8.1} s  {note}").trim_end().to_owned()
}

/// Bold on a terminal, plain in a log file.
pub(crate) fn bold(text: &str) -> String {
    if std::io::stdout().is_terminal() { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
}
