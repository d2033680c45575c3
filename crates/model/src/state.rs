//! State: what the log folds into, as five trees of persistent maps.
//!
//! A clone costs nothing, so readers, planners and snapshots each hold their own
//! version and nobody locks.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeInclusive};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use crate::annals::Annals;
use crate::digest::Digest;
use crate::event::{Contacts, DeploymentKind, EnrolledNode, Holder, JoinToken, Outcome, Pin, Token};
use crate::flat_map::FlatMap;
use crate::ids::{
    AppEnv, AppId, ControllerId, EnvironmentName, FleetName, InstanceId, NodeName, Place, PrincipalId,
    ProjectName, RegionName, SecretName, Seq, Slot, Time,
};
use crate::in_order::InOrder;
use crate::index::{first_instance, first_slot};
use crate::release::{Container, EnvValue, InstanceSpec, Release, Revision};
use crate::scope::Scope;
use crate::selector::Selector;
use crate::shared_digest::SharedDigest;
use crate::signature::{Certificate, PublicKey};
use crate::value::{Sealed, Value};
use crate::wire::{AssignmentVersion, InstanceReport, Position};

/// Everything the log says, up to `seq`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// The last record folded.
    pub seq: Seq,
    /// Its time.
    pub time: Time,
    /// What should be.
    pub target: Target,
    /// What nodes have been told.
    pub assigned: OrdMap<NodeName, Assigned>,
    /// What nodes told.
    pub observed: OrdMap<NodeName, Observed>,
    /// What governs; never rolled back.
    pub control: Control,
    /// What was.
    pub history: History,
    /// Digests of all of the above, kept up to date; rebuilt when State is read from bytes.
    #[serde(skip)]
    pub(crate) leaves: crate::leaf::Leaves,
    /// What is looked up of it; follows from the rest.
    #[serde(skip)]
    pub(crate) index: crate::index::Index,
}

/// What should be: the only tree a rollback restores.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// What each app is in each environment. Absent: it is not there.
    pub intent: OrdMap<AppEnv, Arc<Revision>>,
    /// Where each instance should be.
    pub placement: OrdMap<Slot, NodeName>,
    /// Places whose instances follow another revision than the rest of their app.
    pub pins: OrdMap<(AppEnv, Place), Arc<Pin>>,
}

/// What one node has been told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assigned {
    /// The seq that last changed it.
    pub changed: Seq,
    /// What it should run.
    pub instances: OrdMap<InstanceId, Arc<AssignedTo>>,
}

/// One instance a node has been told to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedTo {
    /// What it is made of.
    pub revision: Arc<Revision>,
    /// Digest of the resulting [`InstanceSpec`].
    pub spec: SharedDigest,
    /// The instance that must be gone first.
    pub replaces: Option<InstanceId>,
    /// When it was assigned.
    pub since: Time,
}

/// What one node told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// The agent's boot.
    pub boot: u64,
    /// The last report of that boot.
    pub number: u64,
    /// The assignment it works on.
    pub applied: AssignmentVersion,
    /// Whether it was not heard of for longer than its grace period.
    pub lost: bool,
    /// When it last reported something new.
    pub time: Time,
    /// The instances on it.
    pub instances: OrdMap<InstanceId, Arc<InstanceReport>>,
}

/// What governs the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// The fleet itself; absent before its first record.
    pub fleet: Option<Fleet>,
    /// Controllers by Raft id.
    pub controllers: OrdMap<ControllerId, Controller>,
    /// Raft ids that vote.
    pub voters: OrdSet<ControllerId>,
    /// Raft ids that only follow.
    pub learners: OrdSet<ControllerId>,
    /// Raft ids that were used and removed.
    pub retired: OrdSet<ControllerId>,
    /// Tokens by principal.
    pub tokens: OrdMap<PrincipalId, Token>,
    /// Principals by token hash.
    pub bearers: OrdMap<Digest, PrincipalId>,
    /// Join tokens not used yet, by hash.
    pub join_tokens: OrdMap<Digest, JoinToken>,
    /// Nodes of the fleet.
    pub nodes: OrdMap<NodeName, Arc<EnrolledNode>>,
    /// Those of them that get nothing new, and that what runs there leaves, by the seq since which it is so. Snapshots
    /// have it behind the rest, where there are any.
    #[serde(skip)]
    pub drained: OrdMap<NodeName, Seq>,
    /// Projects.
    pub projects: OrdSet<ProjectName>,
    /// Environments.
    pub environments: OrdSet<EnvironmentName>,
    /// Apps and who answers for them.
    pub apps: OrdMap<AppId, Contacts>,
    /// Releases that may not be deployed until unlatched.
    pub latches: OrdMap<AppEnv, OrdSet<Digest>>,
    /// How often each principal was refused lately.
    pub refusals: OrdMap<PrincipalId, Refusals>,
    /// Points that are never offered as `last-good`.
    pub marked_bad: OrdSet<(Scope, Seq)>,
    /// Rollbacks nobody else has looked at yet, by the seq of their record, and who did them.
    pub reviews: OrdMap<Seq, PrincipalId>,
    /// Subjects whose data keys are destroyed, up to which version.
    pub erased: OrdMap<String, u32>,
}

/// The fleet itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fleet {
    /// Its name.
    pub name: FleetName,
    /// The offline root's public key.
    pub root: PublicKey,
    /// The incarnation.
    pub epoch: u64,
}

/// A controller of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controller {
    /// The root's word for its key.
    pub certificate: Certificate,
    /// Where its API answers.
    pub api: String,
    /// Where its peers reach it.
    pub peer: String,
}

/// Refusals of one principal in the current window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusals {
    /// When the window began.
    pub since: Time,
    /// How many were logged in it.
    pub logged: u32,
}

/// What was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The term of the last leader to decide, and that leader.
    pub term: u64,
    /// The leader of that term.
    pub leader: ControllerId,
    /// Every release by content.
    pub releases: Annals<Digest, Arc<ReleaseRecord>>,
    /// Every release by number.
    pub numbers: Annals<(AppId, u32), Digest>,
    /// Config bundles by content.
    pub configs: Annals<Digest, Arc<FlatMap<String, Value>>>,
    /// Config bundles by version.
    pub config_versions: Annals<(AppEnv, u32), Digest>,
    /// Sealed secrets by version.
    pub secrets: Annals<(AppEnv, SecretName, u32), Sealed>,
    /// Deployments by the seq of their start: all that run, and the latest finished ones.
    pub deployments: OrdMap<Seq, Arc<Deployment>>,
    /// The same by app and environment.
    pub deployments_of: OrdMap<(AppEnv, Seq), ()>,
    /// The newest deployment of each app and environment.
    pub latest: OrdMap<AppEnv, Seq>,
    /// Each change of intent, by the last seq of the decision that made it.
    pub changes: OrdMap<(AppEnv, Seq), Change>,
    /// The seq that last changed the target (intent, pins or placement) of each app and environment.
    pub last_changed: OrdMap<AppEnv, Seq>,
    /// Deployments a rollback should not pass unasked, by the seq of their start, and why.
    pub barriers: OrdMap<(AppEnv, Seq), String>,
    /// Requests answered lately, by principal and key.
    pub answered: OrdMap<(PrincipalId, String), Answered>,
    /// The same by age, to forget the oldest.
    pub answered_by_age: OrdMap<(Time, PrincipalId, String), ()>,
}

/// A change of an app's intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// First seq of the decision: just before it, the earlier intent was in force.
    pub first: Seq,
    /// What came into force; absent when the app was removed.
    pub revision: Option<Arc<Revision>>,
}

/// A release with when it came to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRecord {
    /// `v12` is 12.
    pub number: u32,
    /// The seq that created it.
    pub seq: Seq,
    /// Its content.
    pub release: Release,
    /// What each image was asked for as.
    pub images: FlatMap<crate::ids::ServiceName, String>,
}

/// An app's way to a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Which app and environment.
    pub app_env: AppEnv,
    /// Why it came to be.
    pub kind: DeploymentKind,
    /// What was in force before.
    pub from: Option<Revision>,
    /// What should be.
    pub to: Option<Revision>,
    /// Whether everything is replaced at once.
    pub now: bool,
    /// Who started it.
    pub principal: PrincipalId,
    /// When it started.
    pub started: Time,
    /// When and how it ended, and the seq that says so.
    pub finished: Option<(Time, Seq, Outcome)>,
}

/// A request answered before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Over the request.
    pub request: Digest,
    /// What it was answered.
    pub answer: Answer,
    /// When.
    pub time: Time,
}

/// What a decided command is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Answer {
    /// Its records; absent when nothing had to change.
    pub decision: Option<crate::header::Decision>,
    /// Number of the release it created or deployed.
    pub release: Option<u32>,
    /// Seqs of the starts of the deployments it began.
    pub deployments: Vec<Seq>,
}

impl Observed {
    /// Where its last report stands among what the node said.
    pub fn position(&self) -> Position {
        Position { boot: self.boot, number: self.number }
    }
}

/// What a node has of the app that an instance is the first of.
fn of_app<'a, V>(
    instances: &'a OrdMap<InstanceId, V>,
    first: &Arc<InstanceId>,
) -> impl Iterator<Item = (&'a InstanceId, &'a V)> + use<'a, V> {
    let range = (Bound::Included(first.as_ref()), Bound::Unbounded);
    let first = Arc::clone(first);
    let from = instances.range::<_, InstanceId>(range);
    from.take_while(move |(id, _)| id.slot.app_env == first.slot.app_env)
}

impl State {
    /// Number of a release, `v12`.
    pub fn release_number(&self, release: &Digest) -> Option<u32> {
        self.history.releases.get(release).map(|record| record.number)
    }

    /// Whether a release was rejected by a rollback, and nobody has unlatched its app since.
    pub fn is_latched(&self, app_env: &AppEnv, release: &Digest) -> bool {
        self.control.latches.get(app_env).is_some_and(|rejected| rejected.contains(release))
    }

    /// Whether a program holds a principal's token.
    pub(crate) fn is_service(&self, principal: &PrincipalId) -> bool {
        self.control.tokens.get(principal).is_some_and(|token| token.holder == Holder::Service)
    }

    /// The highest release number of an app; zero when it has none.
    pub fn newest_release(&self, app: &AppId) -> u32 {
        let end = (app.clone(), u32::MAX);
        self.history
            .numbers
            .range(..=end)
            .next_back()
            .filter(|((owner, _), _)| owner == app)
            .map_or(0, |((_, number), _)| *number)
    }

    /// The newest version of a config bundle; zero when there is none.
    pub fn newest_config(&self, app_env: &AppEnv) -> u32 {
        let end = (app_env.clone(), u32::MAX);
        self.history
            .config_versions
            .range(..=end)
            .next_back()
            .filter(|((owner, _), _)| owner == app_env)
            .map_or(0, |((_, version), _)| *version)
    }

    /// The newest version of a secret; zero when there is none.
    pub fn newest_secret(&self, app_env: &AppEnv, name: &SecretName) -> u32 {
        let end = (app_env.clone(), name.clone(), u32::MAX);
        self.history
            .secrets
            .range(..=end)
            .next_back()
            .filter(|((owner, present, _), _)| owner == app_env && present == name)
            .map_or(0, |((_, _, version), _)| *version)
    }

    /// What a node was told to run in a slot.
    pub fn assigned_in(
        &self,
        slot: &Slot,
        node: &NodeName,
    ) -> impl Iterator<Item = (&InstanceId, &Arc<AssignedTo>)> + use<'_> {
        let id = |serial| InstanceId { slot: slot.clone(), serial };
        let range = id(0)..=id(Seq::MAX);
        let assigned = self.assigned.get(node).map(|assigned| assigned.instances.range(range));
        assigned.into_iter().flatten()
    }

    /// Whether a node was told to run something of a spec in a slot.
    pub(crate) fn is_assigned(&self, slot: &Slot, node: &NodeName, spec: Digest) -> bool {
        self.assigned_in(slot, node).any(|(_, to)| to.spec == spec)
    }

    /// Whether an instance of a slot that is made so is healthy on a node.
    pub(crate) fn is_healthy_as(&self, slot: &Slot, node: &NodeName, spec: Digest) -> bool {
        self.assigned_in(slot, node).any(|(id, to)| to.spec == spec && self.is_healthy(node, id))
    }

    /// The deployments of an app in an environment that began in a range, in order.
    pub fn deployments_of(
        &self,
        app_env: &AppEnv,
        began: RangeInclusive<Seq>,
    ) -> impl DoubleEndedIterator<Item = (Seq, &Arc<Deployment>)> {
        let (from, to) = began.into_inner();
        let range = (app_env.clone(), from)..=(app_env.clone(), to);
        let seqs = self.history.deployments_of.range(range).map(|((_, seq), ())| *seq);
        seqs.filter_map(|seq| Some((seq, self.history.deployments.get(&seq)?)))
    }

    /// The newest deployment of an app in an environment.
    pub fn latest_deployment(&self, app_env: &AppEnv) -> Option<(Seq, &Arc<Deployment>)> {
        let seq = *self.history.latest.get(app_env)?;
        Some((seq, self.history.deployments.get(&seq)?))
    }

    /// The deployment that is still on its way, if any.
    pub fn running_deployment(&self, app_env: &AppEnv) -> Option<(Seq, &Arc<Deployment>)> {
        self.latest_deployment(app_env).filter(|(_, deployment)| deployment.finished.is_none())
    }

    /// A node's labels, with `node` and `region`.
    pub fn node_labels(&self, node: &EnrolledNode) -> BTreeMap<String, String> {
        let mut labels = node.labels.clone();
        labels.insert("node".to_owned(), node.name.to_string());
        labels.insert("region".to_owned(), node.region.to_string());
        labels
    }

    /// Whether a node is selected. Most selectors ask for nothing, and labels are dear to put together.
    pub fn selects(&self, selector: &Selector, node: &EnrolledNode) -> bool {
        selector.is_any() || selector.matches(&self.node_labels(node))
    }

    /// Whether a node was drained, and not resumed since.
    pub fn is_drained(&self, node: &NodeName) -> bool {
        self.control.drained.contains_key(node)
    }

    /// Whether a node is selected, and may get something new.
    pub fn takes(&self, selector: &Selector, node: &EnrolledNode) -> bool {
        !self.is_drained(&node.name) && self.selects(selector, node)
    }

    /// A node's region.
    pub fn region_of(&self, node: &NodeName) -> Option<&RegionName> {
        self.control.nodes.get(node).map(|node| &node.region)
    }

    /// Whether a node is of the fleet and was heard of lately.
    pub fn is_reachable(&self, node: &NodeName) -> bool {
        self.control.nodes.contains_key(node) && !self.observed.get(node).is_some_and(|seen| seen.lost)
    }

    /// The places of an app in an environment that are pinned.
    pub fn pins(&self, app_env: &AppEnv) -> impl Iterator<Item = (&Place, &Arc<Pin>)> {
        // Regions sort before nodes, and this is the first name there is.
        #[allow(clippy::unwrap_used)]
        let first = (app_env.clone(), Place::Region(RegionName::new("0").unwrap()));
        let app_env = app_env.clone();
        self.target
            .pins
            .range(first..)
            .take_while(move |((owner, _), _)| *owner == app_env)
            .map(|((_, place), pin)| (place, pin))
    }

    /// What a node is pinned to for an app, by its own name or its region's.
    pub fn pin_at(&self, app_env: &AppEnv, node: &NodeName) -> Option<&Pin> {
        let of = |place| self.target.pins.get(&(app_env.clone(), place)).map(AsRef::as_ref);
        if self.target.pins.is_empty() {
            return None;
        }
        of(Place::Node(node.clone())).or_else(|| of(Place::Region(self.region_of(node)?.clone())))
    }

    /// The revision an app's instances on a node should be of; absent when it should not be there.
    pub fn revision_at(&self, app_env: &AppEnv, node: &NodeName) -> Option<&Revision> {
        match self.pin_at(app_env, node) {
            Some(Pin::Revision(revision)) => Some(revision),
            Some(Pin::Absent) => None,
            None => self.target.intent.get(app_env).map(AsRef::as_ref),
        }
    }

    /// Whether an app should be anywhere in an environment.
    pub fn is_wanted(&self, app_env: &AppEnv) -> bool {
        self.target.intent.contains_key(app_env)
            || self.pins(app_env).any(|(_, pin)| matches!(**pin, Pin::Revision(_)))
    }

    /// Whether something of an app should be in an environment, or is said about a place.
    pub fn is_targeted(&self, app_env: &AppEnv) -> bool {
        self.target.intent.contains_key(app_env) || self.pins(app_env).next().is_some()
    }

    /// Apps of which something should be, or is said about a place: those that [`Self::is_targeted`].
    pub fn targeted(&self) -> std::collections::BTreeSet<&AppEnv> {
        let pinned = self.target.pins.keys().map(|(app_env, _)| app_env);
        self.target.intent.keys().chain(pinned).collect()
    }

    /// All slots of an app in an environment with their nodes.
    pub fn slots<'a>(&'a self, app_env: &AppEnv) -> impl Iterator<Item = (&'a Slot, &'a NodeName)> + use<'a> {
        // Slots sort by app and environment first, so that those of one are together.
        let first = first_slot(app_env);
        let app_env = app_env.clone();
        self.target.placement.range(first..).take_while(move |(slot, _)| slot.app_env == app_env)
    }

    /// All slots of an app in an environment in this State or another one, in order, with the node of each in both.
    pub fn slots_beside<'a>(
        &'a self,
        other: &'a Self,
        app_env: &AppEnv,
    ) -> impl Iterator<Item = (&'a Slot, Option<&'a NodeName>, Option<&'a NodeName>)> + use<'a> {
        // Both are in order, so that neither has to be searched.
        let (mut here, mut there) = (self.slots(app_env).peekable(), other.slots(app_env).peekable());
        std::iter::from_fn(move || {
            let first = match (here.peek(), there.peek()) {
                (Some((one, _)), Some((another, _))) => *one.min(another),
                (Some((slot, _)), None) | (None, Some((slot, _))) => *slot,
                (None, None) => return None,
            };
            let node = here.next_if(|(slot, _)| *slot == first).map(|(_, node)| node);
            let other_node = there.next_if(|(slot, _)| *slot == first).map(|(_, node)| node);
            Some((first, node, other_node))
        })
    }

    /// All instances of an app in an environment that nodes have been told to run.
    pub fn assigned_to<'a>(
        &'a self,
        app_env: &AppEnv,
    ) -> impl Iterator<Item = (&'a NodeName, &'a InstanceId, &'a Arc<AssignedTo>)> + use<'a> {
        let mut assigned = InOrder::new(&self.assigned);
        let first = Arc::new(first_instance(app_env));
        let at = move |node| {
            let of_app = of_app(&assigned.get(node)?.instances, &first);
            Some(of_app.map(move |(id, instance)| (node, id, instance)))
        };
        self.hosts_of(app_env).filter_map(at).flatten()
    }

    /// All instances of an app in an environment that nodes told of, nodes that are lost included.
    pub fn observed_of<'a>(
        &'a self,
        app_env: &AppEnv,
    ) -> impl Iterator<Item = (&'a NodeName, &'a InstanceId, &'a Arc<InstanceReport>)> + use<'a> {
        let mut observed = InOrder::new(&self.observed);
        let first = Arc::new(first_instance(app_env));
        let at = move |node| {
            let of_app = of_app(&observed.get(node)?.instances, &first);
            Some(of_app.map(move |(id, report)| (node, id, report)))
        };
        self.hosts_of(app_env).filter_map(at).flatten()
    }

    /// What a node last told about an instance.
    pub fn report_of(&self, node: &NodeName, instance: &InstanceId) -> Option<&Arc<InstanceReport>> {
        self.observed.get(node)?.instances.get(instance)
    }

    /// Whether an instance is known to be healthy on a node that is reachable.
    pub fn is_healthy(&self, node: &NodeName, instance: &InstanceId) -> bool {
        let Some(seen) = self.observed.get(node) else { return false };
        let report = seen.instances.get(instance);
        report.is_some_and(|report| report.is_well()) && !seen.lost && self.control.nodes.contains_key(node)
    }

    /// The container of a service under a revision, with config and secrets filled in.
    /// `None` when the revision has no such service or refers to something unknown.
    pub fn instance_spec(
        &self,
        app_env: &AppEnv,
        revision: &Revision,
        service: &crate::ids::ServiceName,
    ) -> Option<InstanceSpec> {
        let mut container = self.release_of(revision)?.services.get(service)?.container.clone();
        let open = |value: &EnvValue| -> Option<EnvValue> {
            match value {
                EnvValue::Value(_) => Some(value.clone()),
                EnvValue::Secret(name) => {
                    let version = *revision.secrets.get(name)?;
                    let sealed = self.history.secrets.get(&(app_env.clone(), name.clone(), version))?;
                    Some(EnvValue::Value(Value::Sealed(sealed.clone())))
                }
            }
        };
        if let Some(config) = &revision.config {
            // What a service says of itself is more specific than the shared bundle.
            let shared = self.history.configs.get(config)?.iter();
            let shared = shared.map(|(key, value)| (key.clone(), EnvValue::Value(value.clone())));
            container.env = shared.chain(std::mem::take(&mut container.env)).collect();
        }
        for value in container.env.values_mut() {
            *value = open(value)?;
        }
        for file in container.files.values_mut() {
            file.content = open(&file.content)?;
        }
        Some(InstanceSpec { app_env: app_env.clone(), service: service.clone(), container })
    }

    /// The names of the secrets a release refers to.
    pub fn secrets_of(release: &Release) -> Vec<SecretName> {
        let of = |container: &Container| {
            let env = container.env.values();
            let files = container.files.values().map(|file| &file.content);
            env.chain(files)
                .filter_map(|value| match value {
                    EnvValue::Secret(name) => Some(name.clone()),
                    EnvValue::Value(_) => None,
                })
                .collect::<Vec<_>>()
        };
        let mut names: Vec<_> =
            release.services.values().flat_map(|service| of(&service.container)).collect();
        names.sort();
        names.dedup();
        names
    }

    /// The epoch and seq of what a node has been told: its version, without the digest, which is dear.
    pub fn assignment_seq(&self, node: &NodeName) -> (u64, Seq) {
        let epoch = self.control.fleet.as_ref().map_or(0, |fleet| fleet.epoch);
        (epoch, self.assigned.get(node).map_or(0, |assigned| assigned.changed))
    }

    /// The version of what a node has been told.
    pub fn assignment_version(&self, node: &NodeName) -> AssignmentVersion {
        let epoch = self.control.fleet.as_ref().map_or(0, |fleet| fleet.epoch);
        let Some(assigned) = self.assigned.get(node) else {
            return AssignmentVersion { epoch, ..AssignmentVersion::default() };
        };
        let digest = crate::wire::assignment_digest(
            assigned.instances.iter().map(|(id, to)| (id, &*to.spec, to.replaces.as_ref())),
        );
        AssignmentVersion { epoch, seq: assigned.changed, digest }
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        // Leaves and index are derived from the rest.
        (self.seq, self.time) == (other.seq, other.time)
            && self.target == other.target
            && self.assigned == other.assigned
            && self.observed == other.observed
            && self.control == other.control
            && self.history == other.history
    }
}
