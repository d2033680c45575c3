//! The digest of a scope's target, in its two halves.
//!
//! It is equal again after a rollback, and in a fork: nothing in it names a seq, a
//! time or a generated id, and names inside are relative to the scope.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::digest::Digest;
use crate::event::{Pin, TargetDigest};
use crate::ids::{AppEnv, NodeName, Place, Slot};
use crate::scope::Scope;
use crate::state::State;
use crate::trie::Trie;

/// Entries, each of another name.
type Rows = Vec<(Digest, Digest)>;

impl State {
    /// The digest of a scope's target (`docs/log-format.md`, "Target digests").
    pub fn target_digest(&self, scope: &Scope) -> TargetDigest {
        TargetDigest { intent: self.intent_digest(scope), placement: self.placement_digest(scope) }
    }

    /// The same, where another State and its digest are known: most of it is spared when all instances
    /// are placed there as they are here.
    pub fn target_digest_after(&self, scope: &Scope, other: &Self, known: TargetDigest) -> TargetDigest {
        let same = !scope.is_placed() && self.slots_of(scope).eq(other.slots_of(scope));
        let placement = if same { known.placement } else { self.placement_digest(scope) };
        TargetDigest { intent: self.intent_digest(scope), placement }
    }

    /// Whether the target of a scope is placed as it is in another State.
    pub(crate) fn is_placed_as_in(&self, other: &Self, scope: &Scope) -> bool {
        if scope.is_placed() {
            self.placement_digest(scope) == other.placement_digest(scope)
        } else {
            self.slots_of(scope).eq(other.slots_of(scope))
        }
    }

    pub(crate) fn intent_digest(&self, scope: &Scope) -> Digest {
        let mut intent = Rows::new();
        for app_env in self.targeted() {
            if scope.covers_app_env(app_env) {
                if scope.is_placed() {
                    self.placed_intent(scope, app_env, &mut intent);
                } else {
                    self.intent(scope, app_env, &mut intent);
                }
            }
        }
        Trie::digest_of(intent)
    }

    fn placement_digest(&self, scope: &Scope) -> Digest {
        let mut placement = Rows::new();
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        // There are many more slots than nodes and apps.
        let mut nodes: BTreeMap<&NodeName, Digest> = BTreeMap::new();
        let (mut name, mut last_app, mut app) = (String::new(), None, String::new());
        for (slot, node) in self.slots_of(scope) {
            if last_app != Some(&slot.app_env) {
                (last_app, app) = (Some(&slot.app_env), relative(scope, &slot.app_env));
            }
            if scope.is_placed() {
                // Which of its app's replicas an instance is means nothing inside a place.
                *counts.entry(format!("{app}/{}#{node}", slot.service)).or_default() += 1;
            } else {
                let node = *nodes.entry(node).or_insert_with(|| Digest::of_json(node));
                name.clear();
                // Writing to a string does not fail.
                let _ = write!(name, "{app}/{}.{}", slot.service, slot.index);
                placement.push(Trie::named(&name, node));
            }
        }
        for (name, count) in counts {
            placement.push(Trie::named(&name, Digest::of_json(&count)));
        }
        Trie::digest_of(placement)
    }

    /// The slots that a scope covers.
    fn slots_of<'a>(&'a self, scope: &'a Scope) -> impl Iterator<Item = (&'a Slot, &'a NodeName)> + 'a {
        self.slots_in(scope).filter(|(slot, node)| {
            let is_in_place = || !scope.is_placed() || scope.covers_node(node, self.region_of(node));
            scope.covers_app_env(&slot.app_env) && is_in_place()
        })
    }

    /// All slots, or those of the one app that a scope is about: a rollback asks of each app in turn.
    fn slots_in(&self, scope: &Scope) -> Box<dyn Iterator<Item = (&Slot, &NodeName)> + '_> {
        match (&scope.app, &scope.environment) {
            (Some(app), Some(environment)) => {
                Box::new(self.slots(&AppEnv::new(app.clone(), environment.clone())))
            }
            _ => Box::new(self.target.placement.iter()),
        }
    }

    fn intent(&self, scope: &Scope, app_env: &AppEnv, rows: &mut Rows) {
        let app = relative(scope, app_env);
        if let Some(revision) = self.target.intent.get(app_env) {
            rows.push(Trie::named(&app, Digest::of_json(revision)));
        }
        for (place, pin) in self.pins(app_env) {
            rows.push(Trie::named(&format!("{app}#{place}"), Digest::of_json(pin)));
        }
    }

    /// What an app is inside a place: the revision in force there, if it has or should have
    /// instances there, and nodes of a region that differ from it.
    fn placed_intent(&self, scope: &Scope, app_env: &AppEnv, rows: &mut Rows) {
        let app = relative(scope, app_env);
        let occupied = || self.slots(app_env).any(|(_, node)| scope.covers_node(node, self.region_of(node)));
        let pin_of = |place| self.target.pins.get(&(app_env.clone(), place)).map(AsRef::as_ref);
        if let Some(node) = &scope.node {
            if !scope.covers_node(node, self.region_of(node)) {
                return;
            }
            let pinned = matches!(pin_of(Place::Node(node.clone())), Some(Pin::Revision(_)));
            if let Some(revision) = self.revision_at(app_env, node).filter(|_| pinned || occupied()) {
                rows.push(Trie::named(&app, Digest::of_json(revision)));
            }
            return;
        }
        let Some(region) = &scope.region else { return };
        let revision = match pin_of(Place::Region(region.clone())) {
            Some(Pin::Revision(revision)) => Some(revision),
            Some(Pin::Absent) => None,
            None => self.target.intent.get(app_env).map(AsRef::as_ref).filter(|_| occupied()),
        };
        if let Some(revision) = revision {
            rows.push(Trie::named(&app, Digest::of_json(revision)));
        }
        for (place, pin) in self.pins(app_env) {
            if let Place::Node(node) = place
                && self.region_of(node) == Some(region)
            {
                rows.push(Trie::named(&format!("{app}#{place}"), Digest::of_json(pin)));
            }
        }
    }
}

/// An app's name inside a scope: what the scope fixes is left out.
fn relative(scope: &Scope, app_env: &AppEnv) -> String {
    match (&scope.app, &scope.project, &scope.environment) {
        (Some(_), _, Some(_)) => String::new(),
        (Some(_), _, None) => format!("@{}", app_env.environment),
        (None, Some(_), Some(_)) => app_env.app.app.to_string(),
        (None, Some(_), None) => format!("{}@{}", app_env.app.app, app_env.environment),
        (None, None, Some(_)) => app_env.app.to_string(),
        (None, None, None) => app_env.to_string(),
    }
}
