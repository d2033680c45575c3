//! Deploying, configuring and removing apps.

use std::collections::BTreeMap;

use super::rollout::placement_changes;
use super::{erase, next_seq, validate};
use crate::command::ReleaseChoice;
use crate::digest::Digest;
use crate::event::{Contacts, DeploymentKind, Event, Outcome};
use crate::flat_map::FlatMap;
use crate::ids::{AppEnv, SecretName};
use crate::limits::REASON_BYTES_MAX;
use crate::rejection::{Rejection, RejectionKind};
use crate::release::{Release, Revision};
use crate::state::State;
use crate::value::{Sealed, Value};

/// Ends the running deployment of an app, if any, in favour of one that starts right after.
pub(super) fn supersede(state: &State, app_env: &AppEnv, events: &mut Vec<Event>) {
    if let Some((seq, _)) = state.running_deployment(app_env) {
        let by = next_seq(state, events) + 1;
        let outcome = Outcome::Superseded { by };
        events.push(Event::DeploymentFinished { deployment: seq, app_env: app_env.clone(), outcome });
    }
}

/// Starts a deployment towards a revision and sets it as the target.
pub(super) fn start(
    state: &State,
    app_env: &AppEnv,
    kind: DeploymentKind,
    to: Option<Revision>,
    now: bool,
    barrier: Option<&str>,
    events: &mut Vec<Event>,
) {
    supersede(state, app_env, events);
    let from = state.target.intent.get(app_env).map(|revision| revision.as_ref().clone());
    let differs = from != to;
    events.push(Event::DeploymentStarted {
        app_env: app_env.clone(),
        kind,
        from,
        to: to.clone(),
        now,
        barrier: barrier.map(str::to_owned),
    });
    if differs {
        events.push(Event::TargetChanged { app_env: app_env.clone(), revision: to });
    }
}

/// Says that what an app should be was decided on for all of it, where that is what it was: the deployment that was just
/// started is about more than places.
pub(super) fn decide_for_all(
    state: &State,
    app_env: &AppEnv,
    to: Option<&Revision>,
    events: &mut Vec<Event>,
) {
    if state.target.intent.get(app_env).map(AsRef::as_ref) == to {
        events.push(Event::TargetChanged { app_env: app_env.clone(), revision: to.cloned() });
    }
}

/// A deployment is for the whole app: places that were held back follow it again.
fn lift_pins(state: &State, app_env: &AppEnv, events: &mut Vec<Event>) {
    let pins: Vec<_> = state.pins(app_env).map(|(place, _)| (place.clone(), None)).collect();
    if !pins.is_empty() {
        events.push(Event::PinsChanged { app_env: app_env.clone(), pins });
    }
}

pub(super) fn deploy(
    state: &State,
    app_env: &AppEnv,
    contacts: Option<&Contacts>,
    choice: &ReleaseChoice,
    again: bool,
    barrier: Option<&str>,
) -> Result<Vec<Event>, Rejection> {
    if barrier.is_some_and(|barrier| barrier.is_empty() || barrier.len() > REASON_BYTES_MAX) {
        return Err(Rejection::new(
            RejectionKind::Invalid,
            format!("a barrier says in 1 to {REASON_BYTES_MAX} bytes what a rollback would not bring back"),
        ));
    }
    let mut events = Vec::new();
    declare(state, app_env, contacts, &mut events)?;
    let (digest, release) = match choice {
        ReleaseChoice::Content { release, images } => {
            if release.app != app_env.app {
                return Err(Rejection::new(
                    RejectionKind::Invalid,
                    format!("the release is of {}, not of {}", release.app, app_env.app),
                ));
            }
            validate::validate_release(release)?;
            let digest = release.digest();
            if !state.history.releases.contains_key(&digest) {
                erase::check_readable(state, erase::sealed_of(release))?;
                let number = state.newest_release(&app_env.app) + 1;
                let (release, images) = (release.clone(), images.clone());
                events.push(Event::ReleaseCreated { number, digest, release, images });
            }
            (digest, release.clone())
        }
        ReleaseChoice::Number(number) => {
            let key = (app_env.app.clone(), *number);
            let record = state
                .history
                .numbers
                .get(&key)
                .and_then(|digest| Some((*digest, state.history.releases.get(digest)?)))
                .ok_or_else(|| {
                    Rejection::new(
                        RejectionKind::NotFound,
                        format!("{} has no release v{number}", app_env.app),
                    )
                    .with_next(format!("stele history {app_env}"))
                })?;
            (record.0, record.1.release.clone())
        }
    };
    check_latch(state, app_env, &digest)?;
    let config = current_config(state, app_env);
    let secrets = current_secrets(state, app_env, &release)?;
    let revision = Revision { release: digest, config, secrets };
    let same = state.target.intent.get(app_env).is_some_and(|present| **present == revision);
    let failed = state.latest_deployment(app_env).is_some_and(|(_, deployment)| deployment.has_failed());
    let pinned = state.pins(app_env).next().is_some();
    if same && !failed && !again && !pinned {
        return Ok(events);
    }
    start(state, app_env, DeploymentKind::Deploy, Some(revision), false, barrier, &mut events);
    lift_pins(state, app_env, &mut events);
    Ok(events)
}

/// Creates what an apply names and a deploy merely refers to.
fn declare(
    state: &State,
    app_env: &AppEnv,
    contacts: Option<&Contacts>,
    events: &mut Vec<Event>,
) -> Result<(), Rejection> {
    let (app, environment) = (&app_env.app, &app_env.environment);
    let Some(contacts) = contacts else { return check_known(state, app_env) };
    if !state.control.projects.contains(&app.project) {
        events.push(Event::ProjectCreated { project: app.project.clone() });
    }
    if !state.control.environments.contains(environment) {
        events.push(Event::EnvironmentCreated { environment: environment.clone() });
    }
    if state.control.apps.get(app) != Some(contacts) {
        events.push(Event::AppDeclared { app: app.clone(), contacts: contacts.clone() });
    }
    Ok(())
}

/// Only an apply creates: a mistyped name must not become an app or an environment.
fn check_known(state: &State, app_env: &AppEnv) -> Result<(), Rejection> {
    if !state.control.apps.contains_key(&app_env.app) {
        return Err(Rejection::new(RejectionKind::NotFound, format!("there is no app {}", app_env.app))
            .with_next("stele apply -f app.yaml"));
    }
    if !state.control.environments.contains(&app_env.environment) {
        return Err(unknown_environment(state, app_env));
    }
    Ok(())
}

fn unknown_environment(state: &State, app_env: &AppEnv) -> Rejection {
    let known: Vec<_> = state.control.environments.iter().map(ToString::to_string).collect();
    Rejection::new(
        RejectionKind::NotFound,
        format!("there is no environment {}; known are: {}", app_env.environment, known.join(", ")),
    )
}

fn check_latch(state: &State, app_env: &AppEnv, release: &Digest) -> Result<(), Rejection> {
    if !state.is_latched(app_env, release) {
        return Ok(());
    }
    let name = state.release_number(release).map_or_else(|| release.short(), |number| format!("v{number}"));
    Err(Rejection::new(
        RejectionKind::Conflict,
        format!("{app_env} is latched: {name} was rejected by a rollback and is not deployed again until a person unlatches it"),
    )
    .with_next(format!("stele unlatch {app_env}")))
}

/// What is in force where the app is deployed, which after a rollback is not the newest.
fn current_config(state: &State, app_env: &AppEnv) -> Option<Digest> {
    match state.target.intent.get(app_env) {
        Some(revision) => revision.config,
        None => newest_config(state, app_env),
    }
}

fn newest_config(state: &State, app_env: &AppEnv) -> Option<Digest> {
    let version = state.newest_config(app_env);
    state.history.config_versions.get(&(app_env.clone(), version)).copied()
}

/// Those in force where the app is deployed, which after a rollback are not the newest: what was rolled back comes back
/// when somebody sets it again. What nobody can read any more is no use to go on with.
fn current_secrets(
    state: &State,
    app_env: &AppEnv,
    release: &Release,
) -> Result<FlatMap<SecretName, u32>, Rejection> {
    let in_force = |name: &SecretName| {
        let version = *state.target.intent.get(app_env)?.secrets.get(name)?;
        let sealed = state.history.secrets.get(&(app_env.clone(), name.clone(), version))?;
        (!state.is_erased(sealed)).then_some(version)
    };
    let mut secrets = Vec::new();
    let mut missing = Vec::new();
    for name in State::secrets_of(release) {
        match in_force(&name).unwrap_or_else(|| state.newest_secret(app_env, &name)) {
            0 => missing.push(name),
            version => secrets.push((name, version)),
        }
    }
    let Some(first) = missing.first() else { return Ok(secrets.into_iter().collect()) };
    Err(Rejection::new(RejectionKind::NotFound, format!("{app_env} refers to secrets that are not set"))
        .with_details(missing.iter().map(ToString::to_string).collect())
        .with_next(format!("stele secret set {app_env} {first}")))
}

pub(super) fn remove(state: &State, app_env: &AppEnv) -> Result<Vec<Event>, Rejection> {
    if !state.is_wanted(app_env) {
        return Err(not_deployed(app_env));
    }
    let mut events = Vec::new();
    start(state, app_env, DeploymentKind::Remove, None, false, None, &mut events);
    lift_pins(state, app_env, &mut events);
    let slots: Vec<_> = state.slots(app_env).map(|(slot, _)| (slot.clone(), None)).collect();
    events.extend(placement_changes(app_env, &slots));
    Ok(events)
}

fn not_deployed(app_env: &AppEnv) -> Rejection {
    Rejection::new(RejectionKind::NotFound, format!("{app_env} is not deployed")).with_next("stele status")
}

pub(super) fn set_config(
    state: &State,
    app_env: &AppEnv,
    changes: &BTreeMap<String, Option<Value>>,
) -> Result<Vec<Event>, Rejection> {
    check_known(state, app_env)?;
    erase::check_readable(state, changes.values().flatten().filter_map(Value::sealed))?;
    let before = current_config(state, app_env)
        .and_then(|digest| state.history.configs.get(&digest))
        .map(|bundle| bundle.as_ref().clone())
        .unwrap_or_default();
    let mut variables = before.clone();
    for (key, value) in changes {
        match value {
            Some(value) => variables.insert(key.clone(), value.clone()),
            None => variables.remove(key),
        };
    }
    validate::validate_env(variables.iter().map(|(key, value)| (key, value.len())))?;
    if variables == before {
        return Ok(Vec::new());
    }
    let digest = Digest::of_json(&variables);
    let version = state.newest_config(app_env) + 1;
    let mut events = vec![Event::ConfigChanged { app_env: app_env.clone(), version, digest, variables }];
    if let Some(present) = state.target.intent.get(app_env) {
        let revision = Revision { config: Some(digest), ..present.as_ref().clone() };
        start(state, app_env, DeploymentKind::Configure, Some(revision), false, None, &mut events);
    }
    Ok(events)
}

pub(super) fn set_secret(
    state: &State,
    app_env: &AppEnv,
    name: &SecretName,
    value: &Sealed,
) -> Result<Vec<Event>, Rejection> {
    // Of an app or environment that nobody knows, too: a first apply is refused until its secrets are set.
    erase::check_readable(state, [value])?;
    let version = state.newest_secret(app_env, name) + 1;
    let (owner, secret) = (app_env.clone(), name.clone());
    let mut events =
        vec![Event::SecretChanged { app_env: owner, name: secret, version, value: value.clone() }];
    if let Some(present) = state.target.intent.get(app_env)
        && present.secrets.contains_key(name)
    {
        let mut revision = present.as_ref().clone();
        revision.secrets.insert(name.clone(), version);
        start(state, app_env, DeploymentKind::Configure, Some(revision), false, None, &mut events);
    }
    Ok(events)
}
