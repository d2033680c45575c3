//! Which slots are filled and which instances withdrawn next, within each service's budget.

use std::collections::{BTreeMap, BTreeSet};

use stele_model::event::AssignmentChange;
use stele_model::ids::ServiceName;
use stele_model::limits::INSTANCES_PER_NODE_MAX;
use stele_model::release::{Order, Service};
use stele_model::wire::{InstanceReport, Phase};
use stele_model::{InstanceId, NodeName, Slot, State, Time};

use crate::changes::Changes;
use crate::make_way::MakeWay;
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
    /// What should not be there any more, and serves until what should be there is well.
    lasting: BTreeMap<&'a NodeName, Vec<Running<'a>>>,
    /// Slots of each service that are filled and not well yet.
    in_progress: BTreeMap<&'a ServiceName, u32>,
    /// Slots of each service for which something goes already: looked up when the first one is to make way.
    leaving: BTreeMap<&'a ServiceName, u32>,
    ports: Ports<'a>,
    /// What is left as it is and does not serve.
    held: Option<&'b Down<'a>>,
    /// Slots of which something was withdrawn for a new one: their own, or another slot's that needs its port.
    begun: BTreeMap<&'a ServiceName, BTreeSet<&'a Slot>>,
    /// Looked up when the first slot needs another one's port.
    make_way: Option<MakeWay<'a, 'b>>,
    /// What nodes tell of that may still run, by its slot: looked up when something is to be stopped first.
    leftovers: Option<Vec<(&'a Slot, (&'a NodeName, &'a InstanceId))>>,
    /// The first slot that cannot be filled before something else goes.
    waiting: Option<Waiting<'b, 'a>>,
}

/// Why a slot cannot be filled yet.
#[derive(Default)]
struct Wait {
    why: String,
    /// Since when all of it that goes already does so.
    since: Time,
    /// How long that may take to stop.
    stop_ms: u64,
}

impl<'a, 'b> Step<'a, 'b> {
    /// One that withdraws what should not be there any more: while a deployment that is no rollback goes on, what serves
    /// stays until all that should be there is well, or needs its place. Of a service that is renamed, or has fewer
    /// replicas, a release that does not work must not stop what does.
    pub(crate) fn new(
        state: &'a State,
        wanted: &'b [Wanted<'a>],
        left: Vec<Running<'a>>,
        held: Option<&'b Down<'a>>,
        pace: Pace,
        is_deployed: bool,
    ) -> Self {
        let mut changes = Changes::new(state);
        let is_gated = is_deployed && pace == Pace::Careful && !wanted.iter().all(|slot| slot.is_good);
        let mut lasting = BTreeMap::<_, Vec<_>>::new();
        for running in left {
            if is_gated && may_last(state, &running) {
                lasting.entry(running.node).or_default().push(running);
            } else if !changes.is_full() {
                changes.withdraw(&running);
            }
        }
        Self {
            lasting,
            in_progress: BTreeMap::new(),
            leaving: BTreeMap::new(),
            state,
            wanted,
            pace,
            is_deployed,
            changes,
            ports: Ports::new(state),
            held,
            begun: BTreeMap::new(),
            make_way: None,
            leftovers: None,
            waiting: None,
        }
    }

    /// Makes the changes that may be made now.
    pub(crate) fn replace(&mut self) {
        let mut services: BTreeMap<&'a ServiceName, Vec<&'b Wanted<'a>>> = BTreeMap::new();
        for slot in self.wanted {
            services.entry(&slot.slot.service).or_default().push(slot);
        }
        for (service, slots) in services {
            // What does not fit into this command is found again for the next.
            if self.changes.is_full() {
                break;
            }
            self.replace_service(service, slots);
        }
    }

    /// Slots of a service that are held down, as far as they count. What is held does not come back by being waited
    /// for: one slot at a time goes on anyway.
    fn down_elsewhere(&self, service: &ServiceName, budget: u32) -> u32 {
        let down = self.held.and_then(|held| held.get(service)).copied().unwrap_or_default();
        down.min(budget.saturating_sub(1))
    }

    fn replace_service(&mut self, service: &'a ServiceName, mut slots: Vec<&'b Wanted<'a>>) {
        let (mut in_progress, mut empty) = (0, 0);
        for slot in &slots {
            if slot.fresh.is_none() {
                continue;
            }
            if self.pace == Pace::AtOnce || slot.is_good || planted!(NoHealthGate) {
                for stale in &slot.stale {
                    if self.is_deployed || !self.serves_for_one_unseen(slot, stale) {
                        self.changes.withdraw(stale);
                    }
                }
            } else {
                // Whatever it stands for, a slot that is not healthy is one that is unavailable.
                in_progress += 1;
            }
        }
        self.in_progress.insert(service, in_progress);
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
            let elsewhere = self.down_elsewhere(service, budget);
            // One that was emptied to make way is down until what comes is healthy, and what goes on beside what serves
            // takes nothing away.
            let takes =
                slot.stale.iter().any(|stale| stale.node == slot.node) || self.is_stopped_before(slot);
            let down = elsewhere + if takes { empty } else { 0 };
            if !is_free && in_progress + self.begun_of(service) + down >= budget {
                continue;
            }
            empty += u32::from(slot.stale.is_empty());
            if let Err(wait) = self.start(slot) {
                self.waiting.get_or_insert(Waiting { slot, wait });
            }
        }
    }

    /// Whether what a slot has on a drained node is stopped before it starts elsewhere.
    fn is_stopped_before(&self, slot: &Wanted<'_>) -> bool {
        let is_left = |stale: &Running<'_>| stale.node != slot.node && self.state.is_drained(stale.node);
        slot.service.update.order == Order::StopFirst && slot.stale.iter().any(is_left)
    }

    /// Whether what a slot has on another node still serves, and of what takes its place nothing is heard. Deployments wait
    /// for no lost node; a drain is in no hurry, and neither is who resumes its node.
    fn serves_for_one_unseen(&self, slot: &Wanted<'_>, stale: &Running<'_>) -> bool {
        let state = self.state;
        stale.node != slot.node && !state.is_reachable(slot.node) && state.is_healthy(stale.node, stale.id)
    }

    /// Slots of a service of which this step begins to replace something.
    fn begun_of(&self, service: &ServiceName) -> u32 {
        let begun = self.begun.get(service).map_or(0, BTreeSet::len);
        u32::try_from(begun).unwrap_or(u32::MAX)
    }

    fn begin(&mut self, slot: &'a Slot) {
        self.begun.entry(&slot.service).or_default().insert(slot);
        if let Some(make_way) = &mut self.make_way {
            make_way.begin(slot);
        }
    }

    /// Assigns a new instance to a slot; where both cannot run together, in the place of those that are there. What it
    /// needs may not be free yet.
    fn start(&mut self, slot: &'b Wanted<'a>) -> Result<(), Wait> {
        let stop_first = slot.service.update.order == Order::StopFirst;
        if stop_first {
            self.stop_elsewhere(slot)?;
        }
        let is_exclusive = stop_first || slot.service.container.is_exclusive();
        let serves = |stale: &&Running<'_>| self.state.is_healthy(stale.node, stale.id);
        let here = || slot.stale.iter().filter(|stale| stale.node == slot.node);
        let mut rivals: Vec<_> = here().filter(|stale| is_exclusive || excludes(self.state, stale)).collect();
        if rivals.is_empty() && !self.changes.has_room(slot.node) {
            // The last one that the node may have is taken by one before it, best by one that serves nobody.
            let full = || Wait {
                why: format!("{} has {INSTANCES_PER_NODE_MAX} instances, the most it may have", slot.node),
                ..Wait::default()
            };
            match here().min_by_key(serves) {
                Some(rival) => rivals.push(rival),
                None if self.withdraw_lasting(slot.node, |_| true) => {}
                None => return Err(full()),
            }
        }
        // Of several, those that earlier deployments left failed may never have started. The node waits for all.
        let rival = rivals.iter().copied().find(serves).or(rivals.first().copied());
        self.free_ports(slot, rival.is_some())?;
        self.changes.assign(slot, rival.map(|rival| rival.id));
        // For one without any before it, another may have made way.
        if !slot.stale.is_empty() || !self.lasting.is_empty() {
            self.begin(slot.slot);
        }
        for rival in rivals {
            self.changes.withdraw(rival);
        }
        Ok(())
    }

    /// Stops what a slot has on a drained node before it starts where it is to be. Of one that is not heard of, nobody can
    /// say that anything is gone.
    fn stop_elsewhere(&mut self, slot: &'b Wanted<'a>) -> Result<(), Wait> {
        let state = self.state;
        let wait = |node: &NodeName, id: &InstanceId| Wait {
            why: format!("{id} on {node} is to be stopped first"),
            since: state.left(node, id).map(|left| left.since).unwrap_or_default(),
            stop_ms: u64::from(slot.service.container.stop.grace_seconds) * 1000,
        };
        let is_left =
            |node: &NodeName| node != slot.node && state.is_drained(node) && state.is_reachable(node);
        let elsewhere: Vec<_> = slot.stale.iter().filter(|stale| is_left(stale.node)).collect();
        if let Some(first) = elsewhere.first() {
            if !self.is_deployed && !state.is_reachable(slot.node) {
                return Err(wait(first.node, first.id));
            }
            self.begin(slot.slot);
            let why = wait(first.node, first.id);
            for stale in elsewhere {
                self.changes.withdraw(stale);
            }
            return Err(why);
        }
        let of_app = self.leftovers.get_or_insert_with(|| {
            let may_run = |report: &InstanceReport| !matches!(report.phase, Phase::Completed | Phase::Failed);
            let told = state.observed_of(&slot.slot.app_env).filter(|(.., report)| may_run(report));
            told.map(|(node, id, _)| (&id.slot, (node, id))).collect()
        });
        match of_app.iter().find(|(of, (node, _))| *of == slot.slot && is_left(node)) {
            Some((_, (node, id))) => Err(wait(node, id)),
            None => Ok(()),
        }
    }

    /// Whether a slot's ports are free: those of the app's own instances that hold one for another slot go, and while
    /// a deployment runs, which ends some day, what goes already or is to be replaced by what holds none is waited for. What its own node waits for anyway, as
    /// what came before the one it replaces, is not; nor a node that is not heard of, which cannot say that anything
    /// is gone.
    fn free_ports(&mut self, slot: &'b Wanted<'a>, replaces: bool) -> Result<(), Wait> {
        let mut wait: Option<Wait> = None;
        if !self.state.is_reachable(slot.node) {
            return Ok(());
        }
        for Holder { id, port, leaves, stop_ms } in self.ports.holders(slot.node, slot.service) {
            let is_of_slot = id.slot == *slot.slot;
            let is_own = id.slot.app_env == slot.slot.app_env;
            let is_awaited = if leaves.is_some() {
                self.is_deployed && !(is_of_slot && replaces)
            } else if is_own {
                !is_of_slot && self.withdraw_holder(slot, id)
            } else {
                // What its own app is about to replace goes, too.
                self.is_deployed && !self.ports.is_to_have(slot.node, id, port)
            };
            if is_awaited {
                let why = || Wait {
                    why: format!("port {port} of {} is still {id}'s", slot.node),
                    ..Wait::default()
                };
                let wait = wait.get_or_insert_with(why);
                if let Some(since) = leaves {
                    wait.since = wait.since.max(since);
                    wait.stop_ms = wait.stop_ms.max(stop_ms);
                }
            }
        }
        wait.map_or(Ok(()), Err)
    }

    /// Withdraws what serves on a node and should not be there any more: the first for which this is true.
    fn withdraw_lasting(&mut self, node: &NodeName, is_meant: impl Fn(&InstanceId) -> bool) -> bool {
        let Some(lasting) = self.lasting.get_mut(node) else { return false };
        let Some(at) = lasting.iter().position(|running| is_meant(running.id)) else { return false };
        let running = lasting.swap_remove(at);
        self.changes.withdraw(&running);
        true
    }

    fn is_lasting(&self, node: &NodeName, id: &InstanceId) -> bool {
        self.lasting.get(node).is_some_and(|lasting| lasting.iter().any(|running| running.id == id))
    }

    /// Has what should not be there any more make way for a slot, as many at a time as the slot's service may lack.
    fn make_way_for(&mut self, slot: &'b Wanted<'a>, id: &InstanceId) {
        let service = &slot.slot.service;
        let busy = self.in_progress.get(service).copied().unwrap_or_default() + self.begun_of(service);
        let budget = slot.service.update.max_unavailable;
        if busy < budget && busy + self.leaving_for(service) < budget {
            self.withdraw_lasting(slot.node, |other| other == id);
            self.begin(slot.slot);
        }
    }

    /// Slots of a service that something goes for already, and is not gone yet.
    fn leaving_for(&mut self, service: &'a ServiceName) -> u32 {
        if let Some(leaving) = self.leaving.get(service) {
            return *leaving;
        }
        let mut leaving = 0;
        for slot in self.wanted.iter().filter(|it| it.slot.service == *service && it.fresh.is_none()) {
            let mut holders = self.ports.holders(slot.node, slot.service).into_iter();
            let is_own = |holder: &Holder<'_>| holder.id.slot.app_env == slot.slot.app_env;
            leaving += u32::from(holders.any(|holder| holder.leaves.is_some() && is_own(&holder)));
        }
        self.leaving.insert(service, leaving);
        leaving
    }

    /// Whether an instance of the app's own goes, now or as soon as its service can do without it.
    fn withdraw_holder(&mut self, slot: &'b Wanted<'a>, id: &'a InstanceId) -> bool {
        let node = slot.node;
        if self.changes.is_withdrawn(node, id) {
            return true;
        }
        if self.is_lasting(node, id) {
            self.make_way_for(slot, id);
            return true;
        }
        let (state, wanted, changes) = (self.state, self.wanted, &self.changes);
        let begun = self.begun.values().flatten();
        let make_way = self.make_way.get_or_insert_with(|| {
            let mut make_way = MakeWay::new(state, wanted, changes);
            begun.for_each(|slot| make_way.begin(slot));
            make_way
        });
        let Some((slot, stale)) = make_way.find(node, id) else { return false };
        let service = &slot.slot.service;
        let busy = u32::try_from(make_way.busy_of(service)).unwrap_or(u32::MAX);
        let budget = slot.service.update.max_unavailable;
        let serves = state.is_healthy(node, id);
        if self.pace == Pace::AtOnce
            || !serves
            || busy.saturating_add(self.down_elsewhere(service, budget)) < budget
        {
            self.changes.withdraw(stale);
            self.begin(slot.slot);
        }
        true
    }

    /// The changes, and a slot that waits.
    pub(crate) fn end(self) -> (Vec<AssignmentChange>, Option<Waiting<'b, 'a>>) {
        (self.changes.into_inner(), self.waiting)
    }
}

/// Whether what has no place any more may stay for a while: it serves, and nothing speaks against another beside it: that
/// it is to be stopped first, or writes to what others would write to.
fn may_last(state: &State, running: &Running<'_>) -> bool {
    let service = state
        .release_of(&running.to.revision)
        .and_then(|release| release.services.get(&running.id.slot.service));
    let may_be_beside = |service: &Service| {
        service.update.order != Order::StopFirst && !service.container.writes_what_stays()
    };
    state.is_healthy(running.node, running.id) && service.is_some_and(may_be_beside)
}

/// A slot that cannot be filled before something else goes.
pub(crate) struct Waiting<'b, 'a> {
    slot: &'b Wanted<'a>,
    wait: Wait,
}

impl Waiting<'_, '_> {
    /// It, once it has waited for longer than its service has time and what it waits for has to stop, since anything of
    /// the app was assigned, or that goes.
    pub(crate) fn unplaced(
        self,
        state: &State,
        wanted: &[Wanted<'_>],
        started: Time,
        now: Time,
    ) -> Option<Unplaced> {
        let Self { slot: Wanted { slot, node, service, .. }, wait } = self;
        let last = wanted.iter().filter_map(|slot| Some(slot.fresh.as_ref()?.to.since)).max();
        let begins = started.max(last.unwrap_or_default()).max(wait.since).max(state.could_tell_since(node));
        let is_over = now.millis_since(begins) > service.update.deadline_ms.saturating_add(wait.stop_ms);
        is_over.then(|| Unplaced { slot: (*slot).clone(), reason: wait.why })
    }
}
