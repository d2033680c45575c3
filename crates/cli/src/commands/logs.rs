//! Log lines of instances.

use std::collections::BTreeSet;
use std::io::BufRead as _;

use serde::Serialize;
use stele_api::wire::{AppStatus, InstanceStatus, StatusAnswer};
use stele_api::{Problem, ProblemKind};
use stele_model::{AppEnv, InstanceId, NodeName, Scope, ServiceName};

use crate::client::{Client, with_query};
use crate::exit::Failure;
use crate::options::ReadOptions;
use crate::session::Session;
use crate::terminal::visible;

/// Print log lines of an instance
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele logs shop/web@prod/web.0-142 --tail 50\n  stele logs shop/web@prod --service worker     # of every instance of it\n  stele logs shop/web@prod/web.0-142 --follow\n  stele logs shop/web@prod --output json        # a line of JSON for each: instance, line"
)]
pub(crate) struct Logs {
    /// An instance (see: stele status PROJECT/APP@ENV), or an app for all of its instances
    #[arg(value_name = "INSTANCE|PROJECT/APP@ENV")]
    of: String,
    /// Only instances of this service
    #[arg(long)]
    service: Option<ServiceName>,
    /// Lines of the past, 10000 at most
    #[arg(short = 'n', long, default_value_t = stele_api::limits::LOG_TAIL_LINES_DEFAULT, allow_negative_numbers = true)]
    tail: u32,
    /// Go on with new lines until interrupted
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    read: ReadOptions,
}

/// A line, for programs.
#[derive(Serialize)]
struct LogLine<'a> {
    instance: &'a InstanceId,
    line: String,
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
            return self.print(session, &client, &instance, false);
        }
        let instances = self.instances(&client)?;
        match instances.as_slice() {
            [only] => self.print(session, &client, &only.id, false),
            [first, ..] if self.follow => Err(Failure::Usage(format!(
                "one instance can be followed at a time, and {} has {}\n  next: stele logs {} --follow",
                self.of,
                instances.len(),
                first.id
            ))),
            _ => self.print_all(session, &client, &instances),
        }
    }

    /// What there is of every instance: one that says nothing does not hide the others.
    fn print_all(
        &self,
        session: &Session,
        client: &Client,
        instances: &[InstanceStatus],
    ) -> Result<(), Failure> {
        let mut missing = Missing::default();
        // Nodes that were not heard of lately are asked last: waiting for them holds nothing up.
        let (near, far): (Vec<_>, Vec<_>) = instances.iter().partition(|instance| instance.reachable);
        for instance in near.into_iter().chain(far) {
            let why = if missing.silent.contains(&instance.node) {
                "its node did not answer before".to_owned()
            } else if let Err(failure) = self.print(session, client, &instance.id, true) {
                missing.note(&instance.node, failure)?
            } else {
                continue;
            };
            missing.count += 1;
            eprintln!("{} on {}: {}", instance.id, instance.node, visible(&why));
        }
        missing.verdict(&self.of, instances.len())
    }

    fn print(
        &self,
        session: &Session,
        client: &Client,
        instance: &InstanceId,
        is_one_of_many: bool,
    ) -> Result<(), Failure> {
        let path = with_query(
            "/v1/logs",
            &[
                ("instance", Some(instance.to_string())),
                ("tail", Some(self.tail.to_string())),
                ("follow", self.follow.then(|| "true".to_owned())),
                self.read.consistency(),
            ],
        );
        for line in client.stream(&path, "text/plain")?.lines() {
            let line = line.map_err(|error| Failure::Unreachable(format!("the stream broke: {error}")))?;
            session.terminal.item(&LogLine { instance, line }, |it| {
                let slot = &instance.slot;
                if is_one_of_many {
                    format!("{}.{} | {}", slot.service, slot.index, it.line)
                } else {
                    it.line.clone()
                }
            })?;
        }
        Ok(())
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

impl Missing {
    /// Why an instance's lines are missing; anything that is not about it alone ends the command.
    fn note(&mut self, node: &NodeName, failure: Failure) -> Result<String, Failure> {
        let why = failure.to_string();
        match failure {
            Failure::Problem(problem) if problem.known_kind() == Some(ProblemKind::NotFound) => {
                self.unknown = Some(problem);
            }
            Failure::Problem(problem) if problem.status >= 500 => drop(self.silent.insert(node.clone())),
            Failure::Unreachable(_) => drop(self.silent.insert(node.clone())),
            failure => return Err(failure),
        }
        Ok(why)
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

    #[test]
    fn who_does_not_answer_is_named_at_the_end() {
        let (eu, us): (NodeName, NodeName) = ("eu-1".parse().unwrap(), "us-1".parse().unwrap());
        let mut missing = Missing::default();
        let gone = Problem::new(ProblemKind::NotFound, "node us-1: it has no such container");
        missing.note(&us, gone.clone().into()).unwrap();
        missing.count = 1;
        let Err(Failure::Problem(problem)) = missing.verdict("shop/web@prod", 3) else {
            panic!("only what is not there is missing");
        };
        assert_eq!(problem.known_kind(), Some(ProblemKind::NotFound));

        let mut missing = Missing::default();
        missing.note(&us, gone.into()).unwrap();
        let silent = Problem::new(ProblemKind::Unavailable, "node eu-1: no answer");
        missing.note(&eu, silent.into()).unwrap();
        missing.count = 2;
        let Err(Failure::Unreachable(message)) = missing.verdict("shop/web@prod", 3) else {
            panic!("somebody did not answer");
        };
        assert!(message.starts_with("2 of 3 instances of shop/web@prod"), "{message}");
        assert!(message.contains("without an answer: eu-1\n"), "{message}");

        let mut missing = Missing::default();
        let refused = Problem::new(ProblemKind::Unauthenticated, "the token is not believed");
        assert!(missing.note(&eu, refused.into()).is_err(), "the others would be refused, too");
        assert!(missing.note(&eu, Failure::Closed).is_err(), "nobody reads any more");
        assert!(missing.verdict("shop/web@prod", 3).is_ok());
    }
}
