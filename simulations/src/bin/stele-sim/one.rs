//! One seed: its hash, or why it fails and the fewest faults it takes.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use stele_simulations::fault::draw;
use stele_simulations::{Bug, Finished, Setup, log_file, run, shrink};

use crate::{Cli, say};

/// The bug of a name.
pub(crate) fn bug(name: &str) -> Result<Bug, String> {
    let found = Bug::ALL.iter().find(|bug| bug.name() == name).copied();
    found.ok_or_else(|| {
        let names: Vec<_> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        format!("there is no bug {name:?}; there are {}", names.join(", "))
    })
}

/// One line of a seed, for people and for the process that started this one.
fn line(seed: u64, finished: &Finished) -> String {
    let [acked, refused, unknown, reads] = finished.counts;
    let verdict = match &finished.violation {
        None => "ok".to_owned(),
        Some(violation) => format!("FAILED {}: {}", violation.invariant, violation.detail),
    };
    format!(
        "seed {seed} {} virtual {:.0} s, {} steps, {} records, {acked} decided, {refused} refused, {unknown} unknown, \
         {reads} read: {verdict}",
        finished.hash,
        finished.virtual_us as f64 / 1e6,
        finished.steps,
        finished.records,
    )
}

fn write(cli: &Cli, name: &str, text: &str) -> Result<PathBuf, String> {
    let dir = cli.out.clone().unwrap_or_else(|| std::env::temp_dir().join("stele-sim"));
    let path = dir.join(name);
    std::fs::create_dir_all(&dir)
        .and_then(|()| std::fs::write(&path, text))
        .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(path)
}

/// Runs a seed; true when nothing broke.
pub(crate) fn run_one(cli: &Cli, seed: u64) -> Result<bool, String> {
    let mut setup = Setup { loud: cli.loud, ..Setup::of(seed) };
    setup.agents = cli.agents.unwrap_or(setup.agents);
    let faults = draw(seed, setup.minutes);
    if let Some(name) = &cli.plant {
        stele_planted::plant(Some(bug(name)?));
    }
    let finished = run(&setup, &faults);
    say(&line(seed, &finished));
    let Some(violation) = &finished.violation else {
        if cli.keep_log {
            let log = write(cli, &format!("seed-{seed}.log.hex"), &log_file::to_text(&finished.log))?;
            say(&format!("its log: {}", log.display()));
        }
        return Ok(true);
    };
    if cli.brief {
        return Ok(false);
    }
    say(&format!(
        "\n{} was broken at step {} ({:.3} s of virtual time):\n  {}\n\nwhat happened last:",
        violation.invariant,
        finished.steps,
        finished.virtual_us as f64 / 1e6,
        violation.detail
    ));
    for line in &finished.lines {
        say(&format!("  {line}"));
    }
    let quiet = Setup { loud: false, ..setup };
    let mut text = format!("seed {seed}: {}: {}\n\n", violation.invariant, violation.detail);
    let (left, runs) =
        if cli.no_shrink { (faults.clone(), 0) } else { shrink(&quiet, &faults, violation.invariant) };
    say(&format!("\n{} of {} faults are enough ({runs} runs):", left.len(), faults.len()));
    for fault in &left {
        say(&format!("  {fault}"));
        let _ = writeln!(text, "{fault}");
    }
    let shortest = if cli.no_shrink { finished.clone() } else { run(&quiet, &left) };
    let _ = writeln!(text, "\nwhat happened last with these faults:");
    for line in &shortest.lines {
        let _ = writeln!(text, "{line}");
    }
    let log = write(cli, &format!("seed-{seed}.log.hex"), &log_file::to_text(&shortest.log))?;
    let faults = write(cli, &format!("seed-{seed}.txt"), &text)?;
    say(&format!("\nits log: {}\nits faults: {}", log.display(), faults.display()));
    let agents = cli.agents.map(|agents| format!(" --agents {agents}")).unwrap_or_default();
    say(&format!("once more: cargo xtask sim --seed {seed}{agents} --loud"));
    Ok(false)
}

/// Measures virtual hours per hour, without faults and clients in a hurry.
pub(crate) fn speed() -> bool {
    let setup = Setup {
        controllers: 5,
        agents: 100,
        apps: 3,
        clients: 4,
        minutes: 10,
        think_ms: 30_000,
        ..Setup::of(1)
    };
    let began = Instant::now();
    let finished = run(&setup, &draw(1, setup.minutes));
    let took = began.elapsed().as_secs_f64();
    say(&line(1, &finished));
    say(&format!(
        "5 controllers, 100 agents, faults and clients: {:.0} virtual hours in an hour, on one core",
        finished.virtual_us as f64 / 1e6 / took
    ));
    finished.violation.is_none()
}
