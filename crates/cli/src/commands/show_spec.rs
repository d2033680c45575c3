//! The way out: what is in force as a spec, for whoever has no file of it, or takes the app elsewhere.

use std::fmt::Write as _;

use stele_api::spec::{WrittenBack, write_back};
use stele_api::wire::{ShowAnswer, ShownApp};
use stele_api::{Problem, ProblemKind};
use stele_model::{AppEnv, Point, Scope, Value};

use crate::client::with_query;
use crate::exit::Failure;
use crate::options::ReadOptions;
use crate::session::Session;
use crate::terminal::{Output, one_line, places, time};

/// What is asked for as a spec.
pub(super) struct ShowSpec<'a> {
    pub(super) scope: &'a Scope,
    pub(super) at: Option<&'a str>,
    pub(super) read: ReadOptions,
}

impl ShowSpec<'_> {
    pub(super) fn run(&self, session: &Session) -> Result<(), Failure> {
        let Some(app_env) = self.scope.as_app_env().filter(|_| !self.scope.is_placed()) else {
            return Err(Failure::Usage(format!(
                "a spec is of one app in one environment, and {} is not: write it like shop/web@prod",
                self.scope
            )));
        };
        let answer = self.show(session, self.at)?;
        let Some(app) = answer.apps.first() else { return Err(self.absent(&app_env)) };
        // What the app was then may not be what an apply now finds there.
        let now = if self.at.is_some() { Some(self.show(session, None)?) } else { None };
        let now = now.as_ref().and_then(|now| now.apps.first());
        let written = write_back(&app_env, &app.contacts, &app.content);
        let remarks = self.remarks(app, now, &written);
        if session.terminal.output == Output::Json {
            let json = written.spec.to_json();
            let json = json.map_err(|error| Failure::Failed(format!("cannot print the spec: {error}")))?;
            session.terminal.line(json.trim_end())?;
        } else {
            let yaml = written.spec.to_yaml().map_err(|errors| {
                Failure::Failed(format!("cannot write it as YAML: {errors}\n  next: --output json"))
            })?;
            session.terminal.line(&format!("{}{}", header(&answer, app, &remarks), yaml.trim_end()))?;
        }
        for remark in &remarks {
            eprintln!("not in the spec: {remark}");
        }
        if written.deviations.is_empty() {
            return Ok(());
        }
        Err(Failure::Failed("the spec, as it stands, is not what is in force: see above".to_owned()))
    }

    fn show(&self, session: &Session, at: Option<&str>) -> Result<ShowAnswer, Failure> {
        let scope = Some(self.scope.to_string());
        let query = [("scope", scope), ("at", at.map(str::to_owned)), self.read.consistency()];
        session.client()?.get(&with_query("/v1/show", &query))
    }

    fn absent(&self, app_env: &AppEnv) -> Failure {
        let detail = match self.at {
            Some(at) => format!("{app_env} was not deployed at {at}, so it had no spec"),
            None => format!("{app_env} is not deployed, so it has no spec"),
        };
        Problem::new(ProblemKind::NotFound, detail).with_next(format!("stele history {app_env}")).into()
    }

    /// Everything that is in force and not in the spec, each on a line. Where the spec is of another time, `now` is
    /// what is in force now, if anything.
    fn remarks(&self, app: &ShownApp, now: Option<&ShownApp>, written: &WrittenBack) -> Vec<String> {
        let app_env = &app.app_env;
        let mut remarks = Vec::new();
        for error in &written.deviations {
            let place = if error.path.is_empty() { "" } else { ": " };
            remarks.push(format!("{}{place}{}", error.path, error.message));
        }
        for place in &written.kept {
            let path = place.path();
            let value = place.sealed_in(&app.content);
            let value_now = now.and_then(|now| place.sealed_in(&now.content));
            remarks.push(match value_now {
                None if self.at.is_some() => format!(
                    "{path} was sealed, and nothing sealed is in force there now: write a value beside `sealed: true`"
                ),
                Some(_) if value_now != value => {
                    format!("{path} was another sealed value: the one in force now is kept")
                }
                _ => format!(
                    "{path} is sealed: the value in force in {app_env} is kept; elsewhere, write one beside \
                     `sealed: true`"
                ),
            });
        }
        for name in &written.secrets {
            let version = app.secrets.get(name).copied().unwrap_or_default();
            remarks.push(format!(
                "the value of the secret {name} (version {version}): an apply keeps the version in force; elsewhere, \
                 first: stele secret set {app_env} {name}"
            ));
        }
        remarks.extend(config_remarks(app));
        if !app.pins.is_empty() {
            remarks.push(format!(
                "places that differ from the rest of the app ({}): an apply, even of this unchanged, ends that",
                places(&app.pins)
            ));
        }
        if let Some(at) = self.at {
            remarks.push(format!(
                "config, versions of secrets and sealed values as they were, which only a rollback brings back: stele \
                 rollback {app_env} --to {} --plan",
                Point::quoted(at)
            ));
        }
        remarks.into_iter().map(|remark| one_line(&remark)).collect()
    }
}

/// Variables that were set apart from the release, with the commands that set them elsewhere.
fn config_remarks(app: &ShownApp) -> Vec<String> {
    let app_env = &app.app_env;
    let mut remarks = Vec::new();
    let mut words = String::new();
    for (key, value) in &app.config {
        let word = match value {
            Value::Plain(text) => as_word(&format!("{key}={text}")),
            Value::Sealed(_) => None,
        };
        if let Some(word) = word {
            // Writing to a string does not fail.
            let _ = write!(words, " {word}");
            continue;
        }
        let sealed = if value.sealed().is_some() { " --sealed" } else { "" };
        remarks.push(format!(
            "the config {key}, which an apply leaves as it is; elsewhere, from a file: stele config set \
             {app_env}{sealed} --from-file {key}=FILE"
        ));
    }
    if !words.is_empty() {
        remarks.push(format!(
            "config, which an apply leaves as it is; elsewhere: stele config set {app_env}{words}"
        ));
    }
    remarks
}

/// A text as one word of a shell's command, when it fits on a line as it is.
fn as_word(text: &str) -> Option<String> {
    if one_line(text) != text {
        return None;
    }
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "=:./_-+@%,".contains(letter);
    if text.chars().all(is_plain) {
        return Some(text.to_owned());
    }
    Some(format!("'{}'", text.replace('\'', r"'\''")))
}

/// What stands above the spec, for whoever finds the file later.
fn header(answer: &ShowAnswer, app: &ShownApp, remarks: &[String]) -> String {
    let mut lines = vec![format!(
        "{} v{} ({}) as of seq {}, {}",
        app.app_env,
        app.release,
        app.release_digest,
        answer.seq,
        time(answer.time)
    )];
    for (name, service) in &app.content.services {
        let image = service.container.image.to_string();
        if let Some(asked) = app.images.get(name).filter(|asked| **asked != image) {
            lines.push(format!("{name}: its image was asked for as {}", one_line(asked)));
        }
    }
    if !remarks.is_empty() {
        lines.push("Not in this spec:".to_owned());
        lines.extend(remarks.iter().map(|remark| format!("- {remark}")));
    }
    lines.iter().fold(String::new(), |text, line| text + "# " + line + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use stele_api::wire::PinnedPlace;
    use stele_model::event::Contacts;
    use stele_model::release::{Container, Image, Order, Placement, Service, Update};
    use stele_model::{Digest, FlatMap, Release, Seq, Time};

    fn shown() -> ShownApp {
        let image = Image { repository: "registry.example.com/shop/web".to_owned(), digest: Digest([7; 32]) };
        let mut container = Container::new(image);
        container.workdir = Some("relative".to_owned());
        let service = Service {
            container,
            placement: Placement::Replicas { count: 2, nodes: "".parse().unwrap() },
            update: Update { max_unavailable: 1, order: Order::StartFirst, deadline_ms: 120_000 },
        };
        let app_env: AppEnv = "shop/web@prod".parse().unwrap();
        let web: stele_model::ServiceName = "web".parse().unwrap();
        ShownApp {
            contacts: Contacts { owner: None, on_call: None, runbook: None },
            release: 3,
            release_digest: Digest([1; 32]),
            content: Release { app: app_env.app.clone(), services: FlatMap::from([(web.clone(), service)]) },
            images: FlatMap::from([(web, "registry.example.com/shop/web:1.2\nservices: {}".to_owned())]),
            config: FlatMap::from([("PEM".to_owned(), Value::from("two\nlines"))]),
            secrets: FlatMap::new(),
            pins: vec![PinnedPlace {
                place: "region:eu".parse().unwrap(),
                release: Some(1),
                release_digest: None,
            }],
            placement: std::collections::BTreeMap::new(),
            app_env,
        }
    }

    #[test]
    fn all_that_a_spec_cannot_hold_is_said_in_comments() {
        let app = shown();
        let written = write_back(&app.app_env, &app.contacts, &app.content);
        let scope = Scope::app_env(&app.app_env);
        let asked = ShowSpec { scope: &scope, at: Some("2h ago"), read: ReadOptions::default() };
        let remarks = asked.remarks(&app, None, &written);
        let digest = stele_model::event::TargetDigest { intent: Digest::EMPTY, placement: Digest::EMPTY };
        let answer = ShowAnswer {
            seq: Seq::default(),
            time: Time(0),
            digest,
            state_digest: None,
            apps: Vec::new(),
            waiting_config: FlatMap::new(),
            scope: scope.clone(),
        };
        let text = header(&answer, &app, &remarks);
        assert!(text.lines().all(|line| line.starts_with("# ")), "nobody's text ends a comment: {text}");
        for said in [
            "# web: its image was asked for as registry.example.com/shop/web:1.2⏎services: {}",
            "# - services.web.workdir: ",
            "stele config set shop/web@prod --from-file PEM=FILE",
            "(v1 in region:eu): an apply, even of this unchanged, ends that",
            "stele rollback shop/web@prod --to \"2h ago\" --plan",
        ] {
            assert!(text.contains(said), "{said}: {text}");
        }
    }

    #[test]
    fn a_value_is_one_word_of_a_command_or_none() {
        assert_eq!(as_word("THEME=dark").as_deref(), Some("THEME=dark"));
        assert_eq!(as_word("MOTTO=it's $HOME; #1").as_deref(), Some(r"'MOTTO=it'\''s $HOME; #1'"));
        assert_eq!(as_word("KEY=two\nlines"), None);
        assert_eq!(as_word("KEY=\u{1b}[2J"), None);
    }
}
