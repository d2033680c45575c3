//! How apps, instances, nodes and deployments are, read off State.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::http::header::ETAG;
use stele_api::wire::{
    AppStatus, Condition, ConvergenceQuery, DeploymentQuery, DeploymentStatus, FinishedStatus,
    InstanceStatus, NodeStatus, PinnedPlace, ServiceStatus, StatusAnswer, StatusQuery, StayingStatus,
};
use stele_model::event::{EnrolledNode, Pin};
use stele_model::release::{Placement, Revision};
use stele_model::state::AssignedTo;
use stele_model::wire::Phase;
use stele_model::{AppEnv, Digest, InstanceId, NodeName, Point, Revisions, Scope, Seq, ServiceName, State};

use super::asked::Asked;
use super::failure::Failure;
use super::fleet_problems::{Seen, fleet_problems};
use super::problems::{leftovers, problems};
use super::scopes::check_known;
use super::untold::untold;
use super::{Answered, json};
use crate::handle::Handle;

/// State at a point as written; now when none is given.
pub(super) async fn state_at(
    handle: &Handle,
    state: &State,
    scope: &Scope,
    at: Option<&str>,
) -> Result<State, Failure> {
    match earlier_seq(handle, state, scope, at).await? {
        Some(seq) => Ok(handle.state_at(seq).await?),
        None => Ok(state.clone()),
    }
}

/// What should have been at a point as written; State now when none is given.
pub(super) async fn target_at(
    handle: &Handle,
    state: &State,
    scope: &Scope,
    at: Option<&str>,
) -> Result<State, Failure> {
    match earlier_seq(handle, state, scope, at).await? {
        Some(seq) => Ok(handle.target_at(seq).await?),
        None => Ok(state.clone()),
    }
}

/// State at a point as written, as far as it is about a scope; State now when none is given.
async fn state_about(
    handle: &Handle,
    state: &State,
    scope: &Scope,
    at: Option<&str>,
) -> Result<State, Failure> {
    let Some(seq) = earlier_seq(handle, state, scope, at).await? else { return Ok(state.clone()) };
    Ok(match apps_of(state, scope) {
        Some(apps) => handle.state_about(seq, apps).await?,
        None => handle.state_at(seq).await?,
    })
}

/// The one app that a scope is within, in all of its environments; nothing when it is within none.
// No environment is ever gone, so that a later State knows all.
fn apps_of(state: &State, scope: &Scope) -> Option<BTreeSet<AppEnv>> {
    let app = scope.app.as_ref()?;
    let environments = state.control.environments.iter();
    let apps = environments.map(|environment| AppEnv::new(app.clone(), environment.clone()));
    Some(apps.filter(|app_env| scope.covers_app_env(app_env)).collect())
}

/// The seq of a point, unless that is now.
async fn earlier_seq(
    handle: &Handle,
    state: &State,
    scope: &Scope,
    at: Option<&str>,
) -> Result<Option<Seq>, Failure> {
    let Some(text) = at else { return Ok(None) };
    let seq = point_seq(handle, state, scope, text).await?;
    Ok((seq != state.seq).then_some(seq))
}

/// The seq a written point stands for.
pub(super) async fn point_seq(
    handle: &Handle,
    state: &State,
    scope: &Scope,
    text: &str,
) -> Result<Seq, Failure> {
    Ok(handle.resolve(state, scope, &point(text)?).await?)
}

/// A written point.
pub(super) fn point(text: &str) -> Result<Point, Failure> {
    text.parse().map_err(|error: stele_model::point::PointError| Failure::invalid(error.to_string()))
}

pub(super) async fn status(handle: &Handle, asked: &Asked) -> Answered {
    let query: StatusQuery = asked.query()?;
    let state = state_about(handle, &asked.state, &query.scope, query.at.as_deref()).await?;
    check_known(&query.scope, &[&asked.state, &state])?;
    let told = told(&state, &query.scope);
    let nodes = if is_about_apps(&query.scope) {
        nodes_of(&state, &query.scope, &told)
    } else {
        nodes(&state, &query.scope)
    };
    let apps: Vec<_> =
        told.into_iter().filter_map(|(app_env, told)| app(&state, &query.scope, &app_env, told)).collect();
    let mut problems = problems(&state, &asked.state, &apps, &nodes);
    problems.extend(leftovers(&state, &query.scope, apps_of(&state, &query.scope)));
    // What fits a message and how controllers fare is not in State: it is of now.
    if state.seq == asked.state.seq {
        problems.extend(untold(handle, &state, &nodes).await);
        if query.scope == Scope::fleet() {
            problems.extend(fleet_problems(&state, &Seen::by(handle)));
        }
    }
    let (seq, time, scope) = (state.seq, state.time, query.scope);
    let mut answer = StatusAnswer { seq, time, apps, nodes, problems, scope };
    if query.problems {
        answer.apps.retain(|app| app.condition != Condition::Converged);
        answer.nodes.retain(|node| !node.reachable);
    }
    let last_changed = state.last_changed(&answer.scope);
    let mut response = json(&answer)?;
    if let Ok(tag) = format!("\"{last_changed}\"").parse() {
        response.headers_mut().insert(ETAG, tag);
    }
    Ok(response)
}

/// The nodes of a scope beside what they state under their own signatures; signed by this controller.
pub(super) async fn convergence(handle: &Handle, asked: &Asked) -> Answered {
    let query: ConvergenceQuery = asked.query()?;
    check_known(&query.scope, &[&asked.state])?;
    json(&handle.prove_convergence(&asked.state, &query.scope).await)
}

/// What each service of an app should be: number, and what it is made of.
struct Wanted {
    image: String,
    image_asked: Option<String>,
    count: u32,
}

/// What an app should be: its services, and the digests of their containers by revision.
struct Expected<'a> {
    services: BTreeMap<ServiceName, Wanted>,
    specs: Vec<(&'a Revision, BTreeMap<ServiceName, Digest>)>,
    revisions: Revisions<'a>,
}

fn expected<'a>(state: &'a State, app_env: &AppEnv) -> Expected<'a> {
    let revisions = state.revisions(app_env);
    let has_pins = revisions.is_pinned();
    let mut expected = Expected { services: BTreeMap::new(), specs: Vec::new(), revisions };
    let pinned = state.target.pins.iter().filter(|((owner, _), _)| has_pins && owner == app_env);
    let pinned = pinned.filter_map(|(_, pin)| match pin.as_ref() {
        Pin::Revision(revision) => Some(revision),
        Pin::Absent => None,
    });
    for revision in state.target.intent.get(app_env).map(AsRef::as_ref).into_iter().chain(pinned) {
        if expected.specs.iter().any(|(known, _)| *known == revision) {
            continue;
        }
        let Some(record) = state.history.releases.get(&revision.release) else { continue };
        let mut specs = BTreeMap::new();
        for (name, service) in &record.release.services {
            if let Some(spec) = state.instance_spec(app_env, revision, name) {
                specs.insert(name.clone(), spec.digest());
            }
            expected.services.entry(name.clone()).or_insert_with(|| Wanted {
                image: service.container.image.to_string(),
                image_asked: record.images.get(name).cloned(),
                count: match &service.placement {
                    // While a place is pinned, nothing makes up elsewhere for what it has.
                    _ if has_pins => placed(state, app_env, name),
                    Placement::Replicas { count, .. } => *count,
                    Placement::Every { nodes } => {
                        let nodes = state.control.nodes.values().filter(|node| state.takes(nodes, node));
                        nodes.count() as u32
                    }
                },
            });
        }
        expected.specs.push((revision, specs));
    }
    expected
}

fn placed(state: &State, app_env: &AppEnv, service: &ServiceName) -> u32 {
    state.slots(app_env).filter(|(slot, _)| slot.service == *service).count() as u32
}

impl Expected<'_> {
    /// Whether an instance on a node is of what should be there.
    fn is_current(&self, node: &NodeName, id: &InstanceId, spec: Digest) -> bool {
        let Some(revision) = self.revisions.at(node) else { return false };
        let specs = self.specs.iter().find(|(known, _)| *known == revision).map(|(_, specs)| specs);
        specs.and_then(|specs| specs.get(&id.slot.service)) == Some(&spec)
    }
}

/// The places of an app that follow another revision.
pub(super) fn pinned_places(state: &State, app_env: &AppEnv) -> Vec<PinnedPlace> {
    state
        .pins(app_env)
        .map(|(place, pin)| {
            let release = match pin.as_ref() {
                Pin::Revision(revision) => Some(revision.release),
                Pin::Absent => None,
            };
            PinnedPlace {
                place: place.clone(),
                release: release.and_then(|release| state.release_number(&release)),
                release_digest: release,
            }
        })
        .collect()
}

/// An instance, the node that was told to run it, and what it was told.
type Told<'a> = (&'a NodeName, &'a InstanceId, &'a Arc<AssignedTo>);

fn instances<'a>(
    state: &State,
    told: impl IntoIterator<Item = Told<'a>>,
    expected: &Expected<'_>,
) -> Vec<InstanceStatus> {
    let mut nodes = state.nodes();
    let mut instances: Vec<_> = told
        .into_iter()
        .map(|(node, id, assigned)| {
            let report = nodes.report_of(node, id);
            InstanceStatus {
                id: id.clone(),
                node: node.clone(),
                region: state.region_of(node).cloned(),
                release: state.release_number(&assigned.revision.release),
                current: expected.is_current(node, id, *assigned.spec),
                phase: report.map(|report| report.phase),
                reachable: nodes.is_reachable(node),
                restarts: report.map_or(0, |report| report.restarts),
                reason: report.and_then(|report| report.reason().map(str::to_owned)),
                exit_code: report.and_then(|report| report.exit_code()),
                container: report.and_then(|report| report.container.as_ref().map(ToString::to_string)),
            }
        })
        .collect();
    instances.sort_by(|left, right| left.id.cmp(&right.id));
    instances
}

/// How many instances that are what should be are in which phase, and how many of them are well.
fn counted<'a>(
    state: &State,
    told: impl IntoIterator<Item = Told<'a>>,
    expected: &Expected<'_>,
) -> (BTreeMap<Phase, u32>, u32) {
    let (mut phases, mut healthy) = (BTreeMap::new(), 0);
    let mut nodes = state.nodes();
    for (node, id, assigned) in told {
        if expected.is_current(node, id, *assigned.spec) {
            let phase = nodes.report_of(node, id).map_or(Phase::Pending, |report| report.phase);
            *phases.entry(phase).or_default() += 1;
            healthy +=
                u32::from(matches!(phase, Phase::Healthy | Phase::Completed) && nodes.is_reachable(node));
        }
    }
    (phases, healthy)
}

/// An instance that is what should be, and well.
fn is_well(instance: &InstanceStatus) -> bool {
    instance.current
        && instance.reachable
        && matches!(instance.phase, Some(Phase::Healthy | Phase::Completed))
}

fn services(expected: &Expected<'_>, instances: &[InstanceStatus]) -> Vec<ServiceStatus> {
    expected
        .services
        .iter()
        .map(|(name, wanted)| ServiceStatus {
            service: name.clone(),
            image: wanted.image.clone(),
            image_asked: wanted.image_asked.clone(),
            wanted: wanted.count,
            healthy: instances.iter().filter(|it| it.id.slot.service == *name && is_well(it)).count() as u32,
        })
        .collect()
}

/// Every app of a scope, wherever it is, and what nodes were told to run of it.
fn told<'a>(state: &'a State, scope: &Scope) -> BTreeMap<AppEnv, Vec<Told<'a>>> {
    if let Some(apps) = apps_of(state, scope) {
        // What is looked up by app is not looked for in all of the fleet.
        return apps
            .into_iter()
            .map(|app_env| (state.assigned_to(&app_env).collect::<Vec<_>>(), app_env))
            .filter(|(told, app_env)| !told.is_empty() || state.is_targeted(app_env))
            .map(|(told, app_env)| (app_env, told))
            .collect();
    }
    let targeted = state.targeted().into_iter().filter(|app_env| scope.covers_app_env(app_env));
    let mut known: BTreeMap<AppEnv, Vec<_>> = targeted.map(|app_env| (app_env.clone(), Vec::new())).collect();
    // All of them in one pass: there may be many apps, and many instances of each.
    for (node, assigned) in &state.assigned {
        for (id, to) in &assigned.instances {
            let app_env = &id.slot.app_env;
            if !scope.covers_app_env(app_env) {
                continue;
            }
            match known.get_mut(app_env) {
                Some(told) => told.push((node, id, to)),
                None => drop(known.insert(app_env.clone(), vec![(node, id, to)])),
            }
        }
    }
    known
}

fn app(state: &State, scope: &Scope, app_env: &AppEnv, told: Vec<Told<'_>>) -> Option<AppStatus> {
    let expected = expected(state, app_env);
    let mut instances = instances(state, told, &expected);
    let services = services(&expected, &instances);
    let is_converged = services.iter().all(|service| service.healthy >= service.wanted)
        && instances.iter().all(|instance| instance.current);
    let latest = state.latest_deployment(app_env);
    let condition = match latest.map(|(_, deployment)| deployment.finished.as_ref()) {
        Some(None) => Condition::Deploying,
        _ if is_converged => Condition::Converged,
        _ if latest.is_some_and(|(_, deployment)| deployment.has_failed()) => Condition::Failed,
        _ => Condition::Degraded,
    };
    if scope.is_placed() {
        instances.retain(|instance| scope.covers_node(&instance.node, instance.region.as_ref()));
        if instances.is_empty() {
            return None;
        }
    }
    let revision = state.target.intent.get(app_env);
    let latched = state.control.latches.get(app_env);
    Some(AppStatus {
        app_env: app_env.clone(),
        condition,
        release: revision.and_then(|revision| state.release_number(&revision.release)),
        release_digest: revision.map(|revision| revision.release),
        deployment: latest.map(|(seq, _)| seq),
        last_changed: state.last_changed(&Scope::app_env(app_env)),
        latched: latched.into_iter().flatten().filter_map(|release| state.release_number(release)).collect(),
        contacts: state.control.apps.get(&app_env.app).cloned().unwrap_or_default(),
        pins: pinned_places(state, app_env),
        held: state.hold(app_env).is_some(),
        services,
        instances,
    })
}

fn is_about_apps(scope: &Scope) -> bool {
    scope.app.is_some() || scope.project.is_some() || scope.environment.is_some()
}

/// The nodes of a place or the fleet.
pub(super) fn nodes(state: &State, scope: &Scope) -> Vec<NodeStatus> {
    statuses(state, scope, state.control.nodes.values())
}

/// The nodes of a scope that were told to run something of its apps.
fn nodes_of(state: &State, scope: &Scope, told: &BTreeMap<AppEnv, Vec<Told<'_>>>) -> Vec<NodeStatus> {
    let names: BTreeSet<&NodeName> = told.values().flatten().map(|(name, ..)| *name).collect();
    statuses(state, scope, names.into_iter().filter_map(|name| state.control.nodes.get(name)))
}

fn statuses<'a>(
    state: &State,
    scope: &Scope,
    nodes: impl Iterator<Item = &'a Arc<EnrolledNode>>,
) -> Vec<NodeStatus> {
    let within = nodes.filter(|it| scope.covers_node(&it.name, Some(&it.region)));
    within.map(|it| node(state, it)).collect()
}

/// What is still on a node though it is drained.
pub(super) fn staying(state: &State, node: &NodeName) -> Vec<StayingStatus> {
    let staying = stele_planner::staying(state, node).into_iter();
    staying.map(|it| StayingStatus { instance: it.instance, why: it.why }).collect()
}

/// One node.
pub(super) fn node(state: &State, enrolled: &EnrolledNode) -> NodeStatus {
    let name = &enrolled.name;
    let observed = state.observed.get(name);
    let assigned = state.assigned.get(name);
    let version = state.assignment_version(name);
    NodeStatus {
        name: name.clone(),
        region: enrolled.region.clone(),
        labels: enrolled.labels.clone(),
        address: enrolled.address.clone(),
        reachable: state.is_reachable(name),
        // A node that has not reported yet was not told anything, as far as is known.
        current: observed.map_or(version.seq == 0, |observed| observed.applied.is_current(&version)),
        assigned: assigned.map_or(0, |assigned| assigned.instances.len()),
        healthy: assigned
            .map_or(0, |assigned| assigned.instances.keys().filter(|id| state.is_healthy(name, id)).count()),
        reported: observed.map(|observed| observed.time),
        drained: state.control.drained.get(name).copied(),
        staying: Vec::new(),
    }
}

pub(super) async fn deployment(handle: &Handle, asked: &Asked) -> Answered {
    let query: DeploymentQuery = asked.query()?;
    let id: Seq = asked.path("id")?;
    let state = &state_at(handle, &asked.state, &Scope::fleet(), query.at.as_deref()).await?;
    let deployment = state.history.deployments.get(&id).ok_or_else(|| {
        Failure::not_found(format!("there is no deployment {id}, or it is so old that only the log knows it"))
            .with_next("stele history")
    })?;
    let app_env = &deployment.app_env;
    let expected = expected(state, app_env);
    // Whoever waits for a deployment of thousands asks often, and seldom for all of them.
    let instances =
        if query.instances { instances(state, state.assigned_to(app_env), &expected) } else { Vec::new() };
    let is_latest = state.latest_deployment(app_env).is_some_and(|(latest, _)| latest == id);
    let is_held = is_latest && state.hold(app_env).is_some();
    let is_of_places = is_latest && state.is_of_places(id, deployment);
    let counts = |node: &NodeName| !is_held || state.pin_at(app_env, node).is_some();
    let told = state.assigned_to(app_env).filter(|(node, ..)| counts(node));
    let (phases, healthy) = counted(state, told, &expected);
    let wanted = if is_held {
        state.slots(app_env).filter(|(_, node)| counts(node)).count() as u32
    } else {
        expected.services.values().map(|service| service.count).sum()
    };
    let number = |revision: &Option<stele_model::Revision>| {
        revision.as_ref().and_then(|revision| state.release_number(&revision.release))
    };
    json(&DeploymentStatus {
        id,
        app_env: app_env.clone(),
        kind: deployment.kind,
        from: number(&deployment.from),
        to: number(&deployment.to),
        places: if is_of_places { pinned_places(state, app_env) } else { Vec::new() },
        held: is_held,
        now: deployment.now,
        principal: deployment.principal.clone(),
        started: deployment.started,
        finished: deployment.finished.as_ref().map(|(time, seq, outcome)| FinishedStatus {
            time: *time,
            seq: *seq,
            outcome: outcome.clone(),
        }),
        wanted,
        healthy,
        phases,
        instances,
    })
}
