//! The leaves of State's digest: one per fact, named by a stable text.
//!
//! A change only notes which leaves it touched; they are hashed when a digest is
//! asked for. `docs/log-format.md` lists the names and the hashed JSON.

use imbl::OrdSet;
use serde::Serialize;

use crate::digest::Digest;
use crate::event::TargetDigest;
use crate::ids::{AppEnv, AppId, ControllerId, InstanceId, NodeName, PrincipalId, SecretName, Seq, Slot};
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
}

/// Digests of State's leaves, brought up to date on demand.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leaves {
    trie: Trie,
    touched: OrdSet<Leaf>,
    /// False after State was read from bytes: every leaf must be hashed once.
    built: bool,
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
        }
    }
}

/// Every leaf there is.
fn all(state: &State) -> Vec<Leaf> {
    let mut leaves = vec![Leaf::Fleet, Leaf::Members, Leaf::Registry, Leaf::Term];
    leaves.extend(state.target.intent.keys().cloned().map(Leaf::Intent));
    leaves.extend(state.target.placement.keys().cloned().map(Leaf::Placement));
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
    leaves.extend(control.apps.keys().cloned().map(Leaf::App));
    leaves.extend(control.latches.keys().cloned().map(Leaf::Latch));
    leaves.extend(control.refusals.keys().cloned().map(Leaf::Refusals));
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
    leaves.extend(history.changes.keys().map(|(app_env, seq)| Leaf::Change(app_env.clone(), *seq)));
    leaves.extend(
        history.answered.keys().map(|(principal, key)| Leaf::Answered(principal.clone(), key.clone())),
    );
    leaves
}

impl State {
    pub(crate) fn touch(&mut self, leaf: Leaf) {
        if self.leaves.built {
            self.leaves.touched.insert(leaf);
        }
    }

    /// The digest of all five trees. Hashes what changed since it was last asked for.
    pub fn digest(&mut self) -> Digest {
        let mut leaves = std::mem::take(&mut self.leaves);
        let touched: Vec<_> = if leaves.built {
            std::mem::take(&mut leaves.touched).into_iter().collect()
        } else {
            leaves.built = true;
            all(self)
        };
        for leaf in touched {
            leaves.trie.set(Digest::of(&[leaf.name().as_bytes()]), leaf.digest(self));
        }
        self.leaves = leaves;
        self.leaves.trie.digest()
    }

    /// The digest of a scope's target: equal again after a rollback, and in a fork.
    ///
    /// Names are relative to the scope: what the scope fixes is left out of them.
    pub fn target_digest(&self, scope: &Scope) -> TargetDigest {
        let relative = |app_env: &AppEnv| match (&scope.app, &scope.project, &scope.environment) {
            (Some(_), _, Some(_)) => String::new(),
            (Some(_), _, None) => format!("@{}", app_env.environment),
            (None, Some(_), Some(_)) => app_env.app.app.to_string(),
            (None, Some(_), None) => format!("{}@{}", app_env.app.app, app_env.environment),
            (None, None, Some(_)) => app_env.app.to_string(),
            (None, None, None) => app_env.to_string(),
        };
        let intent: Vec<_> = self
            .target
            .intent
            .iter()
            .filter(|(app_env, _)| scope.covers_app_env(app_env))
            // An app that has no instance on a node is no part of that node's state.
            .filter(|(app_env, _)| {
                !scope.is_placed()
                    || self.slots(app_env).any(|(_, node)| scope.covers_node(node, self.region_of(node)))
            })
            .map(|(app_env, revision)| (relative(app_env), Digest::of_json(revision)))
            .collect();
        let placement: Vec<_> = self
            .target
            .placement
            .iter()
            .filter(|(slot, node)| {
                scope.covers_app_env(&slot.app_env) && scope.covers_node(node, self.region_of(node))
            })
            .map(|(slot, node)| {
                (
                    format!("{}/{}.{}", relative(&slot.app_env), slot.service, slot.index),
                    Digest::of_json(node),
                )
            })
            .collect();
        let digest = |rows: &[(String, Digest)]| {
            Trie::digest_of(rows.iter().map(|(name, value)| (name.as_str(), *value)))
        };
        TargetDigest { intent: digest(&intent), placement: digest(&placement) }
    }
}
