//! Which records touch a scope, told from their headers alone.

use std::collections::{BTreeMap, BTreeSet};

use stele_model::{AppEnv, AppId, EnvironmentName, NodeName, ProjectName, RegionName, Scope};

/// Regions that nodes were enrolled in, as far as records say so.
pub type Regions = BTreeMap<NodeName, BTreeSet<RegionName>>;

/// The parts of a scope as a header has it. What cannot be read is no part of this.
#[derive(Default)]
struct Touched {
    project: Option<ProjectName>,
    app: Option<AppId>,
    environment: Option<EnvironmentName>,
    region: Option<RegionName>,
    node: Option<NodeName>,
}

/// `None` when a part is unknown, or is there twice.
fn read(text: &str) -> Option<Touched> {
    fn set<T: std::str::FromStr>(part: &mut Option<T>, text: &str) -> Option<()> {
        if part.is_some() {
            return None;
        }
        *part = Some(text.parse().ok()?);
        Some(())
    }
    let mut touched = Touched::default();
    for part in text.split(',') {
        if part == "fleet" {
            continue;
        }
        if let Some(name) = part.strip_prefix("project:") {
            set(&mut touched.project, name)?;
        } else if let Some(name) = part.strip_prefix("env:") {
            set(&mut touched.environment, name)?;
        } else if let Some(name) = part.strip_prefix("region:") {
            set(&mut touched.region, name)?;
        } else if let Some(name) = part.strip_prefix("node:") {
            set(&mut touched.node, name)?;
        } else if part.contains('@') {
            let app_env: AppEnv = part.parse().ok()?;
            set(&mut touched.app, &app_env.app.to_string())?;
            set(&mut touched.environment, app_env.environment.as_str())?;
        } else {
            set(&mut touched.app, part)?;
        }
    }
    Some(touched)
}

/// Whether two parts that are both there differ.
fn differ<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one != other)
}

fn names_app(scope: &Scope) -> bool {
    scope.project.is_some() || scope.app.is_some() || scope.environment.is_some()
}

impl Touched {
    fn is_fleet(&self) -> bool {
        !self.is_of_apps() && !self.is_of_nodes()
    }

    fn is_of_apps(&self) -> bool {
        self.project.is_some() || self.app.is_some() || self.environment.is_some()
    }

    fn is_of_nodes(&self) -> bool {
        self.region.is_some() || self.node.is_some()
    }

    /// Whether it may be about the apps a scope is about.
    fn meets_apps(&self, scope: &Scope) -> bool {
        fn project<'a>(project: Option<&'a ProjectName>, app: Option<&'a AppId>) -> Option<&'a ProjectName> {
            app.map(|app| &app.project).or(project)
        }
        let mine = project(self.project.as_ref(), self.app.as_ref());
        let asked = project(scope.project.as_ref(), scope.app.as_ref());
        self.is_fleet()
            || (self.is_of_apps()
                && !differ(mine, asked)
                && !differ(self.app.as_ref(), scope.app.as_ref())
                && !differ(self.environment.as_ref(), scope.environment.as_ref()))
    }

    /// Whether it may be about the nodes a scope is about.
    fn meets_nodes(&self, scope: &Scope, regions: &Regions) -> bool {
        let may_be_in = |node: Option<&NodeName>, region: Option<&RegionName>| {
            let (Some(node), Some(region)) = (node, region) else { return true };
            regions.get(node).is_none_or(|regions| regions.contains(region))
        };
        self.is_fleet()
            || (self.is_of_nodes()
                && !differ(self.node.as_ref(), scope.node.as_ref())
                && !differ(self.region.as_ref(), scope.region.as_ref())
                && may_be_in(self.node.as_ref(), scope.region.as_ref())
                && may_be_in(scope.node.as_ref(), self.region.as_ref()))
    }
}

/// Whether a record of this kind, whose header names `scopes`, belongs to a scope's evidence.
///
/// In doubt it does: what touches the whole fleet, what names no app or no node and so may
/// be about any, what cannot be read, and nodes whose region no record tells.
pub fn touches(scope: &Scope, regions: &Regions, kind: &str, scopes: &[String]) -> bool {
    if kind == NODE_ENROLLED && scope.is_placed() {
        return true;
    }
    let touched: Vec<_> = scopes.iter().map(|text| read(text)).collect();
    let any = |has: &dyn Fn(&Touched) -> bool| touched.iter().any(|it| it.as_ref().is_none_or(has));
    let meets_apps = || !any(&Touched::is_of_apps) || any(&|it| it.meets_apps(scope));
    let meets_nodes = || {
        kind == PLACEMENT_CHANGED || !any(&Touched::is_of_nodes) || any(&|it| it.meets_nodes(scope, regions))
    };
    (!names_app(scope) || meets_apps()) && (!scope.is_placed() || meets_nodes())
}

/// The kind of record that does not name every node it is about: a slot that it empties
/// was somewhere, which only State knows.
const PLACEMENT_CHANGED: &str = "placement_changed";

/// The kind of record that tells a node's region.
pub(super) const NODE_ENROLLED: &str = "node_enrolled";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn meets(scope: &str, scopes: &[&str]) -> bool {
        let regions = BTreeMap::from([
            ("eu-1".parse().unwrap(), BTreeSet::from(["eu".parse().unwrap()])),
            ("us-1".parse().unwrap(), BTreeSet::from(["us".parse().unwrap()])),
        ]);
        let scopes: Vec<_> = scopes.iter().map(|&text| text.to_owned()).collect();
        touches(&scope.parse().unwrap(), &regions, "nodes_reported", &scopes)
    }

    #[test]
    fn what_touches_a_scope_is_told_from_headers() {
        for (scope, scopes) in [
            ("shop/web@prod", &["shop/web@prod"][..]),
            ("shop/web@prod", &["node:us-1", "shop/web@prod"]),
            ("shop/web@prod", &["shop/web"]),
            ("shop/web@prod", &["project:shop"]),
            ("shop/web@prod", &["env:prod"]),
            ("shop/web@prod", &["fleet"]),
            ("shop/web@prod", &["what is this"]),
            ("project:shop", &["shop/web@prod"]),
            ("env:prod", &["shop/web"]),
            ("region:eu", &["node:eu-1"]),
            ("region:eu", &["node:nobody-knows"]),
            ("node:eu-1", &["region:eu"]),
            ("shop/web@prod,region:eu", &["node:eu-1", "shop/web@prod"]),
            ("fleet", &["node:us-1"]),
            // What names no node may be about any; what names no app, too.
            ("region:eu", &["shop/web@prod"]),
            ("shop/web@prod,region:eu", &["shop/web@prod"]),
            ("shop/web@prod,region:eu", &["node:eu-1"]),
            ("shop/web@prod", &["node:eu-1"]),
            ("shop/web@prod", &[]),
        ] {
            assert!(meets(scope, scopes), "{scope} {scopes:?}");
        }
    }

    #[test]
    fn what_does_not_touch_it_is_told_too() {
        for (scope, scopes) in [
            ("shop/web@prod", &["shop/web@staging"][..]),
            ("shop/web@prod", &["blog/site@prod", "node:eu-1"]),
            ("shop/web@prod", &["project:blog"]),
            ("project:shop", &["blog/site"]),
            ("region:eu", &["node:us-1"]),
            ("node:eu-1", &["region:us"]),
            ("shop/web@prod,region:eu", &["node:us-1", "shop/web@prod"]),
            ("shop/web@prod,region:eu", &["node:eu-1", "blog/site@prod"]),
            ("shop/web@prod,region:eu", &["node:us-1"]),
        ] {
            assert!(!meets(scope, scopes), "{scope} {scopes:?}");
        }
    }

    #[test]
    fn a_placement_may_be_about_nodes_it_does_not_name() {
        let touches = |scope: &str| {
            let scopes = ["node:us-1".to_owned(), "shop/web@prod".to_owned()];
            touches(&scope.parse().unwrap(), &Regions::new(), PLACEMENT_CHANGED, &scopes)
        };
        assert!(touches("node:eu-1"));
        assert!(touches("shop/web@prod,node:eu-1"));
        assert!(!touches("shop/api@prod,node:eu-1"));
    }
}
