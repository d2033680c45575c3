//! What was: history, state at a point, differences.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use stele_api::limits::HISTORY_ENTRIES_MAX;
use stele_api::wire::{DiffAnswer, HistoryAnswer, ShowAnswer};
use stele_model::Scope;
use stele_model::event::Outcome;

use super::show_spec::ShowSpec;
use crate::client::with_query;
use crate::differences::summary;
use crate::exit::Failure;
use crate::folder::Folder;
use crate::options::{ReadOptions, point};
use crate::session::Session;
use crate::terminal::{Terminal, Tone, cell, one_line, table, time, version};

/// List deployments: what, when, who, why, and how it ended
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  stele history shop/web@prod\n  stele history env:prod --limit 200")]
pub(crate) struct History {
    /// Of what
    #[arg(default_value = "fleet")]
    scope: Scope,
    /// Most entries, 500 at most
    #[arg(short = 'n', long, default_value = "50", allow_negative_numbers = true)]
    limit: NonZeroUsize,
    /// As of when
    #[arg(long, value_name = "POINT", value_parser = point)]
    at: Option<String>,
    #[command(flatten)]
    read: ReadOptions,
}

impl History {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        let path = with_query(
            "/v1/history",
            &[
                ("scope", Some(self.scope.to_string())),
                ("limit", Some(self.limit.to_string())),
                ("at", self.at.clone()),
                self.read.consistency(),
            ],
        );
        let answer: HistoryAnswer = session.client()?.get(&path)?;
        let terminal = session.terminal;
        terminal.answer(&answer, |answer| render_history(terminal, answer))?;
        if answer.more {
            eprintln!("{}", left_out(&answer));
        }
        Ok(())
    }
}

/// What is said when there are earlier deployments than those listed.
fn left_out(answer: &HistoryAnswer) -> String {
    if answer.entries.len() < HISTORY_ENTRIES_MAX {
        return format!("earlier ones are not listed: --limit N lists up to {HISTORY_ENTRIES_MAX}");
    }
    format!(
        "earlier ones are not listed: {HISTORY_ENTRIES_MAX} are at most; stele events --kind deployment_started --scope \
         {} --after 0 has all",
        answer.scope
    )
}

fn render_history(terminal: Terminal, answer: &HistoryAnswer) -> String {
    if answer.entries.is_empty() {
        return format!("Nothing was ever deployed in {}.", answer.scope);
    }
    let rows = answer.entries.iter().map(|entry| {
        let outcome = match &entry.outcome {
            None => terminal.paint(Tone::Busy, "on its way"),
            Some(Outcome::Succeeded) => terminal.paint(Tone::Good, "succeeded"),
            Some(Outcome::Failed { reason, .. } | Outcome::Unplaced { reason, .. }) => {
                terminal.paint(Tone::Bad, &format!("failed: {}", cell(reason)))
            }
            Some(Outcome::Superseded { by }) => terminal.paint(Tone::Faint, &format!("superseded by {by}")),
        };
        let release = match (entry.from, entry.to) {
            (Some(from), Some(to)) if from == to => format!("v{to}"),
            (from, to) => format!("{} -> {}", version(from), version(to)),
        };
        vec![
            format!("deploy:{}", entry.deployment),
            time(entry.time),
            entry.app_env.to_string(),
            format!("{:?}", entry.kind).to_lowercase(),
            release,
            outcome,
            entry.principal.to_string(),
            entry.reason.as_deref().map_or_else(|| "-".to_owned(), cell),
        ]
    });
    table(&["DEPLOYMENT", "STARTED", "APP", "KIND", "RELEASE", "OUTCOME", "BY", "REASON"], rows.collect())
}

/// Show what should be, now or at any point, with its digest
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele show shop/web@prod\n  stele show shop/web@prod --at v3 --output yaml\n  stele show shop/web@prod --spec > web.yaml   # to change it without its file\n  stele show fleet --at \"2026-01-31T12:00:00Z\" --output json"
)]
pub(crate) struct Show {
    /// Of what
    scope: Scope,
    /// As of when: seq:N, a time, "2h ago", v12, deploy:ID, prev, last-good
    #[arg(long, value_name = "POINT", value_parser = point)]
    at: Option<String>,
    /// With the digest of all of State at that point, which may take a moment
    #[arg(long)]
    digest: bool,
    /// As a spec, which changes nothing when it is applied where it is in force; what it cannot hold is said beside it
    #[arg(long, conflicts_with = "digest")]
    spec: bool,
    #[command(flatten)]
    read: ReadOptions,
}

impl Show {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        if self.spec {
            return ShowSpec { scope: &self.scope, at: self.at.as_deref(), read: self.read }.run(session);
        }
        let path = with_query(
            "/v1/show",
            &[
                ("scope", Some(self.scope.to_string())),
                ("at", self.at.clone()),
                ("digest", self.digest.then(|| "true".to_owned())),
                self.read.consistency(),
            ],
        );
        let answer: ShowAnswer = session.client()?.get(&path)?;
        session.terminal.answer(&answer, render_show)
    }
}

fn render_show(answer: &ShowAnswer) -> String {
    let mut parts = Vec::new();
    for app in &answer.apps {
        let mut lines = vec![format!("{} v{} ({})", app.app_env, app.release, app.release_digest)];
        for (name, service) in &app.content.services {
            lines.push(format!("  {name}: {}", one_line(&service.container.image.to_string())));
            for (key, value) in &service.container.env {
                lines.push(format!("    env {}: {}", cell(key), cell(&describe(value))));
            }
            for (path, file) in &service.container.files {
                lines.push(format!("    file {}: {}", cell(path), cell(&describe(&file.content))));
            }
        }
        for (key, value) in &app.config {
            lines.push(format!("  config {}: {}", cell(key), cell(value.plain().unwrap_or("<sealed>"))));
        }
        for (name, number) in &app.secrets {
            lines.push(format!("  secret {name}: version {number}"));
        }
        for pin in &app.pins {
            let what = pin.release.map_or_else(|| "nothing".to_owned(), |release| format!("v{release}"));
            lines.push(format!("  {} alone has {what}", pin.place));
        }
        for (slot, node) in &app.placement {
            lines.push(format!("  {}.{} on {node}", slot.service, slot.index));
        }
        parts.push(lines.join("\n"));
    }
    if parts.is_empty() {
        parts.push(format!("{} was empty.", answer.scope));
    }
    parts.push(format!(
        "as of seq {}, {}\nintent    {}\nplacement {}",
        answer.seq,
        time(answer.time),
        answer.digest.intent,
        answer.digest.placement
    ));
    if let Some(digest) = answer.state_digest {
        parts.push(format!("state {digest}"));
    }
    parts.join("\n\n")
}

fn describe(value: &stele_model::release::EnvValue) -> String {
    use stele_model::release::EnvValue;
    match value {
        EnvValue::Value(value) => value.plain().unwrap_or("<sealed>").to_owned(),
        EnvValue::Secret(name) => format!("<secret {name}>"),
    }
}

/// Show what differs between two points, or between a point and now
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele diff shop/web@prod prev\n  stele diff shop/web@prod v3 v5\n  stele diff env:prod \"1d ago\"\n  stele diff region:eu seq:1200 seq:900      # the other way round\n  stele diff shop/web@prod v3 --exit-code && echo as it was\n  stele diff fleet seq:40 --data /var/lib/stele/data   # of a controller that is stopped",
    mut_arg("stale", |stale| stale.conflicts_with("data"))
)]
pub(crate) struct Diff {
    /// Of what
    scope: Scope,
    /// What to compare with: seq:N, a time, "2h ago", v12, deploy:ID, prev, last-good
    #[arg(value_name = "POINT", value_parser = point)]
    from: String,
    /// What is compared with it, earlier or later; now unless given
    #[arg(value_name = "POINT", value_parser = point)]
    to: Option<String>,
    /// Exit with 1 when something differs
    #[arg(long)]
    exit_code: bool,
    /// A controller's data folder, instead of a running fleet
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    read: ReadOptions,
}

impl Diff {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        let answer: DiffAnswer = if let Some(folder) = &self.data {
            Folder::open(folder)?.diff(&self.scope, &self.from, self.to.as_deref())?
        } else {
            let path = with_query(
                "/v1/diff",
                &[
                    ("scope", Some(self.scope.to_string())),
                    ("from", Some(self.from.clone())),
                    ("to", self.to.clone()),
                    self.read.consistency(),
                ],
            );
            session.client()?.get(&path)?
        };
        let terminal = session.terminal;
        terminal.answer(&answer, |answer| match answer.differences.as_slice() {
            [] => format!("{} is the same at seq {} and seq {}", answer.scope, answer.from, answer.to),
            differences => format!(
                "{}\n\nfrom seq {} to seq {}, {}",
                terminal.differences(differences),
                answer.from,
                answer.to,
                summary(differences)
            ),
        })?;
        if self.exit_code && !answer.differences.is_empty() { Err(Failure::Found) } else { Ok(()) }
    }
}
