//! Which scopes an event touches.

use super::{AssignmentChange, Event, Outcome};
use crate::ids::{AppEnv, NodeName};

impl Event {
    /// The scopes it touches, sorted, each once.
    pub fn scopes(&self) -> Vec<String> {
        let app = |app_env: &AppEnv| vec![app_env.to_string()];
        let nodes = |nodes: &[NodeName]| nodes.iter().map(|node| format!("node:{node}")).collect();
        let mut scopes: Vec<String> = match self {
            Self::TermStarted { .. }
            | Self::FleetCreated { .. }
            | Self::ControllerCertified { .. }
            | Self::MembershipChanged { .. }
            | Self::ControllerRemoved { .. }
            | Self::StateDigestRecorded { .. }
            | Self::TokenCreated { .. }
            | Self::TokenRevoked { .. }
            | Self::JoinTokenCreated { .. }
            | Self::Reviewed { .. }
            | Self::FleetRecovered { .. } => vec!["fleet".to_owned()],
            Self::PointMarked { scope, .. } => vec![scope.to_string()],
            // A subject is an app in an environment, or a word of its own.
            Self::SubjectErased { subject, .. } => match subject.parse::<AppEnv>() {
                Ok(app_env) => app(&app_env),
                Err(_) => vec!["fleet".to_owned()],
            },
            Self::Undone { apps, .. } => apps.iter().map(|(app_env, ..)| app_env.to_string()).collect(),
            Self::PinsChanged { app_env, pins } => {
                let mut scopes = app(app_env);
                scopes.extend(pins.iter().map(|(place, _)| place.to_string()));
                scopes
            }
            Self::NodeEnrolled { node, .. } => vec![format!("node:{}", node.name)],
            Self::NodeLabelled { node, .. }
            | Self::NodeRemoved { node }
            | Self::NodeDrained { node }
            | Self::NodeResumed { node } => vec![format!("node:{node}")],
            Self::NodesLost { nodes: lost } | Self::NodesReturned { nodes: lost } => nodes(lost),
            Self::ProjectCreated { project } => vec![format!("project:{project}")],
            Self::EnvironmentCreated { environment } => vec![format!("env:{environment}")],
            Self::AppDeclared { app, .. } => vec![app.to_string()],
            Self::ReleaseCreated { release, .. } => vec![release.app.to_string()],
            Self::ConfigChanged { app_env, .. }
            | Self::SecretChanged { app_env, .. }
            | Self::DeploymentStarted { app_env, .. }
            | Self::TargetChanged { app_env, .. }
            | Self::Latched { app_env, .. }
            | Self::Unlatched { app_env } => app(app_env),
            Self::DeploymentFinished { app_env, outcome, .. } => match outcome {
                Outcome::Failed { node, .. } => vec![app_env.to_string(), format!("node:{node}")],
                Outcome::Succeeded | Outcome::Superseded { .. } | Outcome::Unplaced { .. } => app(app_env),
            },
            Self::PlacementChanged { app_env, slots } => {
                let mut scopes = app(app_env);
                scopes.extend(slots.iter().filter_map(|(_, node)| Some(format!("node:{}", node.as_ref()?))));
                scopes
            }
            Self::AssignmentsChanged { app_env, changes } => {
                let mut scopes = app(app_env);
                scopes.extend(changes.iter().map(|change| match change {
                    AssignmentChange::Assign { node, .. } | AssignmentChange::Withdraw { node, .. } => {
                        format!("node:{node}")
                    }
                }));
                scopes
            }
            Self::NodesReported { reports } => {
                let mut scopes: Vec<_> =
                    reports.iter().map(|report| format!("node:{}", report.node)).collect();
                for report in reports {
                    scopes.extend(report.changed.iter().map(|change| change.id.slot.app_env.to_string()));
                    scopes.extend(report.gone.iter().map(|id| id.slot.app_env.to_string()));
                }
                scopes
            }
            Self::RolledBack { scope, .. } | Self::Refused { scope, .. } => vec![scope.clone()],
        };
        scopes.sort();
        scopes.dedup();
        scopes
    }
}
