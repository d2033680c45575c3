//! Records in words.

use crate::event::{AssignmentChange, DeploymentKind, Event, Pin};
use crate::fields::show_revision;
use crate::ids::{AppEnv, InstanceId, NodeName, Slot};
use crate::release::Revision;
use crate::state::State;

/// What one is asked about, as far as it matters for words.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) app_env: Option<&'a AppEnv>,
    pub(super) slot: Option<&'a Slot>,
    pub(super) node: Option<&'a NodeName>,
}

impl About<'_> {
    fn concerns(self, node: &NodeName) -> bool {
        self.node.is_none_or(|own| own == node)
    }
}

/// `1 instance`, `2 instances`.
pub(super) fn instances(count: usize) -> String {
    if count == 1 { "1 instance".to_owned() } else { format!("{count} instances") }
}

fn version(state: &State, revision: Option<&Revision>) -> String {
    revision.map_or_else(
        || "nothing".to_owned(),
        |revision| {
            let number = state.release_number(&revision.release);
            number.map_or_else(|| revision.release.short(), |number| format!("v{number}"))
        },
    )
}

fn started(state: &State, kind: DeploymentKind, from: Option<&Revision>, to: Option<&Revision>) -> String {
    let verb = match kind {
        DeploymentKind::Deploy => "deployed",
        DeploymentKind::Configure => "configured",
        DeploymentKind::Rollback => "rolled back",
        DeploymentKind::Remove => "removed",
        DeploymentKind::Undo => "took changes back",
    };
    let (from, to) = (version(state, from), version(state, to));
    if from == to { format!("{verb}: {to}") } else { format!("{verb}: {from} -> {to}") }
}

fn assigned(state: &State, about: About<'_>, changes: &[AssignmentChange], seq: u64) -> String {
    let own = changes.iter().find_map(|change| match change {
        AssignmentChange::Assign { node, instance, revision, replaces, .. }
            if about.slot == Some(&instance.slot) =>
        {
            let id = InstanceId { slot: instance.slot.clone(), serial: seq };
            let instead = replaces.as_ref().map(|old| format!(", in place of {old}")).unwrap_or_default();
            let revision = show_revision(state, &instance.slot.app_env, revision);
            Some(format!("told {node} to run {id} ({revision}){instead}"))
        }
        _ => None,
    });
    own.unwrap_or_else(|| {
        let (mut runs, mut stops) = (0_usize, 0_usize);
        for change in changes {
            match change {
                AssignmentChange::Assign { node, .. } => runs += usize::from(about.concerns(node)),
                AssignmentChange::Withdraw { node, .. } => stops += usize::from(about.concerns(node)),
            }
        }
        let whom = about.node.map_or_else(|| "nodes".to_owned(), ToString::to_string);
        format!("told {whom} to run {} and to stop {}", instances(runs), instances(stops))
    })
}

/// What a record says happened.
pub(super) fn what(state: &State, about: About<'_>, seq: u64, event: &Event) -> String {
    match event {
        Event::FleetCreated { fleet, .. } => format!("the fleet {fleet} was created"),
        Event::DeploymentStarted { app_env, kind, from, to, .. } => {
            format!("{app_env} {}", started(state, *kind, from.as_ref(), to.as_ref()))
        }
        Event::AssignmentsChanged { app_env, changes } => {
            let text = assigned(state, about, changes, seq);
            if about.app_env == Some(app_env) { text } else { format!("{app_env}: {text}") }
        }
        Event::PlacementChanged { app_env, slots } => {
            let own = slots.iter().find(|(slot, _)| about.slot == Some(slot));
            match own {
                Some((slot, Some(node))) => format!("placed {slot} on {node}"),
                Some((slot, None)) => format!("took {slot} off"),
                None => format!("placed {} of {app_env}", instances(slots.len())),
            }
        }
        Event::NodeEnrolled { node, .. } => format!("node {} joined region {}", node.name, node.region),
        Event::NodeLabelled { node, .. } => format!("node {node} got other labels"),
        Event::NodeRemoved { node } => format!("node {node} was taken out of the fleet"),
        Event::NodeDrained { node } => format!("node {node} was drained"),
        Event::NodeResumed { node } => format!("node {node} was resumed"),
        Event::NodesLost { nodes } => format!("not heard of any more: {}", joined(nodes)),
        Event::NodesReturned { nodes } => format!("heard of again: {}", joined(nodes)),
        Event::JoinTokenCreated { token } => match &token.node {
            Some(node) => format!("let node {node} join region {}", token.region),
            None => format!("let a node join region {}", token.region),
        },
        Event::ReleaseCreated { number, release, images, .. } => {
            let services = release.services.iter().map(|(name, service)| {
                let image = images.get(name).cloned();
                format!("{name} = {}", image.unwrap_or_else(|| service.container.image.to_string()))
            });
            format!("made {} v{number}: {}", release.app, services.collect::<Vec<_>>().join(", "))
        }
        Event::ConfigChanged { version, variables, .. } => {
            format!("made config {version}, of {} variables", variables.len())
        }
        Event::SecretChanged { name, version, .. } => format!("set secret {name}, version {version}"),
        Event::RolledBack { scope, point, seq, .. } => format!("rolled {scope} back to {point} (seq {seq})"),
        Event::Undone { what, decisions, .. } => {
            let seqs = decisions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            format!("undid {what} (seq {seqs})")
        }
        Event::PinsChanged { app_env, pins } => {
            let pins = pins.iter().map(|(place, pin)| match pin {
                Some(Pin::Revision(revision)) => {
                    format!("{place} follows {}", show_revision(state, app_env, revision))
                }
                Some(Pin::Absent) => format!("{app_env} is kept out of {place}"),
                None => format!("{place} follows {app_env} again"),
            });
            pins.collect::<Vec<_>>().join(", ")
        }
        Event::Latched { app_env, release } => {
            let number = state.release_number(release);
            let name = number.map_or_else(|| release.short(), |number| format!("v{number}"));
            format!("{name} of {app_env} was rejected")
        }
        other => other.kind().replace('_', " "),
    }
}

fn joined(nodes: &[NodeName]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What is worth telling of another record of the same decision.
pub(super) fn also(state: &State, about: About<'_>, seq: u64, event: &Event) -> Option<String> {
    let concerns = |app_env: &AppEnv| about.app_env.is_none_or(|own| own == app_env);
    let tells = match event {
        Event::ReleaseCreated { release, .. } => about.app_env.is_none_or(|own| own.app == release.app),
        Event::ConfigChanged { app_env, .. }
        | Event::SecretChanged { app_env, .. }
        | Event::PinsChanged { app_env, .. }
        | Event::Latched { app_env, .. } => concerns(app_env),
        Event::RolledBack { .. } | Event::Undone { .. } | Event::FleetCreated { .. } => true,
        _ => false,
    };
    tells.then(|| what(state, about, seq, event))
}
