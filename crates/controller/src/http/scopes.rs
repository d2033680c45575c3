//! Whether a scope names anything, and all that it must: a misspelt one must not look like an empty one.

use std::collections::BTreeSet;

use stele_api::spec::nearest;
use stele_model::{AppEnv, EnvironmentName, Scope, State};

use super::failure::Failure;

/// Refuses a scope with a name that none of these States knows.
pub(super) fn check_known(scope: &Scope, states: &[&State]) -> Result<(), Failure> {
    let known = |is_known: &dyn Fn(&State) -> bool| states.iter().any(|state| is_known(state));
    let names = |of: &dyn Fn(&State) -> Vec<String>| states.iter().flat_map(|state| of(state)).collect();
    if let Some(project) = &scope.project
        && !known(&|state| state.control.projects.contains(project))
    {
        let all: Vec<String> =
            names(&|state| state.control.projects.iter().map(ToString::to_string).collect());
        return Err(unknown("project", project.as_str(), &all, "stele status"));
    }
    if let Some(app) = &scope.app
        && !known(&|state| state.control.apps.contains_key(app))
    {
        let all: Vec<String> = names(&|state| state.control.apps.keys().map(ToString::to_string).collect());
        return Err(unknown("app", &app.to_string(), &all, "stele status"));
    }
    if let Some(environment) = &scope.environment
        && !known(&|state| state.control.environments.contains(environment))
    {
        let all: Vec<String> =
            names(&|state| state.control.environments.iter().map(ToString::to_string).collect());
        return Err(unknown("environment", environment.as_str(), &all, "stele status"));
    }
    let regions = |state: &State| -> Vec<String> {
        state.control.nodes.values().map(|node| node.region.to_string()).collect()
    };
    if let Some(region) = &scope.region
        && !known(&|state| state.control.nodes.values().any(|node| node.region == *region))
    {
        return Err(unknown("region", region.as_str(), &names(&regions), "stele node list"));
    }
    if let Some(node) = &scope.node
        && !known(&|state| state.control.nodes.contains_key(node))
    {
        let all: Vec<String> = names(&|state| state.control.nodes.keys().map(ToString::to_string).collect());
        return Err(unknown("node", node.as_str(), &all, "stele node list"));
    }
    Ok(())
}

/// Refuses a scope, and exceptions from it, with a name that none of these States knows: an exception that is
/// misspelt would leave nothing out.
pub(super) fn check_scopes(scope: &Scope, except: &[Scope], states: &[&State]) -> Result<(), Failure> {
    check_known(scope, states)?;
    except.iter().try_for_each(|excepted| check_known(excepted, states))
}

/// Fills in the environment of an app that is in one alone, or that is in none and was in one; in several,
/// a write must say which.
pub(super) fn with_environment(
    state: &State,
    scope: Scope,
    next: impl Fn(&Scope) -> String,
) -> Result<Scope, Failure> {
    let (Some(app), None) = (&scope.app, &scope.environment) else { return Ok(scope) };
    let of_app = |app_envs: &mut dyn Iterator<Item = &AppEnv>| -> BTreeSet<EnvironmentName> {
        let own = app_envs.filter(|app_env| app_env.app == *app);
        own.map(|app_env| app_env.environment.clone()).collect()
    };
    let mut environments = of_app(&mut state.target.intent.keys());
    if environments.is_empty() {
        environments = of_app(&mut state.history.last_changed.keys());
    }
    let in_environment =
        |environment: &EnvironmentName| Scope { environment: Some(environment.clone()), ..scope.clone() };
    let mut each = environments.iter();
    match (each.next(), each.next()) {
        (Some(only), None) => Ok(in_environment(only)),
        // Unknown names are told apart by whoever looks at the scope next.
        (None, _) => Ok(scope),
        (Some(first), Some(_)) => {
            let names: Vec<_> = environments.iter().map(ToString::to_string).collect();
            Err(Failure::invalid(format!("{scope} is in several environments: {}", names.join(", ")))
                .with_next(next(&in_environment(first))))
        }
    }
}

fn unknown(kind: &str, name: &str, all: &[String], next: &str) -> Failure {
    let meant = nearest(name, all.iter().map(String::as_str));
    let meant = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
    Failure::not_found(format!("there is no {kind} {name}{meant}")).with_next(next)
}
