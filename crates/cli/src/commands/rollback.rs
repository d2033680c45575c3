//! Bringing an earlier state back.

use std::io::IsTerminal as _;
use std::num::NonZeroUsize;

use stele_api::limits::ROLLBACK_CANDIDATES_MAX;
use stele_api::wire::{
    Barrier, Candidate, CandidatesAnswer, ChangeAnswer, RollbackAnswer, RollbackApp, RollbackRequest,
    StatusAnswer, UnlatchRequest,
};
use stele_model::event::Deviation;
use stele_model::point::Verdict;
use stele_model::{AppEnv, Scope, Seq, Slot};
use ureq::http::Method;

use crate::client::{Client, with_query};
use crate::exit::Failure;
use crate::limits::NODES_SHOWN_MAX;
use crate::options::{ChangeOptions, WaitOptions, only_with, point};
use crate::session::{Session, count};
use crate::terminal::{Output, Terminal, Tone, one_line, time, version};

/// Bring an earlier state back, exactly
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele rollback app:shop/web --to last-good           # the one line to know under stress\n  stele rollback shop/web@prod                         # what it could go back to\n  stele rollback shop/web@prod --to v3 --plan          # what that would change, node by node\n  stele rollback shop/web@prod,region:eu --to \"1h ago\" --wait\n  stele rollback project:shop,env:prod --to \"2h ago\" --except shop/cart@prod\n  stele rollback --check env:prod                      # which points could be restored right now\n\nThe rejected release is latched: automation cannot deploy it again until a person runs stele unlatch.\nWhat is not in the log stays as it is: data inside volumes, and whatever lives in other systems.",
    mut_args(only_with("to"))
)]
pub(crate) struct Rollback {
    /// What to roll back: an app, app@env, project:, env:, region:, node:, fleet, joined by commas to intersect
    scope: Scope,
    /// To when: v3, prev, prev:2, last-good, seq:N, a time, "2h ago", deploy:ID
    #[arg(long, value_name = "POINT", value_parser = point)]
    to: Option<String>,
    /// Say which earlier points could be restored exactly right now, and what blocks the others
    #[arg(long, conflicts_with = "to")]
    check: bool,
    /// Of how many points, the newest first; 5 unless said otherwise, at most 20
    #[arg(long, value_name = "N", conflicts_with = "to")]
    limit: Option<NonZeroUsize>,
    /// List them without a quorum, from what one controller has
    #[arg(long, conflicts_with = "to")]
    stale: bool,
    /// Only show what would change
    #[arg(long, requires = "to", conflicts_with = "wait")]
    plan: bool,
    /// Replace everything at once, without waiting for health
    #[arg(long, requires = "to")]
    now: bool,
    /// Refuse when an instance cannot be where it was, or not at once
    #[arg(long, requires = "to", conflicts_with = "best_effort")]
    strict: bool,
    /// Restore what can be restored; the log lists every deviation
    #[arg(long, requires = "to")]
    best_effort: bool,
    /// Go back past deployments that raised a barrier
    #[arg(long, requires = "to")]
    pass_barriers: bool,
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
        let Some(to) = self.to.clone() else {
            return candidates(session, &client, &self);
        };
        let mut request = RollbackRequest {
            scope: self.scope.clone(),
            to,
            plan: self.plan,
            now: self.now,
            strict: self.strict,
            best_effort: self.best_effort,
            pass_barriers: self.pass_barriers,
            except: self.except.clone(),
            reason: self.change.reason.clone(),
            links: self.change.links(),
        };
        let terminal = session.terminal;
        if !self.plan && (self.scope.as_app_env().is_none() || Terminal::is_watched()) {
            self.confirm(session, &client, &mut request)?;
        }
        let answer = self.ask(&client, &request)?;
        terminal.answer(&answer, |answer| render(terminal, answer))?;
        if self.plan && self.would_be_refused(&answer) {
            return Err(Failure::WouldBeRefused);
        }
        session.waited(&client, &answer.deployments, Some(self.wait))
    }

    fn would_be_refused(&self, plan: &RollbackAnswer) -> bool {
        let is_refused = |app: &RollbackApp| {
            (!app.blocked.is_empty() && !self.best_effort)
                || (!app.barriers.is_empty() && !self.pass_barriers)
        };
        (self.strict && !plan.deviations.is_empty()) || plan.apps.iter().any(is_refused)
    }

    /// More than one app may be meant, or a barrier be in the way: what is confirmed is what is then
    /// done, by its seq.
    fn confirm(
        &self,
        session: &Session,
        client: &Client,
        request: &mut RollbackRequest,
    ) -> Result<(), Failure> {
        request.plan = true;
        let plan = self.ask(client, request)?;
        request.plan = false;
        request.to = format!("seq:{}", plan.point);
        request.scope = plan.scope.clone();
        let blocked = plan.apps.iter().any(|app| !app.blocked.is_empty());
        if blocked && !self.best_effort {
            // The refusal tells all of it.
            return Ok(());
        }
        let barriers: Vec<_> = plan.apps.iter().flat_map(|app| &app.barriers).collect();
        // Where nobody can answer, the refusal says what to write.
        let can_ask = Terminal::is_watched() && std::io::stdin().is_terminal();
        let asks_barrier = !barriers.is_empty() && !self.pass_barriers && can_ask;
        if (plan.apps.len() > 1 && !self.yes) || asks_barrier {
            eprintln!("{}", render(session.terminal, &plan));
        }
        if plan.apps.len() > 1 && !self.yes {
            let question = format!("Roll back {} to seq {}?", count(plan.apps.len(), "app"), plan.point);
            session.confirm(&question, self.yes)?;
        }
        if asks_barrier {
            let told: Vec<_> = barriers.iter().map(|barrier| one_line(&barrier.what)).collect();
            session.confirm(
                &format!("What this did stays done: {}. Go back past it?", told.join("; ")),
                false,
            )?;
            request.pass_barriers = true;
        }
        Ok(())
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
        lines.extend(app_lines(terminal, app));
    }
    if !answer.differences.is_empty() {
        lines.push(terminal.differences(&answer.differences));
    }
    let known = |it: &&Deviation| answer.apps.iter().any(|app| app.deviations.contains(it));
    let left = answer.deviations.iter().filter(|it| !known(it));
    lines.extend(left.map(|it| terminal.paint(Tone::Busy, &format!("  {}", deviation(it)))));
    let volumes: Vec<_> = answer.apps.iter().flat_map(|app| app.volumes.iter().map(String::as_str)).collect();
    if !volumes.is_empty() {
        lines.push(format!(
            "not restored: data in {}, and whatever lives in other systems",
            one_line(&volumes.join(", "))
        ));
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

fn app_lines(terminal: Terminal, app: &RollbackApp) -> Vec<String> {
    let moves = if app.moves == 0 {
        String::new()
    } else {
        format!(", {} to another node", count(app.moves, "instance"))
    };
    let mut lines = vec![format!("  {}: {} -> {}{moves}", app.app_env, version(app.from), version(app.to))];
    for (node, change) in app.nodes.iter().take(NODES_SHOWN_MAX) {
        let names = |word: &str, slots: &[Slot]| {
            let names: Vec<_> = slots.iter().map(|slot| format!("{}.{}", slot.service, slot.index)).collect();
            (!names.is_empty()).then(|| format!("{word} {}", names.join(", ")))
        };
        let parts = [
            names("start", &change.added),
            names("replace", &change.replaced),
            names("stop", &change.removed),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        lines.push(format!("    {node}: {}", parts.join("; ")));
    }
    if app.nodes.len() > NODES_SHOWN_MAX {
        let more = app.nodes.len() - NODES_SHOWN_MAX;
        lines.push(format!("    … and {more} more nodes; all of them with --output json"));
    }
    for it in &app.deviations {
        lines.push(terminal.paint(Tone::Busy, &format!("    {}", deviation(it))));
    }
    lines.extend(app.barriers.iter().map(|it| terminal.paint(Tone::Busy, &format!("    {}", barrier(it)))));
    for why in &app.blocked {
        lines.push(terminal.paint(Tone::Bad, &format!("    cannot be restored: {}", one_line(why))));
    }
    lines
}

fn barrier(barrier: &Barrier) -> String {
    format!("past deploy:{}, which {}: that stays done", barrier.deployment, one_line(&barrier.what))
}

/// What will not be as it was, and why.
pub(super) fn deviation(deviation: &Deviation) -> String {
    format!("{}: {}", one_line(&deviation.what), one_line(&deviation.why))
}

/// Bare, it says what could be gone back to.
fn candidates(session: &Session, client: &Client, rollback: &Rollback) -> Result<(), Failure> {
    let check = rollback.check;
    let parameters = [
        ("scope", Some(rollback.scope.to_string())),
        ("check", check.then(|| "true".to_owned())),
        ("limit", rollback.limit.map(|limit| limit.to_string())),
        ("consistency", rollback.stale.then(|| "stale".to_owned())),
    ];
    let answer: CandidatesAnswer = client.get(&with_query("/v1/rollbacks/candidates", &parameters))?;
    let terminal = session.terminal;
    terminal.answer(&answer, |answer| {
        if answer.candidates.is_empty() {
            let scope = &answer.scope;
            return format!(
                "{scope} has no earlier state to go back to\nnext: stele status {scope} --problems"
            );
        }
        let mut parts: Vec<_> =
            answer.candidates.iter().map(|candidate| candidate_lines(terminal, candidate, check)).collect();
        if answer.more {
            parts.push(left_out(answer));
        }
        let is_good = |it: &&Candidate| it.verdict == Verdict::Good && it.blocked.is_empty();
        if let Some(best) = answer.candidates.iter().find(is_good) {
            parts.push(format!("next: stele rollback {} --to {} --wait", answer.scope, best.to));
        }
        parts.join("\n\n")
    })
}

/// What is said when there are earlier points than those listed.
fn left_out(answer: &CandidatesAnswer) -> String {
    if answer.candidates.len() < ROLLBACK_CANDIDATES_MAX {
        return format!("earlier points are not listed: --limit N lists up to {ROLLBACK_CANDIDATES_MAX}");
    }
    format!(
        "earlier points are not listed: {ROLLBACK_CANDIDATES_MAX} are at most; each can be named by its seq, see stele \
         history {}",
        answer.scope
    )
}

fn candidate_lines(terminal: Terminal, candidate: &Candidate, check: bool) -> String {
    let word = match candidate.verdict {
        Verdict::Good => terminal.paint(Tone::Good, "was healthy"),
        Verdict::Same => terminal.paint(Tone::Good, "the same as now"),
        Verdict::Unhealthy => terminal.paint(Tone::Bad, "never was healthy"),
        Verdict::Rejected => terminal.paint(Tone::Bad, "was rejected by a rollback"),
        Verdict::MarkedBad => terminal.paint(Tone::Bad, "is marked bad"),
    };
    let by = candidate.principal.as_ref().map(|by| format!(", by {by}")).unwrap_or_default();
    let what = candidate.release.map(|number| format!("  {}", version(Some(number)))).unwrap_or_default();
    let mut lines = vec![format!("{}{what}  until {}{by}  {word}", candidate.to, time(candidate.time))];
    if !check {
        lines.push(terminal.differences(&candidate.differences));
        return lines.join("\n");
    }
    if candidate.blocked.is_empty() && candidate.deviations.is_empty() {
        lines.push(terminal.paint(Tone::Good, "  could be restored exactly right now"));
    } else if candidate.blocked.is_empty() {
        lines.push(terminal.paint(Tone::Busy, "  could be restored right now, except that:"));
    }
    for why in &candidate.blocked {
        lines.push(terminal.paint(Tone::Bad, &format!("  blocked: {}", one_line(why))));
    }
    for it in &candidate.deviations {
        lines.push(terminal.paint(Tone::Busy, &format!("  {}", deviation(it))));
    }
    let barriers = candidate.barriers.iter();
    lines.extend(barriers.map(|it| terminal.paint(Tone::Busy, &format!("  {}", barrier(it)))));
    lines.join("\n")
}

/// Let rejected releases of an app be deployed again
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele unlatch shop/web@prod --reason \"the migration is fixed\"\n\nEvery latch of the app is lifted at once, and which that were is told. Only a person's token lifts one."
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
        session.changed(&client, &format!("{} unlatch", self.app_env), &answer, None)?;
        match answer.seq.filter(|_| session.terminal.output == Output::Table) {
            Some(seq) => session.terminal.line(&self.lifted(&client, seq)),
            None => Ok(()),
        }
    }

    /// Which releases were latched right before: all of them may be deployed again. It is done, whether
    /// that can be read or not.
    fn lifted(&self, client: &Client, seq: Seq) -> String {
        let scope = Scope::app_env(&self.app_env).to_string();
        let at = format!("seq:{}", seq.saturating_sub(1));
        let status = client
            .get::<StatusAnswer>(&with_query("/v1/status", &[("scope", Some(scope)), ("at", Some(at))]));
        let app = status.ok().and_then(|status| status.apps.into_iter().next());
        match app.map(|app| app.latched).as_deref() {
            None | Some([]) => "every release of it may be deployed again".to_owned(),
            Some(latched) => {
                let names: Vec<_> = latched.iter().map(|number| version(Some(*number))).collect();
                format!("may be deployed again: {}", names.join(", "))
            }
        }
    }
}
