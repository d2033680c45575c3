//! What differs between the targets of two States, down to a variable or a file.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::event::Pin;
use crate::fields::{self, Path};
use crate::ids::{AppEnv, NodeName, Place, ServiceName, Slot};
use crate::release::Revision;
use crate::scope::Scope;
use crate::state::State;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// The app and environment.
    pub app_env: AppEnv,
    /// Where, such as `services.web.container.env.GREETING`, `placement.web.0` or `pins.region:eu`.
    /// Empty for an app that came or went.
    pub path: String,
    /// What it was; absent when it was not there.
    pub before: Option<String>,
    /// What it is; absent when it is no longer there.
    pub after: Option<String>,
}

/// What differs in a scope's target between two States.
///
/// Where nothing differs, the scope's target digests are equal, and the other way round.
pub fn diff(before: &State, after: &State, scope: &Scope) -> Vec<Difference> {
    let apps: BTreeSet<_> = before.targeted().into_iter().chain(after.targeted()).collect();
    let mut differences = Vec::new();
    for app_env in apps.into_iter().filter(|app_env| scope.covers_app_env(app_env)) {
        let mut found = Vec::new();
        let side = |state| in_force(state, scope, app_env).map(|revision| described(state, revision));
        compare(&mut Vec::new(), side(before).as_ref(), side(after).as_ref(), &mut found);
        pins(before, after, scope, app_env, &mut found);
        placement(before, after, scope, app_env, &mut found);
        differences.extend(found.into_iter().map(|(path, before, after)| Difference {
            app_env: app_env.clone(),
            path,
            before,
            after,
        }));
    }
    differences
}

/// Where, what it was and what it is.
type Found = (String, Option<String>, Option<String>);

/// The revision of an app in a scope; in a place only if the app is there or should be.
fn in_force<'a>(state: &'a State, scope: &Scope, app_env: &AppEnv) -> Option<&'a Revision> {
    let everywhere = state.target.intent.get(app_env).map(AsRef::as_ref);
    if !scope.is_placed() {
        return everywhere;
    }
    let occupied = || state.slots(app_env).any(|(_, node)| scope.covers_node(node, state.region_of(node)));
    let pin_of = |place| state.target.pins.get(&(app_env.clone(), place)).map(AsRef::as_ref);
    if let Some(node) = &scope.node {
        if !scope.covers_node(node, state.region_of(node)) {
            return None;
        }
        let pinned = matches!(pin_of(Place::Node(node.clone())), Some(Pin::Revision(_)));
        return state.revision_at(app_env, node).filter(|_| pinned || occupied());
    }
    match pin_of(Place::Region(scope.region.clone()?)) {
        Some(Pin::Revision(revision)) => Some(revision),
        Some(Pin::Absent) => None,
        None => everywhere.filter(|_| occupied()),
    }
}

/// A revision's fields with its number and the tags its images were asked for by.
fn described(state: &State, revision: &Revision) -> Json {
    let mut fields = fields::of_revision(state, revision);
    let record = state.history.releases.get(&revision.release);
    let name = record.map_or_else(|| revision.release.short(), |record| format!("v{}", record.number));
    fields.insert("release".to_owned(), Json::String(name));
    for (service, asked) in record.into_iter().flat_map(|record| &record.images) {
        let image = fields
            .get_mut("services")
            .and_then(|services| services.get_mut(service.as_str())?.get_mut("container")?.get_mut("image"));
        let Some(image) = image else { continue };
        if asked.contains('@') {
            *image = Json::String(asked.clone());
        } else if let Some(digest) = image["digest"].as_str() {
            *image = Json::String(format!("{asked}@{digest}"));
        }
    }
    Json::Object(fields)
}

/// Adds what differs between two trees of fields.
fn compare(path: &mut Path, before: Option<&Json>, after: Option<&Json>, found: &mut Vec<Found>) {
    if before == after {
        return;
    }
    // The members of a bundle are there or not, each for itself; a whole app or service that
    // came or went is one difference, not a hundred.
    let is_bundle = matches!(path.as_slice(), [name] if name == "config" || name == "secrets");
    let absent = if is_bundle { Json::Object(Map::new()) } else { Json::Null };
    let (left, right) = (before.unwrap_or(&absent), after.unwrap_or(&absent));
    let known = found.len();
    if let Some(maps) = fields::members(path, &[left, right]) {
        let keys: BTreeSet<_> = maps.iter().flat_map(|map| map.keys()).collect();
        for key in keys {
            path.push(key.clone());
            compare(path, maps[0].get(key), maps[1].get(key), found);
            path.pop();
        }
    }
    if found.len() == known {
        let side = |value: Option<&Json>| value.and_then(|value| fields::show(path, value));
        found.push((fields::written(path), side(before), side(after)));
    }
}

/// Pins inside the scope; the one of the scope's own place is in what is in force there.
fn pins(before: &State, after: &State, scope: &Scope, app_env: &AppEnv, found: &mut Vec<Found>) {
    let within = |state: &State| -> BTreeMap<Place, Pin> {
        state
            .pins(app_env)
            .filter(|(place, _)| match place {
                _ if !scope.is_placed() => true,
                Place::Region(_) => false,
                Place::Node(node) => scope.node.is_none() && scope.region.as_ref() == state.region_of(node),
            })
            .map(|(place, pin)| (place.clone(), pin.as_ref().clone()))
            .collect()
    };
    let (was, is) = (within(before), within(after));
    let places: BTreeSet<_> = was.keys().chain(is.keys()).collect();
    for place in places {
        let (left, right) = (was.get(place), is.get(place));
        if left != right {
            let left = left.map(|pin| fields::show_pin(before, app_env, pin));
            let right = right.map(|pin| fields::show_pin(after, app_env, pin));
            found.push((format!("pins.{place}"), left, right));
        }
    }
}

/// Slots and their nodes, as far as the scope covers these.
type Slots = BTreeMap<Slot, NodeName>;

fn placement(before: &State, after: &State, scope: &Scope, app_env: &AppEnv, found: &mut Vec<Found>) {
    if !scope.is_placed() {
        for (slot, was, is) in before.slots_beside(after, app_env).filter(|(_, was, is)| was != is) {
            found.push(placed(slot, was, is));
        }
        return;
    }
    let covered = |state: &State| -> Slots {
        state
            .slots(app_env)
            .filter(|(_, node)| scope.covers_node(node, state.region_of(node)))
            .map(|(slot, node)| (slot.clone(), node.clone()))
            .collect()
    };
    let (mut was, mut is) = (covered(before), covered(after));
    pair_off(&mut was, &mut is);
    let slots: BTreeSet<_> = was.keys().chain(is.keys()).collect();
    for slot in slots {
        let (left, right) = (was.get(slot), is.get(slot));
        if left != right {
            found.push(placed(slot, left, right));
        }
    }
}

fn placed(slot: &Slot, was: Option<&NodeName>, is: Option<&NodeName>) -> Found {
    let path = format!("placement.{}.{}", slot.service, slot.index);
    (path, was.map(ToString::to_string), is.map(ToString::to_string))
}

/// Leaves out as many instances of a service on a node as both have: inside a place, which
/// of its app's replicas an instance is means nothing.
fn pair_off(was: &mut Slots, is: &mut Slots) {
    // Those under one index first, so that what stays is not told as a change of another.
    let same: Vec<_> = was.iter().filter(|(slot, node)| is.get(*slot) == Some(*node)).collect();
    let same: Vec<Slot> = same.into_iter().map(|(slot, _)| slot.clone()).collect();
    for slot in same {
        was.remove(&slot);
        is.remove(&slot);
    }
    let mut left: BTreeMap<(ServiceName, NodeName), Vec<Slot>> = BTreeMap::new();
    for (slot, node) in was.iter() {
        left.entry((slot.service.clone(), node.clone())).or_default().push(slot.clone());
    }
    let candidates: Vec<_> = is.iter().map(|(slot, node)| (slot.clone(), node.clone())).collect();
    for (slot, node) in candidates {
        let partner = left.get_mut(&(slot.service.clone(), node)).and_then(Vec::pop);
        if let Some(partner) = partner {
            was.remove(&partner);
            is.remove(&slot);
        }
    }
}
