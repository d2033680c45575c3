//! The digests of what an app's instances are made of.

use crate::digest::Digest;
use crate::ids::{AppEnv, NodeName, ServiceName, Slot};
use crate::release::Revision;
use crate::revisions::Revisions;
use crate::state::State;

/// The digests of an app's specs in an environment, each made once: many instances are made of the same.
#[derive(Debug)]
pub struct Specs<'a> {
    state: &'a State,
    app_env: &'a AppEnv,
    revisions: Revisions<'a>,
    known: Vec<(&'a Revision, ServiceName, Option<Digest>)>,
}

impl<'a> Specs<'a> {
    /// Of an app whose releases, configs and secrets a State knows.
    pub fn new(state: &'a State, app_env: &'a AppEnv) -> Self {
        Self { state, app_env, revisions: state.revisions(app_env), known: Vec::new() }
    }

    /// Of a service of a revision; none when State lacks what it is made of.
    pub fn of(&mut self, revision: &'a Revision, service: &ServiceName) -> Option<Digest> {
        let known = self.known.iter().find(|(other, name, _)| name == service && *other == revision);
        if let Some((_, _, spec)) = known {
            return *spec;
        }
        let spec = self.state.instance_spec(self.app_env, revision, service).map(|spec| spec.digest());
        self.known.push((revision, service.clone(), spec));
        spec
    }

    /// Of what should fill a slot on a node; none where nothing should.
    pub fn at(&mut self, slot: &Slot, node: &NodeName) -> Option<Digest> {
        self.of(self.revisions.at(node)?, &slot.service)
    }
}
