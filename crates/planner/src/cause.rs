//! What led to a command of the conductor's own.

use stele_model::{Command, Seq, State};

/// The seq that led to a command planned on a State: the deployment on its way, or else the drain of a node that
/// something leaves, or what last changed the target. None where only the caller knows, such as for a node that left.
pub fn cause(state: &State, command: &Command) -> Option<Seq> {
    let running = |app_env| state.running_deployment(app_env).map(|(seq, _)| seq);
    match command {
        Command::Place { app_env, slots } => running(app_env).or_else(|| {
            let mut left = slots.iter().filter_map(|(slot, _)| state.target.placement.get(slot));
            left.find_map(|node| state.control.drained.get(node)).copied()
        }),
        Command::Assign { app_env, .. } => {
            running(app_env).or_else(|| state.history.last_changed.get(app_env).copied())
        }
        Command::FinishDeployment { deployment, .. } => Some(*deployment),
        _ => None,
    }
}
