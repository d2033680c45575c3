//! Tables: for a terminal, and for a page.

use super::{Report, Side, shown};

const HEAD: [&str; 9] = ["", "side", "median", "min", "max", "p50 ms", "p99 ms", "p99.9 ms", "ratio"];

/// One line for each side of each row.
fn lines(report: &Report) -> Vec<Vec<String>> {
    let mut lines = Vec::new();
    for row in &report.rows {
        for (at, side) in row.sides.iter().enumerate() {
            let first = at == 0;
            let mut line = vec![if first { row.work.clone() } else { String::new() }, side.name.clone()];
            line.push(format!("{} {}", shown(side.median), row.unit));
            line.extend([shown(side.min), shown(side.max)]);
            line.extend(latency(side));
            line.push(row.ratio.filter(|_| first).map(|ratio| format!("{ratio:.2}")).unwrap_or_default());
            lines.push(line);
        }
    }
    lines
}

fn latency(side: &Side) -> [String; 3] {
    side.latency
        .map_or_else(Default::default, |times| [shown(times.p50), shown(times.p99), shown(times.p999)])
}

fn goals(report: &Report) -> Vec<String> {
    let goals = report.rows.iter().flat_map(|row| row.goals.iter().map(move |goal| (row, goal)));
    goals
        .map(|(row, goal)| {
            let word = if goal.reached { "reached" } else { "not reached" };
            format!("{}: {}: {word} ({})", row.work, goal.what, shown(goal.found))
        })
        .collect()
}

/// For a terminal.
pub(super) fn text(report: &Report) -> String {
    let mut lines = lines(report);
    lines.insert(0, HEAD.map(str::to_owned).to_vec());
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let padded = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths).enumerate().map(|(at, (cell, width))| {
            let gap = " ".repeat(width - cell.chars().count());
            if at < 2 { format!("{cell}{gap}") } else { format!("{gap}{cell}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut text: Vec<String> = lines.iter().map(padded).collect();
    text.extend(goals(report));
    text.join("\n") + "\n"
}

/// For docs/benchmarks.
pub(super) fn page(report: &Report) -> String {
    let bench = report.bench;
    let row = |cells: &[String]| format!("| {} |", cells.join(" | "));
    let mut page = vec![
        format!("# `{bench}`\n\n{}\n\nSimulated: {}\n", report.about, report.simulated),
        format!("```text\n{}\n```\n", report.command),
        row(&HEAD.map(str::to_owned)),
        "| --- | --- |".to_owned() + &" ---: |".repeat(HEAD.len() - 2),
    ];
    page.extend(lines(report).iter().map(|line| row(line)));
    page.push(format!("\n![chart]({bench}.svg)\n"));
    page.extend(goals(report).iter().map(|goal| format!("- {goal}")));
    if !report.notes.is_empty() {
        page.push("\nSeen besides:\n".to_owned());
        page.extend(report.notes.iter().map(|note| format!("- {note}")));
    }
    page.push(format!("\nRan: {}. On: {}.\n", report.versions.join("; "), report.machine.line()));
    page.join("\n")
}
