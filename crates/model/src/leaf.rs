//! The leaves of State's digest: one per fact, named by a stable text.
//!
//! A change only notes which leaves it touched; they are hashed when a digest is
//! asked for. `docs/log-format.md` lists the names and the hashed JSON.

use imbl::OrdMap;
use serde::Serialize;

use crate::digest::Digest;
use crate::ids::{
    AppEnv, AppId, ControllerId, InstanceId, NodeName, Place, PrincipalId, SecretName, Seq, Slot,
};
use crate::scope::Scope;
use crate::state::State;
use crate::trie::Trie;

/// Which fact.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Leaf {
    Intent(AppEnv),
    Placement(Slot),
    Assigned(NodeName),
    AssignedTo(NodeName, InstanceId),
    Observed(NodeName),
    ObservedInstance(NodeName, InstanceId),
    Fleet,
    Members,
    Controller(ControllerId),
    Token(PrincipalId),
    JoinToken(Digest),
    Node(NodeName),
    Drained(NodeName),
    Registry,
    App(AppId),
    Latch(AppEnv),
    Refusals(PrincipalId),
    Term,
    Release(Digest),
    Config(AppEnv, u32),
    Secret(AppEnv, SecretName, u32),
    Deployment(Seq),
    AppHistory(AppEnv),
    Change(AppEnv, Seq),
    Answered(PrincipalId, String),
    Pin(AppEnv, Place),
    MarkedBad(Scope, Seq),
    Review(Seq),
    Erased(String),
    Barrier(AppEnv, Seq),
}

/// Digests of State's leaves, brought up to date on demand.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leaves {
    trie: Trie,
    /// The seq whose State the trie is of, but for what was touched since.
    hashed: Seq,
    /// What was touched, by which record last.
    touched: OrdMap<Leaf, Seq>,
    /// False after State was read from bytes: every leaf must be hashed once.
    built: bool,
    /// Whether State lacks some of its leaves, and so has no digest.
    partial: bool,
}

impl Leaves {
    /// Of a State that lacks some of them.
    pub(crate) fn partial() -> Self {
        Self { partial: true, ..Self::default() }
    }

    pub(crate) fn are_partial(&self) -> bool {
        self.partial
    }
}

fn json<T: Serialize>(value: Option<T>) -> Option<Digest> {
    value.map(|value| Digest::of_json(&value))
}

impl Leaf {
    fn name(&self) -> String {
        match self {
            Self::Intent(app_env) => format!("target/intent/{app_env}"),
            Self::Placement(slot) => format!("target/placement/{slot}"),
            Self::Assigned(node) => format!("assigned/{node}"),
            Self::AssignedTo(node, id) => format!("assigned/{node}/{id}"),
            Self::Observed(node) => format!("observed/{node}"),
            Self::ObservedInstance(node, id) => format!("observed/{node}/{id}"),
            Self::Fleet => "control/fleet".to_owned(),
            Self::Members => "control/members".to_owned(),
            Self::Controller(id) => format!("control/controller/{id}"),
            Self::Token(principal) => format!("control/token/{principal}"),
            Self::JoinToken(hash) => format!("control/join-token/{hash}"),
            Self::Node(node) => format!("control/node/{node}"),
            Self::Drained(node) => format!("control/drained/{node}"),
            Self::Registry => "control/registry".to_owned(),
            Self::App(app) => format!("control/app/{app}"),
            Self::Latch(app_env) => format!("control/latch/{app_env}"),
            Self::Refusals(principal) => format!("control/refusals/{principal}"),
            Self::Term => "history/term".to_owned(),
            Self::Release(digest) => format!("history/release/{digest}"),
            Self::Config(app_env, version) => format!("history/config/{app_env}/{version}"),
            Self::Secret(app_env, name, version) => format!("history/secret/{app_env}/{name}/{version}"),
            Self::Deployment(seq) => format!("history/deployment/{seq}"),
            Self::AppHistory(app_env) => format!("history/app/{app_env}"),
            Self::Change(app_env, seq) => format!("history/change/{app_env}/{seq}"),
            Self::Answered(principal, key) => format!("history/answered/{principal}/{key}"),
            Self::Pin(app_env, place) => format!("target/pin/{app_env}/{place}"),
            Self::MarkedBad(scope, seq) => format!("control/marked-bad/{scope}/{seq}"),
            Self::Review(seq) => format!("control/review/{seq}"),
            Self::Erased(subject) => format!("control/erased/{subject}"),
            Self::Barrier(app_env, seq) => format!("history/barrier/{app_env}/{seq}"),
        }
    }

    fn digest(&self, state: &State) -> Option<Digest> {
        let State { target, assigned, observed, control, history, .. } = state;
        match self {
            Self::Intent(app_env) => json(target.intent.get(app_env)),
            Self::Placement(slot) => json(target.placement.get(slot)),
            Self::Assigned(node) => json(assigned.get(node).map(|assigned| assigned.changed)),
            Self::AssignedTo(node, id) => json(assigned.get(node).and_then(|node| node.instances.get(id))),
            Self::Observed(node) => json(
                observed.get(node).map(|seen| (seen.boot, seen.number, &seen.applied, seen.lost, seen.time)),
            ),
            Self::ObservedInstance(node, id) => {
                json(observed.get(node).and_then(|node| node.instances.get(id)))
            }
            Self::Fleet => json(control.fleet.as_ref()),
            Self::Members => {
                let none = control.voters.is_empty() && control.learners.is_empty();
                json((!none).then_some((&control.voters, &control.learners, &control.retired)))
            }
            Self::Controller(id) => json(control.controllers.get(id)),
            Self::Token(principal) => json(control.tokens.get(principal)),
            Self::JoinToken(hash) => json(control.join_tokens.get(hash)),
            Self::Node(node) => json(control.nodes.get(node)),
            Self::Drained(node) => json(control.drained.get(node)),
            Self::Registry => {
                let none = control.projects.is_empty() && control.environments.is_empty();
                json((!none).then_some((&control.projects, &control.environments)))
            }
            Self::App(app) => json(control.apps.get(app)),
            Self::Latch(app_env) => json(control.latches.get(app_env)),
            Self::Refusals(principal) => json(control.refusals.get(principal)),
            Self::Term => json((history.term > 0).then_some((history.term, history.leader))),
            // The release itself is its digest already; the rest is small.
            Self::Release(digest) => {
                json(history.releases.get(digest).map(|record| (record.number, record.seq, &record.images)))
            }
            Self::Config(app_env, version) => json(history.config_versions.get(&(app_env.clone(), *version))),
            Self::Secret(app_env, name, version) => {
                json(history.secrets.get(&(app_env.clone(), name.clone(), *version)))
            }
            Self::Deployment(seq) => json(history.deployments.get(seq)),
            Self::AppHistory(app_env) => {
                let latest = history.latest.get(app_env);
                let changed = history.last_changed.get(app_env);
                json((latest.is_some() || changed.is_some()).then_some((latest, changed)))
            }
            Self::Change(app_env, seq) => json(history.changes.get(&(app_env.clone(), *seq))),
            Self::Answered(principal, key) => json(history.answered.get(&(principal.clone(), key.clone()))),
            Self::Pin(app_env, place) => json(target.pins.get(&(app_env.clone(), place.clone()))),
            Self::MarkedBad(scope, seq) => {
                json(control.marked_bad.contains(&(scope.clone(), *seq)).then_some(true))
            }
            Self::Review(seq) => json(control.reviews.get(seq)),
            Self::Erased(subject) => json(control.erased.get(subject)),
            Self::Barrier(app_env, seq) => json(history.barriers.get(&(app_env.clone(), *seq))),
        }
    }
}

/// Every leaf there is.
fn all(state: &State) -> Vec<Leaf> {
    let mut leaves = vec![Leaf::Fleet, Leaf::Members, Leaf::Registry, Leaf::Term];
    leaves.extend(state.target.intent.keys().cloned().map(Leaf::Intent));
    leaves.extend(state.target.placement.keys().cloned().map(Leaf::Placement));
    leaves.extend(state.target.pins.keys().map(|(app_env, place)| Leaf::Pin(app_env.clone(), place.clone())));
    for (node, assigned) in &state.assigned {
        leaves.push(Leaf::Assigned(node.clone()));
        leaves.extend(assigned.instances.keys().map(|id| Leaf::AssignedTo(node.clone(), id.clone())));
    }
    for (node, observed) in &state.observed {
        leaves.push(Leaf::Observed(node.clone()));
        leaves.extend(observed.instances.keys().map(|id| Leaf::ObservedInstance(node.clone(), id.clone())));
    }
    let control = &state.control;
    leaves.extend(control.controllers.keys().copied().map(Leaf::Controller));
    leaves.extend(control.tokens.keys().cloned().map(Leaf::Token));
    leaves.extend(control.join_tokens.keys().copied().map(Leaf::JoinToken));
    leaves.extend(control.nodes.keys().cloned().map(Leaf::Node));
    leaves.extend(control.drained.keys().cloned().map(Leaf::Drained));
    leaves.extend(control.apps.keys().cloned().map(Leaf::App));
    leaves.extend(control.latches.keys().cloned().map(Leaf::Latch));
    leaves.extend(control.refusals.keys().cloned().map(Leaf::Refusals));
    leaves.extend(control.marked_bad.iter().map(|(scope, seq)| Leaf::MarkedBad(scope.clone(), *seq)));
    leaves.extend(control.reviews.keys().copied().map(Leaf::Review));
    leaves.extend(control.erased.keys().cloned().map(Leaf::Erased));
    let history = &state.history;
    leaves.extend(history.releases.keys().copied().map(Leaf::Release));
    leaves.extend(
        history.config_versions.keys().map(|(app_env, version)| Leaf::Config(app_env.clone(), *version)),
    );
    leaves.extend(
        history
            .secrets
            .keys()
            .map(|(app_env, name, version)| Leaf::Secret(app_env.clone(), name.clone(), *version)),
    );
    leaves.extend(history.deployments.keys().copied().map(Leaf::Deployment));
    leaves.extend(history.latest.keys().cloned().map(Leaf::AppHistory));
    leaves.extend(history.last_changed.keys().cloned().map(Leaf::AppHistory));
    leaves.extend(history.barriers.keys().map(|(app_env, seq)| Leaf::Barrier(app_env.clone(), *seq)));
    leaves.extend(history.changes.keys().map(|(app_env, seq)| Leaf::Change(app_env.clone(), *seq)));
    leaves.extend(
        history.answered.keys().map(|(principal, key)| Leaf::Answered(principal.clone(), key.clone())),
    );
    leaves
}

impl State {
    pub(crate) fn touch(&mut self, leaf: Leaf) {
        if self.leaves.built {
            self.leaves.touched.insert(leaf, self.seq);
        }
    }

    /// The digest of all five trees. Hashes what changed since it was last asked for.
    ///
    /// # Panics
    ///
    /// When this State was made from an outline, and what was answered was not put into it.
    pub fn digest(&mut self) -> Digest {
        assert!(!self.leaves.partial, "a State without its answers has no digest");
        let mut leaves = std::mem::take(&mut self.leaves);
        let touched: Vec<_> = if leaves.built {
            std::mem::take(&mut leaves.touched).into_iter().map(|(leaf, _)| leaf).collect()
        } else {
            leaves.built = true;
            all(self)
        };
        let changes = touched.into_iter();
        leaves.trie.set(changes.map(|leaf| (Digest::of(&[leaf.name().as_bytes()]), leaf.digest(self))));
        leaves.hashed = self.seq;
        self.leaves = leaves;
        self.leaves.trie.digest()
    }

    /// How many facts were touched since the digest was made; none of a State whose digest was never made.
    pub fn undigested(&self) -> usize {
        self.leaves.touched.len()
    }

    /// Takes over what was hashed for an earlier State of the same log, so that its digest is made of what
    /// changed since. An earlier State that is of no use is left alone.
    ///
    /// # Panics
    ///
    /// When the other State is later.
    pub fn adopt_digest(&mut self, earlier: &Self) {
        assert!(earlier.seq <= self.seq, "what changed since a later State is not known");
        let Leaves { trie, hashed, touched, built, partial } = &earlier.leaves;
        let is_whole = *built && !partial && touched.is_empty();
        if !is_whole || !self.leaves.built || self.leaves.hashed >= *hashed {
            return;
        }
        self.leaves.trie = trie.clone();
        self.leaves.hashed = *hashed;
        let touched = std::mem::take(&mut self.leaves.touched);
        self.leaves.touched = touched.into_iter().filter(|(_, seq)| *seq > earlier.seq).collect();
    }
}
