//! Waiting for deployments, live on a terminal and line by line elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use stele_api::wire::DeploymentStatus;
use stele_model::Seq;
use stele_model::event::Outcome;

use crate::client::Client;
use crate::exit::Failure;
use crate::limits::WAIT_PAUSE;
use crate::terminal::{Terminal, one_line, places, version};

/// Waits until every deployment has ended; fails with the first that failed.
pub(crate) fn wait_for(
    client: &Client,
    deployments: &[Seq],
    patience: Duration,
) -> Result<Vec<DeploymentStatus>, Failure> {
    let deadline = Instant::now() + patience;
    deployments.iter().map(|id| wait_for_one(client, *id, deadline)).collect()
}

fn wait_for_one(client: &Client, id: Seq, deadline: Instant) -> Result<DeploymentStatus, Failure> {
    let bar = Terminal::is_watched().then(|| {
        let style = ProgressStyle::with_template("{spinner} {msg} [{bar:24}] {pos}/{len} healthy, {elapsed}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(0).with_style(style)
    });
    let mut last = String::new();
    loop {
        let status: DeploymentStatus = client.get(&format!("/v1/deployments/{id}?instances=false"))?;
        let line = describe(&status);
        if let Some(bar) = &bar {
            bar.set_length(u64::from(status.wanted.max(1)));
            bar.set_position(u64::from(status.healthy));
            bar.set_message(title(&status));
            bar.tick();
        } else if line != last {
            eprintln!("{line}");
            last = line;
        }
        if let Some(finished) = &status.finished {
            if let Some(bar) = &bar {
                bar.finish_and_clear();
            }
            return match check(&finished.outcome, &status) {
                None => Ok(status),
                Some(failure) => Err(failure),
            };
        }
        if Instant::now() > deadline {
            return Err(Failure::Undecided(format!(
                "{}, and still on its way\n  next: stele status {} --problems",
                describe(&status),
                status.app_env
            )));
        }
        std::thread::sleep(WAIT_PAUSE);
    }
}

fn title(status: &DeploymentStatus) -> String {
    let to = match status.to {
        None if status.places.is_empty() => "removed".to_owned(),
        _ => format!("to {}", target(status)),
    };
    format!("deployment {} of {} {to}", status.id, status.app_env)
}

/// What should run: `v7`, `v7, v3 in region:eu`, and where the rest of the app is held only `v3 in region:eu`.
pub(crate) fn target(status: &DeploymentStatus) -> String {
    match status.places.as_slice() {
        [] => version(status.to),
        pinned if status.held => places(pinned),
        pinned => format!("{}, {}", version(status.to), places(pinned)),
    }
}

fn describe(status: &DeploymentStatus) -> String {
    let phases: Vec<_> = status
        .phases
        .iter()
        .map(|(phase, count)| format!("{count} {}", format!("{phase:?}").to_lowercase()))
        .collect();
    let detail = if phases.is_empty() { String::new() } else { format!(" ({})", phases.join(", ")) };
    format!("{}: {} of {} healthy{detail}", title(status), status.healthy, status.wanted)
}

/// What there is to do about a deployment that failed.
fn way_on(status: &DeploymentStatus) -> [String; 2] {
    let app_env = &status.app_env;
    if status.from.is_some() {
        [
            // What it was to replace may never have run, so no version is named.
            "  what it had not replaced still runs".to_owned(),
            format!("  next: stele rollback {app_env} --to last-good --plan"),
        ]
    } else {
        [
            "  nothing ran before it".to_owned(),
            format!("  next: fix the spec and apply it again, or: stele remove {app_env} --plan"),
        ]
    }
}

/// Why an ended deployment is not what was wanted.
fn check(outcome: &Outcome, status: &DeploymentStatus) -> Option<Failure> {
    match outcome {
        Outcome::Succeeded => None,
        Outcome::Superseded { by } => {
            Some(Failure::Failed(format!("{} was superseded by deployment {by}", title(status))))
        }
        Outcome::Unplaced { slot, reason } => Some(Failure::Failed(format!(
            "{} failed\n  {slot} has no node it may run on: {}\n  next: stele node list",
            title(status),
            one_line(reason)
        ))),
        Outcome::Failed { instance, node, reason, exit_code, log_tail } => {
            let mut lines = vec![
                format!("{} failed", title(status)),
                format!("  {instance} on {node}: {}", one_line(reason)),
            ];
            lines.extend(exit_code.map(|code| format!("  it exited with {code}")));
            if !log_tail.is_empty() {
                lines.push("  its last log lines:".to_owned());
                lines.extend(log_tail.iter().map(|line| format!("  | {}", one_line(line))));
            }
            lines.extend(way_on(status));
            Some(Failure::Failed(lines.join("\n")))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn failed(from: Option<u32>) -> String {
        let outcome = serde_json::json!({"failed": {
            "instance": "shop/web@prod/web.0-1", "node": "eu-1", "reason": "it ended", "exit_code": 3, "log_tail": [],
        }});
        let status = serde_json::json!({
            "id": 5, "app_env": "shop/web@prod", "kind": "deploy", "from": from, "to": 2, "now": false,
            "principal": "anna", "started": 1, "finished": {"time": 2, "seq": 9, "outcome": outcome},
            "wanted": 1, "healthy": 0, "phases": {}, "instances": [],
        });
        let status: DeploymentStatus = serde_json::from_value(status).unwrap();
        let outcome = status.finished.as_ref().unwrap().outcome.clone();
        check(&outcome, &status).unwrap().to_string()
    }

    #[test]
    fn what_comes_next_is_possible() {
        let again = failed(Some(1));
        assert!(again.contains("what it had not replaced still runs"), "{again}");
        assert!(again.ends_with("next: stele rollback shop/web@prod --to last-good --plan"), "{again}");
        let first = failed(None);
        assert!(!first.contains("rollback") && !first.contains("still runs"), "{first}");
        assert!(first.ends_with("apply it again, or: stele remove shop/web@prod --plan"), "{first}");
    }
}
