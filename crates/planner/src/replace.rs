//! Which slots are filled and which instances withdrawn next, within each service's budget.

use std::collections::{BTreeMap, BTreeSet};

use stele_model::event::AssignmentChange;
use stele_model::ids::ServiceName;
use stele_model::limits::INSTANCES_PER_NODE_MAX;
use stele_model::release::Order;
use stele_model::{InstanceId, NodeName, Slot, State, Time};

use crate::changes::Changes;
use crate::placement::Unplaced;
use crate::ports::{Holder, Ports};
use crate::rollout::{Down, Pace, Running, Wanted, excludes};

/// The next step of an app's rollout, in the making.
pub(crate) struct Step<'a, 'b> {
    state: &'a State,
    wanted: &'b [Wanted<'a>],
    pace: Pace,
    /// Whether the app is looked at until its deployment ends.
    is_deployed: bool,
    changes: Changes<'a>,
    ports: Ports<'a>,
    /// Slots of which something was withdrawn for a new one: their own, or another slot's that needs its port.
    begun: BTreeSet<&'a Slot>,
    /// The first slot that cannot be filled before something else goes.
    waiting: Option<(&'b Wanted<'a>, String)>,
}

impl<'a, 'b> Step<'a, 'b> {
    /// One that withdraws what should not be there any more.
    pub(crate) fn new(
        state: &'a State,
        wanted: &'b [Wanted<'a>],
        left: &[Running<'a>],
        pace: Pace,
        is_deployed: bool,
    ) -> Self {
        let mut changes = Changes::new(state);
        for running in left {
            if changes.is_full() {
                break;
            }
            changes.withdraw(running);
        }
        Self {
            state,
            wanted,
            pace,
            is_deployed,
            changes,
            ports: Ports::new(state),
            begun: BTreeSet::new(),
            waiting: None,
        }
    }

    /// Makes the changes that may be made now.
    pub(crate) fn replace(&mut self, held: Option<&Down<'_>>) {
        let mut services: BTreeMap<&ServiceName, Vec<&'b Wanted<'a>>> = BTreeMap::new();
        for slot in self.wanted {
            services.entry(&slot.slot.service).or_default().push(slot);
        }
        for (service, slots) in services {
            // What does not fit into this command is found again for the next.
            if self.changes.is_full() {
                break;
            }
            let down = held.and_then(|held| held.get(service)).copied().unwrap_or_default();
            self.replace_service(service, slots, down);
        }
    }

    fn replace_service(
        &mut self,
        service: &ServiceName,
        mut slots: Vec<&'b Wanted<'a>>,
        down_elsewhere: u32,
    ) {
        let (mut in_progress, mut waits) = (0, 0);
        for slot in &slots {
            if slot.fresh.is_none() {
                continue;
            }
            if self.pace == Pace::AtOnce || slot.is_good || planted!(NoHealthGate) {
                slot.stale.iter().for_each(|stale| self.changes.withdraw(stale));
            } else {
                // Whatever it stands for, a slot that is not healthy is one that is unavailable.
                in_progress += 1;
            }
        }
        // What serves nobody is replaced first.
        let state = self.state;
        let serves =
            |slot: &Wanted<'_>| slot.stale.iter().any(|stale| state.is_healthy(stale.node, stale.id));
        slots.sort_by_key(|slot| serves(slot));
        for slot in slots {
            if slot.fresh.is_some() {
                continue;
            }
            if self.changes.is_full() {
                break;
            }
            let budget = slot.service.update.max_unavailable + u32::from(planted!(BudgetOffByOne));
            let is_free = match self.pace {
                Pace::AtOnce => true,
                Pace::Rescue => !serves(slot),
                Pace::Careful => slot.stale.is_empty(),
            };
            // What is held down does not come back by being waited for: one slot at a time goes on anyway.
            let elsewhere = down_elsewhere.min(budget.saturating_sub(1));
            // One that was emptied to make way is down, and what goes on beside what serves takes nothing away.
            let takes = slot.stale.iter().any(|stale| stale.node == slot.node);
            let down = elsewhere + if takes { waits } else { 0 };
            if !is_free && in_progress + self.begun_of(service) + down >= budget {
                continue;
            }
            if let Err(why) = self.start(slot) {
                waits += u32::from(slot.stale.is_empty());
                self.waiting = self.waiting.take().or(Some((slot, why)));
            }
        }
    }

    /// Slots of a service of which this step begins to replace something.
    fn begun_of(&self, service: &ServiceName) -> u32 {
        let begun = self.begun.iter().filter(|slot| slot.service == *service).count();
        u32::try_from(begun).unwrap_or(u32::MAX)
    }

    /// Assigns a new instance to a slot; where both cannot run together, in the place of those that are there. What it
    /// needs may not be free yet.
    fn start(&mut self, slot: &'b Wanted<'a>) -> Result<(), String> {
        let stop_first = slot.service.update.order == Order::StopFirst;
        let is_exclusive = stop_first || slot.service.container.is_exclusive();
        let serves = |stale: &&Running<'_>| self.state.is_healthy(stale.node, stale.id);
        let here = || slot.stale.iter().filter(|stale| stale.node == slot.node);
        let mut rivals: Vec<_> = here().filter(|stale| is_exclusive || excludes(self.state, stale)).collect();
        if rivals.is_empty() && !self.changes.has_room(slot.node) {
            // The last one that the node may have is taken by one before it, best by one that serves nobody.
            let full =
                || format!("{} has {INSTANCES_PER_NODE_MAX} instances, the most it may have", slot.node);
            rivals.push(here().min_by_key(serves).ok_or_else(full)?);
        }
        // Of several, those that earlier deployments left failed may never have started. The node waits for all.
        let rival = rivals.iter().copied().find(serves).or(rivals.first().copied());
        self.free_ports(slot, rival.is_some())?;
        self.changes.assign(slot, rival.map(|rival| rival.id));
        if !slot.stale.is_empty() {
            self.begun.insert(slot.slot);
        }
        for rival in rivals {
            self.changes.withdraw(rival);
        }
        Ok(())
    }

    /// Whether a slot's ports are free: those of the app's own instances that hold one for another slot go, and what
    /// goes already is waited for. What its own node waits for anyway, as what came before the one it replaces, is
    /// not; nor is another app's that nobody would look for again; nor a node that is not heard of, which cannot say
    /// that anything is gone.
    fn free_ports(&mut self, slot: &'b Wanted<'a>, replaces: bool) -> Result<(), String> {
        let mut why = None;
        for Holder { id, port, is_told } in self.ports.holders(slot.node, slot.service) {
            let is_awaited = if id.slot == *slot.slot {
                !is_told && !replaces
            } else if id.slot.app_env == slot.slot.app_env {
                !is_told || (self.state.is_reachable(slot.node) && self.withdraw_holder(slot.node, id))
            } else {
                !is_told && self.is_deployed
            };
            if is_awaited && self.state.is_reachable(slot.node) {
                why = why.or(Some(format!("port {port} of {} is still {id}'s", slot.node)));
            }
        }
        why.map_or(Ok(()), Err)
    }

    /// Whether an instance of the app's own goes, now or as soon as its service can do without it.
    fn withdraw_holder(&mut self, node: &NodeName, id: &InstanceId) -> bool {
        if self.changes.is_withdrawn(node, id) {
            return true;
        }
        let stale = self.wanted.iter().flat_map(|slot| slot.stale.iter().map(move |stale| (slot, stale)));
        let Some((slot, stale)) = { stale }.find(|(_, stale)| stale.node == node && stale.id == id) else {
            return false;
        };
        let serves = |it: &Running<'_>| {
            self.state.is_healthy(it.node, it.id) && !self.changes.is_withdrawn(it.node, it.id)
        };
        let is_busy = |other: &&Wanted<'_>| {
            other.slot.service == slot.slot.service
                && (other.fresh.is_some() != other.is_good
                    || self.begun.contains(other.slot)
                    || !other.fresh.iter().chain(&other.stale).any(serves))
        };
        let busy = self.wanted.iter().filter(is_busy).count();
        let budget = usize::try_from(slot.service.update.max_unavailable).unwrap_or(usize::MAX);
        if self.pace == Pace::AtOnce || !serves(stale) || busy < budget {
            self.changes.withdraw(stale);
            self.begun.insert(slot.slot);
        }
        true
    }

    /// The changes, and what waits: a slot, and why.
    pub(crate) fn end(self) -> (Vec<AssignmentChange>, Option<Waiting<'b, 'a>>) {
        (self.changes.into_inner(), self.waiting.map(|(slot, why)| Waiting { slot, why }))
    }
}

/// A slot that cannot be filled before something else goes.
pub(crate) struct Waiting<'b, 'a> {
    slot: &'b Wanted<'a>,
    why: String,
}

impl Waiting<'_, '_> {
    /// It, once it has waited for longer than its service has time, since anything of the app was assigned, or of
    /// its node withdrawn.
    pub(crate) fn unplaced(
        self,
        state: &State,
        wanted: &[Wanted<'_>],
        started: Time,
        now: Time,
    ) -> Option<Unplaced> {
        let Self { slot: Wanted { slot, node, service, .. }, why } = self;
        let last = wanted.iter().filter_map(|slot| Some(slot.fresh.as_ref()?.to.since)).max();
        let left = state.leaving(node).map(|(_, left)| left.since).max();
        let begins = started.max(last.max(left).unwrap_or_default()).max(state.could_tell_since(node));
        let is_over = now.millis_since(begins) > service.update.deadline_ms;
        is_over.then(|| Unplaced { slot: (*slot).clone(), reason: why })
    }
}
