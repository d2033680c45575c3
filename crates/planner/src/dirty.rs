//! What is worth another look of the planner.

use std::collections::BTreeSet;

use stele_model::{AppEnv, Event, Header, State};

/// Apps that the planner has not seen since something of theirs changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dirty {
    /// These.
    Apps(BTreeSet<AppEnv>),
    /// Every one, and the fleet itself.
    All,
}

impl Dirty {
    /// Has an app looked at again.
    pub fn add(&mut self, app_env: AppEnv) {
        if let Self::Apps(apps) = self {
            apps.insert(app_env);
        }
    }

    /// What a record makes worth a look, as State is after it. What concerns nodes may move any app's
    /// instances, and their labels may move those that choose by labels; all else names its apps.
    pub fn note(&mut self, state: &State, header: &Header, event: &Event) {
        match event {
            Event::NodeLabelled { .. } => {
                state.choosing_by_labels().into_iter().for_each(|app_env| self.add(app_env));
            }
            Event::NodeEnrolled { .. }
            | Event::NodeRemoved { .. }
            | Event::NodeDrained { .. }
            | Event::NodeResumed { .. }
            | Event::NodesLost { .. }
            | Event::NodesReturned { .. }
            | Event::FleetCreated { .. }
            | Event::ControllerCertified { .. }
            | Event::MembershipChanged { .. } => *self = Self::All,
            _ => header
                .scopes
                .iter()
                .filter_map(|scope| scope.parse().ok())
                .for_each(|app_env| self.add(app_env)),
        }
    }
}
