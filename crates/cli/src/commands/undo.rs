//! Taking changes back and keeping later ones.

use stele_api::wire::{UndoAnswer, UndoRequest};
use stele_model::{PrincipalId, Seq};
use ureq::http::Method;

use super::rollback::deviation;
use crate::client::Client;
use crate::exit::Failure;
use crate::options::{ChangeOptions, WaitOptions, point};
use crate::session::{Session, count};
use crate::terminal::{Terminal, Tone, cell, one_line, time, version};

/// Take chosen changes back and keep later ones, or say what is in the way
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele undo --deployment 142 --plan                # what that would change\n  stele undo --deployment deploy:142 --wait --reason \"wrong limit\"\n  stele undo --seq 140\n  stele undo --actor ci --between \"2h ago\" now --plan\n\nA field that was changed again since is a conflict: all of them are listed with both values, and nothing is done."
)]
#[command(group(clap::ArgGroup::new("chosen").required(true).args(["deployment", "seq", "actor"])))]
pub(crate) struct Undo {
    /// The change that started this deployment (see: stele history)
    #[arg(long, value_name = "ID", value_parser = deployment)]
    deployment: Option<Seq>,
    /// The change that this record is part of (see: stele events)
    #[arg(long, value_name = "SEQ")]
    seq: Option<Seq>,
    /// All changes of somebody
    #[arg(long, value_name = "PRINCIPAL", requires = "between")]
    actor: Option<PrincipalId>,
    /// From just after one point up to another: seq:N, a time, "2h ago", now
    #[arg(long, num_args = 2, value_names = ["POINT", "POINT"], value_parser = point, requires = "actor")]
    between: Vec<String>,
    /// Only show what would change, and what is in the way
    #[arg(long, conflicts_with = "wait")]
    plan: bool,
    /// Replace everything at once, without waiting for health
    #[arg(long)]
    now: bool,
    /// Undo deployments that raised a barrier
    #[arg(long)]
    pass_barriers: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    wait: WaitOptions,
    #[command(flatten)]
    change: ChangeOptions,
}

/// `142` or `deploy:142`.
fn deployment(text: &str) -> Result<Seq, String> {
    let digits = text.strip_prefix("deploy:").unwrap_or(text);
    digits.parse().map_err(|_| format!("{text:?} is no deployment: write 142 or deploy:142"))
}

impl Undo {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        let client = session.client()?;
        let mut request = UndoRequest {
            deployment: self.deployment,
            seq: self.seq,
            actor: self.actor.clone(),
            from: self.between.first().cloned(),
            to: self.between.get(1).cloned(),
            plan: self.plan,
            now: self.now,
            pass_barriers: self.pass_barriers,
            reason: self.change.reason.clone(),
            links: self.change.links(),
        };
        let terminal = session.terminal;
        if !self.plan && self.actor.is_some() {
            // Many changes may be meant: what is confirmed is what is then done, by its seqs.
            request.plan = true;
            let plan = self.ask(&client, &request)?;
            if plan.decisions.len() > 1 && !self.yes {
                eprintln!("{}", render(terminal, &plan));
                let question = format!("Undo {}?", count(plan.decisions.len(), "change"));
                session.confirm(&question, self.yes)?;
            }
            request.plan = false;
            if let Some((from, to)) = plan.between {
                (request.from, request.to) = (Some(format!("seq:{from}")), Some(format!("seq:{to}")));
            }
        }
        let answer = self.ask(&client, &request)?;
        terminal.answer(&answer, |answer| render(terminal, answer))?;
        if self.plan && !(answer.conflicts.is_empty() && answer.blocked.is_empty()) {
            return Err(Failure::WouldBeRefused);
        }
        session.waited(&client, &answer.deployments, Some(self.wait))
    }

    fn ask(&self, client: &Client, request: &UndoRequest) -> Result<UndoAnswer, Failure> {
        client.write(Method::POST, "/v1/undo", Some(request), &self.change.conditions())
    }
}

fn render(terminal: Terminal, answer: &UndoAnswer) -> String {
    let mut lines = Vec::new();
    for decision in &answer.decisions {
        let reason = decision.reason.as_deref().map(|reason| format!("  \"{}\"", cell(reason)));
        let (when, who) = (time(decision.time), &decision.principal);
        lines.push(format!("seq {}  {when}  {who}{}", decision.seq, reason.unwrap_or_default()));
    }
    if !answer.conflicts.is_empty() {
        lines.push(terminal.paint(Tone::Bad, "It cannot be undone: later changes are in its way."));
        lines
            .extend(answer.conflicts.iter().map(|conflict| format!("  {}", one_line(&conflict.to_string()))));
        return lines.join("\n");
    }
    if answer.apps.is_empty() && answer.seq.is_none() && answer.blocked.is_empty() {
        lines.push(format!("{}: nothing of it is left to undo", one_line(&answer.what)));
        return lines.join("\n");
    }
    for app in &answer.apps {
        let restores = app.restores.map(|seq| format!(", exactly as at seq {seq}")).unwrap_or_default();
        lines.push(format!("{}: {} -> {}{restores}", app.app_env, version(app.from), version(app.to)));
        lines.extend(app.deviations.iter().map(|it| format!("  {}", deviation(it))));
    }
    if answer.planned {
        lines.push(terminal.differences(&answer.differences));
        lines.extend(
            answer
                .blocked
                .iter()
                .map(|why| terminal.paint(Tone::Bad, &format!("in the way: {}", one_line(why)))),
        );
        lines.push("Nothing was done: this was a plan.".to_owned());
    } else if let Some(seq) = answer.seq {
        lines.push(format!("{}: undone (seq {seq})", one_line(&answer.what)));
    }
    lines.join("\n")
}
