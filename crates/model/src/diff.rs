//! What differs between the targets of two States, down to a variable or a file.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::ids::AppEnv;
use crate::scope::Scope;
use crate::state::State;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// The app and environment.
    pub app_env: AppEnv,
    /// Where, such as `services.web.container.env.GREETING`.
    pub path: String,
    /// What it was; absent when it was not there.
    pub before: Option<String>,
    /// What it is; absent when it is no longer there.
    pub after: Option<String>,
}

/// What differs in a scope's target between two States.
pub fn diff(before: &State, after: &State, scope: &Scope) -> Vec<Difference> {
    let apps: BTreeSet<_> = before.target.intent.keys().chain(after.target.intent.keys()).collect();
    let mut differences = Vec::new();
    for app_env in apps.into_iter().filter(|app_env| scope.covers_app_env(app_env)) {
        if !scope.is_placed() {
            let mut found = Vec::new();
            compare("", &describe(before, app_env), &describe(after, app_env), &mut found);
            differences.extend(found.into_iter().map(|(path, before, after)| Difference {
                app_env: app_env.clone(),
                path,
                before,
                after,
            }));
        }
        diff_placement(before, after, scope, app_env, &mut differences);
    }
    differences
}

fn diff_placement(
    before: &State,
    after: &State,
    scope: &Scope,
    app_env: &AppEnv,
    differences: &mut Vec<Difference>,
) {
    let slots: BTreeSet<_> =
        before.slots(app_env).chain(after.slots(app_env)).map(|(slot, _)| slot).collect();
    for slot in slots {
        let covered = |state: &State| {
            let node = state.target.placement.get(slot)?;
            scope.covers_node(node, state.region_of(node)).then(|| node.to_string())
        };
        let (was, is) = (covered(before), covered(after));
        if was != is {
            let path = format!("placement.{}.{}", slot.service, slot.index);
            differences.push(Difference { app_env: app_env.clone(), path, before: was, after: is });
        }
    }
}

/// An app's intent as a JSON tree, with what digests stand for filled in.
fn describe(state: &State, app_env: &AppEnv) -> Json {
    let Some(revision) = state.target.intent.get(app_env) else { return Json::Null };
    let release = state.history.releases.get(&revision.release);
    let config = revision.config.and_then(|digest| state.history.configs.get(&digest));
    serde_json::json!({
        "release": release.map(|record| format!("v{}", record.number)),
        "services": release.map(|record| &record.release.services),
        "config": config,
        "secrets": revision.secrets,
    })
}

fn text(value: &Json) -> Option<String> {
    match value {
        Json::Null => None,
        Json::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

type Found = (String, Option<String>, Option<String>);

fn compare(path: &str, before: &Json, after: &Json, found: &mut Vec<Found>) {
    if before == after {
        return;
    }
    // A whole app or service that came or went is one difference, not a hundred.
    if let (Json::Object(left), Json::Object(right)) = (before, after) {
        let keys: BTreeSet<_> = left.keys().chain(right.keys()).collect();
        for key in keys {
            let at = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let member = |map: &serde_json::Map<String, Json>| map.get(key).cloned().unwrap_or(Json::Null);
            compare(&at, &member(left), &member(right), found);
        }
    } else {
        found.push((path.to_owned(), text(before), text(after)));
    }
}
