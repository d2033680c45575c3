//! One event on one line.

use stele_model::event::{AssignmentChange, Outcome, Pin};
use stele_model::{Event, Place, Record};

use crate::terminal::{Terminal, Tone, cell, or_dash, time};

/// A record, on one line.
pub(super) fn event_line(terminal: Terminal, record: &Record) -> String {
    let header = &record.header;
    let scopes = match header.scopes.as_slice() {
        [] => "-".to_owned(),
        [only] => cell(only),
        [first, rest @ ..] => format!("{} +{}", cell(first), rest.len()),
    };
    let reason = header.reason.as_ref().map(|reason| match reason.plain() {
        Some(text) => format!("  \"{}\"", cell(text)),
        None => format!("  {}", cell(&reason.told())),
    });
    let what = detail(&record.event);
    format!(
        "{:>7}  {}  {:<22} {:<28} {}{}{}",
        header.seq,
        terminal.paint(Tone::Faint, &time(header.time)),
        cell(&header.kind),
        scopes,
        or_dash(Some(&header.principal)),
        if what.is_empty() { what } else { format!("  {what}") },
        reason.unwrap_or_default()
    )
}

/// What matters most about an event, in a few words.
fn detail(event: &Event) -> String {
    match event {
        Event::TermStarted { term, controller } => format!("term {term}, controller {controller}"),
        Event::FleetCreated { fleet, .. } => format!("fleet {fleet}"),
        Event::ControllerCertified { certificate, .. } => {
            format!("controller {}", certificate.body.controller)
        }
        Event::MembershipChanged { voters, learners } => format!("voters {voters:?}, learners {learners:?}"),
        Event::ControllerRemoved { controller } => format!("controller {controller}"),
        Event::FleetRecovered { epoch, controller, given_up } => {
            format!("epoch {epoch}, controller {controller} goes on without {given_up:?}")
        }
        Event::StateDigestRecorded { digest } => digest.to_string(),
        Event::TokenCreated { token } => format!("{} as {:?}", token.principal, token.role).to_lowercase(),
        Event::TokenRevoked { principal } => principal.to_string(),
        Event::JoinTokenCreated { token } => format!("region {}", token.region),
        Event::NodeEnrolled { node, .. } => format!("{} in {}", node.name, node.region),
        Event::NodesLost { nodes } | Event::NodesReturned { nodes } => {
            nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        }
        Event::ReleaseCreated { number, digest, .. } => format!("v{number} {}", digest.short()),
        Event::ConfigChanged { version, .. } => format!("version {version}"),
        Event::SecretChanged { name, version, .. } => format!("{name} version {version}"),
        Event::DeploymentStarted { kind, to, .. } => {
            let what = to.as_ref().map_or_else(|| "nothing".to_owned(), |to| to.release.short());
            format!("{kind:?} to {what}").to_lowercase()
        }
        Event::DeploymentFinished { deployment, outcome, .. } => match outcome {
            Outcome::Succeeded => format!("{deployment} succeeded"),
            Outcome::Superseded { by } => format!("{deployment} superseded by {by}"),
            Outcome::Unplaced { slot, reason } => {
                format!("{deployment} failed: {slot} has no node: {}", cell(reason))
            }
            Outcome::Failed { instance, reason, .. } => {
                format!("{deployment} failed: {instance}: {}", cell(reason))
            }
        },
        Event::TargetChanged { revision, .. } => {
            revision.as_ref().map_or_else(|| "nothing".to_owned(), |revision| revision.release.short())
        }
        Event::PlacementChanged { slots, .. } => format!("{} slots", slots.len()),
        Event::AssignmentsChanged { changes, .. } => {
            let starts =
                changes.iter().filter(|change| matches!(change, AssignmentChange::Assign { .. })).count();
            format!("{starts} assigned, {} withdrawn", changes.len() - starts)
        }
        Event::NodesReported { reports } => {
            let changed: usize = reports.iter().map(|report| report.changed.len()).sum();
            format!("{} nodes, {changed} instances changed", reports.len())
        }
        Event::RolledBack { point, seq, after, deviations, .. } => {
            let but = if deviations.is_empty() {
                String::new()
            } else {
                format!(", {} deviations", deviations.len())
            };
            format!("to {} (seq {seq}), intent {}{but}", cell(point), after.intent.short())
        }
        Event::PinsChanged { pins, .. } => {
            let pin = |(place, pin): &(Place, Option<Pin>)| match pin {
                Some(Pin::Revision(revision)) => format!("{place} to {}", revision.release.short()),
                Some(Pin::Absent) => format!("{place} to nothing"),
                None => format!("{place} follows the app"),
            };
            pins.iter().map(pin).collect::<Vec<_>>().join(", ")
        }
        Event::PointMarked { seq, bad: true, .. } => format!("seq {seq} is bad"),
        Event::PointMarked { seq, bad: false, .. } => format!("seq {seq} is not bad"),
        Event::Reviewed { rollback } => format!("rollback {rollback}"),
        Event::SubjectErased { subject, through } => {
            format!("{} through key version {through}", cell(subject))
        }
        Event::Undone { what, apps, .. } => format!("{} in {} apps", cell(what), apps.len()),
        Event::Latched { release, .. } => release.short(),
        Event::Refused { action, why, .. } => format!("{}: {}", cell(action), cell(why)),
        Event::NodeLabelled { .. }
        | Event::NodeRemoved { .. }
        | Event::NodeDrained { .. }
        | Event::NodeResumed { .. }
        | Event::ProjectCreated { .. }
        | Event::EnvironmentCreated { .. }
        | Event::AppDeclared { .. }
        | Event::Unlatched { .. } => String::new(),
    }
}
