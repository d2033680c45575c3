//! The fault that no quorum outlasts: all controllers but one are lost with their disks, and the fleet goes on with what
//! that one has.

use std::collections::{BTreeMap, BTreeSet};

use stele_consensus::MembershipChange;
use stele_consensus::memory::MemoryStore;
use stele_model::{ControllerId, Seq};

use super::{Event, World};
use crate::controller::Controller;
use crate::limits::{HAND_OVER_US, HAND_OVER_US_MAX, LOSS_SETTLES_US, VOTERS_MIN};

/// Between two looks whether a fleet that went on may have another controller, in microseconds.
const GROW_US: u64 = 4_000_000;

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Loss {
    /// Nothing is lost.
    #[default]
    None,
    /// Whoever will be left hears nobody any more.
    Behind(ControllerId),
    /// All but one are lost.
    Lost(ControllerId),
    /// The fleet goes on with that one.
    Recovered,
}

impl World {
    /// Who will be left is chosen, and sometimes does not hear of what the others decide until they are lost.
    pub(super) fn loss_begins(&mut self, index: usize, pick: u64, for_ms: u64) {
        let Some(left) = self.survivor(pick).filter(|_| self.histories.founded) else { return };
        self.loss = Loss::Behind(left);
        if pick.is_multiple_of(2) {
            return self.lose_others(index, pick);
        }
        self.cut_off(left, index);
        let lost_us = self.now_us + (for_ms * 1000).saturating_sub(LOSS_SETTLES_US);
        self.push(lost_us, Event::GoesOn(index));
    }

    fn survivor(&self, pick: u64) -> Option<ControllerId> {
        let nodes = self.agents.len();
        let fit: Vec<_> =
            self.controllers.values().filter(|it| it.can_go_on(nodes)).map(|it| it.id).collect();
        fit.get((pick as usize / 2).checked_rem(fit.len())?).copied()
    }

    fn lose_others(&mut self, index: usize, pick: u64) {
        self.cuts.retain(|(_, _, fault)| *fault != index);
        let Loss::Behind(chosen) = self.loss else { return };
        let nodes = self.agents.len();
        let is_fit = self.controllers.get(&chosen).is_some_and(|it| it.can_go_on(nodes));
        // Its disk may have gone bad meanwhile.
        let left = if is_fit { Some(chosen) } else { self.survivor(pick) };
        let Some(left) = left else {
            self.loss = Loss::None;
            return;
        };
        self.loss = Loss::Lost(left);
        for (id, controller) in &mut self.controllers {
            if *id != left && !controller.retired {
                // Of what one replica alone has, a disk that spoils it leaves nothing.
                self.bad_disk.get_or_insert(*id);
                controller.is_lost();
            }
        }
        let now = self.now_us;
        self.trace.say(now, || format!("all controllers but {left} are lost"));
    }

    /// Whether nobody has a record any more, because it was lost with a quorum.
    pub(super) fn is_lost(&self, seq: Seq) -> bool {
        self.loss == Loss::Recovered && !self.stores().any(|(_, store)| store.records().contains_key(&seq))
    }

    /// The first record of some that nobody has any more.
    pub(crate) fn first_lost(&self, from: Seq, to: Seq) -> Option<Seq> {
        (from..=to).find(|seq| self.is_lost(*seq))
    }

    /// The records that nobody has any more, as a controller finds when it asks all others.
    pub(super) fn lost_at(&self, id: ControllerId) -> BTreeSet<Seq> {
        let store = self.controllers.get(&id).and_then(Controller::disk);
        let gaps = store.filter(|_| self.loss == Loss::Recovered).into_iter().flat_map(MemoryStore::gaps);
        gaps.flat_map(|(from, to)| *from..=*to).filter(|seq| self.is_lost(*seq)).collect()
    }

    /// How a controller is removed: also under a leader that lacks records, if no other one would miss those of the
    /// one removed, or if its disk is damaged and nobody waits for it any more.
    pub(crate) fn removal(&self, id: ControllerId) -> MembershipChange {
        let head = self.oracle.borrow().head();
        let held = |of: ControllerId| {
            let stores = self.stores().filter(move |(it, _)| *it == of);
            stores.flat_map(|(_, store)| store.records().keys().copied()).filter(move |seq| *seq <= head)
        };
        let others: BTreeSet<_> = self.living().into_iter().filter(|it| *it != id).flat_map(held).collect();
        let is_broken = self.controllers.get(&id).is_some_and(|it| it.broken);
        let is_missed = !is_broken && held(id).any(|seq| !others.contains(&seq));
        if self.loss == Loss::Recovered && !is_missed {
            MembershipChange::RemoveRegardless(id)
        } else {
            MembershipChange::Remove(id)
        }
    }

    /// A leader that lacks records hands over to a voter that lacks fewer.
    pub(crate) fn hand_over(&mut self) {
        let (at, pause) = self.hands_over;
        let may = self.loss == Loss::Recovered && self.now_us >= at;
        let Some(leader) = self.leader().filter(|_| may) else { return };
        let held: BTreeMap<_, _> = self.stores().map(|(id, store)| (id, store.records().len())).collect();
        let Some(process) = self.controllers.get_mut(&leader).and_then(|it| it.process.as_mut()) else {
            return;
        };
        let voters = process.status().conf_state.voters;
        let most = voters.iter().max_by_key(|id| held.get(id)).copied();
        if let Some(to) = most.filter(|to| held.get(to) > held.get(&leader)) {
            process.transfer(to);
            // Ever more seldom: whoever cannot stay the leader, as with a clock that is far off, would keep all from
            // deciding.
            self.hands_over = (self.now_us + pause, (2 * pause).min(HAND_OVER_US_MAX));
            self.turn(leader);
            if pause > HAND_OVER_US {
                self.set_clock_right(to);
            }
        }
    }

    /// Where the last one that has records cannot lead, whoever looks after the fleet sees to its clock.
    fn set_clock_right(&mut self, id: ControllerId) {
        let now = self.now_us;
        if let Some(controller) = self.controllers.get_mut(&id) {
            let clock = &mut controller.clock;
            let ahead = clock.local_us(now).cast_signed() - now.cast_signed() + clock.off_us;
            clock.jump(now, -ahead);
        }
    }

    fn stores(&self) -> impl Iterator<Item = (ControllerId, &MemoryStore)> {
        let living = self.controllers.values().filter(|it| !it.retired);
        living.filter_map(|it| Some((it.id, it.disk()?)))
    }

    /// The others are lost now, or the fleet that goes on may grow.
    pub(super) fn loss_goes_on(&mut self, index: usize, pick: u64) {
        match self.loss {
            Loss::Behind(_) => self.lose_others(index, pick),
            Loss::Recovered if self.living().len() < VOTERS_MIN => {
                self.add_controller();
                self.push(self.now_us + GROW_US, Event::GoesOn(index));
            }
            _ => {}
        }
    }

    /// The fleet goes on with who is left.
    pub(super) fn loss_ends(&mut self, index: usize) {
        let Loss::Lost(left) = self.loss else { return };
        let now = self.now_us;
        let lost: BTreeSet<_> = self.controllers.keys().copied().filter(|id| *id != left).collect();
        let Some(controller) = self.controllers.get_mut(&left) else { return };
        let went_on = controller.go_on_alone(now, &mut self.oracle.borrow_mut());
        let (last, head) = match went_on {
            Ok(known) => known,
            Err(why) => {
                let detail = format!("controller {left} cannot go on: {why}");
                return self.oracle.borrow_mut().fail("who-is-left-goes-on", detail);
            }
        };
        self.loss = Loss::Recovered;
        let known = self.histories.acknowledged.len();
        self.histories.forget_after(last);
        let fewer = known - self.histories.acknowledged.len();
        self.trace.say(now, || {
            format!("controller {left} goes on after record {last}, at {head}; {fewer} writes are lost")
        });
        for client in 0..self.clients.len() {
            self.clients[client].forget_after(last);
        }
        self.jetstream.forget_after(last, &lost);
        self.oracle.borrow_mut().lost.extend(lost);
        self.start_controller(left);
        self.push(now + GROW_US, Event::GoesOn(index));
    }
}
