//! The fault that no quorum outlasts: all controllers but one are lost with their disks, and the fleet goes on with what
//! that one has.

use std::collections::BTreeSet;

use stele_model::ControllerId;

use super::{Event, World};
use crate::limits::{LOSS_SETTLES_US, VOTERS_MIN};

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
