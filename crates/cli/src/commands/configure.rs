//! Config bundles and secrets.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{IsTerminal as _, Read};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use stele_api::wire::{ChangeAnswer, ConfigRequest, ConfigValue, SecretRequest, ShowAnswer};
use stele_model::{AppEnv, Scope, SecretName};
use ureq::http::Method;

use crate::client::with_query;
use crate::exit::Failure;
use crate::limits::SECRET_BYTES_MAX;
use crate::options::{ChangeOptions, ReadOptions, WaitOptions, point};
use crate::session::Session;
use crate::terminal::{Terminal, cell, table};

/// Set and show an app's config: variables that change without a new release
#[derive(Subcommand, Debug)]
pub(crate) enum Config {
    Set(Box<SetConfig>),
    Show(ShowConfig),
}

impl Config {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Set(it) => it.run(session),
            Self::Show(it) => it.run(session),
        }
    }
}

/// Set or remove variables, and deploy
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele config set shop/web@prod GREETING=hello THEME=dark --wait\n  stele config set shop/web@prod --unset THEME\n  stele config set shop/web@prod --sealed --from-file API_KEY=- < api-key.txt\n  pass show api | stele config set shop/web@prod --sealed --from-file API_KEY=- --wait\n\nOne line break at the end of a file is dropped. What is given in the arguments stands in the shell's\nhistory and in the list of processes: values to be sealed are better read with --from-file."
)]
pub(crate) struct SetConfig {
    /// The app in its environment
    #[arg(value_name = "PROJECT/APP@ENV")]
    app_env: AppEnv,
    /// Variables; values to be sealed are better read with --from-file
    #[arg(value_name = "KEY=VALUE", value_parser = variable, required_unless_present_any = ["unset", "from_file"])]
    variables: Vec<(String, String)>,
    /// Read a variable's value from a file; - is standard input
    #[arg(long, value_name = "KEY=PATH", value_parser = from_file)]
    from_file: Vec<(String, PathBuf)>,
    /// Remove this variable
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,
    /// Seal the values before they are logged
    #[arg(long)]
    sealed: bool,
    /// Only show what would change
    #[arg(long, conflicts_with = "wait")]
    plan: bool,
    #[command(flatten)]
    wait: WaitOptions,
    #[command(flatten)]
    change: ChangeOptions,
}

impl SetConfig {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let mut variables: BTreeMap<String, Option<ConfigValue>> =
            self.unset.iter().map(|key| (key.clone(), None)).collect();
        for (key, value) in &self.variables {
            variables.insert(key.clone(), Some(ConfigValue { value: value.clone(), sealed: self.sealed }));
        }
        for (key, value) in read_all(&self.from_file)? {
            match variables.entry(key) {
                Entry::Vacant(entry) => drop(entry.insert(Some(ConfigValue { value, sealed: self.sealed }))),
                Entry::Occupied(entry) => {
                    return Err(Failure::Usage(format!("{} is given twice", entry.key())));
                }
            }
        }
        if self.sealed && !self.variables.is_empty() && Terminal::is_watched() {
            eprintln!(
                "a value given in the arguments stands in the shell's history and in the list of processes\n  next time: \
                 stele config set {} --sealed --from-file {}=-",
                self.app_env, self.variables[0].0
            );
        }
        let client = session.client()?;
        let request = ConfigRequest {
            app_env: self.app_env.clone(),
            variables,
            plan: self.plan,
            reason: self.change.reason.clone(),
            links: self.change.links(),
        };
        let answer: ChangeAnswer =
            client.write(Method::POST, "/v1/config", Some(&request), &self.change.conditions())?;
        session.changed(&client, &format!("{} config", self.app_env), &answer, Some(self.wait))?;
        tell_unused(
            &answer,
            &format!("{} is not deployed, and its next deployment will have it", self.app_env),
        );
        Ok(())
    }
}

fn variable(text: &str) -> Result<(String, String), String> {
    super::key_value(text).map_err(|why| {
        format!("{why}, or --from-file KEY=PATH, where - is standard input, to read the value")
    })
}

fn from_file(text: &str) -> Result<(String, PathBuf), String> {
    match super::key_value(text) {
        Ok((key, path)) if !path.is_empty() => Ok((key, path.into())),
        _ => Err(format!("{text:?}: write KEY=PATH, where - is standard input")),
    }
}

fn read_all(files: &[(String, PathBuf)]) -> Result<BTreeMap<String, String>, Failure> {
    if files.iter().filter(|(_, path)| path == Path::new("-")).count() > 1 {
        return Err(Failure::Usage("standard input holds one value: give the others in files".to_owned()));
    }
    let mut values = BTreeMap::new();
    for (key, path) in files {
        if values.insert(key.clone(), read_value(path)?).is_some() {
            return Err(Failure::Usage(format!("{key} is given twice")));
        }
    }
    Ok(values)
}

/// A value from a file, or standard input; one line break at its end is dropped.
fn read_value(path: &Path) -> Result<String, Failure> {
    let mut value = String::new();
    if path == Path::new("-") {
        let stdin = std::io::stdin();
        if stdin.is_terminal() {
            eprintln!("type the value, then press Ctrl-D; it is shown as you type");
        }
        take_value(stdin.lock(), &mut value)
    } else {
        std::fs::File::open(path).and_then(|file| take_value(file, &mut value))
    }
    .map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => Failure::Usage(format!("the value is not text: {error}")),
        _ => Failure::Usage(format!("cannot read {}: {error}", path.display())),
    })?;
    if value.len() as u64 > SECRET_BYTES_MAX {
        return Err(Failure::Usage(format!(
            "the value is longer than SECRET_BYTES_MAX, {SECRET_BYTES_MAX} bytes"
        )));
    }
    let shorter = value.strip_suffix('\n').map(|it| it.strip_suffix('\r').unwrap_or(it).to_owned());
    Ok(shorter.unwrap_or(value))
}

fn take_value(from: impl Read, value: &mut String) -> std::io::Result<usize> {
    from.take(SECRET_BYTES_MAX + 1).read_to_string(value)
}

/// Who waited for a deployment, or misspelt a name, is told that there is none.
fn tell_unused(answer: &ChangeAnswer, why: &str) {
    if !answer.planned && answer.seq.is_some() && answer.deployments.is_empty() {
        eprintln!("nothing uses it yet: {why}");
    }
}

/// Show the variables in force, or those set for the next deployment where the app is not deployed
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele config show shop/web@prod\n  stele config show shop/web@prod --at \"1d ago\""
)]
pub(crate) struct ShowConfig {
    /// The app in its environment
    #[arg(value_name = "PROJECT/APP@ENV")]
    app_env: AppEnv,
    /// As of when
    #[arg(long, value_name = "POINT", value_parser = point)]
    at: Option<String>,
    #[command(flatten)]
    read: ReadOptions,
}

impl ShowConfig {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let scope = Scope::app_env(&self.app_env).to_string();
        let query = [("scope", Some(scope)), ("at", self.at.clone()), self.read.consistency()];
        let path = with_query("/v1/show", &query);
        let answer: ShowAnswer = session.client()?.get(&path)?;
        let config = if let Some(app) = answer.apps.into_iter().next() {
            app.config
        } else {
            eprintln!("not in force: {} is not deployed", self.app_env);
            answer.waiting_config
        };
        session.terminal.answer(&config, |config| {
            if config.is_empty() {
                return format!("{} has no config", self.app_env);
            }
            let rows = config
                .iter()
                .map(|(key, value)| vec![cell(key), cell(value.plain().unwrap_or("<sealed>"))])
                .collect();
            table(&["VARIABLE", "VALUE"], rows)
        })
    }
}

/// Set secrets: values that are never logged in clear
#[derive(Subcommand, Debug)]
pub(crate) enum Secret {
    Set(SetSecret),
}

impl Secret {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        let Self::Set(it) = self;
        it.run(session)
    }
}

/// Set a secret's next version from standard input, and deploy where it is used
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele secret set shop/web@prod db-password < password.txt\n  pass show db | stele secret set shop/web@prod db-password --wait\n\nOne line break at the end is dropped. The value is sealed before it is logged; refer to it in a spec\nwith {secret: NAME}."
)]
pub(crate) struct SetSecret {
    /// The app in its environment
    #[arg(value_name = "PROJECT/APP@ENV")]
    app_env: AppEnv,
    /// The secret's name
    name: SecretName,
    #[command(flatten)]
    wait: WaitOptions,
    #[command(flatten)]
    change: ChangeOptions,
}

impl SetSecret {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let value = read_value(Path::new("-"))?;
        if value.is_empty() {
            return Err(Failure::Usage("the value is empty: give it on standard input".to_owned()));
        }
        let client = session.client()?;
        let request = SecretRequest {
            app_env: self.app_env.clone(),
            name: self.name.clone(),
            value,
            reason: self.change.reason.clone(),
            links: self.change.links(),
        };
        let answer: ChangeAnswer =
            client.write(Method::POST, "/v1/secrets", Some(&request), &self.change.conditions())?;
        session.changed(
            &client,
            &format!("{} secret {}", self.app_env, self.name),
            &answer,
            Some(self.wait),
        )?;
        let why = format!("what is in force of {} refers to no secret {}", self.app_env, self.name);
        tell_unused(&answer, &why);
        Ok(())
    }
}
