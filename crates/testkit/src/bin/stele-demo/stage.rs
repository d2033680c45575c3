//! What the reader sees: steps, commands with their outcome, checks, and a summary.

use std::fmt::Display;
use std::io::{IsTerminal as _, Read, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use stele_testkit::{Interrupted, eventually, interrupted};

use crate::limits::{COMMAND_DEADLINE, LINE_CHARS_MAX};

/// How a command ended and what it printed.
pub(crate) struct Done {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A command on its way.
pub(crate) struct Started {
    child: Child,
    stdout: std::thread::JoinHandle<String>,
    stderr: Option<std::thread::JoinHandle<String>>,
}

/// Where the demo is told.
pub(crate) struct Stage {
    color: bool,
    /// On a terminal, commands show their own progress.
    live: bool,
    started: Instant,
    steps: Vec<(String, Option<Duration>)>,
    checks: usize,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let live = color && std::io::stderr().is_terminal();
        Self { color, live, started: Instant::now(), steps: Vec::new(), checks: 0 }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn line(text: &str) {
        // That nobody reads on is no reason to stop half-way.
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    pub(crate) fn title(&self, title: &str, below: &str) {
        Self::line(&format!("\n{}\n{below}", self.paint("1", title)));
    }

    /// One step: its name first, its time afterwards.
    pub(crate) fn step<T>(
        &mut self,
        name: &str,
        step: impl FnOnce(&mut Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        interrupted()?;
        Self::line(&format!("\n{}", self.paint("1;36", &format!("{} · {name}", self.steps.len()))));
        let started = Instant::now();
        let outcome = step(self);
        let took = outcome.is_ok().then(|| started.elapsed());
        self.steps.push((name.to_owned(), took));
        outcome
    }

    /// A sentence.
    pub(crate) fn say(&self, text: &str) {
        Self::line(&format!("  {}", self.paint("3", text)));
    }

    /// Something that must hold.
    pub(crate) fn check(&mut self, holds: bool, what: &str, otherwise: impl Display) -> anyhow::Result<()> {
        if holds {
            self.checks += 1;
            Self::line(&format!("  {} {what}", self.paint("32", "✓")));
            Ok(())
        } else {
            Self::line(&format!("  {} {what}", self.paint("31", "✗")));
            bail!("{what}: not so\n{otherwise}")
        }
    }

    /// A command as the reader would type it.
    pub(crate) fn typed(&self, line: &str) {
        Self::line(&format!("  {} {line}", self.paint("36", "$")));
    }

    /// What a command printed.
    pub(crate) fn output(&self, text: &str) {
        for line in text.trim_end().lines() {
            let shown: String = if line.chars().count() > LINE_CHARS_MAX {
                line.chars().take(LINE_CHARS_MAX - 1).chain(['…']).collect()
            } else {
                line.to_owned()
            };
            Self::line(&format!("    {}", self.paint("2", &shown)));
        }
    }

    /// Starts a command whose output is kept.
    pub(crate) fn start(&self, mut command: Command) -> anyhow::Result<Started> {
        let stderr = if self.live { Stdio::inherit() } else { Stdio::piped() };
        let mut child = command.stdout(Stdio::piped()).stderr(stderr).spawn().context("cannot run it")?;
        let stdout = read_all(child.stdout.take());
        let stderr = child.stderr.take().map(|stderr| read_all(Some(stderr)));
        Ok(Started { child, stdout, stderr })
    }

    /// Runs a command to its end, and shows it with what it printed.
    pub(crate) fn run(&self, line: &str, command: Command) -> anyhow::Result<Done> {
        self.typed(line);
        let done = self.start(command)?.done()?;
        self.output(&done.stdout);
        if !done.status.success() {
            self.output(&done.stderr);
        }
        Ok(done)
    }

    /// Every step with its time, and whether all is well.
    pub(crate) fn summary(&self, failure: Option<&anyhow::Error>) {
        Self::line(&format!("\n{}", self.paint("1", "Summary")));
        for (index, (name, took)) in self.steps.iter().enumerate() {
            match took {
                Some(took) => {
                    let mark = self.paint("32", "✓");
                    Self::line(&format!("  {mark} {index}  {name:<68}{:>6.1} s", took.as_secs_f64()));
                }
                None => Self::line(&format!("  {} {index}  {name}", self.paint("31", "✗"))),
            }
        }
        let total = self.started.elapsed().as_secs_f64();
        match failure {
            None => Self::line(&format!(
                "\n{} in {total:.0} s: {} checks held.",
                self.paint("1;32", "All of it worked"),
                self.checks
            )),
            Some(failure) if failure.is::<Interrupted>() => {
                Self::line(&format!("\n{} after {total:.0} s, as asked.", self.paint("1;33", "Stopped")));
            }
            Some(failure) => {
                Self::line(&format!("\n{} after {total:.0} s: {failure:#}", self.paint("1;31", "It failed")));
            }
        }
    }
}

fn read_all(from: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            // What was read before a failure is still worth showing.
            let _ = from.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl Started {
    /// Whether it has not ended yet.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end; an interruption ends it.
    pub(crate) fn done(mut self) -> anyhow::Result<Done> {
        let waited = eventually(COMMAND_DEADLINE, "the command ends", || self.child.try_wait().transpose());
        let status = match waited {
            Ok(status) => status?,
            Err(error) => {
                // It has ended by itself, or ends now.
                let _ = self.child.kill();
                let _ = self.child.wait();
                return Err(error);
            }
        };
        let text = |thread: std::thread::JoinHandle<String>| thread.join().unwrap_or_default();
        Ok(Done { status, stdout: text(self.stdout), stderr: self.stderr.map(text).unwrap_or_default() })
    }
}
