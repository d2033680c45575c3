//! Log lines of instances.

mod following;
mod merging;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use stele_api::routes::{JSON_LINES, LINES_LEFT_OUT};
use stele_api::wire::{AppStatus, InstanceStatus, LogLine, Printed, StatusAnswer};
use stele_api::{Problem, ProblemKind};
use stele_model::{AppEnv, InstanceId, NodeName, Scope, ServiceName, Slot};

use crate::client::{Client, with_query};
use crate::exit::Failure;
use crate::limits::FOLLOWED_INSTANCES_MAX;
use crate::options::{ReadOptions, since};
use crate::session::Session;
use crate::terminal::{Terminal, Tone, exact_time, visible};

/// Characters of a time to the millisecond.
const EXACT_TIME_CHARS: usize = "2026-01-31T12:00:00.000Z".len();

/// Print log lines of an instance
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  stele logs shop/web@prod/web.0-142 --tail 50
  stele logs shop/web@prod --since 10m -t       # of every instance, in the order of their times
  stele logs shop/web@prod --since 2026-01-31T12:00:00Z --service worker
  stele logs shop/web@prod --service web -f     # of 16 instances at most, as they come
  stele logs shop/web@prod --output json        # JSON lines: instance, time, stream, line

Times are those of the container engines' clocks, in UTC. On a terminal, lines of standard error
are yellow, and characters that would act on it are written out; into a pipe or a file, lines go
as they are.")]
pub(crate) struct Logs {
    /// An instance (see: stele status PROJECT/APP@ENV), or an app for all of its instances
    #[arg(value_name = "INSTANCE|PROJECT/APP@ENV")]
    of: String,
    /// Only instances of this service
    #[arg(long)]
    service: Option<ServiceName>,
    /// Lines of the past, of each instance, 10000 at most [default: 100, with --since 10000]
    #[arg(short = 'n', long, allow_negative_numbers = true)]
    tail: Option<u32>,
    /// Only lines since then: how long ago, such as 10m or "2h ago", or a time, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<String>,
    /// Print before each line when it was printed
    #[arg(short, long)]
    timestamps: bool,
    /// Go on with new lines until interrupted, of 16 instances at most
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    read: ReadOptions,
}

/// A line, for programs.
#[derive(Serialize)]
struct LineOf<'a> {
    instance: &'a InstanceId,
    #[serde(flatten)]
    line: &'a LogLine,
}

/// Instances whose lines are not there, or not all of them.
#[derive(Default)]
struct Missing {
    /// Nodes that did not answer, or broke off.
    silent: BTreeSet<NodeName>,
    /// How many instances.
    count: usize,
    /// What the last one was that a node has no lines of.
    unknown: Option<Box<Problem>>,
}

impl Logs {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        let client = session.client()?;
        if let Ok(instance) = self.of.parse::<InstanceId>() {
            return self.print_one(session, &client, &instance);
        }
        let instances = self.instances(&client)?;
        match instances.as_slice() {
            [only] => self.print_one(session, &client, &only.id),
            _ if self.follow && instances.len() > FOLLOWED_INSTANCES_MAX => {
                Err(self.too_many_to_follow(&instances))
            }
            _ if self.follow => self.follow_all(session, client, instances),
            _ => self.print_merged(session, &client, &instances),
        }
    }

    fn print_one(&self, session: &Session, client: &Client, instance: &InstanceId) -> Result<(), Failure> {
        for line in lines(client, instance, &self.path(instance))? {
            self.print(session.terminal, instance, None, &line?)?;
        }
        Ok(())
    }

    fn print(
        &self,
        terminal: Terminal,
        instance: &InstanceId,
        name: Option<&str>,
        line: &LogLine,
    ) -> Result<(), Failure> {
        terminal.item(&LineOf { instance, line }, |_| {
            let name = name.map(|name| format!("{name} | ")).unwrap_or_default();
            let time = if self.timestamps {
                format!("{:<EXACT_TIME_CHARS$} ", line.time.map_or_else(|| "-".to_owned(), exact_time))
            } else {
                String::new()
            };
            let text = terminal.printed(&line.line);
            let is_stderr = line.stream == Some(Printed::Stderr);
            let text = if is_stderr { terminal.paint(Tone::Busy, &text).into() } else { text };
            format!("{name}{time}{text}")
        })
    }

    fn path(&self, instance: &InstanceId) -> String {
        with_query(
            "/v1/logs",
            &[
                ("instance", Some(instance.to_string())),
                ("tail", self.tail.map(|lines| lines.to_string())),
                ("since", self.since.clone()),
                ("follow", self.follow.then(|| "true".to_owned())),
                self.read.consistency(),
            ],
        )
    }

    fn too_many_to_follow(&self, instances: &[InstanceStatus]) -> Failure {
        let services: BTreeSet<_> = instances.iter().map(|instance| &instance.id.slot.service).collect();
        let mut next = Vec::new();
        if services.len() > 1 {
            next.extend(
                services
                    .first()
                    .map(|service| format!("stele logs {} --service {service} --follow", self.of)),
            );
        }
        next.extend(instances.first().map(|instance| format!("stele logs {} --follow", instance.id)));
        next.push(format!("stele logs {} --since 10m", self.of));
        Failure::Usage(format!(
            "at most {FOLLOWED_INSTANCES_MAX} instances can be followed at a time, and these are {}\n  next: {}",
            instances.len(),
            next.join(", or ")
        ))
    }

    fn instances(&self, client: &Client) -> Result<Vec<InstanceStatus>, Failure> {
        let app_env: AppEnv = self.of.parse().map_err(|_| {
            Failure::Usage(format!(
                "{:?} is neither an instance, such as shop/web@prod/web.0-142, nor an app, such as shop/web@prod",
                self.of
            ))
        })?;
        let scope = Scope::app_env(&app_env).to_string();
        let path = with_query("/v1/status", &[("scope", Some(scope)), self.read.consistency()]);
        let status: StatusAnswer = client.get(&path)?;
        let of_app = |app: &AppStatus| app.services.iter().map(|it| it.service.clone()).collect::<Vec<_>>();
        let mut services: BTreeSet<ServiceName> = status.apps.iter().flat_map(of_app).collect();
        let instances = status.apps.into_iter().flat_map(|app| app.instances).collect::<Vec<_>>();
        services.extend(instances.iter().map(|instance| instance.id.slot.service.clone()));
        if let Some(service) = self.service.as_ref().filter(|service| !services.contains(service)) {
            let known: Vec<_> = services.iter().map(ToString::to_string).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let detail = format!("{app_env} has no service {service}; it has: {known}");
            return Err(Problem::new(ProblemKind::NotFound, detail).into());
        }
        let is_meant = |id: &InstanceId| self.service.as_ref().is_none_or(|it| id.slot.service == *it);
        let instances: Vec<_> = instances.into_iter().filter(|instance| is_meant(&instance.id)).collect();
        if instances.is_empty() {
            let what = self.service.as_ref().map(|service| format!(" of {service}")).unwrap_or_default();
            return Err(Problem::new(ProblemKind::NotFound, format!("{app_env} has no instance{what}"))
                .with_next(format!("stele status {app_env}"))
                .into());
        }
        Ok(instances)
    }
}

/// Lines of a log as they come. That some are left out at its beginning is told at once.
fn lines(
    client: &Client,
    instance: &InstanceId,
    path: &str,
) -> Result<impl Iterator<Item = Result<LogLine, Failure>> + Send + use<>, Failure> {
    let stream = client.stream(path, JSON_LINES)?;
    let is_json = stream.is_as_asked;
    if stream.headers.contains_key(LINES_LEFT_OUT) {
        eprintln!("{instance}: older lines are left out, as they are more than one answer has room for");
    }
    Ok(stream.lines().map(move |line| {
        let line = line.map_err(|error| Failure::Unreachable(format!("the stream broke: {error}")))?;
        if !is_json {
            return Ok(LogLine { time: None, stream: None, line });
        }
        serde_json::from_str(&line)
            .map_err(|error| Failure::Unreachable(format!("a line of the answer cannot be read: {error}")))
    }))
}

/// What the lines of each instance are marked with: its slot, and where several are in one, which of them.
fn names(instances: &[InstanceStatus]) -> Vec<String> {
    let mut in_slot: BTreeMap<&Slot, usize> = BTreeMap::new();
    for instance in instances {
        *in_slot.entry(&instance.id.slot).or_default() += 1;
    }
    let name = |instance: &InstanceStatus| {
        let InstanceId { slot, serial } = &instance.id;
        if in_slot.get(slot).is_some_and(|count| *count > 1) {
            format!("{}.{}-{serial}", slot.service, slot.index)
        } else {
            format!("{}.{}", slot.service, slot.index)
        }
    };
    instances.iter().map(name).collect()
}

/// Whether it is about a node, and so about all of its instances.
fn is_of_node(failure: &Failure) -> bool {
    match failure {
        Failure::Problem(problem) => problem.status >= 500,
        failure => matches!(failure, Failure::Unreachable(_)),
    }
}

impl Missing {
    /// Tells why an instance's lines are missing; anything that is not about it alone ends the command.
    fn note(&mut self, instance: &InstanceStatus, failure: Failure) -> Result<(), Failure> {
        let why = failure.to_string();
        match failure {
            Failure::Problem(problem) if problem.known_kind() == Some(ProblemKind::NotFound) => {
                self.unknown = Some(problem);
            }
            failure if is_of_node(&failure) => drop(self.silent.insert(instance.node.clone())),
            failure => return Err(failure),
        }
        self.tell(instance, &why);
        Ok(())
    }

    fn tell(&mut self, instance: &InstanceStatus, why: &str) {
        self.count += 1;
        eprintln!("{} on {}: {}", instance.id, instance.node, visible(why));
    }

    fn verdict(self, of: &str, asked: usize) -> Result<(), Failure> {
        if self.count == 0 {
            return Ok(());
        }
        let what = format!("{} of {asked} instances of {of} gave no log lines, or not all", self.count);
        if self.silent.is_empty()
            && let Some(problem) = self.unknown
        {
            let problem = Problem { detail: what, errors: Vec::new(), ..*problem };
            return Err(problem.into());
        }
        let nodes: Vec<_> = self.silent.iter().map(ToString::to_string).collect();
        Err(Failure::Unreachable(format!(
            "{what}; without an answer: {}\n  next: stele status {of} --problems",
            nodes.join(", ")
        )))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    pub(super) fn instance(id: &str, node: &str) -> InstanceStatus {
        let told = serde_json::json!({
            "id": format!("shop/web@prod/{id}"), "node": node, "region": "eu", "release": 1, "current": true,
            "phase": "healthy", "reachable": true, "restarts": 0, "reason": null, "exit_code": null,
            "container": null,
        });
        serde_json::from_value(told).unwrap()
    }

    #[test]
    fn who_does_not_answer_is_named_at_the_end() {
        let (on_eu, on_us) = (instance("web.0-1", "eu-1"), instance("web.1-2", "us-1"));
        let mut missing = Missing::default();
        let gone = Problem::new(ProblemKind::NotFound, "node us-1: it has no such container");
        missing.note(&on_us, gone.clone().into()).unwrap();
        let Err(Failure::Problem(problem)) = missing.verdict("shop/web@prod", 3) else {
            panic!("only what is not there is missing");
        };
        assert_eq!(problem.known_kind(), Some(ProblemKind::NotFound));

        let mut missing = Missing::default();
        missing.note(&on_us, gone.into()).unwrap();
        let silent = Problem::new(ProblemKind::Unavailable, "node eu-1: no answer");
        missing.note(&on_eu, silent.into()).unwrap();
        let Err(Failure::Unreachable(message)) = missing.verdict("shop/web@prod", 3) else {
            panic!("somebody did not answer");
        };
        assert!(message.starts_with("2 of 3 instances of shop/web@prod"), "{message}");
        assert!(message.contains("without an answer: eu-1\n"), "{message}");

        let mut missing = Missing::default();
        let refused = Problem::new(ProblemKind::Unauthenticated, "the token is not believed");
        assert!(missing.note(&on_eu, refused.into()).is_err(), "the others would be refused, too");
        assert!(missing.note(&on_eu, Failure::Closed).is_err(), "nobody reads any more");
        assert!(missing.verdict("shop/web@prod", 3).is_ok());
    }

    #[test]
    fn instances_that_follow_each_other_in_a_slot_are_told_apart() {
        let all = [("web.0-1", "a"), ("web.0-9", "b"), ("web.1-2", "a")].map(|(id, node)| instance(id, node));
        assert_eq!(names(&all), ["web.0-1", "web.0-9", "web.1"]);
    }
}
