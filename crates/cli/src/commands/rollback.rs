//! Bringing an earlier state back.

use stele_api::wire::{CandidatesAnswer, ChangeAnswer, RollbackAnswer, RollbackRequest, UnlatchRequest};
use stele_model::{AppEnv, Scope};
use ureq::http::Method;

use crate::client::{Client, with_query};
use crate::exit::Failure;
use crate::options::{ChangeOptions, WaitOptions};
use crate::session::{Session, count};
use crate::terminal::{Terminal, Tone, time, version};

/// Bring an earlier state back, exactly
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele rollback shop/web@prod                         # what it could go back to\n  stele rollback shop/web@prod --to last-good --wait\n  stele rollback shop/web@prod --to v3 --plan          # what that would change\n  stele rollback project:shop,env:prod --to \"2h ago\" --except shop/cart@prod\n\nThe rejected release is latched: automation cannot deploy it again until a person runs stele unlatch."
)]
pub(crate) struct Rollback {
    /// What to roll back
    scope: Scope,
    /// To when: v3, prev, prev:2, last-good, seq:N, a time, "2h ago", deploy:ID
    #[arg(long, value_name = "POINT")]
    to: Option<String>,
    /// Only show what would change
    #[arg(long, requires = "to", conflicts_with = "wait")]
    plan: bool,
    /// Replace everything at once, without waiting for health
    #[arg(long, requires = "to")]
    now: bool,
    /// Refuse when an instance cannot be where it was
    #[arg(long, requires = "to")]
    strict: bool,
    /// Leave this part as it is
    #[arg(long, value_name = "SCOPE", requires = "to")]
    except: Vec<Scope>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    wait: WaitOptions,
    #[command(flatten)]
    change: ChangeOptions,
}

impl Rollback {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        let client = session.client()?;
        let Some(to) = self.to.clone() else { return candidates(session, &client, &self.scope) };
        let mut request = RollbackRequest {
            scope: self.scope.clone(),
            to,
            plan: self.plan,
            now: self.now,
            strict: self.strict,
            except: self.except.clone(),
            reason: self.change.reason.clone(),
            links: self.change.links(),
        };
        let terminal = session.terminal;
        if !self.plan && self.scope.as_app_env().is_none() {
            // More than one app may be meant: what is confirmed is what is then done, by its seq.
            request.plan = true;
            let plan = self.ask(&client, &request)?;
            if plan.apps.len() > 1 && !self.yes {
                eprintln!("{}", render(terminal, &plan));
                Session::confirm(
                    &format!("Roll back {} to seq {}?", count(plan.apps.len(), "app"), plan.point),
                    self.yes,
                )?;
            }
            request.plan = false;
            request.to = format!("seq:{}", plan.point);
        }
        let answer = self.ask(&client, &request)?;
        terminal.answer(&answer, |answer| render(terminal, answer))?;
        session.waited(&client, &answer.deployments, Some(self.wait))
    }

    fn ask(&self, client: &Client, request: &RollbackRequest) -> Result<RollbackAnswer, Failure> {
        client.write(Method::POST, "/v1/rollbacks", Some(request), &self.change.conditions())
    }
}

fn render(terminal: Terminal, answer: &RollbackAnswer) -> String {
    let to = if answer.to == format!("seq:{}", answer.point) {
        answer.to.clone()
    } else {
        format!("{} (seq {})", answer.to, answer.point)
    };
    if answer.apps.is_empty() {
        return format!("{} is as it was at {to}: nothing has to change", answer.scope);
    }
    let would = if answer.planned { "would go" } else { "goes" };
    let mut lines = vec![format!("{} {would} back to {to}:", answer.scope)];
    for app in &answer.apps {
        let moves =
            if app.moves == 0 { String::new() } else { format!(", {} placed", count(app.moves, "instance")) };
        lines.push(format!("  {}: {} -> {}{moves}", app.app_env, version(app.from), version(app.to)));
        for note in &app.replaced {
            lines
                .push(terminal.paint(Tone::Busy, &format!("    {} is placed anew: {}", note.slot, note.why)));
        }
    }
    if !answer.differences.is_empty() {
        lines.push(terminal.differences(&answer.differences));
    }
    lines.push(format!("intent then  {}", answer.wanted.intent));
    match &answer.after {
        Some(after) if after.intent == answer.wanted.intent => {
            lines.push(format!("intent now   {}  {}", after.intent, terminal.paint(Tone::Good, "equal")));
        }
        Some(after) => lines.push(format!("intent now   {}  (parts were left as they are)", after.intent)),
        None => lines.push("Nothing was done: this was a plan.".to_owned()),
    }
    lines.join("\n")
}

/// Bare, it says what could be gone back to.
fn candidates(session: &Session, client: &Client, scope: &Scope) -> Result<(), Failure> {
    let path = with_query("/v1/rollbacks/candidates", &[("scope", Some(scope.to_string()))]);
    let answer: CandidatesAnswer = client.get(&path)?;
    let terminal = session.terminal;
    terminal.answer(&answer, |answer| {
        if answer.candidates.is_empty() {
            return format!("{} has no earlier state to go back to", answer.scope);
        }
        let mut parts = Vec::new();
        for candidate in &answer.candidates {
            let word = if candidate.good {
                terminal.paint(Tone::Good, "was healthy")
            } else {
                terminal.paint(Tone::Bad, "never was healthy")
            };
            let by = candidate.principal.as_ref().map(|by| format!(", by {by}")).unwrap_or_default();
            let title = format!(
                "{}  {}  until {}{by}  {word}",
                candidate.to,
                version(candidate.release),
                time(candidate.time)
            );
            parts.push(match candidate.differences.as_slice() {
                [] => format!("{title}\n  the same as now"),
                differences => format!("{title}\n{}", terminal.differences(differences)),
            });
        }
        let best = answer.candidates.iter().find(|it| it.good).or(answer.candidates.first());
        if let Some(best) = best {
            parts.push(format!("next: stele rollback {} --to {} --wait", answer.scope, best.to));
        }
        parts.join("\n\n")
    })
}

/// Let a rejected release be deployed again
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele unlatch shop/web@prod --reason \"the migration is fixed\"\n\nOnly a person's token lifts a latch."
)]
pub(crate) struct Unlatch {
    /// The app in its environment
    #[arg(value_name = "PROJECT/APP@ENV")]
    app_env: AppEnv,
    #[command(flatten)]
    change: ChangeOptions,
}

impl Unlatch {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        let client = session.client()?;
        let request = UnlatchRequest {
            app_env: self.app_env.clone(),
            reason: self.change.reason.clone(),
            links: self.change.links(),
        };
        let answer: ChangeAnswer =
            client.write(Method::POST, "/v1/unlatch", Some(&request), &self.change.conditions())?;
        session.changed(&client, &format!("{} unlatch", self.app_env), &answer, None)
    }
}
