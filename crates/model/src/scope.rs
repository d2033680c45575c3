//! Scopes: parts of the fleet a state, digest, diff, rollback or query is about.
//!
//! `fleet`, `project:shop`, `env:prod`, `shop/web`, `shop/web@prod`, `region:eu`,
//! `node:eu-1`; parts joined by commas intersect: `shop/web@prod,region:eu`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{AppEnv, AppId, EnvironmentName, NameError, NodeName, Place, ProjectName, RegionName};

/// An intersection of conditions; the one with none is the whole fleet.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Scope {
    /// Only this project.
    pub project: Option<ProjectName>,
    /// Only this app.
    pub app: Option<AppId>,
    /// Only this environment.
    pub environment: Option<EnvironmentName>,
    /// Only this region.
    pub region: Option<RegionName>,
    /// Only this node.
    pub node: Option<NodeName>,
}

/// A scope cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// A part has a bad name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Two parts fix the same thing differently.
    #[error("{0:?} names two different {1}s: nothing can be in both")]
    Contradiction(String, &'static str),
    /// A part is of no known kind.
    #[error(
        "{0:?} is not a scope: write fleet, project:NAME, env:NAME, PROJECT/APP, PROJECT/APP@ENV, region:NAME or \
         node:NAME, joined by commas to intersect"
    )]
    Unknown(String),
}

impl Scope {
    /// The whole fleet.
    pub fn fleet() -> Self {
        Self::default()
    }

    /// One app in one environment.
    pub fn app_env(app_env: &AppEnv) -> Self {
        Self {
            app: Some(app_env.app.clone()),
            environment: Some(app_env.environment.clone()),
            ..Self::default()
        }
    }

    /// One node.
    pub fn of_node(node: &NodeName) -> Self {
        Self { node: Some(node.clone()), ..Self::default() }
    }

    /// The app and environment, when the scope is within exactly one of each.
    pub fn as_app_env(&self) -> Option<AppEnv> {
        Some(AppEnv::new(self.app.clone()?, self.environment.clone()?))
    }

    /// The part of it in a place.
    pub(crate) fn at(self, place: &Place) -> Self {
        match place {
            Place::Region(region) => Self { region: Some(region.clone()), ..self },
            Place::Node(node) => Self { node: Some(node.clone()), ..self },
        }
    }

    /// Whether what the scope covers depends on nodes.
    pub fn is_placed(&self) -> bool {
        self.region.is_some() || self.node.is_some()
    }

    /// Whether an app in an environment may lie inside, regardless of nodes.
    pub fn covers_app_env(&self, app_env: &AppEnv) -> bool {
        self.project.as_ref().is_none_or(|project| *project == app_env.app.project)
            && self.app.as_ref().is_none_or(|app| *app == app_env.app)
            && self.environment.as_ref().is_none_or(|environment| *environment == app_env.environment)
    }

    /// Whether anything may lie in both: whether they do not name two different things. Where nodes are is not looked at.
    pub fn may_meet(&self, other: &Self) -> bool {
        fn agree<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
            one.zip(other).is_none_or(|(one, other)| one == other)
        }
        fn project(scope: &Scope) -> Option<&ProjectName> {
            scope.project.as_ref().or_else(|| scope.app.as_ref().map(|app| &app.project))
        }
        agree(project(self), project(other))
            && agree(self.app.as_ref(), other.app.as_ref())
            && agree(self.environment.as_ref(), other.environment.as_ref())
            && agree(self.region.as_ref(), other.region.as_ref())
            && agree(self.node.as_ref(), other.node.as_ref())
    }

    /// Whether a node lies inside, regardless of apps.
    pub fn covers_node(&self, node: &NodeName, region: Option<&RegionName>) -> bool {
        self.node.as_ref().is_none_or(|name| name == node)
            && self.region.as_ref().is_none_or(|name| Some(name) == region)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(project) = &self.project {
            parts.push(format!("project:{project}"));
        }
        match (&self.app, &self.environment) {
            (Some(app), Some(environment)) => parts.push(format!("{app}@{environment}")),
            (Some(app), None) => parts.push(app.to_string()),
            (None, Some(environment)) => parts.push(format!("env:{environment}")),
            (None, None) => {}
        }
        if let Some(region) = &self.region {
            parts.push(format!("region:{region}"));
        }
        if let Some(node) = &self.node {
            parts.push(format!("node:{node}"));
        }
        if parts.is_empty() {
            parts.push("fleet".to_owned());
        }
        f.write_str(&parts.join(","))
    }
}

fn fix<T: PartialEq>(
    slot: &mut Option<T>,
    value: T,
    text: &str,
    kind: &'static str,
) -> Result<(), ScopeError> {
    match slot {
        Some(present) if *present != value => Err(ScopeError::Contradiction(text.to_owned(), kind)),
        _ => {
            *slot = Some(value);
            Ok(())
        }
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let mut scope = Self::default();
        for part in text.split(',').map(str::trim) {
            if part == "fleet" {
            } else if let Some(name) = part.strip_prefix("project:") {
                fix(&mut scope.project, name.parse()?, text, "project")?;
            } else if let Some(name) = part.strip_prefix("env:") {
                fix(&mut scope.environment, name.parse()?, text, "environment")?;
            } else if let Some(name) = part.strip_prefix("region:") {
                fix(&mut scope.region, name.parse()?, text, "region")?;
            } else if let Some(name) = part.strip_prefix("node:") {
                fix(&mut scope.node, name.parse()?, text, "node")?;
            } else if part.contains('/') {
                let part = part.strip_prefix("app:").unwrap_or(part);
                if part.contains('@') {
                    let app_env: AppEnv = part.parse()?;
                    fix(&mut scope.app, app_env.app.clone(), text, "app")?;
                    fix(&mut scope.environment, app_env.environment.clone(), text, "environment")?;
                } else {
                    fix(&mut scope.app, part.parse()?, text, "app")?;
                }
            } else {
                return Err(ScopeError::Unknown(part.to_owned()));
            }
        }
        Ok(scope)
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Scope {
    fn schema_name() -> Cow<'static, str> {
        "Scope".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "examples": ["fleet", "shop/web@prod", "region:eu"]})
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn scopes_are_read_back_from_their_text() {
        for text in [
            "fleet",
            "project:shop",
            "env:prod",
            "shop/web",
            "shop/web@prod",
            "region:eu",
            "node:eu-1",
            "shop/web@prod,region:eu",
            "project:shop,env:prod",
        ] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
        assert_eq!("app:shop/web@prod".parse::<Scope>().unwrap().to_string(), "shop/web@prod");
    }

    #[test]
    fn scopes_that_name_different_things_do_not_meet() {
        let meet = |one: &str, other: &str| {
            let (one, other): (Scope, Scope) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(one.may_meet(&other), other.may_meet(&one));
            one.may_meet(&other)
        };
        assert!(meet("project:shop,env:prod", "shop/cart@prod"));
        assert!(meet("shop/web@prod", "region:eu"));
        assert!(meet("fleet", "node:eu-1"));
        assert!(meet("region:eu", "node:us-1"), "where a node is, only State tells");
        assert!(!meet("project:shop", "crm/cart@prod"));
        assert!(!meet("shop/web@prod", "shop/web@dev"));
        assert!(!meet("shop/web", "shop/cart"));
        assert!(!meet("shop/web@prod,region:eu", "region:us"));
    }

    #[test]
    fn contradictions_and_nonsense_are_refused() {
        for bad in ["", "web", "region:eu,region:us", "shop/web@prod,env:dev", "node:"] {
            assert!(bad.parse::<Scope>().is_err(), "{bad:?}");
        }
    }
}
