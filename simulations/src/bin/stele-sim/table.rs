//! The catalogue of planted bugs: each must be noticed, and the table of how is written down.

use std::fmt::Write as _;
use std::process::{Child, Stdio};
use std::time::Instant;

use stele_planted::{Bug, Place};
use stele_simulations::limits::PLANTED_SEEDS_MAX;
use stele_simulations::planted::{can_plant, hunt};

use crate::batch::{again, jobs};
use crate::{Cli, one, say};

/// Where the table stands in its page.
const BEGIN: &str = "<!-- planted: written by `cargo xtask sim --planted` -->";
const END: &str = "<!-- planted: end -->";

/// How one bug fared.
struct Row {
    bug: Bug,
    seeds: u64,
    invariant: String,
}

/// Hunts every bug, or the one that is named; true when each was noticed.
pub(crate) fn run(cli: &Cli) -> Result<bool, String> {
    if cli.brief {
        let name = cli.plant.as_deref().ok_or("no bug is named")?;
        match hunt(one::bug(name)?, PLANTED_SEEDS_MAX) {
            Some(caught) => say(&format!("{} {}", caught.seeds, caught.invariant)),
            None => say("0 -"),
        }
        return Ok(true);
    }
    let began = Instant::now();
    let named = cli.plant.as_deref().map(one::bug).transpose()?;
    let mut waiting: Vec<Bug> =
        Bug::ALL.iter().copied().filter(|bug| named.is_none_or(|it| it == *bug)).collect();
    if let Some(bug) = waiting.iter().find(|bug| !can_plant(**bug)) {
        return Err(format!("{} is not in this build: build with --features planted", bug.name()));
    }
    waiting.reverse();
    let mut running: Vec<(Bug, Child)> = Vec::new();
    let mut rows: Vec<Row> = Vec::new();
    while !waiting.is_empty() || !running.is_empty() {
        while running.len() < jobs(cli)
            && let Some(bug) = waiting.pop()
        {
            let mut command = again()?;
            command.args(["--planted", "--brief", "--plant", bug.name()]).stderr(Stdio::null());
            let child = command.spawn().map_err(|error| format!("cannot start a process: {error}"))?;
            running.push((bug, child));
        }
        let mut left = Vec::new();
        for (bug, mut child) in running {
            if child.try_wait().map_err(|error| error.to_string())?.is_none() {
                left.push((bug, child));
                continue;
            }
            let output = child.wait_with_output().map_err(|error| error.to_string())?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let (seeds, invariant) = text.trim().split_once(' ').unwrap_or(("0", "-"));
            let row = Row { bug, seeds: seeds.parse().unwrap_or(0), invariant: invariant.to_owned() };
            say(&format!("{:<22} {:>3}  {}", bug.name(), row.seeds, row.invariant));
            rows.push(row);
        }
        running = left;
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    rows.sort_by_key(|row| row.bug);
    let missed: Vec<_> = rows.iter().filter(|row| row.seeds == 0).map(|row| row.bug.name()).collect();
    say(&format!(
        "{} of {} planted bugs were noticed within {PLANTED_SEEDS_MAX} seeds, in {:.0} s",
        rows.len() - missed.len(),
        rows.len(),
        began.elapsed().as_secs_f64()
    ));
    if !missed.is_empty() {
        say(&format!("NOT noticed: {}", missed.join(", ")));
    }
    if let Some(page) = &cli.page {
        write(page, &rows)?;
    }
    Ok(missed.is_empty())
}

fn write(page: &std::path::Path, rows: &[Row]) -> Result<(), String> {
    let mut table = String::from("| bug | where | seeds | noticed by |\n| --- | --- | ---: | --- |\n");
    for Row { bug, seeds, invariant } in rows {
        let place = match bug.place() {
            Place::Crate(name) => format!("`{name}`"),
            Place::Shell => "shell".to_owned(),
        };
        let _ = writeln!(table, "| {} | {place} | {seeds} | `{invariant}` |", bug.what());
    }
    let fail = |error: std::io::Error| format!("cannot write {}: {error}", page.display());
    let text = std::fs::read_to_string(page).map_err(fail)?;
    let parts = text.split_once(BEGIN).and_then(|(head, rest)| Some((head, rest.split_once(END)?.1)));
    let (head, tail) = parts.ok_or_else(|| format!("{} has no place for the table", page.display()))?;
    std::fs::write(page, format!("{head}{BEGIN}\n\n{table}\n{END}{tail}")).map_err(fail)
}
