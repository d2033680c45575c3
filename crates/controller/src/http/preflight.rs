//! Whether what a rollback needs is still to be had, asked before a single event is written.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use stele_bus::ask::{Outcome, Question};
use stele_bus::limits::ASKED_IMAGES_MAX;
use stele_model::decide::RollbackPlan;
use stele_model::event::EnrolledNode;
use stele_model::release::Image;
use stele_model::{AppEnv, NodeName, State};

use super::limits::{
    IMAGES_ASKED_AT_ONCE, IMAGES_DEADLINE, NODES_ASKED_AT_ONCE, NODES_NAMED, REGISTRY_DEADLINE_FIRST,
};
use crate::handle::Handle;
use crate::limits::RESOLVE_DEADLINE;

/// Images, the nodes that need each, and the app it is for.
type Needed = BTreeMap<Image, BTreeMap<NodeName, AppEnv>>;

/// Apps whose images cannot be had any more, with what is missing where.
///
/// An image can be had when its registry has it, or when every node that needs it has it already.
/// A registry that is away must not hold an emergency up: it is waited for shortly, then the nodes
/// are asked, and only for what they lack it is waited for as long as for a deployment.
pub(super) async fn unobtainable(
    handle: &Handle,
    state: &State,
    plans: &[RollbackPlan],
) -> Vec<(AppEnv, String)> {
    let mut needed = needed(state, plans);
    let unsure = not_in_registries(handle, needed.keys(), REGISTRY_DEADLINE_FIRST).await;
    needed.retain(|image, _| unsure.contains_key(image));
    let mut absent = absent(handle, state, &needed).await;
    let images: BTreeSet<Image> = absent.iter().map(|(_, image, _)| image.clone()).collect();
    let gone = not_in_registries(handle, images.iter(), RESOLVE_DEADLINE).await;
    absent.retain(|(_, image, _)| gone.contains_key(image));
    let mut told: BTreeMap<(AppEnv, Image), Vec<String>> = BTreeMap::new();
    for (node, image, why) in absent {
        if let Some(app_env) = needed.get(&image).and_then(|nodes| nodes.get(&node)) {
            told.entry((app_env.clone(), image)).or_default().push(format!("{node} {why}"));
        }
    }
    told.into_iter()
        .map(|((app_env, image), mut nodes)| {
            nodes.sort();
            let words = gone.get(&image).map(String::as_str).unwrap_or_default();
            let shown = nodes.iter().take(NODES_NAMED).cloned().collect::<Vec<_>>().join(", ");
            let more = nodes.len().saturating_sub(NODES_NAMED);
            let more = if more == 0 { String::new() } else { format!(", and {more} more") };
            (app_env, format!("image {image} cannot be had: {words}; {shown}{more}"))
        })
        .collect()
}

/// Images that their registries do not have, or do not say to have in time, with their words.
async fn not_in_registries(
    handle: &Handle,
    images: impl Iterator<Item = &Image>,
    within: Duration,
) -> BTreeMap<Image, String> {
    let images: Vec<Image> = images.cloned().collect();
    stream::iter(images)
        .map(|image| async move {
            let error = handle.is_in_registry(&image, within).await.err()?;
            Some((image, error.to_string()))
        })
        .buffer_unordered(IMAGES_ASKED_AT_ONCE)
        .filter_map(|lacking| async move { lacking })
        .collect()
        .await
}

/// What the instances of the apps would be made of, where that is not what their node was told to run.
fn needed(state: &State, plans: &[RollbackPlan]) -> Needed {
    let mut after = state.clone();
    for plan in plans {
        plan.apply(&mut after);
    }
    let mut needed = Needed::new();
    for plan in plans.iter().filter(|plan| plan.is_change(state)) {
        for (slot, node) in after.slots(&plan.app_env) {
            let Some(image) = image_of(&after, slot, node) else { continue };
            if !runs(state, node, image) {
                needed.entry(image.clone()).or_default().insert(node.clone(), plan.app_env.clone());
            }
        }
    }
    needed
}

fn image_of<'a>(state: &'a State, slot: &stele_model::Slot, node: &NodeName) -> Option<&'a Image> {
    let revision = state.revision_at(&slot.app_env, node)?;
    let record = state.history.releases.get(&revision.release)?;
    Some(&record.release.services.get(&slot.service)?.container.image)
}

/// Whether a node has a container of an image, by its own report.
fn runs(state: &State, node: &NodeName, image: &Image) -> bool {
    state.assigned.get(node).is_some_and(|assigned| {
        assigned.instances.iter().any(|(id, to)| {
            let record = state.history.releases.get(&to.revision.release);
            let service = record.and_then(|record| record.release.services.get(&id.slot.service));
            service.is_some_and(|service| service.container.image == *image)
                && state.report_of(node, id).is_some_and(|report| report.container.is_some())
        })
    })
}

/// Which nodes do not have which images, as far as they say.
async fn absent(handle: &Handle, state: &State, needed: &Needed) -> Vec<(NodeName, Image, String)> {
    let mut by_node: BTreeMap<NodeName, BTreeSet<Image>> = BTreeMap::new();
    for (image, nodes) in needed {
        for node in nodes.keys() {
            by_node.entry(node.clone()).or_default().insert(image.clone());
        }
    }
    stream::iter(by_node)
        .map(|(name, images)| async move {
            let node = state.control.nodes.get(&name).cloned();
            let said = match node {
                None => Err("is no longer of the fleet".to_owned()),
                Some(_) if !state.is_reachable(&name) => Err("is lost".to_owned()),
                Some(node) => here(handle, &node, &images).await,
            };
            let absent = images.into_iter().filter_map(move |image| match &said {
                Ok(here) if here.contains(&image) => None,
                Ok(_) => Some((name.clone(), image, "does not have it".to_owned())),
                Err(why) => Some((name.clone(), image, why.clone())),
            });
            stream::iter(absent)
        })
        .buffer_unordered(NODES_ASKED_AT_ONCE)
        .flatten()
        .collect()
        .await
}

async fn here(
    handle: &Handle,
    node: &EnrolledNode,
    images: &BTreeSet<Image>,
) -> Result<BTreeSet<Image>, String> {
    let images: Vec<Image> = images.iter().cloned().collect();
    let mut all = BTreeSet::new();
    for some in images.chunks(ASKED_IMAGES_MAX) {
        let question = Question::Images { images: some.to_vec() };
        match handle.ask_node(node, question, IMAGES_DEADLINE).await {
            Ok(Outcome::Images { here }) => all.extend(here),
            Ok(Outcome::Failed { why }) => return Err(format!("cannot say: {why}")),
            Ok(Outcome::Logs { .. }) => return Err("answered something else".to_owned()),
            Err(error) => return Err(format!("cannot say: {error}")),
        }
    }
    Ok(all)
}
