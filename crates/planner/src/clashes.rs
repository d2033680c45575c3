//! What cannot be on a node beside what has a place there.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use stele_model::ids::ServiceName;
use stele_model::release::{Placement, Port, Release};
use stele_model::{AppEnv, NodeName, Seq, Slot, State};

use crate::placement::Placed;
use crate::ports::{Ports, host_ports};

/// The host ports that other apps' slots have. To know them, all slots of apps that publish some are gone through once.
pub(crate) struct Others<'a> {
    pub(crate) state: &'a State,
    app_env: &'a AppEnv,
    /// Whose deployment began later has no place yet but for what it was told to have.
    before: Option<Seq>,
    ports: OnceCell<BTreeMap<(&'a NodeName, Port), &'a Slot>>,
}

impl<'a> Others<'a> {
    pub(crate) fn new(state: &'a State, app_env: &'a AppEnv, before: Option<Seq>) -> Self {
        Self { state, app_env, before, ports: OnceCell::new() }
    }

    pub(crate) fn holder(&self, node: &NodeName, port: &Port) -> Option<&'a Slot> {
        self.ports.get_or_init(|| self.find()).get(&(node, port.clone())).copied()
    }

    fn find(&self) -> BTreeMap<(&'a NodeName, Port), &'a Slot> {
        let state = self.state;
        let (mut ports, mut told) = (BTreeMap::new(), Ports::new(state));
        for app_env in state.targeted().into_iter().filter(|app_env| *app_env != self.app_env) {
            let revisions = state.revisions(app_env);
            if !revisions.is_pinned() && !revisions.everywhere().is_some_and(publishes) {
                continue;
            }
            let latest = state.history.latest.get(app_env);
            let is_later = self.before.is_some_and(|before| latest.is_some_and(|latest| *latest > before));
            for (slot, node) in state.slots(app_env) {
                let service = revisions.service(&slot.service, node);
                for port in service.into_iter().flat_map(host_ports) {
                    if !is_later || is_told(state, &mut told, slot, node, &port) {
                        ports.entry((node, port)).or_insert(slot);
                    }
                }
            }
        }
        ports
    }
}

fn publishes(release: &Release) -> bool {
    release.services.values().any(|service| host_ports(service).next().is_some())
}

fn is_told(state: &State, told: &mut Ports<'_>, slot: &Slot, node: &NodeName, port: &Port) -> bool {
    state.assigned_in(slot, node).any(|(id, to)| told.of(id, to).contains(port))
}

/// What slots that stay have, to find those that cannot be where they are beside them: a release may publish ports that
/// the one before it did not, or run once on every node where that ran twice on some.
pub(crate) struct Clashes<'a> {
    state: &'a State,
    /// Whose ports may be in the way: only what is deployed wants what it did not have, and of two apps that are, who came
    /// first stays. So what a rollback put back stays there, whatever is deployed before it is done.
    others: Option<Others<'a>>,
    told: Ports<'a>,
    ports: BTreeSet<(&'a NodeName, Port)>,
    /// Nodes where a service stands that is to be on each once.
    every: BTreeSet<(&'a ServiceName, &'a NodeName)>,
}

impl<'a> Clashes<'a> {
    pub(crate) fn new(state: &'a State, app_env: &'a AppEnv) -> Self {
        let deployment = state.running_deployment(app_env);
        let others = deployment.map(|(seq, _)| Others::new(state, app_env, Some(seq)));
        Self { state, others, told: Ports::new(state), ports: BTreeSet::new(), every: BTreeSet::new() }
    }

    /// Whether a slot cannot be where it is with those before it and other apps'. If it can, it is there for those
    /// after it.
    pub(crate) fn with(&mut self, placed: &Placed<'a>) -> bool {
        let Placed { slot, node, service: Some(service) } = *placed else { return false };
        let is_every = matches!(service.placement, Placement::Every { .. });
        if is_every && self.every.contains(&(&slot.service, node)) {
            return true;
        }
        let wanted: Vec<_> = host_ports(service).collect();
        if wanted.iter().any(|port| self.ports.contains(&(node, port.clone()))) {
            return true;
        }
        if let Some(others) = &self.others {
            // What it was told to have already is nobody else's.
            let mut new = wanted.iter();
            let (state, told) = (self.state, &mut self.told);
            if new.any(|port| !is_told(state, told, slot, node, port) && others.holder(node, port).is_some())
            {
                return true;
            }
        }
        if is_every {
            self.every.insert((&slot.service, node));
        }
        self.ports.extend(wanted.into_iter().map(|port| (node, port)));
        false
    }
}
