//! What a rollback of a place leaves as it is elsewhere.
//!
//! Where a rollout did not succeed and only places of the app went back since, nobody has decided that the rest goes
//! on with it. A new deployment, another configuration or a rollback of all of the app decides.

use std::collections::BTreeMap;

use crate::event::{Outcome, Pin};
use crate::ids::{AppEnv, Place, Seq};
use crate::state::{Deployment, State};

/// Why an app stays as it is wherever no place is pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The deployment to what should be wherever no place is pinned.
    pub deployment: Seq,
    /// Whether it failed. If not, it was broken off.
    pub failed: bool,
}

impl State {
    /// The hold on an app in an environment, if any: some place is pinned, the newest deployment was about places
    /// alone, and the newest that was not has not succeeded.
    pub fn hold(&self, app_env: &AppEnv) -> Option<Hold> {
        let (_, latest) = self.latest_deployment(app_env)?;
        if latest.is_of_places() { self.hold_after_places(app_env) } else { None }
    }

    /// The hold there will be once the newest deployment of an app is about places alone.
    pub fn hold_after_places(&self, app_env: &AppEnv) -> Option<Hold> {
        self.pins(app_env).next()?;
        let mut latest_first = self.deployments_of(app_env, 0..=Seq::MAX).rev();
        let (deployment, whole) = latest_first.find(|(_, deployment)| !deployment.is_of_places())?;
        let is_success = matches!(whole.finished, Some((_, _, Outcome::Succeeded)));
        (!is_success).then(|| Hold { deployment, failed: whole.has_failed() })
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
        if after.is_empty() && !self.failed {
            return Vec::new();
        }
        let everywhere = match state.target.intent.get(app_env) {
            Some(revision) => Pin::Revision(revision.as_ref().clone()),
            None => Pin::Absent,
        };
        let mut kept = Vec::new();
        // Regions come before nodes.
        for (place, _) in state.pins(app_env) {
            let region = match place {
                Place::Node(node) => state.region_of(node).cloned().map(Place::Region),
                Place::Region(_) => None,
            };
            let is_pinned = |place: &Place| after.contains_key(place);
            if !is_pinned(place) && !region.as_ref().is_some_and(is_pinned) {
                kept.push(place.clone());
                after.insert(place.clone(), everywhere.clone());
            }
        }
        kept
    }
}

impl Deployment {
    /// Whether it ended without success. One that another took the place of has not failed.
    pub fn has_failed(&self) -> bool {
        matches!(self.finished, Some((_, _, Outcome::Failed { .. } | Outcome::Unplaced { .. })))
    }
}
