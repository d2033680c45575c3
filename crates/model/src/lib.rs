//! The vocabulary of Stele and everything it decides: names, specs, commands,
//! events, [`State`], `decide`, `fold`, digests, and rollback as a plan of events.
//!
//! It must never read a clock, draw a random number, touch a file or a socket, or
//! iterate anything whose order is not defined: the same log must fold into the
//! same bytes on every machine, for ever.

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

mod annals;
mod assignment;
mod canonical;
pub mod command;
mod container_id;
pub mod convergence;
pub mod decide;
pub mod delta;
pub mod diff;
pub mod digest;
pub mod event;
mod fields;
mod flat_map;
pub mod fold;
pub mod header;
mod hold;
pub mod ids;
mod in_order;
mod index;
mod leaf;
pub mod limits;
mod merge;
mod notes;
pub mod point;
pub mod rejection;
pub mod release;
mod revisions;
pub mod scope;
pub mod selector;
mod shared_digest;
mod shared_text;
mod sharing;
pub mod signature;
mod specs;
pub mod state;
mod target;
pub mod trial;
pub mod trie;
pub mod value;
pub mod why;
pub mod wire;

pub use annals::Annals;
pub use canonical::canonical_json;
pub use command::{Command, ReleaseChoice, Request};
pub use container_id::ContainerId;
pub use decide::{Context, Decided, admit, decide};
pub use delta::{
    Answers, AnswersDelta, AppChange, Delta, Excerpt, Interest, Mismatch, NodeChange, Outline, ProgressDelta,
    ProgressHead, TargetChange, TargetDelta, TargetHead, TargetOutline,
};
pub use diff::{Difference, diff};
pub use digest::Digest;
pub use event::{Event, Record};
pub use flat_map::FlatMap;
pub use fold::{answer_of, fold, fold_about, fold_target};
pub use header::{Decision, Header, Headline, Idempotency, Links};
pub use hold::Hold;
pub use ids::{
    AppEnv, AppId, AppName, ControllerId, EnvironmentName, FleetName, InstanceId, NodeName, Place,
    PrincipalId, ProjectName, RegionName, SecretName, Seq, ServiceName, Slot, Time,
};
pub use in_order::Nodes;
pub use notes::Leaving;
pub use point::Point;
pub use rejection::{Rejection, RejectionKind};
pub use release::{InstanceSpec, Release, Revision};
pub use revisions::Revisions;
pub use scope::Scope;
pub use selector::Selector;
pub use shared_digest::SharedDigest;
pub use specs::Specs;
pub use state::{Answer, State};
pub use value::{Sealed, Value, is_subject};
