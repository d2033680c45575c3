//! Placement and rollouts: from State to the next commands.
//!
//! Owns where instances go and in which order they are replaced. It must never
//! act: it returns commands, which are decided like any others, and asked again
//! with the same State it returns the same commands.
//!
//! ```
//! use stele_model::{State, Time};
//! assert!(stele_planner::plan(&State::default(), Time(0)).is_empty());
//! ```

/// Whether a bug is planted here: never, unless the simulator's own run asks for the feature.
macro_rules! planted {
    ($bug:ident) => {{
        #[cfg(feature = "planted")]
        {
            stele_planted::is_planted(stele_planted::Bug::$bug)
        }
        #[cfg(not(feature = "planted"))]
        {
            false
        }
    }};
}

mod cause;
mod changes;
mod clashes;
mod deadline;
mod dirty;
mod drain;
pub mod limits;
mod make_way;
mod placement;
mod ports;
mod replace;
pub mod retention;
mod rollout;
mod simulate;
mod watch;

pub use cause::cause;
pub use dirty::Dirty;
pub use drain::{Staying, staying};
pub use placement::{Placing, Unplaced, place};
pub use simulate::{Simulated, Step, simulate};
pub use watch::{Watch, on_their_way};

use std::collections::BTreeSet;

use stele_model::{AppEnv, Command, State, Time};

/// What is to be done next, for every app in every environment.
///
/// Waves, canaries and windows belong between [`place`] and the rollout: they
/// decide how much of a placed target may be assigned now.
pub fn plan(state: &State, now: Time) -> Vec<Command> {
    apps(state).iter().filter_map(|app_env| plan_app(state, app_env, now)).collect()
}

/// Every app in every environment that is, or of which something is left.
pub fn apps(state: &State) -> BTreeSet<AppEnv> {
    let assigned = state.assigned.values().flat_map(|node| node.instances.keys().map(|id| &id.slot.app_env));
    state.target.intent.keys().chain(assigned).chain(state.history.latest.keys()).cloned().collect()
}

/// The next command for one app in one environment, if there is anything to do.
pub fn plan_app(state: &State, app_env: &AppEnv, now: Time) -> Option<Command> {
    look(state, app_env, now).0
}

/// The same, and whether there is room for all of it.
fn look(state: &State, app_env: &AppEnv, now: Time) -> (Option<Command>, bool) {
    let Placing { changes: mut slots, unplaced, kept } = place(state, app_env);
    let has_room = unplaced.is_none() && kept.is_empty();
    if !slots.is_empty() {
        slots.truncate(limits::SLOTS_PER_COMMAND_MAX);
        return (Some(Command::Place { app_env: app_env.clone(), slots }), has_room);
    }
    (rollout::advance(state, app_env, unplaced, now), has_room)
}
