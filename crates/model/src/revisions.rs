//! What an app is on each node, for whoever looks at many of its instances.

use crate::ids::{AppEnv, NodeName, ServiceName, Slot};
use crate::release::{Release, Revision, Service};
use crate::state::State;

/// The revisions of an app in an environment. What is the same wherever no place is pinned is looked up once.
#[derive(Debug)]
pub struct Revisions<'a> {
    state: &'a State,
    app_env: AppEnv,
    everywhere: Option<&'a Revision>,
    release: Option<&'a Release>,
    is_pinned: bool,
}

impl<'a> Revisions<'a> {
    fn new(state: &'a State, app_env: &AppEnv) -> Self {
        let everywhere = state.target.intent.get(app_env).map(AsRef::as_ref);
        let release = everywhere.and_then(|revision| state.release_of(revision));
        let is_pinned = !state.target.pins.is_empty() && state.pins(app_env).next().is_some();
        Self { state, app_env: app_env.clone(), everywhere, release, is_pinned }
    }

    /// Whether some place of the app is pinned.
    pub fn is_pinned(&self) -> bool {
        self.is_pinned
    }

    /// What is in force wherever no place is pinned.
    pub fn everywhere(&self) -> Option<&'a Release> {
        self.release
    }

    /// What the app's instances on a node should be of; none when it should not be there.
    pub fn at(&self, node: &NodeName) -> Option<&'a Revision> {
        if self.is_pinned { self.state.revision_at(&self.app_env, node) } else { self.everywhere }
    }

    /// What fills the app's slots of a service on a node; none when nothing should.
    pub fn service(&self, service: &ServiceName, node: &NodeName) -> Option<&'a Service> {
        let release = if self.is_pinned { self.state.release_of(self.at(node)?) } else { self.release };
        release?.services.get(service)
    }
}

impl State {
    /// What an app in an environment is on each node.
    pub fn revisions(&self, app_env: &AppEnv) -> Revisions<'_> {
        Revisions::new(self, app_env)
    }

    /// The release that a revision names.
    pub fn release_of(&self, revision: &Revision) -> Option<&Release> {
        self.history.releases.get(&revision.release).map(|record| &record.release)
    }

    /// The slots of all apps with their nodes, in order, and what fills each.
    pub fn filled_slots(&self) -> impl Iterator<Item = (&Slot, &NodeName, Option<&Service>)> {
        let mut revisions: Option<Revisions<'_>> = None;
        self.target.placement.iter().map(move |(slot, node)| {
            // Those of one app are together.
            if revisions.as_ref().is_none_or(|revisions| revisions.app_env != slot.app_env) {
                revisions = Some(self.revisions(&slot.app_env));
            }
            (slot, node, revisions.as_ref().and_then(|revisions| revisions.service(&slot.service, node)))
        })
    }
}
