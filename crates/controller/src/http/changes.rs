//! Apply, deploy, remove, configure.

use std::collections::BTreeMap;

use futures::future::try_join_all;
use stele_api::spec::{AppSpec, Draft, SpecError, SpecErrors, ValuePlace};
use stele_api::wire::{
    ApplyRequest, ChangeAnswer, ConfigRequest, ConfigValue, DeployRequest, RemoveRequest, SecretRequest,
    UnlatchRequest,
};
use stele_model::event::Contacts;
use stele_model::release::Image;
use stele_model::trial::try_out;
use stele_model::{
    Answer, AppEnv, AppId, Command, Context, EnvironmentName, Release, ReleaseChoice, Scope, Sealed,
    ServiceName, State, Value, diff,
};

use super::asked::{Asked, Why};
use super::failure::Failure;
use super::scopes::check_known;
use super::{Answered, json};
use crate::handle::{Consistency, Handle};

/// A change of one app in one environment: done, or only planned.
pub(super) struct Change {
    pub(super) app_env: AppEnv,
    pub(super) command: Command,
    pub(super) plan: bool,
    pub(super) why: Why,
}

/// The API's form of an answer.
pub(super) fn changed(answer: &Answer) -> ChangeAnswer {
    ChangeAnswer {
        planned: false,
        seq: answer.decision.map(stele_model::Decision::last),
        release: answer.release,
        deployments: answer.deployments.clone(),
        differences: Vec::new(),
    }
}

async fn carry_out(handle: &Handle, asked: &Asked, change: Change) -> Answered {
    let scope = Scope::app_env(&change.app_env);
    if !change.plan {
        let answer = asked.submit(handle, change.command, Some(scope), change.why).await?;
        return json(&changed(&answer));
    }
    let state = handle.read(Consistency::Linearizable).await?;
    let request = asked.submission(handle, change.command, Some(scope.clone()), change.why).await?;
    let planned = try_out(&state, &request, &Context { now: handle.now(), ..Context::default() })?;
    json(&ChangeAnswer {
        planned: true,
        // None of it happened: neither the record nor the deployments exist.
        seq: None,
        deployments: Vec::new(),
        // One that is there already is not made by it.
        release: planned.answer().release.or_else(|| {
            let revision = planned.after.target.intent.get(&change.app_env)?;
            planned.after.release_number(&revision.release)
        }),
        differences: diff(&state, &planned.after, &scope),
    })
}

/// What was asked under the same key before needs no registry and no sealing to be answered again.
async fn repeated(handle: &Handle, asked: &Asked) -> Result<Option<axum::response::Response>, Failure> {
    asked.answered_before(handle).await?.map(|answer| json(&changed(&answer))).transpose()
}

pub(super) async fn apply(handle: &Handle, asked: &Asked) -> Answered {
    let request: ApplyRequest = asked.body()?;
    if let Some(response) = repeated(handle, asked).await? {
        return Ok(response);
    }
    let app_env = named_by(&request.spec, request.environment.as_ref())?;
    let (contacts, release) = of_spec(handle, &request.spec, &app_env, request.images, None).await?;
    let command = Command::Deploy {
        app_env: app_env.clone(),
        contacts: Some(contacts),
        release,
        again: request.again,
        barrier: request.barrier,
    };
    let why = Why { reason: request.reason, links: request.links };
    carry_out(handle, asked, Change { app_env, command, plan: request.plan, why }).await
}

fn in_spec(errors: SpecErrors) -> SpecErrors {
    let errors =
        errors.errors.into_iter().map(|error| SpecError { path: format!("spec.{}", error.path), ..error });
    SpecErrors { file: None, errors: errors.collect() }
}

/// The app a spec is of, in the environment that is meant.
pub(super) fn named_by(spec: &AppSpec, environment: Option<&EnvironmentName>) -> Result<AppEnv, Failure> {
    let environment = spec.environment(environment).map_err(in_spec)?;
    Ok(AppEnv::new(spec.app.clone(), environment))
}

/// Who answers for an app, and the release that its spec describes: images resolved, values sealed. What the spec
/// keeps is what is in force in `state`, or else now.
pub(super) async fn of_spec(
    handle: &Handle,
    spec: &AppSpec,
    app_env: &AppEnv,
    images: BTreeMap<ServiceName, String>,
    state: Option<&State>,
) -> Result<(Contacts, ReleaseChoice), Failure> {
    let mut draft = spec.draft(&app_env.environment).map_err(in_spec)?;
    for (service, image) in images {
        draft.set_image(Some(&service), image).map_err(Failure::invalid)?;
    }
    let contacts = draft.contacts.clone();
    let asked_images = draft.images();
    let resolved = resolve(handle, &asked_images, "spec.services").await?;
    let mut sealed = seal(handle, &draft).await?;
    if draft.keeps_values() {
        let kept = if let Some(state) = state {
            draft.kept(release_in_force(state, app_env))
        } else {
            let state = handle.read(Consistency::Linearizable).await?;
            draft.kept(release_in_force(&state, app_env))
        };
        sealed.extend(kept.map_err(in_spec)?);
    }
    let release = draft.into_release(&resolved, &sealed).map_err(in_spec)?;
    Ok((contacts, ReleaseChoice::Content { release, images: asked_images.into_iter().collect() }))
}

fn release_in_force<'a>(state: &'a State, app_env: &AppEnv) -> Option<&'a Release> {
    let revision = state.target.intent.get(app_env)?;
    state.history.releases.get(&revision.release).map(|record| &record.release)
}

/// Asks the registries, all at once. Everything that cannot be resolved is told.
async fn resolve(
    handle: &Handle,
    images: &BTreeMap<ServiceName, String>,
    under: &str,
) -> Result<BTreeMap<ServiceName, Image>, Failure> {
    let lookups = images
        .iter()
        .map(|(service, reference)| async move { (service, handle.resolve_image(reference).await) });
    let mut resolved = BTreeMap::new();
    let mut errors = Vec::new();
    for (service, result) in futures::future::join_all(lookups).await {
        match result {
            Ok(image) => {
                resolved.insert(service.clone(), image);
            }
            Err(error) => errors.push(SpecError {
                path: format!("{under}.{service}.image"),
                message: error.to_string(),
                position: None,
            }),
        }
    }
    if errors.is_empty() { Ok(resolved) } else { Err(SpecErrors { file: None, errors }.into()) }
}

async fn seal(handle: &Handle, draft: &Draft) -> Result<BTreeMap<ValuePlace, Sealed>, Failure> {
    let subject = &draft.app_env.to_string();
    let sealing = draft
        .to_seal()
        .into_iter()
        .map(|(place, text)| async move { Ok::<_, Failure>((place, handle.seal(subject, text).await?)) });
    Ok(try_join_all(sealing).await?.into_iter().collect())
}

pub(super) async fn deploy(handle: &Handle, asked: &Asked) -> Answered {
    let request: DeployRequest = asked.body()?;
    if let Some(response) = repeated(handle, asked).await? {
        return Ok(response);
    }
    let names_images = request.image.is_some() || !request.images.is_empty();
    let release = match request.release {
        Some(_) if names_images => {
            return Err(Failure::invalid("write either a release or images, not both"));
        }
        Some(number) => ReleaseChoice::Number(number),
        None => {
            // Built upon what is in force now, so that nobody's change is lost.
            let state = handle.read(Consistency::Linearizable).await?;
            if names_images {
                with_images(handle, &state, &request).await?
            } else if request.again {
                ReleaseChoice::Number(in_force(&state, &request.app_env)?)
            } else {
                ReleaseChoice::Number(newest(&state, &request.app_env.app)?)
            }
        }
    };
    let command = Command::Deploy {
        app_env: request.app_env.clone(),
        contacts: None,
        release,
        again: request.again,
        barrier: request.barrier,
    };
    let why = Why { reason: request.reason, links: request.links };
    carry_out(handle, asked, Change { app_env: request.app_env, command, plan: request.plan, why }).await
}

/// The release to deploy once more: not the app's newest, which may have been made for another environment, or left
/// behind by a rollback.
fn in_force(state: &State, app_env: &AppEnv) -> Result<u32, Failure> {
    check_known(&Scope::app_env(app_env), &[state])?;
    let revision = state.target.intent.get(app_env);
    revision.and_then(|revision| state.release_number(&revision.release)).ok_or_else(|| {
        let (app, environment) = (&app_env.app, &app_env.environment);
        let detail = format!(
            "no release of {app} is in force in {environment}, so none can be deployed again: name one by --release \
             (`release` in the request)"
        );
        Failure::not_found(detail).with_next(format!("stele history {app}"))
    })
}

fn newest(state: &State, app: &AppId) -> Result<u32, Failure> {
    match state.newest_release(app) {
        0 => {
            Err(Failure::not_found(format!("{app} has no release yet")).with_next("stele apply -f app.yaml"))
        }
        number => Ok(number),
    }
}

/// The release in force, or else the newest, with other images.
async fn with_images(
    handle: &Handle,
    state: &State,
    request: &DeployRequest,
) -> Result<ReleaseChoice, Failure> {
    let app = &request.app_env.app;
    let digest = match state.target.intent.get(&request.app_env) {
        Some(revision) => Some(revision.release),
        None => state.history.numbers.get(&(app.clone(), newest(state, app)?)).copied(),
    };
    let record = digest.and_then(|digest| state.history.releases.get(&digest)).ok_or_else(|| {
        Failure::not_found(format!("{app} has no release yet")).with_next("stele apply -f app.yaml")
    })?;
    let mut asked_images = request.images.clone();
    if let Some(image) = &request.image {
        asked_images.insert(only_service(&record.release)?, image.clone());
    }
    let mut release = record.release.clone();
    for name in asked_images.keys() {
        if !release.services.contains_key(name) {
            let known: Vec<_> = release.services.keys().map(ToString::to_string).collect();
            return Err(Failure::not_found(format!(
                "{app} has no service {name}; it has: {}",
                known.join(", ")
            )));
        }
    }
    for (name, image) in resolve(handle, &asked_images, "images").await? {
        if let Some(service) = release.services.get_mut(&name) {
            service.container.image = image;
        }
    }
    let mut images = record.images.clone();
    images.extend(asked_images);
    Ok(ReleaseChoice::Content { release, images })
}

fn only_service(release: &Release) -> Result<ServiceName, Failure> {
    let names: Vec<_> = release.services.keys().collect();
    match names.as_slice() {
        [only] => Ok((*only).clone()),
        several => {
            let known: Vec<_> = several.iter().map(ToString::to_string).collect();
            Err(Failure::invalid(format!("say which service the image is for: {}", known.join(", "))))
        }
    }
}

pub(super) async fn remove(handle: &Handle, asked: &Asked) -> Answered {
    let request: RemoveRequest = asked.body_or_default()?;
    let app = AppId { project: asked.path("project")?, app: asked.path("app")? };
    let app_env = AppEnv::new(app, asked.path("env")?);
    let command = Command::Remove { app_env: app_env.clone() };
    let why = Why { reason: request.reason, links: request.links };
    carry_out(handle, asked, Change { app_env, command, plan: request.plan, why }).await
}

pub(super) async fn unlatch(handle: &Handle, asked: &Asked) -> Answered {
    let request: UnlatchRequest = asked.body()?;
    let command = Command::Unlatch { app_env: request.app_env.clone() };
    let why = Why { reason: request.reason, links: request.links };
    carry_out(handle, asked, Change { app_env: request.app_env, command, plan: false, why }).await
}

pub(super) async fn set_config(handle: &Handle, asked: &Asked) -> Answered {
    let request: ConfigRequest = asked.body()?;
    if let Some(response) = repeated(handle, asked).await? {
        return Ok(response);
    }
    let mut variables = BTreeMap::new();
    for (key, value) in request.variables {
        let value = match value {
            None => None,
            Some(ConfigValue { value, sealed: false }) => Some(Value::Plain(value)),
            Some(ConfigValue { value, sealed: true }) => {
                Some(Value::Sealed(handle.seal(&request.app_env.to_string(), &value).await?))
            }
        };
        variables.insert(key, value);
    }
    let command = Command::SetConfig { app_env: request.app_env.clone(), variables };
    let why = Why { reason: request.reason, links: request.links };
    carry_out(handle, asked, Change { app_env: request.app_env, command, plan: request.plan, why }).await
}

pub(super) async fn set_secret(handle: &Handle, asked: &Asked) -> Answered {
    let request: SecretRequest = asked.body()?;
    if let Some(response) = repeated(handle, asked).await? {
        return Ok(response);
    }
    if request.value.is_empty() {
        return Err(Failure::invalid("a secret's value cannot be empty"));
    }
    if request.value.len() > stele_model::limits::ENV_VALUE_BYTES_MAX {
        let limit = stele_model::limits::ENV_VALUE_BYTES_MAX;
        return Err(Failure::invalid(format!("the value is longer than ENV_VALUE_BYTES_MAX, {limit} bytes")));
    }
    let value = handle.seal(&request.app_env.to_string(), &request.value).await?;
    let command = Command::SetSecret { app_env: request.app_env.clone(), name: request.name, value };
    let why = Why { reason: request.reason, links: request.links };
    carry_out(handle, asked, Change { app_env: request.app_env, command, plan: false, why }).await
}
