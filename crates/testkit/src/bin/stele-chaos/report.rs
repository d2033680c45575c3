//! The summary.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::checks::Findings;
use crate::clients::History;
use crate::world::Round;

/// One line for each kind of fault: how often, and how the fleet took it.
pub(crate) fn table(rounds: &[Round]) -> String {
    let mut by_kind: BTreeMap<String, Vec<&Round>> = BTreeMap::new();
    for round in rounds {
        let name = round.kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(" + ");
        by_kind.entry(name).or_default().push(round);
    }
    let width = by_kind.keys().map(String::len).max().unwrap_or_default().max("fault".len());
    let mut lines = vec![format!("{:width$}  rounds  writes/s during  recovery: median  longest", "fault")];
    for (name, rounds) in by_kind {
        let writes: u64 = rounds.iter().map(|round| round.writes).sum();
        let held: Duration = rounds.iter().map(|round| round.held).sum();
        let mut recoveries: Vec<_> = rounds.iter().map(|round| round.recovery).collect();
        recoveries.sort();
        let median = recoveries.get(recoveries.len() / 2).copied().unwrap_or_default();
        let longest = recoveries.last().copied().unwrap_or_default();
        lines.push(format!(
            "{name:width$}  {:6}  {:15.1}  {:14.1} s  {:5.1} s",
            rounds.len(),
            writes as f64 / held.as_secs_f64().max(f64::EPSILON),
            median.as_secs_f64(),
            longest.as_secs_f64(),
        ));
    }
    lines.join("\n")
}

/// What the operator did, and how often it was refused.
pub(crate) fn operator(history: &History) -> String {
    let first = history.refused.first().map(|first| format!(", the first: {first}")).unwrap_or_default();
    format!(
        "the operator deployed {} times and rolled back {} times; {} changes were refused{first}",
        history.deployments,
        history.rollbacks,
        history.refused.len()
    )
}

/// What held and what did not.
pub(crate) fn findings(findings: &Findings) -> String {
    let held = findings.held.iter().map(|it| format!("  ✓ {it}"));
    let broken = findings.broken.iter().map(|it| format!("  ✗ {it}"));
    held.chain(broken).collect::<Vec<_>>().join("\n")
}
