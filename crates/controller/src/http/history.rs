//! What was: deployments, targets at a point, differences.

use std::sync::Arc;

use axum::http::header::ETAG;
use stele_api::limits::{HISTORY_ENTRIES_DEFAULT, HISTORY_ENTRIES_MAX};
use stele_api::wire::{
    DiffAnswer, DiffQuery, HistoryAnswer, HistoryEntry, HistoryQuery, ShowAnswer, ShowQuery, ShownApp,
};
use stele_model::event::Pin;
use stele_model::state::Deployment;
use stele_model::{AppEnv, FlatMap, Header, Place, Revision, Scope, Seq, State, Value, diff};

use super::asked::Asked;
use super::failure::Failure;
use super::scopes::check_known;
use super::status::{point_seq, state_at, target_at};
use super::{Answered, json};
use crate::handle::Handle;

/// The header of a record, when this controller has it.
pub(super) async fn header_of(handle: &Handle, seq: Seq) -> Result<Option<Header>, Failure> {
    let records = handle.records(seq, 1).await?;
    // A header that cannot be read is damage; it must not look like an absent one.
    records
        .first()
        .filter(|(found, ..)| *found == seq)
        .map(|(_, stored, _)| stored.header())
        .transpose()
        .map_err(|error| Failure::new(stele_api::ProblemKind::Internal, error.to_string()))
}

/// Deployments, the newest first.
fn of_scope<'a>(state: &'a State, scope: &'a Scope) -> impl Iterator<Item = (&'a Seq, &'a Arc<Deployment>)> {
    let newest = state.history.deployments.iter().rev();
    newest.filter(|(_, deployment)| scope.covers_app_env(&deployment.app_env))
}

pub(super) async fn history(handle: &Handle, asked: &Asked) -> Answered {
    let query: HistoryQuery = asked.query()?;
    let limit = query.limit.unwrap_or(HISTORY_ENTRIES_DEFAULT);
    if limit > HISTORY_ENTRIES_MAX {
        let detail =
            format!("limit: a history has at most {HISTORY_ENTRIES_MAX} entries (HISTORY_ENTRIES_MAX)");
        return Err(Failure::invalid(detail).with_next("stele events --kind deployment_started --after 0"));
    }
    let state = state_at(handle, &asked.state, &query.scope, query.at.as_deref()).await?;
    check_known(&query.scope, &[&asked.state, &state])?;
    // State keeps the newest deployments of each app, the log all of them. One more than is told tells that there are
    // more.
    let is_enough = |state: &State, since| {
        of_scope(state, &query.scope).take_while(|(id, _)| **id >= since).nth(limit).is_some()
    };
    let (state, since) = handle.remembering(&state, &query.scope, is_enough).await?;
    let mut newest: Vec<_> = of_scope(&state, &query.scope).take(limit.saturating_add(1)).collect();
    let more = newest.len() > limit || since > 0;
    newest.truncate(limit);
    let mut entries = Vec::with_capacity(newest.len());
    for (id, deployment) in newest {
        let header = header_of(handle, *id).await?;
        entries.push(entry(&state, *id, deployment, header));
    }
    json(&HistoryAnswer { scope: query.scope, entries, more })
}

fn entry(state: &State, id: Seq, deployment: &Deployment, header: Option<Header>) -> HistoryEntry {
    let number = |revision: &Option<stele_model::Revision>| {
        revision.as_ref().and_then(|revision| state.release_number(&revision.release))
    };
    let (reason, links) = header.map(|header| (header.reason, header.links)).unwrap_or_default();
    HistoryEntry {
        deployment: id,
        time: deployment.started,
        app_env: deployment.app_env.clone(),
        kind: deployment.kind,
        from: number(&deployment.from),
        to: number(&deployment.to),
        principal: deployment.principal.clone(),
        reason: reason.as_ref().map(stele_model::Value::told),
        links,
        outcome: deployment.finished.as_ref().map(|(_, _, outcome)| outcome.clone()),
    }
}

pub(super) async fn show(handle: &Handle, asked: &Asked) -> Answered {
    let query: ShowQuery = asked.query()?;
    let mut state = match query.at.as_deref() {
        // All of it, not only what is shown.
        Some(at) if query.digest => {
            let seq = point_seq(handle, &asked.state, &query.scope, at).await?;
            handle.whole_state_at(seq).await?
        }
        at => target_at(handle, &asked.state, &query.scope, at).await?,
    };
    check_known(&query.scope, &[&asked.state, &state])?;
    let state_digest = (query.digest || query.at.is_none()).then(|| state.digest());
    let apps = state
        .targeted()
        .into_iter()
        .filter(|app_env| query.scope.covers_app_env(app_env))
        .filter_map(|app_env| shown(&state, &query.scope, app_env))
        .collect();
    let last_changed = state.last_changed(&query.scope);
    let is_waiting = |app_env: &AppEnv| !state.is_targeted(app_env);
    let waiting = query.scope.as_app_env().filter(is_waiting);
    let waiting_config = waiting.and_then(|app_env| newest_config(&state, &app_env)).unwrap_or_default();
    let mut response = json(&ShowAnswer {
        seq: state.seq,
        time: state.time,
        digest: state.target_digest(&query.scope),
        state_digest,
        apps,
        waiting_config,
        scope: query.scope,
    })?;
    if let Ok(tag) = format!("\"{last_changed}\"").parse() {
        response.headers_mut().insert(ETAG, tag);
    }
    Ok(response)
}

fn newest_config(state: &State, app_env: &AppEnv) -> Option<FlatMap<String, Value>> {
    let key = (app_env.clone(), state.newest_config(app_env));
    let digest = state.history.config_versions.get(&key)?;
    state.history.configs.get(digest).map(|config| config.as_ref().clone())
}

/// What an app is in a scope. Where only places have it, that is what the first of them has.
fn in_force<'a>(state: &'a State, scope: &Scope, app_env: &AppEnv) -> Option<&'a Revision> {
    if let Some(node) = &scope.node {
        return state.revision_at(app_env, node);
    }
    let of_region = scope.region.as_ref().and_then(|region| {
        state.target.pins.get(&(app_env.clone(), Place::Region(region.clone()))).map(AsRef::as_ref)
    });
    match of_region {
        Some(Pin::Revision(revision)) => return Some(revision),
        Some(Pin::Absent) => return None,
        None => {}
    }
    let everywhere = state.target.intent.get(app_env).map(AsRef::as_ref);
    everywhere.or_else(|| {
        let mut pins = state.target.pins.iter().filter(|((owner, _), _)| owner == app_env);
        pins.find_map(|(_, pin)| match pin.as_ref() {
            Pin::Revision(revision) => Some(revision),
            Pin::Absent => None,
        })
    })
}

fn shown(state: &State, scope: &Scope, app_env: &AppEnv) -> Option<ShownApp> {
    let revision = in_force(state, scope, app_env)?;
    let record = state.history.releases.get(&revision.release)?;
    let config = revision.config.and_then(|digest| state.history.configs.get(&digest));
    let placement: std::collections::BTreeMap<_, _> = state
        .slots(app_env)
        .filter(|(_, node)| scope.covers_node(node, state.region_of(node)))
        .map(|(slot, node)| (slot.clone(), node.clone()))
        .collect();
    if scope.is_placed() && placement.is_empty() {
        return None;
    }
    Some(ShownApp {
        app_env: app_env.clone(),
        contacts: state.control.apps.get(&app_env.app).cloned().unwrap_or_default(),
        release: record.number,
        release_digest: revision.release,
        content: record.release.clone(),
        images: record.images.clone(),
        config: config.map(|config| config.as_ref().clone()).unwrap_or_default(),
        secrets: revision.secrets.clone(),
        pins: super::status::pinned_places(state, app_env),
        placement,
    })
}

async fn diff_between(
    handle: &Handle,
    state: &State,
    scope: &Scope,
    from: &str,
    to: Option<&str>,
) -> Result<DiffAnswer, Failure> {
    let seq = point_seq(handle, state, scope, from).await?;
    let before = handle.target_at(seq).await?;
    let after = target_at(handle, state, scope, to).await?;
    check_known(scope, &[state, &before, &after])?;
    Ok(DiffAnswer {
        scope: scope.clone(),
        from: before.seq,
        to: after.seq,
        differences: diff(&before, &after, scope),
    })
}

pub(super) async fn diff_points(handle: &Handle, asked: &Asked) -> Answered {
    let query: DiffQuery = asked.query()?;
    json(&diff_between(handle, &asked.state, &query.scope, &query.from, query.to.as_deref()).await?)
}
