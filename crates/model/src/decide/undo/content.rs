//! An app as it never was: what came later without what is undone.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use super::super::{erase, validate};
use super::plan::UndoneApp;
use crate::digest::Digest;
use crate::event::{Event, Pin};
use crate::flat_map::FlatMap;
use crate::ids::{AppEnv, AppId, Place, SecretName, Seq, ServiceName};
use crate::rejection::{Rejection, RejectionKind};
use crate::release::{Image, Release, Revision, Service};
use crate::state::{ReleaseRecord, State};
use crate::value::Value;

/// What was made by earlier apps of the same undo: an app may be in several environments.
#[derive(Default)]
pub(super) struct Made {
    releases: BTreeMap<AppId, Vec<Digest>>,
}

/// The app as it never was: what came later without what is undone.
pub(super) fn mixed(
    state: &State,
    past: &BTreeMap<Seq, State>,
    app_env: &AppEnv,
    merged: &Json,
    made: &mut Made,
) -> Result<UndoneApp, Rejection> {
    let from = state.target.intent.get(app_env).map(|revision| revision.as_ref().clone());
    let mut app = UndoneApp {
        app_env: app_env.clone(),
        from: from.clone(),
        to: None,
        restores: None,
        deviations: Vec::new(),
        blocked: Vec::new(),
        pins: changed_pins(state, app_env, &merged["pins"])?,
        slots: Vec::new(),
        rejected: None,
        made: Vec::new(),
    };
    if merged["services"].is_object() {
        let release = Release { app: app_env.app.clone(), services: typed(app_env, &merged["services"])? };
        validate::validate_release(&release)?;
        app.blocked.extend(
            erase::sealed_of(&release).filter(|sealed| state.is_erased(sealed)).map(|sealed| {
                format!("a value it would restore was erased with the key of {}", sealed.subject)
            }),
        );
        let config = config(state, app_env, &merged["config"], &mut app)?;
        let secrets = secrets(state, app_env, &release, &merged["secrets"], &mut app.blocked)?;
        let digest = make_release(state, past, app_env, release, made, &mut app.made);
        app.to = Some(Revision { release: digest, config, secrets });
    } else if !merged["pins"].is_object() {
        app.slots = state.slots(app_env).map(|(slot, _)| (slot.clone(), None)).collect();
    }
    app.rejected = from
        .map(|revision| revision.release)
        .filter(|release| app.to.as_ref().map(|revision| &revision.release) != Some(release));
    Ok(app)
}

fn typed<T: serde::de::DeserializeOwned>(app_env: &AppEnv, fields: &Json) -> Result<T, Rejection> {
    serde_json::from_value(fields.clone()).map_err(|error| {
        Rejection::new(
            RejectionKind::Conflict,
            format!("{app_env} would be nothing that can be deployed: {error}"),
        )
    })
}

fn changed_pins(
    state: &State,
    app_env: &AppEnv,
    wanted: &Json,
) -> Result<Vec<(Place, Option<Pin>)>, Rejection> {
    let wanted: BTreeMap<Place, Pin> =
        if wanted.is_null() { BTreeMap::new() } else { typed(app_env, wanted)? };
    let gone = state.pins(app_env).filter(|(place, _)| !wanted.contains_key(place));
    let mut changes: Vec<_> = gone.map(|(place, _)| (place.clone(), None)).collect();
    changes.extend(wanted.iter().filter_map(|(place, pin)| {
        let present = state.target.pins.get(&(app_env.clone(), place.clone())).map(AsRef::as_ref);
        (present != Some(pin)).then(|| (place.clone(), Some(pin.clone())))
    }));
    changes.sort_by(|left, right| left.0.cmp(&right.0));
    Ok(changes)
}

/// The bundle of these variables: the one in force, an earlier version, or a new one.
fn config(
    state: &State,
    app_env: &AppEnv,
    fields: &Json,
    app: &mut UndoneApp,
) -> Result<Option<Digest>, Rejection> {
    if fields.is_null() {
        return Ok(None);
    }
    let variables: FlatMap<String, Value> = typed(app_env, fields)?;
    for (name, value) in &variables {
        if let Value::Sealed(sealed) = value
            && state.is_erased(sealed)
        {
            let subject = &sealed.subject;
            app.blocked.push(format!("config {name} was sealed for {subject}, whose keys are destroyed"));
        }
    }
    let digest = Digest::of_json(&variables);
    let versions = state.history.config_versions.range((app_env.clone(), 0)..=(app_env.clone(), u32::MAX));
    if !versions.into_iter().any(|(_, known)| *known == digest) {
        let version = state.newest_config(app_env) + 1;
        app.made.push(Event::ConfigChanged { app_env: app_env.clone(), version, digest, variables });
    }
    Ok(Some(digest))
}

/// A version of each secret the release refers to: the merged one, or else the newest.
fn secrets(
    state: &State,
    app_env: &AppEnv,
    release: &Release,
    fields: &Json,
    blocked: &mut Vec<String>,
) -> Result<FlatMap<SecretName, u32>, Rejection> {
    let merged: FlatMap<SecretName, u32> =
        if fields.is_null() { FlatMap::new() } else { typed(app_env, fields)? };
    let mut secrets = Vec::new();
    for name in State::secrets_of(release) {
        let version = merged.get(&name).copied().unwrap_or_else(|| state.newest_secret(app_env, &name));
        match state.history.secrets.get(&(app_env.clone(), name.clone(), version)) {
            None => blocked.push(format!("secret {name} is not set")),
            Some(sealed) if state.is_erased(sealed) => blocked
                .push(format!("secret {name} was sealed for {}, whose keys are destroyed", sealed.subject)),
            Some(_) => secrets.push((name, version)),
        }
    }
    Ok(secrets.into_iter().collect())
}

/// The release of this content, made when there is none.
fn make_release(
    state: &State,
    past: &BTreeMap<Seq, State>,
    app_env: &AppEnv,
    release: Release,
    made: &mut Made,
    events: &mut Vec<Event>,
) -> Digest {
    let digest = release.digest();
    let earlier = made.releases.entry(app_env.app.clone()).or_default();
    if !state.history.releases.contains_key(&digest) && !earlier.contains(&digest) {
        earlier.push(digest);
        let number = state.newest_release(&app_env.app) + earlier.len() as u32;
        let images = asked_images(state, past, app_env, &release);
        events.push(Event::ReleaseCreated { number, digest, release, images });
    }
    digest
}

/// What each image was asked for as, by whichever release it comes from.
fn asked_images(
    state: &State,
    past: &BTreeMap<Seq, State>,
    app_env: &AppEnv,
    release: &Release,
) -> FlatMap<ServiceName, String> {
    let record = |state: &State| -> Option<Arc<ReleaseRecord>> {
        let revision = state.target.intent.get(app_env)?;
        state.history.releases.get(&revision.release).cloned()
    };
    let sources: Vec<_> = std::iter::once(state).chain(past.values()).filter_map(record).collect();
    let asked = |name: &ServiceName, image: &Image| {
        let of_same = |service: &Service| service.container.image == *image;
        let source = sources.iter().find(|it| it.release.services.get(name).is_some_and(of_same))?;
        source.images.get(name).cloned()
    };
    let services = release.services.iter();
    services.filter_map(|(name, it)| Some((name.clone(), asked(name, &it.container.image)?))).collect()
}
