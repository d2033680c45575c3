//! Whether a scope names anything that is or was: a mistyped name must not look like one without changes.

use stele_api::spec::nearest;
use stele_model::{Scope, State};

use super::failure::Failure;

/// Refuses a scope of which a part is nothing's name in any of these States.
pub(super) fn check(scope: &Scope, states: &[&State]) -> Result<(), Failure> {
    let controls = || states.iter().map(|state| &state.control);
    let names = |kind: &str| -> Vec<String> {
        match kind {
            "project" => controls().flat_map(|it| it.projects.iter().map(ToString::to_string)).collect(),
            "app" => controls().flat_map(|it| it.apps.keys().map(ToString::to_string)).collect(),
            "environment" => {
                controls().flat_map(|it| it.environments.iter().map(ToString::to_string)).collect()
            }
            "region" => {
                controls().flat_map(|it| it.nodes.values().map(|node| node.region.to_string())).collect()
            }
            _ => controls().flat_map(|it| it.nodes.keys().map(ToString::to_string)).collect(),
        }
    };
    let parts = [
        ("project", scope.project.as_ref().map(ToString::to_string)),
        ("app", scope.app.as_ref().map(ToString::to_string)),
        ("environment", scope.environment.as_ref().map(ToString::to_string)),
        ("region", scope.region.as_ref().map(ToString::to_string)),
        ("node", scope.node.as_ref().map(ToString::to_string)),
    ];
    for (kind, part) in parts {
        let Some(name) = part else { continue };
        let known = names(kind);
        if known.contains(&name) {
            continue;
        }
        let meant = nearest(&name, known.iter().map(String::as_str));
        let meant = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
        return Err(Failure::not_found(format!("there is no {kind} {name}{meant}")).with_next("stele status"));
    }
    Ok(())
}
