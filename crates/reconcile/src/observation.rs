//! What inspection finds on a node.

use std::collections::BTreeSet;
use std::net::IpAddr;

use stele_model::{AppEnv, Digest, InstanceId};

use crate::limits::{SETTLE_MS, STABLE_MS};

/// Everything of this fleet and node that the container engine has, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// By instance; of one instance, the one worth keeping first. A node may have hundreds, and
    /// each look finds each of them several times.
    containers: Vec<ObservedContainer>,
    networks: BTreeSet<AppEnv>,
}

impl Observation {
    /// From containers in any order, running or not, and the apps that have a network on this node.
    pub fn new(mut containers: Vec<ObservedContainer>, networks: BTreeSet<AppEnv>) -> Self {
        containers.sort_by(|left, right| {
            left.instance.cmp(&right.instance).then_with(|| left.rank().cmp(&right.rank()))
        });
        Self { containers, networks }
    }

    /// All containers, by instance.
    pub fn containers(&self) -> &[ObservedContainer] {
        &self.containers
    }

    /// The apps that have a network on this node.
    pub fn networks(&self) -> &BTreeSet<AppEnv> {
        &self.networks
    }

    /// The containers of each instance that has any, the one worth keeping first.
    pub fn by_instance(&self) -> impl Iterator<Item = (&InstanceId, &[ObservedContainer])> {
        let groups = self.containers.chunk_by(|left, right| left.instance == right.instance);
        groups.filter_map(|group| Some((&group.first()?.instance, group)))
    }

    /// The containers of an instance, the one worth keeping first.
    pub fn containers_of(&self, instance: &InstanceId) -> &[ObservedContainer] {
        let from = self.containers.partition_point(|container| container.instance < *instance);
        let rest = &self.containers[from..];
        let count = rest.iter().take_while(|container| container.instance == *instance).count();
        &rest[..count]
    }

    /// The container that counts as this instance's.
    pub fn of(&self, instance: &InstanceId) -> Option<&ObservedContainer> {
        self.containers_of(instance).first()
    }
}

/// One container, as inspected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedContainer {
    /// The engine's id.
    pub id: String,
    /// The instance its label names.
    pub instance: InstanceId,
    /// Digest of the spec it was made of, from its label; absent if unreadable.
    pub spec_digest: Option<Digest>,
    /// Where it is in its life.
    pub state: ContainerState,
    /// Exit code of its last run, when it is not running.
    pub exit_code: Option<i64>,
    /// Whether its last run was ended for using too much memory.
    pub oom_killed: bool,
    /// What the engine says went wrong when it last tried to start it.
    pub error: Option<String>,
    /// Times the engine started it again by itself since it was last started on request.
    pub restart_count: u32,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// When it was last started, in milliseconds since 1970.
    pub started_ms: Option<u64>,
    /// Between being asked to stop and being killed, in seconds.
    pub stop_grace_seconds: u32,
    /// Where its ports can be reached from the host.
    pub address: Option<IpAddr>,
    /// What was changed by hand since it was made, for people.
    pub drift: Option<String>,
    /// What was asked for and the engine left out, because the host cannot do it; for people. Another container would
    /// be no better.
    pub left_out: Option<String>,
}

/// Where a container is in its life, in the engine's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContainerState {
    /// Running.
    Running,
    /// It is there, but the engine does not say how it is: it is left alone.
    Unknown,
    /// Ended, and the engine is about to start it again.
    Restarting,
    /// Frozen.
    Paused,
    /// Made, never started (or its start failed).
    Created,
    /// Ended.
    Exited,
    /// The engine failed to remove it.
    Dead,
    /// The engine is removing it.
    Removing,
}

impl ObservedContainer {
    /// Orders duplicates of one instance: least worth losing first. Depends on nothing
    /// but the containers, so that an agent that starts anew makes the same choice.
    fn rank(&self) -> (bool, ContainerState, u64, &str) {
        (self.drift.is_some(), self.state, self.created_ms, &self.id)
    }

    /// How long it has been up, in milliseconds; zero when it is not running.
    pub fn uptime_ms(&self, now_ms: u64) -> u64 {
        match (self.state, self.started_ms) {
            // The host's clock was set back since: how long ago that was is not known, and it is no fresh start.
            (ContainerState::Running, Some(started)) if started > now_ms.saturating_add(SETTLE_MS) => {
                STABLE_MS
            }
            (ContainerState::Running, Some(started)) => now_ms.saturating_sub(started),
            _ => 0,
        }
    }
}
