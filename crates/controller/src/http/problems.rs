//! What is wrong, as State tells it, and what gets further.

use std::collections::BTreeSet;

use stele_api::wire::{AppStatus, InstanceStatus, NodeStatus, ProblemStatus};
use stele_model::event::Outcome;
use stele_model::point::Verdict;
use stele_model::wire::{InstanceReport, Phase};
use stele_model::{AppEnv, InstanceId, NodeName, Scope, Seq, State};
use stele_planner::{Placing, Unplaced};

/// What is wrong, and what could be done about it now.
pub(super) fn problems(
    state: &State,
    now: &State,
    apps: &[AppStatus],
    nodes: &[NodeStatus],
) -> Vec<ProblemStatus> {
    let mut problems = Vec::new();
    for app in apps {
        deployment_problem(state, now, app, &mut problems);
        for instance in &app.instances {
            instance_problem(state, app, instance, &mut problems);
        }
    }
    for node in nodes.iter().filter(|node| !node.reachable) {
        problems.push(ProblemStatus {
            scope: Scope::of_node(&node.name),
            instance: None,
            message: format!(
                "the node has not been heard of for longer than its grace period; {} containers were assigned to it and go on without it",
                node.assigned
            ),
            since: None,
            contacts: stele_model::event::Contacts::default(),
            log_tail: Vec::new(),
            next: Some(format!("stele events --scope node:{}", node.name)),
            node: Some(node.name.clone()),
        });
    }
    problems.sort_by_key(|problem| std::cmp::Reverse(problem.since));
    problems
}

fn deployment_problem(state: &State, now: &State, app: &AppStatus, problems: &mut Vec<ProblemStatus>) {
    let app_env = &app.app_env;
    let Some((id, deployment)) = state.latest_deployment(app_env) else { return };
    let problem = |message: String, since: Seq, log_tail: &[String], next: String| ProblemStatus {
        scope: Scope::app_env(app_env),
        instance: None,
        node: None,
        message,
        since: Some(since),
        contacts: app.contacts.clone(),
        log_tail: log_tail.to_vec(),
        next: Some(next),
    };
    match &deployment.finished {
        Some((_, seq, Outcome::Failed { instance, node, reason, exit_code, log_tail })) => {
            let code = exit_code.map(|code| format!(", exit code {code}")).unwrap_or_default();
            let message = format!("deployment {id} failed: {instance} on {node}: {reason}{code}");
            problems.push(problem(message, *seq, log_tail, after_failure(now, app_env)));
        }
        Some((_, seq, Outcome::Unplaced { slot, reason })) => {
            let message = format!("deployment {id} failed: {slot} has no node: {reason}");
            problems.push(problem(message, *seq, &[], after_failure(now, app_env)));
        }
        Some((_, seq, Outcome::Succeeded | Outcome::Superseded { .. })) => {
            let lacking: Vec<_> =
                app.services.iter().filter(|service| service.healthy < service.wanted).collect();
            for service in &lacking {
                let message = format!(
                    "{} of {} instances of {} are healthy",
                    service.healthy, service.wanted, service.service
                );
                problems.push(problem(message, *seq, &[], format!("stele status {app_env}")));
            }
            // Of the past, other apps' ports may not be at hand.
            if !lacking.is_empty() && state.seq == now.seq {
                problems.extend(without_room(state, app));
            }
        }
        None => {}
    }
    if let Some(hold) = state.hold(app_env) {
        let of = match hold.deployment {
            Some(seq) => format!("deployment {seq} did not succeed"),
            None => "nothing is known any more of its last deployment".to_owned(),
        };
        let message = format!(
            "what is in no pinned place stays as it is: {of}, and since then only places of the app were decided on. \
             Roll back all of it, or unlatch it and deploy again"
        );
        problems.push(problem(message, id, &[], after_failure(now, app_env)));
    }
}

/// What gets further after a deployment failed: of going back, only what is there to go back to.
fn after_failure(now: &State, app_env: &AppEnv) -> String {
    let scope = Scope::app_env(app_env);
    let mut earlier = now.earlier(&scope, now.remembers_since(&scope)).peekable();
    if earlier.peek().is_none() {
        format!("fix the spec and apply it again, or: stele remove {app_env} --plan")
    } else if earlier.any(|earlier| earlier.verdict == Verdict::Good) {
        format!("stele rollback {app_env} --to last-good --plan")
    } else {
        format!("stele rollback {app_env} --check")
    }
}

fn instance_problem(
    state: &State,
    app: &AppStatus,
    instance: &InstanceStatus,
    problems: &mut Vec<ProblemStatus>,
) {
    let Some(report) = state.report_of(&instance.node, &instance.id) else { return };
    if !matches!(report.phase, Phase::Failed | Phase::Unhealthy) {
        return;
    }
    let phase = format!("{:?}", report.phase).to_lowercase();
    let code = report.exit_code().map(|code| format!(", exit code {code}")).unwrap_or_default();
    let reason = report.reason().unwrap_or("no reason was given");
    problems.push(ProblemStatus {
        scope: Scope::app_env(&app.app_env),
        instance: Some(instance.id.clone()),
        node: Some(instance.node.clone()),
        message: format!("{phase}: {reason}{code}"),
        since: Some(instance.id.serial),
        contacts: app.contacts.clone(),
        log_tail: report.log_tail().to_vec(),
        // Without a container there are no logs.
        next: Some(match &report.container {
            Some(_) => format!("stele logs {}", instance.id),
            None => format!("stele why {}", instance.id),
        }),
    });
}

/// A slot that has no node though no deployment fails for it, as that of a node that joined and has no room for what is
/// to run on every one; or one that has to stay on a drained node.
fn without_room(state: &State, app: &AppStatus) -> Option<ProblemStatus> {
    let Placing { unplaced, kept, .. } = stele_planner::place(state, &app.app_env);
    let (message, next) = match (unplaced, kept.into_iter().next()) {
        (Some(Unplaced { slot, reason }), _) => (
            format!("{slot} has no node: {reason}; it has one as soon as there is room"),
            "stele status --problems".to_owned(),
        ),
        (None, Some(Unplaced { slot, reason })) => {
            let node = state.target.placement.get(&slot)?;
            let message = format!("{slot} cannot leave {node}, which is drained: {reason}");
            (message, format!("stele node show {node}"))
        }
        (None, None) => return None,
    };
    Some(ProblemStatus {
        scope: Scope::app_env(&app.app_env),
        instance: None,
        node: None,
        message,
        since: None,
        contacts: app.contacts.clone(),
        log_tail: Vec::new(),
        next: Some(next),
    })
}

/// What nodes that are heard of still tell of, though they should not run it any more and no deployment that is on its way
/// sees to it.
pub(super) fn leftovers(state: &State, scope: &Scope, apps: Option<BTreeSet<AppEnv>>) -> Vec<ProblemStatus> {
    let is_within = |(node, id, _): &(&NodeName, &InstanceId, &InstanceReport)| {
        scope.covers_app_env(&id.slot.app_env)
            && scope.covers_node(node, state.region_of(node))
            && is_left(state, node, id)
    };
    let problem = |(node, id, report)| leftover(state, node, id, report);
    if let Some(apps) = apps {
        // What is looked up by app is not looked for in all of the fleet.
        let told = apps.iter().flat_map(|app_env| state.observed_of(app_env));
        return told
            .map(|(node, id, report)| (node, id, report.as_ref()))
            .filter(is_within)
            .map(problem)
            .collect();
    }
    let told = state
        .observed
        .iter()
        .flat_map(|(node, seen)| seen.instances.iter().map(move |(id, report)| (node, id, report.as_ref())));
    told.filter(is_within).map(problem).collect()
}

fn is_left(state: &State, node: &NodeName, id: &InstanceId) -> bool {
    let assigned = state.assigned.get(node);
    if assigned.is_some_and(|assigned| assigned.instances.contains_key(id))
        || !state.is_reachable(node)
        || state.running_deployment(&id.slot.app_env).is_some()
    {
        return false;
    }
    // What cannot be made yet costs nothing that runs: the node keeps that on purpose.
    let mut heirs = state.assigned_in(&id.slot, node).filter(|(_, to)| to.replaces.is_some());
    heirs.all(|(heir, _)| state.is_healthy(node, heir))
}

fn leftover(state: &State, node: &NodeName, id: &InstanceId, report: &InstanceReport) -> ProblemStatus {
    let app = &id.slot.app_env.app;
    let told = report.reason().map(|told| format!(": {told}")).unwrap_or_default();
    ProblemStatus {
        scope: Scope::app_env(&id.slot.app_env),
        instance: Some(id.clone()),
        node: Some(node.clone()),
        message: format!(
            "its node should not run it any more and still has it{told}. The node goes on trying; where it cannot, \
             remove the container there by hand"
        ),
        since: None,
        contacts: state.control.apps.get(app).cloned().unwrap_or_default(),
        log_tail: report.log_tail().to_vec(),
        next: Some(match &report.container {
            Some(container) => format!("docker rm --force {container}"),
            None => format!("stele events --scope node:{node}"),
        }),
    }
}

#[cfg(test)]
#[path = "problems_tests.rs"]
mod tests;
