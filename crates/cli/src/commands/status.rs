//! How things are.

use stele_api::wire::{AppStatus, Condition, NodeStatus, ProblemStatus, StatusAnswer};
use stele_model::Scope;
use stele_model::wire::Phase;

use super::convergence::Convergence;
use crate::client::with_query;
use crate::exit::Failure;
use crate::options::{ReadOptions, point};
use crate::session::{Session, count};
use crate::terminal::{Terminal, Tone, cell, one_line, or_dash, places, table, time, version};

/// Show how apps, instances and nodes are, and what is wrong
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele status\n  stele status shop/web@prod\n  stele status region:eu --problems\n  stele status --problems --exit-code || page-somebody\n  stele status shop/web@prod --at \"2h ago\"\n  stele status --prove                            # does every node run what it was told? in its own signed words\n  stele status region:eu --prove --export eu.json\n  stele status --verify eu.json --root KEY        # offline\n\nA scope is fleet, project:NAME, env:NAME, PROJECT/APP, PROJECT/APP@ENV, region:NAME or node:NAME;\njoined by commas they intersect."
)]
pub(crate) struct Status {
    /// Of what
    #[arg(default_value = "fleet")]
    scope: Scope,
    /// Only what is wrong
    #[arg(long)]
    problems: bool,
    /// As of when: seq:N, a time, "2h ago", v12, deploy:ID, prev, last-good
    #[arg(long, value_name = "POINT", value_parser = point)]
    at: Option<String>,
    /// Exit with 1 when there is any problem
    #[arg(long, conflicts_with = "proof")]
    exit_code: bool,
    #[command(flatten)]
    read: ReadOptions,
    #[command(flatten)]
    convergence: Convergence,
}

impl Status {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        if self.convergence.is_asked() {
            return self.convergence.run(session, &self.scope, self.read);
        }
        let path = with_query(
            "/v1/status",
            &[
                ("scope", Some(self.scope.to_string())),
                ("at", self.at.clone()),
                ("problems", self.problems.then(|| "true".to_owned())),
                self.read.consistency(),
            ],
        );
        let answer: StatusAnswer = session.client()?.get(&path)?;
        let terminal = session.terminal;
        let is_detailed = self.scope.as_app_env().is_some();
        terminal.answer(&answer, |answer| render(terminal, answer, is_detailed, self.problems))?;
        if self.exit_code && !answer.problems.is_empty() { Err(Failure::Found) } else { Ok(()) }
    }
}

fn render(terminal: Terminal, answer: &StatusAnswer, is_detailed: bool, only_problems: bool) -> String {
    let mut parts = Vec::new();
    if !only_problems {
        if answer.apps.is_empty() {
            parts.push(format!("No app is deployed in {}.", answer.scope));
        } else {
            parts.push(apps(terminal, &answer.apps));
        }
        if is_detailed {
            parts.extend(
                answer
                    .apps
                    .iter()
                    .filter(|app| !app.instances.is_empty())
                    .map(|app| instances(terminal, app)),
            );
        } else if !answer.nodes.is_empty() {
            parts.push(nodes(terminal, &answer.nodes));
        }
    }
    if answer.problems.is_empty() {
        parts.push(terminal.paint(Tone::Good, "No problem is known."));
    } else {
        parts.push(problems(terminal, &answer.problems));
    }
    parts.push(terminal.paint(Tone::Faint, &format!("as of seq {}, {}", answer.seq, time(answer.time))));
    parts.join("\n\n")
}

/// The release of an app, and of the places that follow another one.
fn releases(app: &AppStatus) -> String {
    let everywhere = version(app.release);
    if app.pins.is_empty() { everywhere } else { format!("{everywhere}, {}", places(&app.pins)) }
}

fn apps(terminal: Terminal, apps: &[AppStatus]) -> String {
    let rows = apps.iter().map(|app| {
        let (wanted, healthy) = app
            .services
            .iter()
            .fold((0, 0), |sum, service| (sum.0 + service.wanted, sum.1 + service.healthy));
        let (tone, word) = match app.condition {
            Condition::Converged => (Tone::Good, "converged"),
            Condition::Deploying => (Tone::Busy, "deploying"),
            Condition::Failed => (Tone::Bad, "failed"),
            Condition::Degraded => (Tone::Bad, "degraded"),
        };
        let latched: Vec<_> = app.latched.iter().map(|number| format!("v{number}")).collect();
        vec![
            app.app_env.to_string(),
            releases(app),
            terminal.paint(tone, word),
            format!("{healthy}/{wanted}"),
            or_dash(app.deployment),
            if latched.is_empty() { "-".to_owned() } else { latched.join(",") },
            or_dash(app.contacts.owner.as_deref().map(cell)),
        ]
    });
    table(&["APP", "RELEASE", "STATE", "HEALTHY", "DEPLOYMENT", "LATCHED", "OWNER"], rows.collect())
}

fn instances(terminal: Terminal, app: &AppStatus) -> String {
    let rows = app.instances.iter().map(|instance| {
        let word =
            instance.phase.map_or_else(|| "unknown".to_owned(), |phase| format!("{phase:?}").to_lowercase());
        let tone = match instance.phase {
            Some(Phase::Healthy | Phase::Completed) => Tone::Good,
            Some(Phase::Failed | Phase::Unhealthy) => Tone::Bad,
            _ => Tone::Busy,
        };
        let node =
            if instance.reachable { instance.node.to_string() } else { format!("{} (lost)", instance.node) };
        vec![
            format!("{}.{}-{}", instance.id.slot.service, instance.id.slot.index, instance.id.serial),
            node,
            or_dash(instance.region.as_ref()),
            version(instance.release),
            terminal.paint(tone, &word),
            instance.restarts.to_string(),
            instance.reason.as_deref().map_or_else(|| "-".to_owned(), cell),
        ]
    });
    table(&["INSTANCE", "NODE", "REGION", "RELEASE", "PHASE", "RESTARTS", "REASON"], rows.collect())
}

pub(super) fn nodes(terminal: Terminal, nodes: &[NodeStatus]) -> String {
    let rows = nodes.iter().map(|node| {
        let state = match (node.reachable, node.drained.is_some(), node.current) {
            (false, ..) => terminal.paint(Tone::Bad, "lost"),
            (true, true, _) => terminal.paint(Tone::Busy, "drained"),
            (true, false, false) => terminal.paint(Tone::Busy, "catching up"),
            (true, false, true) => terminal.paint(Tone::Good, "ready"),
        };
        let labels: Vec<_> = node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        vec![
            node.name.to_string(),
            node.region.to_string(),
            state,
            format!("{}/{}", node.healthy, node.assigned),
            or_dash(node.address.as_deref().map(cell)),
            if labels.is_empty() { "-".to_owned() } else { cell(&labels.join(",")) },
            node.reported.map_or_else(|| "-".to_owned(), time),
        ]
    });
    table(&["NODE", "REGION", "STATE", "HEALTHY", "ADDRESS", "LABELS", "REPORTED"], rows.collect())
}

fn problems(terminal: Terminal, problems: &[ProblemStatus]) -> String {
    let mut lines = vec![format!("{}:", count(problems.len(), "problem"))];
    for problem in problems {
        let place = match (&problem.instance, &problem.node) {
            (Some(instance), Some(node)) => format!("{instance} on {node}"),
            (Some(instance), None) => instance.to_string(),
            _ => problem.scope.to_string(),
        };
        lines.push(format!("- {}: {}", terminal.paint(Tone::Bad, &place), one_line(&problem.message)));
        if let Some(seq) = problem.since {
            lines.push(format!("    since seq {seq}"));
        }
        let contacts = &problem.contacts;
        let who =
            [("owner", &contacts.owner), ("on call", &contacts.on_call), ("runbook", &contacts.runbook)];
        let who: Vec<_> = who
            .iter()
            .filter_map(|(what, value)| Some(format!("{what}: {}", one_line(value.as_deref()?))))
            .collect();
        if !who.is_empty() {
            lines.push(format!("    {}", who.join(", ")));
        }
        lines.extend(problem.log_tail.iter().map(|line| format!("    | {}", one_line(line))));
        if let Some(next) = &problem.next {
            lines.push(format!("    next: {}", one_line(next)));
        }
    }
    lines.join("\n")
}
