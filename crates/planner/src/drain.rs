//! What is still on a drained node, and what it waits for.

use std::collections::{BTreeMap, BTreeSet};

use stele_model::release::Service;
use stele_model::{AppEnv, InstanceId, NodeName, Place, Slot, State};

use crate::placement::{Placing, is_done, place};

/// An instance that is still on a drained node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staying {
    /// Which.
    pub instance: InstanceId,
    /// What it waits for.
    pub why: String,
}

/// What a drained node was told to run, or tells of, in order; nothing for one that is not drained.
pub fn staying(state: &State, node: &NodeName) -> Vec<Staying> {
    if !state.is_drained(node) {
        return Vec::new();
    }
    let told: BTreeSet<_> = state.assigned.get(node).into_iter().flat_map(|it| it.instances.keys()).collect();
    let seen: BTreeSet<_> = state.observed.get(node).into_iter().flat_map(|it| it.instances.keys()).collect();
    let mut apps: BTreeMap<&AppEnv, Result<Placing, String>> = BTreeMap::new();
    let runs = |id: &&&InstanceId| !is_done(state, &id.slot, node);
    let staying = told.union(&seen).filter(runs).map(|id| {
        let app_env = &id.slot.app_env;
        let mut of_app = || {
            let placing = apps.entry(app_env).or_insert_with(|| match why_app_stays(state, app_env, node) {
                Some(why) => Err(why),
                None => Ok(place(state, app_env)),
            });
            match placing {
                Ok(placing) => why_slot_stays(state, placing, &id.slot, node),
                Err(why) => why.clone(),
            }
        };
        let why = match (told.contains(id), state.is_reachable(node)) {
            (true, _) => of_app(),
            (false, true) => "it is being stopped".to_owned(),
            (false, false) => format!("it is stopped when {node} is heard of again"),
        };
        Staying { instance: (*id).clone(), why }
    });
    staying.collect()
}

/// Why nothing of an app leaves a node, if that is so whatever room there is.
fn why_app_stays(state: &State, app_env: &AppEnv, node: &NodeName) -> Option<String> {
    if let Some(place) = pinned_place(state, app_env, node) {
        return Some(format!(
            "it is pinned in {place} until {app_env} is deployed again, or all of it rolled back"
        ));
    }
    if state.hold(app_env).is_some() {
        return Some(format!(
            "other places of {app_env} went back, and nothing else of it changes until it is deployed again"
        ));
    }
    let (seq, latest) = state.latest_deployment(app_env)?;
    latest.has_failed().then(|| {
        format!("deployment {seq} failed, and nothing of {app_env} changes until it is deployed again or rolled back")
    })
}

fn pinned_place(state: &State, app_env: &AppEnv, node: &NodeName) -> Option<Place> {
    let is_here = |place: &Place| match place {
        Place::Node(pinned) => pinned == node,
        Place::Region(region) => state.region_of(node) == Some(region),
    };
    state.pins(app_env).map(|(place, _)| place).find(|place| is_here(place)).cloned()
}

fn why_slot_stays(state: &State, placing: &Placing, slot: &Slot, node: &NodeName) -> String {
    let service = state.revisions(&slot.app_env).service(&slot.service, node);
    let kept = || placing.kept.iter().find(|kept| kept.slot.service == slot.service);
    match state.target.placement.get(slot) {
        Some(home) if home != node && !state.is_reachable(home) => {
            format!("what takes its place on {home} is not heard of")
        }
        Some(home) if home != node => format!("what takes its place on {home} is not healthy yet"),
        Some(_) if service.is_some_and(Service::leaves_data_behind) => {
            format!("it writes to a volume, whose data would stay on {node}")
        }
        Some(_) => kept().map_or_else(
            || format!("it goes once its turn comes: the others of {} are to be healthy first", slot.service),
            |kept| kept.reason.clone(),
        ),
        None if state.running_deployment(&slot.app_env).is_some() => {
            "it is stopped when the deployment is done".to_owned()
        }
        None => "it is being stopped".to_owned(),
    }
}
