//! Why something is as it is.

use std::path::PathBuf;

use stele_model::event::{Holder, Outcome};
use stele_model::why::{Step, Why as Answer};

use crate::client::with_query;
use crate::exit::Failure;
use crate::folder::Folder;
use crate::options::{ReadOptions, point};
use crate::session::Session;
use crate::terminal::{Terminal, Tone, one_line, time};

/// Show why a container, an app or a node is as it is, back to whoever asked for it
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele why shop/web@prod/web.0-142      # why this container runs\n  stele why shop/web@prod/web.0          # whatever fills that slot\n  stele why shop/web@prod --at \"2h ago\"\n  stele why shop/web@prod,region:eu      # why it is another there\n  stele why node:eu-1\n  stele why shop/web@prod --data /var/lib/stele/data   # of a controller that is stopped",
    mut_arg("stale", |stale| stale.conflicts_with("data"))
)]
pub(crate) struct Why {
    /// An instance (see: stele status), an app in an environment, or a node
    #[arg(value_name = "INSTANCE|APP|NODE")]
    subject: String,
    /// As of when: seq:N, a time, "2h ago", v12, deploy:ID, prev, last-good
    #[arg(long, value_name = "POINT", value_parser = point)]
    at: Option<String>,
    /// A controller's data folder, instead of a running fleet
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    read: ReadOptions,
}

impl Why {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        let answer: Answer = if let Some(folder) = &self.data {
            Folder::open(folder)?.why(&self.subject, self.at.as_deref())?
        } else {
            let query = [("subject", Some(self.subject)), ("at", self.at), self.read.consistency()];
            let path = with_query("/v1/why", &query);
            session.client()?.get(&path)?
        };
        let terminal = session.terminal;
        terminal.answer(&answer, |answer| render(terminal, answer))
    }
}

fn render(terminal: Terminal, answer: &Answer) -> String {
    let mut lines = vec![one_line(&answer.is), format!("as of seq {}, {}", answer.at, time(answer.time))];
    for step in &answer.steps {
        lines.push(String::new());
        lines.extend(step_lines(terminal, step));
    }
    if !answer.unknown.is_empty() {
        lines.push(String::new());
        lines.extend(answer.unknown.iter().map(|unknown| terminal.paint(Tone::Busy, &one_line(unknown))));
    }
    lines.join("\n")
}

fn step_lines(terminal: Terminal, step: &Step) -> Vec<String> {
    let who = match step.holder {
        Some(Holder::Service) => format!("{} (a service)", step.principal),
        Some(Holder::Person) | None => step.principal.to_string(),
    };
    let for_whom = step.links.on_behalf_of.as_ref().map(|whom| format!(" for {whom}")).unwrap_or_default();
    let head = format!("seq {}  {}  {who}{for_whom}", step.seq, time(step.time));
    let mut lines = vec![head, format!("  {}", one_line(&step.what))];
    lines.extend(step.also.iter().map(|also| format!("  {}", one_line(also))));
    let labelled = [
        ("reason", &step.reason),
        ("ticket", &step.links.ticket),
        ("commit", &step.links.commit),
        ("ci run", &step.links.ci_run),
        ("trace", &step.trace),
    ];
    for (label, text) in labelled {
        if let Some(text) = text {
            lines.push(format!("  {label}: {}", one_line(text)));
        }
    }
    if step.kind == "deployment_started" {
        lines.push(format!("  {}", outcome(terminal, step.outcome.as_ref())));
    }
    if let Some(cause) = step.cause {
        lines.push(terminal.paint(Tone::Faint, &format!("  because of seq {cause}")));
    }
    lines
}

fn outcome(terminal: Terminal, outcome: Option<&Outcome>) -> String {
    match outcome {
        None => terminal.paint(Tone::Busy, "it had not ended"),
        Some(Outcome::Succeeded) => terminal.paint(Tone::Good, "it succeeded"),
        Some(Outcome::Failed { instance, node, reason, exit_code, .. }) => {
            let code = exit_code.map(|code| format!(", exit code {code}")).unwrap_or_default();
            let reason = one_line(reason);
            terminal.paint(Tone::Bad, &format!("it failed: {instance} on {node}: {reason}{code}"))
        }
        Some(Outcome::Unplaced { slot, reason }) => {
            terminal.paint(Tone::Bad, &format!("it failed: {slot} has no node: {}", one_line(reason)))
        }
        Some(Outcome::Superseded { by }) => {
            terminal.paint(Tone::Faint, &format!("it was superseded by seq {by}"))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::terminal::Output;

    #[test]
    fn nobody_forges_a_line() {
        let forged = "fine\n\nseq 9  2026-02-02T02:40:00Z  root\u{1b}[2A\u{202e}";
        let step = serde_json::json!({
            "seq": 7,
            "time": 1_770_000_000_000_000_u64,
            "kind": "deployment_started",
            "principal": "ci",
            "holder": "service",
            "what": forged,
            "also": [forged],
            "reason": forged,
            "links": {"ticket": forged, "commit": forged, "ci_run": forged, "on_behalf_of": null},
            "trace": forged,
            "outcome": {"unplaced": {"slot": "shop/web@prod/web.0", "reason": forged}},
            "cause": null,
        });
        let step: Step = serde_json::from_value(step).unwrap();
        let lines = step_lines(Terminal::new(Output::Table), &step);
        assert_eq!(lines.len(), 9, "{lines:#?}");
        for line in &lines {
            assert!(!line.contains(['\n', '\u{1b}', '\u{202e}']), "{line:?}");
            assert!(!line.starts_with("seq 9"), "{line:?}");
        }
        assert_eq!(lines[3], "  reason: fine⏎⏎seq 9  2026-02-02T02:40:00Z  root\\u{1b}[2A\\u{202e}");
    }
}
