//! What would be, at any point.

use std::path::PathBuf;

use stele_api::wire::{PlannedAction, PlannedStep, WhatIfAnswer, WhatIfChange, WhatIfRequest};
use stele_model::event::Outcome;
use stele_model::{EnvironmentName, NodeName, Scope};
use ureq::http::Method;

use super::drain::reasons;
use super::spec::{loaded, parse_images};
use crate::client::{Client, Conditions};
use crate::differences::summary;
use crate::exit::Failure;
use crate::limits::STEPS_SHOWN_MAX;
use crate::options::point;
use crate::session::Session;
use crate::terminal::{Terminal, Tone, one_line, time, version};

/// Show what a change would come to, now or at any earlier point, without making it
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele what-if -f web.yaml                                    # now\n  stele what-if -f web.yaml --at \"2h ago\"                      # before the incident\n  stele what-if --rollback env:prod --to \"1d ago\"\n  stele what-if --rollback shop/web@prod --to v2 --at seq:1200 --output json\n  stele what-if --drain eu-1\n\nThe steps are those of the real planner, as if every container became healthy at once."
)]
#[command(group(clap::ArgGroup::new("change").required(true).args(["file", "rollback", "drain"])))]
pub(crate) struct WhatIf {
    /// A spec to apply; `-` reads standard input
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// Which of the spec's environments
    #[arg(short, long, value_name = "NAME", requires = "file")]
    env: Option<EnvironmentName>,
    /// Use this image instead of the spec's
    #[arg(long = "image", value_name = "SERVICE=REF", value_parser = super::key_value, requires = "file")]
    images: Vec<(String, String)>,
    /// A scope to roll back
    #[arg(long, value_name = "SCOPE", requires = "to")]
    rollback: Option<Scope>,
    /// To when, as seen from the point asked about
    #[arg(long, value_name = "POINT", value_parser = point, requires = "rollback")]
    to: Option<String>,
    /// Leave this part as it is
    #[arg(long, value_name = "SCOPE", requires = "rollback")]
    except: Vec<Scope>,
    /// Replace everything at once
    #[arg(long, requires = "rollback")]
    now: bool,
    /// A node to drain
    #[arg(long, value_name = "NODE")]
    drain: Option<NodeName>,
    /// At which point: seq:N, a time, "2h ago", v12, deploy:ID, prev, last-good
    #[arg(long, value_name = "POINT", value_parser = point)]
    at: Option<String>,
}

impl WhatIf {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        let (file, change) = match (self.file, self.rollback, self.to) {
            (Some(path), ..) => {
                let (file, environment) = loaded(&path, self.env.as_ref())?;
                let images = parse_images(&self.images)?;
                let spec = file.spec.clone();
                (Some(file), WhatIfChange::Apply { spec, environment: Some(environment), images })
            }
            (None, Some(scope), Some(to)) => {
                (None, WhatIfChange::Rollback { scope, to, except: self.except, now: self.now })
            }
            _ => match self.drain {
                Some(node) => (None, WhatIfChange::Drain { node }),
                None => {
                    return Err(Failure::Usage(
                        "say what would change: --file, --rollback and --to, or --drain".to_owned(),
                    ));
                }
            },
        };
        let request = WhatIfRequest { at: self.at, change };
        let answer: Result<WhatIfAnswer, Failure> =
            session.client()?.write(Method::POST, "/v1/what-if", Some(&request), &Conditions::default());
        let answer = match (answer, &file) {
            (Err(failure), Some(file)) => return Err(super::spec::located(file, "spec.", failure)),
            (answer, _) => answer?,
        };
        let terminal = session.terminal;
        terminal.answer(&answer, |answer| render(terminal, answer))
    }
}

/// What it would come to if a node were drained now.
pub(super) fn if_drained(session: &Session, client: &Client, node: NodeName) -> Result<(), Failure> {
    let request = WhatIfRequest { at: None, change: WhatIfChange::Drain { node } };
    let answer: WhatIfAnswer =
        client.write(Method::POST, "/v1/what-if", Some(&request), &Conditions::default())?;
    let terminal = session.terminal;
    terminal.answer(&answer, |answer| render(terminal, answer))
}

fn render(terminal: Terminal, answer: &WhatIfAnswer) -> String {
    let at = format!("at seq {}, {}", answer.at, time(answer.time));
    if answer.differences.is_empty() && answer.steps.is_empty() && answer.staying.is_empty() {
        return format!("Nothing would change {at}.");
    }
    let mut parts = Vec::new();
    if !answer.differences.is_empty() {
        parts.push(terminal.differences(&answer.differences));
        parts.push(summary(&answer.differences));
    }
    let mut lines = Vec::new();
    let mut round = None;
    for step in answer.steps.iter().take(STEPS_SHOWN_MAX) {
        if round != Some(step.round) {
            round = Some(step.round);
            let when = if step.round == 0 { "at once" } else { "when that is healthy" };
            lines.push(format!("{when}:"));
        }
        lines.push(format!("  {}", step_line(terminal, step)));
    }
    if answer.steps.len() > STEPS_SHOWN_MAX {
        let more = answer.steps.len() - STEPS_SHOWN_MAX;
        lines.push(format!("  … and {more} more; all of them with --output json"));
    }
    if !answer.ended {
        lines.push(terminal.paint(Tone::Busy, "and on from there: there are more steps than are looked at"));
    }
    parts.extend((!lines.is_empty()).then(|| lines.join("\n")));
    let placed: Vec<_> = answer
        .placement
        .iter()
        .map(|(node, slots)| {
            let slots = slots.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            format!("  {node}: {slots}")
        })
        .collect();
    if !placed.is_empty() {
        parts.push(format!("in the end:\n{}", placed.join("\n")));
    }
    if !answer.staying.is_empty() {
        parts.push(format!("still there:\n{}", reasons(&answer.staying).join("\n")));
    }
    parts.push(format!("Nothing was done: this is what would be {at}."));
    parts.join("\n\n")
}

fn step_line(terminal: Terminal, step: &PlannedStep) -> String {
    match &step.action {
        PlannedAction::Place { slot, node: Some(node) } => format!("place {slot} on {node}"),
        PlannedAction::Place { slot, node: None } => format!("give {slot} up"),
        PlannedAction::Start { node, slot, release, replaces } => {
            let instead = match replaces {
                Some(old) if old.serial > 0 => format!(", in place of {old}"),
                Some(_) => ", in place of the one before".to_owned(),
                None => String::new(),
            };
            terminal.paint(Tone::Good, &format!("{node}: start {slot} {}{instead}", version(*release)))
        }
        PlannedAction::Stop { node, instance } => {
            terminal.paint(Tone::Bad, &format!("{node}: stop {instance}"))
        }
        PlannedAction::Finish { outcome } => match outcome {
            Outcome::Succeeded => format!("{} is done", step.app_env),
            Outcome::Failed { instance, node, reason, .. } => {
                let why = format!("{instance} on {node}: {}", one_line(reason));
                terminal.paint(Tone::Bad, &format!("{} fails: {why}", step.app_env))
            }
            Outcome::Unplaced { slot, reason } => {
                let why = format!("{slot} has no node: {}", one_line(reason));
                terminal.paint(Tone::Bad, &format!("{} fails: {why}", step.app_env))
            }
            Outcome::Superseded { by } => format!("{} is superseded by seq {by}", step.app_env),
        },
    }
}
