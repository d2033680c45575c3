//! What may be asked about.

use std::fmt;
use std::str::FromStr;

use crate::ids::{AppEnv, InstanceId, NodeName, Place, Slot};
use crate::rejection::{Rejection, RejectionKind};
use crate::scope::Scope;

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A container, present or past.
    Instance(InstanceId),
    /// Whatever fills a slot.
    Slot(Slot),
    /// An app in an environment, or in one place of it.
    App(AppEnv, Option<Place>),
    /// A node.
    Node(NodeName),
}

impl Subject {
    /// The scope that a point such as `v3` or `prev` is about.
    pub fn scope(&self) -> Scope {
        match self {
            Self::Instance(id) => Scope::app_env(&id.slot.app_env),
            Self::Slot(slot) => Scope::app_env(&slot.app_env),
            Self::App(app_env, _) => Scope::app_env(app_env),
            Self::Node(node) => Scope::of_node(node),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance(id) => id.fmt(f),
            Self::Slot(slot) => slot.fmt(f),
            Self::App(app_env, None) => app_env.fmt(f),
            Self::App(app_env, Some(place)) => write!(f, "{app_env},{place}"),
            Self::Node(node) => write!(f, "node:{node}"),
        }
    }
}

impl FromStr for Subject {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<Self, Rejection> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Instance(id));
        }
        if let Ok(slot) = text.parse() {
            return Ok(Self::Slot(slot));
        }
        let invalid = |message: String| Rejection::new(RejectionKind::Invalid, message);
        let scope: Scope =
            text.parse().map_err(|error: crate::scope::ScopeError| invalid(error.to_string()))?;
        let place = match (&scope.node, &scope.region) {
            (Some(node), _) => Some(Place::Node(node.clone())),
            (None, Some(region)) => Some(Place::Region(region.clone())),
            (None, None) => None,
        };
        match (scope.as_app_env(), place) {
            (Some(app_env), place) => Ok(Self::App(app_env, place)),
            (None, Some(Place::Node(node))) if scope == Scope::of_node(&node) => Ok(Self::Node(node)),
            _ => Err(invalid(format!(
                "{text} is more or less than one thing: name an instance, an app in an environment or a node"
            ))
            .with_next("stele status")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_read_back_from_their_text() {
        for text in [
            "shop/web@prod/web.0-142",
            "shop/web@prod/web.0",
            "shop/web@prod",
            "shop/web@prod,region:eu",
            "shop/web@prod,node:eu-1",
            "node:eu-1",
        ] {
            assert_eq!(text.parse::<Subject>().map(|subject| subject.to_string()), Ok(text.to_owned()));
        }
        for bad in ["fleet", "shop/web", "env:prod", "region:eu", "nonsense"] {
            assert!(bad.parse::<Subject>().is_err(), "{bad}");
        }
    }
}
