//! Writing specs and applying them.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use stele_api::limits::SPEC_BYTES_MAX;
use stele_api::spec::{SpecErrors, SpecFile, json_schema, parse_yaml, starter};
use stele_api::wire::{ApplyRequest, ChangeAnswer};
use stele_model::{AppEnv, AppId, EnvironmentName, ServiceName};
use ureq::http::Method;

use crate::exit::Failure;
use crate::options::{ChangeOptions, WaitOptions};
use crate::session::Session;

/// Write a commented starter spec
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele init shop/web\n  stele init shop/web --file deploy/web.yaml\n  stele init shop/web --image docker.io/nginxinc/nginx-unprivileged:stable-alpine\n  stele init shop/web --file -     # print it"
)]
pub(crate) struct Init {
    /// The app with its project
    #[arg(value_name = "PROJECT/APP", default_value = "shop/web")]
    app: AppId,
    /// Where to write it, never over an existing file; `-` prints it
    #[arg(short, long, default_value = "stele.yaml")]
    file: PathBuf,
    /// The image to name in it, instead of an example
    #[arg(long, value_name = "REF")]
    image: Option<String>,
}

impl Init {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        let text = starter(&self.app, self.image.as_deref());
        let path = self.file;
        if path == Path::new("-") {
            return session.terminal.line(text.trim_end());
        }
        let fail = |error: std::io::Error| {
            let shown = path.display();
            Failure::Usage(match error.kind() {
                std::io::ErrorKind::AlreadyExists => {
                    format!("{shown} is there already\n  next: --file OTHER.yaml, or --file - to print it")
                }
                _ => format!("cannot write {shown}: {error}"),
            })
        };
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path).map_err(fail)?;
        std::io::Write::write_all(&mut file, text.as_bytes()).map_err(fail)?;
        let file = path.display();
        session.terminal.line(&format!("wrote {file}; edit it, then: stele apply -f {file} --plan"))
    }
}

/// Print the JSON Schema of specs, for editors
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele schema > stele.schema.json\n  # first line of a spec, for editors with a YAML language server:\n  # yaml-language-server: $schema=stele.schema.json"
)]
pub(crate) struct Schema {}

impl Schema {
    pub(crate) fn run(session: &Session) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(&json_schema())
            .map_err(|error| Failure::Failed(format!("cannot print the schema: {error}")))?;
        session.terminal.line(&text)
    }
}

/// Make an app what a spec says
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele apply -f web.yaml --plan          # what would change\n  stele apply -f web.yaml --wait          # do it, and wait until it is healthy\n  stele apply -f web.yaml --env staging   # when the spec names several environments\n  stele apply -f web.yaml --image web=registry.example.com/shop/web:1.3 --commit \"$(git rev-parse HEAD)\""
)]
pub(crate) struct Apply {
    /// The spec; `-` reads standard input
    #[arg(short, long)]
    file: PathBuf,
    /// Which of its environments
    #[arg(short, long, value_name = "NAME")]
    env: Option<EnvironmentName>,
    /// Use this image instead of the spec's
    #[arg(long = "image", value_name = "SERVICE=REF", value_parser = super::key_value)]
    images: Vec<(String, String)>,
    /// Only show what would change
    #[arg(long, conflicts_with = "wait")]
    plan: bool,
    /// Deploy even when nothing differs
    #[arg(long)]
    again: bool,
    /// What a rollback past this deployment would not bring back, such as "migrates orders"
    #[arg(long, value_name = "WHAT")]
    barrier: Option<String>,
    #[command(flatten)]
    wait: WaitOptions,
    #[command(flatten)]
    change: ChangeOptions,
}

impl Apply {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        let (file, environment) = loaded(&self.file, self.env.as_ref())?;
        let images = parse_images(&self.images)?;
        let client = session.client()?;
        let app_env = AppEnv::new(file.spec.app.clone(), environment.clone());
        let request = ApplyRequest {
            spec: file.spec.clone(),
            environment: Some(environment),
            plan: self.plan,
            images,
            again: self.again,
            barrier: self.barrier.clone(),
            reason: self.change.reason.clone(),
            links: self.change.links(),
        };
        let answer: Result<ChangeAnswer, Failure> =
            client.write(Method::POST, "/v1/apply", Some(&request), &self.change.conditions());
        match answer {
            Ok(answer) => session.changed(&client, &app_env.to_string(), &answer, Some(self.wait)),
            Err(failure) => Err(located(&file, "spec.", failure)),
        }
    }
}

/// A spec with the files it names, and the environment it is for.
pub(super) fn loaded(
    path: &Path,
    environment: Option<&EnvironmentName>,
) -> Result<(SpecFile, EnvironmentName), Failure> {
    let name = path.display().to_string();
    let text = read_spec(path)?;
    let mut file = parse_yaml(&text, &name)?;
    let folder = path.parent().filter(|_| path != Path::new("-")).unwrap_or(Path::new("."));
    file.load_sources(|path| std::fs::read(folder.join(path)))?;
    let environment = file.spec.environment(environment).map_err(|errors| file.locate(errors))?;
    file.draft(&environment)?;
    Ok((file, environment))
}

/// What the server found wrong in a spec is shown where it stands in the file.
pub(super) fn located(file: &SpecFile, prefix: &str, failure: Failure) -> Failure {
    match failure {
        Failure::Problem(problem) if problem.errors.iter().any(|error| is_of_spec(&error.path)) => {
            let errors = problem.errors.into_iter().map(|mut error| {
                error.path = error.path.strip_prefix(prefix).map(str::to_owned).unwrap_or(error.path);
                error
            });
            Failure::Spec(file.locate(SpecErrors { file: None, errors: errors.collect() }))
        }
        failure => failure,
    }
}

fn is_of_spec(path: &str) -> bool {
    ["spec.", "services.", "environments"].iter().any(|start| path.starts_with(start))
}

fn read_spec(path: &Path) -> Result<String, Failure> {
    let fail = |error: std::io::Error| Failure::Usage(format!("cannot read {}: {error}", path.display()));
    let mut bytes = Vec::new();
    let limit = SPEC_BYTES_MAX as u64 + 1;
    if path == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes).map_err(fail)?;
    } else {
        std::fs::File::open(path).map_err(fail)?.take(limit).read_to_end(&mut bytes).map_err(fail)?;
    }
    if bytes.len() > SPEC_BYTES_MAX {
        return Err(Failure::Usage(format!(
            "{} has more than SPEC_BYTES_MAX, {SPEC_BYTES_MAX} bytes",
            path.display()
        )));
    }
    String::from_utf8(bytes)
        .map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))
}

/// `SERVICE=REF` options.
pub(super) fn parse_images(images: &[(String, String)]) -> Result<BTreeMap<ServiceName, String>, Failure> {
    images
        .iter()
        .map(|(name, image)| match name.parse() {
            Ok(name) => Ok((name, image.clone())),
            Err(error) => Err(Failure::Usage(format!("--image: {error}"))),
        })
        .collect()
}
