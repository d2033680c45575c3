//! The process that decodes. Whatever happens to it, the one that started it is told where it was.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use stele_fuzz::limits::{HANG_SECONDS, ITERATIONS_PER_LOOK};
use stele_fuzz::{Run, Tally, Target, on_decoder_thread, one};

/// Between two looks at how far the decoding thread is.
const LOOK: Duration = Duration::from_millis(200);

/// How much is told on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// The iteration now and then.
    Often,
    /// Every iteration before it is run, for when one ends the process.
    Each,
}

/// Which inputs are given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) seed: u64,
    pub(crate) from: u64,
    pub(crate) iterations: Option<u64>,
    pub(crate) time: Duration,
}

/// A line on standard output.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Told {
    /// This iteration is about to be run.
    At(u64),
    /// Nothing went wrong: inputs, those that were read, most memory in bytes.
    Done(u64, u64, usize),
    /// This went wrong in this iteration.
    Found(u64, String),
}

fn tell(told: &Told) {
    if let Ok(line) = serde_json::to_string(told) {
        let mut out = std::io::stdout().lock();
        // Whoever started this may be gone; then nobody needs to know.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}

/// Gives one target many inputs.
pub(crate) fn run(targets: &[Target], span: Span, mode: Mode) -> anyhow::Result<ExitCode> {
    let [target] = targets else { anyhow::bail!("one target at a time") };
    let run = Run::new(*target, span.seed)?;
    let (at, is_done) = (AtomicU64::new(span.from), AtomicBool::new(false));
    let told = std::thread::scope(|scope| {
        scope.spawn(|| watch(&at, &is_done));
        let told = on_decoder_thread(|| decode(&run, span, mode, &at));
        is_done.store(true, Ordering::Relaxed);
        told
    });
    tell(&told);
    Ok(ExitCode::SUCCESS)
}

fn decode(run: &Run, span: Span, mode: Mode, at: &AtomicU64) -> Told {
    let began = Instant::now();
    let mut tally = Tally::default();
    let end = span.iterations.map_or(u64::MAX, |count| span.from.saturating_add(count));
    for iteration in span.from..end {
        let looks = iteration.is_multiple_of(ITERATIONS_PER_LOOK);
        if looks && iteration > run.standing() && began.elapsed() >= span.time {
            break;
        }
        at.store(iteration, Ordering::Relaxed);
        if mode == Mode::Each || looks {
            tell(&Told::At(iteration));
        }
        if let Err(finding) = run.step(iteration, &mut tally) {
            return Told::Found(iteration, finding.what.to_string());
        }
    }
    Told::Done(tally.inputs, tally.read, tally.memory_max)
}

/// Ends the process when one input takes too long.
fn watch(at: &AtomicU64, is_done: &AtomicBool) {
    let (mut last, mut since) = (u64::MAX, Instant::now());
    while !is_done.load(Ordering::Relaxed) {
        let now = at.load(Ordering::Relaxed);
        if now != last {
            (last, since) = (now, Instant::now());
        } else if since.elapsed() > Duration::from_secs(HANG_SECONDS) {
            tell(&Told::Found(now, format!("it has not ended after {HANG_SECONDS} s")));
            std::process::exit(0);
        }
        std::thread::sleep(LOOK);
    }
}

/// Gives a target the bytes of a file.
pub(crate) fn one_file(targets: &[Target], file: &Path) -> anyhow::Result<ExitCode> {
    ensure!(targets.len() == 1, "say which target reads the file");
    let input = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    match on_decoder_thread(|| one(&targets[0], &input)) {
        Ok((verdict, memory)) => {
            println!("{verdict:?}, {memory} bytes of memory asked for");
            Ok(ExitCode::SUCCESS)
        }
        Err(what) => {
            println!("{what}");
            Ok(ExitCode::FAILURE)
        }
    }
}
