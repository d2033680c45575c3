//! The process that stays alive: it starts one for each target, and deals with what is found.

use std::fs;
use std::io::{BufRead as _, BufReader, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail};
use stele_fuzz::{Run, Target, minimise, on_decoder_thread, one};

use crate::child::{Span, Told};

/// What became of a process.
enum Outcome {
    Done {
        inputs: u64,
        read: u64,
        memory: usize,
    },
    Found {
        iteration: u64,
        what: String,
    },
    /// It ended without a word, at this iteration or a later one.
    Died {
        at: u64,
        how: String,
    },
}

/// Runs targets one after the other.
pub(crate) fn run(targets: &[Target], span: Span) -> anyhow::Result<ExitCode> {
    println!("seed {}", span.seed);
    let mut failed = Vec::new();
    for target in targets {
        let began = Instant::now();
        let outcome = match start(target, span, "often")? {
            // Once more, and slowly: it says before each input which it is.
            Outcome::Died { at, how } => match start(target, Span { from: at, ..span }, "each")? {
                Outcome::Died { at, .. } => {
                    Outcome::Found { iteration: at, what: format!("the process died: {how}") }
                }
                other => other,
            },
            other => other,
        };
        match outcome {
            Outcome::Done { inputs, read, memory } => println!(
                "{:<18} {inputs:>9} inputs, {:>3} % read, at most {} KiB of memory, {:.0} s",
                target.name,
                read * 100 / inputs.max(1),
                memory / 1024,
                began.elapsed().as_secs_f64()
            ),
            Outcome::Found { iteration, what } => {
                report(target, span.seed, iteration, &what)?;
                failed.push(target.name);
            }
            Outcome::Died { at, how } => {
                bail!("{} died at iteration {at}, and not again: {how}", target.name)
            }
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("\n{} of {} targets failed: {}", failed.len(), targets.len(), failed.join(", "));
    Ok(ExitCode::FAILURE)
}

fn start(target: &Target, span: Span, mode: &str) -> anyhow::Result<Outcome> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(target.name).args(["--child", mode]).args(["--seed", &span.seed.to_string()]);
    command.args(["--from", &span.from.to_string(), "--for", &format!("{}s", span.time.as_secs().max(1))]);
    if let Some(count) = span.iterations {
        command.args(["--iterations", &count.to_string()]);
    }
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start a process for a target")?;
    let mut outcome = None;
    let mut at = span.from;
    for line in BufReader::new(child.stdout.take().context("the process has no output")?).lines() {
        match serde_json::from_str(&line?).context("the process said something else")? {
            Told::At(iteration) => {
                at = iteration;
                if std::io::stderr().is_terminal() {
                    eprint!("\r{:<18} {at:>9}\r", target.name);
                }
            }
            Told::Done(inputs, read, memory) => outcome = Some(Outcome::Done { inputs, read, memory }),
            Told::Found(iteration, what) => outcome = Some(Outcome::Found { iteration, what }),
        }
    }
    let status = child.wait()?;
    match outcome {
        Some(outcome) => Ok(outcome),
        // With a code it said why on standard error: it could not even begin.
        None if status.code().is_some() => bail!("{} cannot be run", target.name),
        None => Ok(Outcome::Died { at, how: status.to_string() }),
    }
}

/// Writes the input down, as it was and as small as it gets, and says how to go on.
fn report(target: &Target, seed: u64, iteration: u64, what: &str) -> anyhow::Result<()> {
    let input = Run::new(*target, seed)?.input(iteration);
    let folder = folder()?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let name = format!("{}-{seed}-{iteration}", target.name);
    let (file, small) = (folder.join(format!("{name}.bin")), folder.join(format!("{name}.min.bin")));
    fs::write(&file, &input).with_context(|| format!("cannot write {}", file.display()))?;
    println!("{:<18} FAILED at seed {seed}, iteration {iteration}: {what}", target.name);
    println!("    input: {} ({} bytes)", file.display(), input.len());
    let attempt = folder.join("attempt.bin");
    let is_fatal = what.starts_with("the process died") || what.starts_with("it has not ended");
    let smallest = if what.starts_with("it has not ended") {
        // Each attempt would take as long.
        input.clone()
    } else if is_fatal {
        minimise(&input, |bytes| dies(target, &attempt, bytes))
    } else {
        on_decoder_thread(|| minimise(&input, |bytes| one(target, bytes).is_err()))
    };
    fs::write(&small, &smallest).with_context(|| format!("cannot write {}", small.display()))?;
    println!("    smaller: {} ({} bytes)", small.display(), smallest.len());
    println!("    again: cargo xtask fuzz {} --input {}", target.name, small.display());
    println!(
        "    keep it: cp {} {}",
        small.display(),
        stele_fuzz::corpus::folder().join(target.name).join(format!("found-{seed}-{iteration}")).display()
    );
    Ok(())
}

fn dies(target: &Target, attempt: &Path, bytes: &[u8]) -> bool {
    if fs::write(attempt, bytes).is_err() {
        return false;
    }
    let Ok(program) = std::env::current_exe() else { return false };
    let mut command = Command::new(program);
    command.arg(target.name).arg("--input").arg(attempt).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.code().is_none())
}

/// Where findings go: beside what was built.
fn folder() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let built = program.parent().and_then(Path::parent).context("this program is nowhere")?;
    Ok(built.join("fuzz-findings"))
}
