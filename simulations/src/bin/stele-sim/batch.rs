//! Many seeds: a process for each, as many at once as there are processors.

use std::io::IsTerminal as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use stele_simulations::is_huge;

use crate::{Cli, one, say};

/// Between two looks whether a process has ended.
const LOOK: Duration = Duration::from_millis(20);
/// Between two lines of progress where nobody watches.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(15);
/// Failures after which no further seed is begun.
const FAILURES_MAX: usize = 5;

/// `A..B`.
pub(crate) fn range(text: &str) -> Result<(u64, u64), String> {
    let parts = text.split_once("..").and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    parts.filter(|(from, to)| from < to).ok_or_else(|| "write a range of seeds such as 1..1000".to_owned())
}

/// `60m`, `90s` or `2h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let error = || "write a time such as 60m, 90s or 2h".to_owned();
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let number: u64 = number.parse().map_err(|_| error())?;
    let seconds = match unit {
        "s" => number,
        "m" => number * 60,
        "h" => number * 3600,
        _ => return Err(error()),
    };
    Ok(Duration::from_secs(seconds))
}

/// Processes at once.
pub(crate) fn jobs(cli: &Cli) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    cli.jobs.unwrap_or(processors).max(1)
}

/// This program, to be started once more.
pub(crate) fn again() -> Result<Command, String> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    Ok(command)
}

/// The seeds of a range: those of the largest fleets first, so that no processor waits for one of them
/// in the end. Of an open range, of which as many run as fit, one after the other.
fn in_order(from: u64, to: u64, is_open: bool) -> Box<dyn Iterator<Item = u64>> {
    if is_open {
        return Box::new(from..to);
    }
    let (first, rest) = ((from..to).filter(|seed| is_huge(*seed)), (from..to).filter(|seed| !is_huge(*seed)));
    Box::new(first.chain(rest))
}

/// Runs seeds; true when none broke anything.
pub(crate) fn run(cli: &Cli, from: u64, to: u64, budget: Option<Duration>) -> Result<bool, String> {
    let began = Instant::now();
    let mut seeds = in_order(from, to, budget.is_some()).peekable();
    let mut running: Vec<(u64, Child)> = Vec::new();
    let mut failures: Vec<(u64, String)> = Vec::new();
    let (mut done, mut virtual_s) = (0_u64, 0.0_f64);
    let mut told = Instant::now();
    loop {
        let is_over =
            budget.is_some_and(|budget| began.elapsed() >= budget) || failures.len() >= FAILURES_MAX;
        while !is_over && running.len() < jobs(cli) {
            let Some(next) = seeds.next() else { break };
            let mut command = again()?;
            command.args(["--seed", &next.to_string(), "--brief"]);
            if let Some(agents) = cli.agents {
                command.args(["--agents", &agents.to_string()]);
            }
            if let Some(bug) = &cli.plant {
                command.args(["--plant", bug]);
            }
            let child = command.spawn().map_err(|error| format!("cannot start a process: {error}"))?;
            running.push((next, child));
        }
        let mut left = Vec::new();
        for (seed, mut child) in running {
            if child.try_wait().map_err(|error| error.to_string())?.is_none() {
                left.push((seed, child));
                continue;
            }
            let output = child.wait_with_output().map_err(|error| error.to_string())?;
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            done += 1;
            virtual_s += seconds(&text);
            if !output.status.success() {
                say(&text);
                failures.push((seed, text));
            }
        }
        running = left;
        if running.is_empty() && (is_over || seeds.peek().is_none()) {
            break;
        }
        let watched = std::io::stderr().is_terminal();
        if told.elapsed() > if watched { Duration::from_millis(500) } else { PROGRESS_INTERVAL } {
            told = Instant::now();
            progress(done, failures.len(), budget.is_none().then_some(to - from), began, watched);
        }
        std::thread::sleep(LOOK);
    }
    let took = began.elapsed().as_secs_f64();
    say(&format!(
        "{done} seeds, {:.1} virtual hours in {took:.0} s ({:.0} times as fast): {} failed",
        virtual_s / 3600.0,
        virtual_s / took.max(0.001),
        failures.len()
    ));
    if let Some((seed, _)) = failures.first() {
        say("\nthe first of them once more:");
        one::run_one(cli, *seed)?;
    }
    Ok(failures.is_empty())
}

fn progress(done: u64, failed: usize, of: Option<u64>, began: Instant, watched: bool) {
    let of = of.map(|of| format!(" of {of}")).unwrap_or_default();
    let line = format!("{done}{of} seeds, {failed} failed, {:.0} s", began.elapsed().as_secs_f64());
    if watched {
        eprint!("\r{line} ");
    } else {
        eprintln!("{line}");
    }
}

/// The virtual seconds in a seed's line.
fn seconds(line: &str) -> f64 {
    let part = line.split("virtual ").nth(1).and_then(|rest| rest.split(' ').next());
    part.and_then(|number| number.parse().ok()).unwrap_or_default()
}
