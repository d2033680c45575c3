//! What a rollback of a place leaves as it is elsewhere.
//!
//! Where a rollout did not succeed and only places of the app went back since, nobody has decided that the rest goes
//! on with it. A new deployment, another configuration or a rollback of all of the app decides.

use std::collections::BTreeMap;

use crate::event::{DeploymentKind, Outcome, Pin};
use crate::ids::{AppEnv, NodeName, Place, Seq};
use crate::specs::Specs;
use crate::state::{Deployment, State};

/// Why an app stays as it is wherever no place is pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The deployment to what should be wherever no place is pinned; absent when it is so old that only the log
    /// knows it.
    pub deployment: Option<Seq>,
    /// Whether it failed, as far as it is known. If not, it was broken off or is on its way.
    pub failed: bool,
}

impl State {
    /// The hold on an app in an environment, if any: some place is pinned, the newest deployment was about places
    /// alone, and the newest one of all of the app has not succeeded.
    pub fn hold(&self, app_env: &AppEnv) -> Option<Hold> {
        let (seq, latest) = self.latest_deployment(app_env)?;
        self.pins(app_env).next()?;
        let hold = self.unsuccessful(app_env).filter(|_| self.is_of_places(seq, latest))?;
        // Where nothing is known of it any more, what came everywhere did well enough.
        let came_everywhere = || self.is_told(app_env, |node| self.pin_at(app_env, node).is_none());
        (hold.deployment.is_some() || !came_everywhere()).then_some(hold)
    }

    /// The newest deployment of all of an app, unless it has succeeded: what is held once only places are decided on.
    pub fn unsuccessful(&self, app_env: &AppEnv) -> Option<Hold> {
        let mut latest_first = self.deployments_of(app_env, 0..=Seq::MAX).rev().peekable();
        latest_first.peek()?;
        let Some((seq, whole)) = latest_first.find(|(seq, it)| !self.is_of_places(*seq, it)) else {
            // Many places were decided on since. What is not known to have worked is not gone on with.
            return Some(Hold { deployment: None, failed: true });
        };
        let is_success = matches!(whole.finished, Some((_, _, Outcome::Succeeded)));
        (!is_success).then(|| Hold { deployment: Some(seq), failed: whole.has_failed() })
    }

    /// Whether some nodes were told all that an app should be on them.
    fn is_told(&self, app_env: &AppEnv, on: impl Fn(&NodeName) -> bool) -> bool {
        let revisions = self.revisions(app_env);
        let mut specs = Specs::new(self, app_env);
        self.slots(app_env).filter(|(_, node)| on(node)).all(|(slot, node)| {
            let spec = revisions.at(node).and_then(|revision| specs.of(revision, &slot.service));
            spec.is_some_and(|spec| self.is_assigned(slot, node, spec))
        })
    }

    /// Whether a deployment was about places that are pinned, or no longer are, and not about what the rest of the
    /// app should be.
    pub fn is_of_places(&self, seq: Seq, deployment: &Deployment) -> bool {
        deployment.leaves_the_rest() && {
            // Who decides for all of the app says so, even where that should be what it is.
            let range = (deployment.app_env.clone(), seq)..=(deployment.app_env.clone(), Seq::MAX);
            let decided = self.history.changes.range(range).next();
            decided.is_none_or(|(_, change)| change.first > seq)
        }
    }
}

impl Hold {
    /// Keeps places apart that would no longer be pinned, and says which: they go on alone, pinned to what should be
    /// everywhere. Without pins nothing would tell them from what is held, or all of it would go on with them. Only
    /// where the last pin goes and nothing failed is everything as if nobody had held it.
    pub(crate) fn keep_apart(
        self,
        state: &State,
        app_env: &AppEnv,
        after: &mut BTreeMap<Place, Pin>,
    ) -> Vec<Place> {
        if (after.is_empty() && !self.failed) || planted!(UndoneEverywhere) {
            return Vec::new();
        }
        let everywhere = match state.target.intent.get(app_env) {
            Some(revision) => Pin::Revision(revision.as_ref().clone()),
            None => Pin::Absent,
        };
        let mut kept = Vec::new();
        // Regions come before nodes.
        for (place, _) in state.pins(app_env) {
            if !after.contains_key(place) && !is_within_a_pin(state, place, after) {
                kept.push(place.clone());
                after.insert(place.clone(), everywhere.clone());
            }
        }
        kept
    }

    /// Why something stays as it is.
    pub(crate) fn why(self) -> String {
        match (self.deployment, self.failed) {
            (Some(seq), true) => format!("deployment {seq} failed"),
            (Some(seq), false) => format!("deployment {seq} did not come to its end"),
            (None, _) => "of its last deployment nothing is known any more".to_owned(),
        }
    }
}

/// Whether a place is a node whose region is pinned.
pub(crate) fn is_within_a_pin(state: &State, place: &Place, pins: &BTreeMap<Place, Pin>) -> bool {
    let Place::Node(node) = place else { return false };
    state.region_of(node).is_some_and(|region| pins.contains_key(&Place::Region(region.clone())))
}

impl Deployment {
    /// Whether it left what the app should be as it was. To deploy the same again is to try again.
    pub(crate) fn leaves_the_rest(&self) -> bool {
        matches!(self.kind, DeploymentKind::Rollback | DeploymentKind::Undo) && self.from == self.to
    }

    /// Whether it ended without success. One that another took the place of has not failed.
    pub fn has_failed(&self) -> bool {
        matches!(self.finished, Some((_, _, Outcome::Failed { .. } | Outcome::Unplaced { .. })))
    }
}
