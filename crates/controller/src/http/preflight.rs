//! Whether what a rollback needs is still to be had, asked before a single event is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use stele_bus::ask::{Outcome, Question};
use stele_bus::limits::{ASKED_IMAGES_MAX, ASKED_PORTS_MAX};
use stele_model::event::EnrolledNode;
use stele_model::release::Image;
use stele_model::state::AssignedTo;
use stele_model::wire::HostPort;
use stele_model::{AppEnv, InstanceId, NodeName, Slot, State};

use super::limits::{
    IMAGES_ASKED_AT_ONCE, IMAGES_DEADLINE, NODES_ASKED_AT_ONCE, NODES_NAMED, PORTS_DEADLINE,
    REGISTRY_DEADLINE_FIRST,
};
use crate::handle::Handle;
use crate::limits::RESOLVE_DEADLINE;

/// Images, the nodes that need each, and the app it is for.
type Needed = BTreeMap<Image, BTreeMap<NodeName, AppEnv>>;

/// What an app will be, and where it changes.
pub(super) struct Wanted<'a> {
    /// What is.
    pub(super) state: &'a State,
    /// What will be.
    pub(super) after: &'a State,
    /// The apps that change.
    pub(super) apps: &'a BTreeSet<AppEnv>,
    /// Whether all of them is decided on, and not places alone.
    pub(super) for_all: bool,
}

impl<'a> Wanted<'a> {
    /// Where an app has something that may change. What is held stays as it is, so that nothing is needed there.
    fn slots(&self, of: &'a State, app_env: &'a AppEnv) -> impl Iterator<Item = (&'a Slot, &'a NodeName)> {
        let Self { state, after, .. } = *self;
        let is_of_places =
            !self.for_all && state.target.intent.get(app_env) == after.target.intent.get(app_env);
        let is_pinned = after.pins(app_env).next().is_some();
        let is_held = is_of_places && is_pinned && state.unsuccessful(app_env).is_some();
        of.slots(app_env).filter(move |(_, node)| !is_held || after.pin_at(app_env, node).is_some())
    }
}

/// What stands in the way of some apps becoming what they are in a State that is wanted, as far as
/// registries and nodes say: images that cannot be had, and ports that others have.
pub(super) async fn obstacles(handle: &Handle, wanted: &Wanted<'_>) -> Vec<(AppEnv, String)> {
    let (mut told, ports) = tokio::join!(unobtainable(handle, wanted), taken(handle, wanted));
    told.extend(ports);
    told
}

/// Apps whose images cannot be had any more, with what is missing where.
///
/// An image can be had when its registry has it, or when every node that needs it has it already.
/// A registry that is away must not hold an emergency up: it is waited for shortly, then the nodes
/// are asked, and only for what they lack it is waited for as long as for a deployment.
async fn unobtainable(handle: &Handle, wanted: &Wanted<'_>) -> Vec<(AppEnv, String)> {
    let (state, mut needed) = (wanted.state, needed(wanted));
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
fn needed(wanted: &Wanted<'_>) -> Needed {
    let &Wanted { state, after, apps, .. } = wanted;
    let mut needed = Needed::new();
    let mut running = Running::new();
    for app_env in apps {
        let revisions = after.revisions(app_env);
        for (slot, node) in wanted.slots(after, app_env) {
            let Some(image) = revisions.service(&slot.service, node).map(|service| &service.container.image)
            else {
                continue;
            };
            let here = running.entry(node).or_insert_with(|| running_on(state, node));
            if !here.contains(image) {
                needed.entry(image.clone()).or_default().insert(node.clone(), app_env.clone());
            }
        }
    }
    needed
}

/// Ports that the instances of some apps would want and do not have yet, with the app of each.
fn new_ports(wanted: &Wanted<'_>) -> BTreeMap<NodeName, BTreeMap<HostPort, AppEnv>> {
    let mut new: BTreeMap<NodeName, BTreeMap<HostPort, AppEnv>> = BTreeMap::new();
    for app_env in wanted.apps {
        let ports = |state: &State| -> BTreeSet<(NodeName, HostPort)> {
            let revisions = state.revisions(app_env);
            let of_slot = |(slot, node): (&Slot, &NodeName)| {
                let ports = revisions
                    .service(&slot.service, node)
                    .map_or(&[][..], |service| &service.container.ports);
                let ports = ports.iter().filter_map(|port| {
                    Some((node.clone(), HostPort { port: port.host?, protocol: port.protocol }))
                });
                ports.collect::<Vec<_>>()
            };
            wanted.slots(state, app_env).flat_map(of_slot).collect()
        };
        let after = ports(wanted.after);
        if after.is_empty() {
            continue;
        }
        for (node, port) in after.difference(&ports(wanted.state)) {
            new.entry(node.clone()).or_default().insert(*port, app_env.clone());
        }
    }
    new
}

/// Apps that want a port which something else on its host has. A node that does not say is no
/// obstacle: its ports most likely are free.
async fn taken(handle: &Handle, wanted: &Wanted<'_>) -> Vec<(AppEnv, String)> {
    let state = wanted.state;
    let wanted = new_ports(wanted).into_iter().filter_map(|(name, ports)| {
        let node = state.control.nodes.get(&name).filter(|_| state.is_reachable(&name))?;
        Some((node.clone(), ports))
    });
    let told = stream::iter(wanted.collect::<Vec<_>>()).map(|(node, ports)| async move {
        let mut told = Vec::new();
        let asked: Vec<HostPort> = ports.keys().copied().collect();
        for some in asked.chunks(ASKED_PORTS_MAX) {
            let question = Question::Ports { ports: some.to_vec() };
            match handle.ask_node(&node, question, PORTS_DEADLINE).await {
                Ok(Outcome::Ports { taken }) => told.extend(taken.into_iter().filter_map(|taken| {
                    let app_env = ports.get(&taken.port)?.clone();
                    let (port, holder) = (taken.port.port, taken.holder);
                    Some((app_env, format!("port {port} on node {} is taken by {holder}", node.name)))
                })),
                Ok(other) => tracing::warn!(node = %node.name, ?other, "does not say which ports are taken"),
                Err(error) => tracing::warn!(node = %node.name, %error, "does not say which ports are taken"),
            }
        }
        stream::iter(told)
    });
    let mut told: Vec<_> = told.buffer_unordered(NODES_ASKED_AT_ONCE).flatten().collect().await;
    told.sort();
    told
}

/// The images that each node has a container of.
type Running<'a> = BTreeMap<&'a NodeName, BTreeSet<&'a Image>>;

/// The images that a node has a container of, by its own report.
fn running_on<'a>(state: &'a State, node: &NodeName) -> BTreeSet<&'a Image> {
    let (Some(assigned), Some(seen)) = (state.assigned.get(node), state.observed.get(node)) else {
        return BTreeSet::new();
    };
    let made = assigned
        .instances
        .iter()
        .filter(|(id, _)| seen.instances.get(*id).is_some_and(|report| report.container.is_some()));
    let image = |(id, to): (&InstanceId, &Arc<AssignedTo>)| {
        Some(&state.release_of(&to.revision)?.services.get(&id.slot.service)?.container.image)
    };
    made.filter_map(image).collect()
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
            Ok(Outcome::Logs { .. } | Outcome::Ports { .. }) => {
                return Err("answered something else".to_owned());
            }
            Err(error) => return Err(format!("cannot say: {error}")),
        }
    }
    Ok(all)
}
