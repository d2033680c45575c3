//! The agent's brain: which assignments it believes, what it does about them, and
//! what it says about the result.
//!
//! It owns the rules: [`accept()`] believes an assignment or refuses it, [`plan()`]
//! compares what is desired with what is observed and answers with tasks,
//! [`Memory`] remembers what inspection cannot tell (failed attempts, health),
//! [`report()`] tells the fleet, [`Reporter`] when it is told and told again, [`SyncSchedule`] when to ask, [`statement()`] is what the node vouches for, and [`HostPolicy`] is the host's own last word on
//! what a container may be.
//!
//! It must never do anything itself: no clock, no socket, no file, no container.
//! Time comes in as milliseconds since 1970, effects go out as [`Action`]s.
//! Nothing a decision depends on may live in [`Memory`] alone: an agent that is
//! killed between any two actions starts with an empty one, and must still end
//! without an orphan or a duplicate.
//!
//! ```
//! use stele_reconcile::{Memory, Observation, plan};
//!
//! // A node that should run nothing and runs nothing has nothing to do.
//! assert!(plan(&[], &Observation::default(), &Memory::default(), 0).is_empty());
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

mod accept;
mod health;
mod heartbeat;
mod images;
pub mod limits;
mod memory;
mod observation;
mod plan;
mod policy;
mod report;
mod reporter;
mod statement;
mod sync;
mod trust;

pub use accept::{Accepted, Refusal, accept};
pub use health::{HealthState, Verdict};
pub use heartbeat::HeartbeatSchedule;
pub use images::{ImageHere, PulledImage, PulledImages};
pub use memory::{Cause, Failure, InstanceMemory, Memory, RunEnd, Setback};
pub use observation::{ContainerState, Observation, ObservedContainer};
pub use plan::{Action, Subject, Task, first_start, plan};
pub use policy::{CreateContext, HostMount, HostPolicy, PolicyViolation, merge};
pub use report::{report, unseen};
pub use reporter::{Due, Reporter};
pub use statement::{Inspection, Inspections, statement};
pub use sync::{SyncSchedule, doubled_ms};
pub use trust::{Pinned, Trust};
