//! Which images a node must not lose: those that a point in the retention window could need there.
//!
//! State knows which revisions were in force and when, but not where instances were: a past
//! placement is only in a past State. So an image is kept on every node that its service could be
//! placed on by the node's labels as they are now, which is also where a rollback could put it.
//!
//! Neither does State know which places were pinned earlier. Whoever has the log looks at the
//! moments in [`pins_changed`] and says what was pinned right after each.

use std::collections::{BTreeMap, BTreeSet};

use stele_model::event::{DeploymentKind, Pin};
use stele_model::limits::{CHANGES_PER_APP_MAX, DEPLOYMENTS_PER_APP_MAX, KEPT_IMAGES_MAX, RELEASES_KEPT_MIN};
use stele_model::release::Image;
use stele_model::{AppEnv, Digest, NodeName, Selector, Seq, State};

/// Releases that places were pinned to.
pub type Pinned = BTreeSet<(AppEnv, Digest)>;

/// Why nobody can say which images are needed, so that none may be removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// State forgot what was in force in the window.
    #[error("{0} changed so often that State does not know all of the window any more")]
    Forgotten(AppEnv),
    /// More than a node is told.
    #[error("{count} images are needed on {node}, more than the {KEPT_IMAGES_MAX} that a node is told of")]
    TooMany {
        /// Where.
        node: NodeName,
        /// How many.
        count: usize,
    },
}

/// The images of everything that was in force in the window, by where their services may run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    by_selector: BTreeMap<Selector, BTreeSet<Image>>,
    /// An app of which State does not know the whole window any more.
    forgotten: Option<AppEnv>,
}

/// The seqs of the deployments since which places may have been pinned, oldest first: only a
/// rollback or an undo pins.
pub fn pins_changed(state: &State, since: Seq) -> Vec<Seq> {
    let pins = |kind| matches!(kind, DeploymentKind::Rollback | DeploymentKind::Undo);
    let since = state.history.deployments.range(since..);
    since.filter(|(_, deployment)| pins(deployment.kind)).map(|(seq, _)| *seq).collect()
}

/// What places are pinned to in a State.
pub fn pinned(state: &State) -> Pinned {
    let pins = state.target.pins.iter();
    pins.filter_map(|((app_env, _), pin)| match pin.as_ref() {
        Pin::Revision(revision) => Some((app_env.clone(), revision.release)),
        Pin::Absent => None,
    })
    .collect()
}

impl Retained {
    /// Of a State, with the window from the point `since` until now, and what was pinned in it:
    /// at `since`, and right after each of [`pins_changed`].
    ///
    /// An app that was in force at some point in the window also keeps its last
    /// [`RELEASES_KEPT_MIN`] releases, however old.
    pub fn new(state: &State, since: Seq, pinned_then: &Pinned) -> Self {
        let mut retained = Self::default();
        let forgetful = forgetful(state, since);
        for app_env in state.history.last_changed.keys() {
            let (releases, is_known) = releases(state, app_env, since, !forgetful.contains(app_env));
            for release in releases {
                retained.add(state, &release);
            }
            if !is_known {
                retained.forgotten.get_or_insert_with(|| app_env.clone());
            }
        }
        for (_, release) in pinned_then.iter().chain(&pinned(state)) {
            retained.add(state, release);
        }
        retained
    }

    fn add(&mut self, state: &State, release: &Digest) {
        let Some(record) = state.history.releases.get(release) else { return };
        for service in record.release.services.values() {
            let nodes = service.placement.nodes();
            let images = self.by_selector.entry(nodes.clone()).or_default();
            images.insert(service.container.image.clone());
        }
    }

    /// What a node must not lose, in order. Nothing for one that is not of the fleet.
    pub fn on(&self, state: &State, node: &NodeName) -> Result<Vec<Image>, Unknown> {
        if let Some(app_env) = &self.forgotten {
            return Err(Unknown::Forgotten(app_env.clone()));
        }
        let Some(enrolled) = state.control.nodes.get(node) else { return Ok(Vec::new()) };
        let labels = state.node_labels(enrolled);
        let mut images: BTreeSet<&Image> = BTreeSet::new();
        for (_, some) in self.by_selector.iter().filter(|(selector, _)| selector.matches(&labels)) {
            images.extend(some);
        }
        if images.len() > KEPT_IMAGES_MAX {
            return Err(Unknown::TooMany { node: node.clone(), count: images.len() });
        }
        Ok(images.into_iter().cloned().collect())
    }

    /// Every image, wherever it is needed, as far as State knows.
    pub fn images(&self) -> BTreeSet<&Image> {
        self.by_selector.values().flatten().collect()
    }
}

/// The releases of an app that a point in the window could need, and the last few before; and
/// whether those are all.
fn releases(state: &State, app_env: &AppEnv, since: Seq, knows_pins: bool) -> (BTreeSet<Digest>, bool) {
    let range = (app_env.clone(), 0)..=(app_env.clone(), u64::MAX);
    let (mut found, mut count) = (BTreeSet::new(), 0);
    // The last seq at which the change looked at was in force.
    let mut until = state.seq;
    let mut in_window = false;
    for (_, change) in state.history.changes.range(range).rev() {
        if until < since && knows_pins && (!in_window || found.len() >= RELEASES_KEPT_MIN) {
            return (found, true);
        }
        if let Some(revision) = &change.revision {
            in_window |= until >= since;
            if in_window || !knows_pins {
                found.insert(revision.release);
            }
        }
        until = change.first.saturating_sub(1);
        count += 1;
    }
    // What was in force before the oldest change that is known may be needed as well.
    let is_known = count < CHANGES_PER_APP_MAX || (until < since && knows_pins);
    (found, is_known)
}

/// Apps of which deployments in the window are forgotten, and with them rollbacks: anything that
/// was ever in force may have been pinned then.
fn forgetful(state: &State, since: Seq) -> BTreeSet<&AppEnv> {
    let mut finished: BTreeMap<&AppEnv, (Seq, usize)> = BTreeMap::new();
    for (seq, deployment) in &state.history.deployments {
        if deployment.finished.is_some() {
            finished.entry(&deployment.app_env).or_insert((*seq, 0)).1 += 1;
        }
    }
    finished.retain(|_, (oldest, count)| *oldest > since && *count >= DEPLOYMENTS_PER_APP_MAX);
    finished.into_keys().collect()
}
