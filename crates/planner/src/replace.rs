//! Which slots are filled and which instances withdrawn next, within each service's budget.

use std::collections::BTreeMap;

use stele_model::event::AssignmentChange;
use stele_model::ids::ServiceName;
use stele_model::limits::INSTANCES_PER_NODE_MAX;
use stele_model::release::Order;
use stele_model::{InstanceId, NodeName, State, Time};

use crate::changes::Changes;
use crate::placement::Unplaced;
use crate::ports::{Holder, Ports};
use crate::rollout::{Down, Pace, Running, Wanted, excludes};

/// The next step of an app's rollout, in the making.
pub(crate) struct Step<'a, 'b> {
    state: &'a State,
    wanted: &'b [Wanted<'a>],
    pace: Pace,
    changes: Changes<'a>,
    ports: Ports<'a>,
    /// The first slot that cannot be filled before something else goes.
    waiting: Option<(&'b Wanted<'a>, String)>,
}

impl<'a, 'b> Step<'a, 'b> {
    /// One that withdraws what should not be there any more.
    pub(crate) fn new(state: &'a State, wanted: &'b [Wanted<'a>], left: &[Running<'a>], pace: Pace) -> Self {
        let mut changes = Changes::new(state);
        for running in left {
            if changes.is_full() {
                break;
            }
            changes.withdraw(running);
        }
        Self { state, wanted, pace, changes, ports: Ports::new(state), waiting: None }
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
            self.replace_service(slots, down);
        }
    }

    fn replace_service(&mut self, mut slots: Vec<&'b Wanted<'a>>, down_elsewhere: u32) {
        let mut in_progress = 0;
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
            if !is_free && in_progress + elsewhere >= budget {
                continue;
            }
            match self.start(slot) {
                Ok(()) => in_progress += u32::from(!slot.stale.is_empty()),
                Err(why) => self.waiting = self.waiting.take().or(Some((slot, why))),
            }
        }
    }

    /// Assigns a new instance to a slot; where both cannot run together, in the old one's place. What it needs may not
    /// be free yet.
    fn start(&mut self, slot: &'b Wanted<'a>) -> Result<(), String> {
        let stop_first = slot.service.update.order == Order::StopFirst;
        let mut rivals = slot.stale.iter().filter(|stale| stale.node == slot.node);
        let rival = if self.changes.has_room(slot.node) {
            let is_exclusive = stop_first || slot.service.container.is_exclusive();
            rivals.find(|stale| is_exclusive || excludes(self.state, stale))
        } else {
            // The last one that the node may have is taken by the one before it.
            let full =
                || format!("{} has {INSTANCES_PER_NODE_MAX} instances, the most it may have", slot.node);
            Some(rivals.next().ok_or_else(full)?)
        };
        let awaited = self.free_ports(slot, rival)?;
        self.changes.assign(slot, rival.map(|rival| rival.id).or(awaited));
        if let Some(rival) = rival {
            self.changes.withdraw(rival);
        }
        Ok(())
    }

    /// Has the app's own instances that hold a slot's ports go, apart from the one it replaces, and waits until they
    /// are gone; or gives another app's that goes already. A node that is not heard of cannot say that anything is
    /// gone: nobody waits for it.
    fn free_ports(
        &mut self,
        slot: &'b Wanted<'a>,
        rival: Option<&Running<'a>>,
    ) -> Result<Option<&'a InstanceId>, String> {
        let mut awaited = None;
        let mut why = None;
        for Holder { id, port, is_told } in self.ports.holders(slot.node, slot.service) {
            if rival.is_some_and(|rival| rival.id == id) {
                continue;
            }
            if id.slot.app_env != slot.slot.app_env {
                awaited = awaited.or((!is_told && !self.is_replaced(slot.node, id)).then_some(id));
            } else if self.state.is_reachable(slot.node) && (!is_told || self.withdraw_holder(slot.node, id))
            {
                why = why.or(Some(format!("port {port} of {} is still {id}'s", slot.node)));
            }
        }
        why.map_or(Ok(awaited), Err)
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
        let of_service = self.wanted.iter().filter(|other| other.slot.service == slot.slot.service);
        let down = of_service.filter(|other| !other.fresh.iter().chain(&other.stale).any(serves)).count();
        if self.pace == Pace::AtOnce
            || !serves(stale)
            || down < usize::try_from(slot.service.update.max_unavailable).unwrap_or(usize::MAX)
        {
            self.changes.withdraw(stale);
        }
        true
    }

    /// Whether something else on the node is to start once an instance is gone: two cannot wait for one.
    fn is_replaced(&self, node: &NodeName, id: &InstanceId) -> bool {
        let told = self.state.assigned.get(node).into_iter().flat_map(|told| told.instances.values());
        { told }.any(|to| to.replaces.as_ref() == Some(id))
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
